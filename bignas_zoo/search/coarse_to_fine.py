"""Coarse-to-fine selection: a grid of skeletons, then mutations of the best ones under each budget.

Reference: BigNAS (arXiv 2003.11142) sections 3.2 and 4.4. The paper's grid has five input resolutions, four depths and
two widths by global multipliers, and four settings of kernel sizes; so has the default here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bignas_zoo.architecture.choices import Choice
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.errors import UsageError
from bignas_zoo.search.children import Candidate, CostOf, Measured
from bignas_zoo.search.front import leaders, pareto
from bignas_zoo.search.proposing import DRAWS, fill, in_turn, mutant, new_round, rate_of

#: Of the biggest child's depths. In the paper's space they give the depths of the smallest child, of its models M and
#: L, of XL but for one stage, and of the biggest child.
DEPTH_MULTIPLIERS = (0.4, 0.6, 0.8, 1.0)
#: Of the biggest child's widths and expansions. In the paper's space: the narrowest and the widest channels.
WIDTH_MULTIPLIERS = (0.5, 1.0)
#: Which stages, by their place among those that have a choice, take their largest kernel; the others take the smallest.
KERNELS = ("none", "first half", "second half", "all")
RESOLUTIONS = 5
MUTATION_RATE = 0.15
SKELETONS = 3


@dataclass(frozen=True)
class Grid:
    """The coarse choices; the grid is their product.

    Attributes:
        resolutions: input sizes in pixels.
        depths, widths: global multipliers of the biggest child's, above 0 and up to 1. Each stage takes the nearest
            number that it allows.
        kernels: of `KERNELS`.
    """

    resolutions: tuple[int, ...]
    depths: tuple[float, ...] = DEPTH_MULTIPLIERS
    widths: tuple[float, ...] = WIDTH_MULTIPLIERS
    kernels: tuple[str, ...] = KERNELS

    def __post_init__(self) -> None:
        axes = {"resolutions": self.resolutions, "depths": self.depths, "widths": self.widths, "kernels": self.kernels}
        for name, axis in axes.items():
            if not axis:
                raise UsageError(f"grid: {name}: needs at least one value.")
        for multiplier in (*self.depths, *self.widths):
            if not 0 < multiplier <= 1:
                raise UsageError(f"grid: multipliers are above 0 and up to 1, got {multiplier!r}.")
        for setting in self.kernels:
            if setting not in KERNELS:
                raise UsageError(f"grid: kernels: must be of {', '.join(KERNELS)}; got {setting!r}.")

    def __len__(self) -> int:
        return len(self.resolutions) * len(self.depths) * len(self.widths) * len(self.kernels)

    def members(self, space: SearchSpace) -> tuple[ChildSpec, ...]:
        """Return the grid's children, each once: choices that a space does not have fall together.

        Raises:
            SpaceError: a resolution is not one of the space's.
        """
        children = (
            skeleton(space, resolution, depth, width, kernels)
            for resolution in self.resolutions
            for depth in self.depths
            for width in self.widths
            for kernels in self.kernels
        )
        return tuple(dict.fromkeys(children))


def default_grid(space: SearchSpace, most: int | None = None) -> Grid:
    """Return the paper's grid for a space.

    Args:
        space: its resolutions are five, evenly from its smallest to its largest trained size.
        most: bound on the grid's children; the longest axis gets fewer values until it holds.
    """
    low, high = space.resolutions[0], space.resolutions[-1]
    sizes = [r for r in space.all_resolutions if low <= r <= high]
    axes: list[Sequence[Any]] = [_evenly(sizes, RESOLUTIONS), DEPTH_MULTIPLIERS, WIDTH_MULTIPLIERS, KERNELS]
    counts = [len(axis) for axis in axes]
    while True:
        grid = Grid(*(_evenly(axis, count) for axis, count in zip(axes, counts, strict=True)))
        if most is None or max(counts) == 1 or len(grid.members(space)) <= most:
            return grid
        counts[counts.index(max(counts))] -= 1


def _evenly(values: Sequence[Any], count: int) -> tuple[Any, ...]:
    """Return `count` of the values, evenly spread, both ends among them; of one value asked for, the last."""
    if len(values) <= count:
        return tuple(values)
    if count == 1:
        return (values[-1],)
    return tuple(values[(2 * i * (len(values) - 1) + count - 1) // (2 * (count - 1))] for i in range(count))


def skeleton(space: SearchSpace, resolution: int, depth: float, width: float, kernels: str) -> ChildSpec:
    """Return the child of four global choices; see `Grid`."""
    choosing = list(dict.fromkeys(c.stage for c in space.choices if c.name == "kernel" and len(c.options) > 1))
    half = len(choosing) // 2
    large = {"none": [], "first half": choosing[:half], "second half": choosing[half:], "all": choosing}[kernels]

    def value(choice: Choice) -> int:
        if choice.name == "resolution":
            return resolution
        if choice.name == "kernel":
            return choice.options[-1 if choice.stage in large else 0]
        return _nearest(choice.options, depth if choice.name == "depth" else width)

    return space.child({choice.place: value(choice) for choice in space.choices})


def _nearest(options: Sequence[int], multiplier: float) -> int:
    target = math.floor(multiplier * options[-1] + 0.5)
    return min(options, key=lambda option: (abs(option - target), option))


@dataclass(frozen=True)
class CoarseToFine:
    """The paper's method.

    Attributes:
        space: the search space.
        grid: children of the coarse phase, all of them measured, whatever the budgets; see `Grid.members`.
        budgets: they share the coarse phase and take turns in the fine one. Without any, the front is refined.
        figures: what a child costs.
        seed: of the mutations.
        skeletons: how many of a budget's best children are mutated.
        rate: probability of each choice of a skeleton to be drawn again.
        front: the two figures of the front that is refined where there are no budgets.
    """

    space: SearchSpace
    grid: tuple[ChildSpec, ...]
    budgets: tuple[Budget, ...]
    figures: CostOf
    seed: int
    skeletons: int = SKELETONS
    rate: float = MUTATION_RATE
    front: tuple[str, str] = ("macs", "top1")

    def propose(self, measured: Sequence[Measured], number: int, count: int) -> Sequence[Candidate]:
        """Return the rest of the grid, or mutations of a budget's best children so far."""
        known = {m.spec for m in measured}
        rest = [Candidate(spec, "grid") for spec in self.grid if spec not in known]
        return rest or in_turn(self.budgets, number, lambda budget: self._fine(measured, number, count, budget))

    def _fine(
        self, measured: Sequence[Measured], number: int, count: int, budget: Budget | None
    ) -> Sequence[Candidate]:
        parents = pareto(measured, *self.front) if budget is None else leaders(measured, budget, self.skeletons)
        along = None if budget else self.front[0]
        new = new_round(measured, budget, self.figures, count)
        if not parents:  # the budget is below the whole grid
            fill(new, self.space, (self.seed, "below", number), self.figures)
        draws = DRAWS * count
        for i in range(draws if parents else 0):
            if new.full:
                break
            key = (self.seed, "fine", number, i)
            new.offer(mutant(parents, key, rate_of(self.rate, i, draws), along), "mutation")
        return new.candidates
