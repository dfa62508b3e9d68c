"""What a process needs to measure children of one supernet, as a folder; and the measuring process's beginning.

A worker computes on one thread, whatever their number: sums over images depend on how threads divide them, in the last
digit, and the accuracies of a search shall not depend on how many workers it has. Throughput comes from more workers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.errors import UsageError
from bignas_zoo.files import names, store
from bignas_zoo.measure.evaluate import Evaluator
from bignas_zoo.measure.front_children import accuracy
from bignas_zoo.measure.trained import Trained
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.weights import read_weights, write_weights
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.runtime.workers import Work

JOB, ARRAYS = "job.json", ("calibration", "pixels", "labels")


def write_job(run: Trained, folder: Path) -> None:
    """Write all that measuring a child takes into a folder, so that processes share one copy in memory."""
    write_weights(folder / names.SUPERNET, run.weights, {"family": run.recipe.name})
    for name, array in zip(ARRAYS, (run.calibration, run.holdout.pixels, run.holdout.labels), strict=True):
        np.save(folder / f"{name}.npy", array)
    job = {"space": run.recipe.search_space.to_json(), "preprocess": run.preprocess.to_json()}
    store.write_json(folder / JOB, job)


def make_measure(folder: str) -> Work:
    """Return what measures a child, from a folder of `write_job`: the beginning of a worker.

    Raises:
        UsageError: the process has begun to compute on several threads.
        LocalIOError, IntegrityError: the folder cannot be read or is damaged.
    """
    _one_thread()
    place = Path(folder)
    job = store.read_json(place / JOB)
    calibration, pixels, labels = (np.load(place / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in ARRAYS)
    weights = {name: np.asarray(value, np.float32) for name, value in read_weights(place / names.SUPERNET).items()}
    space, preprocess = SearchSpace.from_json(job["space"]), Preprocess.from_json(job["preprocess"])
    evaluator = Evaluator(space, weights, preprocess, calibration)
    images = LabelledImages(pixels, np.asarray(labels), (), "held-out images")
    return lambda spec: accuracy(evaluator, spec, images)


def _one_thread() -> None:
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError as error:
        raise UsageError("a worker computes already, on several threads. Start fresh Dask workers.") from error
