"""Classify image files with a slice's ONNX file: onnxruntime, numpy and Pillow, nothing else.

    pip install onnxruntime numpy pillow
    python onnxruntime_classify.py FOLDER photo.jpg --top 3

FOLDER is what `bignas-zoo get` made, with an ONNX file beside the others (`bignas-zoo export FOLDER --format onnx`).
Any file of the slice goes with --model: either layout, and those that normalise in the graph ("-pixels" in the name).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from slice_files import DAMAGED, Classify, SliceFiles, UserError, main, read_bytes, takes_pixels

INPUT, OUTPUT = "image", "scores"


def load(model: Path, files: SliceFiles) -> Classify:
    """Open an ONNX file; refuse one that is damaged or not this slice's."""
    import onnxruntime

    content = read_bytes(model)
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
        _, *size = shapes[INPUT]
        classes = shapes[OUTPUT][-1]
    except Exception as error:  # onnxruntime's own errors have no public base class
        raise UserError(f"{model}: not a classifier made by bignas-zoo ({error}).", DAMAGED) from error
    channels_first = size[0] == 3
    files.check(model, tuple(size[1:] if channels_first else size[:2]), classes)

    def classify(pixels: np.ndarray) -> np.ndarray:
        value = pixels if takes_pixels(model) else files.normalise(pixels)
        if channels_first:
            value = value.transpose(2, 0, 1)
        (scores,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(value[None], np.float32)})
        return scores[0]

    return classify


if __name__ == "__main__":
    sys.exit(main(load, ".onnx", "Classify image files with a slice's ONNX file."))
