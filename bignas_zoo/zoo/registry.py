"""Families and their slices: what there is and what it costs.

A family is a folder with ``family.json`` (normative description: docs/FORMAT.md); the shipped ones
lie in ``bignas_zoo/data/families``. The paper's four models are a family without weights.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces.bignas import BIGNAS, PAPER_MODELS, PAPER_TOP1
from bignas_zoo.errors import IntegrityError, NotFoundError, nearest, reason
from bignas_zoo.files import records
from bignas_zoo.files.records import FileRecord
from bignas_zoo.files.store import SEAL, check_seal, read_json, verify

SCHEMA = "bignas-zoo/family/2"
#: The same without a digest of its content; families made before it are read still.
UNSEALED = "bignas-zoo/family/1"
FAMILY_FILE = "family.json"
SHIPPED = Path(__file__).parents[1] / "data" / "families"
PAPER_FAMILY = "bignas-imagenet"
DEFAULT_FAMILY = "bignas-cifar10"
#: Modules above this level, which a slice's two methods for the Hub look up when they are called.
_HUB = "bignas_zoo.hub.{}"


@dataclass(frozen=True)
class Slice:
    """A child of a family, named and measured.

    Attributes:
        name: unique within the zoo.
        family: name of its family.
        spec: the child.
        top1: accuracy in percent on images never used to choose it; None if not measured.
        top1_images: how many images that was measured on.
        top1_source: which images, or whose figure it is.
        holdout_top1: accuracy in percent on images held out of training: what slices are chosen by.
        bytes: size of its float32 TFLite file as measured; None if never exported.
        statistics: the file with its batch-norm statistics; None without weights.
        folder: the slice folder it was read from; None for a slice of a family.
    """

    name: str
    family: str
    spec: ChildSpec
    top1: float | None
    top1_images: int | None
    top1_source: str
    holdout_top1: float | None = None
    bytes: int | None = None
    statistics: FileRecord | None = None
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def from_pretrained(
        cls, repo: str, *, revision: str = "main", token: str | None = None, local_files_only: bool = False,
        verify_key: str | Path | None = None,
    ) -> Slice:  # fmt: skip
        """Fetch a slice of the Hugging Face Hub; every file is checked by its sha256.

        Args:
            repo: ``ORG/NAME``, or a slice folder.
            revision: a branch, tag or commit.
            token: for a private repository; by default HF_TOKEN, or that of ``hf auth login``.
            local_files_only: make no request; what was fetched before counts.
            verify_key: file of the Ed25519 public key that must have signed it.

        Returns:
            The slice; `folder` says where its files are, and ``bignas_zoo.load(slice.folder)`` gives its network.

        Raises:
            UsageError, NotFoundError, AuthError, NetworkError, IntegrityError, LocalIOError: see `get`.
        """
        found: Slice = importlib.import_module(_HUB.format("using")).from_pretrained(
            repo, revision=revision, token=token, local_files_only=local_files_only, verify_key=verify_key
        )
        return found

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        revision: str = "main",
        family: str | Path | None = None,
        token: str | None = None,
        sign: str | Path | None = None,
    ) -> str:
        """Push the slice to the Hugging Face Hub, in one commit; see `bignas_zoo.push`.

        Args:
            repo: ``ORG/NAME``, made if it is not there.
            private: others shall not see it.
            revision: the branch to commit to.
            family: the folder of its family, if that is none of the shipped ones.
            token: with write access; by default HF_TOKEN, or that of ``hf auth login``.
            sign: file of an Ed25519 private key to sign with.

        Returns:
            The commit.

        Raises:
            UsageError, NotFoundError, AuthError, NetworkError, IntegrityError: see `bignas_zoo.push`.
        """
        pushed = importlib.import_module(_HUB.format("pushing")).push(
            self.folder or self.name, repo, private=private, revision=revision, family=family, token=token, sign=sign
        )
        return str(pushed.commit)

    @functools.cached_property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return cost.macs(self.spec)

    @functools.cached_property
    def parameters(self) -> int:
        """Parameters, batch-norm statistics included."""
        return cost.parameters(self.spec)

    @property
    def figures(self) -> dict[str, float | None]:
        """The quantities a budget can limit."""
        return {"macs": self.macs, "parameters": self.parameters, "bytes": self.bytes, "top1": self.top1}

    def to_json(self) -> dict[str, Any]:
        """Return what `list`, `show` and `get` print, keys in fixed order."""
        return {
            "name": self.name,
            "family": self.family,
            "macs": self.macs,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "resolution": self.spec.resolution,
            "top1": self.top1,
            "top1_images": self.top1_images,
            "top1_source": self.top1_source,
            "holdout_top1": self.holdout_top1,
            "weights": self.statistics is not None,
        }


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

    def path(self, record: FileRecord) -> Path:
        """Return the full path of one of the family's files."""
        if self.folder is None:
            raise NotFoundError(no_weights(self.name))
        return self.folder / record.name

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


@functools.cache
def paper_family() -> Family:
    """Return the paper's four models: MACs, parameters and printed accuracies, no weights."""
    slices = tuple(
        Slice(
            name=name,
            family=PAPER_FAMILY,
            spec=spec,
            top1=PAPER_TOP1[name],
            top1_images=None,
            top1_source="the paper's figure on ImageNet (BigNAS, arXiv 2003.11142), not measured here",
        )
        for name, spec in PAPER_MODELS.items()
    )
    description = "The four models of the BigNAS paper; Google never published their weights."
    return Family(PAPER_FAMILY, description, BIGNAS, (), {}, slices)


