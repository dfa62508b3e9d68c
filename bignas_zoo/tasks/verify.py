"""`verify`: is an exported file whole, does it run, does it say what it takes, and does it compute what the slice does?

The file is never trusted: it is read as bytes, and run in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bignas_zoo.errors import IntegrityError, NotFoundError, QualityError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.formats import Export
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks.opening import holds_slice, local_path
from bignas_zoo.zoo import photographs, slice_folder

if TYPE_CHECKING:
    from bignas_zoo.tasks.proving import Subject

#: The environment variable that names the Python of each judge, and where to look for images of it.
JUDGES = {"task-library": "BIGNAS_ZOO_TASK_LIBRARY_PYTHON", "mediapipe": "BIGNAS_ZOO_MEDIAPIPE_PYTHON"}
#: Images that a judge sees, and the part of them whose first class must be the same.
JUDGED, AGREEMENT = 256, 0.99
#: The same of files with int8 weights, whose kernels round otherwise from version to version.
AGREEMENT_IN_INT8 = 0.95


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        passed: None where it could not be looked at.
        detail: what was found, in words.
        figures: the same as data.
        file: name of the file that was looked at, where a whole folder was.
    """

    name: str
    passed: bool | None
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    file: str | None = None


@dataclass(frozen=True)
class Verification:
    """All that was looked at.

    Attributes:
        path: the file or slice folder.
        checks: in order.
    """

    path: Path
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        checks = [{**asdict(c), "figures": dict(c.figures)} for c in self.checks]
        return {"path": str(self.path), "passed": self.passed, "checks": checks}


def verify(
    path: str | Path,
    *,
    judges: Sequence[str] = (),
    pythons: Mapping[str, str] | None = None,
    images: str | Path | None = None,
    test_data: str | Path | None = None,
    say: Say = silent,
) -> Verification:
    """Check an exported ``.tflite`` or ``.onnx`` file, or all files of a slice folder.

    In a slice folder its size and sha256 are compared with the recorded ones, and its scores with those of the Keras
    model. Any other file is run on random inputs, and its metadata are read.

    Args:
        path: the file or folder, or ``hf://ORG/NAME[@REVISION]``. A ``.keras`` file or a SavedModel can hold code that
            loading would run, so neither is run; in a folder their bytes are compared with the record.
        judges: "task-library" and "mediapipe": libraries of others that must read and run the file.
        pythons: the Python to run each judge with; default: the one that BIGNAS_ZOO_TASK_LIBRARY_PYTHON or
            BIGNAS_ZOO_MEDIAPIPE_PYTHON names, else this one.
        images: real images to compare on, see `bignas_zoo.tasks.export.export_slice`; judges need them.
        test_data: labelled images, to measure accuracy as well.
        say: told what is going on.

    Returns:
        The report. A check that fails is in it; it does not raise.

    Raises:
        UsageError: a judge is not known or not installed, or has no images.
        NotFoundError: no such file.
        AuthError, NetworkError: the Hub does not give it.
        IntegrityError: the file is no model, is damaged, or crashes its runtime.
    """
    file = local_path(path)
    if not os.path.lexists(file):
        raise NotFoundError(f"{file}: no such file. Name a file that `bignas-zoo get` or `export` made.")
    _check_judges(judges, images, test_data)
    if holds_slice(file):
        return _folder(file, lambda f: verify(
            f, judges=judges, pythons=pythons, images=images, test_data=test_data, say=say
        ))  # fmt: skip
    if file.is_dir() or file.suffix == ".keras":
        raise UsageError(
            f"{file}: only slice folders and .tflite and .onnx files are checked: loading a .keras file or SavedModel "
            "can run its code."
        )
    folder = file.parent if holds_slice(file.parent) else None
    checks: list[Check] = [_recorded(folder, file)] if folder else []
    if any(check.passed is False for check in checks):
        return Verification(file, tuple(checks))
    option = _option(folder, file)
    checks += [_runs(file), _described(file, option)]
    if folder:
        from bignas_zoo.tasks.proving import open_sample, open_subject

        checks.append(_same_contract(folder, checks[-1]))
        if images is None and test_data is None and option.precision in ("int8", "dynamic"):
            own = slice_folder.describe(folder)[0].calibration
            images = photographs.place(own, folder) if own else None
        subject = open_subject(folder, open_sample(folder, images, test_data, say))
        checks += _compared(
            subject, option, file, say, recorded=bool(_entry(folder, file)) or file.name == names.TFLITE
        )
        for judge in judges:
            checks.append(_judged(subject, option, file, judge, (pythons or {}).get(judge), say))
    elif judges or images is not None or test_data is not None:
        raise UsageError(
            f"{file}: --images and --with need the slice to compare with: the file must be in its slice folder "
            f"(no {names.SLICE} beside it)."
        )
    else:
        missing = f"not compared: no {names.SLICE} beside it to compare with"
        checks = [Check("record", None, missing), *checks, Check("parity", None, missing)]
    return Verification(file, tuple(checks))


