"""`get`: from a name or a budget to a folder of files, through a cache.

A `get` that is served from the cache loads neither numpy nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.errors import (
    BigNASError,
    IntegrityError,
    LocalIOError,
    NotFoundError,
    NothingFitsError,
    UsageError,
    reason,
)
from bignas_zoo.files import leftovers, store
from bignas_zoo.files.formats import EXPORT_NAME
from bignas_zoo.files.provenance import versions
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks import slice_files, slices
from bignas_zoo.tasks.load import check_files, cut
from bignas_zoo.tasks.slices import Slice
from bignas_zoo.zoo import selection, slice_folder
from bignas_zoo.zoo.family import DEFAULT_FAMILY, Family, no_weights
from bignas_zoo.zoo.selection import Predictor
from bignas_zoo.zoo.slice_folder import SLICE_FILE, TFLITE

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable

MANIFEST = "manifest.json"


#: Of the TFLite file in every slice folder.
PRECISION = "float32"


@dataclass(frozen=True)
class GetResult:
    """What `get` made.

    Attributes:
        slice: the chosen slice.
        path: the folder with its files.
        files: file name to ``{"bytes": ..., "sha256": ...}``.
        parity: the report of `bignas_zoo.export.parity`.
        hint: a remark on the choice, or None.
        cached: whether the files came from the cache.
        latency: what it was predicted to take on the devices of the budget, one an entry as in slice.json; None
            without any.
    """

    slice: Slice
    path: Path
    files: Mapping[str, Mapping[str, Any]]
    parity: Mapping[str, Any]
    hint: str | None
    cached: bool
    latency: Sequence[Mapping[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            **self.slice.to_json(),
            "bytes": self.files[TFLITE]["bytes"],
            "path": str(self.path),
            "files": {name: dict(entry) for name, entry in self.files.items()},
            "parity_max_abs": self.parity["max_abs"],
            "parity": dict(self.parity),
            "hint": self.hint,
            "cached": self.cached,
            "latency": self.latency and [dict(entry) for entry in self.latency],
        }


def get(
    name: str | None = None,
    *,
    budget: str | Budget | None = None,
    family: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    risk: str = "upper",
    tables: Sequence[DeviceTable] = (),
    verify_key: str | Path | None = None,
    say: Say = silent,
) -> GetResult:
    """Choose a slice, cut it, and write it as a folder ready for the device.

    Args:
        name: of a slice; ``hf://ORG/NAME[@REVISION]`` for one of the Hub; or None to let `budget` choose.
        budget: e.g. ``"400MFLOPs"``; the most accurate slice within it is taken. Together with
            `name` it is checked instead.
        family: where to look: a name, or a folder made by `train`. Default: the embedded family.
        output: the folder to make; default: the slice's name in the current folder. One that
            already holds exactly these files is left as it is.
        force: replace an output folder that is already there and differs.
        risk: what of a predicted latency must meet the budget: "upper", the upper end of its bar, or "mean".
        tables: of devices of one's own, beside those known by name.
        verify_key: file of the Ed25519 public key that must have signed a slice of the Hub.
        say: told what is going on, a sentence at a time.

    Returns:
        The result; the folder holds model.tflite, labels.txt, slice.json, model.safetensors and
        README.md.

    Raises:
        UsageError: neither name nor budget is given, or the budget does not parse.
        NotFoundError: no such slice or family, or it has no weights; no such device, or its table lacks blocks.
        NothingFitsError: no slice meets the budget.
        LocalIOError: the output folder exists and differs, or cannot be written.
        IntegrityError: a weight file is damaged.
        QualityError: the exported file does not compute what the Keras model does.
        AuthError, NetworkError: the Hub does not give it.
    """
    if name is not None and name.startswith("hf://"):
        from bignas_zoo.tasks.hub import get_from_hub

        if family is not None:
            raise UsageError(f"get: '{name}' is on the Hub, so it is not looked for in a family. Leave out --family.")
        return get_from_hub(
            name, budget=budget, output=output, force=force, risk=risk, tables=tables, verify_key=verify_key, say=say
        )
    if verify_key is not None:
        raise UsageError(
            "get: a key verifies what was pushed to the Hub: name hf://ORG/NAME, or leave out --verify-key."
        )
    limits = budget if budget is None or isinstance(budget, Budget) else Budget.parse(budget)
    predictor = Predictor.of(limits, risk=risk, tables=tables) if limits else Predictor(risk=risk)
    home, chosen = _choose(name, limits, family, predictor)
    latency = _latency(chosen, predictor)
    check_files(home, chosen)  # milliseconds; even a cached get must not hide a damaged installation
    target = Path(output) if output is not None else Path(chosen.name)
    store.tidy_up(target)
    with _finished(home, chosen, target, say, force=force) as (source, files, cached):
        for limit in limits.limits if limits else ():
            if limit.quantity == "bytes" and not limit.allows(files[TFLITE]["bytes"]):
                raise NothingFitsError(
                    f"'{chosen.name}': its file came out at {files[TFLITE]['bytes']:,} bytes, over {limit.text}."
                )
        made = store.read_json(source / SLICE_FILE)
        there = _already_there(target, files, made)
        description = store.sealed({**made, "latency": _rows(there, latency)})
        files = {**files, SLICE_FILE: store.record_bytes(store.json_bytes(description))}
        if there is None:
            if force:
                _say_what_goes(target, say)
            with store.new_folder(target, force=force) as folder:
                for file in files.keys() - {SLICE_FILE}:
                    store.copy(source / file, folder / file)
                store.write_json(folder / SLICE_FILE, description)
        elif there != description:
            store.write_json(target / SLICE_FILE, description)
    hint = selection.underuse(chosen, limits, predictor) if limits and name is None else None
    hint = " ".join(filter(None, (hint, _other_precision(latency or ())))) or None
    return GetResult(chosen, target.absolute(), files, description["parity"], hint, cached, latency)


def _other_precision(latency: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a remark where a time is that of files of another precision than the one that is always there."""
    found = [(entry["device"], entry["protocol"]["precision"]) for entry in latency]
    for device, precision in found:
        if precision != PRECISION:
            return (
                f"The time on {device} is that of a file in {precision}; {TFLITE} is {PRECISION}. "
                f"`bignas-zoo export FOLDER --precision {precision}` makes the other."
            )
    return None


