"""A family's folder: weights, named slices with their statistics and accuracies, front, description.

The weights are rounded to float16 *before* anything is calibrated or measured, so every figure
belongs to the bytes that ship.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bignas_zoo.architecture import cost
from bignas_zoo.files import names, store
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.files.say import Say
from bignas_zoo.measure.evaluate import child_top1
from bignas_zoo.measure.trained import Trained
from bignas_zoo.models.child import get_weights
from bignas_zoo.models.weights import write_weights
from bignas_zoo.search.children import Measured
from bignas_zoo.search.front import name_members, pareto, thin
from bignas_zoo.search.log import measured_to_json
from bignas_zoo.zoo import photographs
from bignas_zoo.zoo.family import SCHEMA

FRONT_SCHEMA = "bignas-zoo/front/1"


def write_family(
    run: Trained,
    measured: tuple[Measured, ...],
    folder: Path,
    say: Say,
    *,
    keep: Sequence[Measured] = (),
    only: Mapping[str, Measured] | None = None,
    training: Mapping[str, Any] | None = None,
    notice: Path | None = None,
    training_images: bytes | None = None,
) -> Path:
    """Write a family's folder: weights, named slices with statistics, front, description.

    Each slice is cut from the rounded weights, calibrated, and measured on the test images, which no
    choice has seen.

    Args:
        run: the finished training.
        measured: the front's children, both corners among them.
        folder: the family's folder; a family already there is replaced once the new one is complete.
        say: told of each slice.
        keep: children that are slices even where the front would leave them out.
        only: name to child, where these alone are to be slices.
        training: how the family was made, for its description; by default, by this run.
        notice: file with what the licence of the weights it was started from wants to be passed on.
        training_images: some of the images trained on, packed, that int8 ranges are to come from.

    Returns:
        The folder.
    """
    recipe, space = run.recipe, run.recipe.search_space
    inner = sorted(dict.fromkeys((*thin(pareto(measured)), *keep)), key=lambda m: (m.macs, m.top1))
    members = only or name_members(recipe.name, space, inner, measured)
    with store.new_folder(folder, force=True, marker=names.FAMILY) as new:
        (new / "bn").mkdir()
        write_weights(new / names.SUPERNET, run.weights, {"family": recipe.name})
        slices = [_write_slice(run, name, member, new, say) for name, member in members.items()]
        front = {
            "schema": FRONT_SCHEMA,
            "chosen_on": f"{len(run.holdout):,} training images held out of training",
            "measured": [measured_to_json(m) for m in measured],
        }
        store.write_json(new / names.FRONT, front)
        store.atomic_write(new / names.METRICS, run.metrics)
        description = {
            "schema": SCHEMA,
            "name": recipe.name,
            "description": f"Supernet of space '{space.name}' trained on {run.images.source}.",
            "license": run.license,
            "source": run.source,
            "space": space.to_json(),
            "class_names": list(run.images.class_names),
            "preprocess": run.preprocess.to_json(),
            "weights": _record(new, names.SUPERNET),
            "front": _record(new, names.FRONT),
            "metrics": _record(new, names.METRICS),
            "training": dict(training) if training is not None else _training(run),
            "slices": sorted(slices, key=lambda s: str(s["name"])),
        }
        if notice is not None:
            store.copy(notice, new / names.NOTICE)
            description["notice"] = _record(new, names.NOTICE)
        if training_images is not None:
            store.atomic_write(new / names.TRAINING_IMAGES, training_images)
            description["training_images"] = _record(new, names.TRAINING_IMAGES)
            description["calibration"] = photographs.TRAINING
        store.write_json(new / names.FAMILY, store.sealed(description))
    return folder


def _training(run: Trained) -> dict[str, Any]:
    """Return how a family was made: the record of its run."""
    return {
        "recipe": run.recipe.to_json(),
        "images": len(run.images),
        "held_out": len(run.holdout),
        "calibration_images": len(run.calibration),
        "machine": machine(),
        "versions": versions(),
        "command": "bignas-zoo train RECIPE --data FOLDER --output RUN",
        "notes": run.notes,
    }


def _write_slice(run: Trained, name: str, member: Measured, folder: Path, say: Say) -> dict[str, Any]:
    """Calibrate and measure one slice, store its statistics, and return its entry in family.json."""
    from bignas_zoo.export.describe import file_info
    from bignas_zoo.export.tflite import convert  # TensorFlow, which a training on JAX does without

    child = run.child(member.spec)
    stored = get_weights(child, member.spec)
    file = f"bn/{name}.safetensors"
    statistics = {k: v for k, v in stored.items() if k.endswith((".mean", ".variance"))}
    write_weights(folder / file, statistics, {"slice": name})
    top1 = child_top1(child, member.spec.resolution, run.preprocess, run.test)
    say(f"{name}: {member.macs / 1e6:.2f} MMACs, {top1:.2f} % on {run.test.source}")
    info = file_info(
        name,
        run.images.class_names,
        run.preprocess.to_json(),
        macs=member.macs,
        resolution=member.spec.resolution,
        license=run.license,
    )
    return {
        "name": name,
        "spec": member.spec.to_json(),
        "top1": round(top1, 4),
        "top1_images": len(run.test),
        "top1_source": run.test.source,
        "holdout_top1": member.top1,
        "holdout_images": len(run.holdout),
        "bytes": len(convert(child, info=info)),
        "arena_bytes": cost.arena(member.spec),
        "statistics": _record(folder, file),
    }


def _record(folder: Path, name: str) -> dict[str, Any]:
    return {"file": name, **store.record(folder / name)}
