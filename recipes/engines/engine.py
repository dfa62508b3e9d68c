"""What an engine is, and what it is given for a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from bignas_zoo.recipes.methods.method import Control

#: Prefix of the optimizer's entries in an engine's state.
OPTIMIZER = "optimizer."
#: Among the figures of a step on many hosts: above 0 if any host was asked to stop.
STOP = "stop"


@dataclass(frozen=True)
class StepInput:
    """What an engine is given for one step.

    Attributes:
        batch: this host's rows of the batch, see `augment.images_of`.
        control: what the method does in this step, see `methods.method`.
        learning_rate: of this step.
        stop: whether this host was asked to stop; on many hosts all learn of it by the figure `STOP`.
    """

    batch: Mapping[str, np.ndarray]
    control: Control
    learning_rate: float
    stop: bool = False


class Engine(Protocol):
    """Weights and optimizer on one or many devices, and the compiled steps over them.

    Attributes:
        devices: what it computes on, in words.
        host, hosts: this process among those that train together; host 0 writes files.
        holds_images: whether images are better kept in its devices' memory (`hold`) than sent each step.
    """

    devices: str
    host: int
    hosts: int
    holds_images: bool

    def hold(self, resident: Mapping[str, np.ndarray]) -> None:
        """Put ``pixels`` and ``labels`` of all training images into the devices' memory."""

    def step(self, given: StepInput) -> Mapping[str, Any]:
        """Run one optimizer step; return ``loss`` and the method's figures: scalars that may still be computed."""

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the supernet's weights."""

    def state(self) -> dict[str, np.ndarray]:
        """Return weights and optimizer state: everything a resumed run needs, on either engine."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a `state`."""
