"""Once-for-all's progressive shrinking: the largest network first, then smaller kernels, fewer layers, fewer channels.

Each step trains the largest network on the labels, and from the second stage on random children beside it on its
soft labels and the labels. A stage lets them choose more: kernels; then depths, those next to the deepest first; then
expansions and widths, likewise. Once-for-all's own teacher is the largest network as it was after the first stage, and
is not trained on; here it is the largest one of the same step, which goes on learning. Channels are not sorted between
stages.

Reference: Once-for-All (Cai et al. 2020, arXiv 1908.09791), section 3.3 and appendix; relative lengths of the stages,
and children a step, of github.com/mit-han-lab/once-for-all, train_ofa_net.py.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bignas_zoo.architecture.choices import Choice, Place
from bignas_zoo.architecture.sampling import choose
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.recipes import randomness
from bignas_zoo.recipes.methods.method import (
    Control,
    Examples,
    Method,
    Part,
    RecipeView,
    State,
    Term,
    keep_state,
    no_state,
)
from bignas_zoo.recipes.rules import Rule, above, whole

if TYPE_CHECKING:
    from bignas_zoo.models.elastic import Execution

Tensor = Any
LARGEST, KERNEL, DEPTH_START, DEPTH, WIDTH_START, WIDTH = (
    "largest", "kernel", "depth-start", "depth", "width-start", "width",
)  # fmt: skip
STAGES = (LARGEST, KERNEL, DEPTH_START, DEPTH, WIDTH_START, WIDTH)
#: The stage from which all options of a choice are free, and the one from which its two largest are.
FREE = {"resolution": KERNEL, "kernel": KERNEL, "depth": DEPTH}
TWO = {"depth": DEPTH_START}


@dataclass(frozen=True)
class Progressive:
    """The method's fields of a recipe; defaults are Once-for-all's, in epochs.

    Attributes:
        largest, kernel, depth_start, depth, width_start, width: how long each stage is, relative to the others.
        kernel_children, depth_children, width_children: random children a step in stages of that name.
        distillation: weight of the largest network's soft labels beside the labels; 0 for none.
    """

    name: ClassVar[str] = "progressive-shrinking"
    rules: ClassVar[Mapping[str, Rule]] = {
        **{stage.replace("-", "_"): above(0, inclusive=True) for stage in STAGES},
        **{f"{name}_children": whole(1, 16) for name in (KERNEL, DEPTH, WIDTH)},
        "distillation": above(0, inclusive=True),
    }

    largest: float = 180.0
    kernel: float = 120.0
    depth_start: float = 25.0
    depth: float = 120.0
    width_start: float = 25.0
    width: float = 120.0
    kernel_children: int = 1
    depth_children: int = 2
    width_children: int = 4
    distillation: float = 1.0

    @property
    def lengths(self) -> tuple[float, ...]:
        """How long each stage is, in the order of `STAGES`."""
        return self.largest, self.kernel, self.depth_start, self.depth, self.width_start, self.width

    def problem(self, steps: int) -> str:
        """Return what is wrong between the fields and the number of steps, or ""."""
        return "" if sum(self.lengths) > 0 else "largest: all stages have no length."

    def stage(self, step: int, steps: int) -> str:
        """Return the stage of a step, counted from 0."""
        ends = [end * steps / sum(self.lengths) for end in accumulate(self.lengths)]
        return STAGES[min(bisect_right(ends, step), len(STAGES) - 1)]

    def children(self, stage: str) -> int:
        """Return how many children a step of a stage trains beside the largest network."""
        counts = {LARGEST: 0, KERNEL: self.kernel_children, DEPTH: self.depth_children, WIDTH: self.width_children}
        return counts[stage.removesuffix("-start")]


def options(choice: Choice, stage: str) -> tuple[int, ...]:
    """Return what children of a stage may choose; the largest network's value alone before it is a choice's turn."""
    now = STAGES.index(stage)
    if now >= STAGES.index(FREE.get(choice.name, WIDTH)):
        return choice.options
    two = now >= STAGES.index(TWO.get(choice.name, WIDTH_START))
    return choice.options[-2:] if two else choice.options[-1:]


def children(recipe: RecipeView, step: int, stage: str) -> tuple[ChildSpec, ...]:
    """Return the random children of a step."""
    space, settings = recipe.search_space, _settings(recipe)
    count = settings.children(stage)
    drawn = []
    for index in range(count):
        values: dict[Place, int] = {}
        for choice in space.choices:
            if choice.acts(values):
                values[choice.place] = choose(options(choice, stage), (recipe.seed, step, index, *choice.key))
        values["resolution", -1, -1] = _resolution(recipe, index, count)
        drawn.append(space.child(values))
    return tuple(drawn)


def _resolution(recipe: RecipeView, index: int, count: int) -> int:
    """Return the input size of a step's child: each has one of its own, so that steps compile once, spread over all."""
    sizes = recipe.search_space.resolutions
    return sizes[round((index + 0.5) / count * (len(sizes) - 1))]


