"""The cache under `store.cache_root`: what is in it, whether it is whole, repairing it, and making room.

It holds ``slices/KEY`` (what `get` made), ``hub/ORG--NAME/COMMIT`` (what was fetched) with ``refs`` beside,
``searches`` (what `get --search` found) and ``locks``. Nothing else is ever touched, no link is followed, and what a
running process uses stays. Loads neither numpy nor TensorFlow nor huggingface_hub.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bignas_zoo.errors import BigNASError, LocalIOError, UsageError
from bignas_zoo.files import leftovers, names, store
from bignas_zoo.hub import fetching
from bignas_zoo.hub.address import COMMIT
from bignas_zoo.tasks import slice_cache
from bignas_zoo.zoo.family import check_family

#: Names of entries, and of what may be in them, by kind.
NAMES = {
    "slice": re.compile(r"[0-9a-f]{32}"),
    "hub": COMMIT,
    "search": re.compile(r"[a-z0-9][a-z0-9.-]{0,95}-[0-9a-f]{16}"),
}
CONTENT = {
    "slice": store.FOLDERS[names.SLICE],
    "hub": store.FOLDERS[names.SUMS],
    "search": re.compile(
        "|".join(
            map(
                re.escape,
                (names.SETTINGS, names.MEASURED, names.FAMILY_FOLDER, names.SEARCH, *names.DRAWINGS, names.LOCK),
            )
        )
    ),
}
REPO = re.compile(r"([A-Za-z0-9_.-]+?)--([A-Za-z0-9_.-]+)")


@dataclass(frozen=True)
class Entry:
    """An entry of the cache.

    Attributes:
        kind: "slice" (made by `get`), "hub" (fetched) or "search" (found by `get --search`).
        name: of the slice, the repository's address, or the search's folder.
        path: its folder.
        bytes: of all its files.
        files: how many.
        made, used: when it was made and used last, in seconds since 1970.
        commit: of an entry of the Hub.
        refs: branches and tags of the Hub that were last seen to mean this commit.
    """

    kind: str
    name: str
    path: Path
    bytes: int
    files: int
    made: float
    used: float
    commit: str | None = None
    refs: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON data; times as ISO 8601 in UTC."""
        return {
            "kind": self.kind,
            "name": self.name,
            "commit": self.commit,
            "refs": list(self.refs),
            "bytes": self.bytes,
            "files": self.files,
            "made": _iso(self.made),
            "used": _iso(self.used),
            "path": str(self.path),
        }


@dataclass(frozen=True)
class Damage:
    """A damaged entry, or a damaged note of what a branch or tag means.

    Attributes:
        path: its folder or file.
        kind: of the entry, or "ref".
        reason: in words.
    """

    path: Path
    kind: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"kind": self.kind, "path": str(self.path), "reason": self.reason}


