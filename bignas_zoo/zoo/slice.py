"""A slice: a child of a family, named and measured."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.files import records
from bignas_zoo.files.records import FileRecord

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
