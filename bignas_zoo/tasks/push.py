"""`push`: a slice to its repository on the Hub, planned first, then made in one commit.

A push can be given again at any time. The plan compares what is there with what should be; a commit is made on top of
exactly the commit that was compared with, so none is made twice, whatever became of an answer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import AuthError, BigNASError, IntegrityError, NetworkError, NotFoundError, UsageError
from bignas_zoo.files import store
from bignas_zoo.hub import layout, manifest
from bignas_zoo.hub.address import COMMIT, MAIN, check_owner, check_repo, check_revision
from bignas_zoo.hub.bundle import Bundle, make, source
from bignas_zoo.hub.client import Hub, RemoteFile, RequestError, State, additions, deletions
from bignas_zoo.hub.signing import Signer, read_signer
from bignas_zoo.tasks.load import Say, silent
from bignas_zoo.zoo import registry

#: Waits between tries of a commit, in seconds.
from bignas_zoo.zoo.family import no_weights

WAITS = (1.0, 4.0, 10.0)
#: After these a commit may be tried again; after any failure it is first looked up whether it was made.
TRY_AGAIN = (None, 408, 409, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Change:
    """What happens to one file of a repository: "new", "changed", "same" or "removed"."""

    path: str
    kind: str
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What a push will do.

    Attributes:
        repo: ``ORG/NAME``.
        branch: that the commit goes to.
        url: where people look at the repository.
        private: whether others will not see it.
        makes_repo, makes_branch: whether they are not there yet.
        parent: the commit that was compared with; None if there is none.
        changes: of each file, by path.
        slice: name of the slice.
    """

    repo: str
    branch: str
    url: str
    private: bool
    makes_repo: bool
    makes_branch: bool
    parent: str | None
    changes: tuple[Change, ...]
    slice: str

    @property
    def is_empty(self) -> bool:
        """Whether everything is there already."""
        return self.parent is not None and not self.makes_branch and all(c.kind == "same" for c in self.changes)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return {
            "slice": self.slice,
            "repo": self.repo,
            "revision": self.branch,
            "url": self.url,
            "private": self.private,
            "makes_repo": self.makes_repo,
            "parent": self.parent,
            "files": [{"path": c.path, "change": c.kind, "bytes": c.bytes} for c in self.changes],
        }


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        plan: what it was to do.
        commit: that now holds exactly these files; None if it was declined.
        pushed: whether this call made the commit; False if all was there, or it was declined.
        commit_url: where people look at it.
    """

    plan: Plan
    commit: str | None
    pushed: bool
    commit_url: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {**self.plan.to_json(), "commit": self.commit, "pushed": self.pushed, "commit_url": self.commit_url}


Agree = Callable[[Sequence[Plan]], bool]


def push(
    name: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str = MAIN,
    family: str | Path | None = None,
    token: str | None = None,
    sign: str | Path | None = None,
    agree: Agree = lambda plans: True,
    say: Say = silent,
) -> PushResult:
    """Push a slice to a repository of the Hub, in one commit; the same content again makes none.

    Args:
        name: of a slice; or a slice folder of `get`, `export` or `finetune`, whose TFLite and ONNX exports are pushed.
        repo: ``ORG/NAME``, made if it is not there.
        private: others shall not see it.
        revision: the branch to commit to, made if it is not there.
        family: where to look for the name.
        token: with write access; by default HF_TOKEN, or that of ``hf auth login``.
        sign: file of an Ed25519 private key to sign the manifest with, see `hub.signing`.
        agree: shown the plan before anything is sent; False stops there.
        say: told what is going on, a sentence at a time.

    Returns:
        The plan, and the commit.

    Raises:
        UsageError: a name is none, or a public repository is there and `private` is asked for.
        NotFoundError: no such slice.
        IntegrityError: a file of the slice is damaged.
        AuthError: no token, or it may not write there.
        NetworkError: the Hub cannot be reached or failed, or somebody else pushed meanwhile.
    """
    return push_all([(name, check_repo(repo))], private, revision, family, token, sign, agree, say)[0]


def push_family(
    family: str | Path,
    owner: str,
    *,
    private: bool = False,
    revision: str = MAIN,
    token: str | None = None,
    sign: str | Path | None = None,
    agree: Agree = lambda plans: True,
    say: Say = silent,
) -> list[PushResult]:
    """Push every slice of a family to a repository of its own, ``OWNER/SLICE``; see `push`.

    Args:
        family: name, or a folder made by `train`.
        owner: a user or organisation.
        private, revision, token, sign, agree, say: see `push`; `agree` is shown all plans at once.

    Returns:
        A result a slice, ordered by MACs. After a failure the same call completes what is missing.

    Raises:
        NotFoundError: no such family, or it has no weights.
        UsageError, IntegrityError, AuthError, NetworkError: see `push`.
    """
    home = registry.get_family(family)
    if home.weights is None:
        raise NotFoundError(no_weights(home.name))
    check_owner(owner)
    targets: list[tuple[str | Path, str]] = [(s.name, check_repo(f"{owner}/{s.name}")) for s in home.slices]
    return push_all(targets, private, revision, family, token, sign, agree, say)


def push_all(
    targets: Sequence[tuple[str | Path, str]], private: bool, revision: str, family: str | Path | None,
    token: str | None, sign: str | Path | None, agree: Agree, say: Say,
) -> list[PushResult]:  # fmt: skip
    """Push slices, each to a repository, once all of them are planned and agreed to."""
    branch = check_revision(revision)
    if COMMIT.fullmatch(branch):
        raise UsageError(f"revision '{branch}': is a commit, which cannot be pushed to. Name a branch.")
    hub = Hub(token)
    hub.require_token()
    signer = None if sign is None else read_signer(Path(sign), say)
    with store.scratch_folder() as place:
        prepared = []
        for number, (name, repo) in enumerate(targets):
            bundle = _bundle(name, repo, family, place / str(number), say)
            bundle = bundle if signer is None else signed(bundle, repo, signer)
            prepared.append((bundle, plan(hub, bundle, repo, branch, private)))
        plans = [planned for _, planned in prepared]
        if not all(p.is_empty for p in plans) and not agree(plans):
            return [PushResult(p, None, False, None) for p in plans]
        return [carry_out(hub, bundle, planned, say) for bundle, planned in prepared]


def _bundle(name: str | Path, repo: str, family: str | Path | None, place: Path, say: Say) -> Bundle:
    """Make the files of a repository under a folder; the slice folder's own are copied, since it may not outlive it."""
    place.mkdir()
    with source(name, family, say) as folder:
        bundle = make(folder, repo, place, say)
        files = {}
        for path, file in bundle.files.items():
            files[path] = file
            if place not in file.parents:
                files[path] = place / path
                files[path].parent.mkdir(parents=True, exist_ok=True)
                store.copy(file, files[path])
    for file_name, reason in bundle.left_out.items():
        say(f"{file_name}: stays here; {reason}")
    return Bundle(bundle.slice, files, bundle.left_out)


