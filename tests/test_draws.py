"""Draws stay what they were: 200 children of fixed keys, recorded at commit 73d86b9 before the list of choices was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import LAYERWISE, TINY

from bignas_zoo.architecture.sampling import crossover, mutate, sandwich, uniform_child
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces import variant
from bignas_zoo.architecture.spaces.bignas import BIGNAS
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10

RECORDED = json.loads((Path(__file__).parent / "draws.json").read_text("utf-8"))
BIGNAS_LAYERWISE = variant(BIGNAS, layerwise_widths=True)
SPACES = (BIGNAS, BIGNAS_LAYERWISE, BIGNAS_CIFAR10, TINY, LAYERWISE)


def uniform_children() -> Iterator[ChildSpec]:
    for space in SPACES:
        for n in range(16):
            yield uniform_child(space, ("recorded", n), space.all_resolutions[1] if n % 4 == 3 else None)


def sandwiches() -> Iterator[ChildSpec]:
    for space in (BIGNAS, LAYERWISE):
        for step in (0, 1, 1000):
            yield from sandwich(space, 7, step)
        yield from sandwich(space, 8, 5, 6)


def mutants() -> Iterator[ChildSpec]:
    for space in SPACES:
        for n in range(8):
            parent = uniform_child(space, ("parent", n))
            yield mutate(parent, ("recorded", n), (0.1, 0.3, 0.6, 1.0)[n % 4], unseen_resolutions=n >= 4)


def crossed() -> Iterator[ChildSpec]:
    for space in SPACES:
        for n in range(8):
            first, second = (uniform_child(space, (who, n)) for who in ("first", "second"))
            yield crossover(first, second, ("recorded", n), 0.3 if n % 2 else 0.5)


DRAWS = {"uniform": uniform_children, "sandwich": sandwiches, "mutate": mutants, "crossover": crossed}


def row(spec: ChildSpec) -> list[object]:
    """Return a child as the file holds it: every stage with all its layers, whatever form JSON of children has."""
    stages = [[s.depth, list(s.widths), list(s.kernels), s.expansion] for s in spec.stages]
    return [spec.space.name, spec.resolution, spec.stem_width, stages, spec.head_width]


def test_two_hundred_children_are_recorded() -> None:
    assert RECORDED.keys() == DRAWS.keys()
    assert sum(map(len, RECORDED.values())) == 200
    names = {spec[0] for drawn in RECORDED.values() for spec in drawn}
    assert names == {"bignas", "bignas+layerwise", "bignas-cifar10", "tiny", "tiny+layerwise"}


@pytest.mark.parametrize("what", DRAWS)
def test_the_same_keys_give_the_same_children(what: str) -> None:
    drawn = [row(spec) for spec in DRAWS[what]()]
    assert drawn == RECORDED[what]
