"""What the methods share: draws within a budget, and a round of new children."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bignas_zoo.architecture.sampling import Key, crossover, mutate, uniform, uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.search.children import Candidate, CostOf, Measured, misses
from bignas_zoo.search.front import nearest_on

#: Draws for each candidate that is wanted; what does not fit or is known already is drawn again.
DRAWS = 20
#: The same for draws of whole children, which take longer.
WHOLE_DRAWS = 4
#: Uniform draws before draws are pulled towards the smallest child, and draws in all.
PLAIN_DRAWS, ALL_DRAWS = 16, 48


def fits(spec: ChildSpec, budget: Budget | None, figures: CostOf) -> bool:
    """Return whether a child meets a budget's limits on cost."""
    return budget is None or not misses(budget.upper, figures(spec))


def in_turn(
    budgets: Sequence[Budget], number: int, propose: Callable[[Budget | None], Sequence[Candidate]]
) -> Sequence[Candidate]:
    """Return the candidates for the budget whose turn a round is, or for the next one that has any."""
    if not budgets:
        return propose(None)
    turns = (budgets[(number + i) % len(budgets)] for i in range(len(budgets)))
    return next(filter(None, map(propose, turns)), ())


def draw_within(space: SearchSpace, key: Key, budget: Budget | None, figures: CostOf) -> ChildSpec | None:
    """Draw a child that meets a budget: uniformly, and where that fails for long, ever nearer to the smallest child.

    Args:
        space: the search space.
        key: names the draw.
        budget: its limits on cost hold for the child; None for none.
        figures: what a child costs.

    Returns:
        The child; None if not even the smallest one fits.
    """
    for i in range(ALL_DRAWS + 1):
        spec = uniform_child(space, (*key, i))
        if i > PLAIN_DRAWS:
            pull = (i - PLAIN_DRAWS) / (ALL_DRAWS - PLAIN_DRAWS)
            spec = crossover(spec, space.smallest, (*key, i, "pull"), pull)
        if fits(spec, budget, figures):
            return spec
    return None


def mutant(parents: Sequence[Measured], key: Key, rate: float, along: str | None) -> ChildSpec:
    """Change one parent: any of a budget's leaders; or the member nearest to a place on the front, along a figure."""
    position = uniform((*key, "parent"))
    parent = parents[int(position * len(parents))] if along is None else nearest_on(parents, position, along)
    return mutate(parent.spec, (*key, "change"), rate, unseen_resolutions=True)


def rate_of(rate: float, draw: int, draws: int) -> float:
    """Return the mutation rate of a draw: `rate`, rising to 1 over the second half, where nothing new is near."""
    return rate + (1 - rate) * max(0.0, 2 * draw / draws - 1)


class Round:
    """Candidates for one round: new, different, within the budget.

    Attributes:
        budget: what they are for.
        count: how many are wanted.
        candidates: those there are.
    """

    def __init__(
        self, measured: Iterable[Measured], budget: Budget | None, figures: CostOf, count: int, cheapest: int | None
    ) -> None:
        self._seen = {m.spec for m in measured}
        self.budget, self._figures, self.count, self._cheapest = budget, figures, count, cheapest
        self.candidates: list[Candidate] = []

    @property
    def full(self) -> bool:
        """Whether no more candidates are wanted."""
        return len(self.candidates) >= self.count

    def offer(self, spec: ChildSpec, origin: str) -> None:
        """Take a child if it is new and fits."""
        if spec in self._seen or self.full:
            return
        figures = self._figures(spec)
        if self.budget is not None and misses(self.budget.upper, figures):
            return
        if self._cheapest is not None and figures["macs"] >= self._cheapest:
            return
        self._seen.add(spec)
        self.candidates.append(Candidate(spec, origin, self.budget))


def new_round(measured: Sequence[Measured], budget: Budget | None, figures: CostOf, count: int) -> Round:
    """Begin a round.

    A budget of a least accuracy alone is met by the child with the fewest MACs. Once one reaches the accuracy, only
    smaller ones are worth measuring.
    """
    cheapest = None
    if budget is not None and not budget.upper:
        reached = [m.macs for m in measured if not misses(budget.limits, m.figures)]
        cheapest = min(reached, default=None)
    return Round(measured, budget, figures, count, cheapest)


def fill(new: Round, space: SearchSpace, key: Key, figures: CostOf) -> None:
    """Fill a round with random children."""
    for i in range(WHOLE_DRAWS * new.count):
        spec = None if new.full else draw_within(space, (*key, i), new.budget, figures)
        if spec is None:
            return
        new.offer(spec, "random")
