"""The front of a family: which children are worth having, by measurement.

Children are drawn at random, then by mutating the best found so far near a random target of MACs;
each is calibrated and measured on images held out of training. The front is the Pareto set of
accuracy over MACs, thinned to steps that are more than noise.

Reference: BigNAS (arXiv 2003.11142) section 3.2 (selection by measured accuracy of calibrated
children); the full coarse-to-fine search is not needed at this size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bignas_zoo import cost
from bignas_zoo.sampling import mutate, uniform, uniform_child
from bignas_zoo.space import ChildSpec, SearchSpace

MUTATION_RATE = 0.15
THINNING_POINTS = 0.5


@dataclass(frozen=True)
class Measured:
    """A child with its accuracy.

    Attributes:
        spec: the child.
        top1: accuracy in percent on the held-out images.
        origin: "corner", "random" or "mutation".
    """

    spec: ChildSpec
    top1: float
    origin: str

    @property
    def macs(self) -> int:
        """Multiply-adds of the child."""
        return cost.macs(self.spec)


def measure_front(
    space: SearchSpace,
    evaluate: Callable[[ChildSpec], float],
    count: int,
    seed: int,
    known: Iterable[Measured] = (),
    report: Callable[[Measured, int], None] = lambda measured, done: None,
) -> tuple[Measured, ...]:
    """Measure `count` different children.

    The two corners come first, then uniformly random children until half of `count`, then mutations
    of front members.

    Args:
        space: the search space.
        evaluate: child to accuracy in percent on held-out images.
        count: how many children in all.
        seed: of the draws.
        known: measurements of an interrupted run; they are not made again.
        report: told of each measurement, and how many there are.

    Returns:
        All measurements, in the order made.
    """
    done: dict[ChildSpec, Measured] = {}
    remembered = {m.spec: m for m in known}

    def add(spec: ChildSpec, origin: str) -> None:
        if spec in done:
            return
        done[spec] = remembered.get(spec) or Measured(spec, evaluate(spec), origin)
        report(done[spec], len(done))

    add(space.smallest, "corner")
    add(space.biggest, "corner")
    for draw in range(50 * count):  # bounded: a tiny space may hold fewer children than asked for
        if len(done) >= count:
            break
        if len(done) < count / 2:
            add(uniform_child(space, (seed, "front", draw)), "random")
        else:
            parent = _parent(pareto(done.values()), uniform((seed, "target", draw)))
            key = (seed, "mutate", draw)
            add(mutate(parent.spec, key, MUTATION_RATE, unseen_resolutions=True), "mutation")
    return tuple(done.values())


def _parent(front: Sequence[Measured], position: float) -> Measured:
    """Return the front member nearest to a target drawn evenly over the logarithm of MACs."""
    low, high = math.log(front[0].macs), math.log(front[-1].macs)
    target = low + position * (high - low)
    return min(front, key=lambda m: abs(math.log(m.macs) - target))


def pareto(measured: Iterable[Measured]) -> tuple[Measured, ...]:
    """Return the children that no other beats in both MACs and accuracy, ordered by MACs."""
    front: list[Measured] = []
    for m in sorted(measured, key=lambda m: (m.macs, -m.top1)):
        if not front or m.top1 > front[-1].top1:
            front.append(m)
    return tuple(front)


def thin(front: Sequence[Measured], points: float = THINNING_POINTS) -> tuple[Measured, ...]:
    """Keep members that gain at least `points` over the one kept before; the last always stays.

    Args:
        front: ordered by MACs, accuracy rising.
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


def name_members(
    family: str, space: SearchSpace, front: Sequence[Measured], measured: Sequence[Measured]
) -> dict[str, Measured]:
    """Name the slices of a family.

    ``smallest`` and ``biggest`` are the corners; ``s``, ``m``, ``l``, ``xl`` the front members nearest
    to four targets spaced evenly over the logarithm of MACs; the rest ``f01``, ``f02``, … by MACs.

    Args:
        family: prefix of the names.
        space: the search space.
        front: the thinned front.
        measured: all measurements, corners included.

    Returns:
        Name to member.
    """
    corners = {"smallest": space.smallest, "biggest": space.biggest}
    by_spec = {m.spec: m for m in measured}
    names = {short: by_spec[spec] for short, spec in corners.items()}
    inner = [m for m in front if m.spec not in corners.values()]
    chosen: list[Measured] = []
    for i, short in enumerate(("s", "m", "l", "xl")):
        rest = [m for m in inner if m not in chosen and (not chosen or m.macs > chosen[-1].macs)]
        if rest:
            low, high = math.log(inner[0].macs), math.log(inner[-1].macs)
            target = low + (high - low) * i / 3
            still_needed = 3 - i  # leave enough larger members for the names to come
            usable = rest[: len(rest) - still_needed] or rest[:1]
            member = min(usable, key=lambda m: abs(math.log(m.macs) - target))
            chosen.append(member)
            names[short] = member
    others = [m for m in inner if m not in chosen]
    names |= {f"f{i:02d}": m for i, m in enumerate(others, start=1)}
    return {f"{family}-{short}": member for short, member in names.items()}