def signed(bundle: Bundle, repo: str, signer: Signer) -> Bundle:
    """Return a bundle with a signature of its manifest for a repository."""
    from bignas_zoo.files import store

    listed = bundle.files[manifest.FILE]
    file = listed.with_name(manifest.SIGNATURE)
    store.atomic_write(file, signer.sign(listed.read_bytes(), repo))
    return Bundle(bundle.slice, {**bundle.files, manifest.SIGNATURE: file}, bundle.left_out)


def plan(hub: Hub, bundle: Bundle, repo: str, branch: str, private: bool) -> Plan:
    """Compare a bundle with what is in its repository.

    Raises:
        UsageError: `private` is asked for, and the repository is public.
        AuthError, NetworkError: see `push`.
    """
    state, makes_branch = _state(hub, repo, branch)
    if state and private and not state.private:
        raise UsageError(f"{hub.url(repo)}: is public, so it is not pushed to with --private. Choose another --repo.")
    return Plan(
        repo=repo,
        branch=branch,
        url=hub.url(repo),
        private=state.private if state else private,
        makes_repo=state is None,
        makes_branch=makes_branch,
        parent=state.commit if state else None,
        changes=compare(bundle.files, state.files if state else {}),
        slice=bundle.slice.name,
    )


def _state(hub: Hub, repo: str, branch: str) -> tuple[State | None, bool]:
    """Return what the branch is, or what it will be made from; and whether it has to be made."""
    try:
        return hub.state(repo, branch), False
    except NotFoundError:
        if branch == MAIN:
            return None, False
    try:
        return hub.state(repo, MAIN), True
    except NotFoundError:
        return None, True


def compare(files: Mapping[str, Path], remote: Mapping[str, RemoteFile]) -> tuple[Change, ...]:
    """Return what has to happen to each file so that the repository holds these; other people's files stay."""
    changes = []
    for path, file in files.items():
        data = file.read_bytes()
        kind = "new" if path not in remote else "same" if is_same(data, remote[path]) else "changed"
        changes.append(Change(path, kind, len(data)))
    stale = [path for path in remote if path not in files and layout.is_ours(path)]
    if any(c.path == manifest.FILE and c.kind == "same" for c in changes):  # a signature of it stays good
        stale = [path for path in stale if path != manifest.SIGNATURE]
    changes += [Change(path, "removed", remote[path].bytes) for path in stale]
    return tuple(sorted(changes, key=lambda c: c.path))


