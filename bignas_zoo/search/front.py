"""Which of the measured children are worth having: for a budget, as a front, and by what names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.search.children import Measured, misses

THINNING_POINTS = 0.5


def pareto(measured: Iterable[Measured], first: str = "macs", second: str = "top1") -> tuple[Measured, ...]:
    """Return the children that no other beats in both of two figures.

    Args:
        measured: the children.
        first, second: names of figures (`Measured.figures`): more is better of ``top1``, less of all others.

    Returns:
        The front, from the best in `first` to the best in `second`. Of children equal in both the first stays; those
        with an infinite figure, which nobody knows, are left out.

    Raises:
        KeyError: a child lacks a figure.
    """
    front: list[Measured] = []
    known = (m for m in measured if math.isfinite(_badness(m, first) + _badness(m, second)))
    for m in sorted(known, key=lambda m: (_badness(m, first), _badness(m, second))):
        if not front or _badness(m, second) < _badness(front[-1], second):
            front.append(m)
    return tuple(front)


def _badness(m: Measured, figure: str) -> float:
    return -m.top1 if figure == "top1" else m.macs if figure == "macs" else m.costs[figure]


def thin(front: Sequence[Measured], points: float = THINNING_POINTS) -> tuple[Measured, ...]:
    """Keep members that gain at least `points` over the one kept before; the last always stays.

    Args:
        front: ordered by cost, accuracy rising.
        points: percentage points; smaller gains are within the noise of a few thousand images.
    """
    kept: list[Measured] = []
    for m in front:
        if not kept or m.top1 >= kept[-1].top1 + points:
            kept.append(m)
    if front and kept[-1] is not front[-1]:
        if len(kept) > 1:
            kept.pop()
        kept.append(front[-1])
    return tuple(kept)


def best(measured: Iterable[Measured], budget: Budget) -> Measured | None:
    """Return the child to take for a budget, or None if none meets it.

    It is the most accurate one; for a budget of a least accuracy alone, the one with the fewest MACs. Ties go to fewer
    MACs, then to the one measured first.
    """
    return next(iter(leaders(measured, budget, 1, strict=True)), None)


def leaders(measured: Iterable[Measured], budget: Budget, count: int, *, strict: bool = False) -> list[Measured]:
    """Return the best children for a budget, the best one first.

    Args:
        measured: the children.
        budget: its limits on cost always hold.
        count: how many at most.
        strict: whether a least accuracy must be reached, too; if not, children that miss it come last.
    """
    rows = []
    for m in measured:
        figures = m.figures
        if misses(budget.upper, figures):
            continue
        short = bool(misses(budget.limits, figures))
        if not (short and strict):
            cheap_wins = not budget.upper and not short
            rows.append(((short, m.macs if cheap_wins else -m.top1, m.macs), m))
    return [m for _, m in sorted(rows, key=lambda row: row[0])[:count]]


def nearest_on(front: Sequence[Measured], position: float, figure: str = "macs") -> Measured:
    """Return the member nearest to a place on the logarithmic scale of a figure.

    Args:
        front: see `pareto`.
        position: from 0 to 1, between the ends of the front.
        figure: a figure of the front.
    """

    def place(m: Measured) -> float:
        return math.log(max(1e-9, m.figures[figure]))

    target = place(front[0]) + position * (place(front[-1]) - place(front[0]))
    return min(front, key=lambda m: abs(place(m) - target))


def not_worse(
    earlier: Iterable[Measured], selected: Iterable[Measured], measured: Iterable[Measured]
) -> list[Measured]:
    """Return children to add to `selected`, so that whatever the budget it holds one as good as any of `earlier`.

    Thinning drops gains within noise, and a front over MACs does not look at parameters; so a slice of before might be
    missed somewhere. Each one that no chosen child replaces (no figure worse) is replaced by the most accurate child
    that does, which may be itself.

    Args:
        earlier: children that were chosen before, measured like all others.
        selected: those chosen now.
        measured: all of them, `earlier` included.
    """
    everything, added, kept = list(measured), list[Measured](), list(selected)
    for old in sorted(earlier, key=lambda m: (-m.top1, m.macs)):
        if not any(_replaces(m, old) for m in kept):
            new = min((m for m in everything if _replaces(m, old)), key=lambda m: (-m.top1, m.macs))
            added.append(new)
            kept.append(new)
    return added


def _replaces(new: Measured, old: Measured) -> bool:
    mine, others = new.figures, old.figures
    return all(mine[f] >= value if f == "top1" else mine[f] <= value for f, value in others.items())


def name_members(
    family: str, space: SearchSpace, front: Sequence[Measured], measured: Sequence[Measured]
) -> dict[str, Measured]:
    """Name the slices of a family.

    ``smallest`` and ``biggest`` are the corners; ``s``, ``m``, ``l``, ``xl`` the front members nearest
    to four targets spaced evenly over the logarithm of MACs; the rest ``f01``, ``f02``, … by MACs.

    Args:
        family: prefix of the names.
        space: the search space.
        front: the thinned front, and whatever else is to be a slice, by MACs.
        measured: all measurements, corners included.

    Returns:
        Name to member.
    """
    corners = {"smallest": space.smallest, "biggest": space.biggest}
    by_spec: Mapping[ChildSpec, Measured] = {m.spec: m for m in measured}
    names = {short: by_spec[spec] for short, spec in corners.items()}
    inner = [m for m in front if m.spec not in corners.values()]
    sized: list[Measured] = []
    for i, short in enumerate(("s", "m", "l", "xl")):
        rest = [m for m in inner if m not in sized and (not sized or m.macs > sized[-1].macs)]
        if rest:
            low, high = math.log(inner[0].macs), math.log(inner[-1].macs)
            target = low + (high - low) * i / 3
            still_needed = 3 - i  # leave enough larger members for the names to come
            usable = rest[: len(rest) - still_needed] or rest[:1]
            member = min(usable, key=lambda m: abs(math.log(m.macs) - target))
            sized.append(member)
            names[short] = member
    others = [m for m in inner if m not in sized]
    names |= {f"f{i:02d}": m for i, m in enumerate(others, start=1)}
    return {f"{family}-{short}": member for short, member in names.items()}
