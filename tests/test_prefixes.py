"""A child that goes on where an earlier one left off: the same numbers, less work, bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import LAYERWISE, LAYERWISE_CHILD, TINY
from equality import random_weights

from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import mutate
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.measure.evaluate import Evaluator
from bignas_zoo.models import blockwise
from bignas_zoo.models.blockwise import CutChild
from bignas_zoo.models.prefixes import Prefixes
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data import LabelledImages

PREPROCESS = Preprocess(20, (128.0,) * 3, (64.0,) * 3)
BLOCKS = plan(TINY.biggest)


def pictures(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 20, 20, 3), np.uint8)


def labelled(seed: int, count: int) -> LabelledImages:
    labels = np.random.default_rng(seed).integers(0, 5, count).astype(np.int32)
    return LabelledImages(pictures(seed, count), labels, tuple("abcde"), "random")


def evaluator(prefix_bytes: int, space: SearchSpace = TINY) -> Evaluator:
    return Evaluator(space, random_weights(0, space), PREPROCESS, pictures(1, 100), prefix_bytes=prefix_bytes)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count blocks as they run: which kind of pass each belongs to."""
    found: list[str] = []
    make = blockwise._graph

    def counting(run: Any, *block: Any) -> Callable[..., Any]:
        found.append(run.__name__)
        return make(run, *block)

    monkeypatch.setattr(blockwise, "_graph", counting)
    return found


def test_the_longest_beginning_is_found() -> None:
    kept = Prefixes(100)
    for count in (2, 3, 5):
        kept.keep("images", BLOCKS[:count], count, 10)
    assert kept.longest("images", BLOCKS) == (5, 5)
    assert kept.longest("images", BLOCKS[:4]) == (3, 3)
    assert kept.longest("other images", BLOCKS) == (0, None)
    other = plan(TINY.smallest)
    assert other[0] != BLOCKS[0]
    assert kept.longest("images", other) == (0, None)
    kept.keep("images", BLOCKS[:1], "the stem alone", 1)
    assert kept.longest("images", BLOCKS[:1]) == (0, None)


def test_what_was_not_wanted_for_longest_goes_first() -> None:
    kept = Prefixes(30)
    for name in "abc":
        kept.keep(name, BLOCKS[:2], name, 10)
    assert kept.longest("a", BLOCKS) == (2, "a")
    kept.keep("d", BLOCKS[:2], "d", 15)
    assert [kept.longest(name, BLOCKS)[0] for name in "abcd"] == [2, 0, 0, 2]
    assert kept.size_bytes == 25
    kept.keep("too large", BLOCKS[:2], "too large", 31)
    assert kept.size_bytes == 25
    kept.keep("d", BLOCKS[:2], "again", 15)
    assert kept.size_bytes == 25
    kept.forget()
    assert kept.size_bytes == 0
    assert kept.longest("a", BLOCKS) == (0, None)


def test_a_child_starts_where_another_left_off(runs: list[str]) -> None:
    # They differ in the kernels of the last stage: all blocks before it are the same.
    first = TINY.biggest
    stages = (*first.stages[:-1], type(first.stages[-1])(2, (32, 32), (3, 3), first.stages[-1].expansions))
    second = ChildSpec(TINY, first.resolution, first.stem_width, stages, first.head_width)
    same = 1 + sum(stage.depth for stage in first.stages[:-1])
    body = 1 + sum(stage.depth for stage in first.stages) + 1  # stem, blocks, head

    measure, images = evaluator(1 << 30), labelled(2, 30)
    measure.top1(first, images)
    assert (runs.count("_batch_block"), runs.count("_folded_block")) == (body, body + 1)
    runs.clear()
    measure.top1(second, images)
    assert (runs.count("_batch_block"), runs.count("_folded_block")) == (body - same, body + 1 - same)
    runs.clear()
    measure.top1(second, labelled(3, 30))  # other images: nothing that was made of the first ones is taken
    assert runs.count("_folded_block") == body + 1


@pytest.mark.parametrize("start", [TINY.biggest, LAYERWISE_CHILD], ids=["stage-wise", "layer-wise"])
@pytest.mark.parametrize("limit", [1 << 30, 8_000_000], ids=["all kept", "some kept"])
def test_the_numbers_are_the_same(start: ChildSpec, limit: int, runs: list[str]) -> None:
    space = start.space
    weights = random_weights(0, space)
    kept = Prefixes(limit)
    specs = [start, *(mutate(start, ("prefixes", i), 0.1) for i in range(12))]
    for spec in specs:
        x = PREPROCESS.inputs(pictures(1, 70), spec.resolution)
        alone, beside = CutChild(spec, weights), CutChild(spec, weights, kept)
        expected = alone.moments(x)
        found = beside.moments(lambda x=x: x, "calibration")
        assert found.keys() == expected.keys()
        for name, pair in expected.items():
            for one, other in zip(pair, found[name], strict=True):
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        np.testing.assert_array_equal(alone.logits(x, expected), beside.logits(x, found, "images"))
        assert kept.size_bytes <= limit
    blocks = sum(2 * len(plan(spec)) - 1 for spec in specs)
    assert blocks < len(runs) < 2 * blocks  # those of `alone`, and some of `beside`


def test_accuracies_do_not_depend_on_what_came_before() -> None:
    images = labelled(2, 60)
    specs = [LAYERWISE_CHILD, *(mutate(LAYERWISE_CHILD, ("order", i), 0.1) for i in range(6))]
    one, none = evaluator(1 << 30, LAYERWISE), evaluator(0, LAYERWISE)
    forth = {spec: one.top1(spec, images) for spec in specs}
    back = {spec: one.top1(spec, images) for spec in reversed(specs)}
    assert forth == back == {spec: none.top1(spec, images) for spec in specs}
    assert len(set(forth.values())) > 1
