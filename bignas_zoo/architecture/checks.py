"""Checks that search spaces and children share: each raises a SpaceError that says what is allowed."""

from __future__ import annotations

import itertools
from typing import Any

from bignas_zoo.errors import SpaceError

WIDTH_STEP = 8
#: Far above any network; what a file of others asks for must not take the machine's memory.
MOST_CHOICES, MOST_STAGES, MOST_DEPTH, MOST_BLOCKS, MOST = 1_024, 64, 256, 1_024, 1 << 20


def option(what: str, value: Any, allowed: tuple[int, ...], where: str) -> None:
    """Refuse a value that is not among the options of a choice; name the nearest."""
    if isinstance(value, int) and not isinstance(value, bool) and value in allowed:
        return
    text = f"{what} {value!r} {where}; allowed: {', '.join(map(str, allowed))}"
    if isinstance(value, int | float) and value == value:
        text += f"; nearest: {min(allowed, key=lambda a: abs(a - value))}"
    raise SpaceError(text + ".")


def one_of(what: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuse a value that is not one of `allowed`, type included."""
    if not any(value == a and type(value) is type(a) for a in allowed):  # True and 2.0 are not 1 and 2
        raise SpaceError(f"{what}: must be one of {', '.join(map(str, allowed))}; got {value!r}.")


def at_least(what: str, value: object, least: int) -> None:
    """Refuse what is not a whole number of at least `least`, or beyond all sense."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SpaceError(f"{what}: must be a whole number of at least {least}, got {value!r:.80}.")
    if value > MOST:
        raise SpaceError(f"{what}: must be at most {MOST:,}, got {value!r:.80}.")


def ascending(what: str, values: tuple[int, ...]) -> None:
    """Refuse an empty list, one that does not rise from 1 or above, and one that is too long."""
    if len(values) > MOST_CHOICES:
        raise SpaceError(f"{what}: must be at most {MOST_CHOICES:,} choices, got {len(values):,}.")
    for value in values:
        at_least(what, value, 1)
    if not values or any(a >= b for a, b in itertools.pairwise(values)):
        raise SpaceError(f"{what}: must be ascending and not empty, got {list(values)}.")


def multiples(what: str, values: tuple[int, ...]) -> None:
    """Refuse widths that are not multiples of `WIDTH_STEP`."""
    # Convolution kernels and the paper's ranges are laid out in steps of 8 channels.
    if any(v % WIDTH_STEP for v in values):
        raise SpaceError(f"{what}: must be multiples of {WIDTH_STEP}, got {list(values)}.")