@dataclass(frozen=True)
class Removed:
    """What `repair` or `prune` did.

    Attributes:
        entries: what was removed, or would be.
        leftovers: temporary files of killed processes that were removed.
        kept: what was to go and stays, and why.
    """

    entries: tuple[Entry | Damage, ...]
    leftovers: tuple[Path, ...]
    kept: tuple[tuple[Path, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "removed": [e.to_json() for e in self.entries],
            "leftovers": [str(p) for p in self.leftovers],
            "kept": [{"path": str(p), "reason": reason} for p, reason in self.kept],
        }


IN_USE, READ_ONLY = "a running process uses it", "the folder cannot be written to"


def list_entries() -> tuple[Entry, ...]:
    """Return what the cache holds, the one used last first; it is not checked."""
    return tuple(sorted(_entries(), key=lambda e: (-e.used, str(e.path))))


def strangers() -> tuple[Path, ...]:
    """Return what lies in the cache and was not put there by this package; it is never touched."""
    known = {names.SLICES, names.HUB, names.SEARCHES, names.LOCKS}
    root = store.cache_root()
    odd = [p for p in _inside(root) if p.name not in known or not _is_folder(p)]
    odd += [p for p in _inside(root / names.HUB) if not _is_folder(p) or not REPO.fullmatch(p.name)]
    for kind, folder in _places():
        odd += [p for p in _inside(folder) if not (kind == "hub" and p.name == names.REFS) and not _is_entry(kind, p)]
    return tuple(odd)


def verify() -> tuple[Damage, ...]:
    """Check every file of every entry against its record.

    Returns:
        What is damaged. It is never used: `get` makes or fetches it again, unless it is offline.
    """
    checked = [(entry, _damage(entry)) for entry in list_entries()]
    damaged = [Damage(entry.path, entry.kind, reason) for entry, reason in checked if reason]
    return (*damaged, *(Damage(p, "ref", f"{p}: not valid.") for p in _refs() if fetching.read_ref(p) is None))


def repair() -> Removed:
    """Remove what is damaged, and what killed processes left; it is made or fetched again when it is asked for."""
    gone, kept = [], []
    cleared = [p for folder in _folders() for p in leftovers.remove(folder)]
    for damage in verify():
        whole = damage.kind != "search"  # whose measurements are good still
        target = damage.path if whole else damage.path / names.FAMILY_FOLDER
        if damage.kind == "ref":
            leftovers.delete(target)
        if damage.kind == "ref" or leftovers.take_away(target):
            gone.append(damage)
        else:
            kept.append((damage.path, _why_kept(damage.path)))
    return Removed(tuple(gone), tuple(cleared), tuple(kept))


def prune(
    *,
    everything: bool = False,
    older_than: float | None = None,
    keep: int | None = None,
    unreferenced: bool = False,
    dry_run: bool = False,
) -> Removed:
    """Remove entries that meet any of the conditions.

    Args:
        everything: all of them.
        older_than: those that were not used for so many seconds.
        keep: those used longest ago, until the others have at most so many bytes.
        unreferenced: those of the Hub that no branch or tag was last seen to mean.
        dry_run: remove nothing; say what would go.

    Raises:
        UsageError: no condition is given.
    """
    if not everything and not unreferenced and older_than is None and keep is None:
        raise UsageError("cache prune: say what is to go: --older-than 30d, --keep 2GB, --unreferenced or --all.")
    now, size = time.time(), 0
    gone: list[Entry] = []
    kept: list[tuple[Path, str]] = []
    for entry in list_entries():
        old = older_than is not None and now - entry.used >= older_than
        lone = unreferenced and entry.kind == "hub" and not entry.refs
        full = keep is not None and size + entry.bytes > keep
        if not (everything or old or lone or full):
            size += entry.bytes
        elif dry_run or _take_away(entry):
            gone.append(entry)
        else:
            size += entry.bytes
            kept.append((entry.path, _why_kept(entry.path)))
    if dry_run:
        return Removed(tuple(gone), (), tuple(kept))
    cleared = [p for folder in _folders() for p in leftovers.remove(folder)]
    _forget(gone)
    return Removed(tuple(gone), tuple(cleared), tuple(kept))


def _why_kept(path: Path) -> str:
    read_only = not os.access(path.parent, os.W_OK)  # False on a read-only disk too, whoever asks
    return READ_ONLY if read_only else IN_USE


def _take_away(entry: Entry) -> bool:
    if entry.kind != "search":
        return leftovers.take_away(entry.path)
    with leftovers.locked(entry.path / names.LOCK) as free:
        return free is not False and leftovers.take_away(entry.path)  # False: a search is under way


def _forget(gone: Iterable[Entry]) -> None:
    """Remove the notes of what branches and tags mean where that is gone; empty folders stay for fetches under way."""
    for entry in gone:
        for path in _inside(entry.path.parent / names.REFS) if entry.kind == "hub" else ():
            ref = fetching.read_ref(path)
            if ref and ref.get("commit") == entry.commit and not entry.path.exists():
                leftovers.delete(path)


def _damage(entry: Entry) -> str | None:
    try:
        _check(entry)
        return None
    except (BigNASError, OSError) as error:
        return str(error)


def _check(entry: Entry) -> None:
    if entry.kind == "slice":
        slice_cache.check_entry(entry.path)
    elif entry.kind == "hub":
        fetching.check(entry.path)
    elif (entry.path / names.FAMILY_FOLDER).is_dir():  # or else the search is not finished
        check_family(entry.path / names.FAMILY_FOLDER)


def _entries() -> Iterator[Entry]:
    for kind, folder in _places():
        refs = _meanings(folder / names.REFS) if kind == "hub" else {}
        for path in _inside(folder):
            if path.name != names.REFS and _is_entry(kind, path):
                yield from _entry(kind, path, refs)


def _entry(kind: str, path: Path, refs: dict[str, list[str]]) -> Iterator[Entry]:
    """Give an entry, unless it has gone meanwhile."""
    try:
        sizes = [p.lstat() for p in path.rglob("*") if not p.is_dir()]
        modified = max((s.st_mtime for s in sizes), default=path.stat().st_mtime)
        used = max(path.stat().st_mtime, modified)
    except OSError:
        return
    name, commit = path.name, None
    if kind == "slice":
        name = _slice_name(path)
    elif kind == "hub":
        repo, commit = REPO.fullmatch(path.parent.name), path.name
        name = f"hf://{repo[1]}/{repo[2]}" if repo else path.parent.name
    means = tuple(refs.get(path.name, ()))
    yield Entry(kind, name, path, sum(s.st_size for s in sizes), len(sizes), modified, used, commit, means)


def _slice_name(path: Path) -> str:
    """Return the name in an entry's slice.json; the entry's own where that cannot be read."""
    try:
        name = store.read_json(path / names.SLICE)["name"]
        return name if isinstance(name, str) and name.isprintable() else path.name
    except (BigNASError, KeyError, TypeError):
        return path.name


def _is_entry(kind: str, path: Path) -> bool:
    """Return whether this is an entry, and nothing that somebody else put there."""
    return (
        NAMES[kind].fullmatch(path.name) is not None
        and _is_folder(path)
        and all(CONTENT[kind].fullmatch(p.name) and not p.is_symlink() for p in _inside(path))
        and (
            kind != "hub"
            or all(store.FOLDERS[names.SLICE].fullmatch(p.name) for p in _inside(path / names.FETCHED_SLICE))
        )
    )


def _places() -> Iterator[tuple[str, Path]]:
    """Give the folders that hold entries, with their kinds."""
    root = store.cache_root()
    if root.exists() and not root.is_dir():
        raise LocalIOError(f"{root}: is no folder, so it cannot be the cache. Set BIGNAS_ZOO_CACHE to another place.")
    for kind, name in (("slice", names.SLICES), ("search", names.SEARCHES)):
        if _is_folder(root / name):
            yield kind, root / name
    if _is_folder(root / names.HUB):
        for repo in _inside(root / names.HUB):
            if _is_folder(repo) and REPO.fullmatch(repo.name):
                yield "hub", repo


def _folders() -> Iterator[Path]:
    """Give every folder in which a killed process may have left something."""
    yield store.cache_root()
    for kind, folder in _places():
        yield folder
        if kind == "hub" and _is_folder(folder / names.REFS):
            yield folder / names.REFS
        if kind == "search":
            yield from (p for p in _inside(folder) if _is_folder(p))


def _refs() -> Iterator[Path]:
    for kind, folder in _places():
        if kind == "hub" and _is_folder(folder / names.REFS):
            yield from (p for p in _inside(folder / names.REFS) if p.suffix == ".json" and not p.is_symlink())


def _meanings(folder: Path) -> dict[str, list[str]]:
    """Return commit to the branches and tags that were last seen to mean it."""
    revisions: dict[str, list[str]] = {}
    for path in _inside(folder) if _is_folder(folder) else ():
        ref = fetching.read_ref(path)
        if ref:
            revisions.setdefault(str(ref.get("commit")), []).append(str(ref.get("revision")))
    return revisions


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder, temporary files left out; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if not e.name.startswith(leftovers.TEMPORARY))
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
