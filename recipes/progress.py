"""What a display of a training is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a training is after a step.

    Attributes:
        step, steps: steps done, and in all.
        loss: of this step; None where nothing is trained.
        images_per_second: of this step.
        phase: what is being done, in a word or two.
        accuracy: on this batch, 0 to 1, where it is known.
    """

    step: int
    steps: int
    loss: float | None
    images_per_second: float
    phase: str
    accuracy: float | None = None
