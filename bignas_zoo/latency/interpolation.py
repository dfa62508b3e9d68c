"""Times of blocks that no row has: along a line in area, and along lines in channels.

A block's time on a CPU is close to a line in the area of its map, and between two widths that are multiples of 8 to a
line in the width. Nothing is extrapolated, and nothing is taken across kernels, strides, shortcuts, activations or
forms of squeeze-excite.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.measurement import Measurement
from bignas_zoo.latency.validation import percentile_95

#: Channels of rows to interpolate between are multiples of this: times rise in steps of the vector width.
STEP = 8
#: How far apart two rows may be, as a ratio of sides or of channels; channels may always be one step apart.
WIDEST = {"area": 2.0, "channels": 1.5}
#: Rows looked at on each side; bounds the time that a table of any make takes.
NEAREST = 4


@dataclass(frozen=True)
class Value:
    """The time of a block before the table's scale.

    Attributes:
        ms: milliseconds.
        std_ms: spread of the rows behind it.
        along: what it was interpolated in: "area", "channels", both, or nothing.
    """

    ms: float
    std_ms: float
    along: frozenset[str] = frozenset()


@dataclass(frozen=True)
class HeldOut:
    """Errors of interpolated rows, each one held out and predicted from its neighbours.

    Attributes:
        rows: how many could be.
        mape, p95, worst: of the absolute relative error, as fractions.
    """

    rows: int
    mape: float
    p95: float
    worst: float

    @staticmethod
    def of(errors: list[float]) -> HeldOut | None:
        """Summarise absolute relative errors; None without any."""
        if not errors:
            return None
        return HeldOut(len(errors), sum(errors) / len(errors), percentile_95(errors), max(errors))


@dataclass(frozen=True)
class _Axis:
    """A direction to interpolate in: a key's coordinate, and the key at another coordinate (None: there is none)."""

    kind: str
    at: Callable[[BlockKey], int]
    moved: Callable[[BlockKey, int], BlockKey | None]


def clamped(key: BlockKey) -> BlockKey:
    """Return a block with ReLU in place of ReLU6: both are limits that a runtime applies as it stores a result."""
    return replace(key, activation="relu") if key.activation == "relu6" else key


def _family(key: BlockKey) -> tuple[object, ...]:
    """Return what never changes by interpolation."""
    return (
        key.kind, key.kernel, key.stride, key.expands, key.shortcut, clamped(key).activation, bool(key.se_hidden),
        key.se_activation, key.se_gate,
    )  # fmt: skip


