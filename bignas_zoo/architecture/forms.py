"""The forms a network's parts may have, as values: what is not a choice of a search space.

A published space says here how its shortcuts, paddings, gates and head are built; `plan` turns them into blocks and
`bignas_zoo.architecture.bodies` into arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from bignas_zoo.architecture.checks import at_least, one_of

ACTIVATIONS = ("swish", "hard_swish", "relu", "relu6")
GATES = ("sigmoid", "hard_sigmoid")
PADDINGS = ("same", "symmetric")
POOLINGS = ("average", "average_padded", "subsample")
KERNEL_SHARING = ("centre", "transformed")
BN_VARIANCES = ("population", "sample")
#: Above any difference of widths: a floor division by it leaves only the sign.
ABOVE = 1 << 30

#: Metadata of a dataclass's field that earlier versions did not have: `to_json` leaves it out at its default.
LATER = {"later": True}


def to_json(value: Any) -> Any:
    """Return a dataclass, and all in it, as JSON-ready data that earlier versions read wherever they could."""
    if isinstance(value, tuple):
        return [to_json(entry) for entry in value]
    if not is_dataclass(value):
        return value
    entries = ((f, getattr(value, f.name)) for f in fields(value))
    return {f.name: to_json(entry) for f, entry in entries if not ("later" in f.metadata and entry == f.default)}


@dataclass(frozen=True)
class SqueezeExcite:
    """How a block's squeeze-excite is built.

    Attributes:
        divisor: hidden channels = source channels / divisor.
        source: "input" (block input, as BigNAS and EfficientNet) or "expanded".
        rounding: hidden channels are rounded to a multiple of this (1: only down to an int).
        activation: after the first dense layer.
        gate: after the second one.
        make_divisible: whether what is rounded down by more than a tenth is rounded up instead, as the function of
            this name in MobileNet's code does.
    """

    divisor: int = 4
    source: str = "input"
    rounding: int = 1
    activation: str = "swish"
    gate: str = "sigmoid"
    make_divisible: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        one_of("squeeze_excite.source", self.source, ("input", "expanded"))
        one_of("squeeze_excite.activation", self.activation, ACTIVATIONS)
        one_of("squeeze_excite.gate", self.gate, GATES)
        at_least("squeeze_excite.divisor", self.divisor, 1)
        at_least("squeeze_excite.rounding", self.rounding, 1)
        one_of("squeeze_excite.make_divisible", self.make_divisible, (False, True))

    def hidden(self, cin: Any, mid: Any) -> Any:
        """Return the hidden channels for a block of `cin` inputs and `mid` expanded channels.

        Works on ints and on traced integers alike: only arithmetic, no branches.
        """
        channels = (cin if self.source == "input" else mid) // self.divisor
        if self.rounding == 1:
            return channels
        rounded = (channels + self.rounding // 2) // self.rounding * self.rounding
        if not self.make_divisible:
            return rounded
        return rounded - self.rounding * ((10 * rounded - 9 * channels) // ABOVE)  # the quotient is -1 or 0


@dataclass(frozen=True)
class Shortcut:
    """Which layer of a stage has which shortcut.

    Attributes:
        rule: "project_first" (a convolution at the first layer of a stage, the identity at the others: BigNAS),
            "project_changed" (a convolution where the width changes, else the identity: AttentiveNAS), "identity"
            (always; channels are cut off or zeros appended: ResNet's option A) or "identity_unchanged" (only where
            neither width nor size changes, else none: MobileNetV2 and V3, EfficientNet).
        pooling: how it halves the map where the stride is 2: "average" of 2x2 pixels, "average_padded" (over a map of
            odd size with a rim of zeros, which count in the mean), or "subsample" (each second pixel).
    """

    rule: str = "project_first"
    pooling: str = "average"

    def __post_init__(self) -> None:
        one_of("shortcut.rule", self.rule, tuple(RULES))
        one_of("shortcut.pooling", self.pooling, POOLINGS)

    def of(self, layer: int, stride: int, same_width: bool) -> str:
        """Return the shortcut of a layer: "none", "identity" or "project".

        Args:
            layer: 0-based, of its stage.
            stride: 1 or 2.
            same_width: whether it gives as many channels as it takes.
        """
        return RULES[self.rule](layer, stride, same_width)


#: Of layer, stride, and whether the width stays.
RULES: dict[str, Callable[[int, int, bool], str]] = {
    "project_first": lambda layer, stride, same: "identity" if layer else "project",
    "project_changed": lambda layer, stride, same: "identity" if same else "project",
    "identity": lambda layer, stride, same: "identity",
    "identity_unchanged": lambda layer, stride, same: "identity" if same and stride == 1 else "none",
}


@dataclass(frozen=True)
class Head:
    """What lies between the last stage and the classifier.

    Attributes:
        form: "conv" (1x1 convolution, batch norm, activation, pool), "pooled" (MobileNetV3's: 1x1 convolution, batch
            norm, activation, pool, dense layer without batch norm, activation) or "none" (pool).
        expansion: of "pooled": channels of the convolution / those of the last stage.
        bias: of "pooled": whether the dense layer has a bias.
    """

    form: str = "conv"
    expansion: int = 6
    bias: bool = False

    def __post_init__(self) -> None:
        one_of("head.form", self.form, ("conv", "pooled", "none"))
        one_of("head.bias", self.bias, (False, True))
        at_least("head.expansion", self.expansion, 1)
