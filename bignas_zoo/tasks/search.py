"""`search`: from a trained family to a family whose slices were searched for; `search_for`: the same for one budget.

Everything heavy is imported inside the functions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.errors import BigNASError, UsageError
from bignas_zoo.files import leftovers, names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.search import ON_DEMAND_CHILDREN
from bignas_zoo.tasks import slices
from bignas_zoo.tasks.cutting import supernet_weights
from bignas_zoo.tasks.slices import Slice
from bignas_zoo.zoo import registry
from bignas_zoo.zoo.family import Family, check_family, load_family
from bignas_zoo.zoo.license import license_of
from bignas_zoo.zoo.selection import LatencyPredictor

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable
    from bignas_zoo.measure.trained import Trained
    from bignas_zoo.search.children import CostOf, Measured
    from bignas_zoo.search.outcome import Outcome
    from bignas_zoo.search.rounds import ChildProgress
    from bignas_zoo.search.settings import Settings

Report = Callable[["ChildProgress"], None]


def _quiet(progress: ChildProgress) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class SearchResult:
    """What `search_family` made.

    Attributes:
        family: the new family.
        path: its folder.
        chosen: budget, as written, to its best slice; budgets that nothing met are left out.
        record: how it was found (docs/FORMAT.md).
        output: the search's folder: log, report, drawings.
    """

    family: Family
    path: Path
    chosen: Mapping[str, Slice]
    record: Mapping[str, Any]
    output: Path

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            "family": self.family.name,
            "path": str(self.path),
            "output": str(self.output),
            "search": dict(self.record),
            "chosen": {budget: best.to_json() for budget, best in self.chosen.items()},
            "slices": [s.to_json() for s in self.family.slices],
        }


def search_family(
    family: str | Path,
    data: str | Path,
    *,
    budgets: Sequence[str | Budget] = (),
    front: str = "macs,top1",
    method: str = "coarse-to-fine",
    children: int = 200,
    seed: int = 0,
    workers: int | str | None = None,
    predictor: bool = False,
    from_scratch: bool = False,
    risk: str = "upper",
    tables: Sequence[DeviceTable] = (),
    test_data: str | Path | None = None,
    output: str | Path | None = None,
    reuse: bool = False,
    in_place: bool = False,
    license: str | None = None,
    say: Say = silent,
    report: Report = _quiet,
) -> SearchResult:
    """Search a family's supernet for children worth having, and make a family of them.

    Children are calibrated on training images and chosen on images held out of training, the same ones as in the
    training; slices are reported on test images. Run it again to go on after an interruption. A program of one's own
    must guard its code with ``if __name__ == "__main__"``, as `multiprocessing` asks.

    Args:
        family: a name, or a family's folder.
        data, test_data: the images of the family's recipe, see `train`.
        budgets: e.g. ``["6MMACs", "1MB", "5ms@my-phone"]``; they share the work. Without any, the front is searched.
        front: its two axes: of top1, macs, parameters, bytes and ms@DEVICE. Its children become slices, beside those of
            accuracy over MACs.
        method: "coarse-to-fine" (the paper's), "evolution", "reinforce" (TuNAS's, for one budget) or "random".
        children: how many to measure at most, besides both ends of the space and the family's slices.
        seed: of every draw; the same seed gives the same children, whatever `workers` is.
        workers: processes of this machine [one a core, at most four], or the address of a Dask scheduler (extra
            ``search``).
        predictor: let a small predictor, trained on the measured children, choose which candidates to measure.
        from_scratch: do not begin with the slices that the family has.
        risk: what of a predicted latency must meet a budget: "upper", the upper end of its bar, or "mean".
        tables: of devices of one's own, beside those known by name.
        output: the search's folder [default: ``runs/search-FAMILY``]; the new family is ``family`` inside.
        reuse: take over a folder that holds a search with other settings; what it has measured is not measured again.
        in_place: replace the folder `family` itself once the new one is complete.
        license: of the new family; None takes that of `family`, whose weights it has.
        say: told what is going on, a sentence at a time.
        report: told of each child.

    Returns:
        The new family, and its best slice for each budget.

    Raises:
        UsageError, BudgetError: a setting is not allowed, the images do not belong to the family, or `output` holds
            another search.
        NotFoundError: no such family, or it has no weights; or a budget's device is not known.
        NothingFitsError: a budget is below the smallest child, or none that was measured meets any.
        LocalIOError, IntegrityError: images, weights or the log cannot be used.
        PreemptedError: stopped by SIGTERM; run again to go on.
    """
    need_keras("search")
    from bignas_zoo.search.costs import parse_front

    limits, axes = tuple(map(_budget, budgets)), parse_front(front)
    home = slices.get_family(family)
    if in_place and (home.folder is None or home.folder.resolve().is_relative_to(registry.SHIPPED.resolve())):
        raise UsageError(f"--in-place: '{home.name}' is part of the installation. Choose an --output instead.")
    folder = Path(output) if output is not None else Path("runs") / f"search-{home.name}"
    license = license_of(license, home.license)
    devices = _devices(limits, axes, risk, tables)
    work = _Work(home, supernet_weights(home, "search"), devices, data, test_data, say, report, license)
    from bignas_zoo.runtime.workers import default_workers
    from bignas_zoo.search.settings import Settings

    workers = default_workers() if workers is None else workers
    settings = Settings(limits, method, children, seed, workers, predictor, from_scratch, axes)
    target = home.folder if in_place and home.folder else folder / names.FAMILY_FOLDER
    return _search(work, _Run(settings, folder, target, reuse))


def search_for(
    family: str | Path,
    budget: str | Budget,
    data: str | Path,
    *,
    children: int = ON_DEMAND_CHILDREN,
    seed: int = 0,
    workers: int | str | None = None,
    risk: str = "upper",
    tables: Sequence[DeviceTable] = (),
    test_data: str | Path | None = None,
    say: Say = silent,
    report: Report = _quiet,
) -> SearchResult:
    """Search for the best child for one budget, in the cache: what ``get --search`` does before it gets.

    Only children that fit are measured, the family's slices among them. A search for the same budget in the same
    weights and images goes on where it was.

    Args:
        family, data, test_data, children, seed, workers, risk, tables, say, report: see `search_family`.
        budget: e.g. ``"5.2MMACs"``.

    Returns:
        A family with that one slice, ``result.chosen[str(budget)]``, in ``result.path``: give both to `get`.

    Raises:
        As `search_family`.
    """
    need_keras("search")
    limits, axes = (_budget(budget),), ("macs", "top1")
    home = slices.get_family(family)
    devices = _devices(limits, axes, risk, tables)
    work = _Work(home, supernet_weights(home, "search"), devices, data, test_data, say, report, home.license)
    from bignas_zoo.runtime.workers import default_workers
    from bignas_zoo.search.settings import Settings

    workers = default_workers() if workers is None else workers
    settings = Settings(limits, children=children, seed=seed, workers=workers, within=True)
    folder = store.cache_root() / names.SEARCHES / f"{home.name}-{_identity(work, limits[0], children, seed)}"
    result = _search(work, _Run(settings, folder, folder / names.FAMILY_FOLDER, reuse=True, only_best=True))
    leftovers.keep(folder)
    leftovers.mark_used(folder)
    return result


def outcome_of(result: SearchResult, budget: str | Budget) -> tuple[Slice, str | None]:
    """Return the slice that `search_for` found for a budget, and what of the budget `get` still has to check, or None.

    That is its upper limits: a least accuracy was met on the held-out images, which choose; on the reported ones it
    may be missed.
    """
    (best,) = result.chosen.values()
    return best, ",".join(limit.text for limit in _budget(budget).upper) or None


def _budget(budget: str | Budget) -> Budget:
    return budget if isinstance(budget, Budget) else Budget.parse(budget)


def _devices(
    budgets: Sequence[Budget], axes: Sequence[str], risk: str, tables: Sequence[DeviceTable]
) -> LatencyPredictor:
    from bignas_zoo.search.costs import predictor_for

    return predictor_for(budgets, axes, risk=risk, tables=tables)


@dataclass(frozen=True)
class _Work:
    """What a search is about, however it is done."""

    home: Family
    weights: Mapping[str, Any]
    devices: LatencyPredictor
    data: str | Path
    test_data: str | Path | None
    say: Say
    report: Report
    license: str


@dataclass(frozen=True)
class _Run:
    """How a search is done, and where to: its own folder, and the family's.

    Attributes:
        reuse: take over a folder that holds a search with other settings.
        only_best: the family's slices are the best children alone.
    """

    settings: Settings
    folder: Path
    target: Path
    reuse: bool
    only_best: bool = False


def _identity(work: _Work, budget: Budget, children: int, seed: int) -> str:
    """Return a name for what the result of a search for one budget depends on."""
    from bignas_zoo.latency.files import text

    places = [str(Path(p).resolve()) if p else "" for p in (work.data, work.test_data)]
    tables = [text(table) for table in work.devices.tables.values()]
    weights = work.home.supernet("search")[1].sha256
    facts = [weights, str(budget), children, seed, work.devices.risk, tables, places]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _search(work: _Work, run: _Run) -> SearchResult:
    from bignas_zoo.recipes.runs.folder import check_output, hold
    from bignas_zoo.recipes.runs.stopping import stop_requests
    from bignas_zoo.search.costs import costs_for
    from bignas_zoo.search.settings import claim

    folder, say = run.folder, work.say
    check_output(folder, work.data)
    space, _ = work.home.supernet("search")
    work.home.check_calibrates("search")
    settings = run.settings  # before images are read
    costs = costs_for(space, settings.budgets, work.devices, work.home.slices, settings.front)
    new = not folder.exists()
    # Between two measurements nothing is lost, and within one only itself.
    with _refused_leaves_nothing(folder, new), hold(folder, say), stop_requests() as stop, stop.at_once():
        claim(folder, run.settings, reuse=run.reuse)
        say(f"reading images from {work.data}")
        result = _result(_make_family(work, run, costs), run.target, folder)
        store.write_json(folder / names.SEARCH, {"schema": "bignas-zoo/search/1", **result.to_json()})
        _draw(result.family, folder, say)
    return result


def _make_family(work: _Work, run: _Run, costs: CostOf) -> Outcome:
    """Measure children and write the family of those worth having, unless it is there already."""
    from bignas_zoo.measure.family_search import find_children
    from bignas_zoo.measure.reopening import reopen

    home = work.home
    trained = replace(reopen(home, work.weights, work.data, work.test_data, work.say), license=work.license)
    outcome = find_children(trained, home, run.settings, costs, run.folder, say=work.say, report=work.report)
    only = {_name(home, m): m for m in outcome.best.values()} if run.only_best else None
    if only is None or outcome.record["measured_now"] or not _is_there(run.target, only):
        _write(work, run, trained, outcome, only)
    return outcome


@contextlib.contextmanager
def _refused_leaves_nothing(folder: Path, new: bool) -> Iterator[None]:
    """Take a new folder away again if the search is refused before anything is measured."""
    try:
        yield
    except BigNASError:
        if new and {p.name for p in folder.glob("*")} <= {names.SETTINGS, names.LOCK}:
            leftovers.take_away(folder)
        raise


def _name(home: Family, child: Measured) -> str:
    """Return the name of the slice of a search for one budget, which tells it from all others."""
    return f"{home.name}-x{_digest(child.spec.to_json())}"


def _is_there(target: Path, only: Mapping[str, Measured]) -> bool:
    """Return whether an earlier search has written a family of just these slices, and it is whole."""
    try:
        family = check_family(target)
    except BigNASError:
        return False
    return {s.name: s.spec for s in family.slices} == {name: child.spec for name, child in only.items()}


def _write(work: _Work, run: _Run, trained: Trained, outcome: Outcome, only: Mapping[str, Measured] | None) -> None:
    """Write the family; `only`: name to child, where these alone are its slices."""
    from bignas_zoo.measure.family import write_family

    record = {**outcome.record, "command": _command(work.home, run.settings)}
    training = {**work.home.training, "search": record}
    write_family(trained, outcome.measured, run.target, work.say, keep=outcome.keep, only=only, training=training)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]


def _result(outcome: Outcome, target: Path, folder: Path) -> SearchResult:
    family = slices.public(load_family(target))
    by_spec = {s.spec: s for s in family.slices}
    best = {budget: Slice.of(by_spec[child.spec]) for budget, child in outcome.best.items()}
    return SearchResult(family, target, best, family.training["search"], folder)


def _command(home: Family, settings: Settings) -> str:
    from bignas_zoo.search.costs import DEFAULT_FRONT

    budgets = "".join(f" --budget '{budget}'" for budget in settings.budgets)
    front = "" if settings.front == DEFAULT_FRONT else f" --front {_axis(settings.front[0])},{_axis(settings.front[1])}"
    flags = f"{' --predictor' * settings.predictor}{' --from-scratch' * settings.from_scratch}{front}"
    return (
        f"bignas-zoo search {home.name} --data FOLDER{budgets} --method {settings.method} "
        f"--children {settings.children} --seed {settings.seed}{flags}"
    )


def _axis(figure: str) -> str:
    return figure.replace("latency_ms@", "ms@").replace("arena_bytes", "ram")


def _draw(family: Family, folder: Path, say: Say) -> None:
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        say('no drawing: it needs matplotlib (pip install "bignas-zoo[plots]")')
        return
    from bignas_zoo.hub_cards.search_plot import plot_search

    for name in names.DRAWINGS:
        plot_search(family, folder / name)
