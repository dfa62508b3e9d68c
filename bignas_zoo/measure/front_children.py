"""The children that a family's front is of: found and measured on the held-out images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.files.say import Say
from bignas_zoo.measure.evaluate import Evaluator
from bignas_zoo.measure.trained import Trained
from bignas_zoo.recipes.data import LabelledImages
from bignas_zoo.search import rounds
from bignas_zoo.search.children import Candidate, Measured
from bignas_zoo.search.costs import figures
from bignas_zoo.search.evolution import Evolution
from bignas_zoo.search.log import Log

#: Part of the digest that logged measurements are found by; another way of measuring needs another name.
PROTOCOL = "population moments of the calibration images; top-1 of the held-out ones"


def measure_front(run: Trained, log: Path, say: Say) -> tuple[Measured, ...]:
    """Measure the front's children on the held-out images.

    Args:
        run: the finished training.
        log: JSON lines of measurements; those in it of the same weights and images are not made again.
        say: told of each.

    Returns:
        All measurements.
    """
    recipe, space = run.recipe, run.recipe.search_space
    evaluator = Evaluator(space, run.rounded, run.preprocess, run.calibration)
    kept = Log.open(log, fingerprint(run), space, say, others="drop")
    if kept.known:
        say(f"{len(kept.known)} children are measured already")

    def tell(p: rounds.ChildProgress) -> None:
        say(f"child {p.done}/{p.children}: {p.child.macs / 1e6:.2f} MMACs, {p.child.top1:.2f} % held out")

    return rounds.search(
        Evolution(space, (), figures, recipe.seed, population=recipe.front_children // 2),
        rounds.each(lambda spec: accuracy(evaluator, spec, run.holdout)),
        figures,
        children=recipe.front_children,
        start=corners(space),
        log=kept,
        report=tell,
    )


def accuracy(evaluator: Evaluator, spec: ChildSpec, images: LabelledImages) -> float:
    """Return a child's accuracy in percent as it is stored: four digits after the point."""
    return round(evaluator.top1(spec, images), 4)


def corners(space: SearchSpace) -> list[Candidate]:
    """Return both ends of a space, which are slices of every family."""
    return [Candidate(space.smallest, "corner"), Candidate(space.biggest, "corner")]


def fingerprint(run: Trained) -> str:
    """Return a digest of everything a measurement depends on: weights, images, and how it is made."""
    digest = hashlib.sha256(PROTOCOL.encode() + json.dumps(run.preprocess.to_json()).encode())
    for name, value in sorted(run.weights.items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    for array in (run.calibration, run.holdout.pixels, run.holdout.labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