def control(recipe: RecipeView, step: int, state: State) -> Control:
    """Return what a step trains.

    Returns:
        Its phase is the stage; steering: ``choices``: ``[children, length]`` int32 choice vectors; ``keys``: ``[1]``
        uint32, of the largest network's dropout.
    """
    from bignas_zoo.models.active import ActiveChild

    settings = _settings(recipe)
    stage = settings.stage(step, recipe.steps)
    length = ActiveChild.of(recipe.search_space.biggest).vector().size
    vectors = [ActiveChild.of(spec).vector() for spec in children(recipe, step, stage)]
    steering = {
        "choices": np.array(vectors, np.int32).reshape(-1, length),
        "keys": np.array([randomness.key_of(recipe.seed, step, 0)], np.uint32),
    }
    return Control(stage, steering)


def loss(recipe: RecipeView, phase: str) -> tuple[Part, ...]:
    """Return a part for the largest network, and one a child.

    Its figures are ``biggest`` and ``smallest`` (cross entropies of the largest network and of the last child) and
    ``accuracy`` (of the largest on this batch, 0 to 1).
    """
    return tuple(
        functools.partial(network_loss, recipe, phase, index) for index in range(1 + _settings(recipe).children(phase))
    )


def network_loss(
    recipe: RecipeView,
    phase: str,
    index: int,
    weights: Mapping[str, Tensor],
    examples: Examples,
    steering: Mapping[str, Tensor],
    soft: Tensor,
    how: Execution,
) -> Term:
    """Compute one network's part of a step's loss.

    Args:
        recipe: the recipe.
        phase: the stage.
        index: 0 is the largest network; then the children.
        weights: the supernet's.
        examples: the batch.
        steering: see `control`.
        soft: ``[batch, classes]`` soft labels of the largest network; None for itself.
        how: how the supernet is computed.

    Returns:
        Its term of the loss, its cross entropy with the labels, and the soft labels.
    """
    from bignas_zoo.models.active import ActiveChild
    from bignas_zoo.models.backend import ops
    from bignas_zoo.models.preprocess import resize
    from bignas_zoo.models.supernet import forward
    from bignas_zoo.recipes.methods import bits, losses

    settings, space = _settings(recipe), recipe.search_space
    labels = losses.smooth_labels(examples.labels, space.classes, recipe.label_smoothing)
    choice, resolution, mask = ActiveChild.of(space.biggest), space.biggest.resolution, None
    if index:
        choice = ActiveChild.from_vector(space, steering["choices"][index - 1])
        resolution = _resolution(recipe, index - 1, settings.children(phase))
    elif recipe.dropout:
        uniform = bits.uniform(steering["keys"][0], examples.rows, space.most_features)
        mask = ops.cast(uniform >= recipe.dropout, "float32") / (1 - recipe.dropout)
    x = ops.cast(resize(examples.images, resolution), recipe.precision)
    logits = forward(space, weights, x, choice, dropout_mask=mask, how=how)
    entropy = losses.cross_entropy(logits, labels)
    if not index:
        term = entropy + recipe.weight_decay * losses.l2(weights)
        figures = {"biggest": entropy, "accuracy": losses.accuracy(logits, examples.labels)}
        return Term(term, figures, losses.soft_labels(logits))
    term = entropy
    if settings.distillation:  # the two together weigh as much as one of them alone would twice
        share = 2 / (1 + settings.distillation)
        term = share * (entropy + settings.distillation * losses.cross_entropy(logits, soft))
    return Term(term, {"smallest": entropy}, soft)


def _settings(recipe: RecipeView) -> Progressive:
    assert isinstance(recipe.method, Progressive)
    return recipe.method


METHOD = Method(Progressive, no_state, control, loss, keep_state)
