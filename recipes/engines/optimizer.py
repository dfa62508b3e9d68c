"""The recipe's optimizer: Keras's own, applied as variables or as a pure function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bignas_zoo.models.backend import keras
from bignas_zoo.recipes.recipe import Recipe


def make_optimizer(recipe: Recipe, variables: Sequence[keras.Variable]) -> keras.optimizers.Optimizer:
    """Return the recipe's optimizer, built for `variables`.

    RMSProp's mean square starts at one, as in TensorFlow 1, which the paper's training used; Keras
    starts it at zero, which makes the first steps several times as long.
    """
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            recipe.learning_rate, momentum=recipe.momentum, nesterov=True, global_clipnorm=recipe.clip or None
        )
    elif recipe.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(
            recipe.learning_rate, recipe.weight_decay, beta_2=recipe.rho, global_clipnorm=recipe.clip or None
        )
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    else:
        optimizer = keras.optimizers.RMSprop(
            recipe.learning_rate, rho=recipe.rho, momentum=recipe.momentum, epsilon=recipe.epsilon,
            global_clipnorm=recipe.clip or None,
        )  # fmt: skip
    optimizer.build(list(variables))
    for variable in optimizer.variables:
        if recipe.optimizer == "rmsprop" and "velocity" in variable.path:
            variable.assign(np.ones(variable.shape, np.float32))
    return optimizer
