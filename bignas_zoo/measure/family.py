"""From a recipe to a family: train, measure the front, store slices with their statistics.

The weights are rounded to float16 *before* anything is calibrated or measured, so every figure
belongs to the bytes that ship.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import bignas_zoo.recipes
from bignas_zoo import slice_folder, store
from bignas_zoo.errors import LocalIOError, NotFoundError, nearest
from bignas_zoo.export.tflite import convert
from bignas_zoo.measure.evaluate import BATCH, Evaluator, child_top1
from bignas_zoo.measure.front import Measured, measure_front, name_members, pareto, thin
from bignas_zoo.models.calibration import calibrate
from bignas_zoo.models.child import build_child, get_weights, set_weights
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.slicing import slice_weights
from bignas_zoo.models.weights import write_weights
from bignas_zoo.recipes.data import LabelledImages, batches, philox, read_labelled, split_holdout
from bignas_zoo.recipes.recipe import Recipe, read_recipe
from bignas_zoo.recipes.train import METRICS, Progress
from bignas_zoo.recipes.train import train as train_supernet
from bignas_zoo.registry import FAMILY_FILE, SCHEMA
from bignas_zoo.space import ChildSpec

FRONT_SCHEMA = "bignas-zoo/front/1"
FRONT_FILE, SUPERNET_FILE, MEASURED_FILE = "front.json", "supernet.safetensors", "measured.jsonl"
CURVE_CALIBRATION = 1_000
Say = Callable[[str], None]


def find_recipe(recipe: str | Path) -> Path:
    """Return the path of a recipe file, or of a shipped recipe by its name.

    Raises:
        NotFoundError: neither exists.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = {p.stem: p for p in Path(bignas_zoo.recipes.__path__[0]).glob("*.yaml")}
    name = str(recipe).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise NotFoundError(f"recipe '{recipe}': no such file, nor a shipped recipe. {nearest(name, shipped)}")


def train_family(
    recipe_name: str | Path, data: Path, output: Path, *, say: Say, report: Callable[[Progress], None]
) -> Path:
    """Train by a recipe and make a family; see `bignas_zoo.train`."""
    recipe = read_recipe(find_recipe(recipe_name))
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    say(f"reading images from {data}")
    everything = read_labelled(data, "train", recipe.crop_size, ())
    test = read_labelled(data, "test", recipe.crop_size, everything.class_names)
    images, holdout = split_holdout(everything, recipe.holdout, recipe.seed)
    space = recipe.search_space
    if len(images.class_names) != space.classes:
        raise LocalIOError(
            f"{data}: {len(images.class_names)} classes, but space '{space.name}' has {space.classes}."
        )
    order = philox(recipe.seed, "calibration").permutation(len(images))
    calibration = images.take(np.sort(order[: recipe.calibration_images])).pixels

    def curve(weights: dict[str, np.ndarray]) -> dict[str, float]:
        evaluator = Evaluator(space, weights, preprocess, calibration[:CURVE_CALIBRATION])
        ends = {"smallest": space.smallest, "biggest": space.biggest}
        return {name: round(evaluator.top1(spec, holdout), 2) for name, spec in ends.items()}

    weights = train_supernet(recipe, images, output, curve, report)
    shipped = {name: value.astype(np.float16) for name, value in weights.items()}
    rounded = {name: value.astype(np.float32) for name, value in shipped.items()}
    measured = _measure(recipe, rounded, preprocess, calibration, holdout, output, say)
    return _write_family(
        recipe, shipped, rounded, preprocess, calibration, measured, (images, holdout, test), output, say
    )


def _measure(
    recipe: Recipe,
    weights: dict[str, np.ndarray],
    preprocess: Preprocess,
    calibration: np.ndarray,
    holdout: LabelledImages,
    output: Path,
    say: Say,
) -> tuple[Measured, ...]:
    """Measure the front's children; measurements already in the run folder are taken over."""
    space = recipe.search_space
    evaluator = Evaluator(space, weights, preprocess, calibration)
    log = output / MEASURED_FILE
    lines = log.read_text("utf-8").splitlines() if log.is_file() else []
    known = [_measured_from_json(json.loads(line), recipe) for line in lines]

    def keep(m: Measured, done: int) -> None:
        if done > len(lines):
            lines.append(json.dumps(_measured_to_json(m)))
            store.atomic_write(log, "".join(f"{line}\n" for line in lines).encode())
        say(f"child {done}/{recipe.front_children}: {m.macs / 1e6:.2f} MMACs, {m.top1:.2f} % held out")

    return measure_front(
        space,
        lambda spec: evaluator.top1(spec, holdout),
        recipe.front_children,
        recipe.seed,
        known,
        keep,
    )


