"""The forms a network's parts may have, as values: what is not a choice of a search space.

A published space says here how its shortcuts, paddings, gates and head are built; `plan` turns them into blocks and
`bignas_zoo.models.bodies` into arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bignas_zoo.architecture.checks import at_least, one_of

ACTIVATIONS = ("swish", "hard_swish", "relu", "relu6")
GATES = ("sigmoid", "hard_sigmoid")


@dataclass(frozen=True)
class SqueezeExcite:
    """How a block's squeeze-excite is built.

    Attributes:
        divisor: hidden channels = source channels / divisor.
        source: "input" (block input, as BigNAS and EfficientNet) or "expanded".
        rounding: hidden channels are rounded to a multiple of this (1: only down to an int).
        activation: after the first dense layer.
        gate: after the second one.
    """

    divisor: int = 4
    source: str = "input"
    rounding: int = 1
    activation: str = "swish"
    gate: str = "sigmoid"

    def __post_init__(self) -> None:
        one_of("squeeze_excite.source", self.source, ("input", "expanded"))
        one_of("squeeze_excite.activation", self.activation, ACTIVATIONS)
        one_of("squeeze_excite.gate", self.gate, GATES)
        at_least("squeeze_excite.divisor", self.divisor, 1)
        at_least("squeeze_excite.rounding", self.rounding, 1)

    def hidden(self, cin: Any, mid: Any) -> Any:
        """Return the hidden channels for a block of `cin` inputs and `mid` expanded channels.

        Works on ints and on traced integers alike: only arithmetic, no branches.
        """
        channels = (cin if self.source == "input" else mid) // self.divisor
        if self.rounding == 1:
            return channels
        return (channels + self.rounding // 2) // self.rounding * self.rounding
