"""A family: a supernet's weights with their slices, read from its folder (normative description: docs/FORMAT.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import NotFoundError, nearest
from bignas_zoo.files import names, records
from bignas_zoo.files.records import UNKNOWN, FileRecord
from bignas_zoo.files.store import SEAL, check_seal, read_json, verify
from bignas_zoo.zoo.slice import Facts, Slice, read_slice

SCHEMA = "bignas-zoo/family/2"
#: The same without a digest of its content; families made before it are read still.
UNSEALED = "bignas-zoo/family/1"
FAMILY_FILE = names.FAMILY
#: The family that is meant where none is named.
DEFAULT_FAMILY = "bignas-cifar10"
#: The family of the paper's four models.
PAPER_FAMILY = "bignas-imagenet"
REMAKE = "Reinstall bignas-zoo, or make the family again with `bignas-zoo train`."


@dataclass(frozen=True)
class Family:
    """A supernet with its slices.

    Attributes:
        name: of the family.
        description: one sentence.
        space: its search space.
        class_names: label order of the logits.
        preprocess: the input contract as JSON data (see `models.preprocess.Preprocess`).
        slices: ordered by MACs.
        folder: where its files are; None without weights.
        weights: the supernet's file; None without weights.
        training: how it was made: recipe, data, machine, versions, command.
        license: of its weights, as SPDX names it or in other words; "unknown" if nobody has told.
        source: where its weights come from, in words; may be empty.
    """

    name: str
    description: str
    space: SearchSpace
    class_names: tuple[str, ...]
    preprocess: Mapping[str, Any]
    slices: tuple[Slice, ...]
    folder: Path | None = None
    weights: FileRecord | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    license: str = UNKNOWN
    source: str = ""

    @property
    def has_weights(self) -> bool:
        """Whether there are shared weights to cut children of."""
        return self.weights is not None

    def path(self, record: FileRecord) -> Path:
        """Return the full path of one of the family's files."""
        if self.folder is None:
            raise NotFoundError(no_weights(self))
        return self.folder / record.name

    def weight_files(self, slice_: Slice) -> tuple[FileRecord, ...]:
        """Return the files that a slice's weights are in: its own, or the shared weights and its statistics.

        Raises:
            NotFoundError: it has none.
        """
        files = (slice_.weights,) if slice_.blocks else (self.weights, slice_.statistics)
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
    path = folder / FAMILY_FILE
    data = read_json(path)
    with records.reading(f"{path}: not a valid family description", REMAKE):
        if data["schema"] not in (SCHEMA, UNSEALED):
            raise ValueError(f"schema is {data['schema']!r}, this version reads {SCHEMA!r}")
        space = SearchSpace.from_json(data["space"])
        facts = Facts.from_json(data, records.name(data["name"]))
        slices = tuple(read_slice(entry, facts, space) for entry in data["slices"])
        family = Family(
            name=facts.family,
            description=records.line(data["description"]),
            space=space,
            class_names=records.class_names(data["class_names"], space.classes),
            preprocess=facts.preprocess,
            slices=tuple(sorted(slices, key=lambda s: s.macs)),
            folder=folder,
            weights=FileRecord.from_json(data["weights"]),
            training=records.described(data["training"]),
            license=facts.license,
            source=facts.source,
        )
        if data["schema"] == SCHEMA or SEAL in data:
            check_seal(data)
        return family


def check_family(folder: Path) -> Family:
    """Read a family's description, and compare its weights and statistics with their records.

    Raises:
        IntegrityError: a file is missing or damaged.
        LocalIOError: one cannot be read.
    """
    family = load_family(folder)
    files = [file for slice_ in family.slices for file in family.weight_files(slice_)]
    for record in dict.fromkeys([*filter(None, [family.weights]), *files]):
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
