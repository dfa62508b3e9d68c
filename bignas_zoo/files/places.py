"""Where new folders may be made: not under one's own feet, and not where nothing can be written; where data lie."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from bignas_zoo.errors import LocalIOError


def check_place(path: Path) -> None:
    """Refuse a place that no folder can be made in, or that this process stands in.

    Raises:
        LocalIOError: with the reason, and what to do.
    """
    _check_not_here(path)
    _check_writable(path)


def _check_not_here(path: Path) -> None:
    """Refuse to replace the folder that this process stands in: it and the shell that started it would be nowhere."""
    try:
        here = Path.cwd()
    except OSError as error:
        raise LocalIOError("the folder you are in does not exist any more. Go to another one.") from error
    if not os.path.exists(path):
        return
    for folder in (here, *here.parents):
        if os.path.samefile(folder, path):
            what = "is" if folder == here else "holds"
            raise LocalIOError(
                f"{path}: {what} the folder you are in, which would be replaced. Name one to make in it, e.g. --output "
                f"{here / 'slice'}."
            )


def _check_writable(path: Path) -> None:
    """Refuse a place that nothing can be made in: the nearest folder above it that exists decides."""
    above = next((folder for folder in path.absolute().parents if os.path.lexists(folder)), Path("/"))
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return
    why = f"{above} is no folder"
    if above.is_dir():
        read_only = hasattr(os, "statvfs") and os.statvfs(above).f_flag & os.ST_RDONLY
        why = os.strerror(errno.EROFS if read_only else errno.EACCES)
    raise LocalIOError(f"{path}: cannot be created ({why}). Choose another place with --output.")


def user_folder(variable: str, kind: str) -> Path:
    """Return this program's folder of a kind: what a variable names, or the platform's place for it.

    Args:
        variable: of the environment, e.g. ``BIGNAS_ZOO_CACHE``.
        kind: "cache" or "data".

    Raises:
        LocalIOError: there is no such folder, as the user has no home.
    """
    override = os.environ.get(variable)
    if override:
        return Path(override).expanduser()
    import platformdirs

    find = {"cache": platformdirs.user_cache_path, "data": platformdirs.user_data_path}[kind]
    try:
        return find("bignas-zoo", appauthor=False)
    except RuntimeError as error:
        raise LocalIOError(
            f"no home folder is known, so there is no folder for {kind}. Set {variable} to a folder."
        ) from error


def data_root() -> Path:
    """Return the folder of a user's data; see `user_folder`."""
    return user_folder("BIGNAS_ZOO_DATA", "data")
