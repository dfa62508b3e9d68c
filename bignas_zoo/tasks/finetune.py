"""`finetune`: from a slice and a folder of one's own images to a slice folder of one's own classes.

Everything heavy is imported inside the functions.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.provenance import machine
from bignas_zoo.files.records import FileRecord
from bignas_zoo.files.say import Say, silent
from bignas_zoo.recipes.finetune_settings import FinetuneSettings
from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.cutting import verified_path
from bignas_zoo.tasks.load import network
from bignas_zoo.tasks.opening import Opened, SliceFolder, open_slice
from bignas_zoo.tasks.slices import Slice
from bignas_zoo.zoo import slice as zoo
from bignas_zoo.zoo import slice_folder
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.license import license_of

if TYPE_CHECKING:
    import keras

    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data import LabelledImages
    from bignas_zoo.recipes.finetune import Outcome

DEFAULTS = FinetuneSettings()
#: Smaller inputs leave the last stages a single position.
LEAST_RESOLUTION = 16


@dataclass(frozen=True)
class FinetuneResult:
    """What `finetune` made.

    Attributes:
        slice: the new slice.
        path: the folder with its files.
        files: file name to ``{"bytes": ..., "sha256": ...}``.
        description: the content of its slice.json.
    """

    slice: Slice
    path: Path
    files: Mapping[str, Mapping[str, Any]]
    description: Mapping[str, Any]

    @property
    def finetuned(self) -> Mapping[str, Any]:
        """How it was made: parent, data, settings, accuracies (docs/FORMAT.md)."""
        record: Mapping[str, Any] = self.description["provenance"]["finetuned"]
        return record

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {
            **slice_files.to_json(self.slice, self.path, self.files, self.description["parity"]),
            "finetuned": dict(self.finetuned),
        }


@dataclass(frozen=True)
class Parent:
    """A slice to start from: its network and where it comes from."""

    name: str
    family: str
    spec: ChildSpec
    child: keras.Model
    preprocess: Mapping[str, Any]
    supernet_sha256: str | None
    weights: Mapping[str, str]
    license: str
    source: str
    notice: Path | None
    statistics: str


@dataclass(frozen=True)
class Images:
    """A folder's images by use; `test` is None where the folder has no such split."""

    folder: str
    train: LabelledImages
    holdout: LabelledImages
    test: LabelledImages | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Label order."""
        return self.train.class_names

    def counts(self) -> dict[str, dict[str, int]]:
        """Return images a class, by use."""
        used = {"train": self.train, "holdout": self.holdout, "test": self.test}
        return {
            use: {name: int((part.labels == i).sum()) for i, name in enumerate(self.classes)}
            for use, part in used.items()
            if part is not None
        }


def finetune(
    name: str | Path,
    data: str | Path,
    *,
    family: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    resolution: int | None = None,
    epochs: int | None = None,
    freeze: bool = DEFAULTS.freeze,
    batch_size: int | None = None,
    learning_rate: float | None = DEFAULTS.learning_rate,
    patience: int = DEFAULTS.patience,
    holdout: float = DEFAULTS.holdout,
    seed: int = DEFAULTS.seed,
    statistics: str | None = DEFAULTS.statistics,
    license: str | None = None,
    say: Say = silent,
    report: Callable[[Any], None] = lambda progress: None,
) -> FinetuneResult:
    """Replace a slice's classifier and train the slice on one's own classes.

    Args:
        name: of a slice; a slice folder that `get` or this function made; or ``hf://ORG/NAME[@REVISION]``.
        data: ``FOLDER/CLASS/*.jpg``, of which a part of each class is held out; or
            ``FOLDER/train/CLASS`` with ``val``, ``test`` or both beside ``train``. The weights kept are
            those of the epoch with the highest accuracy on ``val``, or else on the held-out images;
            images of ``test`` choose nothing.
        family: where to look for the name.
        output: the slice folder to make; default: the new slice's name in the current folder.
        force: replace an output folder that is already there.
        resolution: input size in pixels of the new slice, at most the parent's crop; None takes the parent's. Cost
            falls with its square.
        epochs: passes over the training images, at most; None takes the mode's default.
        freeze: train the classifier alone, all else stays as it is: much faster, and enough for images like those
            the slice was trained on; less accurate on others.
        batch_size: images a step, at most; None takes the mode's default.
        learning_rate: its peak; None takes the mode's default.
        patience: stop after so many epochs without a higher held-out accuracy.
        holdout: part of each class held out where the folder has no ``val``.
        seed: of the split, the order and the augmentation.
        statistics: of batch norms, "batch" or "original"; None: the parent's own ("original") where it was trained
            alone, as the nets of efficientnet-lite were.
        license: of the new slice; None takes that of the slice it is made of.
        say: told what is going on, a sentence at a time.
        report: told a `bignas_zoo.recipes.progress.Progress` after each step.

    Returns:
        The result; the folder is one that `load`, `evaluate` and the others take.

    Raises:
        UsageError: a setting is not allowed, or classes or images are too few.
        NotFoundError: no such slice, or it has no weights.
        LocalIOError: images cannot be read, or the output exists or cannot be written.
        IntegrityError: an image or a weight file is damaged.
        AuthError, NetworkError: the Hub does not give the slice.
        TrainingStoppedError: the loss is not a number.
        QualityError: the exported file does not compute what the network does.
    """
    need_keras("finetune")
    given = {
        "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "patience": patience,
        "holdout": holdout, "seed": seed,
    }  # fmt: skip
    FinetuneSettings.of(statistics=statistics, freeze=freeze, **given)  # what is wrong with them is said first
    folder = Path(os.path.abspath(data))
    parent = _parent(open_slice(name, family))
    parent = dataclasses.replace(parent, license=license_of(license, parent.license))
    settings = FinetuneSettings.of(statistics=statistics or parent.statistics, freeze=freeze, **given)
    if settings.statistics == "original":  # one's own objects fill their photographs, ImageNet's stand in the middle
        parent = dataclasses.replace(parent, preprocess={**parent.preprocess, "crop_fraction": 1.0})
    spec = _at_resolution(parent, resolution)
    new_name = _slice_name(parent.name if spec == parent.spec else f"{parent.name}-at-{resolution}", folder.name)
    target = Path(output) if output is not None else Path(new_name)
    store.check_free(target, force=force)  # before the long work, not after it

    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.runs.folder import check_output

    check_output(target, folder)
    from bignas_zoo.recipes.finetune import check_enough, finetune_child, with_new_classifier

    preprocess = Preprocess.from_json(parent.preprocess)
    images = read_images(folder, preprocess, settings)
    check_enough(settings, images.train)
    spec = _spec(spec, len(images.classes))
    with store.new_folder(target, force=force) as temporary:  # a place that cannot be written shows now
        say(
            f"fine-tuning {parent.name} on {len(images.classes)} classes: {len(images.train):,} images to train on, "
            f"{len(images.holdout):,} held out"
        )
        child = with_new_classifier(parent.child, parent.spec, spec)
        outcome = finetune_child(child, preprocess, images.train, images.holdout, settings, say=say, report=report)
        slice_ = _measured(new_name, parent, spec, child, preprocess, images, outcome)
        home = Family(parent.family, "", spec.space, images.classes, parent.preprocess, (), **_folder(parent.notice))
        record = {
            "supernet_sha256": parent.supernet_sha256,
            "finetuned": _record(parent, images, settings, outcome, resolution),
        }
        say("exporting it to TFLite")
        slice_files.write(temporary, home, slice_, child, record)
        files = {p.name: store.record(p) for p in sorted(temporary.iterdir())}
        description = store.read_json(temporary / names.SLICE)
    slice_ = Slice.of(slice_folder.describe(target)[0])
    return FinetuneResult(slice_, target.absolute(), files, description)


def _parent(opened: Opened) -> Parent:
    slice_, home = opened.slice, opened.home
    if isinstance(home, SliceFolder):
        supernet_sha256 = dict(home.description.get("provenance") or {}).get("supernet_sha256")
        weights = {names.WEIGHTS: home.description["files"][names.WEIGHTS]["sha256"]}
    else:
        weights = {record.name: record.sha256 for record in home.weight_files(slice_)}
        supernet_sha256 = home.weights.sha256 if home.weights else None
    if slice_.spec is None:  # the new slice is written as a child of a space
        raise UsageError(f"'{slice_.name}': is a list of blocks; only children of a search space can be fine-tuned.")
    return Parent(
        name=slice_.name,
        family=slice_.family,
        spec=slice_.spec,
        child=network(opened),
        preprocess=slice_.preprocess,
        supernet_sha256=supernet_sha256,
        weights=weights,
        license=slice_.license,
        source=slice_.source,
        notice=_notice(home),
        statistics=_statistics(slice_, home),
    )


def _statistics(slice_: zoo.Slice, home: SliceFolder | Family) -> str:
    """Return what batch norms are to take their statistics from: a net's own where it was trained alone."""
    if not isinstance(home, SliceFolder):
        return "original" if slice_.weights else "batch"
    provenance = dict(home.description.get("provenance") or {})
    settings = dict(dict(provenance.get("finetuned") or {}).get("settings") or {})
    return "original" if provenance.get("weights") or settings.get("statistics") == "original" else "batch"


def _notice(home: SliceFolder | Family) -> Path | None:
    """Return the file that the licence of a slice's weights wants to be passed on."""
    if isinstance(home, SliceFolder):
        return home.path / names.NOTICE if names.NOTICE in home.description["files"] else None
    return verified_path(home, home.notice) if home.notice is not None else None


def _slice_name(parent: str, folder: str) -> str:
    """Name the new slice after its parent and its data, in the characters names may have."""
    plain = re.sub(r"[^a-z0-9.]+", "-", folder.lower()).strip("-.")
    return f"{parent}-{plain or 'finetuned'}"[:96].rstrip("-.")


def _at_resolution(parent: Parent, resolution: int | None) -> ChildSpec:
    """Return a parent's spec at another resolution.

    Raises:
        UsageError: it is too small, or larger than images are cut for the parent.
    """
    most = int(parent.preprocess["crop_size"])
    if resolution is None:
        return parent.spec
    if type(resolution) is not int or not LEAST_RESOLUTION <= resolution <= most:
        raise UsageError(
            f"--resolution: must be a whole number from {LEAST_RESOLUTION} to {most}, the crop of '{parent.name}', "
            f"got {resolution!r:.40}. For more take a slice of a larger one."
        )
    space = parent.spec.space
    if resolution not in (*space.resolutions, *space.unseen_resolutions):
        unseen = tuple(sorted({*space.unseen_resolutions, resolution}))
        space = dataclasses.replace(space, unseen_resolutions=unseen)
    return dataclasses.replace(parent.spec, resolution=resolution, space=space)


def _spec(spec: ChildSpec, classes: int) -> ChildSpec:
    """Return the same choices in the same space with other classes, under a name that says so."""
    base = re.sub(r"-\d+-classes$", "", spec.space.name)
    return dataclasses.replace(
        spec, space=dataclasses.replace(spec.space, name=f"{base}-{classes}-classes", classes=classes)
    )


def _folder(notice: Path | None) -> dict[str, Any]:
    """Return what makes a family pass a notice on."""
    if notice is None:
        return {}
    return {"folder": notice.parent, "notice": FileRecord.from_json({"file": notice.name, **store.record(notice)})}


def read_images(folder: Path, preprocess: Preprocess, settings: FinetuneSettings) -> Images:
    """Read a folder's images and split off those to hold out.

    Raises:
        UsageError: fewer than two classes, or a class has too few images.
        LocalIOError: no such folder, or nothing in it.
        IntegrityError: an image is damaged, or a sub-folder has no place.
    """
    from bignas_zoo.recipes.data.class_folders import read_splits, stratified

    parts = read_splits(folder, preprocess.crop_size, preprocess.crop_fraction)
    train, held = parts["train"], parts.get("val")
    if held is None:
        train, held = stratified(train, settings.holdout, settings.seed, folder.name)
    return Images(folder.name, train, held, parts.get("test"))


def _measured(
    name: str,
    parent: Parent,
    spec: ChildSpec,
    child: keras.Model,
    preprocess: Any,
    images: Images,
    outcome: Outcome,
) -> Slice:
    """Return the new slice with its accuracy: on test images, or, marked so, on those that chose its epoch."""
    from bignas_zoo.measure.evaluate import child_top1

    judged = images.test if images.test is not None else images.holdout
    top1 = child_top1(child, spec.resolution, preprocess, judged) if images.test is not None else outcome.after
    return Slice(
        name=name,
        family=parent.family,
        spec=spec,
        top1=top1,
        top1_images=len(judged),
        top1_source=judged.source + ("" if images.test is not None else CHOSEN_ON_THESE),
        holdout_top1=outcome.after,
        license=parent.license,
        source=parent.source,
        preprocess=parent.preprocess,
    )


CHOSEN_ON_THESE = ", which also chose the epoch, so it is an optimistic figure"


def _record(
    parent: Parent, images: Images, settings: FinetuneSettings, outcome: Outcome, resolution: int | None
) -> dict[str, Any]:
    """Return the provenance of a fine-tuned slice, as docs/FORMAT.md describes it."""
    return {
        "parent": {"name": parent.name, "family": parent.family, "weights": dict(parent.weights)},
        "data": {"folder": images.folder, "classes": len(images.classes), "images": images.counts()},
        "settings": settings.to_json(),
        "epochs": outcome.epochs,
        "best_epoch": outcome.best_epoch,
        "holdout_top1_before": outcome.before,
        "holdout_top1": outcome.after,
        "holdout_curve": list(outcome.curve),
        "holdout_images": len(images.holdout),
        "chosen_on_these": images.test is None,
        "machine": machine(),
        "command": _command(parent, images, settings, resolution),
    }


def _command(parent: Parent, images: Images, settings: FinetuneSettings, resolution: int | None) -> str:
    """Return the command that makes this slice, with the folder's name only."""
    values = settings.to_json()
    options = [
        f"--{key.replace('_', '-')} {values[key]}"
        for key in ("epochs", "batch_size", "learning_rate", "patience", "holdout", "seed", "statistics")
    ]
    return " ".join(
        [
            f"bignas-zoo finetune {parent.name} --data {shlex.quote(images.folder)}",
            *options,
            *([f"--resolution {resolution}"] if resolution is not None else []),
            "--freeze" if settings.freeze else "--no-freeze",
        ]
    )
