"""What children cost: MACs, parameters, bytes, memory, and milliseconds on devices. Nothing here is measured.

Bytes are those of the float32 TFLite file, estimated from above: weights, and for each operation what it takes in the
largest of the files that there are. Milliseconds are predictions of `bignas_zoo.latency`, the upper end of the bar
unless told otherwise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget, Limit, amount
from bignas_zoo.errors import NotFoundError, NothingFitsError, UsageError
from bignas_zoo.search.children import CostOf, misses
from bignas_zoo.zoo.selection import LatencyPredictor
from bignas_zoo.zoo.slice import Slice

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable

#: Bytes of an operation in a file beyond its weights, where no file is known. Shipped slices have up to 620; what a
#: file has once, some 1,800 bytes, weighs more where there are few operations.
OPERATION_BYTES = 800
#: What names in a file, which differ in length, may add to that.
MARGIN_BYTES = 512
#: The two axes of a front, as a user names them, and the figures they are; or ``ms@DEVICE``.
AXES = {"top1": "top1", "macs": "macs", "parameters": "parameters", "bytes": "bytes", "ram": "arena_bytes"}
#: Figures that take a millisecond a child, and are counted where they are asked for.
OF_INT8 = {"arena_bytes": cost.arena, "int8_bytes": cost.int8_bytes}
DEFAULT_FRONT = ("macs", "top1")


def figures(spec: ChildSpec) -> dict[str, float]:
    """Return MACs and parameters of a child."""
    return {"macs": cost.macs(spec), "parameters": cost.parameters(spec)}


def operation_bytes(slices: Iterable[Slice]) -> int:
    """Return what an operation takes in the files of some slices beyond its weights, from above."""
    known = [
        math.ceil((s.bytes - cost.weight_bytes(s.network)) / len(cost.ops(s.network)))
        for s in slices
        if s.bytes is not None
    ]
    return max(known, default=OPERATION_BYTES)


def parse_front(text: str) -> tuple[str, str]:
    """Parse the axes of a front.

    Args:
        text: two names with a comma between them: of `AXES`, or ``ms@DEVICE``; e.g. ``"bytes,top1"``.

    Returns:
        Two figures, see `search.front.pareto`.

    Raises:
        UsageError: not two different names of these.
    """
    names = [part.strip() for part in text.split(",")]
    if len(names) != 2 or names[0] == names[1]:
        raise UsageError(f"front: needs two different axes, such as bytes,top1; got {text[:80]!r}.")
    first, second = map(_figure, names)
    return first, second


def _figure(axis: str) -> str:
    if axis in AXES:
        return AXES[axis]
    unit, _, device = axis.partition("@")
    if unit != "ms" or not device:
        raise UsageError(f"front: axes are {', '.join(AXES)} and ms@DEVICE; got {axis[:80]!r}.")
    return f"latency_ms@{device}"


def predictor_for(
    budgets: Sequence[Budget], front: Sequence[str], *, risk: str = "upper", tables: Sequence[DeviceTable] = ()
) -> LatencyPredictor:
    """Return what predicts the latencies that budgets and a front name.

    Raises:
        UsageError: no such risk.
        NotFoundError: there is no table for a device.
        IntegrityError: a table is damaged.
    """
    limits = [limit for budget in budgets for limit in budget.limits]
    for figure in front:
        if "@" in figure:
            device = figure.partition("@")[2]
            limits.append(Limit("latency_ms", Fraction(1), device, f"ms@{device}"))
    return LatencyPredictor.of(Budget(tuple(limits)), risk=risk, tables=tables)


def costs_for(
    space: SearchSpace,
    budgets: Sequence[Budget],
    predictor: LatencyPredictor,
    slices: Iterable[Slice],
    front: Sequence[str] = (),
) -> CostOf:
    """Return what tells a child's figures: MACs, parameters, bytes, latencies, and memory where it matters.

    Args:
        space: the children's.
        budgets: each must be possible.
        predictor: of latencies; a child with blocks that a table lacks takes for ever there, so it meets no limit.
        slices: with files, whose sizes say what an operation takes.
        front: figures that a front is of.

    Raises:
        NothingFitsError: not even the smallest child meets a budget.
        NotFoundError: a table lacks blocks of the smallest child.
    """
    overhead = operation_bytes(slices)
    wanted = {*front, *(limit.figure for budget in budgets for limit in budget.limits)}
    of_int8 = {figure: count for figure, count in OF_INT8.items() if figure in wanted}
    for device in predictor.tables:
        predictor.milliseconds(space.smallest, device)

    @functools.cache
    def costs(spec: ChildSpec) -> Mapping[str, float]:
        bytes_ = cost.weight_bytes(spec) + overhead * len(cost.ops(spec)) + MARGIN_BYTES
        times: dict[str, float] = {}
        for device in predictor.tables:
            try:
                times[f"latency_ms@{device}"] = predictor.milliseconds(spec, device)
            except NotFoundError:
                times[f"latency_ms@{device}"] = math.inf
        memory = {figure: count(spec) for figure, count in of_int8.items()}
        return {**figures(spec), "bytes": bytes_, **memory, **times}

    for budget in budgets:
        for limit in misses(budget.upper, costs(space.smallest)):
            raise NothingFitsError(
                f"budget {budget}: below the smallest child of space '{space.name}', which has "
                f"{amount(limit.quantity, costs(space.smallest)[limit.figure])}."
            )
    return costs
