"""Four steps of `matched-sandwich` on one engine, as a script: ``python matched_steps.py ENGINE START OUT.npz``.

ENGINE is "tensorflow" or "jax"; START a starting family of the space `test_photos_parts.SMALL`.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import quick_jax

STEPS, BATCH, SIDE = 4, 16, 24


def recipe_of(start: str, **changes):
    from test_photos_parts import SMALL

    from bignas_zoo.architecture import spaces
    from bignas_zoo.recipes.methods.matched import MatchedSandwich
    from bignas_zoo.recipes.recipe import Recipe

    spaces.SPACES.setdefault(SMALL.name, SMALL)
    fields = {
        "name": "matched", "space": SMALL.name, "crop_size": SIDE, "mean": (128.0,) * 3, "std": (64.0,) * 3,
        "steps": 10, "holdout": 1, "batch_size": BATCH, "learning_rate": 0.01, "learning_rate_batch": BATCH,
        "weight_decay": 0.02, "dropout": 0.0, "optimizer": "adamw", "rho": 0.99, "clip": 5.0, "start_from": start,
        "method": MatchedSandwich(frozen_stages=1),
    }  # fmt: skip
    return Recipe(**fields).with_fields(**changes)


def images_of(count: int = 32):
    from bignas_zoo.recipes.data import LabelledImages

    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    return LabelledImages(pixels, generator.integers(0, 5, count).astype(np.int32), tuple("abcde"), "noise")


def steps(recipe, engine_of):
    """Return the engine after the steps, and the figures of each step."""
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data import TrainingBatches
    from bignas_zoo.recipes.engines.engine import StepInput
    from bignas_zoo.recipes.methods import method_of
    from bignas_zoo.recipes.runs.start import starting_state

    engine = engine_of(recipe, Preprocess(SIDE, recipe.mean, recipe.std))
    engine.restore(starting_state(recipe, engine.state()))
    stream, method, figures = TrainingBatches(images_of(), recipe), method_of(recipe), []
    for step in range(STEPS):
        control = method.control(recipe, step, {})
        values = engine.step(StepInput(stream.at(step), control, recipe.learning_rate))
        figures.append({**{k: float(v) for k, v in values.items()}, "phase": control.phase})
    return engine, figures


def main(engine: str, start: str, out: str) -> None:
    os.environ["KERAS_BACKEND"] = engine
    os.environ["JAX_PLATFORMS"] = "cpu"
    quick_jax.set_flags()
    if engine == "jax":
        from bignas_zoo.recipes.engines.jax import JaxEngine as Engine
    else:
        from bignas_zoo.recipes.engines.tensorflow import TensorFlowEngine as Engine
    trained, figures = steps(recipe_of(start), Engine)
    losses = np.array([[f["loss"], f["biggest"], f["smallest"]] for f in figures])
    np.savez(out, losses=losses, **trained.weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
