"""What the report of a training on photographs needs of the images: counts, confusions, the surest mistakes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bignas_zoo.files import names, store
from bignas_zoo.files.formats import REPORT_SCHEMA, THUMBNAIL
from bignas_zoo.models.backend import keras
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data import LabelledImages, batches

#: Mistakes that are shown, their side in pixels and JPEG quality: half a megabyte of them at most.
MISTAKES, SIDE, QUALITY = 24, 144, 80
BATCH = 64


def write_report_data(
    run: Path,
    child: keras.Model,
    judged_slice: str,
    judged: LabelledImages,
    preprocess: Preprocess,
    remarks: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
) -> None:
    """Write RUN/report.json.

    Args:
        run: the run's folder.
        child: the network whose answers are told.
        judged_slice: its name.
        judged: labelled images that it answers for.
        preprocess: the input contract.
        remarks: on the images.
        counts: images of each class in each part.
    """
    resolution = child.input_shape[1]
    logits = [np.asarray(child(preprocess.inputs(part, resolution))) for part in batches(judged.pixels, BATCH)]
    scores = _softmax(np.concatenate(logits))
    said, classes = scores.argmax(-1), judged.class_names
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (judged.labels, said), 1)
    wrong = np.flatnonzero(said != judged.labels)
    surest = wrong[np.argsort(-scores[wrong, said[wrong]], kind="stable")][:MISTAKES]
    data: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "judged_on": judged.source,
        "judged_slice": judged_slice,
        "remarks": list(remarks),
        "counts": {part: dict(of_class) for part, of_class in counts.items()},
        "confusion": confusion.tolist(),
        "errors": [
            {
                "image": _thumbnail(judged.pixels[i]),
                "true": classes[judged.labels[i]],
                "said": classes[said[i]],
                "score": round(float(scores[i, said[i]]), 4),
            }
            for i in surest
        ],
    }
    store.write_json(run / names.REPORT_DATA, store.sealed(data))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _thumbnail(pixels: np.ndarray) -> str:
    """Return an image as a data address."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=QUALITY)
    return THUMBNAIL + base64.b64encode(buffer.getvalue()).decode()
