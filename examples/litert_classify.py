"""Classify image files with a slice's TFLite file: LiteRT, numpy and Pillow, nothing else.

    pip install ai-edge-litert numpy pillow
    python litert_classify.py FOLDER photo.jpg --top 3

FOLDER is what `bignas-zoo get` made. Any file of the slice goes with --model: float32, float16, int8 with float32,
int8 or uint8 ends, and those that normalise in the graph ("-pixels" in the name).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from slice_files import DAMAGED, Classify, SliceFiles, UserError, main, read_bytes, takes_pixels

SIGNATURE, INPUT, OUTPUT = "classify", "image", "scores"


def load(model: Path, files: SliceFiles) -> Classify:
    """Open a TFLite file; refuse one that is damaged or not this slice's."""
    from ai_edge_litert.interpreter import Interpreter

    content = read_bytes(model)
    try:
        if content[4:8] != b"TFL3":
            raise ValueError("no TFLite identifier at its beginning")
        runner = Interpreter(model_content=content).get_signature_runner(SIGNATURE)
        given, returned = runner.get_input_details()[INPUT], runner.get_output_details()[OUTPUT]
    except (ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{model}: not a classifier made by bignas-zoo ({error}).", DAMAGED) from error
    batch, *size, _ = (int(n) for n in given["shape"])
    files.check(model, tuple(size), int(returned["shape"][-1]))
    # uint8 files take pixels as they are: the normalisation is inside.
    as_pixels = takes_pixels(model) or given["dtype"] == np.uint8

    def classify(pixels: np.ndarray) -> np.ndarray:
        value = quantise(pixels if as_pixels else files.normalise(pixels), given)
        return dequantise(runner(**{INPUT: np.repeat(value[None], batch, axis=0)})[OUTPUT], returned)[0]

    return classify


def quantise(value: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Return numbers as a tensor holds them: as they are, or in whole steps of its scale."""
    if details["dtype"] == np.float32:
        return value.astype(np.float32)
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    return np.clip(np.round(value / scale + zero), limits.min, limits.max).astype(details["dtype"])


def dequantise(value: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    """Return what a tensor's content stands for, in float32."""
    if details["dtype"] == np.float32:
        return value
    scale, zero = details["quantization"]
    return (value.astype(np.float32) - zero) * np.float32(scale)


if __name__ == "__main__":
    sys.exit(main(load, ".tflite", "Classify image files with a slice's TFLite file."))
