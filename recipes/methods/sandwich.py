"""BigNAS's training: the sandwich rule with inplace distillation.

Each step trains the biggest child on the labels and some others (random ones, the smallest) on the biggest
one's predictions. A part of the loss is one child.

Reference: BigNAS (arXiv 2003.11142) section 3.1.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bignas_zoo.architecture import cost, sampling
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
from bignas_zoo.recipes.rules import Rule, above, among, whole, within

if TYPE_CHECKING:
    from bignas_zoo.models.active import ActiveChild
    from bignas_zoo.models.elastic import Execution

Tensor = Any
#: Draws for each candidate: how closely their MACs agree.
POOL = 4
#: Phases: the biggest child alone; all children.
BIGGEST, SANDWICH = "biggest", "sandwich"


@dataclass(frozen=True)
class Sandwich:
    """The sandwich's fields of a recipe; defaults are the paper's.

    Attributes:
        biggest_only_steps: how many steps, from the start, train the biggest child alone (0 in the
            paper; Delayed eps-Shrinking, arXiv 2407.06167, argues for more).
        random_children: random children a step between biggest and smallest.
        smallest_child: whether each step trains the smallest child (the sandwich rule); if not, one
            more random child takes its place.
        distillation: whether all children but the biggest learn from its soft labels (inplace
            distillation); if not, from the labels themselves.
        distillation_temperature: both logits are divided by it in the distillation loss, which is
            multiplied by its square (Hinton et al. 2015).
        regularise: whom dropout and weight decay act on, "biggest" (paper) or "all" children.
        loss_reduction: "sum" (paper) or "mean" over the children of a step.
        divergence: of children from the biggest one's soft labels: "cross_entropy" (paper) or "alpha", AlphaNet's
            adaptive divergence (arXiv 2102.07954).
        alpha_min, alpha_max, alpha_clip: of the latter, see `losses.alpha_divergence`.
        candidates: random children drawn for each one that is trained (1: none to choose from), of about the same MACs:
            the nearest to those of one uniform draw among four times as many.
        candidate: which of them is trained: "best", of the lowest cross entropy on the step's images, or "worst"
            (AttentiveNAS's BestUp and WorstUp, arXiv 2011.09011, sections 3.1 and 3.2).
    """

    name: ClassVar[str] = "sandwich"
    later: ClassVar[tuple[str, ...]] = (
        "divergence", "alpha_min", "alpha_max", "alpha_clip", "candidates", "candidate",
    )  # fmt: skip
    rules: ClassVar[Mapping[str, Rule]] = {
        "loss_reduction": among("sum", "mean"),
        "regularise": among("biggest", "all"),
        "distillation_temperature": above(0),
        "random_children": whole(0, 64),
        "biggest_only_steps": above(0, inclusive=True),
        "divergence": among("cross_entropy", "alpha"),
        "alpha_min": within(-10, 10),
        "alpha_max": within(-10, 10),
        "alpha_clip": within(1, 1e6),
        "candidates": whole(1, 64),
        "candidate": among("best", "worst"),
    }

    biggest_only_steps: int = 0
    random_children: int = 2
    smallest_child: bool = True
    distillation: bool = True
    distillation_temperature: float = 1.0
    regularise: str = "biggest"
    loss_reduction: str = "sum"
    divergence: str = "cross_entropy"
    alpha_min: float = -1.0
    alpha_max: float = 1.0
    alpha_clip: float = 5.0
    candidates: int = 1
    candidate: str = "best"

    def problem(self, steps: int) -> str:
        """Return what is wrong between the fields and the number of steps, or ""."""
        if self.biggest_only_steps > steps:
            return f"biggest_only_steps: more than steps ({steps})."
        if self.alpha_min > self.alpha_max:
            return f"alpha_min: above alpha_max ({self.alpha_max})."
        if self.divergence == "alpha" and not (self.distillation and self.distillation_temperature == 1):
            return (
                "divergence: 'alpha' is of soft labels at temperature 1: it needs distillation, without a temperature."
            )
        if self.candidates > 1 and self.regularise == "all":
            return "candidates: which one is trained is known on the device alone, so regularise must be 'biggest'."
        return ""

    @property
    def random_count(self) -> int:
        """How many random children a step of the sandwich trains."""
        return self.random_children + (not self.smallest_child)

    def phase(self, step: int) -> str:
        """Return which phase a step is of."""
        return BIGGEST if step < self.biggest_only_steps else SANDWICH

    def children(self, phase: str) -> int:
        """Return how many children a step trains."""
        return 1 if phase == BIGGEST else 2 + self.random_children

    def share(self, phase: str) -> float:
        """Return the factor of each child's cross entropy in the loss: 1, or one over their number."""
        return 1 / self.children(phase) if self.loss_reduction == "mean" else 1.0


def children(recipe: RecipeView, step: int) -> tuple[ChildSpec, ...]:
    """Return the children of a step: the biggest, random ones, the smallest.

    Without `Sandwich.smallest_child` one more random child takes the smallest one's place; while the
    biggest is trained alone there are no others.
    """
    settings = _settings(recipe)
    if settings.phase(step) == BIGGEST:
        return (recipe.search_space.biggest,)
    specs = sampling.sandwich(recipe.search_space, recipe.seed, step, settings.random_count)
    return specs if settings.smallest_child else specs[:-1]


def control(recipe: RecipeView, step: int, state: State) -> Control:
    """Return what a step trains.

    Returns:
        Its steering: ``choices``: ``[random children, length]`` int32 choice vectors (``[random children,
        candidates, length]`` where there are several to choose from); ``keys``:
        ``[children]`` uint32, of each child's dropout; with ``regularise: all`` also ``extents``:
        ``[children, kernels, 3]`` int32, see `_extents`.
    """
    from bignas_zoo.models.active import ActiveChild

    settings, specs = _settings(recipe), children(recipe, step)
    drawn = specs[1 : 1 + settings.random_count]
    length = ActiveChild.of(recipe.search_space.biggest).vector().size
    several = settings.candidates > 1
    vectors = [
        [ActiveChild.of(c).vector() for c in (_candidates(recipe, step, i, spec) if several else [spec])]
        for i, spec in enumerate(drawn)
    ]
    shape = (-1, settings.candidates, length) if several else (-1, length)
    steering = {
        "choices": np.array(vectors, np.int32).reshape(shape),
        "keys": np.array([randomness.key_of(recipe.seed, step, i) for i in range(len(specs))], np.uint32),
    }
    if settings.regularise == "all":
        steering["extents"] = np.array([_extents(spec) for spec in specs], np.int32)
    return Control(settings.phase(step), steering)


def _candidates(recipe: RecipeView, step: int, index: int, drawn: ChildSpec) -> list[ChildSpec]:
    """Return the children that a place of a step is given to choose from: of about the MACs of the drawn one."""
    settings = _settings(recipe)
    keys = [(recipe.seed, step, index, "candidate", n) for n in range(POOL * settings.candidates)]
    pool = [sampling.uniform_child(recipe.search_space, key, drawn.resolution) for key in keys]
    target = cost.macs(drawn)
    return sorted(pool, key=lambda spec: abs(cost.macs(spec) - target))[: settings.candidates]


def loss(recipe: RecipeView, phase: str) -> tuple[Part, ...]:
    """Return a part a child: the biggest, the random ones, the last is the smallest.

    Its figures are ``biggest`` and ``smallest`` (the last child's cross entropy) and ``accuracy`` (of the
    biggest on this batch, 0 to 1).
    """
    count = _settings(recipe).children(phase)
    return tuple(functools.partial(child_loss, recipe, phase, index) for index in range(count))


def child_loss(
    recipe: RecipeView,
    phase: str,
    index: int,
    weights: Mapping[str, Tensor],
    examples: Examples,
    steering: Mapping[str, Tensor],
    targets: Tensor,
    how: Execution,
) -> Term:
    """Compute one child's part of a step's loss.

    Args:
        recipe: the recipe.
        phase: of the step.
        index: 0 is the biggest child; then the random ones; the last is the smallest.
        weights: the supernet's.
        examples: the batch.
        steering: see `control`.
        targets: ``[batch, classes]`` of all children but the biggest (log-probabilities, with alpha-divergence); of
            that one None, it has the labels.
        how: how the supernet is computed.

    Returns:
        The child's term of the loss, its cross entropy alone, and the targets of all others: the biggest
        child's soft labels, or the labels.
    """
    from bignas_zoo.recipes.methods import losses

    settings, space = _settings(recipe), recipe.search_space
    if index == 0:
        targets = losses.smooth_labels(examples.labels, space.classes, recipe.label_smoothing)
    if settings.candidates > 1 and 0 < index <= settings.random_count:
        steering = {**steering, "choices": _chosen(recipe, index, weights, examples, steering, how)}
    logits = _logits(recipe, index, weights, examples, steering, how)
    if index and settings.divergence == "alpha":
        alphas = settings.alpha_min, settings.alpha_max
        divergence = losses.alpha_divergence(logits, targets, alphas, settings.alpha_clip)
        return Term(settings.share(phase) * divergence, {"smallest": divergence}, targets)
    heat = settings.distillation_temperature if index and settings.distillation else 1.0
    entropy = losses.cross_entropy(logits / heat, targets) * heat**2
    term = settings.share(phase) * entropy
    if settings.regularise == "all":
        decay = losses.l2_of(weights, steering["extents"][index])
        term = term + settings.share(phase) * recipe.weight_decay * decay
    elif index == 0:  # once a step, at full strength: the biggest child holds every weight
        term = term + recipe.weight_decay * losses.l2(weights)
    if index:
        return Term(term, {"smallest": entropy}, targets)
    if settings.divergence == "alpha":
        targets = losses.log_labels(logits)
    elif settings.distillation:
        targets = losses.soft_labels(logits, settings.distillation_temperature)
    return Term(term, {"biggest": entropy, "accuracy": losses.accuracy(logits, examples.labels)}, targets)


def _chosen(
    recipe: RecipeView,
    index: int,
    weights: Mapping[str, Tensor],
    examples: Examples,
    steering: Mapping[str, Tensor],
    how: Execution,
) -> Tensor:
    """Return the step's vectors with that candidate in a place that the step's own images choose."""
    from bignas_zoo.models.backend import ops
    from bignas_zoo.recipes.methods import losses

    settings, space = _settings(recipe), recipe.search_space
    fixed = {name: ops.stop_gradient(value) for name, value in weights.items()}
    labels = losses.smooth_labels(examples.labels, space.classes, recipe.label_smoothing)
    entropies = []
    for number in range(settings.candidates):
        one = {**steering, "choices": steering["choices"][:, number]}
        entropies.append(losses.cross_entropy(_logits(recipe, index, fixed, examples, one, how), labels))
    place = ops.argmin(ops.stack(entropies)) if settings.candidate == "best" else ops.argmax(ops.stack(entropies))
    return ops.take(steering["choices"], place, axis=1)


def _logits(
    recipe: RecipeView,
    index: int,
    weights: Mapping[str, Tensor],
    examples: Examples,
    steering: Mapping[str, Tensor],
    how: Execution,
) -> Tensor:
    """Run one child of a step; return ``[batch, classes]`` float32."""
    from bignas_zoo.models.backend import ops
    from bignas_zoo.models.preprocess import resize
    from bignas_zoo.models.supernet import forward
    from bignas_zoo.recipes.methods import bits

    space = recipe.search_space
    choice, resolution = _child(recipe, steering, index)
    mask = None
    if recipe.dropout and (index == 0 or _settings(recipe).regularise == "all"):
        uniform = bits.uniform(steering["keys"][index], examples.rows, space.most_features)
        mask = ops.cast(uniform >= recipe.dropout, "float32") / (1 - recipe.dropout)
    x = ops.cast(resize(examples.images, resolution), recipe.precision)
    return forward(space, weights, x, choice, dropout_mask=mask, how=how)


def _child(recipe: RecipeView, steering: Mapping[str, Tensor], index: int) -> tuple[ActiveChild, int]:
    """Return choice and resolution of a step's child; four resolutions serve four children."""
    from bignas_zoo.models.active import ActiveChild

    space = recipe.search_space
    if index == 0:
        return ActiveChild.of(space.biggest), space.biggest.resolution
    if index > _settings(recipe).random_count:
        return ActiveChild.of(space.smallest), space.smallest.resolution
    middle = space.resolutions[1:-1] or space.resolutions
    return ActiveChild.from_vector(space, steering["choices"][index - 1]), middle[(index - 1) % len(middle)]


@functools.lru_cache(maxsize=64)
def _extents(spec: ChildSpec) -> tuple[tuple[int, int, int], ...]:
    """Return what a child uses of each kernel of the supernet, by name: spatial size, inputs, outputs."""
    from bignas_zoo.models.slicing import child_shapes, supernet_shapes

    used = child_shapes(spec, statistics=False)
    whole = supernet_shapes(spec.space)
    shapes = (used.get(name, (0,) * len(shape)) for name, shape in sorted(whole.items()) if name.endswith("kernel"))
    return tuple((s[0] if len(s) == 4 else 1, s[-2], s[-1]) for s in shapes)


def _settings(recipe: RecipeView) -> Sandwich:
    assert isinstance(recipe.method, Sandwich)
    return recipe.method


METHOD = Method(Sandwich, no_state, control, loss, keep_state)