def _folder(folder: Path, look: Callable[[Path], Verification]) -> Verification:
    """Check every file that a slice folder lists; those that can hold code by their bytes alone."""
    checks = [_listed(folder)]
    files = [names.TFLITE, *(entry["file"] for entry in slice_folder.read_exports(folder)["exports"])]
    for name in dict.fromkeys(files):
        file = folder / name
        if not os.path.lexists(file):
            outcomes: tuple[Check, ...] = (Check("record", False, f"is missing. {_cure(name)}"),)
        elif checks[0].passed and file.suffix in (".tflite", ".onnx"):
            outcomes = look(file).checks  # with damaged weights there is nothing to compare with
        else:
            outcomes = (_recorded(folder, file),)
        checks += [replace(check, file=name) for check in outcomes]
    return Verification(folder, tuple(checks))


def _cure(name: str) -> str:
    """Return what makes a file of a slice folder again: its own ones `export` does not make."""
    return slice_folder.REMAKE if name == names.TFLITE else "Export it again."


def _listed(folder: Path) -> Check:
    """Compare the files of slice.json with their sizes and sha256."""
    _, description = slice_folder.describe(folder)
    wrong = []
    for name, record in description["files"].items():
        try:
            store.verify(folder / name, str(record["sha256"]), size=int(record["bytes"]), fix=slice_folder.REMAKE)
        except IntegrityError as error:
            wrong.append(str(error))
    text = " ".join(wrong) or f"{', '.join(description['files'])}: size and sha256 are as recorded"
    return Check("files", not wrong, text, file=names.SLICE)


def _check_judges(judges: Sequence[str], images: Any, test_data: Any) -> None:
    for judge in judges:
        if judge not in JUDGES:
            raise UsageError(f"verify: judge '{judge}' is not known; allowed: {', '.join(JUDGES)}.")
        if images is None and test_data is None:
            raise UsageError(f"verify: {judge} is asked about real images; name some with --images.")


def _recorded(folder: Path, file: Path) -> Check:
    """Compare size and sha256 with those in the slice folder."""
    _, description = slice_folder.describe(folder)
    entry = _entry(folder, file)
    if entry is None and file.name != names.TFLITE:
        return Check("record", None, f"not recorded in {folder.name}; only what the file itself says is checked")
    files = (entry or {}).get("files") or {file.name: entry or description["files"][names.TFLITE]}
    if file.name == names.TFLITE:
        files = {names.TFLITE: description["files"][names.TFLITE]}
    try:
        for name, record in files.items():
            store.verify(folder / name, str(record["sha256"]), size=int(record["bytes"]), fix=_cure(name))
    except IntegrityError as error:
        return Check("record", False, str(error))
    return Check("record", True, "size and sha256 are as recorded")


def _entry(folder: Path, file: Path) -> dict[str, Any] | None:
    entries = slice_folder.read_exports(folder)["exports"]
    return next((dict(e) for e in entries if e["file"] == file.name), None)


