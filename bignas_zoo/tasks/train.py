"""`train`: a supernet by a recipe, and a family of it; or what its step would need on TPUs."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.errors import TrainingStoppedError, UsageError
from bignas_zoo.files import names
from bignas_zoo.files.say import Say, silent
from bignas_zoo.runtime.extras import need_keras

if TYPE_CHECKING:
    from bignas_zoo.recipes.tpu.report import CompileReport


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
        report: told a `bignas_zoo.recipes.progress.Progress` after each step.

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
    need_keras("train")
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
    from bignas_zoo.recipes.data.packing import is_packed

    if importlib.util.find_spec("tensorflow") is None or (is_packed(data) and test_data is None):
        return None
    say("trained; the children are measured on TensorFlow")
    command = [sys.executable, "-m", "bignas_zoo.tasks.make_family", str(data), str(output)]
    process = subprocess.run([*command, str(test_data or ""), license or ""], check=False)
    if process.returncode:
        raise TrainingStoppedError(
            f"{output}: trained, but no family could be made (see above). Try: bignas-zoo family {output} --data {data}"
        )
    return output / names.FAMILY_FOLDER


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
    need_keras("train")
    from bignas_zoo.recipes.recipe import find_recipe, read_recipe
    from bignas_zoo.recipes.tpu import compiler

    return compiler.compile_only(read_recipe(find_recipe(recipe)), topology, report)
