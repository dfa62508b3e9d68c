"""Device tables as files: ``bignas-zoo/device/1`` and ``/2``, described in docs/FORMAT.md."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bignas_zoo.errors import IntegrityError, LocalIOError, UsageError, reason
from bignas_zoo.files import strict_json
from bignas_zoo.files.formats import PRECISIONS
from bignas_zoo.files.records import reading
from bignas_zoo.files.store import atomic_write, read_json
from bignas_zoo.latency.cost_model import CostModel, Work
from bignas_zoo.latency.interpolation import HeldOut
from bignas_zoo.latency.keys import FIELDS, LARGEST, BlockKey
from bignas_zoo.latency.measurement import Measurement
from bignas_zoo.latency.table import DeviceTable, Protocol
from bignas_zoo.latency.validation import Validation, number
from bignas_zoo.latency.whole_networks import Figure, MeasuredNetwork

SCHEMA = "bignas-zoo/device/1"
#: With a space, parts, a model or whole networks, which the first one lacks.
WIDER = "bignas-zoo/device/2"
#: Of a table's name, which budgets hold.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
COLUMNS = (*FIELDS, "count", "mean_ms", "std_ms")
#: A reader refuses more; the largest table here has some 3,500 rows in half a megabyte.
MOST_BYTES, MOST_ROWS, MOST_PARTS = 32 << 20, 100_000, 100
TEXTS = ("source", "license", "coverage", "note")
TIMES = ("wall", "thread_cpu", None)
MOST_MS, MOST_TEXT = 1e7, 4000
FACTORS = ("full_ms", "depthwise_ms", "values_ms", "weights_ms")
REMEASURE = "Measure it again (`bignas-zoo profile`), or get a whole copy; docs/FORMAT.md has the format."


def read_table(path: str | Path) -> DeviceTable:
    """Read a device's table.

    Raises:
        LocalIOError: there is no such file, or it cannot be read.
        IntegrityError: it is too large, not JSON, or breaks a rule of docs/FORMAT.md.
    """
    path = Path(path)
    try:
        regular, size = path.is_file(), path.stat().st_size
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
    if not regular:
        raise LocalIOError(f"{path}: is not a file.")
    if size > MOST_BYTES:
        raise IntegrityError(f"{path}: not a device table: {size:,} bytes, allowed are {MOST_BYTES:,}.")
    data = read_json(path)
    with reading(f"{path}: not a valid device table", REMEASURE):
        return from_json(data)


def write_table(path: str | Path, table: DeviceTable) -> None:
    """Write a table, one row a line.

    Raises:
        UsageError: the table breaks a rule of docs/FORMAT.md, so that it could not be read again.
        LocalIOError: the file cannot be written.
    """
    try:
        data = text(table).encode()
        from_json(strict_json.loads(data))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError(
            f"{path}: this table could not be read again ({reason(error)}), so it is not written."
        ) from error
    atomic_write(Path(path), data)


def text(table: DeviceTable) -> str:
    """Return a table as the text of its file."""
    data = to_json(table)
    parts = data.pop("parts", [])
    body = _text_of(data)
    if parts:
        body = body.removesuffix("\n}") + ',\n  "parts": [\n' + ",\n".join(map(_text_of, parts)) + "\n  ]\n}"
    return body + "\n"


def _text_of(data: dict[str, Any]) -> str:
    lists = {name: data.pop(name) for name in ("in_overhead", "rows")}
    head = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    return head + "".join(f',\n  "{name}": {_lines(lists[name])}' for name in lists) + "\n}"


def _lines(rows: list[list[Any]]) -> str:
    lines = ",\n".join("    " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return f"[\n{lines}\n  ]" if rows else "[]"


def to_json(table: DeviceTable) -> dict[str, Any]:
    """Return a table as JSON data."""
    wider = _wider(table)
    data = {"schema": WIDER if wider or table.parts else SCHEMA, **_part_to_json(table), **wider}
    if table.parts:
        data["parts"] = [{**_part_to_json(part), **_wider(part)} for part in table.parts]
    return data


def _wider(table: DeviceTable) -> dict[str, Any]:
    """Return what the first schema lacks, as far as a table has it."""
    wider: dict[str, Any] = {"space": table.space} if table.space else {}
    if table.model:
        wider["model"] = dataclasses.asdict(table.model)
    if table.networks:
        wider["fixed_share"] = table.fixed_share
        wider["networks"] = [
            {
                "name": network.name,
                "source": network.source,
                "blocks": [key.to_json() for key in network.blocks],
                "figures": [list(dataclasses.astuple(figure)) for figure in network.figures],
            }
            for network in table.networks
        ]
    return wider


def _part_to_json(table: DeviceTable) -> dict[str, Any]:
    return {
        "name": table.name,
        "protocol": table.protocol.to_json(),
        **{name: getattr(table, name) for name in TEXTS},
        "overhead_ms": table.overhead_ms,
        "scale": table.scale,
        "interpolation": {kind: dataclasses.asdict(errors) for kind, errors in table.interpolation.items()},
        "validation": table.validation and table.validation.to_json(),
        "columns": list(COLUMNS),
        "in_overhead": [key.to_json() for key in sorted(table.in_overhead, key=BlockKey.to_json)],
        "rows": [[*key.to_json(), m.count, m.mean_ms, m.std_ms] for key, m in table.rows.items()],
    }


def from_json(data: Mapping[str, Any]) -> DeviceTable:
    """Read a table from JSON data; raises KeyError, TypeError or ValueError."""
    if not isinstance(data, dict):
        raise ValueError("a table is a JSON object")
    if data["schema"] not in (SCHEMA, WIDER):
        raise ValueError(f"schema is {data['schema']!r:.60}, this version reads {SCHEMA!r} and {WIDER!r}")
    table = _part_from_json(data)
    parts = tuple(map(_part_from_json, _list(data.get("parts", []), "parts", MOST_PARTS)))
    if any(part.name != table.name for part in parts) or any("parts" in part for part in data.get("parts", [])):
        raise ValueError("a part has the name of its table, and no parts of its own")
    for part in parts:
        if part.protocol != table.protocol:
            raise ValueError(f"the part of space '{part.space}' has another protocol than its table")
    return dataclasses.replace(table, parts=parts)


def _part_from_json(data: Mapping[str, Any]) -> DeviceTable:
    if data["columns"] != list(COLUMNS):
        raise ValueError(f"columns must be {', '.join(COLUMNS)}")
    texts = {field: _text(data[field], field) for field in TEXTS}
    return DeviceTable(
        name=name(data["name"]),
        protocol=_protocol(data["protocol"]),
        rows=_rows_from_json(data["rows"], some=not data.get("networks")),
        overhead_ms=number(data["overhead_ms"], "overhead_ms", 0, MOST_MS),
        scale=number(data["scale"], "scale", 1e-6, 1e6),
        in_overhead=frozenset(BlockKey.from_json(key) for key in _list(data["in_overhead"], "in_overhead")),
        interpolation={kind: _held_out(errors) for kind, errors in sorted(data["interpolation"].items())},
        validation=None if data["validation"] is None else Validation.from_json(data["validation"]),
        source=texts["source"],
        license=texts["license"],
        coverage=texts["coverage"],
        note=texts["note"],
        space=_text(data.get("space", ""), "space"),
        model=_model(data["model"]) if "model" in data else None,
        networks=tuple(map(_network, _list(data.get("networks", []), "networks"))),
        fixed_share=_share(data.get("fixed_share")),
    )


def name(value: Any) -> str:
    """Check a device's name; raises ValueError."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError(f"name {value!r:.80} is not 1 to 64 letters, digits, '.', '_' and '-'")
    return value


