"""A slice: a child of a family, named and measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.files import records
from bignas_zoo.files.records import UNKNOWN, FileRecord


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
        license: of its weights, as SPDX names it or in other words; "unknown" if nobody has told.
        source: where its weights come from, in words; may be empty.
        preprocess: the input contract as JSON data (see `models.preprocess.Preprocess`).
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
    license: str = UNKNOWN
    source: str = ""
    preprocess: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to make its network of."""
        return self.statistics is not None

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
            "weights": self.has_weights,
            "license": self.license,
            "source": self.source,
            "preprocess": dict(self.preprocess),
        }


@dataclass(frozen=True)
class Facts:
    """What a family says of all its slices, each of which may say otherwise.

    Attributes:
        family: its name.
        license, source, preprocess: see `Slice`.
    """

    family: str
    license: str
    source: str
    preprocess: Mapping[str, Any]

    @staticmethod
    def from_json(data: Mapping[str, Any], family: str) -> Facts:
        """Read them from a description of a family or slice; raises KeyError, TypeError or ValueError."""
        return Facts(
            family=family,
            license=records.license_name(data.get("license", "")),
            source=records.line(data.get("source", "")),
            preprocess=records.contract(data["preprocess"]),
        )


def read_slice(data: Mapping[str, Any], facts: Facts, space: SearchSpace) -> Slice:
    """Read a slice's entry in family.json; raises KeyError, TypeError or ValueError."""
    return Slice(
        name=records.name(data["name"]),
        family=facts.family,
        spec=ChildSpec.from_json(data["spec"], space),
        top1=records.percentage(data["top1"]),
        top1_images=records.whole(data["top1_images"]),
        top1_source=records.line(data["top1_source"]),
        holdout_top1=records.percentage(data["holdout_top1"]),
        bytes=records.whole(data["bytes"]),
        statistics=FileRecord.from_json(data["statistics"]),
        license=records.license_name(data.get("license", facts.license)),
        source=records.line(data.get("source", facts.source)),
        preprocess=facts.preprocess,
    )
