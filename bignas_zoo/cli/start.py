"""Where the command begins: Ctrl-C is one line from here on, while the rest is still being loaded and after the end."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


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


def _stop(*_: object) -> None:
    os.write(2, b"Error: interrupted.\n")
    os._exit(130)


def _unraisable(problem: Any) -> None:
    """Leave out Ctrl-C in a destructor or callback, which `cli.common.Interrupt` remembers."""
    if not isinstance(problem.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(problem)
