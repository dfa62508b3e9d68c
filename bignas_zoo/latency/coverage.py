"""Which blocks the children of a space consist of, and which of them a table knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import ChildSpec, SearchSpace, StageSpace
from bignas_zoo.latency.interpolation import STEP, WIDEST
from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.table import DeviceTable


@dataclass(frozen=True)
class Coverage:
    """How many different blocks of a space a table holds, interpolates, and lacks."""

    measured: int
    interpolated: int
    missing: int


def space_blocks(space: SearchSpace, resolutions: Iterable[int] | None = None) -> dict[BlockKey, Block]:
    """Return every different block that children of a space can have.

    Args:
        space: the space.
        resolutions: input sizes in pixels [those of training].

    Returns:
        Keys, and a block for each.
    """
    blocks: dict[BlockKey, Block] = {}
    for spec in _covering(space, tuple(resolutions or space.resolutions)):
        for block in plan(spec):
            blocks.setdefault(BlockKey.of(block), block)
    return blocks


def _covering(space: SearchSpace, resolutions: tuple[int, ...]) -> Iterator[ChildSpec]:
    """Give children of full depth that together have every pair of neighbouring widths with every other choice."""
    places = _width_choices(space)
    most = [max((len(widths) for widths in places[turn::2]), default=1) for turn in (0, 1)]
    kernels = range(max(len(stage.kernels) for stage in space.stages))
    expansions = range(max(len(stage.expansions) for stage in space.stages))
    for even, odd in product(range(most[0]), range(most[1])):
        chain = [widths[(even, odd)[i % 2] % len(widths)] for i, widths in enumerate(places)]
        for resolution, kernel, expansion in product(resolutions, kernels, expansions):
            yield _child(space, resolution, chain, kernel, expansion)


def _width_choices(space: SearchSpace) -> list[tuple[int, ...]]:
    """Return the allowed widths of stem, stages (or their layers, if each has its own) and head, in order."""
    inner = [stage.widths for stage in space.stages for _ in range(_widths_of(stage))]
    return [space.stem_widths, *inner, space.head_widths]


def _widths_of(stage: StageSpace) -> int:
    return stage.depths[-1] if stage.layerwise_widths else 1


def _child(space: SearchSpace, resolution: int, widths: list[int], kernel: int, expansion: int) -> ChildSpec:
    """Return a child of full depth from widths in the order of `_width_choices`."""
    stem, *inner, head = widths
    grouped: list[int | list[int]] = []
    for stage in space.stages:
        mine, inner = inner[: _widths_of(stage)], inner[_widths_of(stage) :]
        grouped.append(mine if stage.layerwise_widths else mine[0])
    return space.spec(
        resolution=resolution,
        widths=[stem, *grouped, head],
        depths=[stage.depths[-1] for stage in space.stages],
        kernels=[stage.kernels[kernel % len(stage.kernels)] for stage in space.stages],
        expansions=[stage.expansions[expansion % len(stage.expansions)] for stage in space.stages],
    )


def coverage(table: DeviceTable, keys: Iterable[BlockKey]) -> Coverage:
    """Count which of some blocks a table knows."""
    measured = interpolated = missing = 0
    for key in keys:
        value = None if key in table.in_overhead else table.index.value(key)
        if key in table.in_overhead or (value and not value.along):
            measured += 1
        elif value:
            interpolated += 1
        else:
            missing += 1
    return Coverage(measured, interpolated, missing)


def thinned_blocks(space: SearchSpace, most: int) -> dict[BlockKey, Block]:
    """Return blocks to measure so that those of every child can be had, measured or interpolated.

    Args:
        space: the space.
        most: about how many; the first of these is taken that holds no more, else the last: every block at every
            trained size; at the least, middle and largest size; that with the ends of each range of widths.

    Returns:
        Keys, and a block for each. Sizes that may be deployed unseen lie between those measured.
    """
    sizes = sorted({*space.resolutions, *space.unseen_resolutions})
    ends = (sizes[0], sizes[len(sizes) // 2], sizes[-1])
    narrow = _ends_of_widths(space)
    choices = ((space, (*space.resolutions, sizes[0], sizes[-1])), (space, ends), (narrow, ends))
    blocks: dict[BlockKey, Block] = {}
    for part, resolutions in choices:
        blocks = space_blocks(part, dict.fromkeys(sorted(resolutions)))
        if len(blocks) <= most:
            break
    return blocks


def _ends_of_widths(space: SearchSpace) -> SearchSpace:
    return replace(
        space,
        stem_widths=_to_interpolate(space.stem_widths),
        head_widths=_to_interpolate(space.head_widths),
        stages=tuple(replace(stage, widths=_to_interpolate(stage.widths)) for stage in space.stages),
    )


def _to_interpolate(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the first and the last width, and as few between them as interpolation needs."""
    kept = [widths[0]]
    for width, after in pairwise(widths):
        if after > max(kept[-1] * WIDEST["channels"], kept[-1] + STEP) and width != kept[-1]:
            kept.append(width)
    return tuple(dict.fromkeys((*kept, widths[-1])))
