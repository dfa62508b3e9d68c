"""`get`, `load` and `Slice.from_pretrained` of ``hf://ORG/NAME``, and what `list --hub` shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.errors import BigNASError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.hub.address import NAME, Address, check_owner, check_repo, check_revision
from bignas_zoo.hub.client import Hub
from bignas_zoo.hub.fetching import fetch
from bignas_zoo.hub_cards.metadata import TAG
from bignas_zoo.tasks.get import GetResult
from bignas_zoo.tasks.slices import Slice
from bignas_zoo.zoo import selection, slice_folder
from bignas_zoo.zoo.selection import Predictor

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable


def get_from_hub(
    address: str,
    *,
    budget: str | Budget | None = None,
    output: str | Path | None = None,
    force: bool = False,
    risk: str = "upper",
    tables: Sequence[DeviceTable] = (),
    offline: bool = False,
    verify_key: str | Path | None = None,
    say: Say = silent,
) -> GetResult:
    """Fetch a slice of the Hub and write it as a slice folder; see `tasks.get.get`.

    Raises:
        NothingFitsError: the slice does not meet the budget.
        LocalIOError: the output folder exists and differs, or cannot be written.
        UsageError, NotFoundError, AuthError, NetworkError, IntegrityError: see `fetching.fetch`.
    """
    limits = budget if budget is None or isinstance(budget, Budget) else Budget.parse(budget)
    predictor = Predictor.of(limits, risk=risk, tables=tables) if limits else Predictor(risk=risk)
    fetched = fetch(address, offline=offline, verify_key=verify_key, say=say)
    chosen, description = slice_folder.describe(fetched.folder)
    if limits:
        selection.check_fits(chosen, limits, predictor)
    files = {path.name: store.record(path) for path in sorted(fetched.folder.iterdir())}
    target = Path(output) if output is not None else Path(chosen.name)
    store.tidy_up(target)
    if not _holds(target, files):
        with store.new_folder(target, force=force) as folder:
            for name, record in files.items():
                store.copy(fetched.folder / name, folder / name)
                store.verify(folder / name, record["sha256"], fix="")
    chosen = dataclasses.replace(Slice.of(chosen), folder=target.absolute())
    latency = description.get("latency")
    return GetResult(chosen, target.absolute(), files, description["parity"], None, fetched.cached, latency)


def _holds(target: Path, files: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a folder holds exactly these files already."""
    try:
        if {path.name for path in target.iterdir()} != set(files):
            return False
        return all(store.sha256(target / name) == record["sha256"] for name, record in files.items())
    except (OSError, BigNASError):
        return False


def from_pretrained(
    repo: str, *, revision: str = "main", token: str | None = None, local_files_only: bool = False,
    verify_key: str | Path | None = None,
) -> Slice:  # fmt: skip
    """Return a slice of the Hub, its files fetched and checked; see `Slice.from_pretrained`."""
    if (Path(repo) / slice_folder.SLICE_FILE).is_file():
        if verify_key is not None:
            raise UsageError(f"{repo}: is a slice folder; what is signed is the manifest on the Hub. Name ORG/NAME.")
        slice_folder.check_files(Path(repo))
        return Slice.of(slice_folder.describe(Path(repo))[0])
    address = Address(check_repo(repo), check_revision(revision))
    fetched = fetch(address, offline=local_files_only, token=token, verify_key=verify_key)
    return Slice.of(slice_folder.describe(fetched.folder)[0])


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
    said = card.get("bignas_zoo")
    facts: Mapping[str, Any] = said if isinstance(said, dict) else {}
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
