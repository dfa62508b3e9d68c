"""Which slice fits a budget: the choice, and what to say when nothing fits or much is left over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.network import Network
from bignas_zoo.budget import Budget, Limit, amount
from bignas_zoo.errors import NotFoundError, NothingFitsError, UsageError
from bignas_zoo.zoo.family import Family, no_weights
from bignas_zoo.zoo.registry import paper_family
from bignas_zoo.zoo.slice import Slice

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable, Estimate

RISKS = ("upper", "mean")


@dataclass(frozen=True)
class LatencyPredictor:
    """What slices take on the devices of a budget.

    Attributes:
        tables: by the devices' names.
        risk: which figure of a prediction is held against a limit: "upper", the upper end of its bar, so that about 39
            of 40 picks meet the limit; or "mean", the prediction itself, which every second one will exceed.
    """

    tables: Mapping[str, DeviceTable] = field(default_factory=dict)
    risk: str = "upper"

    def __post_init__(self) -> None:
        if self.risk not in RISKS:
            raise UsageError(f"risk: must be one of {', '.join(RISKS)}; got '{self.risk}'.")

    @staticmethod
    def of(budget: Budget, *, risk: str = "upper", tables: Sequence[DeviceTable] = ()) -> LatencyPredictor:
        """Find the tables that a budget needs.

        Args:
            budget: its latency terms name devices.
            risk: "upper" or "mean".
            tables: tables of one's own, which go before those known by name.

        Raises:
            UsageError: no such risk.
            NotFoundError: there is no table for a device.
            IntegrityError: a table is damaged.
        """
        by_name = {}
        for limit in budget.limits:
            if limit.device is not None:
                given = {table.name: table for table in tables}
                by_name[limit.device] = given.get(limit.device) or _find(limit, given)
        return LatencyPredictor(by_name, risk)

    def estimate(self, slice_: Slice, device: str) -> Estimate:
        """Predict a slice's latency; raises NotFoundError for blocks that the table lacks."""
        from bignas_zoo.latency import predict

        return predict(self.tables[device], slice_.network)

    def milliseconds(self, network: Network, device: str) -> float:
        """Return what is held against a limit of a device; raises NotFoundError for blocks that its table lacks."""
        from bignas_zoo.latency import predict

        estimate = predict(self.tables[device], network)
        return estimate.high_ms if self.risk == "upper" else estimate.latency_ms

    def figures(self, slice_: Slice, budget: Budget) -> dict[str, float | None]:
        """Return what a budget limits; a latency that cannot be predicted is None."""
        return {limit.figure: self._figure(slice_, limit) for limit in budget.limits}

    def _figure(self, slice_: Slice, limit: Limit) -> float | None:
        if limit.device is None:
            figure: float | None = getattr(slice_, limit.quantity)
            return figure
        try:
            return self.milliseconds(slice_.network, limit.device)
        except NotFoundError:
            return None


def _find(limit: Limit, given: Collection[str]) -> DeviceTable:
    from bignas_zoo.latency import find_device

    try:
        return find_device(str(limit.device))
    except NotFoundError as error:
        named = f" The tables given are called {', '.join(given)}." if given else ""
        raise NotFoundError(f"budget {limit.text!r}: {error}{named}") from error


def pick(family: Family, budget: Budget, predictor: LatencyPredictor | None = None) -> Slice:
    """Return the most accurate slice of a family within a budget.

    Accuracy here is that on held-out images, or the rank that a family gives its slices, never the reported one, so
    that the report stays an honest measurement. A budget that only sets a lower limit (``top1>=80``) returns the slice
    with the fewest MACs that reaches it. Ties go to fewer MACs.

    Args:
        family: where to look.
        budget: every limit must hold.
        predictor: for its latencies [the tables known by name, with risk "upper"].

    Raises:
        NothingFitsError: none fits; the message names the nearest and what it misses by.
        NotFoundError: the family has no weights; or there is no latency table for a device, or it lacks blocks of
            every slice.
    """
    predictor = predictor or LatencyPredictor.of(budget)
    candidates = [s for s in family.slices if s.has_weights]
    if not candidates:
        raise NotFoundError(no_weights(family))
    figures = {s.name: predictor.figures(s, budget) for s in candidates}
    for device in budget.devices:
        if all(f[f"latency_ms@{device}"] is None for f in figures.values()):
            predictor.estimate(candidates[0], device)  # raises, naming the blocks
    fitting = [s for s in candidates if not budget.violations(figures[s.name])]
    if not fitting:
        raise NothingFitsError(_nearest_miss(family, candidates, budget, figures, predictor.risk))
    if not budget.upper:
        return min(fitting, key=lambda s: s.macs)
    return max(fitting, key=lambda s: (s.rank or 0, s.holdout_top1 or 0.0, -s.macs))


