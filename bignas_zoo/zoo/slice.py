"""A slice: a network of the zoo, named and measured: a child of a family, or a list of blocks with its own weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.network import BlockList, Network
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import QUANTITIES
from bignas_zoo.files import records
from bignas_zoo.files.records import UNKNOWN, FileRecord
from bignas_zoo.zoo import photographs


@dataclass(frozen=True)
class Slice:
    """A network, named and measured.

    Attributes:
        name: unique within the zoo.
        family: name of its family.
        spec: the child; None where it is a list of blocks.
        top1: accuracy in percent on images never used to choose it; None if not measured.
        top1_images: how many images that was measured on.
        top1_source: which images, or whose figure it is.
        holdout_top1: accuracy in percent on images held out of training: what slices are chosen by.
        bytes: size of its float32 TFLite file as measured; None if never exported.
        statistics: the file with its batch-norm statistics; None without weights, and of a list of blocks.
        folder: the slice folder it was read from; None for a slice of a family.
        license: of its weights, as SPDX names it or in other words; "unknown" if nobody has told.
        source: where its weights come from, in words; may be empty.
        preprocess: the input contract as JSON data (see `models.preprocess.Preprocess`): its family's, or its own.
        published: what its makers say of it: ``top1`` in percent, ``images`` it was measured on, ``source``; or None.
            Never of the same images as `top1`, and never to be listed in one column with it.
        calibration: which images its int8 ranges come from where none are named, one of `zoo.photographs.ALLOWED`; ""
            if there are none.
        rank: its place among its family's by what they were chosen by, 1 the least accurate; None where
            `holdout_top1` alone decides.
        blocks: the network of a slice that is no child; None for a child.
        weights: the file with its own weights, of a list of blocks statistics included; None where they are its
            family's.
        known_arena: `arena_bytes` as its family's file has it, where it does.
    """

    name: str
    family: str
    spec: ChildSpec | None
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
    published: Mapping[str, Any] | None = field(default=None, hash=False)
    calibration: str = ""
    rank: int | None = None
    blocks: BlockList | None = None
    weights: FileRecord | None = None
    known_arena: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if (self.spec is None) == (self.blocks is None):
            raise TypeError(f"slice '{self.name}': must be a child or a list of blocks, one of them.")

    @property
    def network(self) -> Network:
        """What it is, whatever it is: its plan gives cost, latency, drawings and the Keras model."""
        network = self.blocks or self.spec
        assert network is not None
        return network

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to make its network of."""
        return self.statistics is not None or self.weights is not None

    @functools.cached_property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return cost.macs(self.network)

    @functools.cached_property
    def parameters(self) -> int:
        """Parameters, batch-norm statistics included."""
        return cost.parameters(self.network)

    @functools.cached_property
    def arena_bytes(self) -> int:
        """Bytes of memory that its int8 file needs under tflite-micro, see `architecture.cost.arena`."""
        return self.known_arena or cost.arena(self.network)

    @functools.cached_property
    def int8_bytes(self) -> int:
        """Size of its int8 TFLite file, estimated from above, see `architecture.cost.int8_bytes`."""
        return cost.int8_bytes(self.network)

    @property
    def top1_standard_error(self) -> float | None:
        """Of the accuracy, in points, as of a binomial share; None without it or its number of images."""
        if self.top1 is None or not self.top1_images:
            return None
        share = self.top1 / 100
        return round(100 * math.sqrt(share * (1 - share) / self.top1_images), 4)

    @property
    def figures(self) -> dict[str, float | None]:
        """The quantities a budget can limit, but for latencies."""
        return {quantity: getattr(self, quantity) for quantity in QUANTITIES if quantity != "latency_ms"}

    def to_json(self) -> dict[str, Any]:
        """Return what `list`, `show` and `get` print, keys in fixed order."""
        return {
            "name": self.name,
            "family": self.family,
            "macs": self.macs,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "resolution": self.network.resolution,
            "top1": self.top1,
            "top1_images": self.top1_images,
            "top1_source": self.top1_source,
            "top1_standard_error": self.top1_standard_error,
            "holdout_top1": self.holdout_top1,
            "published": self.published and dict(self.published),
            "weights": self.has_weights,
            "license": self.license,
            "source": self.source,
            "preprocess": dict(self.preprocess),
            "arena_bytes": self.arena_bytes,
        }


@dataclass(frozen=True)
class Facts:
    """What a family says of all its slices, each of which may say otherwise.

    Attributes:
        family: its name.
        license, source, preprocess, calibration: see `Slice`.
    """

    family: str
    license: str
    source: str
    preprocess: Mapping[str, Any]
    calibration: str = ""

    @staticmethod
    def from_json(data: Mapping[str, Any], family: str) -> Facts:
        """Read them from a description of a family or slice; raises KeyError, TypeError or ValueError."""
        return Facts(
            family=family,
            license=records.license_name(data.get("license", "")),
            source=records.line(data.get("source", "")),
            preprocess=records.contract(data["preprocess"]),
            calibration=photographs.known(data.get("calibration", "")),
        )


def read_slice(data: Mapping[str, Any], facts: Facts, space: SearchSpace | None) -> Slice:
    """Read a slice's entry in family.json; raises KeyError, TypeError, ValueError or SpaceError.

    Args:
        data: the entry; ``blocks`` and ``weights`` stand in a network's that is no child in place of ``spec`` and
            ``statistics``; a child may have ``weights`` of its own.
        facts: what its family says of it.
        space: that its children are of; None if it must be a list of blocks.
    """
    of_blocks = "blocks" in data or space is None
    if of_blocks and any(data.get(key) is not None for key in ("spec", "child", "space")):
        raise ValueError("it holds blocks and a child: it must be one of them")
    slice_ = Slice(
        name=records.name(data["name"]),
        family=facts.family,
        top1=records.percentage(data["top1"]),
        top1_images=records.whole(data["top1_images"]),
        top1_source=records.line(data["top1_source"]),
        holdout_top1=records.percentage(data["holdout_top1"]),
        bytes=records.whole(data["bytes"]),
        known_arena=records.whole(data.get("arena_bytes")),
        license=records.license_name(data.get("license", facts.license)),
        source=records.line(data.get("source", facts.source)),
        preprocess=records.contract(data.get("preprocess", facts.preprocess)),
        calibration=facts.calibration,
        published=_published(data.get("published")),
        rank=records.whole(data.get("rank")),
        **(_of_blocks(data) if of_blocks else _of_space(data, space)),
    )
    if space is not None and slice_.network.classes != space.classes:
        raise ValueError(f"{slice_.name}: has {slice_.network.classes} classes, its family {space.classes}")
    return slice_


def _published(value: Any) -> dict[str, Any] | None:
    """Check the figure of a slice's makers."""
    if value is None:
        return None
    return {
        "top1": records.percentage(value["top1"]),
        "images": records.whole(value["images"]),
        "source": records.line(value["source"]),
    }


def _of_space(data: Mapping[str, Any], space: SearchSpace | None) -> dict[str, Any]:
    assert space is not None
    own = data.get("weights")
    return {
        "spec": ChildSpec.from_json(data["spec"], space),
        "statistics": FileRecord.from_json(data["statistics"]),
        "weights": own and FileRecord.from_json(own),
    }


def _of_blocks(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "spec": None,
        "blocks": BlockList.from_json(data["blocks"]),
        "weights": FileRecord.from_json(data["weights"]),
    }
