"""How far predicted times are from measured ones, in the figures that papers on latency prediction give."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Pair = tuple[float, float]


@dataclass(frozen=True)
class Validation:
    """Errors over networks; relative errors are fractions of the measured time.

    Attributes:
        networks: how many.
        mape: mean absolute relative error.
        within_5, within_10: share of networks that are off by no more than 5 and 10 %.
        p95, worst: 95th percentile and maximum of the absolute relative error.
        bias: mean signed relative error; above 0 where predictions are too high.
        r, rank: Pearson's and Spearman's correlation; None for fewer than 3 networks, or without any spread.
        source: which networks, measured how.
        pairs: (predicted, measured) in milliseconds, one a network; may be empty.
    """

    networks: int
    mape: float
    within_5: float
    within_10: float
    p95: float
    worst: float
    bias: float
    r: float | None
    rank: float | None
    source: str
    pairs: tuple[Pair, ...] = ()

    @staticmethod
    def of(pairs: Sequence[Pair], source: str) -> Validation:
        """Compare (predicted, measured) times in milliseconds; needs at least one pair, measured above 0."""
        errors = [p / m - 1 for p, m in pairs]
        off = [abs(e) for e in errors]
        predicted, measured = zip(*pairs, strict=True)
        return Validation(
            networks=len(pairs),
            mape=statistics.fmean(off),
            within_5=sum(e <= 0.05 for e in off) / len(off),
            within_10=sum(e <= 0.10 for e in off) / len(off),
            p95=percentile_95(off),
            worst=max(off),
            bias=statistics.fmean(errors),
            r=correlation(predicted, measured),
            rank=correlation(ranks(predicted), ranks(measured)),
            source=source,
            pairs=tuple((float(p), float(m)) for p, m in pairs),
        )

    @staticmethod
    def from_json(data: Any) -> Validation:
        """Read it; raises KeyError, TypeError or ValueError."""
        pairs = data.get("pairs", [])
        if len(pairs) > MOST_PAIRS:
            raise ValueError(f"validation has more than {MOST_PAIRS:,} pairs")
        return Validation(
            networks=_count(data["networks"]),
            **{name: number(data[name], name, 0, 1e6) for name in FRACTIONS},
            bias=number(data["bias"], "bias", -1e6, 1e6),
            r=_correlation(data["r"]),
            rank=_correlation(data["rank"]),
            source=str(data["source"]),
            pairs=tuple((number(p, "pairs", 0, 1e9), number(m, "pairs", 0, 1e9)) for p, m in pairs),
        )

    def to_json(self, *, pairs: bool = True) -> dict[str, Any]:
        """Return the figures as JSON data, the pairs only if asked for."""
        data = {**asdict(self), "pairs": [list(p) for p in self.pairs]}
        if not pairs:
            del data["pairs"]
        return data


FRACTIONS = ("mape", "within_5", "within_10", "p95", "worst")
MOST_PAIRS = 100_000


def number(value: Any, what: str, least: float, most: float) -> float:
    """Return a plain number within limits; raises ValueError, for NaN too."""
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"{what} must be a number from {least:g} to {most:g}, got {value!r:.40}")
    return float(value)


def _correlation(value: Any) -> float | None:
    return None if value is None else number(value, "r and rank", -1.01, 1.01)


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 10**9:
        raise ValueError(f"networks must be a whole number above 0, got {value!r:.40}")
    return value


def percentile_95(values: Sequence[float]) -> float:
    """Return the 95th percentile, interpolated as numpy does."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return Pearson's correlation, or None where it is not defined."""
    if len(xs) < 3 or len(set(xs)) == 1 or len(set(ys)) == 1:
        return None
    value = statistics.correlation(xs, ys)
    return value if math.isfinite(value) else None


def ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    result = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for i in order[start:end]:
            result[i] = (start + 1 + end) / 2
        start = end
    return result
