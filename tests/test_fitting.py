"""Fitting blocks measured alone to whole networks: against numpy, and on times with a known make-up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from conftest import TINY
from latency_tables import PHONE, table_of, time_of

from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces import SPACES
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, predict
from bignas_zoo.latency.coverage import space_blocks
from bignas_zoo.latency.profiling.fitting import fit, thousand_weights

TABLE = table_of(TINY)
CHILDREN = [uniform_child(TINY, ("fitting", i)) for i in range(60)]
OTHERS = [uniform_child(TINY, ("others", i)) for i in range(20)]


def keys(spec: ChildSpec) -> list[BlockKey]:
    return [BlockKey.of(block) for block in plan(spec)]


def total(spec: ChildSpec) -> float:
    return sum(map(time_of, keys(spec)))


def fitted(time: Callable[[ChildSpec], float], table: DeviceTable = TABLE) -> DeviceTable:
    return fit(table, [(spec, time(spec)) for spec in CHILDREN])


def test_overhead_and_scale_agree_with_numpy() -> None:
    noise = dict(zip(CHILDREN, np.random.default_rng(0).normal(1, 0.05, len(CHILDREN)), strict=True))
    table = fitted(lambda spec: (3 + 1.3 * total(spec)) * noise[spec])
    x = np.array([total(spec) for spec in CHILDREN])
    y = (3 + 1.3 * x) * np.array(list(noise.values()))
    scale, overhead = np.polyfit(x, y, 1, w=1 / y)
    assert table.scale == pytest.approx(scale)
    assert table.overhead_ms == pytest.approx(overhead)
    assert table.rows == TABLE.rows  # noise is no reason for further terms


@pytest.mark.parametrize(("each", "weight"), [(0.4, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.4, 0.05)])
def test_what_a_block_takes_more_or_less_in_a_network_is_found(each: float, weight: float) -> None:
    def time(spec: ChildSpec) -> float:
        return 2 + 1.2 * total(spec) + sum(each + weight * thousand_weights(k) for k in keys(spec))

    table = fitted(time)
    for spec in OTHERS:
        assert predict(table, spec).latency_ms == pytest.approx(time(spec), rel=1e-6)
    assert table.scale == pytest.approx(1.2, rel=1e-6)


def test_fits_are_those_of_version_0_1_0() -> None:
    """Recorded from the elimination by hand that numpy replaces."""

    def time(i: int, spec: ChildSpec) -> float:
        own = sum(0.4 + 0.05 * thousand_weights(key) for key in keys(spec))
        return (2 + 1.2 * total(spec) + own) * (1 + 0.01 * (i % 4))

    table = fit(TABLE, [(spec, time(i, spec)) for i, spec in enumerate(CHILDREN)])
    assert (table.overhead_ms, table.scale) == pytest.approx((5.208840944451125, 1.22376939433612), rel=1e-9)
    children = [uniform_child(TINY, ("adapt", i)) for i in (20, 21, 22)]
    predicted = [predict(table, spec).latency_ms for spec in children]
    assert predicted == pytest.approx([108.01366113329986, 75.89729222039338, 25.924863215866143], rel=1e-9)


def test_no_row_falls_below_zero() -> None:
    table = fitted(lambda spec: 1.2 * total(spec) - 2.0 * len(keys(spec)) + 30)
    assert min(row.mean_ms for row in table.rows.values()) > 0
    errors = [predict(table, s).latency_ms / (1.2 * total(s) - 2.0 * len(keys(s)) + 30) - 1 for s in OTHERS]
    assert max(map(abs, errors)) < 0.1


def test_an_overhead_is_never_negative() -> None:
    table = fitted(lambda spec: 1.5 * total(spec) - 0.2)
    assert table.overhead_ms == 0
    assert 1.2 < table.scale < 1.6


def test_networks_that_tell_nothing_apart_scale_the_sum() -> None:
    (spec, other) = CHILDREN[:2]
    assert fit(TABLE, []) == fit(TABLE, [(spec, 9.0)]) == TABLE
    same = fit(TABLE, [(spec, 9.0), (spec, 9.0)])
    assert (same.overhead_ms, same.scale) == (pytest.approx(0, abs=1e-4), pytest.approx(9 / total(spec), rel=1e-4))
    falling = fit(TABLE, [(spec, 1 / total(spec)), (other, 1 / total(other))])
    assert falling.scale > 0
    assert falling.overhead_ms >= 0


def test_interpolated_blocks_are_fitted_as_they_are_predicted() -> None:
    """Rows of the middle width are missing; a block's time is not a line there, yet the fit is exact."""
    bignas = SPACES["bignas-cifar10"]
    bent = {key: Measurement(time_of(key) ** 1.5) for key in space_blocks(bignas) if 224 not in (key.cin, key.cout)}
    sparse = DeviceTable("phone", PHONE, bent)
    children = [uniform_child(bignas, ("fitting", i)) for i in range(30)]
    estimates = [predict(sparse, spec) for spec in children]
    assert any(block.source == "interpolated" for e in estimates for block in e.blocks)
    measured = [(spec, 3 + 2 * e.latency_ms) for spec, e in zip(children, estimates, strict=True)]
    table = fit(sparse, measured)
    assert (table.overhead_ms, table.scale) == (pytest.approx(3), pytest.approx(2))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_weights_of_a_block_are_those_of_its_plan(name: str) -> None:
    """Kernels of the plan, without biases and batch norms."""
    for block in plan(uniform_child(SPACES[name], ("weights", 0))):
        kernels = sum(int(np.prod(op.kernel_shape)) for op in block.ops)
        assert thousand_weights(BlockKey.of(block)) == pytest.approx(kernels / 1000), block.name