def _measured_to_json(m: Measured) -> dict[str, Any]:
    return {"spec": m.spec.to_json(), "macs": m.macs, "holdout_top1": round(m.top1, 4), "origin": m.origin}


def _measured_from_json(data: dict[str, Any], recipe: Recipe) -> Measured:
    spec = ChildSpec.from_json(data["spec"], recipe.search_space)
    return Measured(spec, data["holdout_top1"], data["origin"])


def _write_family(
    recipe: Recipe,
    shipped: dict[str, np.ndarray],
    weights: dict[str, np.ndarray],
    preprocess: Preprocess,
    calibration: np.ndarray,
    measured: tuple[Measured, ...],
    splits: tuple[LabelledImages, LabelledImages, LabelledImages],
    output: Path,
    say: Say,
) -> Path:
    images, holdout, test = splits
    space = recipe.search_space
    front = thin(pareto(measured))
    members = name_members(recipe.name, space, front, measured)
    folder = output / "family"
    with store.new_folder(folder, force=True, marker=FAMILY_FILE) as new:
        (new / "bn").mkdir()
        write_weights(new / SUPERNET_FILE, shipped, {"family": recipe.name})
        slices = []
        for name, member in members.items():
            child = build_child(member.spec)
            set_weights(child, member.spec, slice_weights(weights, member.spec))
            calibrate(child, _inputs(preprocess, calibration, member.spec.resolution))
            statistics = {
                k: v for k, v in get_weights(child, member.spec).items() if k.endswith((".mean", ".variance"))
            }
            file = f"bn/{name}.safetensors"
            write_weights(new / file, statistics, {"slice": name})
            top1 = child_top1(child, member.spec.resolution, preprocess, test)
            say(f"{name}: {member.macs / 1e6:.2f} MMACs, {top1:.2f} % on {test.source}")
            slices.append(
                {
                    "name": name,
                    "spec": member.spec.to_json(),
                    "top1": round(top1, 4),
                    "top1_images": len(test),
                    "top1_source": test.source,
                    "holdout_top1": round(member.top1, 4),
                    "holdout_images": len(holdout),
                    "bytes": len(convert(child)),
                    "statistics": _record(new, file),
                }
            )
        store.write_json(
            new / FRONT_FILE,
            {
                "schema": FRONT_SCHEMA,
                "chosen_on": f"{len(holdout):,} training images held out of training",
                "measured": [_measured_to_json(m) for m in measured],
            },
        )
        store.atomic_write(new / METRICS, (output / METRICS).read_bytes())
        description = {
            "schema": SCHEMA,
            "name": recipe.name,
            "description": f"Supernet of space '{space.name}' trained on {images.source}.",
            "license": "Apache-2.0",
            "space": space.to_json(),
            "class_names": list(images.class_names),
            "preprocess": preprocess.to_json(),
            "weights": _record(new, SUPERNET_FILE),
            "front": _record(new, FRONT_FILE),
            "metrics": _record(new, METRICS),
            "training": {
                "recipe": recipe.to_json(),
                "images": len(images),
                "held_out": len(holdout),
                "calibration_images": len(calibration),
                "machine": _machine(),
                "versions": slice_folder.versions(),
                "command": "bignas-zoo train RECIPE --data FOLDER --output RUN",
            },
            "slices": sorted(slices, key=lambda s: str(s["name"])),
        }
        store.write_json(new / FAMILY_FILE, description)
    return folder


def _inputs(preprocess: Preprocess, pixels: np.ndarray, resolution: int) -> list[np.ndarray]:
    return [np.asarray(preprocess.inputs(batch, resolution)) for batch in batches(pixels, BATCH)]


def _record(folder: Path, name: str) -> dict[str, Any]:
    return {"file": name, **slice_folder.record(folder / name)}


def _machine() -> str:
    """Return processor and core count in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}, {platform.system()}"