def _protocol(data: Mapping[str, Any]) -> Protocol:
    known = [f.name for f in dataclasses.fields(Protocol)]
    if sorted(data) != sorted(known):
        raise ValueError(f"protocol must hold {', '.join(known)}")
    for field in ("device", "runtime"):
        if not _text(data[field], field):
            raise ValueError(f"protocol's {field} is empty")
    for field in ("version", "delegate", "clocks", "date"):
        if data[field] is not None:
            _text(data[field], field)
    if data["precision"] not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")
    if data["time"] not in TIMES:
        raise ValueError("time must be wall, thread_cpu or null")
    for field in ("threads", "batch"):
        if not (field == "threads" and data[field] is None) and not (
            type(data[field]) is int and 1 <= data[field] <= 65536
        ):
            raise ValueError(f"{field} must be a whole number above 0")
    return Protocol(**data)


def _model(data: Mapping[str, Any]) -> CostModel:
    factors = {name: number(data[name], name, 0, MOST_MS) for name in (*FACTORS, "each_ms")}
    work = {f.name: number(data["most"][f.name], f.name, 0, 1e9) for f in dataclasses.fields(Work)}
    return CostModel(**factors, most=Work(**work))


def _share(value: Any) -> float | None:
    return None if value is None else number(value, "fixed_share", 0, 1)


