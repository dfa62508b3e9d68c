"""`get`: from a name or a budget to a folder of files, made here or fetched from the Hub, through a cache.

A `get` that is served from the cache loads neither numpy nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.errors import BigNASError, IntegrityError, LocalIOError, NotFoundError, NothingFitsError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.formats import EXPORT_NAME
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.opening import Opened, SliceFolder, is_address, open_named
from bignas_zoo.tasks.public_nets import remark
from bignas_zoo.tasks.slice_cache import SliceFiles, finished
from bignas_zoo.tasks.slices import Slice
from bignas_zoo.zoo import registry, selection, slice_folder
from bignas_zoo.zoo import slice as zoo_slice
from bignas_zoo.zoo.family import DEFAULT_FAMILY, Family, no_weights
from bignas_zoo.zoo.selection import LatencyPredictor

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable

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
        class_names: what it tells apart, in label order.
        latency: what it was predicted to take on the devices of the budget, one an entry as in slice.json; None
            without any.
    """

    slice: Slice
    path: Path
    files: Mapping[str, Mapping[str, Any]]
    parity: Mapping[str, Any]
    hint: str | None
    cached: bool
    class_names: tuple[str, ...] = ()
    latency: Sequence[Mapping[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            **slice_files.to_json(self.slice, self.path, self.files, self.parity),
            "hint": self.hint,
            "cached": self.cached,
            "classes": len(self.class_names),
            "latency": self.latency and [dict(entry) for entry in self.latency],
        }


def get(
    name: str | None = None,
    *,
    budget: str | Budget | None = None,
    family: str | Path | None = None,
    classes: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    risk: str = "upper",
    tables: Sequence[DeviceTable] = (),
    verify_key: str | Path | None = None,
    say: Say = silent,
    accept: Callable[[zoo_slice.Slice], None] = lambda slice_: None,
) -> GetResult:
    """Choose a slice, cut it, and write it as a folder ready for the device.

    Args:
        name: of a slice; ``hf://ORG/NAME[@REVISION]`` for one of the Hub; or None to let `budget` choose.
        budget: e.g. ``"400MFLOPs"``; the most accurate slice within it is taken. Together with
            `name` it is checked instead.
        family: where to look: a name, or a folder made by `train`. By default a budget chooses over all shipped
            families that tell the same classes apart as `classes`.
        classes: the family whose classes are meant; default: the 1,000 of ImageNet.
        output: the folder to make; default: the slice's name in the current folder. One that
            already holds exactly these files is left as it is.
        force: replace an output folder that is already there and differs.
        risk: what of a predicted latency must meet the budget: "upper", the upper end of its bar, or "mean".
        tables: of devices of one's own, beside those known by name.
        verify_key: file of the Ed25519 public key that must have signed a slice of the Hub.
        say: told what is going on, a sentence at a time.
        accept: called with the chosen slice before anything is made; it may refuse the work by raising.

    Returns:
        The result; the folder holds model.tflite, labels.txt, slice.json, model.safetensors and
        README.md.

    Raises:
        UsageError: neither name nor budget is given, or the budget does not parse.
        NotFoundError: no such slice or family, or it has no weights; no such device, or its table lacks blocks.
        NothingFitsError: no slice meets the budget.
        LocalIOError: the output folder exists and differs, or cannot be written.
        IntegrityError: a weight file is damaged.
        QualityError: the exported file does not compute what the network does.
        AuthError, NetworkError: the Hub does not give it.
    """
    _check_place(name, family, classes, verify_key)
    limits = budget if budget is None or isinstance(budget, Budget) else Budget.parse(budget)
    predictor = LatencyPredictor.of(limits, risk=risk, tables=tables) if limits else LatencyPredictor(risk=risk)
    if name is None:
        opened = _best(limits, family, classes, predictor)
    else:
        opened = _named(open_named(name, family, verify_key=verify_key, say=say), limits, predictor)
    accept(opened.slice)
    latency = predicted(opened.slice, predictor)
    target = Path(output) if output is not None else Path(opened.slice.name)
    store.tidy_up(target)
    with _files(opened, target, say, force=force) as files:
        check_bytes(opened.slice.name, files, limits)
        records, description = deliver(files, target, latency, say, force=force)
    slice_ = Slice.of(opened.slice)
    if isinstance(opened.home, SliceFolder):  # there is no family to look its files up in
        slice_, latency = dataclasses.replace(slice_, folder=target.absolute()), latency or description.get("latency")
    underuse = selection.underuse(slice_, limits, predictor) if limits and name is None else None
    other = _other_precision(latency or (), needs_images=not opened.slice.calibration)
    micro = _for_microcontroller(opened.slice) if limits and limits.of_microcontroller else None
    public = None
    if limits and name is None and family is None and isinstance(opened.home, Family):
        public = remark(opened.slice, opened.home, limits, predictor)
    hint = " ".join(filter(None, (underuse, public, other, micro))) or None
    return GetResult(
        slice_, target.absolute(), records, description["parity"], hint, files.cached, opened.home.class_names, latency
    )


def _check_place(
    name: str | None, family: str | Path | None, classes: str | Path | None, verify_key: str | Path | None
) -> None:
    """Refuse options that do not belong to where a slice is looked for."""
    if classes is not None and (name is not None or family is not None):
        raise UsageError("get: classes narrow the choice of a budget; leave them out where a slice or family is named.")
    from_hub = name is not None and is_address(name)
    if from_hub and family is not None:
        raise UsageError(f"get: '{name}' is on the Hub, so it is not looked for in a family. Leave out --family.")
    if not from_hub and verify_key is not None:
        raise UsageError(
            "get: a key verifies what was pushed to the Hub: name hf://ORG/NAME, or leave out --verify-key."
        )


def _best(
    limits: Budget | None, family: str | Path | None, classes: str | Path | None, predictor: LatencyPredictor
) -> Opened:
    """Choose the most accurate slice within a budget, of one family or of all for the same classes."""
    if limits is None:
        raise UsageError("get: name a slice, or give a budget such as --budget 400MFLOPs.")
    if family is not None:
        home = registry.get_family(family)
        return Opened(selection.pick(home, limits, predictor), home)
    candidates = registry.families_of_task(registry.get_family(classes or DEFAULT_FAMILY))
    try:
        slice_, home = selection.pick_of(candidates, limits, predictor)
    except NothingFitsError as error:
        raise NothingFitsError(f"{error}{_other_classes(candidates, limits, predictor)}") from error
    return Opened(slice_, home)


def _other_classes(candidates: Sequence[Family], limits: Budget, predictor: LatencyPredictor) -> str:
    """Return a sentence on the shipped families for other classes that have a slice within a budget."""
    names = []
    for family in registry.families():
        with contextlib.suppress(NothingFitsError, NotFoundError):
            if family.class_names != candidates[0].class_names and selection.pick(family, limits, predictor):
                names.append(f"--family {family.name} ({len(family.class_names)} classes)")
    return f" For other classes something does: {', '.join(names)}." if names else ""


def _named(opened: Opened, limits: Budget | None, predictor: LatencyPredictor) -> Opened:
    """Check that a slice asked for by name can be had, and is within a budget."""
    if not opened.slice.has_weights:
        raise NotFoundError(no_weights(opened.slice))
    if limits:
        selection.check_fits(opened.slice, limits, predictor)
    return opened


@contextlib.contextmanager
def _files(opened: Opened, target: Path, say: Say, *, force: bool) -> Iterator[SliceFiles]:
    """Yield a slice's files: those of its folder, or made of its family."""
    home = opened.home
    if isinstance(home, SliceFolder):
        yield SliceFiles(home.path, {p.name: store.record(p) for p in sorted(home.path.iterdir())}, home.cached)
        return
    # Before the long work, not after it.
    with finished(home, opened.slice, say, lambda: store.check_free(target, force=force)) as files:
        yield files


def check_bytes(name: str, files: SliceFiles, limits: Budget | None) -> None:
    """Hold the file itself against a budget; what the slice says of it was measured when the family was made."""
    size = files.records[names.TFLITE]["bytes"]
    for limit in limits.limits if limits else ():
        if limit.quantity == "bytes" and not limit.allows(size):
            raise NothingFitsError(f"'{name}': its file came out at {size:,} bytes, over {limit.text}.")


def deliver(
    files: SliceFiles, target: Path, latency: list[dict[str, Any]] | None, say: Say, *, force: bool
) -> tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Any]]:
    """Write a slice's files to a folder, unless it holds them; return their records and the content of slice.json."""
    original = store.read_json(files.folder / names.SLICE)
    existing = _already_there(target, files.records, original)
    description = _with_latency(original, existing, latency)
    data = (files.folder / names.SLICE).read_bytes() if description is original else store.json_bytes(description)
    records = {**files.records, names.SLICE: store.record_bytes(data)}
    if existing is None:
        if force:
            _say_what_goes(target, say)
        with store.new_folder(target, force=force) as folder:
            for name in records.keys() - {names.SLICE}:
                store.copy(files.folder / name, folder / name)
                store.verify(folder / name, records[name]["sha256"], fix="")
            store.atomic_write(folder / names.SLICE, data)
    elif existing != description:
        store.atomic_write(target / names.SLICE, data)
    return records, description


