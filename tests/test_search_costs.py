"""What children cost in a search, what a new family keeps, and how well a predictor ranks."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from latency_tables import table_of, time_of

import bignas_zoo as bz
from bignas_zoo.architecture import cost
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.budget import Budget
from bignas_zoo.errors import NotFoundError, NothingFitsError, UsageError
from bignas_zoo.latency import BlockKey, DeviceTable
from bignas_zoo.search import costs
from bignas_zoo.search.children import Measured
from bignas_zoo.search.front import best, not_worse, pareto, thin
from bignas_zoo.zoo.selection import LatencyPredictor

SPECS = list(dict.fromkeys(uniform_child(TINY, ("costs", i)) for i in range(40)))


def milliseconds(spec: bz.ChildSpec) -> float:
    return 2.0 + sum(time_of(BlockKey.of(block)) for block in plan(spec))


def phone() -> DeviceTable:
    return table_of(TINY, overhead_ms=2.0)


@pytest.mark.parametrize(("risk", "factor"), [("upper", 1.15), ("mean", 1.0)])  # 15 %: never validated
def test_milliseconds_are_those_of_the_table(risk: str, factor: float) -> None:
    budgets = [Budget.parse("9999ms@phone,1G")]
    predictor = costs.predictor_for(budgets, (), risk=risk, tables=[phone()])
    figures = costs.costs_for(TINY, budgets, predictor, ())
    for spec in SPECS[:5]:
        assert figures(spec)["latency_ms@phone"] == pytest.approx(factor * milliseconds(spec))
        assert (figures(spec)["macs"], figures(spec)["parameters"]) == (cost.macs(spec), cost.parameters(spec))


def test_a_device_may_be_named_by_the_front_alone() -> None:
    predictor = costs.predictor_for([], costs.parse_front("ms@phone,top1"), tables=[phone()])
    assert costs.costs_for(TINY, [], predictor, ())(TINY.smallest)["latency_ms@phone"] > 2
    with pytest.raises(NotFoundError, match="nowhere"):
        costs.predictor_for([], costs.parse_front("ms@nowhere,top1"))


def test_a_child_with_blocks_that_a_table_lacks_meets_no_limit() -> None:
    small = {BlockKey.of(block) for block in plan(TINY.smallest)}
    whole = phone()
    table = table_of(TINY, overhead_ms=2.0, rows={k: v for k, v in whole.rows.items() if k in small})
    budgets = [Budget.parse("9999ms@phone")]
    figures = costs.costs_for(TINY, budgets, costs.predictor_for(budgets, (), tables=[table]), ())
    assert math.isinf(figures(TINY.biggest)["latency_ms@phone"])
    rows = [Measured(s, t, "random", figures(s)) for s, t in ((TINY.smallest, 10), (TINY.biggest, 90))]
    assert best(rows, budgets[0]) is rows[0]
    assert pareto(rows, "latency_ms@phone", "top1") == (rows[0],)
    other = table_of(TINY, rows={k: v for k, v in whole.rows.items() if k not in small})
    with pytest.raises(NotFoundError, match="blocks are neither in its table"):
        costs.costs_for(TINY, budgets, LatencyPredictor({"phone": other}), ())


@pytest.mark.parametrize(
    ("budget", "has"),
    [("1MACs", "MACs"), ("1params", "params"), ("10B", "B"), ("1ms@phone", "ms"), ("1G,top1>=5,1us@phone", "ms")],
)
def test_a_budget_below_the_smallest_child_is_refused_at_once(budget: str, has: str) -> None:
    limits = [Budget.parse("1G"), Budget.parse(budget)]
    predictor = costs.predictor_for(limits, (), tables=[phone()])
    with pytest.raises(NothingFitsError, match=f"below the smallest child of space 'tiny', which has .*{has}\\.$"):
        costs.costs_for(TINY, limits, predictor, ())


def test_bytes_are_those_of_the_shipped_files_and_never_less() -> None:
    family = bz.get_family("bignas-cifar10")
    figures = costs.costs_for(family.space, [], LatencyPredictor(), family.slices)
    without = costs.costs_for(family.space, [], LatencyPredictor(), ())
    for shipped in family.slices:
        assert shipped.bytes is not None
        assert shipped.bytes <= figures(shipped.spec)["bytes"] <= 1.005 * shipped.bytes
        assert shipped.bytes <= without(shipped.spec)["bytes"] <= 1.05 * shipped.bytes


@pytest.mark.parametrize("text", ["", "macs", "macs,macs", "macs,top1,bytes", "macs,flops", "ms,top1", "8ms@p,top1"])
def test_a_front_has_two_axes(text: str) -> None:
    with pytest.raises(UsageError, match="front: (needs two different axes|axes are top1, macs)"):
        costs.parse_front(text)
    assert costs.parse_front("ms@pixel-6, bytes") == ("latency_ms@pixel-6", "bytes")


def test_nothing_is_worse_than_before_whatever_the_budget() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        rows = [
            Measured(s, float(t), "random", {"macs": int(m), "parameters": int(p)})
            for s, t, (m, p) in zip(
                SPECS, generator.integers(40, 60, 40) / 2, generator.integers(1, 30, (40, 2)), strict=True
            )
        ]
        earlier = rows[:9]
        chosen = list(thin(pareto(rows)))
        now = [*chosen, *not_worse(earlier, chosen, rows)]
        assert len(now) <= len(chosen) + len(earlier)
        for macs, parameters in itertools.product(range(1, 31, 3), repeat=2):
            budget = Budget.parse(f"{macs}MACs,{parameters}params")
            before, after = best(earlier, budget), best(now, budget)
            assert before is None or (after is not None and after.top1 >= before.top1)


def test_an_earlier_slice_gives_way_to_a_better_one_only() -> None:
    def child(i: int, top1: float, macs: int, parameters: int) -> Measured:
        return Measured(SPECS[i], top1, "random", {"macs": macs, "parameters": parameters})

    old, better, bigger = child(0, 50, 10, 10), child(1, 51, 10, 9), child(2, 60, 9, 11)
    assert not_worse([old], [bigger], [old, bigger]) == [old]
    assert not_worse([old], [bigger], [old, bigger, better]) == [better]
    assert not_worse([old], [better], [old, bigger, better]) == []


def test_rank_correlations_by_hand() -> None:
    from bignas_zoo.measure.accuracy_predictor import kendall, spearman

    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    assert spearman(a, b) == pytest.approx(1 - 6 * 2 / (4 * 15))  # no ties: 1 - 6 sum d^2 / (n (n^2 - 1))
    assert kendall(a, b) == pytest.approx((5 - 1) / 6)
    assert kendall(a, np.array([1.0, 1, 2, 3])) == pytest.approx(5 / math.sqrt(6 * 5))  # tau-b: one pair tied
    assert spearman(a, np.array([1.0, 1, 2, 3])) == pytest.approx(np.corrcoef([1, 2, 3, 4], [1.5, 1.5, 3, 4])[0, 1])
    assert spearman(a, np.ones(4)) == kendall(a, np.ones(4)) == 0.0


def test_the_predictor_reports_what_leaving_each_child_out_gives() -> None:
    from bignas_zoo.measure import accuracy_predictor as ours

    rows = [Measured(s, 40 + 10 * math.log10(cost.macs(s)) + (i % 3) / 5, "random") for i, s in enumerate(SPECS[:30])]
    fitted = ours.fit(rows)
    x = np.stack([ours.features(m.spec) for m in rows])
    y = np.array([m.top1 for m in rows])
    x = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)

    def left_out(penalty: float) -> np.ndarray:
        out = []
        for i in range(len(y)):
            keep = np.arange(len(y)) != i
            ones = np.column_stack([np.ones(keep.sum()), x[keep]])
            shrink = np.diag([0.0] + [penalty] * x.shape[1])
            beta = np.linalg.solve(ones.T @ ones + shrink, ones.T @ y[keep])
            out.append(beta[0] + x[i] @ beta[1:])
        return np.array(out)

    tried = [left_out(p) for p in ours.PENALTIES]
    wanted = min(tried, key=lambda guess: float(((guess - y) ** 2).mean()))
    assert fitted.spearman == pytest.approx(ours.spearman(wanted, y), abs=1e-9)
    assert fitted.kendall == pytest.approx(ours.kendall(wanted, y), abs=1e-9)
    assert fitted.top1([m.spec for m in rows]) == pytest.approx(y, abs=1.0)
    assert fitted.to_json()["children"] == 30


def test_a_folder_keeps_the_settings_of_its_search(tmp_path: Path) -> None:
    from bignas_zoo.search.settings import Settings, claim

    settings = Settings((Budget.parse("1M"),), children=20, seed=3)
    claim(tmp_path, settings, reuse=False)
    claim(tmp_path, Settings((Budget.parse("1M"),), children=40, seed=3, workers=5), reuse=False)
    for other, message in (
        (Settings((Budget.parse("1M"),), seed=4), "holds a search with seed 3, not 4."),
        (Settings((), seed=3), "holds a search with budgets ['1M'], not []."),
        (
            Settings((Budget.parse("1M"),), "random", seed=3),
            "holds a search with method 'coarse-to-fine', not 'random'.",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            claim(tmp_path, other, reuse=False)
        assert str(caught.value) == (
            f"{tmp_path}: {message} Choose another --output, or add --reuse to search anew with what it has measured."
        )
    claim(tmp_path, Settings((), seed=3), reuse=True)
    claim(tmp_path, Settings((), seed=3), reuse=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "best"}, "method: must be one of coarse-to-fine, evolution, reinforce, random; got 'best'."),
        ({"children": 7}, "children: must be at least 8, got 7."),
        ({"workers": 0}, "workers: must be at least 1, got 0."),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    from bignas_zoo.search.settings import Settings

    with pytest.raises(UsageError) as caught:
        Settings(**changes)  # type: ignore[arg-type]
    assert str(caught.value) == message
