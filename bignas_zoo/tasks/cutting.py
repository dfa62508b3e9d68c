"""From a family's weights to the network of one of its slices; every file is checked as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.files import store
from bignas_zoo.files.records import FileRecord
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bignas_zoo.models.weighted import WeightedNetwork


def cut(family: Family, slice_: Slice) -> WeightedNetwork:
    """Cut a slice's weights from its family's, with its stored batch-norm statistics.

    Raises:
        NotFoundError: the family has no weights.
        IntegrityError: a file is missing or damaged, or its weights are not those of the slice.
    """
    from bignas_zoo.models.slicing import child_shapes, slice_weights
    from bignas_zoo.models.weighted import WeightedNetwork
    from bignas_zoo.models.weights import check_shapes

    *shared, own = (_read_checked(family, record) for record in family.weight_files(slice_))
    weights = {**slice_weights(shared[0], slice_.network), **own} if shared else own
    check_shapes(weights, child_shapes(slice_.network, statistics=True), "child weights")
    return WeightedNetwork(slice_.network, {name: array.astype("float32") for name, array in weights.items()})


def built(cut_out: WeightedNetwork) -> keras.Model:
    """Return a network with its weights as a plain Keras model."""
    from bignas_zoo.models.child import build_child, set_weights

    child = build_child(cut_out.network)
    set_weights(child, cut_out.network, cut_out.weights)
    return child


def supernet_weights(family: Family, what: str) -> dict[str, np.ndarray]:
    """Load a family's shared weights after checking their sha256, as stored.

    Args:
        family: the family.
        what: that needs them, for the message.

    Raises:
        UsageError: its nets were trained one by one.
        NotFoundError: the family has no weights.
        IntegrityError: the file is missing or damaged.
    """
    return _read_checked(family, family.supernet(what)[1])


def check_weights(family: Family, slice_: Slice) -> None:
    """Check size and sha256 of a slice's weight files, and of the notice that goes with them.

    Raises:
        NotFoundError: the family has no weights.
        IntegrityError: a file is missing or damaged.
    """
    for record in (*family.weight_files(slice_), *filter(None, [family.notice])):
        verified_path(family, record)


def verified_path(family: Family, record: FileRecord) -> Path:
    """Return where a file of a family is; raises IntegrityError if it is missing, or not as recorded."""
    path = family.path(record)
    fix = "Reinstall bignas-zoo if the family came with it; else restore its folder: make or import it again."
    store.verify(path, record.sha256, size=record.bytes, fix=fix)
    return path


def _read_checked(family: Family, record: FileRecord) -> dict[str, np.ndarray]:
    from bignas_zoo.models.weights import read_weights

    return read_weights(verified_path(family, record))
