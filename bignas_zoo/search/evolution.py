"""Evolution: the best children are changed and mixed.

As users of Once-for-All and AttentiveNAS know it: a random population, of which the best part become parents; half of
the next children are mutations, half are crossovers.

Reference: Cai et al. 2020 (Once-for-All, arXiv 1908.09791) section 3.4; Wang et al. 2021
(AttentiveNAS, arXiv 2011.09011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bignas_zoo.architecture.sampling import Key, crossover, uniform
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.errors import UsageError
from bignas_zoo.search.children import Candidate, CostOf, Measured, misses
from bignas_zoo.search.front import leaders, pareto
from bignas_zoo.search.proposing import DRAWS, Round, fill, in_turn, mutant, new_round, rate_of


@dataclass(frozen=True)
class Evolution:
    """Evolution under each of some budgets, or of the front.

    Attributes:
        space: the search space.
        budgets: they take turns, and parents of one may come from another's children. Without any, the members of
            the front are parents.
        figures: what a child costs.
        seed: of every draw.
        population: random children that fit a budget before evolution begins there, and how many of the best are kept.
        parents: part of the population that has children.
        mutation: probability of each choice of a mutated parent to be drawn again.
        crossovers: part of the children that come from two parents.
        front: the two figures of the front whose members are parents where there are no budgets.
    """

    space: SearchSpace
    budgets: tuple[Budget, ...]
    figures: CostOf
    seed: int
    population: int = 100
    parents: float = 0.25
    mutation: float = 0.1
    crossovers: float = 0.5
    front: tuple[str, str] = ("macs", "top1")

    def __post_init__(self) -> None:
        if self.population < 2:
            raise UsageError(f"evolution: population: must be at least 2, got {self.population}.")
        for name in ("parents", "mutation", "crossovers"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"evolution: {name}: must be within 0 and 1, got {getattr(self, name)!r}.")

    def propose(self, measured: Sequence[Measured], number: int, count: int) -> Sequence[Candidate]:
        """Return random children until there is a population, then children of the best."""
        return in_turn(self.budgets, number, lambda budget: self._propose(measured, number, count, budget))

    def _propose(
        self, measured: Sequence[Measured], number: int, count: int, budget: Budget | None
    ) -> Sequence[Candidate]:
        new = new_round(measured, budget, self.figures, count)
        if sum(budget is None or not misses(budget.upper, m.figures) for m in measured) < self.population:
            fill(new, self.space, (self.seed, "population", number), self.figures)
        if not new.candidates:  # grown, or hardly anything fits
            self._breed(new, self._best(measured, budget), number)
        return new.candidates

    def _breed(self, new: Round, best: Sequence[Measured], number: int) -> None:
        draws = DRAWS * new.count
        for i in range(draws if best else 0):
            if new.full:
                break
            key = (self.seed, "evolution", number, i)
            if len(best) > 1 and uniform((*key, "kind")) < self.crossovers:
                new.offer(self._mix(best, key), "crossover")
            else:
                along = None if new.budget else self.front[0]
                new.offer(mutant(best, key, rate_of(self.mutation, i, draws), along), "mutation")

    def _best(self, measured: Sequence[Measured], budget: Budget | None) -> Sequence[Measured]:
        if budget is None:
            return pareto(measured, *self.front)
        return leaders(measured, budget, max(2, round(self.parents * self.population)))

    def _mix(self, best: Sequence[Measured], key: Key) -> ChildSpec:
        first = int(uniform((*key, "first")) * len(best))
        second = int(uniform((*key, "other")) * (len(best) - 1))
        second += second >= first  # two different parents
        return crossover(best[first].spec, best[second].spec, key)
