"""Where the command begins: Ctrl-C is one line from here on, while the rest is still being loaded and after the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

#: Exit codes of a run that was asked to stop: by SIGTERM before and after it could save, by Ctrl-C.
STOPPED = (75, 130, 143)


def main() -> None:
    """Load and run the command."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not one that a shell told to ignore it
    if ours:
        signal.signal(signal.SIGINT, _stop)
    from bignas_zoo.cli.main import main as command

    sys.unraisablehook = _unraisable
    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
    except KeyboardInterrupt:  # a second one, while the first was answered
        _stop()
    finally:
        # What was asked for is done, or its error is said: no signal may change the exit code now. Python itself would
        # give SIGTERM its default back while it unloads TensorFlow, which takes a second.
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if callable(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _leave_jax()


def _leave_jax() -> None:
    """End at once after a run that JAX was stopped in: as it unloads, it waits for the step that still computes."""
    code = getattr(sys.exc_info()[1], "code", None)
    if code in STOPPED and "jax" in sys.modules:
        from bignas_zoo.files.leftovers import tidy_up

        tidy_up()  # what atexit would do
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.flush()
        os._exit(code)


def _stop(*_: object) -> None:
    os.write(2, b"Error: interrupted.\n")
    os._exit(130)


def _unraisable(problem: Any) -> None:
    """Leave out Ctrl-C in a destructor or callback, which `cli.interrupt.Interrupt` remembers."""
    if not isinstance(problem.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(problem)
