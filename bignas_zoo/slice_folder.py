"""Slice folders: what `get` writes and `load` reads (normative: docs/FORMAT.md).

``model.tflite``, ``model.safetensors``, ``labels.txt``, ``README.md`` and ``slice.json``, which
describes the slice and holds the sha256 of the other four.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo import store
from bignas_zoo.errors import IntegrityError
from bignas_zoo.provenance import versions
from bignas_zoo.registry import Family, Slice, class_names, contract
from bignas_zoo.space import ChildSpec, SearchSpace

if TYPE_CHECKING:
    import keras

SCHEMA = "bignas-zoo/slice/1"
SLICE_FILE = "slice.json"
TFLITE, WEIGHTS, LABELS, CARD = "model.tflite", "model.safetensors", "labels.txt", "README.md"
PARITY_IMAGES = 16


def write(folder: Path, family: Family, chosen: Slice, child: keras.Model) -> None:
    """Export a calibrated child and write its folder's files.

    Args:
        folder: an existing, empty folder.
        family: gives labels and the input contract.
        chosen: the slice.
        child: its calibrated Keras model.

    Raises:
        QualityError: the exported file does not compute what the child computes.
        LocalIOError: a file cannot be written.
    """
    import numpy as np

    from bignas_zoo.export.parity import check_tflite
    from bignas_zoo.export.tflite import convert
    from bignas_zoo.hub_cards.card import render_card
    from bignas_zoo.models.child import get_weights
    from bignas_zoo.models.weights import write_weights

    data = convert(child)
    inputs = np.random.default_rng(0).normal(size=(PARITY_IMAGES, *child.input_shape[1:])).astype(np.float32)
    parity = check_tflite(child, data, inputs, "random inputs (normal, seed 0)")
    store.atomic_write(folder / TFLITE, data)
    write_weights(folder / WEIGHTS, get_weights(child, chosen.spec), {"slice": chosen.name})
    store.atomic_write(folder / LABELS, "".join(f"{c}\n" for c in family.class_names).encode())
    description = {
        "schema": SCHEMA,
        **chosen.to_json(),
        "bytes": len(data),
        "child": chosen.spec.to_json(),
        "space": chosen.spec.space.to_json(),
        "class_names": list(family.class_names),
        "preprocess": dict(family.preprocess),
        "output": "softmax scores; model.safetensors and Keras give logits",
        "parity": parity.to_json(),
        "provenance": {"supernet_sha256": family.weights.sha256 if family.weights else None},
        "versions": versions(),
        "license": "Apache-2.0",
        "files": {name: store.record(folder / name) for name in (TFLITE, WEIGHTS, LABELS)},
    }
    store.atomic_write(folder / CARD, render_card(description, chosen.spec).encode())
    description["files"] |= {CARD: store.record(folder / CARD)}
    store.write_json(folder / SLICE_FILE, description)


def read(folder: Path) -> tuple[ChildSpec, Mapping[str, Any], keras.Model]:
    """Load a slice folder's network; every file it lists is checked first.

    Returns:
        The child's spec, the content of slice.json, and the calibrated Keras model.

    Raises:
        IntegrityError: slice.json is not valid, or a file is missing or differs from its sha256.
    """
    description = store.read_json(folder / SLICE_FILE)
    try:
        if description["schema"] != SCHEMA:
            raise ValueError(f"schema is {description['schema']!r}, this version reads {SCHEMA!r}")
        spec = ChildSpec.from_json(description["child"], SearchSpace.from_json(description["space"]))
        listed = {str(name): (str(e["sha256"]), int(e["bytes"])) for name, e in description["files"].items()}
        class_names(description["class_names"], spec.space.classes)
        contract(description["preprocess"])
        if not isinstance(description["name"], str):
            raise ValueError("name is not text")
        if not {TFLITE, WEIGHTS, LABELS} <= listed.keys() <= {TFLITE, WEIGHTS, LABELS, CARD}:
            raise ValueError(f"files are {sorted(listed)}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"{folder / SLICE_FILE}: not a valid slice description ({type(error).__name__}: {error}). {REMAKE}"
        ) from error
    for name, (expected, size) in listed.items():
        store.verify(folder / name, expected, size=size, fix=REMAKE)

    from bignas_zoo.models.child import build_child, set_weights
    from bignas_zoo.models.weights import read_weights

    child = build_child(spec)
    set_weights(child, spec, read_weights(folder / WEIGHTS))
    return spec, description, child


REMAKE = "Make the folder again with `bignas-zoo get`."