def _network(data: Mapping[str, Any]) -> MeasuredNetwork:
    blocks = tuple(BlockKey.from_json(key) for key in _list(data["blocks"], "blocks of a network"))
    figures = tuple(_figure(*figure) for figure in _list(data["figures"], "figures of a network"))
    if not blocks or not figures or len({figure.size for figure in figures}) < len(figures):
        raise ValueError("a network needs blocks, and a figure for each of its sizes")
    return MeasuredNetwork(_text(data["name"], "name"), _text(data["source"], "source"), blocks, figures)


def _figure(size: Any, ms: Any, rounded_ms: Any) -> Figure:
    if type(size) is not int or not 1 <= size <= LARGEST:
        raise ValueError(f"size must be a whole number of 1 to {LARGEST:,}, got {size!r:.40}")
    return Figure(size, number(ms, "ms", 1e-9, MOST_MS), number(rounded_ms, "rounded_ms", 0, MOST_MS))


def _rows_from_json(data: Any, *, some: bool) -> dict[BlockKey, Measurement]:
    rows: dict[BlockKey, Measurement] = {}
    for i, row in enumerate(_list(data, "rows")):
        if not isinstance(row, list) or len(row) != len(COLUMNS):
            raise ValueError(f"row {i + 1} does not have {len(COLUMNS)} values")
        try:
            key = BlockKey.from_json(row[:-3])
            measured = _measurement(*row[-3:])
        except (ValueError, TypeError) as error:
            raise ValueError(f"row {i + 1}: {error}") from error
        if key in rows:
            raise ValueError(f"row {i + 1} repeats {key}")
        rows[key] = measured
    if some and not any(row.mean_ms for row in rows.values()):
        raise ValueError("no rows that take any time" if rows else "no rows")
    return rows


def _measurement(count: Any, mean: Any, std: Any) -> Measurement:
    if count is not None and (type(count) is not int or not 1 <= count <= 10**12):
        raise ValueError(f"count must be a whole number above 0 or null, got {count!r:.40}")
    return Measurement(
        number(mean, "mean_ms", 0, MOST_MS), None if std is None else number(std, "std_ms", 0, MOST_MS), count
    )


def _held_out(data: Mapping[str, Any]) -> HeldOut:
    if type(data["rows"]) is not int:
        raise ValueError("interpolation's rows must be a whole number")
    return HeldOut(data["rows"], *(number(data[what], what, 0, 1e6) for what in ("mape", "p95", "worst")))


def _list(value: Any, what: str, most: int = MOST_ROWS) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{what} must be a list of up to {most:,}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > MOST_TEXT or not value.replace("\n", "").isprintable():
        raise ValueError(f"{what} must be text of up to {MOST_TEXT:,} printable characters")
    return value
