"""`list --hub`: the slices of a user or organisation on the Hub, by what their cards say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bignas_zoo.hub.address import NAME, check_owner
from bignas_zoo.hub.client import Hub
from bignas_zoo.hub_cards.metadata import TAG


@dataclasses.dataclass(frozen=True)
class Listed:
    """A slice that a Hub lists; figures are those of its card, None where it has none.

    Attributes:
        repo: ``ORG/NAME``.
        commit: of its main branch.
        modified: when that was made, as the Hub writes it.
        private: whether others cannot see it.
        name, family: of the slice.
        macs, parameters, bytes, resolution, top1: as in `Slice`.
    """

    repo: str
    commit: str | None
    modified: str
    private: bool
    name: str | None
    family: str | None
    macs: int | None
    parameters: int | None
    bytes: int | None
    resolution: int | None
    top1: float | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"address": f"hf://{self.repo}", **dataclasses.asdict(self)}


def list_hub(owner: str) -> list[Listed]:
    """Return the slices of a user or organisation on the Hub, by what their cards say; nothing is fetched.

    Raises:
        UsageError: this cannot be an owner.
        AuthError, NetworkError: see `client.Hub`.
    """
    rows = [_listed(row) for row in Hub().models(check_owner(owner), TAG)]
    return sorted((r for r in rows if r), key=lambda r: (r.family or "", r.macs or 0, r.repo))


def _listed(row: Mapping[str, Any]) -> Listed | None:
    """Return a row of a listing; anything in it may have been written by anybody."""
    parts = str(row["id"]).split("/")
    if len(parts) != 2 or not all(NAME.fullmatch(part) for part in parts):
        return None
    card = row["card"] if isinstance(row["card"], dict) else {}
    own = card.get("bignas_zoo")
    facts: Mapping[str, Any] = own if isinstance(own, dict) else {}
    return Listed(
        repo=str(row["id"]),
        commit=row["sha"] if isinstance(row["sha"], str) else None,
        modified=str(row["modified"])[:40],
        private=bool(row["private"]),
        name=_text(facts.get("name")),
        family=_text(facts.get("family")),
        macs=_whole(facts.get("macs")),
        parameters=_whole(facts.get("parameters")),
        bytes=_whole(facts.get("bytes")),
        resolution=_whole(facts.get("resolution")),
        top1=_percent(facts.get("top1")),
    )


def _text(value: object) -> str | None:
    return value[:96] if isinstance(value, str) and value.isascii() and value.isprintable() else None


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 60 else None


def _percent(value: object) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value <= 100 else None  # type: ignore[arg-type, operator]
