"""The loss of one training step: sandwich rule with inplace distillation.

Backend-free (`keras.ops`): the engines differentiate it.

Reference: BigNAS (arXiv 2003.11142) section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from bignas_zoo.models.preprocess import Preprocess, resize
from bignas_zoo.models.supernet import Choice, forward
from bignas_zoo.recipes import losses
from bignas_zoo.recipes.data import philox
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.sampling import sandwich

Tensor = Any


def random_choices(recipe: Recipe, step: int) -> np.ndarray:
    """Return the random children of a step as choice vectors, ``[random_children, length]`` int32."""
    children = sandwich(recipe.search_space, recipe.seed, step, recipe.random_children)[1:-1]
    length = Choice.of(recipe.search_space.biggest).vector().size
    return np.array([Choice.of(c).vector() for c in children], np.int32).reshape(-1, length)


def dropout_mask(recipe: Recipe, step: int) -> np.ndarray:
    """Return the dropout mask of a step, scaled so that its mean is 1, ``[batch, head]`` float32."""
    head = recipe.search_space.head_widths[-1]
    keep = philox(recipe.seed, "dropout", step).random((recipe.batch_size, head)) >= recipe.dropout
    return (keep / (1 - recipe.dropout)).astype(np.float32)


def step_loss(
    recipe: Recipe,
    preprocess: Preprocess,
    weights: Mapping[str, Tensor],
    pixels: Tensor,
    labels: Tensor,
    choices: Tensor | None,
    mask: Tensor,
    *,
    branch: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a step.

    Args:
        recipe: the recipe.
        preprocess: the input contract.
        weights: the supernet's.
        pixels: ``[batch, crop, crop, 3]`` uint8, one crop that every resolution is resized from.
        labels: ``[batch]`` int32.
        choices: ``[random_children, length]`` int32 choice vectors; None trains the biggest alone.
        mask: dropout mask of the biggest child, ``[batch, head]``.
        branch: "cond" or "where", see `forward`.

    Returns:
        The scalar loss, and parts to log: ``biggest`` (cross entropy with labels), ``smallest``
        (with the biggest's soft labels), ``accuracy`` (of the biggest on this batch, 0 to 1).
    """
    space = recipe.search_space
    images = preprocess.normalise(pixels)
    targets = losses.smooth_labels(labels, space.classes, recipe.label_smoothing)
    logits, _ = forward(
        space,
        weights,
        resize(images, space.biggest.resolution),
        Choice.of(space.biggest),
        dropout_mask=mask if recipe.dropout else None,
    )
    biggest = losses.cross_entropy(logits, targets)
    correct = ops.equal(ops.cast(ops.argmax(logits, -1), "int32"), labels)
    parts = {"biggest": biggest, "accuracy": ops.mean(ops.cast(correct, "float32"))}
    terms = [biggest]
    if choices is not None:
        soft = losses.soft_labels(logits)
        middle = space.resolutions[1:-1] or space.resolutions
        for i in range(recipe.random_children):
            child, _ = forward(
                space,
                weights,
                resize(images, middle[i % len(middle)]),
                Choice.from_vector(space, choices[i]),
                branch=branch,
            )
            terms.append(losses.cross_entropy(child, soft))
        child, _ = forward(space, weights, resize(images, space.smallest.resolution), Choice.of(space.smallest))
        parts["smallest"] = losses.cross_entropy(child, soft)
        terms.append(parts["smallest"])
    loss = sum(terms) / (len(terms) if recipe.loss_reduction == "mean" else 1)
    # Weight decay acts once a step, through the biggest child: it holds every weight.
    return loss + recipe.weight_decay * losses.l2(dict(weights)), parts
