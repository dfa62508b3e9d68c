"""`get FAMILY --spec FILE`: any child of a family's space, calibrated on one's own images, as a folder of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.budget import Budget
from bignas_zoo.errors import BigNASError, IntegrityError, NotFoundError, SpaceError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.get import GetResult, check_bytes, deliver, predicted
from bignas_zoo.tasks.opening import holds_slice
from bignas_zoo.tasks.slice_cache import SliceFiles
from bignas_zoo.tasks.slices import Slice
from bignas_zoo.zoo import registry, selection, slice_folder
from bignas_zoo.zoo import slice as zoo_slice
from bignas_zoo.zoo.family import DEFAULT_SUPERNET, Family
from bignas_zoo.zoo.selection import LatencyPredictor

if TYPE_CHECKING:
    from bignas_zoo.latency import DeviceTable

#: What `show --json` calls a child.
KEY = "child"
HOW = '`bignas-zoo show SLICE --json` prints a child, under "child".'
#: Images of a folder that are used.
LIMIT = 2_000


def get_child(
    family: str | Path,
    spec: ChildSpec | str | Path,
    images: str | Path,
    *,
    budget: str | Budget | None = None,
    output: str | Path | None = None,
    force: bool = False,
    risk: str = "upper",
    tables: Sequence[DeviceTable] = (),
    say: Say = silent,
    accept: Callable[[zoo_slice.Slice], None] = lambda slice_: None,
) -> GetResult:
    """Cut any child of a family's space, calibrate it, and write it as a folder ready for the device; without Keras.

    Args:
        family: name or folder of a family that was cut from one supernet.
        spec: a point of its space, or a JSON file that holds one as ``show --json`` prints it (under "child").
        images: at least 64 training images, see `export_slice`; at most 2,000 of them are used, spread evenly. Those
            of a test part, and of labelled images a half, are left for accuracies.
        budget: what the child must not exceed, if anything.
        output, force, risk, tables, say, accept: see `get`.

    Returns:
        The result; its accuracy is not known.

    Raises:
        UsageError: the spec is no child of the space, the images are too few, or the family has no supernet.
        NotFoundError: no such family, or it has no weights.
        NothingFitsError: the child is over the budget.
        LocalIOError, IntegrityError: images, weights or the spec cannot be read or are damaged, or the output folder
            exists and differs.
        QualityError: the exported file does not compute what the network does.
    """
    home = _family(family)
    space, _ = home.supernet("a child of one's own")
    home.check_calibrates("a child of one's own")
    child = spec if isinstance(spec, ChildSpec) else read_spec(Path(spec), space)
    limits = budget if budget is None or isinstance(budget, Budget) else Budget.parse(budget)
    predictor = LatencyPredictor.of(limits, risk=risk, tables=tables) if limits else LatencyPredictor(risk=risk)
    slice_ = child_slice(home, child)
    if limits and any(limit.quantity == "top1" for limit in limits.limits):
        raise UsageError("get: the accuracy of a child of one's own is not known, so top1 cannot be asked of it.")
    if limits:
        selection.check_fits(slice_, _without_bytes(limits), predictor)
    accept(slice_)
    target = Path(output) if output is not None else Path(slice_.name)
    store.tidy_up(target)
    if not _is_there(target, slice_):  # else its files are compared once they are made
        store.check_free(target, force=force)
    with store.scratch_folder() as folder:
        write_child(folder, home, slice_, images, say)
        written = {path.name: store.record(path) for path in sorted(folder.iterdir())}
        files = SliceFiles(folder, written, cached=False)
        check_bytes(slice_.name, files, limits)
        latency = predicted(slice_, predictor)
        records, description = deliver(files, target, latency, say, force=force)
    return GetResult(
        Slice.of(slice_), target.absolute(), records, description["parity"], None, False, home.class_names, latency
    )


def _family(name: str | Path) -> Family:
    try:
        return registry.get_family(name)
    except NotFoundError as error:
        raise NotFoundError(f"{error} A child is cut from a family: name one, e.g. {DEFAULT_SUPERNET}.") from error


def _is_there(target: Path, slice_: zoo_slice.Slice) -> bool:
    """Return whether a folder holds this child already."""
    try:
        return holds_slice(target) and slice_folder.describe(target)[0].network == slice_.network
    except BigNASError:
        return False


def read_spec(path: Path, space: SearchSpace) -> ChildSpec:
    """Read a child from a JSON file: as `show --json` prints it, or the part under "child" alone.

    Raises:
        LocalIOError: the file cannot be read.
        IntegrityError: it is no JSON, or holds no child.
        SpaceError: the child is not of the space.
    """
    data = store.read_json(path)
    if isinstance(data, dict) and isinstance(data.get(KEY), dict):
        data = data[KEY]
    if not isinstance(data, dict):
        raise IntegrityError(f"{path}: holds no child, but a {type(data).__name__}. {HOW}")
    if data.get("space") != space.name:
        named = data.get("space")
        of = f"of space '{named:.64}'" if isinstance(named, str) else "without a space"
        raise SpaceError(f"{path}: holds a child {of}, but the family has space '{space.name}'. {HOW}")
    try:
        return ChildSpec.from_json(data, space)
    except SpaceError as error:
        raise SpaceError(f"{path}: {error} {HOW}") from error
    except (IntegrityError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"{path}: holds no child of space '{space.name}' ({type(error).__name__}: {str(error)[:100]}). {HOW}"
        ) from error


def child_slice(family: Family, child: ChildSpec) -> zoo_slice.Slice:
    """Name a child after what it is: the same one has the same name."""
    digest = hashlib.sha256(json.dumps(child.to_json(), sort_keys=True).encode()).hexdigest()[:8]
    return zoo_slice.Slice(
        name=f"{family.name}-{digest}",
        family=family.name,
        spec=child,
        top1=None,
        top1_images=None,
        top1_source="not measured",
        license=family.license,
        source=family.source,
        preprocess=dict(family.preprocess),
    )


def _without_bytes(limits: Budget) -> Budget:
    """Return the limits that can be checked before there is a file."""
    return Budget(tuple(limit for limit in limits.limits if limit.quantity != "bytes"))


def write_child(
    folder: Path,
    home: Family,
    slice_: zoo_slice.Slice,
    images: str | Path,
    say: Say,
    known: Mapping[str, Any] | None = None,
) -> None:
    """Calibrate a child on images and write its files into a folder; see `get_child`."""
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data.sample import read_sample
    from bignas_zoo.tasks.calibrate import cut_and_calibrate

    assert slice_.spec
    contract = Preprocess.from_json(home.preprocess)
    say(f"reading images from {images}")
    sample = read_sample(images, None, contract, home.class_names, training=LIMIT)
    say(f"calibrating on {len(sample.training):,} {sample.source}")
    plain = cut_and_calibrate(home, slice_.spec, sample.training)
    calibration = sample.to_json()
    if known and known.get("pixels_sha256") == calibration["pixels_sha256"]:
        calibration["source"] = known.get("source")  # the same images, in a folder of another name maybe
    provenance = {"supernet_sha256": home.weights and home.weights.sha256, "calibration": calibration}
    slice_files.write(folder, home, slice_, plain, provenance=provenance)
