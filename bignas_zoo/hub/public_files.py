"""A published file by its address: fetched with resume and retry, by huggingface_hub's own client."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bignas_zoo.errors import BigNASError, LocalIOError, NetworkError, NotFoundError
from bignas_zoo.files import locks
from bignas_zoo.files.say import Say, silent
from bignas_zoo.hub import client

HUB = "https://huggingface.co/"
PART = ".part"


def fetch_public(url: str, place: Path, *, size: int | None = None, say: Say = silent) -> Path:
    """Fetch a file that anybody may fetch; what an earlier, interrupted call left is gone on with.

    Args:
        url: its address; ``https://huggingface.co`` gives way to ``HF_ENDPOINT``.
        place: the file to make; its bytes are not checked here.
        size: its bytes, if they are known.
        say: told what is going on.

    Returns:
        The file.

    Raises:
        NetworkError: requests are forbidden (``HF_HUB_OFFLINE``), or the server cannot be reached, fails or refuses.
        NotFoundError: there is no such file.
        LocalIOError: it cannot be written, or another process is fetching it.
    """
    if client.is_offline():
        raise NetworkError(f"{url}: offline: HF_HUB_OFFLINE is set. Unset it, or name a file that you have.")
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    address = f"{endpoint}/{url.removeprefix(HUB)}" if endpoint and url.startswith(HUB) else url
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(f"{place.parent}: cannot be made ({error.strerror}). Choose another place.") from error
    part = place.with_name(place.name + PART)
    with locks.exclusive(part.with_name(f"{part.name}.lock"), "a download", part) as problem:
        if problem:
            say(problem)
        _fetch(address, part, size, say)
        part.replace(place)
    return place


def _fetch(url: str, part: Path, size: int | None, say: Say) -> None:
    from huggingface_hub.file_download import http_get

    host = urlsplit(url).hostname or url
    try:
        with part.open("ab") as file, client.timeouts(), _bar():
            begun = file.tell()
            if size is not None and begun > size:
                file.truncate(begun := 0)
            say(f"{host}: {'going on with' if begun else 'fetching'} {url.rpartition('/')[2]}")
            # The file's server says how long it is; a part that is longer, or whole, is answered with 416.
            http_get(url, file, resume_size=begun, expected_size=size, headers={"Accept-Encoding": "identity"})
    except BigNASError:
        raise
    except Exception as error:  # its client raises almost any kind
        raise _translated(error, url, part) from error


def _translated(error: Exception, url: str, part: Path) -> BigNASError:
    """Return what a failure means."""
    import httpx2

    again = "Run the same command again: what is there already is kept. Or fetch it yourself, and name the file."
    for cause in client.causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status == 404:
            return NotFoundError(f"{url}: there is no such file any more (404). Fetch it by hand and name it.")
        if status == 416:  # a part that does not fit the file that is there now
            with contextlib.suppress(OSError):
                part.unlink()
            return NetworkError(f"{url}: what was fetched before is no part of it; it is deleted. {again}")
        if status is not None:
            return NetworkError(f"{url}: the server refuses ({status}). {again}")
        if isinstance(cause, httpx2.TransportError):
            return NetworkError(f"{url}: the connection failed ({_one_line(cause)}). {again}")
    if isinstance(error, OSError) and error.errno is not None:
        return LocalIOError(f"{part}: cannot be written ({error.strerror}). Free space, or choose another place.")
    return NetworkError(f"{url}: could not be fetched ({_one_line(error)}). {again}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


@contextlib.contextmanager
def _bar() -> Iterator[None]:
    """Show the client's progress bar to a terminal, and nothing to a file."""
    if not sys.stderr.isatty():
        with client.quiet():
            yield
        return
    logger = logging.getLogger("huggingface_hub")  # which tells of each retry at length
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
