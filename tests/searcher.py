"""``bignas-zoo`` as a process of its own that knows the space `TINY`; KILL=N ends it by SIGKILL after N children.

KILL=worker:N kills its first worker after N children instead.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from conftest import TINY

from bignas_zoo.architecture import spaces
from bignas_zoo.cli.main import main
from bignas_zoo.files import store


def kill_on_demand() -> None:
    """Have a number of appended lines followed by a kill."""
    whom, _, count = os.environ.get("KILL", "0").rpartition(":")
    left, append = [int(count)], store.append_line

    def dangerous(path: Path, line: str) -> None:
        append(path, line)
        left[0] -= 1
        if left[0] == 0:
            os.kill(_child() if whom == "worker" else os.getpid(), signal.SIGKILL)

    store.append_line = dangerous


def _child() -> int:
    import multiprocessing

    return int(multiprocessing.active_children()[0].pid or 0)


if __name__ == "__main__":
    spaces.SPACES["tiny"] = TINY
    kill_on_demand()
    main()
