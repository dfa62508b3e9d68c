"""The bridge from names to networks: cut, load, calibrate, evaluate, train.

Everything heavy is imported inside the functions.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import NotFoundError, TrainingStoppedError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.records import FileRecord
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks import slice_files, slices
from bignas_zoo.tasks.slices import Slice
from bignas_zoo.zoo import slice_folder
from bignas_zoo.zoo.family import Family, no_weights
from bignas_zoo.zoo.slice_folder import SLICE_FILE

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bignas_zoo.recipes.tpu.report import CompileReport


def cut(family: Family, chosen: Slice) -> keras.Model:
    """Cut a slice from its family and load its stored batch-norm statistics.

    Raises:
        NotFoundError: the family has no weights.
        IntegrityError: a file is missing or damaged.
    """
    from bignas_zoo.models.child import build_child, set_weights
    from bignas_zoo.models.slicing import slice_weights

    if chosen.statistics is None:
        raise NotFoundError(no_weights(chosen))
    supernet = supernet_weights(family)
    statistics = _read_checked(family, chosen.statistics)
    child = build_child(chosen.spec)
    set_weights(child, chosen.spec, {**slice_weights(supernet, chosen.spec), **statistics})
    return child


def supernet_weights(family: Family) -> dict[str, np.ndarray]:
    """Load a family's shared weights after checking their sha256, as stored.

    Raises:
        NotFoundError: the family has no weights.
        IntegrityError: the file is missing or damaged.
    """
    if family.weights is None:
        raise NotFoundError(no_weights(family))
    return _read_checked(family, family.weights)


def check_files(family: Family, chosen: Slice) -> None:
    """Check size and sha256 of a slice's weight files.

    Raises:
        NotFoundError: the family has no weights.
        IntegrityError: a file is missing or damaged.
    """
    for record in (family.weights, chosen.statistics):
        if record is None:
            raise NotFoundError(no_weights(chosen))
        _verified_path(family, record)


def _verified_path(family: Family, record: FileRecord) -> Path:
    path = family.path(record)
    fix = "Reinstall bignas-zoo (pip install --force-reinstall bignas-zoo), or restore the family's folder."
    store.verify(path, record.sha256, size=record.bytes, fix=fix)
    return path


def _read_checked(family: Family, record: FileRecord) -> dict[str, np.ndarray]:
    from bignas_zoo.models.weights import read_weights

    return read_weights(_verified_path(family, record))


def from_hub(name: str | Path, verify_key: str | Path | None = None) -> str | Path:
    """Return the folder in the cache of a slice of the Hub, fetched if need be; any other name as it is.

    Args:
        name: of a slice, a folder, or ``hf://ORG/NAME[@REVISION]``.
        verify_key: file of the Ed25519 public key that must have signed a slice of the Hub.

    Raises:
        UsageError, NotFoundError, AuthError, NetworkError, IntegrityError, LocalIOError: see `hub.fetching.fetch`.
    """
    if not (isinstance(name, str) and name.startswith("hf://")):
        if verify_key is not None:
            raise UsageError(f"{name}: a key verifies what was pushed to the Hub: name hf://ORG/NAME, or give no key.")
        return name
    from bignas_zoo.hub.fetching import fetch

    return fetch(name, verify_key=verify_key).folder


def find(name: str | Path, family: str | Path | None = None) -> Slice:
    """Return a slice by its name, or from a slice folder.

    Raises:
        NotFoundError: no such slice.
        IntegrityError: the folder's slice.json is damaged.
    """
    name = from_hub(name)
    if os.path.isfile(Path(name) / SLICE_FILE):  # unlike Path.is_file, False for a name that is too long
        return Slice.of(slice_folder.describe(Path(name))[0])
    return slices.find_slice(str(name), family)[1]


def load(name: str | Path, *, family: str | Path | None = None, verify_key: str | Path | None = None) -> keras.Model:
    """Load a slice as a plain, calibrated Keras model.

    Args:
        name: of a slice, e.g. ``"bignas-cifar10-s"``; a folder that `get` made; or ``hf://ORG/NAME[@REVISION]``.
        family: where to look for the name.
        verify_key: file of the Ed25519 public key that must have signed a slice of the Hub.

    Returns:
        A model from normalised images ``[batch, resolution, resolution, 3]`` float32 to logits
        ``[batch, classes]`` float32.

    Raises:
        UsageError: a key for a slice that is not on the Hub, or a file that holds none.
        NotFoundError: no such slice, or it has no weights.
        IntegrityError: a file is missing or damaged, or not signed by `verify_key`.
        AuthError, NetworkError: the Hub does not give it.
    """
    name = from_hub(name, verify_key)
    if os.path.isfile(Path(name) / SLICE_FILE):  # unlike Path.is_file, False for a name that is too long
        return slice_files.read(Path(name))[2]
    return cut(*slices.find_slice(str(name), family))


def slice_and_calibrate(
    family: str | Path, spec: ChildSpec, images: np.ndarray | str | Path, *, limit: int = 2_000
) -> keras.Model:
    """Cut any child of a family's space and calibrate its batch norms on one's own images.

    Args:
        family: name or folder of a family with weights.
        spec: any point of its space, e.g. ``get_space("bignas-cifar10").spec(...)``.
        images: ``[n, crop, crop, 3]`` pixel values 0 to 255 (RGB; crop as the family says), or a
            folder of images. At least 64; training images, not those accuracy is reported on.
        limit: how many images of a folder to use.

    Returns:
        The calibrated child: normalised images to logits.

    Raises:
        UsageError: the spec is of another space, or the images are too few or misshapen.
        NotFoundError: no such family, or it has no weights.
        LocalIOError, IntegrityError: images or weights cannot be read or are damaged.
    """
    import numpy as np

    from bignas_zoo.models.calibration import calibrate
    from bignas_zoo.models.child import build_child, set_weights
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.models.slicing import slice_weights
    from bignas_zoo.recipes.data import batches, unlabelled_images

    home = slices.get_family(family)
    if spec.space != home.space:
        raise UsageError(
            f"spec: is of space '{spec.space.name}', but family '{home.name}' has space '{home.space.name}'."
        )
    supernet = supernet_weights(home)
    preprocess = Preprocess.from_json(home.preprocess)
    side = preprocess.crop_size
    if isinstance(images, str | Path):
        images = unlabelled_images(Path(images), side, limit)
    pixels = np.asarray(images)
    if pixels.shape[1:] != (side, side, 3):
        raise UsageError(f"images: need shape [n, {side}, {side}, 3], got {list(pixels.shape)}.")
    child = build_child(spec)
    set_weights(child, spec, slice_weights(supernet, spec), calibrated=False)
    calibrate(child, (np.asarray(preprocess.inputs(b, spec.resolution)) for b in batches(pixels, 250)))
    return child


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
    from bignas_zoo.measure.evaluate import child_top1
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data import read_labelled

    name = from_hub(name)
    if os.path.isfile(Path(name) / SLICE_FILE):  # unlike Path.is_file, False for a name that is too long
        spec, description, child = slice_files.read(Path(name))
        title, contract = str(description["name"]), description["preprocess"]
        names = tuple(description["class_names"])
    else:
        home, chosen = slices.find_slice(str(name), family)
        title, contract, names, spec = chosen.name, home.preprocess, home.class_names, chosen.spec
        if not chosen.has_weights:
            raise NotFoundError(no_weights(chosen))
        child = cut(home, chosen)
    preprocess = Preprocess.from_json(contract)
    images = read_labelled(Path(data), None, preprocess.crop_size, names)
    if limit is not None:
        images = images.take(slice(0, limit))
    top1 = child_top1(child, spec.resolution, preprocess, images, report)
    return {
        "name": title,
        "top1": top1,
        "images": len(images),
        "source": images.source,
        "resolution": spec.resolution,
    }


def train(
    recipe: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    test_data: str | Path | None = None,
    engine: str | None = None,
    classes_from_folders: bool = False,
    license: str | None = None,
    say: Say = silent,
    report: Callable[[Any], None] = lambda progress: None,
) -> Path | None:
    """Train a supernet by a recipe and make a family of it; an interrupted run goes on.

    Args:
        recipe: a YAML file, or the name of a shipped recipe such as ``cifar10_cpu``.
        data: folder of the recipe's images (CIFAR-10's files, or class folders), or TFRecord files: a
            folder, a pattern, or a bucket; or a packed data set (``FILE.npz``).
        output: the run's folder.
        test_data: pattern of the TFRecord test files, where they cannot be told from `data`.
        engine: "tensorflow", "jax" or "auto"; None takes the recipe's. Keras runs on one of them in a
            process, so another than the one in use is refused.
        classes_from_folders: train on the classes that `data` has, whatever the recipe's space says.
        license: of the family's weights, e.g. ``"CC-BY-4.0"``; None takes that of the family whose weights the recipe
            starts from, or else "unknown".
        say: told what is going on, a sentence at a time.
        report: told a `bignas_zoo.recipes.train.Progress` after each step.

    Returns:
        The family's folder, to be given to `get` and the others as `family`. None after a training on
        JAX where TensorFlow is missing, or on packed data: the run is complete, and `make_family` makes a
        family of it.

    Raises:
        RecipeError: the recipe is not valid, or the folder holds a run of another.
        UsageError: the engine cannot be used.
        LocalIOError, IntegrityError: images cannot be read, the folder cannot be written, another process
            trains there, or all its checkpoints are damaged.
        TrainingStoppedError: the loss or a weight is not a number.
        PreemptedError: stopped by SIGTERM; run again to go on.
    """
    from bignas_zoo.recipes.engines.choosing import choose_engine, use_backend
    from bignas_zoo.recipes.recipe import find_recipe, read_recipe

    settings = read_recipe(find_recipe(recipe), {"engine": engine} if engine else None)
    use_backend(choose_engine(settings.engine))
    if classes_from_folders:
        from bignas_zoo.recipes.data.class_folders import class_names
        from bignas_zoo.recipes.data.dataset import is_tfrecords
        from bignas_zoo.recipes.data.packing import is_packed, packed_class_names

        if not is_packed(data) and is_tfrecords(data):
            raise UsageError(
                f"--classes-from-folders: {data} is no folder of class folders. For TFRecord files set classes in the "
                "recipe."
            )
        classes = len((packed_class_names if is_packed(data) else class_names)(Path(data)))
        settings = dataclasses.replace(settings, classes=classes)
    from bignas_zoo.measure.from_recipe import train_family

    folder = train_family(settings, data, Path(output), test_data=test_data, license=license, say=say, report=report)
    return folder or _family_elsewhere(data, Path(output), test_data, license, say)


def _family_elsewhere(
    data: str | Path, output: Path, test_data: str | Path | None, license: str | None, say: Say
) -> Path | None:
    """Make the family of a run trained on JAX in a process of its own, on TensorFlow, if that is installed."""
    import importlib.util
    import subprocess
    import sys

    from bignas_zoo.recipes.data.packing import is_packed

    if importlib.util.find_spec("tensorflow") is None or (is_packed(data) and test_data is None):
        return None
    say("trained; the children are measured on TensorFlow")
    command = [sys.executable, "-m", "bignas_zoo.cli.main", "family", str(output), "--data", str(data)]
    command += ["--license", license] if license else []
    done = subprocess.run(
        [*command, *(["--test-data", str(test_data)] if test_data else [])], stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise TrainingStoppedError(
            f"{output}: trained, but no family could be made (see above). Try: bignas-zoo family {output} --data {data}"
        )
    return output / "family"


def make_family(
    data: str | Path,
    output: str | Path,
    *,
    test_data: str | Path | None = None,
    license: str | None = None,
    say: Say = silent,
) -> Path:
    """Make the family of a finished training run: measure children, choose slices, store them.

    Args:
        data, test_data: the run's images, see `train`.
        output: the run's folder.
        license: of the family's weights, see `train`.
        say: told what is going on, a sentence at a time.

    Returns:
        The family's folder.

    Raises:
        NotFoundError: the folder holds no finished run.
        LocalIOError, IntegrityError: images or the run cannot be read or are damaged.
    """
    from bignas_zoo.measure.from_recipe import make_family as make

    return make(data, Path(output), test_data=test_data, license=license, say=say)


def compile_only(
    recipe: str | Path, topology: str, *, report: Callable[[float], None] = lambda seconds: None
) -> CompileReport:
    """Compile a recipe's training step for TPUs that need not be there; see `recipes.tpu.compiler`.

    Args:
        recipe: a YAML file, or the name of a shipped recipe such as ``imagenet_tpu``.
        topology: as JAX names them, e.g. ``v3:8x8``.
        report: told the seconds that passed, every now and then.

    Raises:
        RecipeError, NotFoundError: the recipe is not valid, or there is none.
        UsageError: libtpu is missing, or topology and recipe do not go together.
    """
    from bignas_zoo.recipes.recipe import find_recipe, read_recipe
    from bignas_zoo.recipes.tpu import compiler

    return compiler.compile_only(read_recipe(find_recipe(recipe)), topology, report)
