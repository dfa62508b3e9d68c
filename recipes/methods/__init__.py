"""Training methods: what a step computes. Here is the one list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bignas_zoo.recipes.methods import sandwich
from bignas_zoo.recipes.methods.method import Method

if TYPE_CHECKING:
    from bignas_zoo.recipes.recipe import Recipe

#: Every method by the name that recipes call it.
METHODS: dict[str, Method] = {method.settings.name: method for method in (sandwich.METHOD,)}


def method_of(recipe: Recipe) -> Method:
    """Return the method that a recipe trains by."""
    return METHODS[recipe.method.name]
