"""What int8 costs the slices of efficientnet-lite: ``python benchmarks/imagenet_int8.py SLICE...``.

Ranges come from the package's photographs; both files classify the same 890 validation and 1,000 training images of
ImageNet, none of which gave a range.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np

import bignas_zoo as bz
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data.tfrecords import tfrecord_images

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"imagenet_val227-00000-of-00001.tfrecord": 1.0, "imagenet_sample192-00000-of-00001.tfrecord": 0.875}


def main() -> None:
    """Print a row of each slice: top-1 of both files, and the paired difference with its standard error."""
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as place:
            exported = bz.export_slice(name, [bz.Export(), bz.Export("tflite", "int8")], output=Path(place) / name)
            contract = Preprocess.from_json(bz.get_family("efficientnet-lite").find(name).preprocess)
            right = np.array([_right(one.path, contract) for one in exported], float)
            size = exported[1].path.stat().st_size
        gain = right[1] - right[0]
        error = 100 * gain.std(ddof=1) / len(gain) ** 0.5
        float32, int8 = 100 * right.mean(1)
        print(f"{name}: float32 {float32:.2f}, int8 {int8:.2f} %, {int8 - float32:+.2f} +- {error:.2f}, {size:,} bytes")


def _right(path: Path, contract: Preprocess) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    given, scores = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    outcomes = []
    for file, fraction in SETS.items():
        own = dataclasses.replace(contract, crop_fraction=fraction)
        images = tfrecord_images(str(DATA / file), own.crop_size, crop_fraction=own.crop_fraction)
        for pixels, label in zip(images.pixels, images.labels, strict=True):
            interpreter.set_tensor(given, ((pixels - np.float32(own.mean)) / np.float32(own.std))[None])
            interpreter.invoke()
            outcomes.append(interpreter.get_tensor(scores)[0].argmax() == label)
    return np.array(outcomes)


if __name__ == "__main__":
    main()
