"""Random search: the baseline that a method has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.search.children import Candidate, CostOf, Measured
from bignas_zoo.search.proposing import fill, in_turn, new_round


@dataclass(frozen=True)
class RandomSearch:
    """Children drawn within each of some budgets, or anywhere.

    Attributes:
        space: the search space.
        budgets: they take turns.
        figures: what a child costs.
        seed: of every draw.
    """

    space: SearchSpace
    budgets: tuple[Budget, ...]
    figures: CostOf
    seed: int

    def propose(self, measured: Sequence[Measured], number: int, count: int) -> Sequence[Candidate]:
        """Return random children."""
        return in_turn(self.budgets, number, lambda budget: self._propose(measured, number, count, budget))

    def _propose(
        self, measured: Sequence[Measured], number: int, count: int, budget: Budget | None
    ) -> Sequence[Candidate]:
        new = new_round(measured, budget, self.figures, count)
        fill(new, self.space, (self.seed, "random", number), self.figures)
        return new.candidates
