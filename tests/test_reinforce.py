"""The search by reinforcement: gradient, schedule and rewards by hand, and what its policy comes to."""

from __future__ import annotations

import math
from typing import Any

import pytest
from conftest import TINY

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.sampling import uniform
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.budget import Budget
from bignas_zoo.errors import UsageError
from bignas_zoo.search import rounds
from bignas_zoo.search.children import Measured
from bignas_zoo.search.log import Log
from bignas_zoo.search.reinforce import ORIGIN, Reinforce, drawn, most_probable, probabilities
from bignas_zoo.search.settings import Settings, method_of

TARGET = Budget.parse("4MMACs")
SPACE = get_space("bignas-cifar10")


def figures(spec: ChildSpec) -> dict[str, float]:
    return {"macs": cost.macs(spec), "parameters": cost.parameters(spec)}


def accuracy(spec: ChildSpec) -> float:
    """Rises with cost and flattens, and a little belongs to each choice of resolution: as in real families."""
    size = cost.macs(spec) / cost.macs(spec.space.biggest)
    return round(95 - 12 * math.exp(-4 * size) + uniform(("noise", str(spec.to_json()))) / 2, 4)


def method(**more: Any) -> Reinforce:
    return Reinforce(**{"space": SPACE, "budgets": (TARGET,), "figures": figures, "seed": 0, "rounds": 50, **more})


def measured(spec: ChildSpec, top1: float, macs: float, origin: str = ORIGIN) -> Measured:
    return Measured(spec, top1, origin, {"macs": macs})


def test_rewards_by_hand() -> None:
    child = measured(SPACE.smallest, 80.0, 5e6)  # a quarter above the target
    assert method(beta=-0.2).rewarded(child) == pytest.approx(0.8 - 0.2 * 0.25)
    assert method(beta=-0.2).rewarded(measured(SPACE.smallest, 80.0, 3e6)) == pytest.approx(0.8 - 0.2 * 0.25)
    assert method(beta=-0.07, reward="soft").rewarded(child) == pytest.approx(0.8 * 1.25**-0.07)
    assert method(beta=-0.07, reward="hard").rewarded(child) == pytest.approx(0.8 * 1.25**-0.07)
    assert method(beta=-0.07, reward="hard").rewarded(measured(SPACE.smallest, 80.0, 3e6)) == pytest.approx(0.8)


def test_the_rate_is_zero_for_a_quarter_and_then_grows_tenfold() -> None:
    search = method(rounds=101, rate=0.01)
    assert [search.rate_of(n) for n in (0, 25)] == [0.0, 0.0]
    assert search.rate_of(100) == pytest.approx(0.1)
    assert search.rate_of(60) / search.rate_of(59) == pytest.approx(search.rate_of(99) / search.rate_of(98))


def test_one_step_by_hand() -> None:
    """Of two children, the better one's options grow: with Adam's first step by the rate, whatever the slope."""
    search = method(rounds=1, rate=0.5, space=TINY)  # its only round is past the delay
    search = Reinforce(TINY, (TARGET,), figures, 0, rounds=1, rate=0.5)
    low, high = TINY.smallest, TINY.biggest
    pair = [measured(low, 50.0, 4e6), measured(high, 60.0, 4e6)]
    assert search.rate_of(0) == 0.0
    still = search.policy([pair])
    assert all(set(row) == {0.0} for row in still.values())
    moving = Reinforce(TINY, (TARGET,), figures, 0, rounds=4, rate=0.5)
    logits = moving.policy([pair, pair])  # the first round is in the delay, the second moves
    # Rewards 0.5 and 0.6; baseline 0.55; advantages -0.05 and 0.05. A choice of two options, p = 0.5 each: slope of the
    # larger option (0.05 * 0.5 + 0.05 * 0.5) / 2 = 0.025, of the smaller -0.025.
    rate = moving.rate_of(1)
    correction = 1 - 0.999**2
    second = (0.001 * 0.999 + 0.001) * 0.025**2  # two equal slopes
    step = rate * 0.025 / (math.sqrt(second / correction) + 1e-8)
    assert logits["stem width", -1, -1] == pytest.approx([-step, step], rel=1e-6)


def test_choices_of_absent_layers_do_not_move() -> None:
    search = Reinforce(TINY, (TARGET,), figures, 0, rounds=4)
    shallow = [measured(TINY.smallest, 50.0, 4e6), measured(TINY.smallest, 70.0, 4e6)]
    logits = search.policy([shallow, shallow])
    layered = [c for c in TINY.choices if c.layer > 0 and len(c.options) > 1]
    assert layered
    assert all(set(logits[c.place]) == {0.0} for c in layered if c.value(TINY.smallest) is None)


def test_draws_follow_the_probabilities() -> None:
    logits = {c.place: [0.0] * len(c.options) for c in SPACE.choices}
    logits["resolution", -1, -1] = [math.log(9)] + [0.0] * (len(SPACE.resolutions) - 1)
    share = 9 / (9 + len(SPACE.resolutions) - 1)
    assert probabilities(logits["resolution", -1, -1])[0] == pytest.approx(share)
    count = sum(drawn(SPACE, logits, ("t", i)).resolution == SPACE.resolutions[0] for i in range(2000))
    assert abs(count / 2000 - share) < 4 * math.sqrt(share * (1 - share) / 2000)
    assert most_probable(SPACE, logits).resolution == SPACE.resolutions[0]


@pytest.mark.parametrize("target", ["3MMACs", "6MMACs", "10MMACs"])
def test_the_most_probable_child_comes_to_the_target_with_one_beta(target: str) -> None:
    budget = Budget.parse(target)
    settings = Settings((budget,), "reinforce", children=800)
    search = method_of(settings, SPACE, figures)
    assert isinstance(search, Reinforce)
    children = rounds.search(search, rounds.each(accuracy), figures, children=800)
    own = [c for c in children if c.origin == ORIGIN]
    last = most_probable(SPACE, search.policy([own[i : i + 8] for i in range(0, len(own), 8)]))
    assert abs(cost.macs(last) / float(budget.limits[0].value) - 1) < 0.15  # of two seeds at three targets 1 to 16 %
    first, end = own[:100], own[-100:]
    spread = [sum(abs(c.macs / float(budget.limits[0].value) - 1) for c in part) / 100 for part in (first, end)]
    assert spread[1] < 0.5 * spread[0]


def test_a_search_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Any) -> None:
    def run(**more: Any) -> Any:
        return rounds.search(method(rounds=10), rounds.each(accuracy), figures, children=80, **more)

    whole = run()
    part = run(log=Log.open(tmp_path / "log", "x", SPACE), stop=iter([False] * 30 + [True] * 99).__next__)
    assert len(part) < 80
    assert run(log=Log.open(tmp_path / "log", "x", SPACE)) == whole


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"budgets": ()}, "one target"),
        ({"budgets": (TARGET, Budget.parse("1M"))}, "one target"),
        ({"budgets": (Budget.parse("1M,2Mparams"),)}, "one target"),
        ({"budgets": (Budget.parse("top1>=80"),)}, "one target"),
        ({"beta": 0.0}, "beta: must be below 0"),
        ({"reward": "mean"}, "reward: must be one of absolute, soft, hard"),
    ],
)
def test_what_it_cannot_search_for(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        method(**fields)
