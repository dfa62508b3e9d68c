"""Which blocks the children of a space consist of, and which of them a table knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.table import DeviceTable
from bignas_zoo.plan import Block, plan_child
from bignas_zoo.space import ChildSpec, SearchSpace


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
    found: dict[BlockKey, Block] = {}
    for spec in _covering(space, tuple(resolutions or space.resolutions)):
        for block in plan_child(spec):
            found.setdefault(BlockKey.of(block), block)
    return found


def _covering(space: SearchSpace, resolutions: tuple[int, ...]) -> Iterator[ChildSpec]:
    """Give children of full depth that together have every pair of neighbouring widths with every other choice."""
    most = max(
        len(values) for values in (space.stem_widths, space.head_widths, *(stage.widths for stage in space.stages))
    )
    kernels = range(max(len(stage.kernels) for stage in space.stages))
    expansions = range(max(len(stage.expansions) for stage in space.stages))
    for resolution, here, there, kernel, expansion in product(
        resolutions, range(most), range(most), kernels, expansions
    ):
        yield _child(space, resolution, (here, there), kernel, expansion)


def _child(space: SearchSpace, resolution: int, turns: tuple[int, int], kernel: int, expansion: int) -> ChildSpec:
    """Return a child whose widths take two positions in turns, stage by stage or, if they may, layer by layer."""
    place = 0

    def width(allowed: tuple[int, ...]) -> int:
        nonlocal place
        place += 1
        return allowed[turns[place % 2] % len(allowed)]

    widths: list[int | list[int]] = [width(space.stem_widths)]
    for stage in space.stages:
        if stage.layerwise_widths:
            widths.append([width(stage.widths) for _ in range(stage.depths[-1])])
        else:
            widths.append(width(stage.widths))
    widths.append(width(space.head_widths))
    return space.spec(
        resolution=resolution,
        widths=widths,
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
