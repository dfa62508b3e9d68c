"""The family that training on one's own photographs starts from: EfficientNet-Lite0, made elastic.

A classifier of one's own classes is fitted to its features, its channels are sorted by importance, and each child that
is to be trained gets statistics matched to the whole network's. What comes out is a family like any other: shared
weights, and slices with statistics, which the training method `matched-sandwich` takes its children from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import variant
from bignas_zoo.architecture.spaces.photos import PHOTOS
from bignas_zoo.files import names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.measure.evaluate import batch_for
from bignas_zoo.models.backend import keras
from bignas_zoo.models.child import build_child, set_weights
from bignas_zoo.models.compiled import compiled
from bignas_zoo.models.importance import input_deviations, sorted_channels
from bignas_zoo.models.linear_probe import fit_classifier
from bignas_zoo.models.matching import matched_statistics
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.slicing import supernet_shapes
from bignas_zoo.models.weights import write_weights
from bignas_zoo.recipes.data import LabelledImages, batches
from bignas_zoo.recipes.data.evenly import evenly
from bignas_zoo.recipes.progress import Progress
from bignas_zoo.zoo.family import SCHEMA

#: Images that importance and statistics come from: one pass each, so they are few.
IMAGES = 192


@dataclass(frozen=True)
class Parent:
    """The trained network that a family starts from.

    Attributes:
        weights: by the names of its plan, float32, statistics included.
        license, source: of the weights.
        notice: file with what their licence wants to be passed on; None if nothing.
    """

    weights: Mapping[str, np.ndarray]
    license: str
    source: str
    notice: Path | None


def space_of(classes: int) -> SearchSpace:
    """Return the space of one's own photographs, for a number of classes."""
    return variant(PHOTOS, classes=classes)


def children_of(space: SearchSpace) -> dict[str, ChildSpec]:
    """Return the children that are trained, by name, ordered by MACs: the space's two corners among them.

    The whole network at each resolution, layers left out at some, and narrow networks for what is smaller still.
    """
    whole = [stage.depths[-1] for stage in space.stages]
    short = [stage.depths[0] for stage in space.stages]

    def child(resolution: int, depths: list[int], end: int) -> ChildSpec:
        return space.spec(
            resolution=resolution,
            depths=depths,
            widths=[space.stem_widths[0], *(stage.widths[end] for stage in space.stages), space.head_widths[0]],
            kernels=[stage.kernels[-1] for stage in space.stages],
            expansions=[stage.expansions[end] for stage in space.stages],
        )

    children = {f"whole-{size}": child(size, whole, -1) for size in space.resolutions}
    children |= {f"short-{size}": child(size, short, -1) for size in space.resolutions if size in (64, 96, 128)}
    children |= {f"narrow-{size}": child(size, short, 0) for size in space.resolutions if size in (64, 80)}
    return dict(sorted(children.items(), key=lambda pair: cost.macs(pair[1])))


def write_start(
    folder: Path,
    parent: Parent,
    preprocess: Preprocess,
    train: LabelledImages,
    holdout: LabelledImages,
    *,
    say: Say = silent,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Write the starting family.

    Args:
        folder: to make; one that is there is replaced.
        parent: EfficientNet-Lite0 with its own classifier.
        preprocess: the input contract; its crop is as large as the space's biggest resolution, or larger.
        train: images of one's own classes.
        holdout: others, which choose how strongly the classifier's weights are held back.
        say: told what is going on.
        report: told after each step of the fitting.

    Returns:
        The folder.
    """
    space = space_of(len(train.class_names))
    say(f"fitting a classifier of {space.classes} classes to the features of EfficientNet-Lite0")
    weights = _with_classifier(space, parent.weights, preprocess, train, holdout, say, report)
    some = train.pixels[evenly(len(train), IMAGES)].astype(np.float32)
    weights = sorted_channels(
        space.biggest, weights, input_deviations(space.biggest, weights, _at(preprocess, some, space.biggest))
    )
    shared = {name: weights[name] for name in supernet_shapes(space)}
    with store.new_folder(folder, force=True, marker=names.FAMILY) as new:
        (new / "bn").mkdir()
        write_weights(new / names.SUPERNET, shared, {"family": names.START})
        slices = []
        for name, spec in children_of(space).items():
            say(f"matching the statistics of {name} ({cost.macs(spec) / 1e6:.1f} MMACs)")
            statistics = matched_statistics(weights, weights, spec, _at(preprocess, some, spec))
            file = f"bn/{name}.safetensors"
            write_weights(new / file, statistics, {"slice": name})
            slices.append(_entry(name, spec, {"file": file, **store.record(new / file)}))
        description: dict[str, Any] = {
            "schema": SCHEMA,
            "name": names.START,
            "description": "EfficientNet-Lite0 made elastic: where training on one's own photographs starts.",
            "license": parent.license,
            "source": parent.source,
            "space": space.to_json(),
            "class_names": list(train.class_names),
            "preprocess": preprocess.to_json(),
            "weights": {"file": names.SUPERNET, **store.record(new / names.SUPERNET)},
            "training": {},
            "slices": slices,
        }
        if parent.notice is not None:
            store.copy(parent.notice, new / names.NOTICE)
            description["notice"] = {"file": names.NOTICE, **store.record(new / names.NOTICE)}
        store.write_json(new / names.FAMILY, store.sealed(description))
    return folder


def _with_classifier(
    space: SearchSpace,
    parent: Mapping[str, np.ndarray],
    preprocess: Preprocess,
    train: LabelledImages,
    holdout: LabelledImages,
    say: Say,
    report: Callable[[Progress], None],
) -> dict[str, np.ndarray]:
    """Return the parent's weights with a classifier fitted to its features."""
    child = build_child(space.biggest)
    empty = {
        name: np.zeros((*parent[name].shape[:-1], space.classes), np.float32)
        for name in ("classifier.kernel", "classifier.bias")
    }
    set_weights(child, space.biggest, {**parent, **empty})
    infer = compiled(keras.Model(child.input, child.get_layer("classifier").input))
    both = [train.pixels, train.pixels[:, :, ::-1], holdout.pixels]
    batch = batch_for(space.biggest.resolution)
    count = sum(-(-len(pixels) // batch) for pixels in both)
    done, features, last = 0, [], time.monotonic()
    for pixels in both:
        parts = []
        for part in batches(pixels, batch):
            parts.append(np.asarray(infer(_at(preprocess, part, space.biggest))))
            now, done = time.monotonic(), done + 1
            report(Progress(done, count, None, len(part) / max(now - last, 1e-9), "features"))
            last = now
        features.append(np.concatenate(parts))
    fitted = fit_classifier(
        np.concatenate(features[:2]), np.tile(train.labels, 2), space.classes, features[2], holdout.labels
    )
    say(f"fitted: {fitted.top1:.2f} % of the held-out images")
    return {**parent, "classifier.kernel": fitted.kernel, "classifier.bias": fitted.bias}


def _at(preprocess: Preprocess, pixels: np.ndarray, spec: ChildSpec) -> np.ndarray:
    """Return images as a child takes them."""
    return np.asarray(preprocess.inputs(pixels, spec.resolution))


def _entry(name: str, spec: ChildSpec, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Return a slice's entry in family.json; nothing is measured of it."""
    unmeasured = dict.fromkeys(("top1", "top1_images", "holdout_top1", "holdout_images", "bytes"))
    return {
        "name": name,
        "spec": spec.to_json(),
        **unmeasured,
        "top1_source": "not measured",
        "arena_bytes": cost.arena(spec),
        "statistics": dict(statistics),
    }
