"""The loop of every search: propose a round of children, measure it, record it.

A method sees whole rounds only, and a round has a fixed size. So what is proposed depends on seed and measurements
alone: not on how many workers measure a round, in which order they finish, or how often the search was interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import UsageError
from bignas_zoo.search.children import Candidate, CostOf, Measured
from bignas_zoo.search.log import Log

ROUND = 8
#: Rounds in turn without any new child, after which a small space is taken to be exhausted.
DRY = 3
#: How many candidates are ranked for each one that is measured, where there is an order.
RANKED = 8

#: Children to accuracies in percent, in the same order; made one after the other, so that each is kept at once.
Evaluate = Callable[[Sequence[ChildSpec]], Iterable[float]]
#: Measured children and candidates to a number each; the candidates with the highest numbers are measured.
Order = Callable[[Sequence[Measured], Sequence[Candidate]], Sequence[float]]


class Method(Protocol):
    """What to measure next."""

    def propose(self, measured: Sequence[Measured], number: int, count: int) -> Sequence[Candidate]:
        """Return candidates for one round: a pure function of its arguments.

        Args:
            measured: everything so far, in the order of proposal.
            number: of the round, from 0.
            count: how many candidates at most.

        Returns:
            Children that are not in `measured`; none if there seem to be no more.
        """


@dataclass(frozen=True)
class ChildProgress:
    """A child that was just measured, or read from the log.

    Attributes:
        child: the child.
        done: children so far.
        children: children in all, unless the space has fewer.
        fresh: whether it was measured now.
    """

    child: Measured
    done: int
    children: int
    fresh: bool


def each(evaluate: Callable[[ChildSpec], float]) -> Evaluate:
    """Return the form of a measurement that `search` takes, one child after the other."""
    return lambda specs: map(evaluate, specs)


def search(
    method: Method,
    evaluate: Evaluate,
    figures: CostOf,
    *,
    children: int,
    start: Iterable[Candidate] = (),
    log: Log | None = None,
    order: Order | None = None,
    report: Callable[[ChildProgress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    round_size: int = ROUND,
) -> tuple[Measured, ...]:
    """Measure at most `children` different children.

    Args:
        method: proposes them.
        evaluate: measures a round.
        figures: what a child costs.
        children: bound on measured children, those of `start` and of the log's among them.
        start: children to measure first, e.g. both ends of the space.
        log: measurements that need not be made again; new ones are added to it.
        order: chooses among more candidates than a round takes. Children of a grid are all measured, whatever it says.
        report: told of each child.
        stop: asked after each child; true ends the search with what there is.
        round_size: candidates a round; another size is another search.

    Returns:
        The measured children, in the order of proposal.

    Raises:
        UsageError: a bound below 1, or an accuracy that is not a percentage.
    """
    if children < 1 or round_size < 1:
        raise UsageError(f"search: children and round_size must be at least 1, got {children} and {round_size}.")
    measured: list[Measured] = []
    seen: set[ChildSpec] = set()
    for batch in _batches(method, start, measured, order, children, round_size):
        new: dict[ChildSpec, Candidate] = {}
        for candidate in batch:
            if candidate.spec not in seen:
                new.setdefault(candidate.spec, candidate)
        wanted = list(new.values())[: children - len(measured)]
        for m, fresh in _measure(wanted, evaluate, figures, log):
            measured.append(m)
            seen.add(m.spec)
            report(ChildProgress(m, len(measured), children, fresh))
            if stop():
                return tuple(measured)
        if len(measured) >= children:
            break
    return tuple(measured)


def _batches(
    method: Method,
    start: Iterable[Candidate],
    measured: Sequence[Measured],
    order: Order | None,
    children: int,
    size: int,
) -> Iterator[Sequence[Candidate]]:
    """Yield rounds for ever, or until nothing new was proposed for long; `measured` grows between them."""
    first = list(start)
    yield from (first[i : i + size] for i in range(0, len(first), size))
    dry = 0
    for number in itertools.count():
        before = len(measured)
        candidates = method.propose(measured, number, size * (RANKED if order else 1))
        yield _ranked(candidates, measured, order, min(size, children - len(measured)))
        dry = 0 if len(measured) > before else dry + 1
        if dry >= DRY:
            return


def _ranked(
    candidates: Sequence[Candidate], measured: Sequence[Measured], order: Order | None, size: int
) -> Sequence[Candidate]:
    fixed = [c for c in candidates if c.origin == "grid"]
    if fixed or order is None or len(candidates) <= size:
        return (fixed or candidates)[:size]
    scores = order(measured, candidates)
    ranks = sorted(range(len(candidates)), key=lambda i: (-scores[i], i))
    return [candidates[i] for i in ranks[:size]]


def _measure(
    batch: Sequence[Candidate], evaluate: Evaluate, figures: CostOf, log: Log | None
) -> Iterator[tuple[Measured, bool]]:
    known = log.known if log else {}
    accuracies = iter(evaluate([c.spec for c in batch if c.spec not in known]))
    for candidate in batch:
        fresh = candidate.spec not in known
        top1 = _checked(candidate.spec, next(accuracies)) if fresh else known[candidate.spec]
        child = Measured(candidate.spec, top1, candidate.origin, figures(candidate.spec))
        if fresh and log:
            log.add(child)
        yield child, fresh


def _checked(spec: ChildSpec, top1: float) -> float:
    if not 0 <= top1 <= 100:  # NaN is refused, too
        raise UsageError(f"search: evaluate gave {top1!r} for {spec}; an accuracy is a percentage, from 0 to 100.")
    return float(top1)
