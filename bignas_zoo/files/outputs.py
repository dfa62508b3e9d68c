"""Single files that a user names with --output or --plot: never another file's content, never a device's place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bignas_zoo.errors import LocalIOError
from bignas_zoo.files.store import atomic_write

#: What files of a kind begin with, by the end of their names.
BEGINNINGS = {
    ".png": (b"\x89PNG",),
    ".svg": (b"<?xml", b"<svg"),
    ".npz": (b"PK\x03\x04",),
    ".md": (b"---\n",),
    ".html": (b"<!doctype html>",),
}


def write_output(path: Path, data: bytes, kind: str) -> None:
    """Write a file, whole or not at all; a pipe or device takes the bytes as they come.

    A link is followed. A file that is there is replaced only if it is of the same kind, as far as its first bytes say.

    Args:
        path: as the user gave it.
        data: the content.
        kind: a key of `BEGINNINGS`; need not be the end of the file's name.

    Raises:
        LocalIOError: a file of another kind is there, or it is read-only, or the place cannot be written to.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:
        raise _failed(path, error) from error
    try:
        if mode is not None and not stat.S_ISREG(mode):
            with path.open("wb") as file:  # of a folder, this says so
                file.write(data)
            return
        target = Path(os.path.realpath(path))
        if mode is not None:
            _check_replaceable(path, target, mode, BEGINNINGS[kind])
    except OSError as error:
        if isinstance(error, LocalIOError):
            raise
        raise _failed(path, error) from error
    atomic_write(target, data)


def _check_replaceable(path: Path, target: Path, mode: int, beginnings: tuple[bytes, ...]) -> None:
    if not mode & 0o222:
        raise LocalIOError(f"{path}: is read-only, so it is not replaced. Remove it, or choose another name.")
    with target.open("rb") as file:
        beginning = file.read(max(map(len, beginnings)))
    if beginning and not beginning.startswith(beginnings):
        raise LocalIOError(
            f"{path}: is there and is not what this command writes, so it is not replaced. Remove it, or choose "
            "another name."
        )


def _failed(path: Path, error: Exception) -> LocalIOError:
    why = getattr(error, "strerror", None) or error
    return LocalIOError(f"{path}: cannot be written ({why}). Choose another place.")
