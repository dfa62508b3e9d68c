"""The loss of one training step: sandwich rule with inplace distillation.

Backend-free (`keras.ops`): the engines differentiate it, the whole step at once (`step_loss`) or one
child after the other (`child_loss`).

Reference: BigNAS (arXiv 2003.11142) section 3.1.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from bignas_zoo.architecture.sampling import sandwich
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.preprocess import Preprocess, resize
from bignas_zoo.models.slicing import child_shapes
from bignas_zoo.models.supernet import forward
from bignas_zoo.recipes import randomness
from bignas_zoo.recipes.data import augment
from bignas_zoo.recipes.methods import losses
from bignas_zoo.recipes.recipe import Recipe

Tensor = Any
Batch = Mapping[str, Tensor]


def children(recipe: Recipe, step: int) -> tuple[ChildSpec, ...]:
    """Return the children of a step: the biggest, random ones, the smallest.

    Without `Recipe.smallest_child` one more random child takes the smallest one's place; while the
    biggest is trained alone there are no others.
    """
    if step < recipe.biggest_only_steps:
        return (recipe.search_space.biggest,)
    drawn = sandwich(recipe.search_space, recipe.seed, step, random_count(recipe))
    return drawn if recipe.smallest_child else drawn[:-1]


def random_count(recipe: Recipe) -> int:
    """Return how many random children a step of the sandwich trains."""
    return recipe.random_children + (not recipe.smallest_child)


def control(recipe: Recipe, step: int) -> dict[str, np.ndarray]:
    """Return what steers a step besides its images; all devices get the same.

    Returns:
        ``choices``: ``[random children, length]`` int32 choice vectors; ``keys``: ``[children]``
        uint32, of each child's dropout; with ``regularise: all`` also ``extents``: ``[children,
        kernels, 3]`` int32, see `_extents`.
    """
    specs = children(recipe, step)
    drawn = specs[1 : 1 + random_count(recipe)]
    length = ActiveChild.of(recipe.search_space.biggest).vector().size
    found = {
        "choices": np.array([ActiveChild.of(c).vector() for c in drawn], np.int32).reshape(-1, length),
        "keys": np.array([randomness.key_of(recipe.seed, step, i) for i in range(len(specs))], np.uint32),
    }
    if recipe.regularise == "all":
        found["extents"] = np.array([_extents(spec) for spec in specs], np.int32)
    return found


@functools.lru_cache(maxsize=64)
def _extents(spec: ChildSpec) -> tuple[tuple[int, int, int], ...]:
    """Return what a child uses of each kernel of the supernet, by name: spatial size, inputs, outputs."""
    used = child_shapes(spec, statistics=False)
    whole = child_shapes(spec.space.biggest, statistics=False)
    shapes = (used.get(name, (0,) * len(shape)) for name, shape in sorted(whole.items()) if name.endswith("kernel"))
    return tuple((s[0] if len(s) == 4 else 1, s[-2], s[-1]) for s in shapes)


def images_of(
    recipe: Recipe, preprocess: Preprocess, batch: Batch, resident: Mapping[str, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Return a batch's normalised images and its labels.

    Args:
        recipe: gives the crop.
        preprocess: the input contract.
        batch: ``pixels`` and ``labels``, or ``index`` into `resident`; with what `augment.draws` drew,
            unless the pixels are cropped already; and ``row``, the global index of each image.
        resident: all padded images and their labels, in the device's memory.

    Returns:
        ``[batch, crop, crop, 3]`` float32 and ``[batch]`` int32.
    """
    if resident is None:
        pixels, labels = batch["pixels"], batch["labels"]
    else:
        pixels, labels = (ops.take(resident[key], batch["index"], axis=0) for key in ("pixels", "labels"))
    if "mirrored" in batch:
        pixels = augment.apply(pixels, batch, recipe)
    return preprocess.normalise(pixels), labels


