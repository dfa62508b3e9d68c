"""The folder of a run: one trainer at a time."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bignas_zoo.errors import LocalIOError
from bignas_zoo.store import exclusive, remove_leftovers

LOCK = "train.lock"
HOUR = 3_600


@contextmanager
def hold(workdir: Path, say: Callable[[str], None] = lambda message: None) -> Iterator[None]:
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
        raise LocalIOError(f"{workdir}: cannot be created ({error.strerror}).") from error
    with exclusive(workdir / LOCK, f"process {os.getpid()} on {platform.node()}") as unlocked:
        if unlocked:
            say(unlocked)
        remove_leftovers(workdir, older_than=HOUR)  # a `get` may be writing beside us
        yield
