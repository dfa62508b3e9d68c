"""`evaluate`: a slice's accuracy on labelled images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bignas_zoo.runtime.extras import need_keras
from bignas_zoo.tasks.load import network
from bignas_zoo.tasks.opening import open_slice


def evaluate(
    name: str | Path,
    data: str | Path,
    *,
    family: str | Path | None = None,
    limit: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a slice's top-1 accuracy on labelled images.

    Args:
        name: of a slice, or a folder that `get` made.
        data: a folder with CIFAR-10's test files, or with one sub-folder of images a class.
        family: where to look for the name.
        limit: use the first so many images only.
        report: told images done and in all.

    Returns:
        ``name``, ``top1`` (percent), ``images``, ``source`` and ``resolution``.

    Raises:
        NotFoundError: no such slice, or it has no weights.
        LocalIOError, IntegrityError: images or weights cannot be read or are damaged.
    """
    need_keras("evaluate")
    from bignas_zoo.measure.evaluate import child_top1
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data import read_labelled

    opened = open_slice(name, family)
    child = network(opened)
    preprocess = Preprocess.from_json(opened.slice.preprocess)
    images = read_labelled(Path(data), None, preprocess.crop_size, opened.home.class_names, preprocess.crop_fraction)
    if limit is not None:
        images = images.take(slice(0, limit))
    resolution = opened.slice.network.resolution
    top1 = child_top1(child, resolution, preprocess, images, report)
    return {
        "name": opened.slice.name,
        "top1": top1,
        "images": len(images),
        "source": images.source,
        "resolution": resolution,
    }
