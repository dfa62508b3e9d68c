"""How a slice is fine-tuned: plain checked values, and the learning rate as a function of the step.

Loads no tensor library, so that the command line can show the defaults.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from bignas_zoo.errors import UsageError

#: Peak learning rates of AdamW; measured, see docs/finetune.md.
LEARNING_RATE = 2e-3
LEARNING_RATE_FROZEN = 5e-2
#: With the parent's own statistics, from a classifier that is fitted already.
LEARNING_RATE_ORIGINAL = 3e-4
#: Passes over the images, at most, and images a step, with the parent's own statistics.
EPOCHS_ORIGINAL, BATCH_ORIGINAL = 6, 32
#: What batch norms take their statistics from in training and afterwards: the batch and then all training images, or
#: what the parent has.
STATISTICS = ("batch", "original")
LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 0.01
#: Part of all steps in which the learning rate rises from zero.
WARMUP = 0.05


@dataclass(frozen=True)
class FinetuneSettings:
    """How one slice is trained on one's own classes.

    Attributes:
        epochs: passes over the training images, at most.
        freeze: train the classifier alone; every other weight stays as it is.
        batch_size: images a step, at most; steps of an epoch are of one size.
        learning_rate: its peak; None takes the default of the mode, which `peak` gives.
        patience: stop after so many epochs without a higher held-out accuracy.
        holdout: part of each class held out of training where the folder has no split for it.
        seed: of the split, the order and the augmentation.
        statistics: of batch norms, one of `STATISTICS`; None leaves it to the parent: "original" for nets that were
            trained alone, whose features their own statistics on other images ruin, "batch" for a supernet's.
    """

    epochs: int = 20
    freeze: bool = False
    batch_size: int = 64
    learning_rate: float | None = None
    patience: int = 5
    holdout: float = 0.15
    seed: int = 0
    statistics: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value < 1 << 31:
                raise UsageError(f"{_option(name)}: must be a whole number of at least {least}, got {value!r}.")
        if self.statistics not in (None, *STATISTICS):
            raise UsageError(f"--statistics: must be one of {', '.join(STATISTICS)}, got {self.statistics!r:.40}.")
        if type(self.freeze) is not bool:
            raise UsageError(f"{_option('freeze')}: must be true or false, got {self.freeze!r}.")
        if not _number(self.holdout) or not 0 < self.holdout < 1:
            raise UsageError(f"{_option('holdout')}: must be between 0 and 1, got {self.holdout!r}.")
        if self.learning_rate is not None and not (_number(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"{_option('learning_rate')}: must be above zero, got {self.learning_rate!r}.")

    @staticmethod
    def of(*, statistics: str | None, freeze: bool, **given: Any) -> FinetuneSettings:
        """Return settings with the mode's defaults in place of every None.

        Args:
            statistics, freeze: they make the mode.
            given: the other fields; `epochs` and `batch_size` may be None.
        """
        whole = statistics == "original" and not freeze
        modes = {"epochs": EPOCHS_ORIGINAL, "batch_size": BATCH_ORIGINAL} if whole else {}
        known = {name: value for name, value in given.items() if value is not None}
        return FinetuneSettings(**{**modes, **known}, statistics=statistics, freeze=freeze)

    @property
    def peak(self) -> float:
        """The peak learning rate, the mode's default filled in."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self.freeze:
            return LEARNING_RATE_FROZEN
        return LEARNING_RATE_ORIGINAL if self.statistics == "original" else LEARNING_RATE

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step: linear warm-up from zero, then a half cosine to zero.

        Args:
            step: 0-based.
            steps: in all.
        """
        warmup = max(1, round(WARMUP * steps))
        if step < warmup:
            return self.peak * (step + 1) / warmup
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def to_json(self) -> dict[str, Any]:
        """Return every setting as JSON data, fixed ones included."""
        return {
            **asdict(self),
            "learning_rate": self.peak,
            "schedule": f"linear warm-up over {WARMUP:.0%} of the steps, then cosine to zero",
            "optimizer": "AdamW",
            "weight_decay": WEIGHT_DECAY,
            "label_smoothing": LABEL_SMOOTHING,
        }


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
