"""A stage of a network: what may be chosen in it, and what was."""

from __future__ import annotations

from dataclasses import dataclass, field

from bignas_zoo.architecture.blocks import STAGE_KINDS
from bignas_zoo.architecture.checks import MOST_DEPTH, ascending, multiples, one_of
from bignas_zoo.architecture.forms import ACTIVATIONS, LATER, SqueezeExcite
from bignas_zoo.errors import SpaceError


@dataclass(frozen=True)
class StageSpace:
    """Allowed choices of one stage of blocks.

    Attributes:
        widths: output channels, ascending multiples of 8; one choice a stage, or one a layer, see `layerwise_widths`.
        depths: number of layers, consecutive and ascending.
        kernels: depthwise kernel sizes, odd, ascending; one choice a layer, or one a stage, see `stagewise_kernels`.
        stride: of the first layer, 1 or 2.
        expansions: expanded channels / input channels, ``(1,)`` for no expansion convolution; one choice a stage, or
            one a layer, see `layerwise_expansions`.
        squeeze_excite: its form, or None for none.
        layerwise_widths: whether each layer has a width of its own (the paper: one a stage).
        layerwise_expansions: whether each layer has an expansion of its own (as once-for-all).
        stagewise_kernels: whether one kernel size serves the whole stage (as AttentiveNAS).
        block: "mbconv", or "basic": two convolutions and a shortcut, of one kernel size, without expansion and
            squeeze-excite.
        activation: inside its blocks; None: the space's.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    stride: int
    expansions: tuple[int, ...] = (6,)
    squeeze_excite: SqueezeExcite | None = field(default_factory=SqueezeExcite)
    layerwise_widths: bool = field(default=False, metadata=LATER)
    layerwise_expansions: bool = field(default=False, metadata=LATER)
    stagewise_kernels: bool = field(default=False, metadata=LATER)
    block: str = field(default="mbconv", metadata=LATER)
    activation: str | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        ascending("widths", self.widths)
        ascending("depths", self.depths)
        ascending("kernels", self.kernels)
        ascending("expansions", self.expansions)
        multiples("widths", self.widths)
        one_of("stride", self.stride, (1, 2))
        for key in ("layerwise_widths", "layerwise_expansions", "stagewise_kernels"):
            one_of(key, getattr(self, key), (False, True))
        if self.depths[-1] > MOST_DEPTH:
            raise SpaceError(f"depths: must be at most {MOST_DEPTH}, got {self.depths[-1]}.")
        if any(k % 2 == 0 for k in self.kernels):
            raise SpaceError(f"kernels: must be odd, got {list(self.kernels)}.")
        if self.expansions[0] == 1 and len(self.expansions) > 1:
            raise SpaceError("expansions: 1 (no expansion layer) cannot be mixed with others.")
        one_of("block", self.block, STAGE_KINDS)
        one_of("stage's activation", self.activation, (None, *ACTIVATIONS))
        if self.block == "basic" and (self.expands or self.squeeze_excite or len(self.kernels) > 1):
            raise SpaceError("block: 'basic' has one kernel size, expansion 1 and no squeeze-excite.")

    @property
    def expands(self) -> bool:
        """Whether blocks of this stage have an expansion convolution."""
        return self.expansions != (1,)

    def layerwise(self, name: str) -> bool:
        """Return whether each layer has a choice of its own: of its "width", "kernel" or "expansion"."""
        if name == "kernel":
            return not self.stagewise_kernels
        return self.layerwise_widths if name == "width" else self.layerwise_expansions


@dataclass(frozen=True)
class StageSpec:
    """The choice made in one stage.

    Attributes:
        depth: number of layers.
        widths: output channels of each layer; all the same unless the stage has layer-wise widths.
        kernels: depthwise kernel size of each layer; all the same if the stage has stage-wise kernels.
        expansions: expanded channels / input channels of each layer; all the same unless the stage has layer-wise ones.
    """

    depth: int
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]

    @property
    def width(self) -> int:
        """Output channels of the stage: those of its last layer."""
        return self.widths[-1]

    @property
    def expansion(self) -> int:
        """The expansion that serves the whole stage.

        Raises:
            SpaceError: its layers differ in it; see `expansions`.
        """
        if len(set(self.expansions)) > 1:
            raise SpaceError(f"expansions {list(self.expansions)} differ: ask for `expansions`, one a layer.")
        return self.expansions[0]
