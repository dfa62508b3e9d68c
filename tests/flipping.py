"""Changes single bytes of files, and cuts files short, and asks whether that is found before the files are used."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import BigNASError
from bignas_zoo.files import store
from bignas_zoo.hub import fetching
from bignas_zoo.tasks import export as exporting
from bignas_zoo.tasks import slice_cache
from bignas_zoo.zoo import slice_folder
from bignas_zoo.zoo.family import load_family


@dataclass(frozen=True)
class Target:
    """A folder whose files are to be damaged.

    Attributes:
        folder: it.
        use: reads it as the package does; what it returns is what is used. Raises an error of the project, or returns
            None, if it finds damage.
        described: files that hold their own digest or are compared as text, not byte by byte: a change of a space
            between two values changes nothing that is used.
    """

    folder: Path
    use: Callable[[], Any]
    described: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        return sorted(p for p in self.folder.rglob("*") if p.is_file())


def of_slice_folder(folder: Path) -> Target:
    """Return a slice folder with its exports."""

    def use() -> Any:
        slice_folder.check_files(folder)
        listed = slice_folder.read_exports(folder)
        for entry in listed["exports"]:
            exporting._verify(folder, entry)
        return slice_folder.describe(folder), listed

    return Target(folder, use, ("slice.json", "exports.json"))


def of_hub_entry(entry: Path) -> Target:
    """Return an entry of the cache of the Hub."""
    return Target(entry, lambda: fetching.check(entry), ("entry.json",))


def of_cache_entry(entry: Path) -> Target:
    """Return an entry of the cache of `get`."""
    return Target(entry, lambda: slice_cache.check_entry(entry), ("manifest.json",))


def of_family(folder: Path) -> Target:
    """Return a family folder, all but what only drawings read."""

    def use() -> Any:
        found = load_family(folder)
        for record in filter(None, [found.weights, *(s.statistics for s in found.slices)]):
            store.verify(found.path(record), record.sha256, size=record.bytes, fix="")
        return found

    return Target(folder, use, ("family.json",))


def of_ref(path: Path) -> Target:
    """Return the note of what a branch of the Hub means."""
    return Target(path.parent, lambda: fetching.read_ref(path), (path.name,))


def flips(target: Target, count: int, seed: int) -> Counter[str]:
    """Change one byte, `count` times, and put it back; files are drawn first, so that small ones get their share.

    Returns:
        How many were ``found``, and how many ``harmless``: not found, and nothing that is used has changed.
    """
    draw, good, outcome = random.Random(seed), target.use(), Counter[str]()
    files = [p for p in target.files() if p.stat().st_size]
    for _ in range(count):
        path = draw.choice(files)
        data = path.read_bytes()
        place, change = draw.randrange(len(data)), draw.randrange(1, 256)
        damaged = data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
        outcome[_try(target, path, data, damaged, good, f"byte {place} ^ {change}")] += 1
    return outcome


def truncations(target: Target, lengths: Callable[[int], Iterator[int]]) -> Counter[str]:
    """Cut each file to several lengths."""
    good, outcome = target.use(), Counter[str]()
    for path in target.files():
        data = path.read_bytes()
        for length in lengths(len(data)):
            outcome[_try(target, path, data, data[:length], good, f"first {length} bytes")] += 1
    return outcome


def _try(target: Target, path: Path, data: bytes, damaged: bytes, good: Any, what: str) -> str:
    path.write_bytes(damaged)
    try:
        used = target.use()
    except BigNASError:
        return "found"
    finally:
        path.write_bytes(data)
    if used is None:
        return "found"
    assert path.name in target.described, f"{path.name}: {what}: not found"
    assert used == good, f"{path.name}: {what}: not found, and something else is read"
    return "harmless"


def every(size: int) -> Iterator[int]:
    """Give every length up to 4,096, and then some hundred more."""
    yield from range(min(size, 4096))
    yield from range(4096, size, max(1, (size - 4096) // 500))


def some(size: int) -> Iterator[int]:
    """Give about a hundred lengths, those near both ends among them."""
    yield from sorted({*range(min(size, 8)), *range(0, size, max(1, size // 80)), *range(max(0, size - 8), size)})
