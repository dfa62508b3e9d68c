"""Searches over synthetic accuracies whose optimum is known: by brute force over a small space, or by hand."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.sampling import crossover, uniform, uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces.bignas import BIGNAS, PAPER_MODELS
from bignas_zoo.architecture.stage import StageSpace, StageSpec
from bignas_zoo.budget import Budget
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.search import rounds
from bignas_zoo.search.children import Candidate, Measured, misses
from bignas_zoo.search.coarse_to_fine import DEPTH_MULTIPLIERS, CoarseToFine, Grid, default_grid, skeleton
from bignas_zoo.search.evolution import Evolution
from bignas_zoo.search.front import best, leaders, name_members, pareto, thin
from bignas_zoo.search.log import Log
from bignas_zoo.search.random_search import RandomSearch

#: 2 resolutions x 2 stems x 2 heads x (2 widths x (2 + 4 kernels)) x (2 widths x 2 depths) = 384 children.
SMALL = SearchSpace(
    name="small",
    source="tests",
    classes=5,
    resolutions=(12, 16),
    stem_widths=(8, 16),
    stages=(
        StageSpace(widths=(8, 16), depths=(1, 2), kernels=(3, 5), stride=1, expansions=(2,)),
        StageSpace(widths=(16, 24), depths=(1, 2), kernels=(3,), stride=2, expansions=(2,)),
    ),
    head_widths=(32, 40),
)


def everything(space: SearchSpace) -> list[ChildSpec]:
    """Return every child of a space with one expansion a stage and stage-wise widths."""
    stages = [
        [
            StageSpec(depth, (width,) * depth, kernels, (stage.expansions[0],) * depth)
            for depth in stage.depths
            for width in stage.widths
            for kernels in itertools.product(stage.kernels, repeat=depth)
        ]
        for stage in space.stages
    ]
    return [
        ChildSpec(space, resolution, stem, chosen, head)
        for resolution in space.all_resolutions
        for stem in space.stem_widths
        for chosen in itertools.product(*stages)
        for head in space.head_widths
    ]


@functools.cache
def figures(spec: ChildSpec) -> dict[str, float]:
    return {"macs": cost.macs(spec), "parameters": cost.parameters(spec), "latency_ms@desk": 1e-6 * cost.macs(spec)}


def accuracy(spec: ChildSpec) -> float:
    """A concave function of size, and a little that belongs to each child: ranks are not those of MACs."""
    size = cost.macs(spec) / cost.macs(spec.space.biggest)
    return round(100 * size**0.3 * 0.9 + 6 * uniform(("noise", json.dumps(spec.to_json()))), 4)


def methods(space: SearchSpace, budgets: Sequence[Budget], seed: int = 0) -> dict[str, rounds.Method]:
    limits = tuple(budgets)
    return {
        "coarse-to-fine": CoarseToFine(space, default_grid(space, 20).members(space), limits, figures, seed),
        "evolution": Evolution(space, limits, figures, seed, population=16),
        "random": RandomSearch(space, limits, figures, seed),
    }


METHODS = ("coarse-to-fine", "evolution", "random")
BUDGETS = (Budget.parse("0.5M"), Budget.parse("1M,0.9ms@desk"), Budget.parse("30Kparams"))


def run(name: str, *, space: SearchSpace = TINY, budgets: Sequence[Budget] = BUDGETS, children: int = 60, **more: Any):
    evaluate = more.pop("evaluate", rounds.each(accuracy))
    return rounds.search(methods(space, budgets)[name], evaluate, figures, children=children, **more)


def test_the_small_space_has_as_many_children_as_counted_by_hand() -> None:
    assert len(set(everything(SMALL))) == 2 * 2 * 2 * (2 * (2 + 4)) * (2 * 2) == 384


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("budget", ["100KMACs", "7Kparams,0.08ms@desk"])
def test_a_search_of_the_whole_space_finds_the_optimum(name: str, budget: str) -> None:
    limits = Budget.parse(budget)
    fitting = [s for s in everything(SMALL) if not misses(limits.limits, figures(s))]
    assert 3 < len(fitting) < 384
    found = best(run(name, space=SMALL, budgets=[limits], children=400), limits)
    assert found is not None
    if name == "random":  # which may never draw some children
        assert found.top1 >= sorted(map(accuracy, fitting))[-3]
    else:
        assert found.top1 == max(map(accuracy, fitting))


@pytest.mark.parametrize("name", ["coarse-to-fine", "evolution"])
def test_a_part_of_the_space_gives_a_child_near_the_optimum(name: str) -> None:
    limits = Budget.parse("100KMACs")
    ranks = sorted((accuracy(s) for s in everything(SMALL) if not misses(limits.limits, figures(s))), reverse=True)
    found = best(run(name, space=SMALL, budgets=[limits], children=80), limits)
    assert found is not None
    assert ranks.index(found.top1) < 0.05 * len(ranks)


@pytest.mark.parametrize("name", METHODS)
def test_without_budgets_the_front_is_searched(name: str) -> None:
    measured = run(name, space=SMALL, budgets=[], children=200)
    truth = pareto(Measured(s, accuracy(s), "grid") for s in everything(SMALL))
    found = pareto(measured)
    # Half of the space: most members of the true front have a found one that costs no more and is almost as good.
    near = [max([m.top1 for m in found if m.macs <= wanted.macs], default=0) >= wanted.top1 - 2 for wanted in truth]
    assert sum(near) >= (0.5 if name == "random" else 0.8) * len(truth)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=6, deadline=None)
@given(limit=st.floats(0.1, 3), parameters=st.integers(12, 80), seed=st.integers(0, 9))
def test_nothing_over_the_budget_is_proposed_or_returned(name: str, limit: float, parameters: int, seed: int) -> None:
    budget = Budget.parse(f"{limit:.4f}M,{parameters}Kparams")
    method = methods(TINY, [budget], seed)[name]
    measured = rounds.search(method, rounds.each(accuracy), figures, children=32)
    chosen = best(measured, budget)
    assert chosen is None or not budget.violations(figures(chosen.spec))
    assert all(not budget.violations(figures(m.spec)) for m in measured if m.origin != "grid")
    if not budget.violations(figures(TINY.smallest)):
        assert chosen is not None


@pytest.mark.parametrize("name", METHODS)
def test_at_most_so_many_different_children(name: str) -> None:
    for children in (1, 7, 8, 33):
        measured = run(name, children=children)
        assert len({m.spec for m in measured}) == len(measured) == children


def test_a_space_with_fewer_children_ends_the_search() -> None:
    one = SearchSpace("one", "tests", 5, (12, 16), (8,), (32,), (StageSpace((8,), (1,), (3,), 1, (2,)),))
    for method in methods(one, []).values():
        assert len(rounds.search(method, rounds.each(accuracy), figures, children=50)) == 2


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_children_and_other_seeds_others(name: str) -> None:
    first, again = run(name), run(name)
    assert first == again
    other = rounds.search(methods(TINY, BUDGETS, 1)[name], rounds.each(accuracy), figures, children=60)
    assert other != first


class StopError(Exception):
    """Stands for a kill."""


SMALL_BUDGETS = (Budget.parse("100KMACs"), Budget.parse("9Kparams"))


@pytest.mark.parametrize("name", METHODS)
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    whole_log = Log.open(tmp_path / "whole.jsonl", "x", SMALL)
    whole = run(name, space=SMALL, budgets=SMALL_BUDGETS, children=20, log=whole_log)
    for at in range(20):
        path, calls = tmp_path / f"{at}.jsonl", 0

        def until(spec: ChildSpec, at: int = at) -> float:
            nonlocal calls
            calls += 1
            if calls > at:
                raise StopError
            return accuracy(spec)

        with pytest.raises(StopError):
            run(
                name,
                space=SMALL,
                budgets=SMALL_BUDGETS,
                children=20,
                log=Log.open(path, "x", SMALL),
                evaluate=rounds.each(until),
            )
        with path.open("ab") as file:  # a kill in the middle of the next line
            file.write(b'{"spec": {"spa')
        said: list[str] = []
        told: list[rounds.ChildProgress] = []
        again = run(
            name,
            space=SMALL,
            budgets=SMALL_BUDGETS,
            children=20,
            log=Log.open(path, "x", SMALL, said.append),
            report=told.append,
        )
        assert again == whole
        assert [p.fresh for p in told] == [False] * at + [True] * (20 - at)
        assert path.read_bytes() == whole_log.path.read_bytes()
        assert said == [f"{path}: 1 damaged line dropped; measured again where needed"]


def test_a_finished_search_measures_nothing_again(tmp_path: Path) -> None:
    def never(spec: ChildSpec) -> float:
        raise AssertionError

    first = run("evolution", log=Log.open(tmp_path / "log", "x", TINY))
    assert run("evolution", log=Log.open(tmp_path / "log", "x", TINY), evaluate=rounds.each(never)) == first


def test_a_log_of_other_weights_is_refused_or_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run("random", children=3, log=Log.open(path, "x", TINY))
    with pytest.raises(IntegrityError) as caught:
        Log.open(path, "y", TINY)
    assert str(caught.value) == (
        f"{path}: holds 3 children measured with other weights, images or another way of measuring. "
        "Choose another --output, or delete this file to measure anew."
    )
    assert len(Log.open(path, "x", TINY).known) == 3
    assert Log.open(path, "y", TINY, others="drop").known == {}
    assert path.read_bytes() == b""


def test_stop_ends_the_search_after_the_child_at_hand() -> None:
    seen: list[int] = []
    assert run("random", report=lambda p: seen.append(p.done), stop=lambda: len(seen) >= 11)[10:][0].spec
    assert seen == list(range(1, 12))


def test_an_accuracy_that_is_none_is_refused() -> None:
    for wrong in (float("nan"), -1.0, 100.5):
        with pytest.raises(UsageError, match="an accuracy is a percentage"):
            run("random", evaluate=rounds.each(lambda spec, wrong=wrong: wrong))
    with pytest.raises(UsageError, match="must be at least 1, got 0 and 8"):
        run("random", children=0)


def test_children_to_start_with_come_first_and_once() -> None:
    start = [Candidate(TINY.smallest, "corner"), Candidate(TINY.biggest, "corner"), Candidate(TINY.smallest, "earlier")]
    measured = run("coarse-to-fine", start=start, children=12)
    assert [m.spec for m in measured[:2]] == [TINY.smallest, TINY.biggest]
    assert [m.origin for m in measured[:6]] == ["corner", "corner", *["grid"] * 4]


def test_budgets_share_the_coarse_phase_and_take_turns_in_the_fine_one() -> None:
    rows = run("coarse-to-fine", children=80)
    grid = default_grid(TINY, 20).members(TINY)
    assert [m.spec for m in rows[: len(grid)]] == list(grid)
    fine = rows[len(grid) :]
    assert {m.origin for m in fine} == {"mutation"}
    grid_rounds = -(-len(grid) // 8)
    for number in range(6):
        for m in fine[8 * number : 8 * number + 8]:
            assert not misses(BUDGETS[(grid_rounds + number) % 3].upper, m.figures)


def test_an_order_chooses_what_is_measured_and_never_the_grid() -> None:
    def order(measured: Sequence[Measured], found: Sequence[Candidate]) -> list[float]:
        assert len(found) == 8 * rounds.RANKED
        return [accuracy(c.spec) for c in found]

    grid = default_grid(TINY, 20).members(TINY)
    rows = run("coarse-to-fine", children=len(grid) + 8, order=order, budgets=BUDGETS[:1])
    assert [m.spec for m in rows[: len(grid)]] == list(grid)
    # A perfect order measures the best of 64 candidates first.
    plain = run("coarse-to-fine", children=len(grid) + 8, budgets=BUDGETS[:1])
    ranked, unranked = ([m.top1 for m in r[len(grid) :]] for r in (rows, plain))
    assert ranked == sorted(ranked, reverse=True)
    assert sum(ranked) > sum(unranked)


def test_multipliers_give_the_depths_of_the_papers_models() -> None:
    depths = [[s.depth for s in skeleton(BIGNAS, 224, m, 1.0, "all").stages] for m in DEPTH_MULTIPLIERS]
    assert depths[0] == [s.depth for s in BIGNAS.smallest.stages]
    assert depths[1] == [s.depth for s in PAPER_MODELS["bignas-m"].stages]
    assert depths[3] == [s.depth for s in BIGNAS.biggest.stages]
    xl = [s.depth for s in PAPER_MODELS["bignas-xl"].stages]
    assert sum(a != b for a, b in zip(depths[2], xl, strict=True)) == 1


def test_the_papers_grid_on_the_papers_space() -> None:
    grid = default_grid(BIGNAS)
    assert grid.resolutions == (192, 224, 256, 288, 320)  # section 4.4
    assert (len(grid.depths), len(grid.widths), len(grid.kernels)) == (4, 2, 4)
    members = grid.members(BIGNAS)
    assert len(members) == 160
    assert BIGNAS.smallest in members
    assert BIGNAS.biggest in members


def test_a_smaller_grid_keeps_both_ends_as_long_as_it_can() -> None:
    for most in (100, 50, 16):
        members = default_grid(BIGNAS, most).members(BIGNAS)
        assert len(members) <= most
        assert {BIGNAS.smallest, BIGNAS.biggest} <= set(members)
    assert len(default_grid(BIGNAS, 1).members(BIGNAS)) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Grid(()), "grid: resolutions: needs at least one value."),
        (lambda: Grid((224,), depths=(1.5,)), "grid: multipliers are above 0 and up to 1, got 1.5."),
        (lambda: Grid((224,), kernels=("big",)), "grid: kernels: must be of none, first half, second half, all; "
         "got 'big'."),
        (lambda: Evolution(TINY, (), figures, 0, population=1), "evolution: population: must be at least 2, got 1."),
        (lambda: Evolution(TINY, (), figures, 0, parents=2), "evolution: parents: must be within 0 and 1, got 2."),
        (lambda: crossover(TINY.smallest, BIGNAS.smallest, (0,)), "crossover: 'tiny' and 'bignas' are different "
         "spaces."),
        (lambda: crossover(TINY.smallest, TINY.biggest, (0,), 2), "crossover: share must be within 0 and 1, got 2."),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        wrong()
    assert str(caught.value) == message


def test_crossover_takes_each_part_from_one_parent() -> None:
    small, big = TINY.smallest, TINY.biggest
    assert crossover(small, big, (0,), 0.0) == small
    assert crossover(small, big, (0,), 1.0) == big
    taken = 0
    for i in range(200):
        child = crossover(small, big, ("mix", i))
        assert all(s in (a, b) for s, a, b in zip(child.stages, small.stages, big.stages, strict=True))
        taken += child.stages[1] == big.stages[1]
    assert 70 < taken < 130  # of 200 fair draws: beyond four deviations


def child(position: int, top1: float, macs: float, milliseconds: float) -> Measured:
    spec = uniform_child(TINY, ("child", position))
    return Measured(spec, top1, "random", {"macs": macs, "latency_ms@desk": milliseconds})


A, B, C, D = child(0, 50, 100, 4), child(1, 60, 200, 3), child(2, 55, 300, 1), child(3, 60, 250, 5)


def test_fronts_over_any_two_figures() -> None:
    rows = [D, C, B, A]
    assert pareto(rows) == (A, B)
    assert pareto(rows, "top1", "macs") == (B, A)
    assert pareto(rows, "latency_ms@desk", "top1") == (C, B)
    assert pareto(rows, "macs", "latency_ms@desk") == (A, B, C)
    with pytest.raises(KeyError):
        pareto(rows, "bytes", "top1")


def test_best_of_a_budget() -> None:
    rows = [A, B, C, D]
    for budget, wanted in (
        ("150MACs", A), ("250MACs", B), ("2ms@desk", C), ("99MACs", None), ("top1>=55", B),
        ("top1>=50", A), ("top1>=61", None), ("300MACs,top1>=61", None), ("300MACs,4ms@desk", B), ("1s@other", None),
    ):  # fmt: skip
        assert best(rows, Budget.parse(budget)) is wanted, budget
    # Not strictly, children that miss the accuracy come last, the most accurate of them first.
    assert leaders(rows, Budget.parse("top1>=55"), 9) == [B, D, C, A]
    assert leaders(rows, Budget.parse("250MACs,top1>=55"), 9) == [B, D, A]


def test_thin_keeps_what_gains_more_than_noise() -> None:
    rows = [child(i, top1, i + 1, 1) for i, top1 in enumerate((50, 50.2, 51, 51.4, 51.6))]
    assert [m.top1 for m in thin(rows)] == [50, 51, 51.6]
    assert [m.top1 for m in thin(rows, 0.7)] == [50, 51.6]
    assert thin([]) == ()


def test_names_of_slices() -> None:
    space_macs = [1_000, 2_000, 4_000, 8_000, 3_000]
    corners = [
        Measured(TINY.smallest, 1, "corner", {"macs": 500}), Measured(TINY.biggest, 99, "corner", {"macs": 9_000}),
    ]  # fmt: skip
    inner = sorted((child(10 + i, 50, m, 1) for i, m in enumerate(space_macs)), key=lambda m: m.macs)
    names = name_members("f", TINY, [*corners[:1], *inner, corners[1]], [*corners, *inner])
    assert {name: m.macs for name, m in names.items()} == {
        "f-smallest": 500, "f-biggest": 9_000, "f-s": 1_000, "f-m": 2_000, "f-l": 4_000, "f-xl": 8_000, "f-f01": 3_000,
    }  # fmt: skip
