"""Search inside a trained family: measure children on its held-out images, choose those worth having.

Images are split as they were for the training, see `measure.reopening`; every child measured goes to a log, so that
nothing is measured twice.

Reference: BigNAS (arXiv 2003.11142) sections 3.2 and 4.4.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.errors import IntegrityError, NothingFitsError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.measure import accuracy_predictor
from bignas_zoo.measure.child_job import make_measure, write_job
from bignas_zoo.measure.family import Trained, corners, fingerprint
from bignas_zoo.runtime.dask_workers import DaskWorkers
from bignas_zoo.runtime.workers import LocalWorkers
from bignas_zoo.search import rounds
from bignas_zoo.search.children import Candidate, Figures, Measured, misses
from bignas_zoo.search.coarse_to_fine import CoarseToFine, default_grid
from bignas_zoo.search.costs import DEFAULT_FRONT
from bignas_zoo.search.evolution import Evolution
from bignas_zoo.search.front import best, not_worse, pareto, thin
from bignas_zoo.search.log import Log
from bignas_zoo.search.random_search import RandomSearch
from bignas_zoo.zoo.family import Family

METHODS = ("coarse-to-fine", "evolution", "random")
LOG_FILE, SETTINGS_FILE = "measured.jsonl", "settings.json"
LEAST_CHILDREN = 8
Say = Callable[[str], None]


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


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        measured: every child.
        best: budget, as written, to the child to take.
        keep: children that are worth a slice beside the front of accuracy over MACs.
        record: how it was found, as JSON data.
    """

    measured: tuple[Measured, ...]
    best: Mapping[str, Measured]
    keep: tuple[Measured, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


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
    path, wanted = folder / SETTINGS_FILE, settings.to_json()
    if path.is_file() and not reuse:
        there = store.read_json(path)
        if not isinstance(there, dict):
            raise IntegrityError(f"{path}: damaged. Delete it to go on with the measurements beside it.")
        for key, value in wanted.items():
            if key != "children" and there.get(key) != value:
                raise UsageError(
                    f"{folder}: holds a search with {key} {there.get(key)!r}, not {value!r}. Choose another --output, "
                    "or add --reuse to search anew with what it has measured."
                )
    store.write_json(path, wanted)


def search(
    run: Trained,
    family: Family,
    settings: Settings,
    costs: Figures,
    output: Path,
    *,
    say: Say,
    report: Callable[[rounds.Progress], None],
) -> Outcome:
    """Search a family for children worth having; every one measured goes to a log in `output`.

    Args:
        run: see `measure.reopening.reopen`.
        family: the family.
        settings: see `Settings`.
        costs: see `search.costs.costs_for`.
        output: a folder that is there.
        say, report: told what is going on, and of each child.

    Raises:
        NothingFitsError: no child that was measured meets any budget.
        IntegrityError: the log is of other weights or images.
        UsageError: no Dask scheduler, or its workers cannot be used.
    """
    log = Log.open(output / LOG_FILE, fingerprint(run), family.space, say)
    if log.known:
        say(f"{len(log.known)} children are measured already ({log.path})")
    began, fresh = time.monotonic(), 0

    def tell(progress: rounds.Progress) -> None:
        nonlocal fresh
        fresh += progress.fresh
        report(progress)

    start = _start(family, settings, costs)
    with _evaluate(run, settings.workers, output) as evaluate:
        measured = rounds.search(
            method_of(settings, family.space, costs),
            evaluate,
            costs,
            children=settings.children + len(start),
            start=start,
            log=log,
            order=accuracy_predictor.order if settings.predictor else None,
            report=tell,
        )
    seconds = time.monotonic() - began
    found = _best(measured, settings.budgets, say)
    record = {
        **settings.to_json(),
        "measured": len(measured),
        "budgets": [_budget_json(b, measured) for b in settings.budgets],
        "ranking": accuracy_predictor.fit(measured).to_json() if settings.predictor else None,
        "workers": settings.workers if isinstance(settings.workers, int) else "dask",
        "measured_now": fresh,
        "seconds": round(seconds, 1),
        "children_a_minute": round(60 * fresh / seconds, 2) if fresh else None,
        "machine": machine(),
        "versions": versions(),
    }
    return Outcome(measured, found, _keep(measured, found, settings), record)


def method_of(settings: Settings, space: SearchSpace, costs: Figures) -> rounds.Method:
    """Return the method that settings name, sized to the number of children."""
    budgets, children, seed, front = settings.budgets, settings.children, settings.seed, settings.front
    if settings.method == "random":
        return RandomSearch(space, budgets, costs, seed)
    if settings.method == "evolution":
        return Evolution(space, budgets, costs, seed, population=max(8, min(100, children // 4)), front=front)
    if not settings.within:
        grid = default_grid(space, children // 2).members(space)
    else:  # as fine a grid as leaves half of the children to the fine phase
        grid = tuple(s for s in default_grid(space).members(space) if _fits_any(budgets, costs(s)))
        grid = grid[:: max(1, -(-len(grid) // (children // 2)))]
    return CoarseToFine(space, grid, budgets, costs, seed, front=front)


def _fits_any(budgets: Sequence[Budget], figures: Mapping[str, float]) -> bool:
    return any(not misses(b.upper, figures) for b in budgets)


def _start(family: Family, settings: Settings, costs: Figures) -> list[Candidate]:
    """Return both ends of the space, and the family's slices: of a search within budgets those that fit."""
    ends = corners(family.space)
    slices = () if settings.from_scratch else family.slices
    specs = dict.fromkeys(s.spec for s in slices if s.statistics is not None)
    rest = [Candidate(spec, "earlier") for spec in specs if all(spec != end.spec for end in ends)]
    if settings.within:
        return [c for c in (*ends, *rest) if _fits_any(settings.budgets, costs(c.spec))]
    return [*ends, *rest]


def _keep(measured: Sequence[Measured], found: Mapping[str, Measured], settings: Settings) -> tuple[Measured, ...]:
    """Return the best of each budget, the other front asked for, and what leaves no earlier slice unreplaced."""
    keep = list(found.values())
    if settings.front != DEFAULT_FRONT:
        keep += pareto(measured, *settings.front)
    earlier = [m for m in measured if m.origin == "earlier"]
    keep += not_worse(earlier, [*keep, *thin(pareto(measured))], measured)
    return tuple(dict.fromkeys(keep))


def _best(measured: Sequence[Measured], budgets: Sequence[Budget], say: Say) -> dict[str, Measured]:
    """Return the best child for each budget that any meets; if none meets any, that is an error."""
    found = {str(budget): child for budget in budgets if (child := best(measured, budget))}
    missed = [str(budget) for budget in budgets if str(budget) not in found]
    if missed:
        top = max(m.top1 for m in measured)
        text = (
            f"budget {missed[0]}: none of {len(measured)} children meets it; the most accurate one reaches {top:.2f} % "
            "on held-out images. Measure more --children, or relax the budget."
        )
        if not found:
            raise NothingFitsError(text)
        say(text)
    return found


def _budget_json(budget: Budget, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return a budget with its best child: of all, and of those there were before, in the coarse grid, at random."""
    groups = {"found": measured, "earlier": [m for m in measured if m.origin in ("corner", "earlier")]}
    groups["coarse"] = [m for m in measured if m.origin == "grid"]
    groups["random"] = [m for m in measured if m.origin == "random"]
    data: dict[str, Any] = {"budget": str(budget)}
    for name, members in groups.items():
        child = best(members, budget)
        figures = {} if child is None else {k: v for k, v in child.figures.items() if v < float("inf")}
        data[name] = None if child is None else {"spec": child.spec.to_json(), **figures}
    return data


@contextlib.contextmanager
def _evaluate(run: Trained, workers: int | str, output: Path) -> Iterator[Callable[[Sequence[ChildSpec]], Any]]:
    """Yield what measures a round: in processes of this machine, or on a cluster."""
    with store.working_folder(output) as folder:
        write_job(run, folder)
        if isinstance(workers, int):
            with LocalWorkers(workers, make_measure, str(folder)) as pool:
                yield pool
        else:
            with DaskWorkers(workers, make_measure, str(folder.absolute())) as cluster:
                yield cluster
