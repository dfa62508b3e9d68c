"""Latency tables: sums, bars, interpolation, what is refused; expected values by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from conftest import LAYERWISE, TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_tables import PHONE, row, table_of, time_of

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces import SPACES
from bignas_zoo.architecture.spaces.bignas import PAPER_MODELS
from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, Validation, adapt, predict
from bignas_zoo.latency.coverage import Coverage, coverage, space_blocks
from bignas_zoo.latency.interpolation import HeldOut, Index, held_out
from bignas_zoo.latency.least_squares import least_squares

SPEC = uniform_child(TINY, ("latency", 0))


def table(rows: dict[BlockKey, Measurement], **changes: object) -> DeviceTable:
    return DeviceTable("phone", PHONE, rows, **changes)  # type: ignore[arg-type]


def block(key: BlockKey, name: str = "stage1.layer1") -> Block:
    assert not key.se_hidden
    return Block(
        key.kind, name, key.size_in, key.size_out, key.cin, key.mid, key.cout, key.kernel, key.stride,
        expands=key.expands, shortcut=key.shortcut, activation=key.activation,
    )  # fmt: skip


def test_a_key_has_everything_of_a_block_that_costs_time() -> None:
    (stem, first, *_, head, classifier) = plan(
        SPACES["bignas"].spec(
            resolution=224,
            widths=[32, 16, 24, 40, 80, 112, 192, 320, 1280],
            depths=[1, 2, 2, 2, 4, 4, 1],
            kernels=[3, 3, 5, 3, 5, 5, 3],
        )
    )
    assert BlockKey.of(stem) == BlockKey("stem", 224, 112, 3, 3, 32, 3, 2, False, "none", "swish")
    # Squeeze-excite on a quarter of the block's input: 32 / 4.
    assert BlockKey.of(first) == BlockKey(
        "mbconv", 112, 112, 32, 32, 16, 3, 1, False, "project", "swish", 8, "swish", "sigmoid"
    )
    assert BlockKey.of(head) == BlockKey("head", 7, 7, 320, 320, 1280, 1, 1, False, "none", "swish")
    assert BlockKey.of(classifier) == BlockKey("classifier", 1, 1, 1280, 1280, 1000, 1, 1, False, "none", "softmax")
    assert (
        str(BlockKey.of(first))
        == "mbconv 112 px, 32 > 16, k3, squeeze-excite 8 (swish, sigmoid), swish, project shortcut"
    )


def test_a_prediction_is_overhead_and_scale_times_the_sum() -> None:
    estimate = predict(table_of(TINY, overhead_ms=3.0, scale=1.25), SPEC)
    by_hand = [1.25 * time_of(BlockKey.of(b)) for b in plan(SPEC)]
    assert [b.ms for b in estimate.blocks] == pytest.approx(by_hand)
    assert [b.name for b in estimate.blocks] == [b.name for b in plan(SPEC)]
    assert estimate.latency_ms == pytest.approx(3.0 + sum(by_hand))
    assert {b.source for b in estimate.blocks} == {"measured"}
    assert estimate.latency_ms == pytest.approx(estimate.overhead_ms + sum(b.ms for b in estimate.blocks))


def test_a_table_without_validation_has_a_bar_of_15_percent() -> None:
    estimate = predict(table_of(TINY), SPEC)
    assert estimate.low_ms == pytest.approx(0.85 * estimate.latency_ms)
    assert estimate.high_ms == pytest.approx(1.15 * estimate.latency_ms)
    assert any("never compared with whole networks" in note for note in estimate.notes)


def test_the_bar_joins_residual_spread_and_interpolation() -> None:
    one, two = row(8), row(8, kernel=5)
    low, high = row(6), row(10)  # areas 36 and 100; 8 px has area 64, the middle of 36 and 92
    checked = Validation.of([(100, 100), (102, 100), (99, 100)], "test")  # errors 0, 2 and 1 %
    assert checked.p95 == pytest.approx(0.019)  # of 0, .01, .02: .01 + .9 * .01
    plain = table({one: Measurement(10, 0.3, 5), two: Measurement(20, 0.4, 5)}, scale=2.0, validation=checked)
    estimate = predict(plain, [block(one), block(two)])
    assert estimate.latency_ms == pytest.approx(60)
    spread = 2 * 2.0 * math.hypot(0.3, 0.4)  # two deviations, scaled
    assert estimate.high_ms - 60 == pytest.approx(math.hypot(0.019 * 60, spread))
    between = table(
        {low: Measurement(36, 0, 1), high: Measurement(100, 0, 1)},
        validation=checked,
        interpolation={"area": HeldOut(9, 0.01, 0.05, 0.08)},
    )
    estimate = predict(between, [block(one)])
    assert estimate.latency_ms == pytest.approx(64)
    assert estimate.high_ms == pytest.approx(64 * (1 + 0.019 + 0.05))
    assert estimate.low_ms == pytest.approx(64 * (1 - 0.019 - 0.05))
    assert estimate.blocks[0].source == "interpolated"
    assert estimate.notes == ("1 of 1 blocks are interpolated in area",)
    never = dataclasses.replace(between, interpolation={})  # nobody held rows out: 10 %
    assert predict(never, [block(one)]).high_ms == pytest.approx(64 * (1 + 0.019 + 0.10))


def test_area_is_interpolated_along_a_line_in_the_square_of_the_side() -> None:
    index = Index({row(8): Measurement(100.0), row(16): Measurement(500.0)})
    value = index.value(row(12))
    assert value is not None
    assert value.ms == pytest.approx(np.interp(12**2, [8**2, 16**2], [100, 500]))
    assert value.along == {"area"}


def test_channels_are_interpolated_between_multiples_of_8() -> None:
    index = Index({row(width=112): Measurement(10.0), row(width=128): Measurement(14.0)})
    value = index.value(row(width=120))
    assert value is not None
    assert value.ms == pytest.approx(12.0)
    assert value.along == {"channels"}
    # A row at 116 channels, odd in steps of 8, is not used for its neighbours.
    odd = Index(
        {row(width=112): Measurement(10.0), row(width=116): Measurement(99.0), row(width=128): Measurement(14.0)}
    )
    value = odd.value(row(width=120))
    assert value is not None
    assert value.ms == pytest.approx(12.0)


def test_expanded_channels_and_outputs_are_interpolated_too() -> None:
    wide = {"shortcut": "none", "cout": 24}
    index = Index({row(mid=32, **wide): Measurement(3.0), row(mid=48, **wide): Measurement(5.0)})
    value = index.value(row(mid=40, **wide))
    assert value is not None
    assert value.ms == pytest.approx(4.0)
    index = Index({row(shortcut="none", cout=c): Measurement(ms) for c, ms in ((24, 1.0), (32, 3.0))})
    value = index.value(row(shortcut="none", cout=28))
    assert value is not None
    assert value.ms == pytest.approx(2.0)


def test_area_and_channels_together_are_a_grid() -> None:
    # f = area * width is bilinear, so that the grid gives it back exactly.
    rows = {row(s, w): Measurement(s * s * w / 100) for s in (8, 12) for w in (16, 24)}
    value = Index(rows).value(row(10, 20))
    assert value is not None
    assert value.ms == pytest.approx(10 * 10 * 20 / 100)
    assert value.along == {"area", "channels"}


@pytest.mark.parametrize(
    "missing",
    [
        row(20),  # beyond the largest map
        row(6),  # below the smallest
        row(width=32),  # beyond the widest
        row(kernel=5),
        row(activation="relu"),
        row(shortcut="project"),
        row(se_hidden=4, se_activation="swish", se_gate="sigmoid"),
        row(stride=2, size_out=4),
    ],
)
def test_nothing_is_extrapolated_or_taken_from_other_blocks(missing: BlockKey) -> None:
    rows = {row(s, w): Measurement(1.0) for s in (8, 12) for w in (16, 24)}
    assert Index(rows).value(missing) is None


def test_rows_too_far_apart_are_not_joined() -> None:
    index = Index({row(width=64): Measurement(10.0), row(width=104): Measurement(14.0)})
    assert index.value(row(width=80)) is None
    index = Index({row(8): Measurement(10.0), row(20): Measurement(14.0)})
    assert index.value(row(12)) is None


def test_missing_blocks_are_named_and_never_zero() -> None:
    plain = table_of(TINY)
    lacking = dataclasses.replace(
        plain, rows={k: m for k, m in plain.rows.items() if k.kind != "stem"}, coverage="but stems"
    )
    with pytest.raises(NotFoundError) as caught:
        predict(lacking, SPEC)
    text = str(caught.value)
    assert f"device 'phone': 1 of {len(plan(SPEC))} blocks are neither in its table nor between" in text
    assert "stem (stem " in text
    assert "It covers: but stems" in text
    included = dataclasses.replace(
        lacking, in_overhead=frozenset(k for k in plain.rows if k.kind == "stem"), overhead_ms=7
    )
    estimate = predict(included, SPEC)
    assert (estimate.blocks[0].source, estimate.blocks[0].ms) == ("in overhead", 0.0)


def test_a_bignas_child_is_refused_where_the_table_has_no_such_block() -> None:
    with pytest.raises(NotFoundError, match=r"19 of 19 blocks .* and 16 more\."):
        predict(table_of(TINY), PAPER_MODELS["bignas-m"])


def test_all_children_of_a_space_are_made_of_its_blocks() -> None:
    for space in (TINY, LAYERWISE, SPACES["bignas-cifar10"]):
        keys = space_blocks(space)
        for number in range(60):
            drawn = uniform_child(space, ("blocks", number))
            assert {BlockKey.of(b) for b in plan(drawn)} <= set(keys)
        for end in (space.smallest, space.biggest):
            assert {BlockKey.of(b) for b in plan(end)} <= set(keys)
    assert coverage(table_of(TINY), space_blocks(TINY)) == Coverage(len(space_blocks(TINY)), 0, 0)
    assert coverage(table_of(TINY), space_blocks(SPACES["bignas"], (224,))).missing == len(
        space_blocks(SPACES["bignas"], (224,))
    )


def test_held_out_rows_are_predicted_from_their_neighbours() -> None:
    exact = {row(width=w): Measurement(float(w)) for w in (64, 72, 80, 88)}
    assert held_out(exact) == {"channels": HeldOut(2, 0.0, 0.0, 0.0)}  # the ends have no neighbour
    bent = {row(width=w): Measurement(ms) for w, ms in ((64, 10.0), (72, 12.0), (80, 10.0))}
    assert held_out(bent) == {"channels": HeldOut(1, *(pytest.approx(1 / 6),) * 3)}


def test_tables_of_another_protocol_are_never_mixed() -> None:
    one, other = table({row(): Measurement(1.0)}), table({row(kernel=5): Measurement(2.0)})
    assert set(one.merged(other).rows) == {row(), row(kernel=5)}
    later = dataclasses.replace(other, protocol=dataclasses.replace(PHONE, date="2027"))
    assert len(one.merged(later).rows) == 2
    two = dataclasses.replace(other, name="fast", protocol=dataclasses.replace(PHONE, threads=4, precision="int8"))
    with pytest.raises(UsageError) as caught:
        one.merged(two)
    assert "'phone' and 'fast'" in str(caught.value)
    assert "threads 1 and 4; precision 'float32' and 'int8'" in str(caught.value)
    with pytest.raises(UsageError, match="another scale"):
        one.merged(dataclasses.replace(other, scale=2.0))


def test_a_key_has_the_operations_of_its_block() -> None:
    for seed in range(20):
        for space in (TINY, SPACES["bignas"]):
            for b in plan(uniform_child(space, ("operations", seed))):
                expected = [(op.kind, op.role, op.cin, op.cout, op.macs, op.parameters) for op in b.ops]
                ops = [(op.kind, op.role, op.cin, op.cout, op.macs, op.parameters) for op in BlockKey.of(b).ops]
                assert ops == expected


def test_validation_agrees_with_numpy() -> None:
    generator = np.random.default_rng(0)
    measured = generator.uniform(5, 50, 40)
    predicted = measured * generator.normal(1.01, 0.05, 40)
    result = Validation.of(list(zip(predicted.tolist(), measured.tolist(), strict=True)), "test")
    errors = predicted / measured - 1
    assert result.mape == pytest.approx(np.abs(errors).mean())
    assert result.within_5 == pytest.approx((np.abs(errors) <= 0.05).mean())
    assert result.within_10 == pytest.approx((np.abs(errors) <= 0.1).mean())
    assert result.p95 == pytest.approx(np.percentile(np.abs(errors), 95))
    assert result.worst == pytest.approx(np.abs(errors).max())
    assert result.bias == pytest.approx(errors.mean())
    assert result.r == pytest.approx(np.corrcoef(predicted, measured)[0, 1])
    order = [np.argsort(np.argsort(v)) for v in (predicted, measured)]
    assert result.rank == pytest.approx(np.corrcoef(*order)[0, 1])


def test_validation_of_few_networks() -> None:
    one = Validation.of([(11.0, 10.0)], "test")
    assert (one.mape, one.p95, one.worst, one.r, one.rank) == (
        pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), None, None,
    )  # fmt: skip
    tied = Validation.of([(1.0, 1.0), (1.0, 2.0), (2.0, 3.0)], "test")
    assert tied.rank == pytest.approx(np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_least_squares_solve_the_normal_equations(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, right, penalties = generator.normal(size=(size + 3, size)), generator.normal(size=size + 3), [0.01] * size
    expected = np.linalg.solve(rows.T @ rows + np.diag(penalties), rows.T @ right)
    assert least_squares(rows.tolist(), right.tolist(), penalties) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_least_squares_penalise_each_unknown_by_its_own_weight() -> None:
    # Of (x - 1)^2 + (y - 1)^2 + 3 y^2 the least is at x = 1, y = 1 / (1 + 3).
    assert least_squares([[1, 0], [0, 1]], [1, 1], [0, 3]) == pytest.approx([1, 0.25])
    assert least_squares([[1], [1]], [1, 3]) == pytest.approx([2])


CHILDREN = [uniform_child(TINY, ("adapt", i)) for i in range(30)]


def test_one_network_scales_everything() -> None:
    base = table_of(TINY, overhead_ms=1.0)
    new = adapt(base, [(SPEC, 3 * predict(base, SPEC).latency_ms)], name="other")
    assert new.name == "other"
    for child in CHILDREN:
        assert predict(new, child).latency_ms == pytest.approx(3 * predict(base, child).latency_ms, rel=1e-6)
    assert new.validation is None
    assert "Adapted from 'phone' by 1 measured networks" in new.note


def test_many_networks_find_the_factor_of_each_kind() -> None:
    base = table_of(TINY, overhead_ms=1.0)
    factors = {"stem": 1.5, "head": 1.5, "classifier": 1.5, "mbconv k3": 1.5, "mbconv k5": 3.0}

    def true(child: ChildSpec) -> float:
        estimate = predict(base, child)
        kinds = [f"mbconv k{b.key.kernel}" if b.key.kind == "mbconv" else b.key.kind for b in estimate.blocks]
        return 1.5 * estimate.overhead_ms + sum(factors[k] * b.ms for k, b in zip(kinds, estimate.blocks, strict=True))

    new = adapt(base, [(child, true(child)) for child in CHILDREN[:20]])
    errors = [abs(predict(new, child).latency_ms / true(child) - 1) for child in CHILDREN[20:]]
    assert max(errors) < 0.02
    one_factor = [abs(predict(base, c).latency_ms * 1.9 / true(c) - 1) for c in CHILDREN[20:]]
    assert max(errors) < max(one_factor) / 3
    assert new.validation is not None
    assert new.validation.networks == 20
    assert new.scale == 1.0


def test_what_each_block_takes_more_is_found() -> None:
    """As on a GPU at batch 1, where launches take most of the time: half the speed, and 5 ms a block."""
    base = table_of(TINY)

    def true(child: ChildSpec) -> float:
        return 0.5 * predict(base, child).latency_ms + 5 * len(plan(child))

    new = adapt(base, [(child, true(child)) for child in CHILDREN[:10]])
    assert max(abs(predict(new, child).latency_ms / true(child) - 1) for child in CHILDREN[10:]) < 0.01
    alone = adapt(base, [(child, 5.0 * len(plan(child))) for child in CHILDREN[:10]])
    errors = [abs(predict(alone, child).latency_ms / (5 * len(plan(child))) - 1) for child in CHILDREN[10:]]
    assert max(errors) < 0.1  # a factor has a least value


def test_adaptations_are_those_of_version_0_1_0() -> None:
    """Recorded from the elimination by hand that numpy replaces."""
    base = table_of(TINY, overhead_ms=1.0)
    times = [
        (1.3 + 0.1 * (i % 3)) * predict(base, child).latency_ms + 0.2 * len(plan(child))
        for i, child in enumerate(CHILDREN[:20])
    ]
    new = adapt(base, list(zip(CHILDREN, times, strict=False)))
    predicted = [predict(new, child).latency_ms for child in CHILDREN[20:23]]
    assert predicted == pytest.approx([116.98360084196958, 81.84579141164524, 24.092495568628568], rel=1e-9)
    assert new.overhead_ms == pytest.approx(1.346390498149923, rel=1e-9)
    assert new.validation is not None
    assert new.validation.mape == pytest.approx(0.051160529766618335, rel=1e-9)


def test_adapt_refuses_nonsense() -> None:
    with pytest.raises(UsageError, match="at least one measured network"):
        adapt(table_of(TINY), [])
    for ms in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="milliseconds above zero"):
            adapt(table_of(TINY), [(SPEC, ms)])
