"""A file of published weights as a family: a supernet with its published children, or a net trained alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.network import BlockList, Network
from bignas_zoo.architecture.plan import plan, plan_supernet
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.errors import IntegrityError
from bignas_zoo.files import names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.importers import keys
from bignas_zoo.importers.efficientnet_lite import imagenet_classes
from bignas_zoo.importers.sources import IMAGES, Published, Source
from bignas_zoo.importers.torch_file import open_tensors
from bignas_zoo.models.moments import MIN_IMAGES, too_few
from bignas_zoo.models.numpy_calibration import calibrate_arrays
from bignas_zoo.models.preprocess import Preprocess, resize_arrays
from bignas_zoo.models.slicing import slice_weights
from bignas_zoo.models.weighted import WeightedNetwork
from bignas_zoo.models.weights import write_weights
from bignas_zoo.zoo.family import NETS_SCHEMA, SCHEMA

#: Of a supernet: each child's input is resized from the central square of this size, 7/8 of the shorter side.
CROP, FRACTION = 224, 0.875
#: Images that are normalised at once.
BATCH = 8


@dataclass(frozen=True)
class CalibrationImages:
    """Images for the batch norms of children that have no statistics.

    Attributes:
        read: given the side of a square crop and its share of the shorter side, returns ``[n, side, side, 3]`` uint8.
        source: which they are, for cards, e.g. ``photographs of the package (CC BY 2.0)``.
    """

    read: Callable[[int, float], np.ndarray]
    source: str


#: Of a slice's name, network and input contract.
SizeOf = Callable[[str, WeightedNetwork, Preprocess], int]


def read_weights_of(source: Source, path: Path, network: Network | SearchSpace) -> dict[str, np.ndarray]:
    """Read a file of a source by the names of a plan, with the batch-norm statistics that it holds.

    Args:
        source: whose file it is.
        path: the file.
        network: one of its nets; or the space, of a supernet.

    Returns:
        Name to float32 array. Of a supernet whose file has no statistics of their own: without any.

    Raises:
        IntegrityError: it is no such file.
        LocalIOError: it cannot be read.
    """
    file = open_tensors(path)
    blocks = plan_supernet(network) if isinstance(network, SearchSpace) else plan(network)
    if source.layout == "timm":
        last = max(block.stage for block in blocks)
        return keys.read_network(
            file, blocks, lambda block, op, _: keys.timm_keys(block, op, last), statistics=True, spare=_none
        )
    file = keys.renamed(file, keys.ofa_name)
    spare = keys.spare_of_supernet if source.is_supernet else _none
    statistics = not isinstance(network, SearchSpace)
    return keys.read_network(file, blocks, keys.ofa_keys, statistics=statistics, spare=spare)


def _none(name: str) -> bool:
    return False


def statistics_of(path: Path, network: Network) -> dict[str, np.ndarray]:
    """Return the statistics that a supernet's file holds for the leading channels of a child.

    Those of Once-for-all's file are a mixture of all children that were trained, and are no substitute for calibration.

    Raises:
        IntegrityError: the file has none.
    """
    if not isinstance(network, ChildSpec):
        raise IntegrityError(f"{path}: statistics of a supernet are of children of a space.")
    file = keys.renamed(open_tensors(path), keys.ofa_name)
    weights = keys.read_network(
        file, plan_supernet(network.space), keys.ofa_keys, statistics=True, spare=keys.spare_of_supernet
    )
    return {
        f"{op.name}.bn.{kind}": weights[f"{op.name}.bn.{kind}"][: op.cout]
        for op in cost.ops(network)
        if op.batch_norm
        for kind in ("mean", "variance")
    }


def make_family(
    source: Source,
    path: Path,
    folder: Path,
    *,
    images: CalibrationImages,
    size_of: SizeOf,
    force: bool = False,
    say: Say = silent,
) -> Path:
    """Write a family of a source's file.

    Args:
        source: what it is.
        path: the file.
        folder: the family's folder.
        images: for batch norms of a supernet's slices.
        size_of: gives the size of a slice's float32 TFLite file.
        force: replace a family that is already there.
        say: told of each step.

    Returns:
        The folder.

    Raises:
        IntegrityError: the file is another network's, or damaged.
        UsageError: too few images to calibrate on.
        LocalIOError: a file cannot be read, or the folder exists or cannot be written.
    """
    file = open_tensors(path)  # what is no file of weights is refused at once, before all of it is read for its digest
    file.check()
    if file.part:
        say(f"{path}: its '{file.part}' is read")
    published = source.digest is not None and source.digest.of(path)
    if source.digest is not None and not published:
        say(f"{path}: is not the file that is published as {source.name}, so no accuracy is said of it")
    if source.digest is None and any(net.top1 is not None for net in source.nets):
        say(
            f"{source.name}: its makers publish no digest, so nobody can tell whether this is their file; "
            "their figures stand"
        )
    vouched = published or source.digest is None
    with store.new_folder(folder, force=force, marker=names.FAMILY) as new:
        make = _supernet if source.is_supernet else _nets
        own = make(_Making(source, path, new, images, size_of, vouched, say))
        record = store.record(path)
        training = {
            "imported": {
                "source": source.name,
                "file_bytes": record["bytes"],
                "file_sha256": record["sha256"],
                "published_digest": source.digest and f"{source.digest.algorithm}:{source.digest.value}",
                "is_published_file": published if source.digest else None,
            },
            **own.pop("training", {}),
        }
        shown = source.origin if published else f"{source.origin}; a file of the user's"
        description = {
            "name": source.name,
            "description": f"{source.origin.split(' (')[0]}, imported. {source.remark}".strip(),
            "license": source.license,
            "source": shown,
            "class_names": list(imagenet_classes()),
            "calibration": "photographs",
            "training": training,
            **own,
        }
        store.write_json(new / names.FAMILY, store.sealed(description))
    return folder


@dataclass(frozen=True)
class _Making:
    """What a family is made of: see `make_family`; `new`: the folder; `vouched`: whether its makers' figures hold."""

    source: Source
    path: Path
    new: Path
    images: CalibrationImages
    size_of: SizeOf
    vouched: bool
    say: Say


