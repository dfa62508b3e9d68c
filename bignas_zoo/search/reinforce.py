"""Reinforcement learning as TuNAS does it: a probability for each option of each choice, moved by what children reach.

Each round draws children, measures them, and moves the probabilities by REINFORCE: towards what did better than usual.
The reward holds a child's cost against a target from both sides, so that one setting serves every target. After a
quarter of the rounds, in which nothing moves, the most probable child is measured in each round as well.

What a round draws is a function of the measurements before it: the policy is replayed from them, and a search that was
interrupted goes on as if it had not been.

Reference: TuNAS (Bender, Liu et al. 2020, arXiv 2008.06120), sections 3 and 4, and its released code: independent
categoricals, log-probabilities of choices in use alone, baseline 0.95, Adam with beta1 0, rate zero for the first
quarter, then rising tenfold. There a step is one of some 100,000 and trains the weights as well; here a round is one of
tens or hundreds, so the rate is larger (`rate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bignas_zoo.architecture.choices import Choice, Place
from bignas_zoo.architecture.sampling import Key, uniform
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget, Limit
from bignas_zoo.errors import UsageError
from bignas_zoo.search.children import Candidate, CostOf, Measured
from bignas_zoo.search.proposing import DRAWS, new_round

ORIGIN = "policy"
REWARDS = ("absolute", "soft", "hard")
#: Of the baseline, and of Adam: the second moment's decay, and what is added to its root.
BASELINE, BETA2, EPSILON = 0.95, 0.999, 1e-8
#: Part of the rounds in which nothing moves, and what the rate has grown by at the end.
DELAY, GROWTH = 0.25, 10.0

Logits = dict[Place, list[float]]


@dataclass(frozen=True)
class Reinforce:
    """A policy over the choices of a space, for one target.

    Attributes:
        space: the search space.
        budgets: one, with one upper limit on a cost: the target.
        figures: what a child costs.
        seed: of every draw.
        rounds: how many there will be, for the schedule of the rate.
        beta: what missing the target by its own size costs, in parts of an accuracy of 1; negative.
        reward: "absolute" (``quality + beta |T/T0 - 1|``), or MnasNet's "soft" (``quality (T/T0)^beta``) and "hard"
            (``quality min((T/T0)^beta, 1)``).
        rate: of Adam, when it begins to move.
    """

    space: SearchSpace
    budgets: tuple[Budget, ...]
    figures: CostOf
    seed: int
    rounds: int
    beta: float = -0.1
    reward: str = "absolute"
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise UsageError(f"reinforce: reward: must be one of {', '.join(REWARDS)}, got {self.reward!r}.")
        if not self.beta < 0:
            raise UsageError(f"reinforce: beta: must be below 0, got {self.beta!r}.")
        limits = [limit for budget in self.budgets for limit in budget.limits]
        if len(limits) != 1 or limits[0].quantity == "top1":
            raise UsageError(
                "reinforce: searches for one target: give one --budget with one limit on a cost, e.g. 5MMACs."
            )

    @property
    def target(self) -> Limit:
        """The cost that children are held against."""
        return self.budgets[0].limits[0]

    def rewarded(self, child: Measured) -> float:
        """Return a child's reward."""
        ratio = float(child.figures[self.target.figure]) / float(self.target.value)
        quality = child.top1 / 100
        if self.reward == "absolute":
            return quality + self.beta * abs(ratio - 1)
        factor: float = ratio**self.beta
        return quality * (factor if self.reward == "soft" else min(factor, 1.0))

    def rate_of(self, number: int) -> float:
        """Return the rate of a round, counted from 0: zero at first, then growing exponentially."""
        delay = DELAY * self.rounds
        if number < delay:
            return 0.0
        return float(self.rate * GROWTH ** ((number - delay) / max(1.0, self.rounds - 1 - delay)))

    def propose(self, measured: Sequence[Measured], number: int, count: int) -> Sequence[Candidate]:
        """Return children drawn by the policy that the measurements have made."""
        own = [child for child in measured if child.origin == ORIGIN]
        logits = self.policy([own[i : i + count] for i in range(0, len(own), count)])
        new = new_round(measured, None, self.figures, count)
        if number >= DELAY * self.rounds:
            new.offer(most_probable(self.space, logits), ORIGIN)
        for i in range(DRAWS * count):
            if new.full:
                break
            new.offer(drawn(self.space, logits, (self.seed, "policy", number, i)), ORIGIN)
        return [Candidate(c.spec, c.origin, self.budgets[0]) for c in new.candidates]

    def policy(self, rounds: Sequence[Sequence[Measured]]) -> Logits:
        """Return the logits after some rounds of measured children."""
        logits: Logits = {choice.place: [0.0] * len(choice.options) for choice in self.space.choices}
        squares: Logits = {place: [0.0] * len(row) for place, row in logits.items()}
        baseline = 0.0
        for number, children in enumerate(rounds):
            rewards = [self.rewarded(child) for child in children]
            mean = sum(rewards) / len(rewards)
            baseline = mean if number == 0 else BASELINE * baseline + (1 - BASELINE) * mean
            gradient = self._gradient(logits, children, [reward - baseline for reward in rewards])
            correction = 1 - BETA2 ** (number + 1)
            for place, slopes in gradient.items():
                for i, slope in enumerate(slopes):
                    squares[place][i] = BETA2 * squares[place][i] + (1 - BETA2) * slope**2
                    root = math.sqrt(squares[place][i] / correction)
                    logits[place][i] += self.rate_of(number) * slope / (root + EPSILON)
        return logits

    def _gradient(self, logits: Logits, children: Sequence[Measured], advantages: Sequence[float]) -> Logits:
        """Return the mean of advantage times the slope of the log-probability, of choices that a child uses alone."""
        slopes: Logits = {place: [0.0] * len(row) for place, row in logits.items()}
        for child, advantage in zip(children, advantages, strict=True):
            for choice, option in _used(self.space, child.spec):
                for i, p in enumerate(probabilities(logits[choice.place])):
                    slopes[choice.place][i] += advantage * ((i == option) - p) / len(children)
        return slopes


