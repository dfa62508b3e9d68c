"""From blocks measured alone to blocks in a network: what whole networks of the same device teach.

Alone, a block finds its weights in the nearest cache and its input where it left it; in a network it finds them
further away. One scale makes up for most of that. Where measured networks show it, each block takes some time less (a
file of one block has costs of its own, passing maps in and out) or more, and some in proportion to its weights.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from bignas_zoo.latency.adaptation import TimedNetwork
from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.least_squares import least_squares
from bignas_zoo.latency.measurement import Measurement
from bignas_zoo.latency.prediction import predict
from bignas_zoo.latency.table import DeviceTable

#: What a network's time is made of besides the overhead: the sum of its blocks, so many times the scale, then a time a
#: block, and a time for a thousand weights.
BLOCKS, COUNT, WEIGHTS = "blocks", "count", "weights"
#: Simplest first. A later one is taken only if it lowers the error by this part, on networks left out.
CHOICES = ((BLOCKS,), (BLOCKS, COUNT), (BLOCKS, WEIGHTS), (BLOCKS, COUNT, WEIGHTS))
GAIN = 0.1
#: A choice needs so many networks for each of its numbers.
NETWORKS_EACH = 5
#: No row falls below this part of what was measured.
LEAST = 0.05
#: On all terms but blocks, relative to their size: decides where networks cannot tell terms apart.
PENALTY = 1e-10

Columns = Mapping[str, Sequence[float]]
Coefficients = Mapping[str, float]


def fit(table: DeviceTable, measured: Sequence[TimedNetwork]) -> DeviceTable:
    """Fit a table of blocks that were measured alone to whole networks, by least squares of relative errors.

    Args:
        table: with a scale of 1.
        measured: networks, each a child or its blocks, and their milliseconds on the device.

    Returns:
        The table with overhead and scale, and with what each block takes more or less in a network in its row. With
        fewer than two networks the table as it is.

    Raises:
        NotFoundError: a network has blocks that the table does not support.
    """
    if len(measured) < 2:
        return table
    columns = {term: [_sum(table, rows, m) for m in measured] for term, rows in _terms(table).items()}
    times = [ms for _, ms in measured]
    factors = _best(columns, times)
    if len(factors) > 2:  # again, for rows that could not fall as far
        table = dataclasses.replace(table, rows={key: _in_network(key, m, factors) for key, m in table.rows.items()})
        factors = _best({BLOCKS: [_sum(table, table.rows, m) for m in measured]}, times, CHOICES[:1])
    return dataclasses.replace(table, overhead_ms=factors[""], scale=factors[BLOCKS])


def _in_network(key: BlockKey, alone: Measurement, factors: Coefficients) -> Measurement:
    """Return what a block takes in a network, before the scale."""
    more = factors.get(COUNT, 0.0) + factors.get(WEIGHTS, 0.0) * thousand_weights(key)
    return dataclasses.replace(alone, mean_ms=max(LEAST * alone.mean_ms, alone.mean_ms + more / factors[BLOCKS]))


def thousand_weights(key: BlockKey) -> float:
    """Return the weights of a block's convolutions and dense layers, in thousands."""
    return sum(op.kernel_parameters for op in key.ops) / 1000


def _terms(table: DeviceTable) -> dict[str, dict[BlockKey, Measurement]]:
    return {
        BLOCKS: dict(table.rows),
        COUNT: dict.fromkeys(table.rows, Measurement(1.0)),
        WEIGHTS: {key: Measurement(thousand_weights(key)) for key in table.rows},
    }


def _sum(table: DeviceTable, rows: Mapping[BlockKey, Measurement], measured: TimedNetwork) -> float:
    """Return a network's sum as the table will predict it, interpolation included."""
    return sum(b.ms for b in predict(dataclasses.replace(table, rows=rows), measured[0]).blocks)


def _best(columns: Columns, times: Sequence[float], choices: Sequence[tuple[str, ...]] = CHOICES) -> Coefficients:
    best = _solved(columns, times, choices[0])
    assert best
    error = _left_out(columns, times, choices[0])
    for terms in choices[1:]:
        factors = _solved(columns, times, terms)
        if factors is None or len(times) < NETWORKS_EACH * (len(terms) + 1):
            continue
        left_out = _left_out(columns, times, terms)
        if left_out < (1 - GAIN) * error:
            best, error = factors, left_out
    return best


def _left_out(columns: Columns, times: Sequence[float], terms: Sequence[str]) -> float:
    """Return the mean relative error of each network predicted from the others."""
    errors = []
    for i, ms in enumerate(times):
        others = {term: [*xs[:i], *xs[i + 1 :]] for term, xs in columns.items()}
        factors = _solved(others, [*times[:i], *times[i + 1 :]], terms)
        if factors is None:
            return float("inf")
        predicted = factors[""] + sum(factors[term] * columns[term][i] for term in terms)
        errors.append(abs(predicted / ms - 1))
    return statistics.fmean(errors)


def _solved(columns: Columns, times: Sequence[float], terms: Sequence[str]) -> Coefficients | None:
    """Return the overhead (under an empty name) and each term's factor, None if one is negative that cannot be."""
    full = {"": [1.0] * len(times), **{term: columns[term] for term in terms}}
    factors = _least_relative_errors(full, times)
    if factors[""] < 0:
        factors = {"": 0.0, **_least_relative_errors({term: columns[term] for term in terms}, times)}
    if factors[BLOCKS] <= 0 or factors.get(WEIGHTS, 0.0) < 0:
        return _proportional(columns[BLOCKS], times) if tuple(terms) == (BLOCKS,) else None
    return factors


def _proportional(sums: Sequence[float], times: Sequence[float]) -> Coefficients:
    """Return a scale alone, for networks whose times do not rise with their sums."""
    return {"": 0.0, **_least_relative_errors({BLOCKS: sums}, times)}


def _least_relative_errors(columns: Columns, times: Sequence[float]) -> dict[str, float]:
    """Return each column's factor, columns weighted by the measured times and brought to one length."""
    relative = {name: [x / ms for x, ms in zip(xs, times, strict=True)] for name, xs in columns.items()}
    sizes = {name: math.hypot(*xs) or 1.0 for name, xs in relative.items()}
    rows = [[relative[name][i] / sizes[name] for name in columns] for i in range(len(times))]
    penalties = [0.0 if name == BLOCKS else PENALTY for name in columns]
    solution = least_squares(rows, [1.0] * len(times), penalties)
    return {name: value / sizes[name] for name, value in zip(columns, solution, strict=True)}
