"""One resumable checkpoint a run: weights, optimizer, step and recipe in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bignas_zoo.errors import IntegrityError, RecipeError
from bignas_zoo.models.weights import read_metadata, read_weights, write_weights
from bignas_zoo.recipes.recipe import Recipe

NAME = "checkpoint.safetensors"


def save(workdir: Path, recipe: Recipe, step: int, state: dict[str, np.ndarray]) -> None:
    """Write the checkpoint; the old one stays until the new one is complete.

    Args:
        workdir: the run's folder.
        recipe: stored whole, so that a changed one is noticed.
        step: steps done.
        state: see the engine's `state`.
    """
    metadata = {"step": str(step), "recipe": json.dumps(recipe.to_json())}
    write_weights(workdir / NAME, state, metadata)


def load(workdir: Path, recipe: Recipe) -> tuple[int, dict[str, np.ndarray]] | None:
    """Read the checkpoint of a run.

    Returns:
        Steps done and the engine's state; None if there is no checkpoint yet.

    Raises:
        RecipeError: it was made with another recipe; the message lists the keys that differ.
        IntegrityError: the file is damaged.
    """
    path = workdir / NAME
    if not path.is_file():
        return None
    metadata = read_metadata(path)
    try:
        step, stored = int(metadata["step"]), json.loads(metadata["recipe"])
    except (KeyError, ValueError) as error:
        raise IntegrityError(f"{path}: not a checkpoint of this package ({error}).") from error
    current = recipe.to_json()
    changed = sorted(k for k in current.keys() | stored.keys() if current.get(k) != stored.get(k))
    if changed:
        raise RecipeError(
            f"{workdir}: holds a run of another recipe; different keys: {', '.join(changed)}. "
            "Choose another --output, or restore the recipe."
        )
    return step, read_weights(path)
