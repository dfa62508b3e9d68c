"""Slice folders: what they hold, and what their descriptions say (normative: docs/FORMAT.md).

``model.tflite``, ``model.safetensors``, ``labels.txt``, ``README.md`` and ``slice.json``, which
describes the slice and holds the sha256 of the other four, and a digest of its own content.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import IntegrityError
from bignas_zoo.files import names, records, store
from bignas_zoo.files.records import class_names, is_inside, line, printable, reading
from bignas_zoo.zoo import photographs
from bignas_zoo.zoo.slice import Facts, Slice, read_slice

SCHEMA = "bignas-zoo/slice/2"
EXPORTS_SCHEMA = "bignas-zoo/exports/2"
#: What the name of an export that missed its gate ends with.
REJECTED = ".rejected"


def describe(folder: Path) -> tuple[Slice, Mapping[str, Any]]:
    """Read a slice folder's description alone: no file but slice.json is opened.

    Returns:
        The slice, and the content of slice.json.

    Raises:
        IntegrityError: slice.json is not valid.
        LocalIOError: it cannot be read.
    """
    description = store.read_json(folder / names.SLICE)
    with reading(f"{folder / names.SLICE}: not a valid slice description", REMAKE):
        if description["schema"] != SCHEMA:
            raise ValueError(f"schema is {description['schema']!r}, this version reads {SCHEMA!r}")
        space = None if "blocks" in description else SearchSpace.from_json(description["space"])
        listed = _listed(description)
        facts = Facts.from_json(description, _family(description.get("family", "")))
        _check_printed(description)
        needed = {names.TFLITE, names.WEIGHTS, names.LABELS}
        if not needed <= listed.keys() <= needed | {names.CARD, names.NOTICE, names.TRAINING_IMAGES}:
            raise ValueError(f"files are {sorted(listed)}")
        if facts.calibration == photographs.TRAINING and names.TRAINING_IMAGES not in listed:
            raise ValueError(f"calibration is {facts.calibration!r}, but files lacks {names.TRAINING_IMAGES}")
        size = listed[names.TFLITE][1]
        entry = {**UNMEASURED, **description, "bytes": size, "spec": description.get("child"), "arena_bytes": None}
        entry["statistics"] = entry["weights"] = {"file": names.WEIGHTS, **description["files"][names.WEIGHTS]}
        slice_ = read_slice(entry, facts, space)
        class_names(description["class_names"], slice_.network.classes)
        _check_figures(description, slice_)
        printable(description)
        store.check_seal(description)
        own = _derived(slice_)
        figures = {key: own[key] for key in ("macs", "parameters", "resolution") if key not in description}
        return dataclasses.replace(slice_, folder=folder), {**description, **figures}


def check_files(folder: Path) -> None:
    """Compare the files that slice.json lists with their sizes and sha256, and the labels with its classes.

    Raises:
        IntegrityError: slice.json is not valid, or a file is missing or differs.
    """
    _, description = describe(folder)
    for name, (expected, size) in _listed(description).items():
        store.verify(folder / name, expected, size=size, fix=REMAKE)
    try:
        labels = (folder / names.LABELS).read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{folder / names.LABELS}: not UTF-8 text. {REMAKE}") from error
    if labels != list(description["class_names"]):
        raise IntegrityError(f"{folder / names.SLICE}: class_names are not those of {names.LABELS}. {REMAKE}")


def read_exports(folder: Path) -> dict[str, Any]:
    """Read what `export` has added to a slice folder; an empty list if nothing.

    Returns:
        ``{"schema": ..., "exports": [entry, ...]}``; of each entry ``file`` is checked to be a name in the folder.

    Raises:
        IntegrityError: exports.json is not valid.
    """
    path = folder / names.EXPORTS
    if not path.is_file():
        return {"schema": EXPORTS_SCHEMA, "exports": []}
    data = store.read_json(path)
    with reading(f"{path}: not a valid list of exports", "Remove it and export again."):
        if data["schema"] != EXPORTS_SCHEMA:
            raise ValueError(f"schema is {data['schema']!r}, this version reads {EXPORTS_SCHEMA!r}")
        for entry in data["exports"]:
            listed = [str(entry["file"]), *entry.get("files", {})]
            if not all(is_inside(PurePosixPath(name)) for name in listed):
                raise ValueError(f"{listed[0][:200]!r} is no name inside the folder")
            for record in (entry.get("files") or {"": entry}).values():
                int(record["bytes"]), str(record["sha256"])
        files = [entry["file"] for entry in data["exports"]]
        if len(set(files)) != len(files):
            raise ValueError("a file stands twice in it")
        printable(data)
        store.check_seal(data)
        return dict(data)


def _listed(description: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return sha256 and size of the files a description lists."""
    return {str(name): (str(e["sha256"]), int(e["bytes"])) for name, e in description["files"].items()}


def _family(value: Any) -> str:
    """Check the name of a slice's family, which older folders lack."""
    return "" if value == "" else records.name(value)


def _check_figures(description: Mapping[str, Any], slice_: Slice) -> None:
    """Check the figures that follow from the child and its files; a card shows them."""
    for key, own in _derived(slice_).items():
        if key in description and description[key] != own:
            raise ValueError(f"{key} is {description[key]!r:.40}, of this child it is {own}")


def _derived(slice_: Slice) -> dict[str, int | None]:
    """Return the figures that follow from a slice's network and file."""
    resolution = slice_.network.resolution
    return {"macs": slice_.macs, "parameters": slice_.parameters, "resolution": resolution, "bytes": slice_.bytes}


def _check_printed(description: Mapping[str, Any]) -> None:
    """Check what `get` prints of a description; raises KeyError, TypeError or ValueError."""
    parity = description["parity"]
    line(parity["inputs"])
    figures = [parity["max_abs"], parity["images"]]
    for row in description.get("latency") or ():
        line(row["device"])
        figures += [row["predicted_ms"], row["low_ms"], row["high_ms"]]
        protocol = row["protocol"]
        for text in (protocol["runtime"], protocol["precision"], str(protocol["threads"])):
            line(text)
    if not all(type(v) in (int, float) and 0 <= v < 1e15 for v in figures):
        raise ValueError("parity or latency holds what is no number")


#: A reader does not need the accuracy.
UNMEASURED = {"top1": None, "top1_images": None, "top1_source": "not measured", "holdout_top1": None}
REMAKE = "Make the folder again with the command that made it, `bignas-zoo get` or `bignas-zoo finetune`, and --force."
