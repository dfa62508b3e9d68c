"""The files of a slice folder: written from a calibrated child, and read back as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.architecture.network import Network
from bignas_zoo.files import names, store
from bignas_zoo.files.provenance import OF_PLAN, versions
from bignas_zoo.files.records import UNKNOWN
from bignas_zoo.tasks.cutting import built, verified_path
from bignas_zoo.zoo import photographs
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice
from bignas_zoo.zoo.slice_folder import SCHEMA, check_files, describe

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bignas_zoo.export.metadata import FileInfo
    from bignas_zoo.models.weighted import WeightedNetwork

PARITY_IMAGES = 16
RANDOM_INPUTS = "random inputs (normal, seed 0)"


def write(
    folder: Path,
    family: Family,
    slice_: Slice,
    child: keras.Model | WeightedNetwork,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Export a calibrated child and write its folder's files.

    The file is proven equal to what numpy computes of the plan and the weights as they are, batch norms not folded.

    Args:
        folder: an existing, empty folder.
        family: gives labels and the input contract.
        slice_: the slice.
        child: its network and weights, or its calibrated Keras model.
        provenance: where its weights come from; by default they are the family's.

    Raises:
        QualityError: the exported file does not compute what the child computes.
        LocalIOError: a file cannot be written.
    """
    from bignas_zoo.export.gates import check_tflite
    from bignas_zoo.export.tflite import convert
    from bignas_zoo.hub_cards.card import render_card
    from bignas_zoo.models.weighted import WeightedNetwork
    from bignas_zoo.models.weights import write_weights

    if not isinstance(child, WeightedNetwork):
        from bignas_zoo.models.child import get_weights

        child = WeightedNetwork(slice_.network, get_weights(child, slice_.network))
    data = convert(
        child,
        info=file_info(
            {
                **slice_.to_json(),
                "class_names": family.class_names,
                "preprocess": slice_.preprocess or family.preprocess,
            }
        ),
    )
    if family.training_images is not None:
        store.copy(verified_path(family, family.training_images), folder / names.TRAINING_IMAGES)
    parity = check_tflite(child, data, *_parity_inputs(slice_, child.input_shape, folder))
    store.atomic_write(folder / names.TFLITE, data)
    write_weights(folder / names.WEIGHTS, child.weights, {"slice": slice_.name})
    store.atomic_write(folder / names.LABELS, "".join(f"{c}\n" for c in family.class_names).encode())
    files = {name: store.record(folder / name) for name in (names.TFLITE, names.WEIGHTS, names.LABELS)}
    if family.training_images is not None:
        files[names.TRAINING_IMAGES] = store.record(folder / names.TRAINING_IMAGES)
    if family.notice is not None:
        store.copy(family.path(family.notice), folder / names.NOTICE)
        files[names.NOTICE] = store.record(folder / names.NOTICE)
    description = content(family, slice_, files, parity.to_json(), provenance)
    store.atomic_write(folder / names.CARD, render_card(description, slice_.network).encode())
    description["files"] |= {names.CARD: store.record(folder / names.CARD)}
    store.write_json(folder / names.SLICE, store.sealed(description))


def _parity_inputs(slice_: Slice, shape: Sequence[int], folder: Path) -> tuple[np.ndarray, str]:
    """Return what a slice's file and its child are compared on, and what that is in words."""
    import numpy as np

    if not slice_.calibration:
        return np.random.default_rng(0).normal(size=(PARITY_IMAGES, *shape)).astype(np.float32), RANDOM_INPUTS
    from bignas_zoo.models.preprocess import Preprocess, read_image, resize_arrays

    contract = Preprocess.from_json(slice_.preprocess)
    if slice_.calibration == photographs.TRAINING:
        from bignas_zoo.recipes.data.packing import read_packed

        some = read_packed(folder / names.TRAINING_IMAGES).pixels[:PARITY_IMAGES]
        return resize_arrays(contract.normalise(some), shape[0]), photographs.TRAINING
    files = photographs.files(slice_.calibration)[:PARITY_IMAGES]
    crops = np.stack([read_image(path, contract.crop_size, contract.crop_fraction) for path in files])
    return resize_arrays(contract.normalise(crops), shape[0]), photographs.SOURCE


