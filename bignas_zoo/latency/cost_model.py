"""Times of blocks that lie beside a table's rows, from what a block computes and moves.

Public tables of phones hold the widths of one paper at one input size. Four numbers fitted to such rows (milliseconds a
million multiply-adds of full and of depthwise convolutions, values moved, weights read) say what blocks of other widths
and sizes take; how far that is off is measured on groups of rows left out, and on whole networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bignas_zoo.latency.interpolation import HeldOut, Value
from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.least_squares import least_squares
from bignas_zoo.latency.measurement import Measurement

MILLION = 1e6
#: What a value is called that comes from here, beside "area" and "channels".
MODELLED = "model"


@dataclass(frozen=True)
class Work:
    """What a block computes and moves, in millions.

    Attributes:
        full: multiply-adds of full convolutions (1x1, and the stem's) and dense layers.
        depthwise: multiply-adds of depthwise convolutions.
        values: entries of the maps that operations read and write.
        weights: weights of full convolutions; a dense layer's are not counted, since each is used once.
    """

    full: float
    depthwise: float
    values: float
    weights: float

    @staticmethod
    def of(key: BlockKey) -> Work:
        """Return the work of a block."""
        ops = key.ops
        full = [op for op in ops if op.kind != "depthwise"]
        return Work(
            sum(op.macs for op in full) / MILLION,
            sum(op.macs for op in ops if op.kind == "depthwise") / MILLION,
            sum(op.cin * (op.size * op.stride) ** 2 + op.cout * op.size**2 for op in ops) / MILLION,
            sum(op.kernel_parameters for op in full if op.kind == "conv") / MILLION,
        )

    def within(self, most: Work) -> bool:
        """Return whether no figure is above another's."""
        return all(mine <= its for mine, its in zip(*map(dataclasses.astuple, (self, most)), strict=True))


@dataclass(frozen=True)
class CostModel:
    """What blocks without squeeze-excite and projection shortcut take.

    Attributes:
        full_ms, depthwise_ms, values_ms, weights_ms: milliseconds a million, see `Work`.
        most: the most work of a block that it was fitted or checked on; nothing is predicted beyond.
        each_ms: what every block takes besides.
    """

    full_ms: float
    depthwise_ms: float
    values_ms: float
    weights_ms: float
    most: Work
    each_ms: float = 0.0

    def value(self, key: BlockKey) -> Value | None:
        """Return a block's time, or None for a block of another form or more work than any that it was tried on."""
        if key.kind not in ("stem", "mbconv", "head", "classifier") or key.se_hidden or key.shortcut == "project":
            return None
        work = Work.of(key)
        return Value(self.milliseconds(work), 0.0, frozenset({MODELLED})) if work.within(self.most) else None

    def milliseconds(self, work: Work) -> float:
        """Return the time of some work."""
        factors = (self.full_ms, self.depthwise_ms, self.values_ms, self.weights_ms)
        amounts = (work.full, work.depthwise, work.values, work.weights)
        return self.each_ms + sum(factor * amount for factor, amount in zip(factors, amounts, strict=True))

    def scaled(self, factor: float, each_ms: float) -> CostModel:
        """Return the model of a device that takes so many times as long, and so much more for every block."""
        return CostModel(
            factor * self.full_ms,
            factor * self.depthwise_ms,
            factor * self.values_ms,
            factor * self.weights_ms,
            self.most,
            factor * self.each_ms + each_ms,
        )


def fit_model(rows: Mapping[BlockKey, Measurement], also: Iterable[BlockKey] = ()) -> CostModel:
    """Fit the four numbers to rows, by least squares of relative errors, none below zero.

    Args:
        rows: of MBConv blocks without squeeze-excite.
        also: further blocks that predictions are checked on, which may do more work.
    """
    works = {key: dataclasses.astuple(Work.of(key)) for key in rows}
    names = [field.name for field in dataclasses.fields(Work)]
    used = list(range(len(names)))
    while True:
        relative = [[works[key][i] / rows[key].mean_ms for i in used] for key in rows]
        factors = dict(zip(used, least_squares(relative, [1.0] * len(rows)), strict=True))
        if min(factors.values()) >= 0:
            break
        used.remove(min(factors, key=lambda i: factors[i]))
    every = [*works.values(), *(dataclasses.astuple(Work.of(key)) for key in also)]
    most = Work(*(max(column) for column in zip(*every, strict=True)))
    full_ms, depthwise_ms, values_ms, weights_ms = (factors.get(i, 0.0) for i in range(len(names)))
    return CostModel(full_ms, depthwise_ms, values_ms, weights_ms, most)


def model_held_out(rows: Mapping[BlockKey, Measurement]) -> HeldOut | None:
    """Predict each group of rows of one input size and widths from all others, and return the errors."""
    groups: dict[tuple[int, int, int], list[BlockKey]] = {}
    for key in rows:
        groups.setdefault((key.size_in, key.cin, key.cout), []).append(key)
    errors = []
    for group in groups.values():
        model = fit_model({key: row for key, row in rows.items() if key not in group})
        errors += [abs(model.milliseconds(Work.of(key)) / rows[key].mean_ms - 1) for key in group]
    return HeldOut.of(errors)
