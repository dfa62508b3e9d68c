"""Elastic pieces, slicing, calibration, weights files and preprocessing, each against numpy."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import LAYERWISE, LAYERWISE_CHILD, TINY
from PIL import Image
from safetensors.numpy import load_file, save_file

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.models import elastic, squeeze_excite
from bignas_zoo.models.batch_norm import batch_norm
from bignas_zoo.models.calibration import calibrate, population_moments
from bignas_zoo.models.child import build_child, get_weights, set_weights
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.preprocess import Preprocess, read_image, resize
from bignas_zoo.models.slicing import child_shapes, slice_weights
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.models.weights import read_metadata, read_weights, write_weights


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def depthwise_numpy(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """ "same" depthwise convolution as TensorFlow defines it, by explicit loops."""
    n, size, k = x.shape[0], x.shape[1], kernel.shape[0]
    out = -(-size // stride)
    total = max((out - 1) * stride + k - size, 0)
    padded = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2), (0, 0)))
    y = np.zeros((n, out, out, x.shape[-1]), np.float64)
    for i in range(out):
        for j in range(out):
            window = padded[:, i * stride : i * stride + k, j * stride : j * stride + k]
            y[:, i, j] = (window * kernel[None, :, :, :, 0]).sum((1, 2))
    return y


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("how", ["static", "where", "cond"])
def test_depthwise_uses_the_centre_of_the_shared_kernel(size: int, stride: int, kernel: int, how: str) -> None:
    import tensorflow as tf

    x, shared = normal(2, size, size, 4), normal(5, 5, 4, 1, seed=1)
    centre = shared[1:4, 1:4] if kernel == 3 else shared
    choice = kernel if how == "static" else tf.constant(kernel)
    for form in elastic.DEPTHWISE:
        execution = Execution(depthwise=form, branch="where" if how == "static" else how)
        actual = elastic.depthwise(x, shared, 4, choice, stride, execution)
        np.testing.assert_allclose(actual, depthwise_numpy(x, centre, stride), atol=1e-5)


@pytest.mark.parametrize("part", ["batch_norm", "depthwise", "branch"])
def test_an_unknown_form_is_refused_with_the_known_ones(part: str) -> None:
    with pytest.raises(UsageError, match=f"{part}: must be one of"):
        Execution(**{part: "fast"})


@pytest.mark.parametrize("channels", [8, 16, 24])
@pytest.mark.parametrize("size", [8, 16, 24])
@pytest.mark.parametrize("cout", [8, 16, 24])
def test_identity_cuts_channels_or_appends_zeros(channels: int, size: int, cout: int) -> None:
    import tensorflow as tf

    x = normal(2, 3, 3, channels)
    expected = np.zeros((2, 3, 3, size), np.float32)
    kept = min(channels, size, cout)
    expected[..., :kept] = x[..., :kept]
    np.testing.assert_array_equal(elastic.identity(x, size, tf.constant(cout)), expected)
    if size == cout:
        np.testing.assert_array_equal(elastic.identity(x, size, cout), expected)


def test_traced_batch_norm_leaves_nothing_of_beta_in_unused_channels() -> None:
    import tensorflow as tf

    x, gamma, beta = normal(4, 3, 3, 6), np.full(6, 2, "f4"), np.full(6, 5, "f4")
    for form in ("fused", "two_pass", "one_pass"):
        y, moments = batch_norm(x, *(elastic.channels(v, tf.constant(4)) for v in (gamma, beta)), 1e-3, form)
        expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * 2 + 5
        np.testing.assert_allclose(y[..., :4], expected[..., :4], atol=1e-4)
        assert not np.asarray(y)[..., 4:].any()
        np.testing.assert_allclose(moments.variance, x.var((0, 1, 2)), rtol=1e-5)  # population, not sample


def test_squeeze_excite_against_numpy() -> None:
    x = normal(2, 3, 3, 4)
    w1, b1, w2, b2 = normal(4, 2, seed=1), normal(2, seed=2), normal(2, 4, seed=3), normal(4, seed=4)
    hidden = np.maximum(x.mean((1, 2)) @ w1 + b1, 0)
    gate = np.clip((hidden @ w2 + b2) / 6 + 0.5, 0, 1)  # hard sigmoid: relu6(x + 3) / 6
    used = squeeze_excite.gate_weights((w1, b1), (w2, b2), 4, 2)

    def gate_of(pooled):
        return squeeze_excite.gate(pooled, *used, "relu", "hard_sigmoid")

    np.testing.assert_allclose(squeeze_excite.scale_by(x, gate_of), x * gate[:, None, None], atol=1e-6)
    pair = squeeze_excite.scale_by(elastic.packed(x, 1, 2), gate_of, pack=2)
    np.testing.assert_allclose(elastic.packed(pair, 2, 1), x * gate[:, None, None], atol=1e-6)


def test_packed_images_lie_side_by_side_in_the_channels() -> None:
    x = normal(4, 3, 3, 5)
    pairs = np.asarray(elastic.packed(x, 1, 2))
    np.testing.assert_array_equal(pairs, np.stack([np.concatenate([x[i], x[i + 1]], -1) for i in (0, 2)]))
    np.testing.assert_array_equal(elastic.packed(pairs, 2, 4)[0], np.concatenate(x, -1))
    np.testing.assert_array_equal(elastic.packed(elastic.packed(pairs, 2, 4), 4, 1), x)


def test_operations_on_packed_images_are_those_on_single_ones() -> None:
    x, k, kd, gamma, beta = normal(4, 6, 6, 5), normal(3, 3, 5, 7), normal(5, 5, 5, 1), normal(5), normal(5, seed=1)

    def both(run):
        return run(x, 1), elastic.packed(run(elastic.packed(x, 1, 4), 4), 4, 1)

    how = elastic.Execution()
    for one, four in (
        both(lambda x, pack: elastic.conv(x, k, 5, 7, 2, pack)),
        both(lambda x, pack: elastic.depthwise(x, kd, 5, 3, 2, how, pack)),
        both(lambda x, pack: batch_norm(x, gamma[:5], beta[:5], 1e-3, "two_pass", pack)[0]),
    ):
        np.testing.assert_allclose(four, one, atol=1e-5)


def test_slicing_takes_the_front_of_channels_and_the_centre_of_kernels() -> None:
    weights = initial_weights(TINY, 0)
    child = slice_weights(weights, TINY.smallest)
    np.testing.assert_array_equal(child["stem.kernel"], weights["stem.kernel"][..., :8])
    np.testing.assert_array_equal(
        child["stage2.layer1.depthwise.kernel"], weights["stage2.layer1.depthwise.kernel"][1:4, 1:4, :16]
    )
    np.testing.assert_array_equal(child["classifier.kernel"], weights["classifier.kernel"][:32])
    assert not any(name.startswith("stage2.layer2") for name in child)
    assert {k: v.shape for k, v in child.items()} == child_shapes(TINY.smallest, statistics=False)


def test_slicing_follows_the_width_of_the_layer_before() -> None:
    weights = initial_weights(LAYERWISE, 0)
    spec = LAYERWISE_CHILD
    child = slice_weights(weights, spec)
    for name, rows, columns in (
        ("stage1.layer2.project", 8, 16),
        ("stage2.layer1.expand", 16, 32),
        ("stage2.layer2.expand", 24, 48),
        ("stage2.layer3.expand", 16, 32),
        ("stage2.layer3.project", 32, 16),
        ("stage3.layer1.shortcut", 16, 32),
        ("stage4.layer1.shortcut", 16, 24),
    ):
        np.testing.assert_array_equal(child[f"{name}.kernel"], weights[f"{name}.kernel"][:, :, :rows, :columns])
    assert child["stage2.layer2.squeeze.kernel"].shape == (48, 6)  # a quarter of this layer's own input
    assert {k: v.shape for k, v in child.items()} == child_shapes(spec, statistics=False)


def test_child_cuts_and_pads_its_identity_shortcuts() -> None:
    spec = LAYERWISE_CHILD
    child = build_child(spec)
    changed = {layer.name: layer.output.shape for layer in child.layers if layer.name.endswith((".crop", ".pad"))}
    assert changed == {
        "stage1.layer2.shortcut.pad": (None, 12, 12, 16),
        "stage2.layer2.shortcut.crop": (None, 6, 6, 16),
        "stage3.layer2.shortcut.crop": (None, 3, 3, 16),
    }
    for name in ("stage1.layer2.shortcut.pad", "stage2.layer2.shortcut.crop"):
        layer = child.get_layer(name)
        x, y = keras.Model(child.input, [layer.input, layer.output])(normal(2, 12, 12, 3))
        kept = min(x.shape[-1], y.shape[-1])
        np.testing.assert_array_equal(y[..., :kept], x[..., :kept])
        assert not np.asarray(y)[..., kept:].any()


def test_the_biggest_child_is_the_full_weights() -> None:
    weights = initial_weights(TINY, 0)
    child = slice_weights(weights, TINY.biggest)
    assert child.keys() == weights.keys()
    assert all(np.array_equal(child[k], weights[k]) for k in weights)


def test_slicing_names_a_missing_weight() -> None:
    weights = initial_weights(TINY, 0)
    del weights["head.kernel"]
    with pytest.raises(IntegrityError, match="'head.kernel' is missing"):
        slice_weights(weights, TINY.smallest)


def keras_macs(model: keras.Model) -> int:
    """Count multiply-adds from the built layers' own kernels and output maps."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            total += int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
        elif isinstance(layer, keras.layers.Dense):
            total += int(np.prod(layer.kernel.shape))
    return total


