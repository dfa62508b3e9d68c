"""A family: slices of one supernet, or nets trained one by one, read from its folder (normative: docs/FORMAT.md)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import NotFoundError, UsageError, nearest
from bignas_zoo.files import names, records
from bignas_zoo.files.records import UNKNOWN, FileRecord
from bignas_zoo.files.store import SEAL, check_seal, read_json, verify
from bignas_zoo.zoo import photographs
from bignas_zoo.zoo.slice import Facts, Slice, read_slice

SCHEMA = "bignas-zoo/family/2"
#: Of nets that were trained one by one: there is no space that all of them are cut from.
NETS_SCHEMA = "bignas-zoo/family/3"
#: The same without a digest of its content; families made before it are read still.
UNSEALED = "bignas-zoo/family/1"
#: The family that is meant where none is named, and the one for what needs a supernet.
DEFAULT_FAMILY, DEFAULT_SUPERNET = "efficientnet-lite", "bignas-cifar10"
#: The family of the paper's four models.
PAPER_FAMILY = "bignas-imagenet"
REMAKE = "Reinstall bignas-zoo, or make the family again with `bignas-zoo train`."

#: The training method of families of one's own photographs.
MATCHED = "matched-sandwich"


@dataclass(frozen=True)
class Family:
    """Slices with their weights: of one supernet, or of nets that share nothing but a task.

    Attributes:
        name: of the family.
        description: one sentence.
        space: the search space that all children are cut from; None where nets were trained one by one.
        class_names: label order of the logits.
        preprocess: the input contract as JSON data (see `models.preprocess.Preprocess`).
        slices: ordered by MACs.
        folder: where its files are; None without weights.
        weights: the supernet's file; None without one.
        training: how it was made: recipe, data, machine, versions, command.
        license: of its weights, as SPDX names it or in other words; "unknown" if nobody has told.
        source: where its weights come from, in words; may be empty.
        notice: the file with what its weights' licence asks to be passed on with them; None if it asks for none.
        training_images: the file with some of the images that it was trained on; None if it has none.
    """

    name: str
    description: str
    space: SearchSpace | None
    class_names: tuple[str, ...]
    preprocess: Mapping[str, Any]
    slices: tuple[Slice, ...]
    folder: Path | None = None
    weights: FileRecord | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    license: str = UNKNOWN
    source: str = ""
    notice: FileRecord | None = None
    training_images: FileRecord | None = None

    @property
    def has_weights(self) -> bool:
        """Whether any of its slices can be made."""
        return any(slice_.has_weights for slice_ in self.slices)

    def supernet(self, what: str) -> tuple[SearchSpace, FileRecord]:
        """Return the space and the shared weights, which other children can be cut from.

        Args:
            what: that needs them, as the message's subject, e.g. "search".

        Raises:
            UsageError: its nets were trained one by one.
            NotFoundError: it has no weights.
        """
        if self.space is None:
            raise UsageError(
                f"{what}: family '{self.name}' is no supernet: its nets were trained one by one and share no "
                "weights, so there are no other children to cut. Take one of its slices as it is, or another family."
            )
        if self.weights is None:
            raise NotFoundError(no_weights(self))
        return self.space, self.weights

    def check_calibrates(self, what: str) -> None:
        """Refuse to calibrate children whose statistics are matched to a trained network's, see `models.matching`.

        Args:
            what: would calibrate them, as the message's subject.

        Raises:
            UsageError: the family is one of one's own photographs.
        """
        recipe = self.training.get("recipe")
        method = recipe.get("method") if isinstance(recipe, dict) else None
        if isinstance(method, dict) and method.get("name") == MATCHED:
            raise UsageError(
                f"{what}: the slices of '{self.name}' keep statistics matched to the network that they were trained "
                "from; calibrating others of its children would cost them 20 points and more. Take one of its slices."
            )

    def path(self, record: FileRecord) -> Path:
        """Return the full path of one of the family's files."""
        if self.folder is None:
            raise NotFoundError(no_weights(self))
        return self.folder / record.name

    def weight_files(self, slice_: Slice) -> tuple[FileRecord, ...]:
        """Return the files that a slice's weights are in: its own or the shared ones, and its statistics.

        Raises:
            NotFoundError: it has none.
        """
        files = (slice_.weights,) if slice_.blocks else (slice_.weights or self.weights, slice_.statistics)
        present = tuple(file for file in files if file is not None)
        if len(present) < len(files):
            raise NotFoundError(no_weights(slice_))
        return present

    def find(self, name: str) -> Slice:
        """Return a slice by its name, or by its short form such as ``s``.

        Raises:
            NotFoundError: the family has no such slice.
        """
        for candidate in self.slices:
            if name in (candidate.name, candidate.name.removeprefix(f"{self.name}-")):
                return candidate
        known = [s.name for s in self.slices]
        raise NotFoundError(f"slice '{name}': not in family '{self.name}'. {nearest(name, known)}")