def _option(folder: Path | None, file: Path) -> Export:
    """Return how the file was exported, as far as is known."""
    entry = _entry(folder, file) if folder else None
    if entry:
        try:
            return Export(**{key: entry[key] for key in Export().to_json()})
        except (KeyError, TypeError, UsageError) as error:
            raise IntegrityError(f"{folder}: exports.json says of {file.name} what cannot be ({error}).") from error
    return Export("onnx" if file.suffix == ".onnx" else "tflite")


def _runs(file: Path) -> Check:
    """Load the file and run it on random inputs."""
    from bignas_zoo.runtime.runner import describe_file, run_file

    ends = describe_file(file)
    if f".{ends.format}" != file.suffix:
        return Check(
            "runs", False, f"its content is {ends.format}, its name says {file.suffix or 'nothing'}: rename it"
        )
    shape = [1 if size is None else size for size in ends.input.shape]
    inputs = np.random.default_rng(0).integers(0, 256, [max(2, shape[0]), *shape[1:]]).astype(np.float32)
    scores = run_file(file, inputs)
    sums = scores.sum(-1)
    good = bool(np.isfinite(scores).all()) and bool(np.abs(sums - 1).max() < 0.1 + _rounding(scores))
    words = f"{ends.input.dtype} {list(ends.input.shape)} to {ends.output.dtype} {list(ends.output.shape)}"
    if not good:
        return Check(
            "runs", False, f"{words}; its scores are no probabilities (sums {sums.min():.3g} to {sums.max():.3g})"
        )
    return Check("runs", True, f"{words}, {ends.runtime}", asdict(ends))


def _rounding(scores: np.ndarray) -> float:
    """Return by how much rounding may move a sum of scores: those of int8 files are whole multiples of 1/256."""
    whole = np.abs(scores * 256 - np.round(scores * 256)).max() < 1e-3
    return scores.shape[-1] / 512 if whole else 0.0


def _described(file: Path, option: Export) -> Check:
    """Read what the file says of itself."""
    try:
        if option.format == "tflite":
            from bignas_zoo.export.metadata import read_metadata

            info = read_metadata(file.read_bytes())
            text = f"{info.name}: {len(info.class_names)} labels, mean {list(info.mean)}, std {list(info.std)}"
            return Check("metadata", True, text, {**asdict(info), "class_names": list(info.class_names)})
        from bignas_zoo.export.properties import read_properties

        properties = read_properties(file)
        return Check("metadata", True, f"{properties['name']}: {len(properties['labels'])} labels", properties)
    except IntegrityError as error:
        absent = "holds no metadata" in str(error) or "is missing or no text" in str(error)
        return Check("metadata", None if absent else False, str(error))


def _same_contract(folder: Path, described: Check) -> Check:
    """Compare what a file says of labels and normalisation with slice.json."""
    from bignas_zoo.export.properties import IN_GRAPH

    _, description = slice_folder.describe(folder)
    figures, contract = described.figures, description["preprocess"]
    if not figures:
        return Check("contract", None, "the file says nothing to compare with slice.json")
    names = list(figures.get("class_names") or figures["labels"])
    if names != list(description["class_names"]):
        return Check("contract", False, "its labels are not the class_names of slice.json")
    stated = figures.get("preprocess", figures)
    mean, std = stated["mean"], stated["std"]
    inside = mean == IN_GRAPH or (list(mean) == [0.0] * 3 and list(std) == [1.0] * 3)
    if not inside and not (np.allclose(mean, contract["mean"]) and np.allclose(std, contract["std"])):
        text = f"it wants mean {list(mean)} and std {list(std)}, slice.json {contract['mean']} and {contract['std']}"
        return Check("contract", False, text)
    return Check("contract", True, "labels and normalisation are those of slice.json")