def _supernet(making: _Making) -> dict[str, Any]:
    """Write a supernet's weights and the statistics of its slices; return its part of the description."""
    source, path, new, images, say = making.source, making.path, making.new, making.images, making.say
    space = get_space(source.net)
    contract = Preprocess(CROP, _three(source.mean), _three(source.std), FRACTION)
    pixels = images.read(CROP, FRACTION)
    if len(pixels) < MIN_IMAGES:
        raise too_few(len(pixels))
    say(f"{source.name}: reading {path}")
    weights = read_weights_of(source, path, space)
    write_weights(new / names.SUPERNET, weights)
    (new / names.STATISTICS).mkdir()
    slices = []
    ranked = sorted(source.nets, key=lambda net: (net.top1 or 0.0, net.macs))
    for number, net in enumerate(ranked, start=1):
        network = source.network(net)
        name = source.slice_name(net)
        on = f"{len(pixels)} {images.source}"
        say(f"{name}: calibrating its batch norms on {on} ({number} of {len(ranked)}; some 20 seconds for 128 images)")
        file = f"{names.STATISTICS}/{name}.safetensors"
        calibrated = _calibrated(network, weights, contract, pixels)
        write_weights(new / file, {key: value for key, value in calibrated.items() if _measured(key)})
        slices.append(
            _entry(making, net, WeightedNetwork(network, calibrated), contract)
            | {"rank": number, "spec": _spec(network).to_json(), "statistics": _record(new, file)}
        )
    return {
        "schema": SCHEMA,
        "space": space.to_json(),
        "preprocess": contract.to_json(),
        "weights": _record(new, names.SUPERNET),
        "training": {"calibrated_on": {"images": len(pixels), "source": images.source}},
        "slices": sorted(slices, key=lambda entry: str(entry["name"])),
    }


def _calibrated(
    network: Network, weights: Mapping[str, np.ndarray], contract: Preprocess, pixels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return a child's weights and statistics, of images that its family's contract has cropped."""
    child = slice_weights(weights, network)
    parts = (pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH))
    inputs = (resize_arrays(contract.normalise(part), network.resolution) for part in parts)
    return calibrate_arrays(network, child, inputs)


def _nets(making: _Making) -> dict[str, Any]:
    """Write a net's own weights; return its part of the description."""
    source, path, new, say = making.source, making.path, making.new, making.say
    (new / names.NETS).mkdir()
    say(f"{source.name}: reading {path}")
    network = source.network(source.nets[0])
    weights = read_weights_of(source, path, network)
    own = f"{names.NETS}/{source.name}.safetensors"
    files: dict[str, Any] = {}
    if isinstance(network, BlockList):
        write_weights(new / own, weights)
    else:
        (new / names.STATISTICS).mkdir()
        statistics = f"{names.STATISTICS}/{source.name}.safetensors"
        write_weights(new / own, {name: value for name, value in weights.items() if not _measured(name)})
        write_weights(new / statistics, {name: value for name, value in weights.items() if _measured(name)})
        files["statistics"] = _record(new, statistics)
    files["weights"] = _record(new, own)
    slices = []
    for number, net in enumerate(source.nets, start=1):
        architecture = source.network(net)
        contract = Preprocess(
            net.resolution, _three(source.mean), _three(source.std), round(net.resolution / net.resize, 6)
        )
        form: dict[str, Any] = (
            {"blocks": architecture.to_json()}
            if isinstance(architecture, BlockList)
            else {"space": architecture.space.name, "spec": architecture.to_json()}
        )
        entry = _entry(making, net, WeightedNetwork(architecture, weights), contract)
        entry |= {"rank": number, "preprocess": contract.to_json()}
        slices.append(entry | form | files)
    spaces = [] if isinstance(network, BlockList) else [_spec(network).space.to_json()]
    return {
        "schema": NETS_SCHEMA,
        "space": None,
        "spaces": spaces,
        "preprocess": slices[0]["preprocess"],
        "slices": slices,
    }


def _entry(making: _Making, net: Published, cut: WeightedNetwork, contract: Preprocess) -> dict[str, Any]:
    """Return what an entry says of any slice."""
    source, name = making.source, making.source.slice_name(net)
    known = making.vouched and net.top1 is not None
    said = f"{source.origin.split(' (')[0]}: all {IMAGES:,} validation images of ImageNet, not measured here"
    return {
        "name": name,
        "top1": None,
        "top1_images": None,
        "top1_source": "",
        "holdout_top1": None,
        "bytes": making.size_of(name, cut, contract),
        "arena_bytes": cost.arena(cut.network),
        "published": {"top1": net.top1, "images": IMAGES, "source": said} if known else None,
    }


def _spec(network: Network) -> ChildSpec:
    assert isinstance(network, ChildSpec)
    return network


def _measured(name: str) -> bool:
    return name.endswith((".mean", ".variance"))


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _record(folder: Path, name: str) -> dict[str, Any]:
    return {"file": name, **store.record(folder / name)}