def load_family(folder: Path) -> Family:
    """Read a family's description; weights are checked when they are loaded.

    Raises:
        IntegrityError: the description is damaged or of another schema.
        LocalIOError: it cannot be read.
    """
    path = folder / names.FAMILY
    data = read_json(path)
    with records.reading(f"{path}: not a valid family description", REMAKE):
        if data["schema"] not in (SCHEMA, UNSEALED, NETS_SCHEMA):
            raise ValueError(f"schema is {data['schema']!r}, this version reads {SCHEMA!r} and {NETS_SCHEMA!r}")
        of_nets = data["schema"] == NETS_SCHEMA
        space = None if of_nets else SearchSpace.from_json(data["space"])
        facts = Facts.from_json(data, records.name(data["name"]))
        spaces = {row["name"]: SearchSpace.from_json(row) for row in data["spaces"]} if of_nets else {}
        slices = tuple(_slice(entry, facts, space, spaces) for entry in data["slices"])
        _check_names(slices)
        classes = slices[0].network.classes if space is None else space.classes
        family = Family(
            name=facts.family,
            description=records.line(data["description"]),
            space=space,
            class_names=records.class_names(data["class_names"], classes),
            preprocess=facts.preprocess,
            slices=tuple(sorted(slices, key=lambda s: s.macs)),
            folder=folder,
            weights=None if of_nets else FileRecord.from_json(data["weights"]),
            training=records.described(data["training"]),
            license=facts.license,
            source=facts.source,
            notice=_optional(data, "notice"),
            training_images=_optional(data, "training_images"),
        )
        if facts.calibration == photographs.TRAINING and family.training_images is None:
            raise ValueError(f"calibration is {facts.calibration!r}, but training_images is missing")
        if data["schema"] != UNSEALED or SEAL in data:
            check_seal(data)
        return family


def _optional(data: Mapping[str, Any], key: str) -> FileRecord | None:
    """Read the record of a file that a family may lack."""
    return FileRecord.from_json(data[key]) if data.get(key) is not None else None


def _slice(
    entry: Mapping[str, Any], facts: Facts, space: SearchSpace | None, spaces: Mapping[str, SearchSpace]
) -> Slice:
    """Read a slice's entry; where there is no common space, a child names its own."""
    if space is not None or "blocks" in entry:
        return read_slice(entry, facts, space)
    own = {key: value for key, value in entry.items() if key != "space"}
    return read_slice(own, facts, spaces[entry["space"]])


def _check_names(slices: Sequence[Slice]) -> None:
    """Check what slices of one family must be: some, of different names, with the same number of classes."""
    if not slices:
        raise ValueError("it has no slices")
    for known, slice_ in itertools.pairwise(slices):
        if slice_.network.classes != known.network.classes:
            raise ValueError(
                f"{slice_.name} has {slice_.network.classes} classes, {known.name} {known.network.classes}"
            )
    count = Counter(slice_.name for slice_ in slices)
    if len(count) < len(slices):
        raise ValueError(f"two slices are called {count.most_common(1)[0][0]!r}")


def check_family(folder: Path) -> Family:
    """Read a family's description, and compare its weights and statistics with their records.

    Raises:
        IntegrityError: a file is missing or damaged.
        LocalIOError: one cannot be read.
    """
    family = load_family(folder)
    files = [file for slice_ in family.slices for file in family.weight_files(slice_)]
    own = filter(None, [family.weights, family.notice, family.training_images])
    for record in dict.fromkeys([*own, *files]):
        verify(family.path(record), record.sha256, size=record.bytes, fix="")
    return family


def no_weights(subject: Family | Slice) -> str:
    """Return the message for a slice or family without weights."""
    family = subject.family if isinstance(subject, Slice) else subject.name
    why = "its weights were never published" if family == PAPER_FAMILY else "it has no weights here"
    return (
        f"'{subject.name}': {why}, so there is nothing to cut. "
        "Train the space with your own recipe (`bignas-zoo train`, see the README), "
        f"or take a family that has weights, e.g. --family {DEFAULT_FAMILY}."
    )
