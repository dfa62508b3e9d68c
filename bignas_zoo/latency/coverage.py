"""Which blocks the children of a space consist of, and which of them a table knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.choices import Choice, Place
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.latency.interpolation import STEP, WIDEST
from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.table import DeviceTable

#: Choices that go through their options together; every second width is of the first group, the others of the second.
GROUPS = ("even width", "odd width", "resolution", "kernel", "expansion", "depth")


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
    return _blocks(space, _options(space, resolutions or space.resolutions))


def _options(
    space: SearchSpace, resolutions: Iterable[int], *, ends_of_widths: bool = False
) -> dict[Place, tuple[int, ...]]:
    """Return what each choice takes in turn; the depth is always full."""

    def of(choice: Choice) -> tuple[int, ...]:
        if choice.name == "resolution":
            return tuple(resolutions)
        if choice.name == "depth":
            return choice.options[-1:]
        return _to_interpolate(choice.options) if ends_of_widths and _is_width(choice.place) else choice.options

    return {choice.place: of(choice) for choice in space.choices}


def _is_width(place: Place) -> bool:
    return place[0].endswith("width")


def _blocks(space: SearchSpace, options: Mapping[Place, tuple[int, ...]]) -> dict[BlockKey, Block]:
    blocks: dict[BlockKey, Block] = {}
    for spec in _covering(space, options):
        for block in plan(spec):
            blocks.setdefault(BlockKey.of(block), block)
    return blocks


def _covering(space: SearchSpace, options: Mapping[Place, tuple[int, ...]]) -> Iterator[ChildSpec]:
    """Give children that together have every pair of neighbouring widths with every other choice.

    The choices of a group go through their options in step, and each group does so for each option of the others.
    """
    widths = filter(_is_width, options)  # neighbours follow each other, from the stem to the head
    groups = {place: place[0] for place in options} | {place: GROUPS[i % 2] for i, place in enumerate(widths)}
    counts = [max(len(options[place]) for place in options if groups[place] == group) for group in GROUPS]
    for numbers in product(*map(range, counts)):
        number = dict(zip(GROUPS, numbers, strict=True))
        yield space.child({place: values[number[groups[place]] % len(values)] for place, values in options.items()})


def coverage(table: DeviceTable, keys: Iterable[BlockKey]) -> Coverage:
    """Count which of some blocks a table knows."""
    measured = interpolated = missing = 0
    for key in keys:
        value = table.value(key)
        if value is None:
            missing += 1
        elif value.along:
            interpolated += 1
        else:
            measured += 1
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
    sizes = space.all_resolutions
    ends = dict.fromkeys((sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    blocks: dict[BlockKey, Block] = {}
    for options in (
        _options(space, sorted({*space.resolutions, sizes[0], sizes[-1]})),
        _options(space, ends),
        _options(space, ends, ends_of_widths=True),
    ):
        blocks = _blocks(space, options)
        if len(blocks) <= most:
            break
    return blocks


def _to_interpolate(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the first and the last width, and as few between them as interpolation needs."""
    kept = [widths[0]]
    for width, after in pairwise(widths):
        if after > max(kept[-1] * WIDEST["channels"], kept[-1] + STEP) and width != kept[-1]:
            kept.append(width)
    return tuple(dict.fromkeys((*kept, widths[-1])))
