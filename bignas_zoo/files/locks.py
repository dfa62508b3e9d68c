"""Lock files: what one process at a time may do in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from bignas_zoo.errors import LocalIOError


@contextlib.contextmanager
def exclusive(path: Path, holder: str, place: Path | None = None) -> Iterator[str | None]:
    """Hold a lock file; the kernel frees it when this process ends, however it ends.

    The file itself stays: to remove it would let two processes hold locks on two files of one name.

    Args:
        path: the lock file, made if missing.
        holder: who asks, written into the file for the message to others.
        place: what the lock is for, in messages; by default the file's folder.

    Yields:
        None; or, in words, why nothing is locked: the file system or the platform has no locks. (Some
        network file systems grant a lock to everyone. Nothing here can notice that.)

    Raises:
        LocalIOError: another process holds it, or the file cannot be opened.
    """
    from filelock import FileLock, Timeout  # it takes a while to load, and few commands lock anything

    place = place or path.parent
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be opened ({error.strerror}). Choose another place.") from error
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise LocalIOError(
            f"{place}: in use by {_holder(path)}. Wait until it has ended, or choose another --output."
        ) from error
    except (OSError, NotImplementedError) as error:
        yield f"{place}: no locks here ({error}); see to it yourself that only one process uses it"
        return
    try:
        with contextlib.suppress(OSError):  # Windows lets nobody write to a locked file by another handle
            path.write_text(holder, "utf-8")
        yield None
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Return what the holder of a lock file wrote into it."""
    with contextlib.suppress(OSError):
        return path.read_bytes()[:200].decode("utf-8", "replace").strip() or "another process"
    return "another process"
