"""Which slices of the EfficientNet-Lite nets are worth having, and how accurate each is.

``python benchmarks/imagenet_slices.py FAMILY --output FILE.json``

Each slice's float32 TFLite file classifies three sets (one thread, ai-edge-litert):

* 600 photographs under CC BY and 1,000 ImageNet training images, one a class: slices are *chosen* by these together.
  Nobody's accuracy is quoted from them: the photographs were picked so that a net gets them right, and the nets were
  trained on the sample.
* 890 images of ImageNet's validation set: reported with their standard error, and nothing is chosen by them. They lie
  there squeezed to a square, so nothing is cut from them.

The rule of the choice: of two slices the one whose makers rank it higher (the larger net, of one net the larger input)
is the better one, unless the other is more accurate by over one standard error of their paired difference. A net at its
native size is kept; any other slice if it beats every cheaper one that is kept by over one standard error.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np

import bignas_zoo as bz
from bignas_zoo.architecture.spaces.efficientnet_lite import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2
from bignas_zoo.files import names
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.recipes.data.tfrecords import tfrecord_images
from bignas_zoo.zoo.slice import Slice

NATIVE = {space.name: space.resolutions[0] for space in (EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2)}
CHOOSING = ("photos_ccby256-00000-of-00001.tfrecord", "imagenet_sample192-00000-of-00001.tfrecord")
REPORTED = "imagenet_val227-00000-of-00001.tfrecord"


def main() -> None:
    """Measure the slices of a family, print what is chosen, and write both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", type=Path, help="a folder of `bignas-zoo import efficientnet-lite`, or the name")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--output", type=Path, required=True, help="the outcome of each slice and image, as JSON")
    options = parser.parse_args()
    family = bz.get_family(options.family)
    outcomes = {}
    for slice_ in family.slices:
        outcomes[slice_.name] = _outcomes(options.family, slice_, options.data)
        right = {key: round(100 * float(np.mean(row)), 2) for key, row in outcomes[slice_.name].items()}
        print(slice_.name, f"{slice_.macs / 1e6:.1f} MMACs", right, flush=True)
    known = {s.name: s for s in family.slices}
    order = ranked(chosen(known, outcomes), known, outcomes)
    rows = {name: {key: [int(v) for v in row] for key, row in rows.items()} for name, rows in outcomes.items()}
    data = {"ranked": order, "outcomes": rows, "machine": machine(), "versions": versions()}
    options.output.write_text(json.dumps(data))
    print("least to most accurate:", ", ".join(order))


def _outcomes(family: Path, slice_: Slice, data: Path) -> dict[str, np.ndarray]:
    """Return of each image of each set whether a slice is right."""
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as place:
        path = bz.get(slice_.name, family=family, output=Path(place) / "slice").path / names.TFLITE
        interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    given, scores = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    outcomes = {}
    for file in (*CHOOSING, REPORTED):
        contract = Preprocess.from_json(slice_.preprocess)
        if file == REPORTED:
            contract = dataclasses.replace(contract, crop_fraction=1.0)
        images = tfrecord_images(str(data / file), contract.crop_size, crop_fraction=contract.crop_fraction)
        found = []
        for pixels in images.pixels:
            interpreter.set_tensor(given, ((pixels - np.float32(contract.mean)) / np.float32(contract.std))[None])
            interpreter.invoke()
            found.append(int(interpreter.get_tensor(scores)[0].argmax()))
        outcomes[file] = np.array(found) == images.labels
    return outcomes


def difference(a: str, b: str, outcomes: dict[str, dict[str, np.ndarray]]) -> tuple[float, float]:
    """Return by how many points `a` is more accurate than `b` on the choosing images, and its standard error."""
    pairs = np.concatenate([outcomes[a][f].astype(float) - outcomes[b][f] for f in CHOOSING])
    return 100 * pairs.mean(), 100 * pairs.std(ddof=1) / len(pairs) ** 0.5


def _makers_order(slice_: Slice) -> tuple[str, int]:
    return slice_.network.space.name, slice_.network.resolution


def better(a: str, b: str, known: dict[str, Slice], outcomes: dict[str, dict[str, np.ndarray]]) -> bool:
    """Return whether `a` is the better one of two slices by the rule."""
    gain, error = difference(a, b, outcomes)
    return gain >= -error if _makers_order(known[a]) > _makers_order(known[b]) else gain > error


def chosen(known: dict[str, Slice], outcomes: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Return the slices worth having, by MACs."""
    kept: list[str] = []
    for name in sorted(known, key=lambda n: known[n].macs):
        slice_ = known[name]
        native = slice_.network.resolution == NATIVE[slice_.network.space.name]
        gains = [difference(name, cheaper, outcomes) for cheaper in kept]
        if native or all(gain > error for gain, error in gains):
            kept.append(name)
    return kept


def ranked(kept: list[str], known: dict[str, Slice], outcomes: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Return the slices from the least accurate to the most accurate, each inserted where it is beaten no longer."""
    order: list[str] = []
    for name in sorted(kept, key=lambda n: _makers_order(known[n])):
        place = len(order)
        while place and better(order[place - 1], name, known, outcomes):
            place -= 1
        order.insert(place, name)
    return order


if __name__ == "__main__":
    main()
