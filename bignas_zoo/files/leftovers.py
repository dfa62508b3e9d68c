"""Temporary files and folders: made under a lock, cleared away when their maker was killed, renamed when complete.

A temporary file or folder is locked (flock) by the process that writes it, and the kernel frees the lock when that
process ends, by kill -9 too. So one without a lock is left over, and the next writer in the same folder deletes it at
once. Its name says which running kernel locked it: a lock of another machine, or of before a restart, proves nothing,
and neither does one on a file system without locks; what lies there is deleted when it is an hour old.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".bignas-tmp-"
#: A folder with the old content of a name, see `replace`.
ASIDE = f"{TEMPORARY}aside-"
HOUR = 3600.0
TRIES = 20
#: Temporary files and folders of this process that are not deleted yet, and the process, as children inherit this.
_MINE: dict[Path, int] = {}
#: Handles by which this process keeps folders.
_KEPT: dict[Path, int] = {}


@functools.cache
def kernel() -> str:
    """Return 8 hex digits that processes share whose locks exclude each other: those of one running kernel."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        import platform

        text = platform.node()
    import hashlib  # loads OpenSSL: for what writes alone

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def lock(handle: int, *, shared: bool = False) -> bool | None:
    """Lock an open file or folder without waiting; closing it frees the lock.

    Returns:
        True; False if another process holds it; None where there are no locks.
    """
    try:
        import fcntl

        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ImportError):
        return None
    return True


def open_folder(path: Path) -> int | None:
    """Open a folder so that it can be locked; None where that is not possible. A link is not followed."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (OSError, AttributeError):  # Windows has no such flags
        return None


def is_open_at(handle: int, path: Path) -> bool:
    """Return whether a path still names what was opened."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


def _new_name(parent: Path, prefix: str) -> Path:
    """Return a name that nothing has.

    Not by `tempfile`, which tells a name only once it is made: a Ctrl-C in between left what nobody knew to delete.
    """
    return parent.absolute() / f"{prefix}{kernel()}-{os.urandom(6).hex()}"


def new_file(parent: Path) -> tuple[int, Path]:
    """Make a temporary file, locked by its handle; raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    for _ in range(TRIES):
        path = _new_name(parent, TEMPORARY)
        _MINE[path] = os.getpid()
        try:
            handle = os.open(path, flags, 0o600)
        except OSError:
            done_with(path)
            raise
        if lock(handle) is not False and is_open_at(handle, path):
            return handle, path
        os.close(handle)
        done_with(path)  # another process took it for a leftover in the instant before it was locked
    raise OSError(f"temporary files vanish in {parent}")


def locked_folder(parent: Path, prefix: str = TEMPORARY) -> tuple[Path, int | None]:
    """Make a temporary folder, locked by a handle, where folders have any; raises OSError."""
    for _ in range(TRIES):
        path = _new_name(parent, prefix)
        if prefix == TEMPORARY:
            _MINE[path] = os.getpid()
        try:
            path.mkdir(0o700)
        except OSError:
            done_with(path)
            raise
        handle = open_folder(path)
        if handle is None and os.path.lexists(path):
            return path, None
        if handle is not None:
            if lock(handle) is not False and is_open_at(handle, path):
                return path, handle
            os.close(handle)
        done_with(path)
    raise OSError(f"temporary folders vanish in {parent}")


@contextlib.contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder, locked while it is used, and deleted after; raises OSError."""
    path, handle = locked_folder(parent)
    try:
        yield path
    finally:
        delete(path)
        done_with(path)
        _close(handle)


def done_with(path: Path) -> None:
    """Note that a temporary file or folder has its final name, or is deleted."""
    _MINE.pop(path, None)


