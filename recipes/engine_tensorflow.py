"""The training engine on TensorFlow: one device, no XLA.

XLA has no usable gradient of depthwise convolutions on CPUs (25 to 40 times slower than
TensorFlow's own), so compilation is off; `tf.cond` skips absent layers at run time instead.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.supernet import initial_weights
from bignas_zoo.recipes.recipe import Recipe
from bignas_zoo.recipes.sandwich import step_loss

OPTIMIZER = "optimizer."


def make_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Return the recipe's optimizer, not yet built."""
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
    return keras.optimizers.RMSprop(
        recipe.learning_rate, rho=recipe.rho, momentum=recipe.momentum, epsilon=recipe.epsilon
    )


class TensorFlowEngine:
    """Weights and optimizer on one device, and the two compiled steps over them."""

    def __init__(self, recipe: Recipe, preprocess: Preprocess) -> None:
        initial = initial_weights(recipe.search_space, recipe.seed, last_gamma=recipe.last_gamma)
        self.variables = {name: keras.Variable(value, name=name.replace(".", "_")) for name, value in initial.items()}
        self.optimizer = make_optimizer(recipe)
        self.optimizer.build(list(self.variables.values()))
        for variable in self.optimizer.variables:
            if "velocity" in variable.path:  # the paper's RMSProp starts its mean square at one
                variable.assign(np.ones(variable.shape, np.float32))
        self._steps = {sandwich: self._compile(recipe, preprocess, sandwich=sandwich) for sandwich in (False, True)}

    def _compile(self, recipe: Recipe, preprocess: Preprocess, *, sandwich: bool) -> Any:
        variables = list(self.variables.values())

        @tf.function(jit_compile=False, autograph=False)  # type: ignore[untyped-decorator]
        def step(pixels: Any, labels: Any, choices: Any, mask: Any) -> Any:
            with tf.GradientTape() as tape:
                weights = {name: v.value for name, v in self.variables.items()}
                loss, parts = step_loss(
                    recipe,
                    preprocess,
                    weights,
                    pixels,
                    labels,
                    choices if sandwich else None,
                    mask,
                    branch="cond",
                )
            gradients = tape.gradient(loss, [v.value for v in variables])
            self.optimizer.apply(gradients, variables)
            return {"loss": loss, **parts}

        return step

    def step(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        choices: np.ndarray | None,
        mask: np.ndarray,
        learning_rate: float,
    ) -> dict[str, float]:
        """Run one optimizer step.

        Args:
            pixels, labels, choices, mask: see `step_loss`; `choices` None trains the biggest alone.
            learning_rate: of this step.

        Returns:
            The loss and its parts.
        """
        self.optimizer.learning_rate.assign(learning_rate)
        run = self._steps[choices is not None]
        none = np.zeros((0, 0), np.int32)
        values = run(
            tf.constant(pixels),
            tf.constant(labels),
            tf.constant(none if choices is None else choices),
            tf.constant(mask),
        )
        return {name: float(value) for name, value in values.items()}

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the supernet's weights."""
        return {name: keras.ops.convert_to_numpy(v) for name, v in self.variables.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return weights and optimizer state, everything a resumed run needs."""
        slots = {f"{OPTIMIZER}{i:04d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(self.optimizer.variables)}
        return {**self.weights(), **slots}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over a `state`."""
        for name, variable in self.variables.items():
            variable.assign(state[name])
        for i, variable in enumerate(self.optimizer.variables):
            variable.assign(state[f"{OPTIMIZER}{i:04d}"])