@pytest.mark.parametrize("space", [TINY, LAYERWISE], ids=lambda s: s.name)
@pytest.mark.parametrize("index", range(4))
def test_plan_counts_what_the_built_child_has(index: int, space: SearchSpace) -> None:
    spec = uniform_child(space, ("count", index), space.all_resolutions[index])
    child = build_child(spec)
    assert keras_macs(child) == cost.macs(spec)
    assert child.count_params() == cost.parameters(spec)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bignas-s", "bignas-xl"])
def test_paper_models_built_in_keras_have_the_published_size(name: str) -> None:
    from bignas_zoo.architecture.spaces.bignas import PAPER_MODELS

    published = {"bignas-s": (241.949, 4_518_116), "bignas-xl": (1036.682, 9_462_992)}[name]
    child = build_child(PAPER_MODELS[name])
    assert round(keras_macs(child) / 1e6, 3) == published[0]
    assert child.count_params() == published[1]


def test_population_moments_against_numpy() -> None:
    x = normal(50, 4, 3, 5) * 3 + 100  # a mean far from zero: a difference of squares would cancel
    mean, variance = population_moments([x[:7], x[7:8], x[8:]])
    np.testing.assert_allclose(mean, x.astype("f8").mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype("f8").var((0, 1, 2)), rtol=1e-5)


