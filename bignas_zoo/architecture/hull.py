"""The space around networks that were made one by one: what lies between them, to profile devices by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.errors import SpaceError


def hull(name: str, specs: Sequence[ChildSpec]) -> SearchSpace:
    """Return the smallest space of which all these networks are children.

    Its choices are the values that the networks have; depths also those between. No weights need to exist for its other
    children: they are networks of the same blocks.

    Args:
        name: of the space.
        specs: at least one; of spaces that differ in nothing but choices, names and sources.

    Raises:
        SpaceError: the networks differ in a form, so that no space holds them all; the message names it.
    """
    spaces = list(dict.fromkeys(spec.space for spec in specs))
    first = spaces[0]
    for other in spaces[1:]:
        _check_alike(name, first, other)
    stages = tuple(
        dataclasses.replace(
            stage,
            widths=_values(width for spec in specs for width in spec.stages[i].widths),
            depths=_between(spec.stages[i].depth for spec in specs),
            kernels=_values(kernel for spec in specs for kernel in spec.stages[i].kernels),
            expansions=_values(each for spec in specs for each in spec.stages[i].expansions),
        )
        for i, stage in enumerate(first.stages)
    )
    return dataclasses.replace(
        first,
        name=name,
        source=f"between {', '.join(space.name for space in spaces)}",
        resolutions=_values(spec.resolution for spec in specs),
        unseen_resolutions=(),
        stem_widths=_values(spec.stem_width for spec in specs),
        head_widths=_values(spec.head_width for spec in specs),
        stages=stages,
    )


#: What the hull has from the networks; in everything else their spaces must be alike.
CHOSEN = {"name", "source", "resolutions", "unseen_resolutions", "stem_widths", "head_widths", "stages"}
CHOSEN_IN_STAGES = {"widths", "depths", "kernels", "expansions"}


def _check_alike(name: str, one: SearchSpace, other: SearchSpace) -> None:
    differing = _differing(one, other, CHOSEN)
    if len(one.stages) != len(other.stages):
        differing.append("number of stages")
    for i, (mine, its) in enumerate(zip(one.stages, other.stages, strict=False), start=1):
        differing += [f"{what} of stage {i}" for what in _differing(mine, its, CHOSEN_IN_STAGES)]
        if mine.expands != its.expands:
            differing.append(f"expansion of stage {i}")
    if differing:
        raise SpaceError(
            f"'{name}': no one space holds networks of '{one.name}' and '{other.name}': they differ in "
            f"{', '.join(differing)}."
        )


def _differing(one: SearchSpace | StageSpace, other: SearchSpace | StageSpace, without: set[str]) -> list[str]:
    names = (field.name for field in dataclasses.fields(one) if field.name not in without)
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _values(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(values)))


def _between(values: Iterable[int]) -> tuple[int, ...]:
    depths = set(values)
    return tuple(range(min(depths), max(depths) + 1))
