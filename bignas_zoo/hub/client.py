"""The one module that speaks to the Hub: huggingface_hub, quiet, with timeouts, its failures as this project's errors.

huggingface_hub is imported when a `Hub` is made, not before. No token ever gets into a message.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.errors import AuthError, BigNASError, LocalIOError, NetworkError, NotFoundError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

#: Longest wait for a connection, and for the next byte of an answer, in seconds.
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
MAX_MODELS = 1_000
ENDPOINT = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
#: What an HTTP header can carry.
TOKEN = re.compile(r"[!-~]+")
LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN."
AGAIN = "Run the same command again."


@dataclass(frozen=True)
class RemoteFile:
    """A file in a commit of the Hub.

    Attributes:
        bytes: its size.
        oid: git's id of its content, or of its LFS pointer.
        sha256: of an LFS file's content; None for others.
    """

    bytes: int
    oid: str
    sha256: str | None


def is_same(data: bytes, remote: RemoteFile) -> bool:
    """Return whether a file of the Hub has these bytes."""
    if remote.sha256 is not None:
        return hashlib.sha256(data).hexdigest() == remote.sha256
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == remote.oid


@dataclass(frozen=True)
class State:
    """A commit of a repository.

    Attributes:
        commit: its 40 hex digits.
        private: whether others cannot see the repository.
        files: path to file.
    """

    commit: str
    private: bool
    files: Mapping[str, RemoteFile]


class RequestError(NetworkError):
    """A request that failed, with the status it was answered with; None where no answer came."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


