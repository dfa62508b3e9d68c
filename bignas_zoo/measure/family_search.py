"""Search inside a trained family: measure children on its held-out images, choose those worth having.

Images are split as they were for the training, see `measure.reopening`; every child measured goes to a log, so that
nothing is measured twice.

Reference: BigNAS (arXiv 2003.11142) sections 3.2 and 4.4.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.files import names, store
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.files.say import Say
from bignas_zoo.measure import accuracy_predictor
from bignas_zoo.measure.child_job import make_measure, write_job
from bignas_zoo.measure.front_children import corners, fingerprint
from bignas_zoo.measure.trained import Trained
from bignas_zoo.runtime.dask_workers import DaskWorkers
from bignas_zoo.runtime.workers import LocalWorkers
from bignas_zoo.search import rounds
from bignas_zoo.search.children import Candidate, CostOf, Measured
from bignas_zoo.search.log import Log
from bignas_zoo.search.outcome import Outcome, best_for_each, budget_to_json, worth_a_slice
from bignas_zoo.search.settings import Settings, fits_any, method_of
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice


def find_children(
    run: Trained,
    family: Family,
    settings: Settings,
    costs: CostOf,
    output: Path,
    *,
    say: Say,
    report: Callable[[rounds.ChildProgress], None],
) -> Outcome:
    """Search a family for children worth having; every one measured goes to a log in `output`.

    Args:
        run: see `measure.reopening.reopen`.
        family: the family.
        settings: see `search.settings.Settings`.
        costs: see `search.costs.costs_for`.
        output: a folder that is there.
        say, report: told what is going on, and of each child.

    Raises:
        NothingFitsError: no child that was measured meets any budget.
        IntegrityError: the log is of other weights or images.
        UsageError: no Dask scheduler, or its workers cannot be used.
    """
    log = Log.open(output / names.MEASURED, fingerprint(run), run.recipe.search_space, say)
    if log.known:
        say(f"{len(log.known)} children are measured already ({log.path})")
    began, fresh = time.monotonic(), 0

    def tell(progress: rounds.ChildProgress) -> None:
        nonlocal fresh
        fresh += progress.fresh
        report(progress)

    start = _start(run.recipe.search_space, family.slices, settings, costs)
    with _evaluate(run, settings.workers, output) as evaluate:
        measured = rounds.search(
            method_of(settings, run.recipe.search_space, costs),
            evaluate,
            costs,
            children=settings.children + len(start),
            start=start,
            log=log,
            order=accuracy_predictor.order if settings.predictor else None,
            report=tell,
        )
    seconds = time.monotonic() - began
    by_budget = best_for_each(measured, settings.budgets, say)
    record = _record(settings, measured, fresh, seconds)
    return Outcome(measured, by_budget, worth_a_slice(measured, by_budget, settings.front), record)


def _record(settings: Settings, measured: Sequence[Measured], fresh: int, seconds: float) -> dict[str, Any]:
    """Return how children were found: of all `measured`, `fresh` were measured now."""
    return {
        **settings.to_json(),
        "measured": len(measured),
        "budgets": [budget_to_json(budget, measured) for budget in settings.budgets],
        "ranking": accuracy_predictor.fit(measured).to_json() if settings.predictor else None,
        "workers": settings.workers if isinstance(settings.workers, int) else "dask",
        "measured_now": fresh,
        "seconds": round(seconds, 1),
        "children_a_minute": round(60 * fresh / seconds, 2) if fresh else None,
        "machine": machine(),
        "versions": versions(),
    }


def _start(space: SearchSpace, known: Sequence[Slice], settings: Settings, costs: CostOf) -> list[Candidate]:
    """Return both ends of the space, and the family's slices: of a search within budgets those that fit."""
    ends = corners(space)
    slices = () if settings.from_scratch else known
    specs = dict.fromkeys(s.spec for s in slices if s.has_weights and s.spec)
    rest = [Candidate(spec, "earlier") for spec in specs if all(spec != end.spec for end in ends)]
    if settings.within:
        return [c for c in (*ends, *rest) if fits_any(settings.budgets, costs(c.spec))]
    return [*ends, *rest]


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