def _compared(subject: Subject, option: Export, file: Path, say: Say, *, recorded: bool) -> list[Check]:
    """Compare with the Keras model, and hold the result against the gates of the precision."""
    from bignas_zoo.export.gates import check
    from bignas_zoo.tasks.proving import prove

    say(f"comparing with the network itself on {subject.inputs}")
    proof = prove(subject, option, file)
    parity, accuracy = proof.parity, proof.accuracy
    distance = (
        f"log-probabilities differ by at most {parity.max_abs:.1e}"
        if parity.max_abs is not None
        else f"scores differ by {parity.score_mean_abs:.1e} on average"
    )
    text = f"{distance}, {parity.top1_agreement:.1%} of first classes equal on {parity.images} {parity.inputs}"
    if accuracy:
        text += f"; top-1 {accuracy.top1:.2f} % ({accuracy.float_top1:.2f} % in Keras) on {accuracy.images:,} images"
    if subject.sample is None and (option.precision in ("int8", "dynamic") or not recorded):
        advice = "on noise, which says little of this file: name real images with --images"
        return [Check("parity", None, f"{text}; {advice}", proof.to_json())]
    try:
        # Of a file that nobody recorded the precision is not known.
        check(option.precision if recorded else "dynamic", parity, accuracy, noise=subject.sample is None)
    except QualityError as error:
        return [Check("parity", False, str(error), proof.to_json())]
    return [Check("parity", True, text, proof.to_json())]


def _judged(subject: Subject, option: Export, file: Path, judge: str, python: str | None, say: Say) -> Check:
    """Let a library of others classify real images, and compare with the Keras model."""
    from bignas_zoo.export import judges
    from bignas_zoo.tasks.proving import child_logits, given_to, run_export

    ask: Callable[..., judges.Verdict]
    ask = judges.ask_task_library if judge == "task-library" else judges.ask_mediapipe
    say(f"asking {judge}")
    with store.scratch_folder() as work:
        paths, pixels = _pictures(subject, work)
        try:
            verdict = ask(file, paths, python=python or os.environ.get(JUDGES[judge]))
        except QualityError as error:
            cure = " Export it with --normalize-in-graph for MediaPipe." if "Per-channel" in str(error) else ""
            return Check(judge, False, f"{error}{cure}")
    names = list(subject.description["class_names"])
    whole = option.precision in ("float32", "float16")
    # What quantising costs has its own gate; here the judge must read the file as it is meant: as LiteRT does.
    scores = child_logits(subject, pixels) if whole else run_export(option, file, given_to(subject, option, pixels))[0]
    first = [image[0][0] if image else "" for image in verdict.classes]
    unknown = sorted({*first} - {*names})
    same = float(np.mean([names[i] == name for i, name in zip(scores.argmax(-1), first, strict=True)]))
    least = AGREEMENT if whole else AGREEMENT_IN_INT8
    figures = {"judge": verdict.judge, "images": len(first), "agreement": same, "unknown_labels": unknown}
    whose = "the network" if whole else "LiteRT"
    text = f"{verdict.judge}: {same:.1%} of {len(first)} images get {whose}'s first class"
    return Check(judge, same >= least and not unknown, text, figures)


def _pictures(subject: Subject, folder: Path) -> tuple[list[Path], np.ndarray]:
    """Write images of the file's input size; return their paths and their pixel values."""
    from PIL import Image

    from bignas_zoo.models.preprocess import resize_arrays
    from bignas_zoo.recipes.data.evenly import evenly

    assert subject.sample
    crops = subject.sample.test.pixels if subject.sample.test else subject.sample.training
    some = crops[evenly(len(crops), JUDGED)]
    pixels = np.clip(np.round(resize_arrays(some.astype(np.float32), subject.resolution)), 0, 255)
    paths = []
    for i, image in enumerate(pixels.astype(np.uint8)):
        paths.append(folder / f"{i:04d}.png")
        Image.fromarray(image).save(paths[-1])
    return paths, pixels.astype(np.float32)
