"""What an exported file says of itself, in one place for every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bignas_zoo.export.metadata import FileInfo
from bignas_zoo.files.provenance import versions

AUTHOR = "BigNAS Zoo"


def file_info(
    name: str,
    class_names: Sequence[str],
    preprocess: Mapping[str, Any],
    *,
    macs: int,
    resolution: int,
    license: str,
    pixels: bool = False,
) -> FileInfo:
    """Return what a file of a slice says of itself.

    Args:
        name: of the slice.
        class_names: in the order of the scores.
        preprocess: the input contract as JSON data.
        macs: multiply-adds of one image.
        resolution: side of the input in pixels.
        license: of the weights.
        pixels: whether the file takes pixel values 0 to 255 and normalises them itself, so that an app must not.
    """
    classes = len(class_names)
    text = (
        f"Image classifier for {classes} classes at {resolution} x {resolution} pixels, {macs / 1e6:.1f} million "
        "multiply-adds an image; a slice of a single-stage supernet (BigNAS)."
    )
    mean, std = ((0.0,) * 3, (1.0,) * 3) if pixels else (tuple(preprocess["mean"]), tuple(preprocess["std"]))
    return FileInfo(
        name=name,
        description=text,
        version=versions().get("bignas-zoo", ""),
        author=AUTHOR,
        license=license,
        class_names=tuple(class_names),
        mean=mean,
        std=std,
    )
