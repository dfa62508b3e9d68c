"""The weights a run starts from when its recipe names a family."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bignas_zoo.errors import RecipeError
from bignas_zoo.files.say import Say, silent
from bignas_zoo.files.store import verify
from bignas_zoo.models.weights import read_weights
from bignas_zoo.recipes.engines.engine import OPTIMIZER
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.registry import get_family


def starting_state(recipe: Recipe, fresh: Mapping[str, np.ndarray], say: Say = silent) -> dict[str, np.ndarray]:
    """Put the weights of the recipe's `start_from` into a new engine's state.

    Args:
        recipe: one with `start_from`.
        fresh: weights and optimizer of an engine that has made no step; the optimizer stays so.
        say: told where the weights are from, what starts at random after all, and what speaks against this start.

    Returns:
        The state, with the family's weights in the engine's dtypes.

    Raises:
        NotFoundError: no such family.
        UsageError: its nets were trained one by one.
        RecipeError: it has no weights or not those that the recipe insists on, or its space is not the recipe's.
        IntegrityError, LocalIOError: its weights are damaged or cannot be read.
    """
    family = starting_family(recipe)
    where, name = _where(recipe), recipe.start_from.partition("@")[0]
    space, shared = family.supernet(where)
    path = family.path(shared)
    verify(path, shared.sha256, size=shared.bytes, fix="Fetch or make the family again.")
    theirs = read_weights(path)
    say(f"starting from the weights of {family.name} (sha256 {shared.sha256[:12]})")
    _warn(recipe, family, say)
    state = dict(fresh)
    weights = {key: value for key, value in fresh.items() if not key.startswith(OPTIMIZER)}
    other = sorted(key for key in weights.keys() | theirs.keys() if _shape(weights, key) != _shape(theirs, key))
    anew = [key for key in other if key.startswith("classifier.") and key in weights]
    if len(anew) < len(other):
        raise RecipeError(
            f"{where}: '{name}' is of the space {space.name}, the recipe of {recipe.search_space.name}; "
            f"{len(other)} weights do not fit, such as '{other[0]}'. Set space to that family's."
        )
    if anew:
        say(f"the classifier starts at random: {recipe.search_space.classes} classes, not {space.classes}")
    for key in weights.keys() - set(anew):
        state[key] = theirs[key].astype(weights[key].dtype)
    return state


def starting_family(recipe: Recipe) -> Family:
    """Return the family that the recipe's `start_from` names, whose weights are those it insists on by their record.

    Raises:
        NotFoundError: no such family.
        UsageError: its nets were trained one by one.
        RecipeError: it has no weights, or others.
    """
    name, _, wanted = recipe.start_from.partition("@")
    family = get_family(name)
    if family.space is not None and family.weights is None:
        raise RecipeError(f"{_where(recipe)}: family '{name}' has no weights; name one that is trained.")
    _, shared = family.supernet(_where(recipe))
    if wanted and not shared.sha256.startswith(wanted.lower()):
        raise RecipeError(
            f"{_where(recipe)}: the weights of '{name}' have the sha256 {shared.sha256[:12]}…, not {wanted}…. "
            f"Take that version of the family, or leave out '@{wanted}'."
        )
    return family


def _where(recipe: Recipe) -> str:
    return f"recipe '{recipe.name}': start_from"


def _shape(weights: Mapping[str, np.ndarray], key: str) -> tuple[int, ...] | None:
    return weights[key].shape if key in weights else None


def _warn(recipe: Recipe, family: Family, say: Say) -> None:
    """Say what makes a start from this family worse, or its accuracies too good."""
    made_by = family.training.get("recipe", {})
    for key in ("seed", "holdout"):
        if key in made_by and made_by[key] != getattr(recipe, key):
            theirs, ours = (int(v) if v == int(v) else v for v in (made_by[key], getattr(recipe, key)))
            say(
                f"{family.name} was trained with {key} {theirs}, the recipe has {ours}: if the "
                "images are the same, other ones are held out now, and the family has seen them in its training"
            )
    for key in ("mean", "std"):
        if not np.allclose(family.preprocess[key], getattr(recipe, key)):
            say(
                f"{family.name} was trained with {key} {list(family.preprocess[key])}, the recipe has "
                f"{list(getattr(recipe, key))}: the same as the family's is usually better"
            )