def child_loss(
    recipe: Recipe,
    weights: Mapping[str, Tensor],
    images: Tensor,
    targets: Tensor,
    steering: Mapping[str, Tensor],
    rows: Tensor,
    index: int,
    share: float,
    how: Execution,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute one child's part of a step's loss.

    Args:
        recipe: the recipe.
        weights: the supernet's.
        images: ``[batch, crop, crop, 3]`` normalised.
        targets: ``[batch, classes]``: smoothed labels, or the biggest child's soft labels.
        steering: see `control`.
        rows: ``[batch]`` global index of each image, for dropout.
        index: 0 is the biggest child; then the random ones; the last is the smallest.
        share: factor of the child's cross entropy, see `share_of`.
        how: how the supernet is computed.

    Returns:
        The child's term of the loss, its cross entropy alone, and its logits ``[batch, classes]``.
    """
    space = recipe.search_space
    choice, resolution = _child(recipe, steering, index)
    regularised = index == 0 or recipe.regularise == "all"
    mask = None
    if recipe.dropout and regularised:
        drawn = randomness.uniform(steering["keys"][index], rows, space.head_widths[-1])
        mask = ops.cast(drawn >= recipe.dropout, "float32") / (1 - recipe.dropout)
    x = ops.cast(resize(images, resolution), recipe.precision)
    logits = forward(space, weights, x, choice, dropout_mask=mask, how=how)
    heat = recipe.distillation_temperature if index and recipe.distillation else 1.0
    loss = losses.cross_entropy(logits / heat, targets) * heat**2
    term = share * loss
    if recipe.regularise == "all":
        term = term + share * recipe.weight_decay * losses.l2_of(weights, steering["extents"][index])
    elif index == 0:  # once a step, at full strength: the biggest child holds every weight
        term = term + recipe.weight_decay * losses.l2(weights)
    return term, loss, logits


def _child(recipe: Recipe, steering: Mapping[str, Tensor], index: int) -> tuple[ActiveChild, int]:
    """Return choice and resolution of a step's child; four resolutions serve four children."""
    space, drawn = recipe.search_space, random_count(recipe)
    if index == 0:
        return ActiveChild.of(space.biggest), space.biggest.resolution
    if index > drawn:
        return ActiveChild.of(space.smallest), space.smallest.resolution
    middle = space.resolutions[1:-1] or space.resolutions
    return ActiveChild.from_vector(space, steering["choices"][index - 1]), middle[(index - 1) % len(middle)]


def children_count(recipe: Recipe, *, alone: bool) -> int:
    """Return how many children a step trains."""
    return 1 if alone else 2 + recipe.random_children


def first_targets(recipe: Recipe, labels: Tensor) -> Tensor:
    """Return the biggest child's targets, ``[batch, classes]``."""
    return losses.smooth_labels(labels, recipe.search_space.classes, recipe.label_smoothing)


def further_targets(recipe: Recipe, targets: Tensor, logits: Tensor) -> Tensor:
    """Return all other children's targets: the biggest child's soft labels, or the labels."""
    return losses.soft_labels(logits, recipe.distillation_temperature) if recipe.distillation else targets


def share_of(recipe: Recipe, *, alone: bool) -> float:
    """Return the factor of each child's cross entropy in the loss: 1, or one over their number."""
    return 1 / children_count(recipe, alone=alone) if recipe.loss_reduction == "mean" else 1.0


def step_loss(
    recipe: Recipe,
    preprocess: Preprocess,
    weights: Mapping[str, Tensor],
    batch: Batch,
    steering: Mapping[str, Tensor],
    *,
    alone: bool,
    how: Execution,
    resident: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the loss of a step.

    Args:
        recipe: the recipe.
        preprocess: the input contract.
        weights: the supernet's.
        batch: see `images_of`; one crop that every resolution is resized from.
        steering: see `control`.
        alone: train the biggest child alone.
        how: how the supernet is computed.
        resident: images in the device's memory.

    Returns:
        The scalar loss, and parts to log: ``biggest`` and ``smallest`` (the last child's cross
        entropy), ``accuracy`` (of the biggest on this batch, 0 to 1).
    """
    images, labels = images_of(recipe, preprocess, batch, resident)
    targets = first_targets(recipe, labels)
    share = share_of(recipe, alone=alone)
    total, parts = 0.0, {}
    for index in range(children_count(recipe, alone=alone)):
        term, loss, logits = child_loss(recipe, weights, images, targets, steering, batch["row"], index, share, how)
        total = total + term
        if index == 0:
            parts = {"biggest": loss, "accuracy": accuracy(logits, labels)}
            targets = further_targets(recipe, targets, logits)
        else:
            parts["smallest"] = loss
    return total, parts


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the part of a batch that is classified right."""
    return ops.mean(ops.cast(ops.equal(ops.cast(ops.argmax(logits, -1), "int32"), labels), "float32"))