def content(
    family: Family,
    slice_: Slice,
    files: Mapping[str, Mapping[str, Any]],
    parity: Mapping[str, Any],
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of a slice.json, but for the card's record and the digest (`store.sealed`).

    Args:
        family, slice_, provenance: see `write`.
        files: name to record, of model.tflite, model.safetensors and labels.txt.
        parity: report of the comparison with the network.
    """
    return {
        "schema": SCHEMA,
        **slice_.to_json(),
        "bytes": files[names.TFLITE]["bytes"],
        "weights": True,
        **_architecture(slice_),
        "class_names": list(family.class_names),
        "preprocess": dict(slice_.preprocess or family.preprocess),
        **({"calibration": slice_.calibration} if slice_.calibration else {}),
        "output": "softmax scores; model.safetensors and Keras give logits",
        "parity": dict(parity),
        "latency": None,
        "provenance": dict(provenance or _weights(family, slice_)),
        "training": {k: v for k, v in family.training.items() if k == "imported" or not slice_.weights},
        "front": [{"name": s.name, "macs": s.macs, "top1": s.top1} for s in family.slices],
        # Keras had no part in what is cut from a family.
        "versions": versions() if (provenance or {}).get("finetuned") else versions(OF_PLAN),
        "files": dict(files),
    }


def _weights(family: Family, slice_: Slice) -> dict[str, Any]:
    """Return which weights a slice was made of: the supernet's, or files of its own."""
    if slice_.weights is None:
        return {"supernet_sha256": family.weights.sha256 if family.weights else None}
    files = {record.name: record.sha256 for record in family.weight_files(slice_)}
    return {"supernet_sha256": None, "weights": files}


def _architecture(slice_: Slice) -> dict[str, Any]:
    """Return a child and its space, or a list of blocks."""
    if slice_.spec is None:
        return {"blocks": slice_.network.to_json()}
    return {"child": slice_.spec.to_json(), "space": slice_.spec.space.to_json()}


def read(folder: Path) -> tuple[Network, Mapping[str, Any], keras.Model]:
    """Load a slice folder's network; every file it lists is checked first.

    Returns:
        The network as data, the content of slice.json, and the calibrated Keras model.

    Raises:
        IntegrityError: slice.json is not valid, or a file is missing or differs from its sha256.
    """
    description, plain = read_plain(folder)
    return plain.network, description, built(plain)


def read_plain(folder: Path) -> tuple[Mapping[str, Any], WeightedNetwork]:
    """Do `read`'s work without Keras: return the content of slice.json, and the network with its weights."""
    from bignas_zoo.models.slicing import child_shapes
    from bignas_zoo.models.weighted import WeightedNetwork
    from bignas_zoo.models.weights import check_shapes, read_weights

    slice_, description = describe(folder)
    check_files(folder)
    weights = read_weights(folder / names.WEIGHTS)
    check_shapes(weights, child_shapes(slice_.network, statistics=True), "child weights")
    return description, WeightedNetwork(slice_.network, weights)


def file_info(description: Mapping[str, Any], *, pixels: bool = False) -> FileInfo:
    """Return what an exported file says of itself, from the content of slice.json.

    Args:
        description: needs name, class_names, preprocess, macs and resolution; folders older than the key lack the
            license.
        pixels: whether the file normalises pixel values itself.
    """
    from bignas_zoo.export import describe

    return describe.file_info(
        description["name"], description["class_names"], description["preprocess"],
        macs=description["macs"], resolution=description["resolution"], pixels=pixels,
        license=description.get("license") or UNKNOWN,
    )  # fmt: skip


def to_json(
    slice_: Slice, folder: Path, files: Mapping[str, Mapping[str, Any]], parity: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what every command that writes a slice folder prints of it.

    Args:
        slice_: the slice.
        folder: its folder.
        files: file name to ``{"bytes": ..., "sha256": ...}``.
        parity: report of the comparison with the Keras child.
    """
    return {
        **slice_.to_json(),
        "bytes": files[names.TFLITE]["bytes"],
        "path": str(folder),
        "files": {name: dict(entry) for name, entry in files.items()},
        "parity_max_abs": parity["max_abs"],
        "parity": dict(parity),
    }
