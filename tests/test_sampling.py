"""Random children: a pure function of the key, uniform, independent, and inside the space."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from conftest import LAYERWISE, TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_zoo.architecture.sampling import choose, mutate, sandwich, uniform, uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces.bignas import BIGNAS
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10
from bignas_zoo.errors import UsageError

DRAWS = 3_000


def assert_uniform(drawn: Iterable[Any], options: Iterable[Any]) -> None:
    counts, options = Counter(drawn), list(options)
    assert set(counts) == set(options)
    expected = sum(counts.values()) / len(options)
    chi_square = sum((counts[o] - expected) ** 2 / expected for o in options)
    freedom = len(options) - 1
    # Chi-square has mean k and variance 2k; its tail beyond six deviations is below one in 10,000.
    assert chi_square < freedom + 6 * (2 * freedom) ** 0.5 + 6


def test_same_key_same_child_and_other_keys_other_children() -> None:
    keys = list(itertools.product(range(3), range(4), range(3)))
    first = [uniform_child(BIGNAS, key) for key in keys]
    again = [uniform_child(BIGNAS, key) for key in reversed(keys)][::-1]
    assert first == again
    assert len(set(first)) == len(keys)


def test_order_of_the_key_matters() -> None:
    assert uniform_child(BIGNAS, (1, 2, 3)) != uniform_child(BIGNAS, (3, 2, 1))
    assert uniform((1, 23)) != uniform((12, 3))


def test_same_child_in_another_process_with_another_hash_seed() -> None:
    code = (
        "import json, random\nrandom.seed()\n"
        "from bignas_zoo.architecture.sampling import uniform_child\n"
        "from bignas_zoo.architecture.spaces.bignas import BIGNAS\n"
        "print(json.dumps([uniform_child(BIGNAS, (7, 'x', n)).to_json() for n in range(5)]))"
    )
    results = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert results[0] == results[1]
    assert json.loads(results[0]) == [uniform_child(BIGNAS, (7, "x", n)).to_json() for n in range(5)]


def test_uniform_numbers() -> None:
    numbers = [uniform(("uniform", n)) for n in range(DRAWS)]
    assert all(0 <= u < 1 for u in numbers)
    assert_uniform((int(16 * u) for u in numbers), range(16))
    assert_uniform((int(u * 2**24) % 16 for u in numbers), range(16))  # the lower bits as well


def test_choose_takes_each_option_equally_often() -> None:
    assert_uniform((choose("abcdefg", ("choose", n)) for n in range(DRAWS)), "abcdefg")
    assert choose(["only"], ("anything",)) == "only"


def test_every_choice_of_a_child_is_uniform(tiny: SearchSpace) -> None:
    children = [uniform_child(tiny, ("child", n)) for n in range(DRAWS)]
    assert_uniform((c.resolution for c in children), tiny.resolutions)
    assert_uniform((c.stem_width for c in children), tiny.stem_widths)
    assert_uniform((c.head_width for c in children), tiny.head_widths)
    for i, stage in enumerate(tiny.stages):
        assert_uniform((c.stages[i].depth for c in children), stage.depths)
        assert_uniform((c.stages[i].width for c in children), stage.widths)
        assert_uniform((c.stages[i].expansion for c in children), stage.expansions)
        for j in range(stage.depths[-1]):
            drawn = [c.stages[i].kernels[j] for c in children if c.stages[i].depth > j]
            assert_uniform(drawn, stage.kernels)


def test_layerwise_widths_are_uniform_and_independent_and_change_no_other_draw(tiny: SearchSpace) -> None:
    children = [uniform_child(LAYERWISE, ("layers", n)) for n in range(DRAWS)]
    for i, stage in enumerate(LAYERWISE.stages):
        for j in range(stage.depths[-1]):
            assert_uniform((c.stages[i].widths[j] for c in children if c.stages[i].depth > j), stage.widths)
    widths = LAYERWISE.stages[2].widths
    assert_uniform((c.stages[2].widths[:2] for c in children), itertools.product(widths, widths))
    for n, child in enumerate(children[:100]):
        stagewise = uniform_child(tiny, ("layers", n))
        assert [(s.depth, s.kernels, s.expansion) for s in child.stages] == [
            (s.depth, s.kernels, s.expansion) for s in stagewise.stages
        ]


def test_mutation_redraws_layerwise_widths_one_by_one() -> None:
    parent = LAYERWISE.biggest
    mutants = [mutate(parent, ("layers", n), 0.5) for n in range(DRAWS)]
    third = [m.stages[2].widths for m in mutants]
    assert_uniform((w[1] for w in third if w[1] != 32), (16, 24))
    changed = sum(w[1] != 32 for w in third) / DRAWS
    assert changed == pytest.approx(0.5 * 2 / 3, abs=0.05)  # a redraw gives the old of three widths once in three
    both = sum(w[0] != 32 and w[1] != 32 for w in third) / DRAWS
    assert both == pytest.approx(changed**2, abs=0.05)
    shallow = LAYERWISE.spec(
        resolution=12,
        depths=[1, 1, 2, 1],
        widths=[8, 8, 16, [16, 24], 24, 32],
        kernels=[3] * 4,
        expansions=[1, 2, 4, 2],
    )
    deeper = [m.stages[2].widths for m in (mutate(shallow, ("grow", n), 0.1) for n in range(500))]
    grown = [w[2] for w in deeper if len(w) == 3]
    assert grown
    assert grown.count(24) > len(grown) / 2  # a new layer starts from the last one's width


def test_choices_are_independent_of_each_other(tiny: SearchSpace) -> None:
    children = [uniform_child(tiny, ("pair", n)) for n in range(DRAWS)]
    second, third, last = tiny.stages[1:]
    pairs = [
        ([(c.stages[1].depth, c.stages[1].width) for c in children], (second.depths, second.widths)),
        ([(c.stages[1].width, c.stages[2].width) for c in children], (second.widths, third.widths)),
        ([c.stages[2].kernels[:2] for c in children], (third.kernels, third.kernels)),
        ([(c.stages[2].kernels[0], c.stages[3].kernels[0]) for c in children], (third.kernels, last.kernels)),
        ([(c.resolution, c.stem_width) for c in children], (tiny.resolutions, tiny.stem_widths)),
        ([(c.stem_width, c.head_width) for c in children], (tiny.stem_widths, tiny.head_widths)),
    ]
    for drawn, options in pairs:
        assert_uniform(drawn, itertools.product(*options))


def test_random_children_never_take_unseen_resolutions() -> None:
    drawn = {uniform_child(BIGNAS, ("seen", n)).resolution for n in range(200)}
    assert drawn == {192, 224, 288, 320}


@pytest.mark.parametrize("resolution", [192, 208, 336])
def test_a_given_resolution_is_kept_and_changes_nothing_else(resolution: int) -> None:
    fixed, free = uniform_child(BIGNAS, (5, 6), resolution), uniform_child(BIGNAS, (5, 6))
    assert fixed.resolution == resolution
    assert (fixed.stages, fixed.stem_width, fixed.head_width) == (free.stages, free.stem_width, free.head_width)


def test_a_given_resolution_outside_the_space_is_refused() -> None:
    for resolution in (0, 200):
        with pytest.raises(UsageError, match=f"^resolution {resolution} is not in space 'bignas'"):
            uniform_child(BIGNAS, (5, 6), resolution)


def test_sandwich_of_the_paper() -> None:
    for step in range(20):
        children = sandwich(BIGNAS, seed=3, step=step)
        assert [c.resolution for c in children] == [320, 224, 288, 192]
        assert children[0] == BIGNAS.biggest
        assert children[-1] == BIGNAS.smallest


def test_sandwich_draws_anew_each_step_seed_and_child() -> None:
    drawn = [c for seed in range(3) for step in range(10) for c in sandwich(BIGNAS, seed, step)[1:-1]]
    assert len(set(drawn)) == 60
    without_resolution = {(c.stages, c.stem_width, c.head_width) for c in drawn}
    assert len(without_resolution) == 60
    assert sandwich(BIGNAS, 2, 9)[1:-1] == tuple(drawn[-2:])


@pytest.mark.parametrize(("count", "resolutions"), [(0, []), (1, [224]), (3, [224, 288, 224])])
def test_sandwich_with_other_numbers_of_random_children(count: int, resolutions: list[int]) -> None:
    children = sandwich(BIGNAS, 0, 0, count)
    assert [c.resolution for c in children] == [320, *resolutions, 192]


def test_mutation_rate_zero_is_the_identity() -> None:
    for n in range(50):
        parent = uniform_child(BIGNAS, ("parent", n))
        assert mutate(parent, ("mutate", n), 0.0) == parent


@pytest.mark.parametrize("space", [BIGNAS, BIGNAS_CIFAR10, TINY, LAYERWISE], ids=lambda s: s.name)
@given(number=st.integers(0, 2**40), rate=st.sampled_from([0.1, 0.5, 1.0]), unseen=st.booleans())
@settings(max_examples=40, deadline=None)
def test_mutants_stay_in_the_space(space: SearchSpace, number: int, rate: float, unseen: bool) -> None:
    parent = uniform_child(space, ("parent", number))
    mutant = mutate(parent, ("mutate", number), rate, unseen_resolutions=unseen)
    # Building the child anew checks every value against the space.
    assert ChildSpec.from_json(mutant.to_json(), space) == mutant
    assert mutant.resolution in (space.all_resolutions if unseen else space.resolutions)
    assert mutate(parent, ("mutate", number), rate, unseen_resolutions=unseen) == mutant


def test_mutation_rate_one_redraws_everything(tiny: SearchSpace) -> None:
    parent = tiny.biggest
    mutants = [mutate(parent, ("all", n), 1.0) for n in range(DRAWS)]
    assert_uniform((m.resolution for m in mutants), tiny.resolutions)
    assert_uniform((m.stages[2].width for m in mutants), tiny.stages[2].widths)
    assert_uniform((m.stages[1].depth for m in mutants), tiny.stages[1].depths)
    assert_uniform((m.stages[2].kernels[0] for m in mutants), tiny.stages[2].kernels)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_each_choice_is_redrawn_at_the_rate(tiny: SearchSpace, rate: float) -> None:
    parent = tiny.smallest
    mutants = [mutate(parent, ("rate", n), rate) for n in range(DRAWS)]
    for changed, options in (
        (sum(m.resolution != parent.resolution for m in mutants), 4),
        (sum(m.head_width != parent.head_width for m in mutants), 2),
        (sum(m.stages[2].width != parent.stages[2].width for m in mutants), 3),
        (sum(m.stages[3].kernels[0] != parent.stages[3].kernels[0] for m in mutants), 2),
    ):
        part = rate * (1 - 1 / options)  # a redraw may give the old value
        assert changed / DRAWS == pytest.approx(part, abs=5 * (part * (1 - part) / DRAWS) ** 0.5)


def test_unseen_resolutions_only_when_asked_for() -> None:
    parent = BIGNAS.smallest
    asked = {mutate(parent, ("unseen", n), 1.0, unseen_resolutions=True).resolution for n in range(300)}
    unasked = {mutate(parent, ("unseen", n), 1.0).resolution for n in range(300)}
    assert asked == {192, 208, 224, 240, 256, 272, 288, 304, 320, 336}
    assert unasked == {192, 224, 288, 320}


@pytest.mark.parametrize("rate", [-0.1, 1.01, 5, float("nan"), float("inf")])
def test_a_rate_that_is_no_probability(rate: float) -> None:
    with pytest.raises(UsageError, match=r"^mutation rate: must be within 0 and 1, got "):
        mutate(BIGNAS.smallest, ("bad",), rate)