def is_same(data: bytes, remote: RemoteFile) -> bool:
    """Return whether a file of the Hub has these bytes."""
    if remote.sha256 is not None:
        return hashlib.sha256(data).hexdigest() == remote.sha256
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == remote.oid


def carry_out(hub: Hub, bundle: Bundle, planned: Plan, say: Say = silent) -> PushResult:
    """Do what was planned.

    Raises:
        AuthError, NetworkError: see `push`. Nothing is half done: the commit is there or it is not.
    """
    if planned.is_empty:
        assert planned.parent
        return PushResult(planned, planned.parent, False, hub.url(planned.repo, planned.parent))
    parent = planned.parent
    if planned.makes_repo:
        say(f"making {'private ' if planned.private else ''}repository {planned.repo}")
        hub.create(planned.repo, private=planned.private)
        made = hub.state(planned.repo, MAIN)
        _check_private(hub, planned, made)
        parent = made.commit
    if planned.makes_branch:
        hub.create_branch(planned.repo, planned.branch)
        parent = hub.state(planned.repo, planned.branch).commit
    assert parent
    commit = _commit(hub, bundle, planned, parent, say)
    return PushResult(planned, commit, True, hub.url(planned.repo, commit))


def _check_private(hub: Hub, planned: Plan, made: State) -> None:
    if planned.private and not made.private:  # somebody else made it between the plan and now
        raise AuthError(f"{hub.url(planned.repo)}: is not private, as was asked for. Nothing was pushed.")


def _commit(hub: Hub, bundle: Bundle, planned: Plan, parent: str, say: Say) -> str:
    """Make the one commit; a failure is followed by a look whether it was made."""
    removed = [c.path for c in planned.changes if c.kind == "removed"]
    changed = {c.path: bundle.files[c.path] for c in planned.changes if c.kind in ("new", "changed")}
    if not changed and not removed:  # a new branch that holds everything from the start
        return parent
    operations: list[Any] = [*additions(changed), *deletions(removed)]
    files, size = "file" if len(changed) == 1 else "files", sum(f.stat().st_size for f in changed.values())
    say(f"pushing {len(changed)} {files}, {size:,} bytes, to {planned.repo}")
    for wait in (*WAITS, None):
        try:
            commit = hub.commit(planned.repo, planned.branch, operations, f"Slice {planned.slice}", parent)
            _look_again(hub, bundle, planned, commit, say)
            return commit
        except RequestError as failure:
            found = _made(hub, bundle, planned)
            if found.commit != parent:
                if found.files_match:
                    say("the Hub answered with an error, but the commit is there")
                    return found.commit
                raise NetworkError(
                    f"{hub.url(planned.repo)}: somebody else pushed to {planned.branch} meanwhile; "
                    "nothing was changed. Run the same command again to see the plan anew."
                ) from failure
            if wait is None or failure.status not in TRY_AGAIN:
                raise
            say(f"{failure} Trying again in {wait:.0f} s.")
            time.sleep(wait)
    raise AssertionError("the last wait is None")


def _look_again(hub: Hub, bundle: Bundle, planned: Plan, commit: str, say: Say) -> None:
    """Check that the commit holds what was pushed: a Hub may leave files out without a word."""
    try:
        files = hub.state(planned.repo, commit).files
    except BigNASError as error:
        say(f"pushed, but not looked at again: {error}")
        return
    wrong = [c.path for c in compare(bundle.files, files) if c.kind != "same"]
    if wrong:
        raise IntegrityError(
            f"{hub.url(planned.repo, commit)}: holds other files than were pushed ({', '.join(wrong[:5])}). "
            "Look at .gitignore and .gitattributes there, and push again."
        )


@dataclass(frozen=True)
class _Found:
    commit: str
    files_match: bool


def _made(hub: Hub, bundle: Bundle, planned: Plan) -> _Found:
    """Look up what is at the branch now, and whether that is what was to be pushed."""
    try:
        state = hub.state(planned.repo, planned.branch)
    except BigNASError as error:
        raise NetworkError(
            f"{hub.url(planned.repo)}: the commit was answered with an error, and whether it was made cannot be seen "
            f"({error}) Run the same command again: it makes no second one."
        ) from error
    return _Found(state.commit, all(c.kind == "same" for c in compare(bundle.files, state.files)))