@atexit.register
def tidy_up() -> None:
    """Delete what is left of this process: Ctrl-C may come while something is being deleted."""
    for path, process in list(_MINE.items()):
        if process == os.getpid():
            delete(path)


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def hold(folder: Path) -> int | None:
    """Keep `take_away` from deleting a folder until the handle is closed; None where it is missing, or has no locks."""
    handle = open_folder(folder)
    if handle is None:
        return None
    for _ in range(TRIES):
        if lock(handle, shared=True) is not False:
            break
        time.sleep(0.02)  # its maker is about to let go of it, or it is being removed
    if is_open_at(handle, folder):
        return handle
    os.close(handle)
    return None


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache while it is read, see `hold`; it may be missing."""
    handle = hold(folder)
    try:
        yield
    finally:
        _close(handle)


def keep(folder: Path) -> None:
    """Hold a folder of the cache, see `hold`, until this process ends: its path has been handed out."""
    kept = _KEPT.get(folder)
    if kept is None or not is_open_at(kept, folder):
        _close(_KEPT.pop(folder, None))
        handle = hold(folder)
        if handle is not None:
            _KEPT[folder] = handle


def mark_used(folder: Path) -> None:
    """Note that a folder of the cache was used now: its own time says so. One that cannot be written stays as it is."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def take_away(folder: Path) -> bool:
    """Delete a folder that nobody holds, whole or not at all: it loses its name first.

    Returns:
        False if a process uses it, or it cannot be renamed.
    """
    handle = open_folder(folder)
    if handle is None:
        return False
    try:
        if lock(handle) is False or not is_open_at(handle, folder):
            return False
        doomed = folder.parent / f"{TEMPORARY}{kernel()}-{os.urandom(6).hex()}"
        os.rename(folder, doomed)
    except OSError:
        return False
    else:
        delete(doomed)
        return True
    finally:
        os.close(handle)


def delete(path: Path) -> None:
    """Delete a file, a link or a whole folder, as far as that is possible; no link is followed."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # by commands that delete alone

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def temporary_paths(folder: Path) -> list[Path]:
    """Return the temporary files and folders in a folder, in use or not."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if e.name.startswith(TEMPORARY))
    except OSError:
        return []


def remove(folder: Path, *, older_than: float = HOUR) -> list[Path]:
    """Delete what killed writers left in a folder, and put back what one of them had moved aside.

    Args:
        folder: where to look; nothing happens if it is not there.
        older_than: the age in seconds from which what no lock tells about counts as left over.

    Returns:
        What is gone. What cannot be deleted stays.
    """
    return [path for path in temporary_paths(folder) if _clear(path, older_than)]


def _clear(path: Path, older_than: float) -> bool:
    try:
        young = time.time() - path.lstat().st_mtime < older_than
        ours = path.name.removeprefix(ASIDE).removeprefix(TEMPORARY).startswith(f"{kernel()}-")
        with locked(path) as free:
            if free is False or (young and not (ours and free)):
                return False
            if path.name.startswith(ASIDE):
                _put_back(path)
            delete(path)
    except OSError:
        return False
    return not os.path.lexists(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool | None]:
    """Lock what is there, see `lock`; a link, or what cannot be opened, has no lock."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except OSError:
        yield None
        return
    try:
        yield lock(handle)
    finally:
        os.close(handle)


def replace(new: Path, path: Path) -> None:
    """Give a finished file or folder its final name; what had the name is deleted after.

    A file replaces a file in one step, but no system call replaces a folder that holds something. Linux can exchange
    two names (renameat2), so a kill leaves the old or the new folder there, whole. Elsewhere the old folder is first
    moved aside: a kill in the instant before the new one is there leaves the name empty and the old content under a
    name that says where it belongs; the next writer in that folder puts it back (`remove`).

    Raises:
        OSError: the name is as it was.
    """
    if not os.path.lexists(path) or not (path.is_dir() or new.is_dir()):
        os.replace(new, path)
    elif exchange(new, path):
        delete(new)
    else:
        _by_way_of_another_name(new, path)


def _by_way_of_another_name(new: Path, path: Path) -> None:
    aside, handle = locked_folder(path.parent, ASIDE)
    try:
        os.rename(path, aside / path.name)
        try:
            os.rename(new, path)
        except OSError:
            _put_back(aside)  # or else it stays for the next writer to put back
            raise
        delete(aside)
    finally:
        _close(handle)
        with contextlib.suppress(OSError):
            aside.rmdir()


def _put_back(aside: Path) -> None:
    """Give what was moved aside its name again, unless something else has it by now."""
    for old in aside.iterdir():
        if not os.path.lexists(aside.parent / old.name):
            with contextlib.suppress(OSError):
                os.rename(old, aside.parent / old.name)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot, and nothing has changed."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    call = getattr(ctypes.CDLL(None), "renameat2", None)  # not in every C library
    here, exchanging = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), exchanging) == 0
