"""A network with its weights, as plain arrays: what files are written from, without Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bignas_zoo.architecture.network import Network
from bignas_zoo.models.numpy_forward import numpy_forward

#: Pixels of the images that are computed at once: the activations of all are in memory.
PIXELS_AT_ONCE = 102_400


@dataclass(frozen=True)
class WeightedNetwork:
    """A network and its weights.

    Attributes:
        network: its architecture.
        weights: by the names of its plan, float32, statistics included.
    """

    network: Network
    weights: Mapping[str, np.ndarray] = field(repr=False)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image."""
        size = self.network.resolution
        return (size, size, 3)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Compute what the network says of normalised images.

        Args:
            images: ``[n, resolution, resolution, 3]`` float32.

        Returns:
            ``[n, classes]`` float32.
        """
        size = max(1, PIXELS_AT_ONCE // self.network.resolution**2)
        parts = range(0, len(images), size)
        return np.concatenate([numpy_forward(self.network, self.weights, images[i : i + size]) for i in parts])
