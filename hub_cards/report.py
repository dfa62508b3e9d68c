"""The report of a training on one's own photographs: one page that holds all it shows, to be sent to a colleague."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from bignas_zoo.errors import IntegrityError, NotFoundError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.formats import REPORT_SCHEMA, THUMBNAIL
from bignas_zoo.files.provenance import versions
from bignas_zoo.files.records import reading
from bignas_zoo.hub_cards.plots import plot_curve, plot_front
from bignas_zoo.zoo.family import Family, load_family

TEMPLATE = "report.html.j2"
REMAKE = "Run `bignas-zoo train photos` with the same --output again."


def render_report(run: Path, latency: Mapping[str, Callable[[Any], str]] | None = None) -> str:
    """Return the report of a run as one HTML page without any address of other files.

    Args:
        run: the run's folder, of `train photos`.
        latency: devices to show, each with what says a slice's milliseconds there.

    Raises:
        NotFoundError: no such run, or it is not finished.
        IntegrityError: a file of it is damaged.
    """
    if not (run / names.REPORT_DATA).is_file():
        raise NotFoundError(f"{run}: holds no finished run of `bignas-zoo train photos` (no {names.REPORT_DATA}).")
    data = store.read_json(run / names.REPORT_DATA)
    family = load_family(run / names.FAMILY_FOLDER)
    with reading(f"{run / names.REPORT_DATA}: not as this version writes it", REMAKE):
        if data["schema"] != REPORT_SCHEMA:
            raise ValueError(f"schema is {data['schema']!r}")
        store.check_seal(data)
        values = _values(data, family, latency or {})
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, loader=loader)
    values |= {
        "plots": _plots(family),
        "family_folder": f"{run.name}/{names.FAMILY_FOLDER}",
        "version": versions()["bignas-zoo"],
    }
    return environment.get_template(TEMPLATE).render(**values)


def _values(data: Mapping[str, Any], family: Family, latency: Mapping[str, Callable[[Any], str]]) -> dict[str, Any]:
    confusion = [[int(n) for n in row] for row in data["confusion"]]
    if len(confusion) != len(family.class_names) or any(len(row) != len(confusion) for row in confusion):
        raise ValueError("its confusion matrix is not of the family's classes")
    if any(not str(error["image"]).startswith(THUMBNAIL) for error in data["errors"]):
        raise ValueError("a thumbnail is no JPEG inside the file")
    slices = [
        {**s.to_json(), "bytes": s.bytes or 0, "latency": [say(s) for say in latency.values()]} for s in family.slices
    ]
    training = {key: str(family.training.get(key, "")) for key in ("notes", "machine", "command")}
    return {
        "name": family.name,
        "classes": family.class_names,
        "slices": slices,
        "devices": list(latency),
        "judged_on": str(data["judged_on"]),
        "judged_slice": str(data["judged_slice"]),
        "remarks": [str(remark) for remark in data["remarks"]],
        "counts": {str(part): dict(counts) for part, counts in data["counts"].items()},
        "confusion": confusion,
        "shades": [[n / max(1, sum(row)) for n in row] for row in confusion],
        "right": [_percent(row, i) for i, row in enumerate(confusion)],
        "errors": [dict(error) for error in data["errors"]],
        "training": training,
        "license": family.license,
        "source": family.source,
        "budget": f"{family.slices[len(family.slices) // 2].macs / 1e6:.0f}",
    }


def _percent(row: Sequence[int], own: int) -> str:
    return f"{100 * row[own] / sum(row):.1f}" if sum(row) else "-"


def _plots(family: Family) -> dict[str, str]:
    """Return pictures as data addresses; "" without matplotlib."""
    drawn: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as place:
        for name, plot in (("front", plot_front), ("curve", plot_curve)):
            path = Path(place) / f"{name}.png"
            try:
                plot(family, path)
                drawn[name] = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            except (UsageError, IntegrityError):  # no matplotlib; a run too short for a curve
                drawn[name] = ""
    return drawn
