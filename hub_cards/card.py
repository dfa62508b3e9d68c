"""A slice's card: a pure function from its description to Markdown, with metadata the Hub reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan
from bignas_zoo.budget import amount
from bignas_zoo.files.records import UNKNOWN
from bignas_zoo.hub_cards.metadata import metadata

TEMPLATES = Path(__file__).parent
MAIN = "template.md.j2"
#: What a card shows of a family's `training` and of the recipe in it.
COUNTS = ("images", "held_out", "calibration_images")
SETTINGS = {
    "name", "space", "steps", "batch_size", "smallest_child", "random_children", "distillation", "optimizer",
    "learning_rate", "weight_decay", "label_smoothing", "dropout",
}  # fmt: skip


def render_card(
    description: Mapping[str, Any],
    network: Network,
    exports: Sequence[Mapping[str, Any]] = (),
    *,
    repo: str | None = None,
    plots: Sequence[str] = (),
    keras: bool = True,
) -> str:
    """Render the README of a slice: of its folder, or of its repository on the Hub.

    Args:
        description: the content of slice.json.
        network: the slice's architecture.
        exports: the entries of exports.json. Every number of the card is in one of these three, or in the plan.
        repo: ``ORG/NAME`` on the Hub, which the snippets then fetch from; None for a folder.
        plots: paths of pictures beside the card.
        keras: whether a repository has the layout that Keras loads.

    Returns:
        Markdown; its head is YAML.

    Raises:
        jinja2.UndefinedError: the description lacks a value the card needs.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, loader=jinja2.FileSystemLoader(TEMPLATES),
        finalize=_shown,
    )  # fmt: skip
    environment.filters |= {"cell": _cell, "command": _command, "prose": _prose}
    blocks = [
        {
            "name": b.name, "size_in": b.size_in, "cin": b.cin, "mid": b.mid, "cout": b.cout,
            "kernel": b.kernel, "stride": b.stride, "expands": b.expands, "macs": b.macs,
        }
        for b in plan(network)
    ]  # fmt: skip
    text: str = environment.get_template(MAIN).render(
        # Folders older than a key lack it.
        **{
            "latency": None,
            "license": UNKNOWN,
            "source": "",
            "published": None,
            "top1_standard_error": None,
            **description,
            "training": _training(description),
            "blocks": blocks,
            "arena_bytes": cost.arena(network),
        },
        metadata=metadata(description, exports, keras=keras),
        keras=keras,
        exports=exports,
        onnx=next((entry for entry in exports if entry["file"] == "model.onnx"), None),
        repo=repo,
        plots=plots,
        classes=network.classes,
        calibrated_on=_calibrated_on(description),
        imported=_imported(description),
        tuned=dict(description["provenance"]).get("finetuned"),
        is_child="blocks" not in description and not _own_weights(description),
        own_weights="blocks" in description or _own_weights(description),
        macs_text=amount("macs", description["macs"]),
    )
    return text


def _own_weights(description: Mapping[str, Any]) -> bool:
    """Return whether a child was never part of a supernet: its net was trained alone."""
    return bool(dict(description["provenance"]).get("weights"))


def _calibrated_on(description: Mapping[str, Any]) -> str | None:
    """Return which images of a user's a child was calibrated on; None where they were its family's."""
    images = dict(description["provenance"]).get("calibration")
    if not isinstance(images, dict) or type(images.get("images")) is not int:
        return None
    return f"{images['images']:,} {images.get('source', 'images')}"


def _imported(description: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what is known of the file that a slice's weights were imported from; None of this project's own."""
    training = description.get("training")
    if not isinstance(training, dict) or not isinstance(training.get("imported"), dict):
        return None
    record, images = training["imported"], training.get("calibrated_on")
    on = images if isinstance(images, dict) and type(images.get("images")) is int else None
    return {
        "source": str(record.get("source", "")),
        "sha256": str(record.get("file_sha256", ""))[:64],
        "published": record.get("is_published_file"),
        "calibrated_on": _calibrated_on(description) or (on and f"{on['images']:,} {on.get('source', 'images')}"),
    }


def _training(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how the family was trained, or nothing if that is not recorded in the form a card shows."""
    training = description.get("training")
    if not isinstance(training, dict):
        return {}
    recipe = training.get("recipe")
    counts = [training.get(key) for key in COUNTS]
    if not isinstance(recipe, dict) or not recipe.keys() >= SETTINGS or not {"machine", "command"} <= training.keys():
        return {}
    return training if all(type(n) is int for n in (*counts, recipe["steps"])) else {}


def _shown(value: object) -> object:
    """Return text of a slice.json, which anybody may have written, so that it stays text: no link, HTML or heading."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else _plain(value.replace("\n", " "))


def _plain(text: str) -> str:
    return text.replace("`", "'").replace("<", "&lt;").replace("[", "\\[").replace("]", "\\]")


def _prose(text: object) -> Markup:
    """Return text of several lines, each of them plain."""
    lines = (_plain(line) for line in str(text).splitlines())
    return Markup("\n".join(f"\\{line}" if line.startswith("#") else line for line in lines))


def _command(text: object) -> Markup:
    """Return what cannot leave its block of code."""
    return Markup(str(text).replace("`" * 3, "").replace("\n", " "))


def _cell(text: object) -> str:
    """Return text that stays within its cell of a Markdown table, whatever it holds."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
