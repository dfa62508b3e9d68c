"""The learning rate as a pure function of the step.

Reference: BigNAS (arXiv 2003.11142) section 3.1, "Exponentially decaying with constant ending".
"""

from __future__ import annotations

from bignas_zoo.recipes.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step.

    Linear warm-up from zero, then decay, never below ``ending * peak``. The exponential form reaches
    that ending exactly at ``decay_until * steps``; the linear form falls towards zero at that step and
    so meets the ending shortly before it.

    Args:
        recipe: gives peak (scaled to its batch), warm-up, form and ending.
        step: 0-based.

    Returns:
        The rate.
    """
    peak = recipe.learning_rate * recipe.batch_size / recipe.learning_rate_batch
    if step < recipe.warmup_steps:
        return peak * (step + 1) / recipe.warmup_steps
    span = max(1.0, recipe.decay_until * recipe.steps - recipe.warmup_steps)
    part = (step - recipe.warmup_steps) / span
    factor = max(recipe.ending, 1e-6) ** part if recipe.decay == "exponential" else 1 - part
    return peak * max(recipe.ending, factor)
