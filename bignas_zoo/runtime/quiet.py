"""Keep native libraries' chatter off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

#: Descriptors of what stderr was outside of each `quiet_native` that is open.
_SAVED: list[int] = []


def stderr_descriptor() -> int:
    """Return the file descriptor of the real stderr."""
    return _SAVED[0] if _SAVED else 2


@contextlib.contextmanager
def quiet_native() -> Iterator[None]:
    """Send file descriptors 1 and 2 to nowhere; Python exceptions still come through.

    TensorFlow and TFLite print from C++, past `sys.stderr`, and offer no reliable switch.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # missing, closed, or full
            stream.flush()
    with contextlib.ExitStack() as stack:
        sink = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, sink)
        for descriptor in (1, 2):
            try:
                saved = os.dup(descriptor)
            except OSError:  # closed by whoever started us
                continue
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            if descriptor == 2:
                _SAVED.append(saved)
                stack.callback(_SAVED.pop)
            os.dup2(sink, descriptor)
        yield


def quiet_python() -> None:
    """Keep TensorFlow's warnings in Python back where its native ones are: a graph for each input size is no cause."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "3":
        import logging

        logging.getLogger("tensorflow").setLevel(logging.ERROR)
