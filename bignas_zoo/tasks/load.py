"""`load`: a slice as a plain Keras model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.cutting import built, cut
from bignas_zoo.tasks.opening import Opened, SliceFolder, open_slice

if TYPE_CHECKING:
    import keras


def load(name: str | Path, *, family: str | Path | None = None, verify_key: str | Path | None = None) -> keras.Model:
    """Load a slice as a plain, calibrated Keras model.

    Args:
        name: of a slice, e.g. ``"bignas-cifar10-s"``; a folder that `get` made; or ``hf://ORG/NAME[@REVISION]``.
        family: where to look for the name.
        verify_key: file of the Ed25519 public key that must have signed a slice of the Hub.

    Returns:
        A model from normalised images ``[batch, resolution, resolution, 3]`` float32 to logits
        ``[batch, classes]`` float32.

    Raises:
        UsageError: a key for a slice that is not on the Hub, or a file that holds none.
        NotFoundError: no such slice, or it has no weights.
        IntegrityError: a file is missing or damaged, or not signed by `verify_key`.
        AuthError, NetworkError: the Hub does not give it.
    """
    need_keras("load")
    return network(open_slice(name, family, verify_key=verify_key))


def network(opened: Opened) -> keras.Model:
    """Return the calibrated network of an opened slice.

    Raises:
        NotFoundError: it has no weights.
        IntegrityError: a file is missing or damaged.
    """
    if isinstance(opened.home, SliceFolder):
        return slice_files.read(opened.home.path)[2]
    return built(cut(opened.home, opened.slice))