def _say_what_goes(target: Path, say: Say) -> None:
    """Name the exports that go with a folder that is replaced."""
    try:
        names = [str(entry["file"]) for entry in slice_folder.read_exports(target)["exports"]]
    except (IntegrityError, LocalIOError):
        return  # nothing that could be named
    if names:
        say(f"{target}: replaced, and with it its exports {', '.join(names)}")


def _latency(chosen: Slice, predictor: Predictor) -> list[dict[str, Any]] | None:
    """Return what slice.json says of predicted latencies."""
    entries = []
    for device, table in predictor.tables.items():
        estimate = predictor.estimate(chosen, device)
        entries.append(
            {
                "device": device,
                "predicted_ms": estimate.latency_ms,
                "low_ms": estimate.low_ms,
                "high_ms": estimate.high_ms,
                "risk": predictor.risk,
                "notes": list(estimate.notes),
                "protocol": table.protocol.to_json(),
            }
        )
    return entries or None


def _choose(
    name: str | None, limits: Budget | None, family: str | Path | None, predictor: Predictor
) -> tuple[Family, Slice]:
    if name is None:
        if limits is None:
            raise UsageError("get: name a slice, or give a budget such as --budget 400MFLOPs.")
        home = slices.get_family(family or DEFAULT_FAMILY)
        return home, Slice.of(selection.pick(home, limits, predictor))
    home, chosen = slices.find_slice(name, family)
    if not chosen.has_weights:
        raise NotFoundError(no_weights(chosen))
    if limits:
        selection.check_fits(chosen, limits, predictor)
    return home, chosen


@contextlib.contextmanager
def _finished(
    family: Family, chosen: Slice, target: Path, say: Say, *, force: bool
) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    """Yield a folder with the slice's files, from the cache or made now; their records; and which."""
    entry = store.cache_root() / "slices" / _cache_key(family, chosen)
    leftovers.remove(entry.parent)
    with leftovers.held(entry):
        files = verified(entry)
        if files is not None:
            leftovers.mark_used(entry)
            yield entry, files, True
            return
        if os.path.lexists(entry):
            say(f"the cached copy of {chosen.name} is damaged and is made anew (`bignas-zoo cache verify` checks all)")
    store.check_free(target, force=force)  # before the long work, not after it
    say(f"cutting {chosen.name} and exporting it to TFLite; the first time takes some seconds")
    with store.scratch_folder() as folder:
        slice_files.write(folder, family, chosen, cut(family, chosen))
        files = {p.name: store.record(p) for p in sorted(folder.iterdir())}
        try:
            _fill_cache(entry, folder, files)
        except LocalIOError as error:
            say(f"not cached: {error}")
        yield folder, files, False


def _cache_key(family: Family, chosen: Slice) -> str:
    """Return a key that changes with anything the slice's files depend on."""
    assert family.weights
    assert chosen.statistics
    facts = [
        slice_folder.SCHEMA,
        versions(),
        chosen.to_json(),
        chosen.spec.to_json(),
        family.weights.sha256,
        chosen.statistics.sha256,
        list(family.class_names),
        dict(family.preprocess),
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
    path = entry / MANIFEST
    data = store.read_json(path)
    try:
        store.check_seal(data)
        files: dict[str, Any] = data["files"]
        records = {Path(name).name: (str(e["sha256"]), int(e["bytes"])) for name, e in files.items()}
        if SLICE_FILE not in records:
            raise ValueError(f"it does not list {SLICE_FILE}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{path}: not a valid list of files ({reason(error)}).") from error
    for name, (digest, size) in records.items():
        store.verify(entry / name, digest, size=size, fix="")
    return files


def _fill_cache(entry: Path, folder: Path, files: Mapping[str, Any]) -> None:
    with store.new_folder(entry, force=True, marker=None) as new:  # whatever is there did not verify
        for file in files:
            store.copy(folder / file, new / file)
        store.write_json(new / MANIFEST, store.sealed({"files": dict(files)}))


def _already_there(target: Path, files: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the slice.json of a folder that holds exactly these files already, and maybe what `export` added.

    Predicted latencies do not count: the same slice may have been asked for by another budget.
    """
    try:
        added = {p.name for p in target.iterdir()} - set(files)
        ours = (slice_folder.EXPORTS_FILE, *(n for n in added if n.startswith(store.TEMPORARY)))  # of an export killed
        if not all(name in ours or EXPORT_NAME.fullmatch(name) for name in added):
            return None
        if any(store.sha256(target / n) != entry["sha256"] for n, entry in files.items() if n != SLICE_FILE):
            return None
        there = dict(store.read_json(target / SLICE_FILE))
        store.check_seal(there)
        _rows(there, None)
    except (OSError, BigNASError, ValueError, KeyError, TypeError):
        return None
    aside = {"latency": None, store.SEAL: None}
    return there if {**there, **aside} == {**made, **aside} else None


def _rows(there: Mapping[str, Any] | None, new: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Return predicted latencies: those that are there, each device's replaced by a new one if there is one."""
    rows = {row["device"]: row for row in [*(there["latency"] or () if there else ()), *(new or ())]}
    return list(rows.values()) or None