def probabilities(logits: Sequence[float]) -> list[float]:
    """Return the softmax of logits."""
    most = max(logits)
    powers = [math.exp(value - most) for value in logits]
    return [power / sum(powers) for power in powers]


def drawn(space: SearchSpace, logits: Mapping[Place, Sequence[float]], key: Key) -> ChildSpec:
    """Draw a child: each choice by its own probabilities."""

    def option(choice: Choice) -> int:
        position = uniform((*key, *choice.key))
        for i, p in enumerate(probabilities(logits[choice.place])):
            position -= p
            if position < 0:
                return i
        return len(choice.options) - 1

    return _child(space, option)


def most_probable(space: SearchSpace, logits: Mapping[Place, Sequence[float]]) -> ChildSpec:
    """Return the child of the most probable option of each choice; of equal ones the larger."""

    def option(choice: Choice) -> int:
        row = logits[choice.place]
        return max(range(len(row)), key=lambda i: (row[i], i))

    return _child(space, option)


def _child(space: SearchSpace, option: Callable[[Choice], int]) -> ChildSpec:
    values: dict[Place, int] = {}
    for choice in space.choices:
        if choice.acts(values):
            values[choice.place] = choice.options[option(choice)]
    return space.child(values)


def _used(space: SearchSpace, spec: ChildSpec) -> Iterator[tuple[Choice, int]]:
    """Give the choices that a child uses and leaves open, each with the place of its option."""
    for choice in space.choices:
        value = choice.value(spec)
        if value is not None and len(choice.options) > 1 and value in choice.options:
            yield choice, choice.options.index(value)