def families() -> tuple[Family, ...]:
    """Return the shipped families and the paper's, by name."""
    shipped = [load_family(p.parent) for p in sorted(SHIPPED.glob(f"*/{FAMILY_FILE}"))]
    return tuple(sorted([*shipped, paper_family()], key=lambda f: f.name))


def get_family(name: str | Path) -> Family:
    """Return a family by name, or from a folder that `train` made.

    Args:
        name: a shipped family's name, or the path of a folder that holds family.json, or of a training's run.

    Raises:
        NotFoundError: neither a family nor such a folder.
        IntegrityError: the folder's family.json is damaged.
    """
    known = {PAPER_FAMILY, *(p.parent.name for p in SHIPPED.glob(f"*/{FAMILY_FILE}"))}
    if str(name) == PAPER_FAMILY:
        return paper_family()
    if str(name) in known:
        return load_family(SHIPPED / str(name))
    for folder in (Path(name), Path(name) / "family"):  # of a run, or the run itself
        if os.path.isfile(folder / FAMILY_FILE):  # unlike Path.is_file: also False where a name is too long
            return load_family(folder)
    raise NotFoundError(f"family '{name}': not known, and no folder with a {FAMILY_FILE}. {nearest(str(name), known)}")


def load_family(folder: Path) -> Family:
    """Read a family's description; weights are checked when they are loaded.

    Raises:
        IntegrityError: the description is damaged or of another schema.
        LocalIOError: it cannot be read.
    """
    path = folder / FAMILY_FILE
    data = read_json(path)
    try:
        if data["schema"] not in (SCHEMA, UNSEALED):
            raise ValueError(f"schema is {data['schema']!r}, this version reads {SCHEMA!r}")
        space = SearchSpace.from_json(data["space"])
        slices = tuple(read_slice(entry, data["name"], space) for entry in data["slices"])
        found = Family(
            name=records.name(data["name"]),
            description=records.line(data["description"]),
            space=space,
            class_names=records.class_names(data["class_names"], space.classes),
            preprocess=records.contract(data["preprocess"]),
            slices=tuple(sorted(slices, key=lambda s: s.macs)),
            folder=folder,
            weights=FileRecord.from_json(data["weights"]),
            training=records.described(data["training"]),
        )
        if data["schema"] == SCHEMA or SEAL in data:
            check_seal(data)
        return found
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IntegrityError(
            f"{path}: not a valid family description ({reason(error)}). "
            "Reinstall bignas-zoo, or make the family again with `bignas-zoo train`."
        ) from error


def check_family(folder: Path) -> Family:
    """Read a family's description, and compare its weights and statistics with their records.

    Raises:
        IntegrityError: a file is missing or damaged.
        LocalIOError: one cannot be read.
    """
    family = load_family(folder)
    for record in filter(None, [family.weights, *(s.statistics for s in family.slices)]):
        verify(family.path(record), record.sha256, size=record.bytes, fix="")
    return family


def read_slice(data: Mapping[str, Any], family: str, space: SearchSpace) -> Slice:
    """Read a slice's entry in family.json; raises KeyError, TypeError or ValueError."""
    return Slice(
        name=records.name(data["name"]),
        family=family,
        spec=ChildSpec.from_json(data["spec"], space),
        top1=records.percentage(data["top1"]),
        top1_images=records.whole(data["top1_images"]),
        top1_source=records.line(data["top1_source"]),
        holdout_top1=records.percentage(data["holdout_top1"]),
        bytes=records.whole(data["bytes"]),
        statistics=FileRecord.from_json(data["statistics"]),
    )


def list_slices(family: str | Path | None = None) -> tuple[Slice, ...]:
    """Return all slices, of one family or of all, ordered by family and MACs."""
    chosen = families() if family is None else (get_family(family),)
    return tuple(s for f in chosen for s in f.slices)


def find_slice(name: str, family: str | Path | None = None) -> tuple[Family, Slice]:
    """Return a slice and its family.

    Raises:
        NotFoundError: no slice has this name; the message names the nearest.
    """
    if family is not None:
        chosen = get_family(family)
        return chosen, chosen.find(name)
    everything = families()
    for candidate in everything:
        for found in candidate.slices:
            if found.name == name:
                return candidate, found
    if os.path.isdir(name):
        raise NotFoundError(
            f"{name}: is a folder, but no slice's: it has no file slice.json. Name one that `bignas-zoo get` or "
            "`finetune` made, or a slice of `bignas-zoo list`."
        )
    known = [s.name for f in everything for s in f.slices]
    raise NotFoundError(f"slice '{name}': not known. {_hub_hint(name) or nearest(name, known)} See `bignas-zoo list`.")


def _hub_hint(name: str) -> str:
    """Return how a slice of the Hub is written, if a name looks as if one was meant."""
    match = re.fullmatch(r"(?:hf:/*|https?://[^/]+/)?(\w[\w.-]*/\w[\w.-]*?)/?", name, re.IGNORECASE)
    return f"There is no such folder, and a slice of the Hub is written hf://{match[1]}." if match else ""


def no_weights(name: str) -> str:
    """Return the message for a slice or family without weights."""
    return (
        f"'{name}': its weights were never published, so there is nothing to cut. "
        "Train the space with your own recipe (`bignas-zoo train`, see the README), "
        f"or take a family that has weights, e.g. --family {DEFAULT_FAMILY}."
    )
