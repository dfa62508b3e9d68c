"""Children on their way through a search: proposed, then measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.budget import Budget, Limit

#: What a child costs, without its accuracy: "macs", "parameters", "bytes", "latency_ms@DEVICE" to value;
#: infinite where a device is not known to run it.
CostOf = Callable[[ChildSpec], Mapping[str, float]]

#: Where children come from: both ends of the space, slices that a family has already, the coarse grid, a uniform draw,
#: a change of one parent, a mixture of two, a draw of a policy.
ORIGINS = ("corner", "earlier", "grid", "random", "mutation", "crossover", "policy")


@dataclass(frozen=True)
class Candidate:
    """A child that a method proposes.

    Attributes:
        spec: the child.
        origin: one of `ORIGINS`.
        budget: what it is proposed for; None for the front as a whole.
    """

    spec: ChildSpec
    origin: str
    budget: Budget | None = None


@dataclass(frozen=True)
class Measured:
    """A child with its accuracy.

    Attributes:
        spec: the child.
        top1: accuracy in percent on the held-out images.
        origin: one of `ORIGINS`.
        costs: its other figures, see `CostOf`.
    """

    spec: ChildSpec
    top1: float
    origin: str
    costs: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def macs(self) -> int:
        """Multiply-adds of the child."""
        known = self.costs.get("macs")
        return cost.macs(self.spec) if known is None else int(known)

    @property
    def figures(self) -> dict[str, float]:
        """Every figure, accuracy included."""
        return {**self.costs, "macs": self.macs, "top1": self.top1}


def misses(limits: Sequence[Limit], figures: Mapping[str, float]) -> tuple[Limit, ...]:
    """Return the limits that do not hold; a figure that is not known never does."""
    return tuple(limit for limit in limits if (value := figures.get(limit.figure)) is None or not limit.allows(value))