def calibrated(spec, weights, chunks):
    child = build_child(spec)
    set_weights(child, spec, slice_weights(weights, spec), calibrated=False)
    calibrate(child, chunks)
    return child


def test_calibration_refuses_a_layer_that_reads_past_its_block() -> None:
    import keras
    from keras import layers

    x = images = keras.Input((8, 8, 3))
    x = stem = layers.Conv2D(4, 1, name="stem")(x)
    x = layers.Conv2D(4, 1, name="stage1.layer1.expand")(x)
    x = layers.Conv2D(4, 1, name="stage1.layer2.expand")(x)
    x = layers.BatchNormalization(name="stage1.layer2.expand.bn")(layers.Add(name="stage1.layer2.add")([x, stem]))
    with pytest.raises(UsageError, match=r"stage1.layer2.add' takes more than what the block before it gives"):
        calibrate(keras.Model(images, x), [normal(64, 8, 8, 3)])


def test_calibration_does_not_depend_on_the_batch_split() -> None:
    spec = uniform_child(TINY, ("split",), 14)
    weights = initial_weights(TINY, 1, last_gamma=1.0)
    x = normal(100, 14, 14, 3)
    splits = ([x], [x[:99], x[99:]], [x[i : i + 13] for i in range(0, 100, 13)], [x[::-1]])
    stored = [get_weights(calibrated(spec, weights, s), spec) for s in splits]
    for other in stored[1:]:
        for name, value in stored[0].items():
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5 * max(1e-3, np.abs(value).max()))