def _other_precision(latency: Sequence[Mapping[str, Any]], *, needs_images: bool) -> str | None:
    """Return a remark where a time is that of files of another precision than the one that is always there."""
    precisions = [(entry["device"], entry["protocol"]["precision"]) for entry in latency]
    for device, precision in precisions:
        if precision != PRECISION:
            images = " --images TRAINING_IMAGES" if needs_images and precision in ("int8", "dynamic") else ""
            return (
                f"The time on {device} is that of a file in {precision}; {names.TFLITE} is {PRECISION}. "
                f"`bignas-zoo export FOLDER --precision {precision}{images}` makes the other."
            )
    return None


def _for_microcontroller(slice_: zoo_slice.Slice) -> str:
    """Return how to make the file that a limit on memory is about."""
    images = "" if slice_.calibration else " --images TRAINING_IMAGES"
    return (
        f"Memory is that of the int8 file; {names.TFLITE} is {PRECISION}. "
        f"`bignas-zoo export FOLDER --precision int8 --io int8{images}` makes it, --format c its C++ source."
    )


def _say_what_goes(target: Path, say: Say) -> None:
    """Name the exports that go with a folder that is replaced."""
    try:
        names = [str(entry["file"]) for entry in slice_folder.read_exports(target)["exports"]]
    except (IntegrityError, LocalIOError):
        return  # nothing that could be named
    if names:
        say(f"{target}: replaced, and with it its exports {', '.join(names)}")


