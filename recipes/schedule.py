"""The learning rate as a pure function of the step.

Reference: BigNAS (arXiv 2003.11142) section 3.1, "Exponentially decaying with constant ending".
"""

from __future__ import annotations

import math

from bignas_zoo.recipes.recipe import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the learning rate of a step.

    Linear warm-up from zero, then decay, never below ``ending * peak``. The staircase is the paper's
    0.97 every 2.4 epochs. The exponential form reaches the ending exactly at ``decay_until * steps``;
    cosine and linear fall towards zero at that step and so meet the ending shortly before it.

    Args:
        recipe: gives peak (scaled to its batch), warm-up, form and ending.
        step: 0-based.

    Returns:
        The rate.
    """
    peak = recipe.learning_rate * recipe.batch_size / recipe.learning_rate_batch
    if step < recipe.warmup_steps:
        return peak * (step + 1) / recipe.warmup_steps
    return peak * max(recipe.ending, _decayed(recipe, step))


def _decayed(recipe: Recipe, step: int) -> float:
    """Return the part of the peak that decay leaves, before the constant ending."""
    if recipe.decay == "staircase":
        return math.pow(recipe.decay_rate, step // recipe.decay_every)
    span = max(1.0, recipe.decay_until * recipe.steps - recipe.warmup_steps)
    part = min(1.0, (step - recipe.warmup_steps) / span)
    if recipe.decay == "exponential":
        return math.pow(max(recipe.ending, 1e-6), part)
    return (1 + math.cos(math.pi * part)) / 2 if recipe.decay == "cosine" else 1 - part
