"""Which images a run trains on, so that it does not go on with others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.files.store import read_json, write_json
from bignas_zoo.recipes.data.dataset import TrainingImages
from bignas_zoo.recipes.data.images import LabelledImages

SCHEMA = "bignas-zoo/run-images/1"
FILE = "images.json"


def remember_images(workdir: Path, images: TrainingImages, *, resumed: bool) -> None:
    """Record a run's images; if it goes on, compare them with those it began with.

    Compared are number, classes and, of images in memory, labels and pixels in their order. Where the images
    lie does not matter.

    Args:
        workdir: the run's folder.
        images: those it is about to train on.
        resumed: whether the run has trained on images already.

    Raises:
        UsageError: the run began with other images.
        IntegrityError: the record is damaged.
    """
    now, path = _describe(images), workdir / FILE
    if not resumed or not path.is_file():
        write_json(path, {"schema": SCHEMA, **now, "source": images.source})
        return
    then = read_json(path)
    if not isinstance(then, dict) or then.get("schema") != SCHEMA:
        raise IntegrityError(f"{path}: not as this version writes it. Delete it if the images are the same as before.")
    changed = [k for k, v in now.items() if then.get(k, v) != v]
    if changed:
        raise UsageError(
            f"{workdir}: began with other images ({then.get('count')} of {then.get('source')}; now {len(images)} of "
            f"{images.source}); different: {', '.join(changed)}. Name the first ones with --data, or choose another "
            "--output."
        )


def _describe(images: TrainingImages) -> dict[str, Any]:
    record: dict[str, Any] = {"count": len(images), "class_names": list(images.class_names)}
    if isinstance(images, LabelledImages):
        record["labels_sha256"] = hashlib.sha256(np.ascontiguousarray(images.labels, "<i4").tobytes()).hexdigest()
        record["pixels_sha256"] = hashlib.sha256(np.ascontiguousarray(images.pixels).data).hexdigest()
    return record
