"""The files of a slice of a family: made once, then taken from the cache.

What is served from the cache loads neither numpy nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import BigNASError, LocalIOError
from bignas_zoo.files import leftovers, names, store
from bignas_zoo.files.provenance import OF_PLAN, versions
from bignas_zoo.files.records import reading
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.cutting import check_weights, cut
from bignas_zoo.zoo import slice_folder
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice


@dataclass(frozen=True)
class SliceFiles:
    """A folder with a slice's files.

    Attributes:
        folder: where they are; not to be written to.
        records: file name to ``{"bytes": ..., "sha256": ...}``.
        cached: whether they were there already.
    """

    folder: Path
    records: Mapping[str, Mapping[str, Any]]
    cached: bool


@contextlib.contextmanager
def finished(
    family: Family, slice_: Slice, say: Say = silent, before_work: Callable[[], None] = lambda: None
) -> Iterator[SliceFiles]:
    """Yield a slice's files, from the cache or made now.

    Args:
        family: its family.
        slice_: the slice.
        say: told what takes time.
        before_work: called before anything is made; it may refuse the work by raising.

    Raises:
        NotFoundError: the family has no weights.
        IntegrityError: a weight file is missing or damaged.
        QualityError: the exported file does not compute what the network does.
    """
    check_weights(family, slice_)  # milliseconds; what is cached must not hide a damaged installation
    entry = store.cache_root() / names.SLICES / cache_key(family, slice_)
    leftovers.remove(entry.parent)
    with leftovers.held(entry):
        records = verified(entry)
        if records is not None:
            leftovers.mark_used(entry)
            yield SliceFiles(entry, records, True)
            return
        if os.path.lexists(entry):
            say(f"the cached copy of {slice_.name} is damaged and is made anew (`bignas-zoo cache verify` checks all)")
    before_work()
    say(f"cutting {slice_.name} and exporting it to TFLite; the first time takes some seconds")
    with store.scratch_folder() as folder:
        slice_files.write(folder, family, slice_, cut(family, slice_))
        records = {p.name: store.record(p) for p in sorted(folder.iterdir())}
        try:
            fill(entry, folder, records)
        except LocalIOError as error:
            why = str(error).partition(" Choose another")[0]
            say(f"not cached: {why} BIGNAS_ZOO_CACHE names another place for the cache.")
        yield SliceFiles(folder, records, False)


#: How files are made of the same weights; another way makes other bytes.
MAKING = "written from the plan"


def cache_key(family: Family, slice_: Slice) -> str:
    """Return a key that changes with anything the slice's files depend on."""
    facts = [
        slice_folder.SCHEMA,
        MAKING,
        versions(OF_PLAN),
        slice_.to_json(),
        slice_.network.to_json(),
        *(record.sha256 for record in family.weight_files(slice_)),
        family.notice and family.notice.sha256,
        *([family.training_images.sha256] if family.training_images else []),
        list(family.class_names),
        dict(family.training),
        [s.to_json() for s in family.slices],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def verified(entry: Path) -> dict[str, Any] | None:
    """Return the records of a cache entry's files, or None if it is missing or damaged."""
    try:
        return check_entry(entry)
    except BigNASError:
        return None


def check_entry(entry: Path) -> dict[str, Any]:
    """Check every file of a cache entry; return their records.

    Raises:
        IntegrityError: a file is missing or damaged, or the list of them is.
        LocalIOError: it cannot be read.
    """
    path = entry / names.MANIFEST
    data = store.read_json(path)
    with reading(f"{path}: not a valid list of files"):
        store.check_seal(data)
        files: dict[str, Any] = data["files"]
        records = {Path(name).name: (str(e["sha256"]), int(e["bytes"])) for name, e in files.items()}
        if names.SLICE not in records:
            raise ValueError(f"it does not list {names.SLICE}")
    for name, (digest, size) in records.items():
        store.verify(entry / name, digest, size=size, fix="")
    return files


def fill(entry: Path, folder: Path, files: Mapping[str, Any]) -> None:
    """Put a slice's files into the cache; whatever is there did not verify."""
    with store.new_folder(entry, force=True, marker=None) as new:
        for file in files:
            store.copy(folder / file, new / file)
        store.write_json(new / names.MANIFEST, store.sealed({"files": dict(files)}))