def test_calibrated_statistics_are_the_moments_of_each_layers_input() -> None:
    spec = TINY.smallest
    child = calibrated(spec, initial_weights(TINY, 1, last_gamma=1.0), [normal(80, 12, 12, 3)])
    norms = [layer for layer in child.layers if isinstance(layer, keras.layers.BatchNormalization)]
    probe = keras.Model(child.input, [n.input for n in norms])
    for norm, x in zip(norms, probe(normal(80, 12, 12, 3), training=False), strict=True):
        x = np.asarray(x, np.float64)
        np.testing.assert_allclose(norm.moving_mean, x.mean((0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, x.var((0, 1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("count", "size", "text"), [(63, 12, "63 images are too few"), (80, 13, "shape")])
def test_calibration_refuses_too_few_or_misshapen_images(count: int, size: int, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        calibrate(build_child(TINY.smallest), [normal(count, size, size, 3)])


def test_set_weights_refuses_nan_and_wrong_shapes() -> None:
    spec = TINY.smallest
    child, weights = build_child(spec), slice_weights(initial_weights(TINY, 0), spec)
    with pytest.raises(IntegrityError, match="not numbers"):
        set_weights(child, spec, {**weights, "classifier.bias": np.full(5, np.nan, "f4")}, calibrated=False)
    with pytest.raises(IntegrityError, match="expected"):
        set_weights(child, spec, {**weights, "classifier.bias": np.zeros(6, "f4")}, calibrated=False)
    with pytest.raises(IntegrityError, match="missing weights"):  # statistics expected, none given
        set_weights(child, spec, weights)
    with pytest.raises(IntegrityError, match="unknown weights"):
        set_weights(child, spec, {**weights, "extra": np.zeros(6, "f4")}, calibrated=False)


def test_weights_files_are_plain_safetensors(tmp_path: Path) -> None:
    arrays = {"a": normal(3, 2), "b": np.array(7, np.int64), "c": normal(4).astype(np.float16)}
    write_weights(tmp_path / "w.safetensors", arrays, {"note": "x"})
    theirs = load_file(tmp_path / "w.safetensors")
    ours = read_weights(tmp_path / "w.safetensors")
    for name, value in arrays.items():
        assert theirs[name].dtype == ours[name].dtype == value.dtype
        assert theirs[name].shape == ours[name].shape == value.shape
        np.testing.assert_array_equal(ours[name], value)
    assert read_metadata(tmp_path / "w.safetensors") == {"note": "x"}


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 40, 100, -1])
def test_damaged_weights_are_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"a": normal(30, 2), "b": normal(5)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(IntegrityError, match="damaged"):
        read_weights(path)


def test_foreign_types_and_missing_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(3, np.float64)}, tmp_path / "w.safetensors")
    with pytest.raises(IntegrityError, match="F64"):
        read_weights(tmp_path / "w.safetensors")
    with pytest.raises(LocalIOError, match="no such file"):
        read_weights(tmp_path / "none.safetensors")


CONTRACT = Preprocess(32, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7))


def test_normalise_by_hand() -> None:
    pixels = np.array([[[[125, 185, 0]]]], np.uint8)
    expected = [(125 - 125.3) / 63.0, (185 - 123.0) / 62.1, (0 - 113.9) / 66.7]
    np.testing.assert_allclose(np.asarray(CONTRACT.normalise(pixels)).ravel(), expected, atol=1e-6)


@pytest.mark.parametrize("size", [20, 27, 48])
def test_resize_is_pillows_bicubic(size: int) -> None:
    # Pillow resizes single float channels ("F") without rounding: an independent bicubic with antialiasing.
    image = np.random.default_rng(0).uniform(0, 255, (32, 32)).astype("f4")
    expected = np.asarray(Image.fromarray(image, "F").resize((size, size), Image.Resampling.BICUBIC))
    actual = np.asarray(resize(np.repeat(image[None, :, :, None], 3, -1), size))
    np.testing.assert_allclose(actual[0, :, :, 0], expected, atol=0.01)


def test_resize_to_the_same_size_changes_nothing() -> None:
    x = normal(2, 16, 16, 3)
    assert resize(x, 16) is x


def test_read_image_cuts_the_centre_square(tmp_path: Path) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 32), pixels[:, 16:48])
    assert read_image(tmp_path / "a.png", 24).shape == (24, 24, 3)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_unreadable_images_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"a\.png"):
        read_image(tmp_path / "a.png", 32)


def test_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(IntegrityError, match="damaged image"):
        read_image(path, 32)


def test_contract_round_trip_and_refusals() -> None:
    assert Preprocess.from_json(CONTRACT.to_json()) == CONTRACT
    with pytest.raises(IntegrityError, match="std"):
        Preprocess.from_json({"crop_size": 32, "mean": [0, 0, 0]})
    with pytest.raises(IntegrityError, match="above zero"):
        Preprocess.from_json({"crop_size": 32, "mean": [0, 0, 0], "std": [1, 0, 1]})
