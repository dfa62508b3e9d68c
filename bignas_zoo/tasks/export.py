"""`export`: a slice to files in any format and precision, each proven before it gets its name.

The files go into the slice's folder, beside those of `get`; ``exports.json`` there says of each what it takes and
gives, how it was proven, and on which images (normative: docs/FORMAT.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.budget import Budget
from bignas_zoo.errors import IntegrityError, LocalIOError, QualityError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.formats import OF_KERAS, Export
from bignas_zoo.files.locks import exclusive
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.files.say import Say, silent
from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.tasks.get import get
from bignas_zoo.tasks.opening import holds_slice, is_address
from bignas_zoo.zoo import photographs, slice_folder
from bignas_zoo.zoo.slice import Slice
from bignas_zoo.zoo.slice_folder import REJECTED, read_exports

if TYPE_CHECKING:
    from bignas_zoo.recipes.data.sample import Sample
    from bignas_zoo.tasks.proving import Subject

SCHEMA = slice_folder.EXPORTS_SCHEMA
#: TFLite in float32.
PLAIN = (Export(),)


@dataclass(frozen=True)
class Exported:
    """One exported file.

    Attributes:
        path: the file, or a SavedModel's folder.
        entry: what ``exports.json`` says of it: options, size, sha256, input, output, parity, accuracy, ranges.
        cached: whether it was there already, made of the same weights with the same options.
    """

    path: Path
    entry: Mapping[str, Any]
    cached: bool

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {"path": str(self.path), **self.entry, "cached": self.cached}


def export_slice(
    name: str | Path | None = None,
    exports: Export | Iterable[Export] = PLAIN,
    *,
    budget: str | Budget | None = None,
    family: str | Path | None = None,
    output: str | Path | None = None,
    images: str | Path | None = None,
    test_data: str | Path | None = None,
    force: bool = False,
    say: Say = silent,
) -> list[Exported]:
    """Export a slice in one or more formats.

    Args:
        name: of a slice, or a slice folder (of `get` or `finetune`), which the files are added to; None lets `budget`
            choose.
        exports: what to make.
        budget, family, output: see `get`; of no use with a folder.
        images: real images, best of the training: a folder, CIFAR-10's files, class folders or TFRecords. Without,
            those that the slice has with it: the package's own photographs for ImageNet's classes, some of the training
            for families of `train photos`; for others float files are compared on random inputs, and int8 weights and
            activations need at least 64.
        test_data: labelled images for the accuracy; by default the test part of `images`, if there is one.
        force: make files anew that are there already, and replace an output folder that differs.
        say: told what is going on.

    Returns:
        A result for each of `exports`, in their order.

    Raises:
        UsageError: options that do not go together, or too few images.
        NotFoundError: no such slice, or it has no weights.
        LocalIOError, IntegrityError: a folder, image or weight file cannot be used or is damaged, or another process
            exports into the folder.
        QualityError: a file missed its gate; it is kept beside as ``NAME.rejected``, and the others are made.
    """
    wanted = _distinct(exports)
    _check(wanted)
    folder = _folder(name, budget, family, output, force, say, needs(wanted, images))
    with _exclusively(folder, say):
        return _export_all(folder, wanted, images, test_data, force, say)


@contextlib.contextmanager
def _exclusively(folder: Path, say: Say) -> Iterator[None]:
    """Keep other exports away from a folder, and clear away what killed ones left; the lock is not in the folder.

    Raises:
        LocalIOError: another process exports into it.
    """
    locks = store.cache_root() / names.LOCKS
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        say(
            f"{locks}: cannot be made ({error.strerror}); see to it yourself that one process alone exports to {folder}"
        )
        yield
        return
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    with exclusive(locks / name, f"process {os.getpid()}", folder) as unlocked:
        if unlocked:
            say(unlocked)
        store.remove_leftovers(folder)
        yield


def _distinct(exports: Export | Iterable[Export]) -> list[Export]:
    """Return each export once; a single one may come as it is."""
    iterable = [exports] if isinstance(exports, Export) else exports
    if isinstance(iterable, str) or not isinstance(iterable, Iterable):
        raise UsageError(f"export: exports is {iterable!r:.40}; give bz.Export objects, e.g. [bz.Export('onnx')].")
    listed = list(iterable)
    for option in listed:
        if not isinstance(option, Export):
            raise UsageError(f"export: {option!r:.40} is no export; give bz.Export objects, e.g. [bz.Export('onnx')].")
    return list(dict.fromkeys(listed))


def _export_all(
    folder: Path,
    wanted: list[Export],
    images: str | Path | None,
    test_data: str | Path | None,
    force: bool,
    say: Say,
) -> list[Exported]:
    slice_folder.check_files(folder)
    known = {str(entry["file"]): entry for entry in read_exports(folder)["exports"]}
    named = images is not None or test_data is not None
    own = slice_folder.describe(folder)[0].calibration
    if images is None and own:
        images = photographs.place(own, folder)
    _check_images(wanted, images)
    sample = _sample(folder, wanted, images, test_data, say)
    done: dict[Export, Exported] = {}
    for option in wanted:
        earlier = _earlier_export(folder, option, known.get(option.file), anew=force)
        if earlier and (not named or sample is None or _proven_on(earlier.entry, sample)):
            done[option] = earlier
    failures: list[QualityError] = []
    missing = [option for option in wanted if option not in done]
    if missing:
        from bignas_zoo.tasks.proving import open_subject

        subject = open_subject(folder, sample)
        for option in missing:
            try:
                done[option] = _export(folder, subject, option, say)
            except QualityError as error:
                failures.append(error)
    if failures:
        raise QualityError("\n".join(str(error) for error in failures))
    return [done[option] for option in wanted]


def _sample(
    folder: Path, wanted: list[Export], images: str | Path | None, test_data: str | Path | None, say: Say
) -> Sample | None:
    """Read the images; refuse too few before anything is converted."""
    if images is None and test_data is None:
        return None
    from bignas_zoo.export.ranges import LEAST_IMAGES
    from bignas_zoo.tasks.proving import open_sample

    sample = open_sample(folder, images, test_data, say)
    count = len(sample.training) if sample else 0
    apart_count = len(sample.test) if sample and sample.test and not test_data else 0
    if count < LEAST_IMAGES and any(option.precision in ("int8", "dynamic") for option in wanted):
        apart = (
            f" {apart_count} more were set aside to measure accuracy on: name others for that with --test-data."
            if apart_count
            else ""
        )
        raise UsageError(
            f"export: {images}: {count} different image{'' if count == 1 else 's'} {'is' if count == 1 else 'are'} too "
            f"few for int8 and dynamic; give at least {LEAST_IMAGES} training images with --images.{apart}"
        )
    return sample


def _proven_on(entry: Mapping[str, Any], sample: Sample) -> bool:
    """Return whether an export was made of and proven on these images."""
    labelled = sample.test.source if sample.test else None
    return (
        entry["parity"]["inputs"] == sample.source
        and (entry["accuracy"] or {}).get("source") == labelled
        and (entry["precision"] != "int8" or entry["ranges"] == sample.to_json())
    )


def _check(wanted: list[Export]) -> None:
    if not wanted:
        raise UsageError("export: nothing to export; name a format.")
    _check_formats(wanted)


def _check_formats(wanted: Sequence[Export]) -> None:
    for option in wanted:
        if option.format in OF_KERAS:
            need_keras(f"export to {option.format}")


def needs(exports: Sequence[Export], images: str | Path | None) -> Callable[[Slice], None]:
    """Return what refuses a slice that some exports need images for, before anything is made of it.

    Raises, when called:
        UsageError: none are named, and the package has none that suit it.
        LocalIOError: there is nothing of the name.
    """

    def check(slice_: Slice) -> None:
        if images is not None and not os.path.exists(images):
            raise LocalIOError(f"{images}: no such folder or file of images.")
        _check_images(exports, images or slice_.calibration or None)
        _check_formats(exports)

    return check


def _check_images(wanted: Sequence[Export], images: str | Path | None) -> None:
    for option in wanted:
        if option.precision in ("int8", "dynamic") and images is None:
            raise UsageError(
                f"export: {option.precision} needs real images, to find ranges and to prove that accuracy stays: "
                "name a folder of training images (at least 64) with --images."
            )


def _folder(
    name: str | Path | None,
    budget: str | Budget | None,
    family: str | Path | None,
    output: str | Path | None,
    force: bool,
    say: Say,
    accept: Callable[[Slice], None],
) -> Path:
    """Return the slice folder to add to, made by `get` if a slice is named."""
    if name is not None and not is_address(name) and holds_slice(name):
        if budget is not None or output is not None or family is not None:
            raise UsageError(f"export: {name} is a slice folder; its files go into it, so leave out other options.")
        return Path(name)
    text = None if name is None else str(name)
    return get(text, budget=budget, family=family, output=output, force=force, say=say, accept=accept).path


def _earlier_export(folder: Path, option: Export, entry: Mapping[str, Any] | None, *, anew: bool) -> Exported | None:
    """Return an export that was made before of the folder's weights and is whole.

    Raises:
        LocalIOError: something else has its name.
    """
    path, description = folder / option.file, slice_folder.describe(folder)[1]
    if entry is None and option.file == names.TFLITE:
        entry = _base_entry(description)
    if entry is None and os.path.lexists(path):
        raise LocalIOError(f"{path}: exists, but was not made by this command. Move it away.")
    if entry is None or anew:
        return None
    try:
        _verify(folder, entry)
    except IntegrityError:
        return None  # made anew
    same = entry.get("weights_sha256") == description["files"][names.WEIGHTS]["sha256"]
    return Exported(path, entry, True) if same else None


def _base_entry(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `exports.json` would say of the folder's own model.tflite."""
    return {
        "file": names.TFLITE,
        **description["files"][names.TFLITE],
        **Export().to_json(),
        "parity": dict(description["parity"]),
        "accuracy": None,
        "ranges": None,
        "weights_sha256": description["files"][names.WEIGHTS]["sha256"],
    }


