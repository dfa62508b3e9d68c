"""What a training method is: a value with (init, control, loss, update).

An engine differentiates a method's loss and moves the supernet's weights; what the method keeps beside
them (a controller's logits, a baseline) is its own `State`, which only `update` changes, on the host.
Loaded before Keras has its backend, so tensor libraries are imported inside the functions that compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

    from bignas_zoo.architecture.space import SearchSpace
    from bignas_zoo.models.elastic import Execution
    from bignas_zoo.recipes.rules import Rule

Tensor = Any
Weights = Mapping[str, Tensor]
#: A method's own arrays by name; empty for a method that only trains weights.
State = Mapping[str, "np.ndarray"]


class Settings(Protocol):
    """A method's own fields in a recipe: a frozen dataclass with a default for each.

    Attributes:
        name: of the method.
        rules: what its fields may be.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    rules: ClassVar[Mapping[str, Rule]]

    def problem(self, steps: int) -> str:
        """Return what is wrong between the fields and the number of steps, or ""."""


class RecipeView(Protocol):
    """What methods read of a recipe, see `recipes.recipe.Recipe`, which is built on this file."""

    @property
    def method(self) -> Settings:
        """The method's own fields."""

    @property
    def search_space(self) -> SearchSpace:
        """The space that is trained."""

    @property
    def steps(self) -> int:
        """How many there are."""

    @property
    def seed(self) -> int:
        """Of every random draw."""

    @property
    def precision(self) -> str:
        """Of activations, "float32" or "bfloat16"."""

    @property
    def label_smoothing(self) -> float:
        """Of the labels."""

    @property
    def weight_decay(self) -> float:
        """L2 factor on kernels."""

    @property
    def dropout(self) -> float:
        """Before the classifier."""

    @property
    def start_from(self) -> str:
        """The family whose weights the run starts from; "" for none."""


@dataclass(frozen=True)
class Control:
    """What a step does besides its images; all devices get the same.

    Attributes:
        phase: which form of the step runs, in one word: each is compiled once, and the log names it.
        steering: arrays that the compiled step takes as arguments.
    """

    phase: str
    steering: Mapping[str, np.ndarray]


class Examples(NamedTuple):
    """A batch as a loss sees it.

    Attributes:
        images: ``[batch, crop, crop, 3]`` normalised float32; every resolution is resized from them.
        labels: ``[batch]`` int32.
        rows: ``[batch]`` int32, the global index of each image, for draws that no sharding changes.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor


class Term(NamedTuple):
    """What one part of a loss comes to.

    Attributes:
        value: scalar; a step's loss is the sum over its parts.
        figures: scalars to report; where parts name the same one, the last counts.
        carried: for the parts after it: an array with a row an image, or None.
    """

    value: Tensor
    figures: Mapping[str, Tensor]
    carried: Tensor


#: A part of a loss: weights, examples, steering, what the part before carried (None for the first), execution.
Part = Callable[[Weights, Examples, Mapping[str, Tensor], Tensor, "Execution"], Term]


@dataclass(frozen=True)
class Method:
    """One way of training.

    Attributes:
        settings: its fields in a recipe.
        init: recipe -> its own state before the first step.
        control: recipe, step (0-based), state -> what the step does.
        loss: recipe, phase -> the parts whose sum a step of this phase differentiates. An engine may take
            them one after the other, so that one part's activations are in memory at a time.
        update: recipe, step, state, the step's control and its figures -> the state after the step.
        trains: recipe, name of a weight -> whether the engine moves it.
        needs_start: whether it trains the slices of a starting family; whoever makes that family fills in a recipe
            without one.
        may_shorten: whether a run may go on with fewer steps than it began with.
    """

    settings: type[Settings]
    init: Callable[[RecipeView], State]
    control: Callable[[RecipeView, int, State], Control]
    loss: Callable[[RecipeView, str], Sequence[Part]]
    update: Callable[[RecipeView, int, State, Control, Mapping[str, float]], State]
    trains: Callable[[RecipeView, str], bool] = lambda recipe, name: True
    needs_start: bool = False
    may_shorten: bool = False


def no_state(recipe: RecipeView) -> State:
    """Return the state of a method that keeps none."""
    return {}


def keep_state(recipe: RecipeView, step: int, state: State, control: Control, figures: Mapping[str, float]) -> State:
    """Return the state as it was: the update of a method that keeps none."""
    return state


def total(
    parts: Sequence[Part], weights: Weights, examples: Examples, steering: Mapping[str, Tensor], how: Execution
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute a whole loss.

    Args:
        parts: of a method's `loss`, at least one.
        weights: the supernet's.
        examples: the batch.
        steering: see `Control`.
        how: how the supernet is computed.

    Returns:
        The scalar loss, and the figures of all parts.
    """
    loss: Tensor = 0.0
    figures: dict[str, Tensor] = {}
    carried: Tensor = None
    for part in parts:
        value, own, carried = part(weights, examples, steering, carried, how)
        loss, figures = loss + value, {**figures, **own}
    return loss, figures