def _with_area(key: BlockKey, size: int) -> BlockKey:
    return replace(key, size_in=size, size_out=-(-size // key.stride))


def _with_input(key: BlockKey, cin: int) -> BlockKey | None:
    """Change the input's channels; expanded and hidden ones stay in proportion."""
    if key.mid * cin % key.cin:
        return None
    return replace(key, cin=cin, mid=key.mid * cin // key.cin, se_hidden=_part(key.se_hidden * cin, key.cin))


def _with_both(key: BlockKey, cin: int) -> BlockKey | None:
    """Change the width of a block that keeps it."""
    moved = _with_input(key, cin) if key.cin == key.cout else None
    return moved and replace(moved, cout=cin)


def _with_mid(key: BlockKey, mid: int) -> BlockKey | None:
    return replace(key, mid=mid) if key.expands else None


def _part(product: int, whole: int) -> int:
    return (product + whole // 2) // whole if product else 0


def _near(i: int, one: int, other: int) -> bool:
    """Return whether two rows are near enough along an axis to interpolate between them."""
    low, high, kind = min(one, other), max(one, other), AXES[i].kind
    return high <= low * WIDEST[kind] or (kind == "channels" and high - low <= STEP)


AXES = (
    _Axis("area", lambda k: k.size_in, _with_area),
    _Axis("channels", lambda k: k.cin, _with_both),
    _Axis("channels", lambda k: k.cin, _with_input),
    _Axis("channels", lambda k: k.cout, lambda k, cout: replace(k, cout=cout)),
    _Axis("channels", lambda k: k.mid, _with_mid),
)


class Index:
    """Rows, to be asked for any block."""

    def __init__(self, rows: Mapping[BlockKey, Measurement]) -> None:
        self.rows = rows
        self._alike = {clamped(key): row for key, row in rows.items()}
        self._coordinates: dict[tuple[object, ...], list[list[int]]] = {}
        coordinates: dict[tuple[object, ...], list[set[int]]] = {}
        for key in rows:
            per_axis = coordinates.setdefault(_family(key), [set() for _ in AXES])
            for values, axis in zip(per_axis, AXES, strict=True):
                values.add(axis.at(key))
        for family, per_axis in coordinates.items():
            self._coordinates[family] = [sorted(values) for values in per_axis]

    def value(self, key: BlockKey, *, without: BlockKey | None = None) -> Value | None:
        """Return a block's time, measured or interpolated, or None if the rows do not support one.

        Args:
            key: the block.
            without: a row to leave out, as if it had never been measured.
        """
        return self._value(key, 0, without)

    def _value(self, key: BlockKey, first: int, without: BlockKey | None) -> Value | None:
        row = self.rows.get(key) or self._alike.get(clamped(key))
        if row is not None and key != without:
            return Value(row.mean_ms, row.std_ms or 0.0)
        per_axis = self._coordinates.get(_family(key))
        if per_axis is None:
            return None
        for i in range(first, len(AXES)):
            between = self._between(key, i, per_axis[i], without)
            if between is not None:
                return between
        return None

    def _between(self, key: BlockKey, i: int, coordinates: list[int], without: BlockKey | None) -> Value | None:
        axis = AXES[i]
        at = axis.at(key)
        below, above = self._neighbours(coordinates, at, key, i, without)
        if below is None or above is None:
            return None
        (low, a), (high, b) = below, above
        if not _near(i, low, high):
            return None
        power = 2 if axis.kind == "area" else 1
        t = (at**power - low**power) / (high**power - low**power)
        return Value(
            (1 - t) * a.ms + t * b.ms,
            max(a.std_ms, b.std_ms),
            a.along | b.along | {axis.kind},
        )

    def _neighbours(
        self, coordinates: list[int], at: int, key: BlockKey, i: int, without: BlockKey | None
    ) -> tuple[tuple[int, Value] | None, tuple[int, Value] | None]:
        """Return the nearest coordinates on both sides that have a time, with it."""
        middle, end = bisect.bisect_left(coordinates, at), bisect.bisect_right(coordinates, at)
        sides = (reversed(coordinates[max(0, middle - NEAREST) : middle]), iter(coordinates[end : end + NEAREST]))
        below, above = (next(self._known(side, key, i, without), None) for side in sides)
        return below, above

    def _known(
        self, coordinates: Iterator[int], key: BlockKey, i: int, without: BlockKey | None
    ) -> Iterator[tuple[int, Value]]:
        for coordinate in coordinates:
            if (AXES[i].kind == "channels" and coordinate % STEP) or not _near(i, AXES[i].at(key), coordinate):
                continue
            moved = AXES[i].moved(key, coordinate)
            value = moved and self._value(moved, i + 1, without)
            if value:
                yield coordinate, value


def held_out(rows: Mapping[BlockKey, Measurement]) -> dict[str, HeldOut]:
    """Predict each row from the others and return the errors, for rows interpolated in area and in channels.

    Args:
        rows: of a table.

    Returns:
        "area", "channels" and "both", as far as rows support them.
    """
    index, errors = Index(rows), dict[str, list[float]]()
    for key, row in rows.items():
        value = index.value(key, without=key)
        if value is None or row.mean_ms <= 0:
            continue
        kind = "both" if len(value.along) > 1 else next(iter(value.along))
        errors.setdefault(kind, []).append(abs(value.ms / row.mean_ms - 1))
    return {kind: summary for kind in sorted(errors) if (summary := HeldOut.of(errors[kind]))}
