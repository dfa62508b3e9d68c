"""Ctrl-C and SIGTERM: as an exception where that is safe, else by tidying up and leaving at once."""

from __future__ import annotations

import contextlib
import os
import sys
from types import FrameType
from typing import NoReturn

from bignas_zoo.files import leftovers
from bignas_zoo.runtime.quiet import stderr_descriptor

INTERRUPTED, TERMINATED = 130, 143
#: Libraries whose native code calls Python back. An exception that crosses it gets lost, or crashes the process.
NATIVE = tuple(
    f"{os.sep}{name}{os.sep}"
    for name in ("tensorflow", "keras", "jax", "jaxlib", "onnxruntime", "ai_edge_litert", "litert_quantizer")
)
SHOW_CURSOR, CLEAR_LINE = "\x1b[?25h", "\r\x1b[K"


class Interrupt:
    """What Ctrl-C does, and whether it came: an exception in a callback of a library can get lost there.

    Attributes:
        came: whether it did.
        resumable: whether the command keeps what it has done and goes on when it is run again.
    """

    def __init__(self) -> None:
        self.came = self.resumable = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        self.came = True
        if in_native(frame):
            leave(self.said("interrupted."), INTERRUPTED)
        raise KeyboardInterrupt

    def said(self, what: str) -> str:
        """Return what the user is told."""
        return f"{what} Run the same command again to go on." if self.resumable else what

    def check(self) -> None:
        """Raise KeyboardInterrupt if the signal came."""
        if self.came:
            raise KeyboardInterrupt


def terminate(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM."""
    if in_native(frame):
        leave(INTERRUPT.said("stopped by SIGTERM."), TERMINATED)
    print(f"Error: {INTERRUPT.said('stopped by SIGTERM.')}", file=sys.stderr)
    sys.exit(TERMINATED)


def in_native(frame: FrameType | None) -> bool:
    """Return whether a library that is native in part is at work."""
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in NATIVE):
            return True
        frame = frame.f_back
    return False


def leave(message: str, code: int) -> NoReturn:
    """End the process without an exception: say why, delete what is temporary, end processes that work for this one."""
    stderr = stderr_descriptor()
    with contextlib.suppress(OSError):  # nobody may read it
        os.write(stderr, f"{SHOW_CURSOR + CLEAR_LINE if os.isatty(stderr) else ''}Error: {message}\n".encode())
    with contextlib.suppress(Exception):
        leftovers.tidy_up()
        if "multiprocessing" in sys.modules:
            import multiprocessing

            for child in multiprocessing.active_children():
                child.kill()
    os._exit(code)


INTERRUPT = Interrupt()
