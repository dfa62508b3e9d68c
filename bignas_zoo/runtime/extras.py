"""What the light installation leaves out, named where it is asked for: TensorFlow and Keras are the extra ``train``."""

from __future__ import annotations

from importlib.util import find_spec

from bignas_zoo.errors import UsageError

INSTALL = "pip install 'bignas-zoo[train]'"


def need_keras(what: str) -> None:
    """Refuse what needs Keras where it is not installed, before any work is done.

    Args:
        what: needs it, as the message's subject, e.g. "train".

    Raises:
        UsageError: it is not installed; the message has the command that installs it.
    """
    if not has_keras():
        raise without_keras(what)


def has_keras() -> bool:
    """Return whether Keras is installed."""
    return find_spec("keras") is not None


def without_keras(what: str, package: str = "Keras") -> UsageError:
    """Return the error that says which package is missing, and how to get it."""
    return UsageError(f"{what}: needs {package}, which is not installed. Install it with {INSTALL}")
