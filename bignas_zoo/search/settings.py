"""How to search a family, what that makes of its folder, and the method it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.search.children import CostOf, misses
from bignas_zoo.search.coarse_to_fine import CoarseToFine, default_grid
from bignas_zoo.search.costs import DEFAULT_FRONT
from bignas_zoo.search.evolution import Evolution
from bignas_zoo.search.random_search import RandomSearch
from bignas_zoo.search.reinforce import Reinforce
from bignas_zoo.search.rounds import ROUND, Method

METHODS = ("coarse-to-fine", "evolution", "reinforce", "random")
LEAST_CHILDREN = 8


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        budgets: what to search for; without any, the front.
        method: of `METHODS`.
        children: how many to measure at most, besides those it begins with.
        seed: of every draw.
        workers: processes of this machine, or the address of a Dask scheduler.
        predictor: whether a predictor orders candidates; what ships is measured all the same.
        from_scratch: begin with both ends of the space alone, not with the slices that the family has.
        front: two figures, see `search.front.pareto`.
        within: leave children of the coarse grid out that fit no budget.
    """

    budgets: tuple[Budget, ...] = ()
    method: str = "coarse-to-fine"
    children: int = 200
    seed: int = 0
    workers: int | str = 1
    predictor: bool = False
    from_scratch: bool = False
    front: tuple[str, str] = DEFAULT_FRONT
    within: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"method: must be one of {', '.join(METHODS)}; got '{self.method}'.")
        if self.children < LEAST_CHILDREN:
            raise UsageError(f"children: must be at least {LEAST_CHILDREN}, got {self.children}.")
        if isinstance(self.workers, int) and self.workers < 1:
            raise UsageError(f"workers: must be at least 1, got {self.workers}.")

    def to_json(self) -> dict[str, Any]:
        """Return what decides the result; the number of workers does not."""
        return {
            "budgets": [str(budget) for budget in self.budgets],
            "method": self.method,
            "children": self.children,
            "seed": self.seed,
            "predictor": self.predictor,
            "from_scratch": self.from_scratch,
            "front": list(self.front),
        }


def claim(folder: Path, settings: Settings, *, reuse: bool) -> None:
    """Write the settings of a search into its folder, if it holds no search with others.

    Args:
        folder: the search's.
        settings: how to search. More children than before are not another search.
        reuse: take a search with other settings over: its measurements are used wherever they are wanted again.

    Raises:
        UsageError: the folder holds a search with other settings.
        IntegrityError: its settings.json is damaged.
    """
    path, wanted = folder / names.SETTINGS, settings.to_json()
    if path.is_file() and not reuse:
        earlier = store.read_json(path)
        if not isinstance(earlier, dict):
            raise IntegrityError(f"{path}: damaged. Delete it to go on with the measurements beside it.")
        for key, value in wanted.items():
            if key != "children" and earlier.get(key) != value:
                raise UsageError(
                    f"{folder}: holds a search with {key} {earlier.get(key)!r}, not {value!r}. Choose another "
                    "--output, or add --reuse to search anew with what it has measured."
                )
    store.write_json(path, wanted)


def method_of(settings: Settings, space: SearchSpace, costs: CostOf) -> Method:
    """Return the method that settings name, sized to the number of children."""
    budgets, children, seed, front = settings.budgets, settings.children, settings.seed, settings.front
    if settings.method == "random":
        return RandomSearch(space, budgets, costs, seed)
    if settings.method == "reinforce":
        return Reinforce(space, budgets, costs, seed, rounds=max(1, children // ROUND))
    if settings.method == "evolution":
        return Evolution(space, budgets, costs, seed, population=max(8, min(100, children // 4)), front=front)
    if not settings.within:
        grid = default_grid(space, children // 2).members(space)
    else:  # as fine a grid as leaves half of the children to the fine phase
        grid = tuple(s for s in default_grid(space).members(space) if fits_any(budgets, costs(s)))
        grid = grid[:: max(1, -(-len(grid) // (children // 2)))]
    return CoarseToFine(space, grid, budgets, costs, seed, front=front)


def fits_any(budgets: Sequence[Budget], figures: Mapping[str, float]) -> bool:
    """Return whether a child's figures meet the limits on cost of any budget."""
    return any(not misses(b.upper, figures) for b in budgets)