def predicted(slice_: zoo_slice.Slice, predictor: LatencyPredictor) -> list[dict[str, Any]] | None:
    """Return what slice.json says of predicted latencies."""
    entries = []
    for device, table in predictor.tables.items():
        estimate = predictor.estimate(slice_, device)
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


def _already_there(
    target: Path, files: Mapping[str, Mapping[str, Any]], original: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the slice.json of a folder that holds exactly these files already, and maybe what `export` added.

    Predicted latencies do not count: the same slice may have been asked for by another budget.
    """
    try:
        added = {p.name for p in target.iterdir()} - set(files)
        ours = (names.EXPORTS, *(n for n in added if n.startswith(store.TEMPORARY)))  # of an export killed
        if not all(name in ours or EXPORT_NAME.fullmatch(name) for name in added):
            return None
        if any(store.sha256(target / n) != entry["sha256"] for n, entry in files.items() if n != names.SLICE):
            return None
        existing = dict(store.read_json(target / names.SLICE))
        store.check_seal(existing)
        _with_latency(existing, existing, None)
    except (OSError, BigNASError, ValueError, KeyError, TypeError):
        return None
    aside = {"latency": None, store.SEAL: None}
    return existing if {**existing, **aside} == {**original, **aside} else None


def _with_latency(
    original: Mapping[str, Any], existing: Mapping[str, Any] | None, new: list[dict[str, Any]] | None
) -> Mapping[str, Any]:
    """Return a description with all predicted latencies: a new one takes the place of an older one on its device."""
    known = [*(original.get("latency") or ()), *((existing or {}).get("latency") or ()), *(new or ())]
    rows = list({row["device"]: row for row in known}.values()) or None
    return original if rows == original.get("latency") else store.sealed({**original, "latency": rows})
