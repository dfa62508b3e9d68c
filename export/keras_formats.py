"""A child in Keras's and TensorFlow's own formats, which load without this package."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.lowering import IMAGE, SCORES
from bignas_zoo.errors import UsageError
from bignas_zoo.export.tflite_writer import SIGNATURE
from bignas_zoo.files import names
from bignas_zoo.files.store import atomic_write, new_folder, scratch_folder
from bignas_zoo.models.backend import keras
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.tensorflow import tf
from bignas_zoo.runtime.quiet import quiet_native

METADATA, CONFIG, MARKER = "metadata.json", names.CONFIG, names.SAVED_MODEL
#: The earliest time a zip archive can hold stands for all times, so that the same child gives the same bytes.
NO_TIME, NO_DATE = (1980, 1, 1, 0, 0, 0), "1980-01-01@00:00:00"


def to_keras(child: keras.Model, path: Path | str) -> int:
    """Write a child as a ``.keras`` file, atomically; the same child gives the same bytes.

    ``keras.models.load_model(path)`` gives it back where only Keras is installed. The file has no optimizer.

    Args:
        child: from ``[batch, size, size, 3]``, normalised, to logits; made of Keras's own layers.
        path: the file to write; its name ends in ``.keras``.

    Returns:
        Its size in bytes.

    Raises:
        UsageError: another ending, or layers that are not Keras's own.
        LocalIOError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise UsageError(f"{path}: Keras loads only files whose names end in .keras. Name it {path.stem}.keras.")
    config = child.get_config()
    _check_plain(config)
    bare = keras.Model.from_config(config)  # without optimizer and metrics
    bare.set_weights(child.get_weights())
    with scratch_folder() as folder:
        raw = folder / "model.keras"
        bare.save(raw)
        data = _timeless(raw)
    atomic_write(path, data)
    return len(data)


def to_saved_model(
    child: keras.Model, folder: Path | str, *, preprocess: Preprocess | None = None, force: bool = False
) -> int:
    """Write a child as a TensorFlow SavedModel, atomically.

    ``tf.saved_model.load(folder).signatures["classify"](image=...)["scores"]`` runs it where only TensorFlow is
    installed; servers find the same under "serving_default".

    Args:
        child: from ``[batch, size, size, 3]`` to logits.
        folder: the folder to make; its scores are softmax, its batch is free.
        preprocess: if given, the model takes pixel values 0 to 255 and normalises them itself.
        force: whether a SavedModel that is already there may be replaced.

    Returns:
        The size of its files in bytes.

    Raises:
        UsageError: Keras runs on another backend than TensorFlow.
        LocalIOError: the folder exists and `force` is false, or it cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"export: Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before the first import."
        )

    def classify(image: Any) -> Any:
        x = preprocess.normalise(image) if preprocess else image
        return {SCORES: tf.nn.softmax(child(x, training=False), name=SCORES)}

    archive = keras.export.ExportArchive()
    archive.track(child)
    signature = [tf.TensorSpec((None, *child.input_shape[1:]), tf.float32, name=IMAGE)]
    archive.add_endpoint(name=SIGNATURE, fn=classify, input_signature=signature)
    with new_folder(Path(folder), force=force, marker=MARKER) as temporary:
        with quiet_native():
            archive.write_out(str(temporary), verbose=False)
        return sum(file.stat().st_size for file in temporary.rglob("*") if file.is_file())


def _timeless(path: Path) -> bytes:
    """Return a .keras file's bytes without what differs from call to call: times, and memory addresses as names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in sorted(old.namelist()):
            content = old.read(name)
            if name == METADATA:
                content = json.dumps({**json.loads(content), "date_saved": NO_DATE}).encode()
            elif name == CONFIG:
                content = json.dumps(_renumbered(json.loads(content))).encode()
            entry = zipfile.ZipInfo(name, NO_TIME)
            entry.create_system = 3  # as on Linux, wherever this runs
            new.writestr(entry, content)
    return buffer.getvalue()


def _renumbered(config: Any) -> Any:
    """Number shared objects from 1 in the order they come; Keras names them by their address."""
    numbers: dict[int, int] = {}
    for part in _parts(config):
        if "shared_object_id" in part:
            part["shared_object_id"] = numbers.setdefault(part["shared_object_id"], len(numbers) + 1)
    return config


def _check_plain(config: Any) -> None:
    """Refuse the configuration of a child that only the code which made it could load.

    Raises:
        UsageError: it has layers or functions that are not Keras's own.
    """
    foreign = {str(part["class_name"]) for part in _parts(config) if "registered_name" in part and not _is_keras(part)}
    if foreign:
        raise UsageError(
            f"export: the model has parts that Keras alone cannot load: {', '.join(sorted(foreign))}. "
            "Build it of keras.layers."
        )


def _is_keras(part: dict[str, Any]) -> bool:
    module = str(part.get("module")).split(".")[0]
    return module == "keras" and ">" not in str(part["registered_name"])


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Give each mapping within a configuration, outer ones first."""
    if isinstance(config, dict):
        yield config
    if isinstance(config, dict | list | tuple):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _parts(value)
