"""Whole networks that others measured: quoted as they are, and at other input sizes along a line in area.

Where nobody published times of blocks, a published time of a network still says what that network takes. Between two of
its sizes a line in area answers; beyond them, some part of its time is taken not to depend on the area. Both are off by
what networks measured at several sizes show, each size left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bignas_zoo.latency.interpolation import HeldOut, clamped
from bignas_zoo.latency.keys import BlockKey

#: Errors of predictions between two sizes of a network, and beyond them.
BETWEEN, BEYOND = "between sizes", "beyond sizes"
#: No size is predicted from one so many times as large or as small: the farthest apart that errors were found on.
FARTHEST = 2.4
#: Steps in which the part is searched that does not depend on the area.
STEPS = 200


@dataclass(frozen=True)
class Figure:
    """A published time.

    Attributes:
        size: of the input in pixels.
        ms: milliseconds.
        rounded_ms: half a unit of the last digit published.
    """

    size: int
    ms: float
    rounded_ms: float


@dataclass(frozen=True)
class MeasuredNetwork:
    """A network with its published times.

    Attributes:
        name: in words.
        source: who published it.
        blocks: of the network, at any input size.
        figures: at least one, by size.
    """

    name: str
    source: str
    blocks: tuple[BlockKey, ...]
    figures: tuple[Figure, ...]

    @property
    def shape(self) -> tuple[BlockKey, ...]:
        """What makes it this network, at any input size."""
        return shape_of(self.blocks)


@dataclass(frozen=True)
class Scaled:
    """A network's time at an input size.

    Attributes:
        ms: milliseconds.
        how: None if quoted, else `BETWEEN` or `BEYOND`.
        rounded_ms: what its figures are rounded by.
        sizes: of the figures that it is from.
    """

    ms: float
    how: str | None
    rounded_ms: float
    sizes: tuple[int, ...]


def shape_of(keys: Iterable[BlockKey]) -> tuple[BlockKey, ...]:
    """Return the blocks of a network without their sizes."""
    return tuple(dataclasses.replace(clamped(key), size_in=1, size_out=1) for key in keys)


def at_size(figures: Sequence[Figure], size: int, fixed_share: float | None) -> Scaled | None:
    """Return a network's time at an input size, or None if that is too far from all measured ones.

    Args:
        figures: of the network.
        size: in pixels.
        fixed_share: part of a time that does not depend on the area; None if unknown: nothing beyond its sizes.
    """
    exact = next((f for f in figures if f.size == size), None)
    if exact:
        return Scaled(exact.ms, None, exact.rounded_ms, (size,))
    below = max((f for f in figures if f.size < size), key=lambda f: f.size, default=None)
    above = min((f for f in figures if f.size > size), key=lambda f: f.size, default=None)
    if below and above:
        part = (size**2 - below.size**2) / (above.size**2 - below.size**2)
        rounded = max(below.rounded_ms, above.rounded_ms)
        return Scaled((1 - part) * below.ms + part * above.ms, BETWEEN, rounded, (below.size, above.size))
    nearest = below or above
    assert nearest
    if fixed_share is None or max(size / nearest.size, nearest.size / size) > FARTHEST:
        return None
    return Scaled(_scaled(nearest, size, fixed_share), BEYOND, nearest.rounded_ms, (nearest.size,))


def _scaled(figure: Figure, size: int, fixed_share: float) -> float:
    return figure.ms * (fixed_share + (1 - fixed_share) * (size / figure.size) ** 2)


def fit_fixed_share(networks: Sequence[MeasuredNetwork]) -> float:
    """Return the part of a time that best takes the larger sizes of networks to the smaller ones.

    By mean absolute relative error; each network counts once for every pair of its sizes.
    """
    steps = [i / STEPS for i in range(STEPS)]
    return min(steps, key=lambda share: math.fsum(map(abs, _errors_beyond(networks, share))))


def _errors_beyond(networks: Sequence[MeasuredNetwork], share: float) -> list[float]:
    return [
        _scaled(large, small.size, share) / small.ms - 1
        for network in networks
        for large in network.figures
        for small in network.figures
        if small.size < large.size
    ]


def sizes_held_out(networks: Sequence[MeasuredNetwork]) -> Mapping[str, HeldOut]:
    """Return the errors of networks of several sizes, each size predicted from others of that network.

    Between two sizes, from its neighbours; beyond them, the smaller from the larger, by the fixed share of the other
    networks.
    """
    between, beyond = list[float](), list[float]()
    for network in networks:
        others = [other for other in networks if other is not network]
        beyond += [abs(error) for error in _errors_beyond([network], fit_fixed_share(others))]
        for figure in sorted(network.figures, key=lambda f: f.size)[1:-1]:
            scaled = at_size([f for f in network.figures if f is not figure], figure.size, None)
            assert scaled
            between.append(abs(scaled.ms / figure.ms - 1))
    errors = {BETWEEN: HeldOut.of(between), BEYOND: HeldOut.of(beyond)}
    return {how: summary for how, summary in errors.items() if summary}
