"""The one list of a space's choices: sampling, the supernet's vector, grids, features and coverage are loops over it.

A choice is one axis of a space. A child is one value for each; where a stage is shallower than its deepest, the choices
of its absent layers repeat the last layer's value, and are not read when a child is built.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bignas_zoo.architecture.checks import option
from bignas_zoo.architecture.stage import StageSpace, StageSpec
from bignas_zoo.errors import SpaceError

T = TypeVar("T")
#: Name, stage and layer of a choice: what values go by.
Place = tuple[str, int, int]
#: The choices of a stage that each of its layers has, or all of them share; a stage's fields are their plurals.
LAYERED = ("expansion", "kernel", "width")


@dataclass(frozen=True)
class Choice:
    """One axis of a space.

    Attributes:
        name: "resolution", "stem width", "head width", "depth", or of `LAYERED`.
        options: the values it may take, ascending.
        stage: the stage it acts on, counted from 0; -1 if on the network.
        layer: the layer of that stage, counted from 0; -1 if on all of them.
        unseen: further values, which may be deployed but are not trained.
    """

    name: str
    options: tuple[int, ...]
    stage: int = -1
    layer: int = -1
    unseen: tuple[int, ...] = ()

    @functools.cached_property  # these four are asked for with every draw
    def place(self) -> Place:
        """What its value goes by."""
        return self.name, self.stage, self.layer

    @functools.cached_property
    def key(self) -> tuple[int | str, ...]:
        """Its part of the key of a draw, e.g. ``("kernel", 2, 0)``, ``("depth", 2)``, ``("stem",)``."""
        return (self.name.removesuffix(" width"), *(place for place in (self.stage, self.layer) if place >= 0))

    @functools.cached_property
    def allowed(self) -> tuple[int, ...]:
        """Every value that a child may have, ascending."""
        return tuple(sorted({*self.options, *self.unseen})) if self.unseen else self.options

    @functools.cached_property
    def label(self) -> str:
        """What messages call it, e.g. ``stage 3, layer 1: kernel``; they count from 1."""
        if self.stage < 0:
            return self.name.replace(" ", ": ")
        layer = f", layer {self.layer + 1}" if self.layer >= 0 else ""
        return f"stage {self.stage + 1}{layer}: {self.name}"

    def acts(self, values: Mapping[Place, int]) -> bool:
        """Return whether a child of the depths among some values has the layer that this is of."""
        return self.layer < 0 or self.layer < values["depth", self.stage, -1]

    def given(self, spec: ChildView) -> tuple[int, ...]:
        """Return what a child says of it: one value; none if it lacks the layer; one a layer if they share it."""
        if self.stage < 0:
            return (getattr(spec, self.name.replace(" ", "_")),)
        stage = spec.stages[self.stage]
        if self.name == "depth":
            return (stage.depth,)
        values: tuple[int, ...] = getattr(stage, f"{self.name}s")
        return values if self.layer < 0 else values[self.layer : self.layer + 1]

    def value(self, spec: ChildView) -> int | None:
        """Return a child's value, or None if it lacks the layer."""
        return next(iter(self.given(spec)), None)


class SpaceView(Protocol):
    """What is read of a space, see `architecture.space.SearchSpace`, which is built on this file."""

    @property
    def name(self) -> str:
        """Its short name."""

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Input sizes in pixels, ascending."""

    @property
    def unseen_resolutions(self) -> tuple[int, ...]:
        """Further ones, which are not trained."""

    @property
    def stem_widths(self) -> tuple[int, ...]:
        """Channels of the first convolution."""

    @property
    def head_widths(self) -> tuple[int, ...]:
        """Channels of the last convolution."""

    @property
    def stages(self) -> tuple[StageSpace, ...]:
        """Its stages in order."""

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What `choices_of` gives of it."""


class ChildView(Protocol):
    """What is read of a child by its name; its other fields by those of choices, see `Choice.given`."""

    @property
    def space(self) -> SpaceView:
        """The space it is of."""

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """What it is in each stage of the space."""


def choices_of(space: SpaceView) -> Iterator[Choice]:
    """Give the choices of a space from the input to the logits, a stage's depth before those of its layers."""
    yield Choice("resolution", space.resolutions, unseen=space.unseen_resolutions)
    yield Choice("stem width", space.stem_widths)
    for i, stage in enumerate(space.stages):
        yield Choice("depth", stage.depths, i)
        for name in LAYERED:
            for layer in range(stage.depths[-1]) if stage.layerwise(name) else (-1,):
                yield Choice(name, getattr(stage, f"{name}s"), i, layer)
    yield Choice("head width", space.head_widths)


def values_of(spec: ChildView) -> dict[Place, int]:
    """Return a child's value for each choice of its space; those of absent layers repeat the last one."""
    values: dict[Place, int] = {}
    for choice in spec.space.choices:
        value = choice.value(spec)
        before = (choice.name, choice.stage, choice.layer - 1)
        values[choice.place] = values[before] if value is None else value
    return values


def check_choices(spec: ChildView) -> None:
    """Check what a child of as many stages as its space says of each choice.

    Raises:
        SpaceError: a value is none of the options, a stage has not one for each of its layers, or layers differ in what
            they share.
    """
    for choice in spec.space.choices:
        _check(choice, choice.given(spec), spec.space.name)
        if choice.name == "depth":  # it comes before those of the layers
            _check_lengths(choice.stage, spec)


def _check_lengths(number: int, spec: ChildView) -> None:
    stage = spec.stages[number]
    for name in LAYERED:
        if (count := len(getattr(stage, f"{name}s"))) != stage.depth:
            raise SpaceError(f"stage {number + 1}: needs {stage.depth} {name}s (one a layer), got {count}.")


def _check(choice: Choice, values: tuple[int, ...], space: str) -> None:
    for value in values:
        if type(value) is not int or value not in choice.allowed:
            option(choice.label, value, choice.allowed, f"is not in space '{space}'")
    if len(values) > 1 and len(set(values)) > 1:
        name = choice.name
        raise SpaceError(
            f"stage {choice.stage + 1}: {name}s {list(values)} differ, but space '{space}' has one {name} a stage. "
            f"Give one number, or take a space with layer-wise {name}s."
        )


def serving(values: Mapping[Place, T], name: str, stage: int, layer: int) -> T:
    """Return the value that serves a layer: its own, or its stage's."""
    own = (name, stage, layer)
    return values[own if own in values else (name, stage, -1)]