def is_offline() -> bool:
    """Return whether the environment forbids requests: ``HF_HUB_OFFLINE`` is set."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


class Hub:
    """A Hub and whoever uses it."""

    def __init__(self, token: str | None = None) -> None:
        """Look up where the Hub is (``HF_ENDPOINT``) and, unless a token is given, who uses it.

        Raises:
            NetworkError: requests are forbidden.
            UsageError: huggingface_hub is missing, or ``HF_ENDPOINT`` is no address.
            AuthError: the token cannot be one.
        """
        if is_offline():
            raise NetworkError("offline: HF_HUB_OFFLINE is set. Unset it to reach the Hub.")
        try:
            import huggingface_hub
        except ImportError as error:
            raise UsageError("the Hub needs huggingface_hub. pip install 'huggingface_hub>=2.0'.") from error
        from bignas_zoo.files import provenance

        self.endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        if "@" in self.endpoint:
            raise UsageError(
                "HF_ENDPOINT: must hold no user or password (it is not shown); a token goes into HF_TOKEN."
            )
        if not ENDPOINT.fullmatch(self.endpoint):
            raise UsageError(
                f"HF_ENDPOINT: {self.endpoint[:200]!r} is no address of a Hub, such as https://huggingface.co."
            )
        self.token = token or huggingface_hub.get_token()
        if self.token and not TOKEN.fullmatch(self.token):
            raise AuthError(
                f"{self.endpoint}: the token holds characters that no token has (it is not shown). {LOG_IN}"
            )
        self._api: HfApi = huggingface_hub.HfApi(
            endpoint=self.endpoint,
            token=self.token or False,
            library_name="bignas-zoo",
            library_version=provenance.versions().get("bignas-zoo"),
        )

    def url(self, repo: str, commit: str | None = None) -> str:
        """Return where people look at a repository, or at a commit of it."""
        return f"{self.endpoint}/{repo}" + (f"/commit/{commit}" if commit else "")

    def require_token(self) -> None:
        """Check that there is a token.

        Raises:
            AuthError: there is none.
        """
        if not self.token:
            raise AuthError(f"{self.endpoint}: to push, a token with write access is needed. {LOG_IN}")

    def state(self, repo: str, revision: str) -> State:
        """Return what a revision of a repository is; one request.

        Raises:
            NotFoundError: no such repository or revision.
            AuthError: it is private and the token does not open it.
            NetworkError: the Hub failed.
        """
        with self._errors(f"{repo}@{revision}"):
            info = self._api.model_info(repo, revision=revision, files_metadata=True, timeout=READ_SECONDS)
            files = {
                str(s.rfilename): RemoteFile(int(s.size or 0), str(s.blob_id), s.lfs.sha256 if s.lfs else None)
                for s in info.siblings or ()
            }
            return State(str(info.sha), bool(info.private), files)

    def create(self, repo: str, *, private: bool) -> None:
        """Make a repository, unless it is there.

        Raises:
            AuthError: the token may not.
            NetworkError: the Hub failed.
        """
        with self._errors(repo):
            self._api.create_repo(repo, private=private, exist_ok=True)

    def create_branch(self, repo: str, branch: str) -> None:
        """Make a branch at the head of main, unless it is there.

        Raises:
            AuthError, NetworkError: as in `create`.
        """
        with self._errors(f"{repo}@{branch}"):
            self._api.create_branch(repo, branch=branch, exist_ok=True)

    def commit(
        self, repo: str, branch: str, operations: Sequence[CommitOperationAdd | CommitOperationDelete],
        message: str, parent: str,
    ) -> str:  # fmt: skip
        """Upload files that are not there yet and make one commit.

        Args:
            operations: of `additions` and `deletions`; given again after a failure they are not uploaded again.
            parent: the commit that it must follow.

        Returns:
            The commit.

        Raises:
            AuthError, NotFoundError: as in `state`.
            RequestError: the Hub failed; the commit may have been made all the same.
        """
        with self._errors(f"{repo}@{branch}"):
            info = self._api.create_commit(
                repo, operations, commit_message=message, revision=branch, parent_commit=parent
            )
            return str(info.oid)

    def download(self, repo: str, commit: str, path: str, folder: Path, *, force: bool = False) -> Path:
        """Fetch a file of a commit into a folder; what comes is not checked yet.

        Raises:
            NotFoundError, AuthError, NetworkError: as in `state`.
            LocalIOError: the folder cannot be written.
        """
        from huggingface_hub import hf_hub_download

        with self._errors(f"{repo}@{commit[:12]}/{path}"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Not enough free disk space")  # the error that follows says so
            return Path(
                hf_hub_download(
                    repo, path, revision=commit, local_dir=folder, cache_dir=folder / ".none", endpoint=self.endpoint,
                    token=self.token or False, library_name="bignas-zoo", force_download=force,
                )
            )  # fmt: skip

    def models(self, author: str, tag: str) -> list[dict[str, Any]]:
        """Return an owner's models with a tag: ``id``, ``sha``, ``modified``, ``private`` and ``card`` (metadata).

        Raises:
            NetworkError: the Hub failed.
        """
        with self._errors(author):
            infos = self._api.list_models(author=author, filter=tag, cardData=True, full=True, limit=MAX_MODELS)
            return [
                {
                    "id": str(m.id), "sha": m.sha, "modified": str(m.last_modified), "private": bool(m.private),
                    "card": dict(m.card_data.to_dict()) if m.card_data else {},  # type: ignore[no-untyped-call]
                }
                for m in infos
            ]  # fmt: skip

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn any failure inside into one of ours, with what it was about; keep the client quiet meanwhile."""
        try:
            with quiet(), timeouts():
                yield
        except BigNASError:
            raise
        except Exception as error:  # noqa: BLE001  its client raises almost any kind
            raise self._translated(error, what) from (None if self._contains_token(error) else error)

    def _contains_token(self, error: BaseException | None) -> bool:
        """Return whether a token stands in an error or in what caused it."""
        while error is not None and self.token:
            if self.token in f"{error} {error.args}":
                return True
            error = error.__cause__ or error.__context__
        return False

    def _translated(self, error: Exception, what: str) -> BigNASError:
        import httpx2
        from huggingface_hub import errors as hub_errors

        where = f"{self.endpoint}: {what}"
        for cause in causes(error):
            if isinstance(cause, hub_errors.RevisionNotFoundError):
                return NotFoundError(f"{where}: no such branch, tag or commit.")
            if isinstance(cause, hub_errors.RemoteEntryNotFoundError):
                return NotFoundError(f"{where}: no such file.")
            if isinstance(cause, hub_errors.HfHubHTTPError) and cause.response is not None:
                return self._status(cause.response.status_code, where, cause)
            if isinstance(cause, httpx2.HTTPStatusError):
                return self._status(cause.response.status_code, where, cause)
            if isinstance(cause, httpx2.TimeoutException):
                return RequestError(f"{where}: no answer in {READ_SECONDS:.0f} s. {AGAIN}", None)
            if isinstance(cause, httpx2.TransportError):
                return RequestError(f"{where}: the connection failed ({self._one_line(cause)}). {AGAIN}", None)
        if isinstance(error, OSError) and error.errno is not None:
            return LocalIOError(f"{error.filename or what}: {error.strerror}. Free space or choose another place.")
        failure = f"{type(error).__name__}: {self._one_line(error)}"
        return RequestError(f"{where}: failed ({failure}). Try again; if that fails too, --debug shows where.", None)

    def _status(self, status: int, where: str, error: Exception) -> BigNASError:
        """Return the error that a status stands for."""
        answer = self._one_line(error)
        if status == 401:
            known = "the token is not known there, or opens no such repository" if self.token else "there is no token"
            return AuthError(f"{where}: does not exist, or is private, and {known} (401). {LOG_IN}")
        if status == 403:
            return AuthError(f"{where}: the token may not do that (403: {answer}). Use one with write access. {LOG_IN}")
        if status == 404:
            return NotFoundError(f"{where}: no such repository, or it is private (404). Check the name. {LOG_IN}")
        meaning = {
            408: "the Hub waited too long for the request",
            409: "it is in conflict with something there",
            412: "somebody else changed it meanwhile",
            429: "too many requests; wait some minutes",
        }.get(status, "the Hub has a fault of its own" if status >= 500 else "the Hub refuses it")
        return RequestError(f"{where}: {meaning} ({status}: {answer}). {AGAIN}", status)

    def _one_line(self, error: Exception) -> str:
        """Return what an error says, in one short line without the token."""
        text = str(getattr(error, "server_message", None) or error)
        if self.token:
            text = text.replace(self.token, "***")
        line = " ".join(text.split())
        return "".join(c for c in line if c.isprintable())[:160]


def additions(files: Mapping[str, Path]) -> list[CommitOperationAdd]:
    """Return the operations that add files: path in the repository to file."""
    from huggingface_hub import CommitOperationAdd

    return [CommitOperationAdd(path, str(file)) for path, file in files.items()]


def deletions(paths: Sequence[str]) -> list[CommitOperationDelete]:
    """Return the operations that remove files."""
    from huggingface_hub import CommitOperationDelete

    return [CommitOperationDelete(path, is_folder=False) for path in paths]


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and what caused it, the error first: the client wraps what happened in errors of its own."""
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the client's bars and remarks off stderr; this project says what happens itself."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    before, hidden = logger.level, are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    if not hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(before)
        if not hidden:
            enable_progress_bars()


@contextlib.contextmanager
def timeouts() -> Iterator[None]:
    """Bound waiting: the client's session waits for ever unless somebody has set a time."""
    import httpx2
    from huggingface_hub import get_session

    session = get_session()
    before = session.timeout
    if before == httpx2.Timeout(None):
        session.timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    try:
        yield
    finally:
        session.timeout = before
