"""A slice's card: a pure function from its description to Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from bignas_zoo.budget import amount
from bignas_zoo.plan import plan_child
from bignas_zoo.space import ChildSpec

TEMPLATE = Path(__file__).parent / "template.md.j2"


def render_card(description: Mapping[str, Any], spec: ChildSpec) -> str:
    """Render the README of a slice folder.

    Args:
        description: the content of slice.json; every number of the card is in it or in the plan.
        spec: the slice's architecture.

    Returns:
        Markdown.

    Raises:
        jinja2.UndefinedError: the description lacks a value the card needs.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    blocks = [
        {
            "name": b.name, "size_in": b.size_in, "cin": b.cin, "mid": b.mid, "cout": b.cout,
            "kernel": b.kernel, "stride": b.stride, "expands": b.expands, "macs": sum(op.macs for op in b.ops),
        }
        for b in plan_child(spec)
    ]  # fmt: skip
    text: str = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        **description,
        classes=spec.space.classes,
        tuned=dict(description["provenance"]).get("finetuned"),
        blocks=blocks,
        macs_text=amount("macs", description["macs"]),
    )
    return text
