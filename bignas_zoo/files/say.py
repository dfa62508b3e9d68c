"""How a task tells what is going on: a sentence at a time, to whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]


def silent(message: str) -> None:
    """Say nothing."""
