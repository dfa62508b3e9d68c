"""What a search found: the best child for each budget, and which children are worth a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bignas_zoo.budget import Budget
from bignas_zoo.errors import NothingFitsError
from bignas_zoo.files.say import Say
from bignas_zoo.search.children import Measured
from bignas_zoo.search.costs import DEFAULT_FRONT
from bignas_zoo.search.front import best, not_worse, pareto, thin


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


def best_for_each(measured: Sequence[Measured], budgets: Sequence[Budget], say: Say) -> dict[str, Measured]:
    """Return the best child for each budget that any meets, by the budget as written.

    Raises:
        NothingFitsError: there are budgets, and no child meets any.
    """
    by_budget = {str(budget): child for budget in budgets if (child := best(measured, budget))}
    missed = [str(budget) for budget in budgets if str(budget) not in by_budget]
    if missed:
        top = max(m.top1 for m in measured)
        text = (
            f"budget {missed[0]}: none of {len(measured)} children meets it; the most accurate one reaches {top:.2f} % "
            "on held-out images. Measure more --children, or relax the budget."
        )
        if not by_budget:
            raise NothingFitsError(text)
        say(text)
    return by_budget


def worth_a_slice(
    measured: Sequence[Measured], by_budget: Mapping[str, Measured], front: tuple[str, str]
) -> tuple[Measured, ...]:
    """Return the best of each budget, the other front asked for, and what leaves no earlier slice unreplaced."""
    keep = list(by_budget.values())
    if front != DEFAULT_FRONT:
        keep += pareto(measured, *front)
    earlier = [m for m in measured if m.origin == "earlier"]
    keep += not_worse(earlier, [*keep, *thin(pareto(measured))], measured)
    return tuple(dict.fromkeys(keep))


def budget_to_json(budget: Budget, measured: Sequence[Measured]) -> dict[str, Any]:
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
