"""Training methods: what a step computes. Here is the one list of them."""

from __future__ import annotations

from bignas_zoo.recipes.methods import matched, progressive, sandwich
from bignas_zoo.recipes.methods.method import Method, RecipeView

#: Every method by the name that recipes call it.
_ALL = (sandwich.METHOD, matched.METHOD, progressive.METHOD)
METHODS: dict[str, Method] = {method.settings.name: method for method in _ALL}


def method_of(recipe: RecipeView) -> Method:
    """Return the method that a recipe trains by."""
    return METHODS[recipe.method.name]
