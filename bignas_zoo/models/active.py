"""A child as the supernet runs it: how much of each part of the shared weights is active."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bignas_zoo.architecture.choices import Choice, Place, serving
from bignas_zoo.architecture.space import ChildSpec, SearchSpace

Tensor = Any
#: The order of a vector's entries, those of one name by stage and layer. Records of training steps depend on it.
ORDER = ("stem width", "head width", "depth", "width", "expansion", "kernel")


@dataclass(frozen=True)
class ActiveChild:
    """A child as the supernet runs it; every entry is an int (slices) or a traced int32 (masks).

    Attributes:
        entries: place of each choice of the space (all but the resolution, which the images have) to its value, in the
            order of the vector. Those of absent layers are there as well; if the depth is traced, the entries of layers
            that differ have to be, too.
    """

    entries: Mapping[Place, Any]

    @staticmethod
    def of(spec: ChildSpec) -> ActiveChild:
        """Return a child with static entries; those of absent layers repeat the last one."""
        values = spec.values
        return ActiveChild({choice.place: values[choice.place] for choice in _in_order(spec.space)})

    @staticmethod
    def from_vector(space: SearchSpace, vector: Tensor) -> ActiveChild:
        """Read a (traced) vector made by `vector`; its entries stay traced."""
        # What the space leaves no choice in stays static: fewer masks, smaller graphs.
        return ActiveChild(
            {
                choice.place: choice.options[0] if len(choice.options) == 1 else vector[i]
                for i, choice in enumerate(_in_order(space))
            }
        )

    def vector(self) -> np.ndarray:
        """Return the entries as one int32 vector, to be fed to a compiled step."""
        return np.array([*self.entries.values()], np.int32)

    @property
    def stem(self) -> Any:
        """Output channels of the stem."""
        return self.entries["stem width", -1, -1]

    @property
    def head(self) -> Any:
        """Output channels of the head."""
        return self.entries["head width", -1, -1]

    def depth(self, stage: int) -> Any:
        """Return the number of a stage's layers."""
        return self.entries["depth", stage, -1]

    def width(self, stage: int, layer: int) -> Any:
        """Return the output channels of a layer."""
        return serving(self.entries, "width", stage, layer)

    def expansion(self, stage: int, layer: int) -> Any:
        """Return the expanded channels of a layer over its input channels."""
        return serving(self.entries, "expansion", stage, layer)

    def kernel(self, stage: int, layer: int) -> Any:
        """Return the kernel size of a layer's depthwise convolution."""
        return serving(self.entries, "kernel", stage, layer)


def _in_order(space: SearchSpace) -> list[Choice]:
    """Return the choices that a vector has entries for."""
    return sorted((c for c in space.choices if c.name in ORDER), key=lambda choice: ORDER.index(choice.name))
