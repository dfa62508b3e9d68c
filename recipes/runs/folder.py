"""The folder of a run: one trainer at a time."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bignas_zoo.errors import LocalIOError, UsageError
from bignas_zoo.files import names
from bignas_zoo.files.locks import exclusive
from bignas_zoo.files.say import Say, silent
from bignas_zoo.files.store import remove_leftovers
from bignas_zoo.models.preprocess import SUFFIXES
from bignas_zoo.recipes.data.dataset import is_tfrecords
from bignas_zoo.recipes.data.images import is_cifar10

HOUR = 3_600


def check_output(output: Path, data: str | Path) -> None:
    """Refuse a run's folder that cannot be one, before the images are read.

    Raises:
        UsageError: it lies in the folder of class folders that the images come from, where it would be taken
            for a class; or its name is not text.
        LocalIOError: there is a file of that name.
    """
    try:
        str(output).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"--output {str(output)!r}: not a name in UTF-8; choose another one.") from error
    if output.exists() and not output.is_dir():
        raise LocalIOError(f"{output}: is a file; --output is a folder, new or of the same run.")
    folder = Path(data)
    if _holds_classes(folder) and output.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"--output {output}: lies in {data}, where each folder is a class of images. Choose a folder outside it."
        )


def _holds_classes(folder: Path) -> bool:
    """Return whether a folder is one of class folders: with images two or, in splits, three levels down."""
    if not folder.is_dir() or is_cifar10(folder) or is_tfrecords(folder):
        return False
    below = (path for pattern in ("*/*", "*/*/*") for path in folder.glob(pattern))
    return any(path.suffix.lower() in SUFFIXES for path in below)


@contextmanager
def hold(workdir: Path, say: Say = silent) -> Iterator[None]:
    """Make a run's folder, keep other trainers out of it, and clear away what a killed one left.

    The lock is advisory and of the file system: on one host it always works, and the kernel frees it
    when its holder dies. Between hosts it works on NFSv4 and on Lustre mounted with ``flock``; some
    network file systems grant it to everyone, or know no locks, which is said.

    Args:
        workdir: the run's folder; made if missing.
        say: told if the file system has no locks.

    Raises:
        LocalIOError: another process trains there, or the folder cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(f"{workdir}: cannot be created ({error.strerror}). Choose another --output.") from error
    with exclusive(workdir / names.LOCK, f"process {os.getpid()} on {platform.node()}") as unlocked:
        if unlocked:
            say(unlocked)
        remove_leftovers(workdir, older_than=HOUR)  # a `get` may be writing beside us
        yield
