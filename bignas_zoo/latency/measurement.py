"""The measured time of a block."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """Time of a block.

    Attributes:
        mean_ms: of a call, in milliseconds.
        std_ms: standard deviation over the calls or rounds; None if not published.
        count: how many calls or rounds; None if not published.
    """

    mean_ms: float
    std_ms: float | None = None
    count: int | None = None