def pick_of(
    families: Sequence[Family], budget: Budget, predictor: LatencyPredictor | None = None
) -> tuple[Slice, Family]:
    """Return the most accurate slice of some families of one task within a budget, and its family.

    Args:
        families: that tell the same classes apart; the first is the one that a refusal speaks of.
        budget, predictor: see `pick`.

    Raises:
        NothingFitsError, NotFoundError: no family has one; see `pick`.
    """
    predictor = predictor or LatencyPredictor.of(budget)
    picks, refusals = [], []
    for family in families:
        try:
            picks.append((pick(family, budget, predictor), family))
        except (NothingFitsError, NotFoundError) as error:
            refusals.append(error)
    if not picks:
        raise refusals[0]
    if not budget.upper:
        return min(picks, key=lambda pair: pair[0].macs)
    return max(picks, key=lambda pair: (expected_top1(*pair), -pair[0].macs))


def expected_top1(slice_: Slice, family: Family) -> float:
    """Return the accuracy by which slices of several families of one task are compared, in percent.

    It is its makers' figure, where they say one. A slice without one in a family whose makers say some of others (the
    same net at another input size) counts as the least of those that are ranked above it, so that no other family is
    put aside for what nobody has shown. Where no makers say any, it is the accuracy on held-out images.
    """
    if slice_.published is not None:
        return float(slice_.published["top1"])
    known = [(other.rank or 0, float(other.published["top1"])) for other in family.slices if other.published]
    if known:
        return min((top1 for rank, top1 in known if rank >= (slice_.rank or 0)), default=max(t for _, t in known))
    return slice_.holdout_top1 or 0.0


def check_fits(slice_: Slice, budget: Budget, predictor: LatencyPredictor | None = None) -> None:
    """Raise NothingFitsError if a slice asked for by name is over the budget.

    Raises:
        NotFoundError: there is no table for a device, or it lacks blocks of the slice.
    """
    predictor = predictor or LatencyPredictor.of(budget)
    for device in budget.devices:
        predictor.estimate(slice_, device)
    figures = predictor.figures(slice_, budget)
    misses = [_miss(figures, limit, predictor.risk) for limit in budget.violations(figures)]
    if misses:
        raise NothingFitsError(f"'{slice_.name}' does not meet {budget}: {'; '.join(misses)}.")


Figures = Mapping[str, float | None]


def _nearest_miss(
    family: Family, candidates: list[Slice], budget: Budget, figures: Mapping[str, Figures], risk: str
) -> str:
    def excess(candidate: Slice) -> float:
        mine = figures[candidate.name]
        return sum(_excess(mine, limit) for limit in budget.violations(mine))

    closest = min(candidates, key=excess)
    mine = figures[closest.name]
    misses = "; ".join(_miss(mine, limit, risk) for limit in budget.violations(mine))
    return f"nothing in family '{family.name}' meets {budget}. Nearest: '{closest.name}': {misses}."


def _excess(figures: Figures, limit: Limit) -> float:
    figure = figures.get(limit.figure)
    return float("inf") if figure is None else abs(figure - float(limit.value)) / float(limit.value)


def _miss(figures: Figures, limit: Limit, risk: str) -> str:
    figure = figures.get(limit.figure)
    if figure is None:
        return f"its {limit.figure} is not known"
    off = abs(figure - float(limit.value))
    if limit.quantity == "top1":
        return f"top-1 {figure:.2f} % is {off:.2f} points below {limit.text}"
    bar = ", the upper end of its bar," if limit.quantity == "latency_ms" and risk == "upper" else ""
    return f"{amount(limit.quantity, figure)}{bar} is {amount(limit.quantity, off)} over {limit.text}"


def underuse(slice_: Slice, budget: Budget, predictor: LatencyPredictor | None = None) -> str | None:
    """Return a hint if a pick uses less than half of its budget, naming what would use it.

    Args:
        slice_: the pick.
        budget: what it was picked for.
        predictor: what it was picked by.

    Returns:
        The hint, or None if at least one limit is used by half or more.
    """
    predictor = predictor or LatencyPredictor.of(budget)
    figures = predictor.figures(slice_, budget)
    used = max((float(figures[v.figure] or 0) / float(v.value) for v in budget.upper), default=1.0)
    if used >= 0.5:
        return None
    text = f"'{slice_.name}' is the most accurate of its family, yet uses only {100 * used:.1f} % of {budget}."
    larger = [s for s in paper_family().slices if _could_hold(s, budget, predictor)]
    if larger:
        best = max(larger, key=lambda s: s.macs)
        text += (
            f" '{best.name}' ({amount('macs', best.macs)}, ImageNet) would use it, but its weights were never "
            "published: train space 'bignas' to have them."
        )
    return text


def _could_hold(candidate: Slice, budget: Budget, predictor: LatencyPredictor) -> bool:
    # Never exported: its weights stand for its file.
    figures = {**predictor.figures(candidate, budget), "bytes": cost.weight_bytes(candidate.network)}
    known = [(limit, figures.get(limit.figure)) for limit in budget.upper]
    return all(figure is not None and limit.allows(figure) for limit, figure in known)
