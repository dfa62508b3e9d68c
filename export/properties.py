"""What an ONNX file says of itself: its ``metadata_props``, which are texts by name, written and read.

One place for the keys, so that apps find in every file what they must do to an image and what the scores mean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError
from bignas_zoo.models.preprocess import Preprocess

#: Keys whose values are free text; those of the others are JSON.
TEXTS = ("name", "description", "version", "author", "license")
LABELS, PREPROCESS, PROVENANCE = "labels", "preprocess", "provenance"
IN_GRAPH = "in the graph"
#: Bytes of all properties that are read.
MAX_BYTES = 1 << 24


def properties(
    *,
    name: str,
    description: str,
    version: str,
    author: str,
    license: str,
    class_names: Sequence[str],
    preprocess: Preprocess,
    resolution: int,
    normalised_in_graph: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Make the standard properties of an ONNX file, for `to_onnx(..., properties=...)`.

    Args:
        name, description, version, author, license: free text; the licence is that of the weights.
        class_names: one for each score, in order.
        preprocess: the family's input contract.
        resolution: side of the file's input in pixels.
        normalised_in_graph: whether the file takes pixel values 0 to 255.
        provenance: where the weights come from, as JSON data.

    Returns:
        Texts by key: the five as they are; ``labels`` (JSON list), ``preprocess`` (JSON: ``channels`` "RGB",
        ``range`` of the pixel values that ``mean`` and ``std`` are in units of, ``mean`` and ``std`` as lists or
        "in the graph", ``resize``, ``crop_size``, ``resolution``) and ``provenance`` (JSON).

    Raises:
        UsageError: a value is not what it should be.
    """
    contract = {**preprocess.to_json(), "range": [0, 255], "resolution": resolution}
    if normalised_in_graph:
        contract |= {"mean": IN_GRAPH, "std": IN_GRAPH}
    texts = dict(zip(TEXTS, (name, description, version, author, license), strict=True))
    try:
        result = texts | {
            LABELS: _json(list(class_names)),
            PREPROCESS: _json(contract),
            PROVENANCE: _json(dict(provenance or {})),
        }
        _checked(result)
    except (TypeError, ValueError) as error:
        raise UsageError(f"ONNX properties: {error}.") from error
    return result


def read_properties(model: Path | str | bytes) -> dict[str, Any]:
    """Read the standard properties of an ONNX file.

    Args:
        model: the file's path, or any bytes; nothing in them is trusted.

    Returns:
        The keys of `properties`, each checked: five texts, ``labels`` as a list of texts, ``preprocess`` and
        ``provenance`` as dicts. Other keys are left out.

    Raises:
        LocalIOError: the file cannot be read.
        IntegrityError: it is no ONNX file, is damaged, or lacks a property or has it in another form.
    """
    import onnx
    from google.protobuf.message import DecodeError

    where = "ONNX file" if isinstance(model, bytes) else str(model)
    try:
        data = model if isinstance(model, bytes) else Path(model).read_bytes()
        parsed = onnx.ModelProto.FromString(data)
        entries = [(entry.key, entry.value) for entry in parsed.metadata_props]
        if sum(len(key) + len(value) for key, value in entries) > MAX_BYTES:
            raise ValueError(f"its properties are over {MAX_BYTES:,} characters")
        twice = {key for key, _ in entries if [k for k, _ in entries].count(key) > 1}
        if twice:
            raise ValueError(f"the property '{min(twice)[:40]}' is there twice")
        properties = _checked(dict(entries))
        scores = [dim.dim_value for dim in parsed.graph.output[0].type.tensor_type.shape.dim]
        if scores[-1] != len(properties[LABELS]):
            raise ValueError(f"{len(properties[LABELS])} labels for {scores[-1]} scores")
    except OSError as error:
        raise LocalIOError(f"{where}: cannot be read ({error.strerror}).") from error
    except (DecodeError, ValueError, IndexError, RecursionError) as error:
        raise IntegrityError(
            f"{where}: no ONNX file of an image classifier, or damaged ({str(error)[:120]})."
        ) from error
    return properties


def _checked(entries: Mapping[str, str]) -> dict[str, Any]:
    """Return the properties as values.

    Raises:
        ValueError: one is missing or has another form.
    """
    for key in (*TEXTS, LABELS, PREPROCESS, PROVENANCE):
        if not isinstance(entries.get(key), str):
            raise ValueError(f"the property '{key}' is missing or no text")
    properties: dict[str, Any] = {key: entries[key] for key in TEXTS}
    for key, fits in FORMS.items():
        try:
            properties[key] = json.loads(entries[key], parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the property '{key}' is not valid JSON") from error
        if not fits(properties[key]):
            raise ValueError(f"the property '{key}' has not the form that it should have")
    return properties


def _is_labels(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, str) and item for item in value)


def _is_contract(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    sides = [value.get(key) for key in ("crop_size", "resolution")]
    mean, std = value.get("mean"), value.get("std")
    numbers = _is_three(mean) and isinstance(std, list) and _is_three(std) and min(std) > 0
    return (
        all(type(side) is int and side > 0 for side in sides)
        and all(isinstance(value.get(key), str) for key in ("channels", "resize"))
        and value.get("range") == [0, 255]
        and (numbers or (mean == IN_GRAPH and std == IN_GRAPH))
    )


def _is_three(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(item) in (int, float) for item in value)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)


FORMS: dict[str, Callable[[Any], bool]] = {
    LABELS: _is_labels,
    PREPROCESS: _is_contract,
    PROVENANCE: lambda value: isinstance(value, dict),
}
