"""Make an export of a slice folder and prove it: against the Keras child, and on labelled images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bignas_zoo.architecture.cost import arena, macs
from bignas_zoo.errors import UsageError
from bignas_zoo.export.gates import Accuracy
from bignas_zoo.export.parity import Parity, compare
from bignas_zoo.files import names, store
from bignas_zoo.files.formats import Export
from bignas_zoo.files.records import UNKNOWN
from bignas_zoo.models.preprocess import Preprocess, resize_arrays
from bignas_zoo.models.weighted import WeightedNetwork
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.data.sample import Sample, read_sample
from bignas_zoo.runtime.extras import has_keras
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.cutting import built
from bignas_zoo.zoo import slice_folder

if TYPE_CHECKING:
    import keras

#: Images that a file is compared on; random ones where there are no others.
COMPARED, RANDOM = 256, 64
#: Pixels that the Keras child is given at once (100 images of 32 px; a layer's activations are all in memory), and that
#: a file is given in one go.
PIXELS_AT_ONCE, INPUTS_AT_ONCE = 102_400, 20_480_000
#: Multiply-adds that numpy computes in ten seconds or so; loading TensorFlow takes as long.
MOST_IN_NUMPY = 30 * 10**9
LEAST_COMPARED = 16
#: Bytes of an arena that pixels cost: three operators more (571 and 535 under tflite-micro, two networks).
UINT8_ENDS = 600
#: The float file of every slice folder.
PLAIN = Export()
RANDOM_INPUTS = "random inputs (seed 0)"


@dataclass(frozen=True)
class Subject:
    """A slice folder's network, with images to prove its exports on.

    Attributes:
        folder: the slice folder.
        plain: the network and its weights.
        description: the content of slice.json.
        preprocess: the input contract.
        sample: real images, or None.
        first_classes: what the child says of the test images, kept for the next export; by whether pixels were rounded.
    """

    folder: Path
    plain: WeightedNetwork
    description: Mapping[str, Any]
    preprocess: Preprocess
    sample: Sample | None
    first_classes: dict[bool, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def resolution(self) -> int:
        """Side of the input in pixels."""
        return self.plain.network.resolution

    @functools.cached_property
    def child(self) -> keras.Model:
        """The same as a Keras model, built on first use."""
        return built(self.plain)

    @property
    def weights_sha256(self) -> str:
        """Of the weights that the child has."""
        return str(self.description["files"][names.WEIGHTS]["sha256"])

    @property
    def inputs(self) -> str:
        """What the images are, in words."""
        return self.sample.source if self.sample else RANDOM_INPUTS


@dataclass(frozen=True)
class Proof:
    """How an export was proven; see `Parity`, `Accuracy` and `Sample`.

    Attributes:
        parity: against the Keras child.
        accuracy: of both on labelled images, or None.
        ranges: the images that int8 ranges come from, or None.
        input, output: what the file takes and gives, in words that a programmer can follow.
    """

    parity: Parity
    accuracy: Accuracy | None
    ranges: Mapping[str, Any] | None
    input: Mapping[str, Any]
    output: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "input": dict(self.input),
            "output": dict(self.output),
            "parity": self.parity.to_json(),
            "accuracy": self.accuracy.to_json() if self.accuracy else None,
            "ranges": dict(self.ranges) if self.ranges else None,
        }


def open_sample(
    folder: Path, images: str | Path | None, test_data: str | Path | None, say: Callable[[str], None]
) -> Sample | None:
    """Read the images that a slice folder's exports are to be proven on, None if none are named.

    Raises:
        UsageError, IntegrityError, LocalIOError: slice.json or an image is damaged or unreadable, see `read_sample`.
    """
    place = images if images is not None else test_data
    if place is None:
        return None
    _, description = slice_folder.describe(folder)
    preprocess = Preprocess.from_json(description["preprocess"])
    say(f"reading images from {place}")
    return read_sample(place, test_data, preprocess, tuple(description["class_names"]))


def open_subject(folder: Path, sample: Sample | None) -> Subject:
    """Load a slice folder's network.

    Raises:
        IntegrityError, LocalIOError: the folder is damaged or cannot be read.
    """
    description, plain = slice_files.read_plain(folder)
    return Subject(folder, plain, description, Preprocess.from_json(description["preprocess"]), sample)


def make(subject: Subject, option: Export, folder: Path) -> Path:
    """Convert the child into a file (or a SavedModel's folder) inside `folder`; return its path.

    Raises:
        UsageError: too few images for int8.
        QualityError: the conversion failed.
    """
    path = folder / option.file
    if option.file == names.TFLITE:  # there already, and recorded in slice.json
        store.copy(subject.folder / names.TFLITE, path)
        return path
    preprocess = subject.preprocess if option.takes_pixels else None
    images = _ranges(subject, option) if option.precision == "int8" else None
    if option.format == "tflite":
        from bignas_zoo.export import tflite

        info = slice_files.file_info(subject.description, pixels=option.takes_pixels)
        store.atomic_write(path, tflite.convert(subject.plain, option, preprocess=preprocess, images=images, info=info))
    elif option.format == "onnx":
        from bignas_zoo.export import onnx

        data = onnx.convert(
            subject.plain, layout=option.layout, precision=option.precision, preprocess=preprocess, images=images,
            properties=_properties(subject, option),
        )  # fmt: skip
        store.atomic_write(path, data)
    elif option.format == "c":
        _make_c_source(subject, option, path, images, preprocess)
    elif option.format == "keras":
        from bignas_zoo.export.keras_formats import to_keras

        to_keras(subject.child, path)
    else:
        from bignas_zoo.export.keras_formats import to_saved_model

        to_saved_model(subject.child, path, preprocess=preprocess)
    return path


def _make_c_source(
    subject: Subject, option: Export, path: Path, images: np.ndarray | None, preprocess: Preprocess | None
) -> None:
    from bignas_zoo.export import tflite
    from bignas_zoo.export.c_source import Facts, c_source

    file = Export("tflite", option.precision, io=option.io)
    contract = subject.preprocess
    facts = Facts(
        name=str(subject.description["name"]),
        license=str(subject.description.get("license") or UNKNOWN),
        arena_bytes=arena(subject.plain.network) + (UINT8_ENDS if option.io == "uint8" else 0),
        side=subject.resolution,
        labels=subject.description["class_names"],
        mean=contract.mean,
        std=contract.std,
    )
    path.mkdir()
    # Without metadata: it would take flash, and the source says the same.
    source = c_source(tflite.convert(subject.plain, file, preprocess=preprocess, images=images), facts)
    for name, data in source.items():
        store.atomic_write(path / name, data)


def prove(subject: Subject, option: Export, path: Path) -> Proof:
    """Run a file and its child on the same images.

    Returns:
        The report; it passes no judgement (see `bignas_zoo.export.gates`).
    """
    pixels = _compared(subject, option)
    logits, scores, runtime = _both(subject, option, path, pixels)
    coarse = option.precision == "int8" and option.format in ("tflite", "c")
    parity = compare(logits, scores, inputs=subject.inputs, runtime=runtime, coarse=coarse)
    ranges = subject.sample.to_json() if subject.sample and option.precision == "int8" else None
    return Proof(parity, _accuracy(subject, option, path), ranges, *_ends(subject, option))


def _compared(subject: Subject, option: Export) -> np.ndarray:
    """Return the pixel values to compare on, ``[n, resolution, resolution, 3]`` float32."""
    if subject.sample:
        crops = subject.sample.compared
        return _pixels(crops[evenly(len(crops), _most_compared(subject))], subject.resolution, option)
    shape = (RANDOM, subject.resolution, subject.resolution, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def _most_compared(subject: Subject) -> int:
    """Return how many images to compare on: without Keras, what numpy computes in a while."""
    return COMPARED if has_keras() else min(COMPARED, max(LEAST_COMPARED, MOST_IN_NUMPY // macs(subject.plain.network)))


def _pixels(crops: np.ndarray, resolution: int, option: Export) -> np.ndarray:
    """Resize crops as an app does; a file that takes bytes gets whole values."""
    resized = resize_arrays(crops.astype(np.float32), resolution)
    return np.clip(np.round(resized), 0, 255) if option.io == "uint8" else resized


def given_to(subject: Subject, option: Export, pixels: np.ndarray) -> np.ndarray:
    """Turn pixel values into what a file takes."""
    values = pixels if option.takes_pixels else np.asarray(subject.preprocess.normalise(pixels))
    return values.transpose(0, 3, 1, 2) if option.layout == "nchw" else values


def _ranges(subject: Subject, option: Export) -> np.ndarray:
    if subject.sample is None:
        raise UsageError("export: int8 needs real images, to find ranges: name a folder of them with --images.")
    crops = subject.sample.training
    parts = [_pixels(part, subject.resolution, option) for part in np.array_split(crops, max(1, len(crops) // 250))]
    pixels = np.concatenate(parts)
    return pixels if option.takes_pixels else np.asarray(subject.preprocess.normalise(pixels))


def _both(subject: Subject, option: Export, path: Path, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the child's logits, the file's scores, and what ran it."""
    logits = child_logits(subject, pixels)
    scores, runtime = run_export(option, path, given_to(subject, option, pixels))
    return logits, scores, runtime


def child_logits(subject: Subject, pixels: np.ndarray) -> np.ndarray:
    """Return the network's logits of resized pixel values, ``[n, classes]``; by Keras where numpy takes long."""
    normalise = subject.preprocess.normalise
    if _cheap(subject, len(pixels)) or not has_keras():
        return subject.plain.logits(normalise(pixels))
    return _in_parts(lambda part: subject.child(normalise(part), training=False), pixels)


def _cheap(subject: Subject, images: int) -> bool:
    """Return whether numpy computes so many images in a while."""
    return images * macs(subject.plain.network) <= MOST_IN_NUMPY


def _first_classes(subject: Subject, pixels: np.ndarray) -> np.ndarray:
    """Return what the network says of many images; without Keras by its float file, which numpy has proven."""
    if _cheap(subject, len(pixels)) or has_keras():
        logits = child_logits(subject, pixels)
    else:
        logits, _ = run_export(PLAIN, subject.folder / names.TFLITE, given_to(subject, PLAIN, pixels))
    return np.asarray(logits.argmax(-1))


def _in_parts(model: Callable[[np.ndarray], Any], images: np.ndarray) -> np.ndarray:
    """Call a model on images ``[n, height, width, 3]`` part by part: activations of all take gigabytes."""
    size = max(1, PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    return np.concatenate([np.asarray(model(images[i : i + size])) for i in range(0, len(images), size)])


def run_export(option: Export, path: Path, inputs: np.ndarray) -> tuple[np.ndarray, str]:
    """Run an exported file as an app does, in a process of its own without TensorFlow where the format allows it.

    Args:
        option: what it is.
        path: the file, or a SavedModel's folder.
        inputs: ``[n, ...]`` float32, as the file takes them before any quantising.

    Returns:
        Scores ``[n, classes]`` float32, and the runtime in words.
    """
    if option.format in ("tflite", "onnx"):
        from bignas_zoo.runtime.runner import LoadedFile

        with LoadedFile(path) as file:
            return file.run(inputs), file.ends.runtime
    if option.format == "c":
        from bignas_zoo.export.c_source import SOURCE, array_of

        with store.scratch_folder() as place:
            store.atomic_write(place / names.TFLITE, array_of((path / SOURCE).read_bytes()))
            return run_export(Export("tflite"), place / names.TFLITE, inputs)
    if option.format == "keras":
        from bignas_zoo.models.backend import keras

        model = keras.saving.load_model(path, compile=False)
        logits = _in_parts(lambda part: model(part, training=False), inputs).astype(np.float64)
        top = np.exp(logits - logits.max(-1, keepdims=True))
        return top / top.sum(-1, keepdims=True), f"keras {keras.version()}"
    import tensorflow as tf

    signature = tf.saved_model.load(str(path)).signatures["classify"]
    scores = _in_parts(lambda part: signature(tf.constant(part, tf.float32))["scores"], inputs)
    return scores, f"tensorflow {tf.__version__}"


def _accuracy(subject: Subject, option: Export, path: Path) -> Accuracy | None:
    test = subject.sample.test if subject.sample else None
    if test is None:
        return None
    rounded = option.io == "uint8"
    known, said, ours = rounded in subject.first_classes, [], 0
    batch = max(1, INPUTS_AT_ONCE // subject.resolution**2)
    for start in range(0, len(test), batch):
        part = test.take(slice(start, start + batch))
        pixels = _pixels(part.pixels, subject.resolution, option)
        scores, _ = run_export(option, path, given_to(subject, option, pixels))
        ours += int((scores.argmax(-1) == part.labels).sum())
        if not known:
            said.append(_first_classes(subject, pixels))
    if not known:
        subject.first_classes[rounded] = np.concatenate(said)
    right, count = int((subject.first_classes[rounded] == test.labels).sum()), len(test)
    return Accuracy(100 * right / count, 100 * ours / count, count, test.source)


def _ends(subject: Subject, option: Export) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe input and output."""
    side = subject.resolution
    batch: int | str = option.batch if option.format in ("tflite", "c") else "batch"
    shape = [batch, 3, side, side] if option.layout == "nchw" else [batch, side, side, 3]
    contract = subject.preprocess.to_json()
    given: dict[str, Any] = {
        "name": "image",
        "shape": shape,
        "dtype": option.io,
        "channels": contract["channels"],
        "crop_size": contract["crop_size"],
        "crop_fraction": subject.preprocess.crop_fraction,
        "resize": contract["resize"],
        "values": "pixels 0 to 255" if option.takes_pixels else "(pixel - mean) / std",
    }
    if not option.takes_pixels:
        given |= {"mean": contract["mean"], "std": contract["std"]}
    what = "logits" if option.format == "keras" else "softmax scores"
    classes = len(subject.description["class_names"])
    return given, {"name": "scores", "shape": [batch, classes], "dtype": option.io, "values": what}


def _properties(subject: Subject, option: Export) -> dict[str, str]:
    """Return what an ONNX file says of itself."""
    from bignas_zoo.export.properties import properties

    info = slice_files.file_info(subject.description)
    return properties(
        name=info.name, description=info.description, version=info.version, author=info.author, license=info.license,
        class_names=info.class_names, preprocess=subject.preprocess, resolution=subject.resolution,
        normalised_in_graph=option.normalize_in_graph, provenance=subject.description.get("provenance"),
    )  # fmt: skip
