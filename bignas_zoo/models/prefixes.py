"""What the first blocks of a child make of given images, kept for the next child that begins alike.

A mutation changes a child from some stage on, and the members of a grid differ in one axis: half of the work of a
search is work that an earlier child has done. What comes out of a block depends on that block, the blocks before it,
the weights and the images alone, so a child that starts there comes to the same numbers to the last bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

from bignas_zoo.architecture.blocks import Block

#: The stem's output is the largest of all and soon made again.
FEWEST_BLOCKS = 2


class Prefixes:
    """Outputs of blocks, up to a bound in bytes; those that were not wanted for longest go first.

    One of it serves children with the same supernet's weights, calibrated on the same images.

    Args:
        limit_bytes: the bound; 0 keeps nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._bytes = limit_bytes, 0
        self._kept: OrderedDict[tuple[Hashable, tuple[Block, ...]], tuple[Any, int]] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """Bytes that are kept now."""
        return self._bytes

    def longest(self, images: Hashable, blocks: Sequence[Block]) -> tuple[int, Any]:
        """Return how many of a child's first blocks are done, and what they left behind; (0, None) if none are.

        Args:
            images: names the images.
            blocks: the child's.
        """
        for count in range(len(blocks), FEWEST_BLOCKS - 1, -1):
            key = images, tuple(blocks[:count])
            if key in self._kept:
                self._kept.move_to_end(key)
                return count, self._kept[key][0]
        return 0, None

    def keep(self, images: Hashable, blocks: Sequence[Block], left: Any, size_bytes: int) -> None:
        """Keep what blocks, the first ones of a child, left behind."""
        key = images, tuple(blocks)
        if len(blocks) < FEWEST_BLOCKS or size_bytes > self._limit or key in self._kept:
            return
        self._kept[key] = left, size_bytes
        self._bytes += size_bytes
        while self._bytes > self._limit:
            self._bytes -= self._kept.popitem(last=False)[1][1]

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self._bytes = 0
