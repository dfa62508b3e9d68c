"""Which slice fits a budget: the choice, and what to say when nothing fits or much is left over."""

from __future__ import annotations

from bignas_zoo import cost
from bignas_zoo.budget import Budget, Limit, amount
from bignas_zoo.errors import NotFoundError, NothingFitsError
from bignas_zoo.registry import Family, Slice, no_weights, paper_family


def pick(family: Family, budget: Budget) -> Slice:
    """Return the most accurate slice of a family within a budget.

    Accuracy here is that on held-out images, never the reported one, so that the report stays an
    honest measurement. A budget that only sets a lower limit (``top1>=80``) returns the slice with
    the fewest MACs that reaches it. Ties go to fewer MACs.

    Args:
        family: where to look.
        budget: every limit must hold.

    Raises:
        NothingFitsError: none fits; the message names the nearest and what it misses by.
        NotFoundError: the family has no weights, or there is no latency table for a device.
    """
    for limit in budget.limits:
        if limit.device is not None:
            raise NotFoundError(
                f"budget {limit.text!r}: there is no latency table for device '{limit.device}'. Known "
                "devices: none in this version. Give MACs, parameters or bytes instead."
            )
    candidates = [s for s in family.slices if s.statistics is not None]
    if not candidates:
        raise NotFoundError(no_weights(family.name))
    fitting = [s for s in candidates if not budget.violations(s.figures)]
    if not fitting:
        raise NothingFitsError(_nearest_miss(family, candidates, budget))
    if not budget.upper:
        return min(fitting, key=lambda s: s.macs)
    return max(fitting, key=lambda s: (s.holdout_top1 or 0.0, -s.macs))


def check_fits(chosen: Slice, budget: Budget) -> None:
    """Raise NothingFitsError if a slice asked for by name is over the budget."""
    misses = [_miss(chosen, limit) for limit in budget.violations(chosen.figures)]
    if misses:
        raise NothingFitsError(f"'{chosen.name}' does not meet {budget}: {'; '.join(misses)}.")


def _nearest_miss(family: Family, candidates: list[Slice], budget: Budget) -> str:
    closest = min(candidates, key=lambda s: sum(_excess(s, v) for v in budget.violations(s.figures)))
    misses = "; ".join(_miss(closest, limit) for limit in budget.violations(closest.figures))
    return f"nothing in family '{family.name}' meets {budget}. Nearest: '{closest.name}': {misses}."


def _excess(chosen: Slice, limit: Limit) -> float:
    figure = chosen.figures.get(limit.quantity)
    return float("inf") if figure is None else abs(figure - float(limit.value)) / float(limit.value)


def _miss(chosen: Slice, limit: Limit) -> str:
    figure = chosen.figures.get(limit.quantity)
    if figure is None:
        return f"its {limit.quantity} is not known"
    off = abs(figure - float(limit.value))
    if limit.quantity == "top1":
        return f"top-1 {figure:.2f} % is {off:.2f} points below {limit.text}"
    return f"{amount(limit.quantity, figure)} is {amount(limit.quantity, off)} over {limit.text}"


def underuse(chosen: Slice, budget: Budget) -> str | None:
    """Return a hint if a pick uses less than half of its budget, naming what would use it.

    Args:
        chosen: the pick.
        budget: what it was picked for.

    Returns:
        The hint, or None if at least one limit is used by half or more.
    """
    shares = [chosen.figures[limit.quantity] for limit in budget.upper]
    used = max((float(f or 0) / float(limit.value) for f, limit in zip(shares, budget.upper, strict=True)), default=1.0)
    if used >= 0.5:
        return None
    text = f"'{chosen.name}' is the most accurate of its family, yet uses only {100 * used:.1f} % of {budget}."
    larger = [s for s in paper_family().slices if all(_could_hold(s, limit) for limit in budget.upper)]
    if larger:
        best = max(larger, key=lambda s: s.macs)
        text += (
            f" '{best.name}' ({amount('macs', best.macs)}, ImageNet) would use it, but its weights were never "
            "published: train space 'bignas' to have them."
        )
    return text


def _could_hold(candidate: Slice, limit: Limit) -> bool:
    figures = {**candidate.figures, "bytes": cost.weight_bytes(candidate.spec)}  # never exported: its weights
    figure = figures.get(limit.quantity)
    return figure is not None and limit.allows(figure)
