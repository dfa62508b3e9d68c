"""What int8 costs the shipped slices on all CIFAR-10 test images, by how the activations' ranges are chosen.

    python benchmarks/int8_loss.py --images CIFAR10 [--slices s,m] [--cover 99.99,100]

TFLite with float32 ends, ranges from 1,000 training images; the float figures are those of the Keras child.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FAMILY, BATCH = "bignas-cifar10", 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder with CIFAR-10's files")
    parser.add_argument("--slices", help="short names with commas [default: all]")
    parser.add_argument("--cover", default="99.99", help="percent of the values within a range at either end")
    chosen = parser.parse_args()

    import numpy as np

    import bignas_zoo as bz
    from bignas_zoo.export.fold import pool_by_convolution
    from bignas_zoo.export.quantise import quantise
    from bignas_zoo.export.tflite import SIGNATURE, convert
    from bignas_zoo.models.preprocess import Preprocess, resize
    from bignas_zoo.recipes.data.sample import read_sample
    from bignas_zoo.runtime.runner import LoadedFile

    family = bz.get_family(FAMILY)
    preprocess = Preprocess.from_json(family.preprocess)
    sample = read_sample(chosen.images, None, preprocess, tuple(family.class_names))
    assert sample.test

    def inputs(pixels: np.ndarray, size: int) -> np.ndarray:
        starts = range(0, len(pixels), BATCH)
        parts = (resize(pixels[i : i + BATCH].astype(np.float32), size) for i in starts)
        return np.concatenate([np.asarray(preprocess.normalise(np.asarray(part))) for part in parts])

    print(f"{len(sample.training)} images for ranges, {len(sample.test)} test images\n")
    print("| slice | float top-1 % | cover | int8 top-1 % | points lost | same first class |")
    print("|---|---|---|---|---|---|")
    for found in bz.list_slices(FAMILY):
        short = found.name.removeprefix(f"{FAMILY}-")
        if chosen.slices and short not in chosen.slices.split(","):
            continue
        child = bz.load(found.name)
        training, test = (inputs(p, found.spec.resolution) for p in (sample.training, sample.test.pixels))
        starts = range(0, len(test), BATCH)
        ours = np.concatenate([np.asarray(child(test[i : i + BATCH], training=False)).argmax(-1) for i in starts])
        model = convert(pool_by_convolution(child))
        for cover in map(float, chosen.cover.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.tflite"
                path.write_bytes(quantise(model, training, SIGNATURE, cover=cover))
                with LoadedFile(path) as file:
                    theirs = file.run(test).argmax(-1)
            right, kept = (100 * float(np.mean(c == sample.test.labels)) for c in (ours, theirs))
            same = 100 * float(np.mean(ours == theirs))
            print(f"| {short} | {right:.2f} | {cover:g} | {kept:.2f} | {right - kept:.2f} | {same:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