def _verify(folder: Path, entry: Mapping[str, Any]) -> None:
    files = entry.get("files") or {entry["file"]: entry}
    for name, record in files.items():
        store.verify(folder / name, str(record["sha256"]), size=int(record["bytes"]), fix="Export again.")


def _export(folder: Path, subject: Subject, option: Export, say: Say) -> Exported:
    """Make one file, prove it, name it, and record it.

    Raises:
        QualityError: it missed its gate and lies beside its name.
    """
    from bignas_zoo.export.gates import check
    from bignas_zoo.tasks.proving import make, prove

    if (option.format, option.precision) == ("tflite", "int8") and "hard_swish" in json.dumps(
        subject.description.get("space") or subject.description["blocks"]
    ):
        say(
            f"{option.file}: hard_swish in int8 is slow on CPUs (XNNPACK does not take it; some five times the time of "
            "swish): take --precision float16, or a space with swish or relu6"
        )
    target = folder / option.file
    aside = folder / f"{option.file}{REJECTED}"
    say(f"{option.file}: converting")
    with store.working_folder(folder) as work:
        unproven = make(subject, option, work)
        say(f"{option.file}: proving it on {subject.inputs}")
        proof = prove(subject, option, unproven)
        try:
            check(option.precision, proof.parity, proof.accuracy, noise=subject.sample is None)
        except QualityError as error:
            store.give_name(unproven, aside)
            raise QualityError(f"{option.file}: {error} It is kept as {aside}.") from error
        entry = {
            "file": option.file,
            **_records(work, unproven),
            **option.to_json(),
            **proof.to_json(),
            "weights_sha256": subject.weights_sha256,
            "versions": versions(),
            "machine": machine(),
        }
        # In this order: a record without its file is made anew, a file without a record would be somebody's.
        record(folder, entry)
        store.give_name(unproven, target)
    _remove(aside)
    return Exported(target, entry, False)


def _records(folder: Path, target: Path) -> dict[str, Any]:
    if target.is_file():
        return store.record(target)
    files = sorted(p for p in target.rglob("*") if p.is_file())
    records = {p.relative_to(folder).as_posix(): store.record(p) for p in files}
    return {"bytes": sum(r["bytes"] for r in records.values()), "files": records}


def record(folder: Path, entry: Mapping[str, Any]) -> None:
    """Put an entry into a folder's ``exports.json``, in place of one of the same file."""
    others = [e for e in read_exports(folder)["exports"] if e["file"] != entry["file"]]
    entries = sorted([*others, dict(entry)], key=lambda e: str(e["file"]))
    store.write_json(folder / names.EXPORTS, store.sealed({"schema": SCHEMA, "exports": entries}))


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
