"""Training of a supernet that begins as one trained network: the sandwich rule under frozen statistics.

Each step trains the biggest child on the labels, and some of the children that the starting family names, and the
smallest, on the biggest one's predictions. Batch norms normalise with statistics that stay: of each child
those that its slice of the starting family has, matched to the trained network's (`models.matching`). Batch
statistics would take from such a network what it has learnt (docs/photos.md).

References: BigNAS (arXiv 2003.11142) section 3.1 for sandwich and distillation; FixRes (arXiv 1906.06423) for what the
input size does to statistics.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bignas_zoo.errors import RecipeError
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
from bignas_zoo.recipes.rules import Rule, above, among, whole

if TYPE_CHECKING:
    import numpy as np

    from bignas_zoo.architecture.space import ChildSpec
    from bignas_zoo.models.elastic import Execution

Tensor = Any
BIGGEST, SMALLEST, ALL = "biggest", "smallest", "ends"


@dataclass(frozen=True)
class MatchedSandwich:
    """The method's fields of a recipe; what each rests on is in docs/photos.md.

    Attributes:
        biggest_only_steps: how many steps, from the start, train the biggest child alone.
        middle_children: children a step between the two ends, drawn among the starting family's slices.
        smallest_child: whether each step trains the smallest child; if not, one more of the others takes its place.
        distillation: whether all children but the biggest learn from its soft labels; if not, from the labels.
        frozen_stages: weights of the stem and of so many stages stay as they are; -1 trains them all.
        loss_reduction: "sum" or "mean" over the children of a step.
    """

    name: ClassVar[str] = "matched-sandwich"
    rules: ClassVar[Mapping[str, Rule]] = {
        "biggest_only_steps": above(0, inclusive=True),
        "middle_children": whole(0, 16),
        "frozen_stages": whole(-1, 64),
        "loss_reduction": among("sum", "mean"),
    }

    biggest_only_steps: int = 0
    middle_children: int = 1
    smallest_child: bool = True
    distillation: bool = True
    frozen_stages: int = 2
    loss_reduction: str = "sum"

    def problem(self, steps: int) -> str:
        """Return what is wrong between the fields and the number of steps, or ""."""
        return f"biggest_only_steps: more than steps ({steps})." if self.biggest_only_steps > steps else ""


@dataclass(frozen=True)
class Trained:
    """A child that steps train.

    Attributes:
        name: of its slice.
        spec: what it is.
        statistics: of its batch norms, by the names of its plan.
    """

    name: str
    spec: ChildSpec
    statistics: Mapping[str, np.ndarray]


@functools.lru_cache(maxsize=4)
def children_of(start_from: str) -> tuple[Trained, ...]:
    """Return the slices of a starting family, ordered by MACs, the biggest last.

    Raises:
        UsageError: its nets were trained one by one.
        RecipeError: none is named, or it has fewer than two slices, or the last is not its space's biggest child.
        NotFoundError, IntegrityError: no such family, or a file of it is damaged.
    """
    from bignas_zoo.files.store import verify
    from bignas_zoo.models.weights import read_weights
    from bignas_zoo.zoo.registry import get_family

    where = f"method '{MatchedSandwich.name}': start_from"
    if not start_from:
        raise RecipeError(f"{where}: name the family that training starts from; `train photos` makes one.")
    family = get_family(start_from.partition("@")[0])
    space, _ = family.supernet(where)
    slices = [s for s in family.slices if s.spec is not None and s.statistics is not None]
    if len(slices) < 2 or slices[-1].network != space.biggest:
        raise RecipeError(f"{where}: {start_from}: needs two slices at least, the space's biggest child among them.")
    children = []
    for slice_ in slices:
        assert slice_.spec
        assert slice_.statistics
        path = family.path(slice_.statistics)
        verify(path, slice_.statistics.sha256, size=slice_.statistics.bytes, fix="Make the family again.")
        stored = read_weights(path)
        children.append(Trained(slice_.name, slice_.spec, {k: v.astype("float32") for k, v in stored.items()}))
    return tuple(children)


def control(recipe: RecipeView, step: int, state: State) -> Control:
    """Return which children a step trains: its phase names those in the middle."""
    settings, (_, *middle, _) = _settings(recipe), children_of(recipe.start_from)
    if step < settings.biggest_only_steps:
        return Control(BIGGEST, {})
    count = min(len(middle), settings.middle_children + (not settings.smallest_child))
    drawn = randomness.philox(recipe.seed, "middle", step).permutation(len(middle))[:count]
    return Control("+".join([ALL, *(middle[i].name for i in sorted(drawn))]), {})


def loss(recipe: RecipeView, phase: str) -> tuple[Part, ...]:
    """Return a part a child: the biggest, those in the middle, the smallest."""
    everything = children_of(recipe.start_from)
    trained = [everything[-1]]
    if phase != BIGGEST:
        names = phase.split("+")[1:]
        trained += [child for child in everything if child.name in names]
        trained += [everything[0]] if _settings(recipe).smallest_child else []
    share = 1 / len(trained) if _settings(recipe).loss_reduction == "mean" else 1.0
    return tuple(functools.partial(child_loss, recipe, child, index, share) for index, child in enumerate(trained))


def child_loss(
    recipe: RecipeView,
    child: Trained,
    index: int,
    share: float,
    weights: Mapping[str, Tensor],
    examples: Examples,
    steering: Mapping[str, Tensor],
    targets: Tensor,
    how: Execution,
) -> Term:
    """Compute one child's part of a step's loss.

    Args:
        recipe: the recipe.
        child: which one.
        index: 0 is the biggest.
        share: factor of its cross entropy.
        weights: the supernet's.
        examples: the batch.
        steering: nothing.
        targets: ``[batch, classes]`` of all children but the biggest; of that one None, it has the labels.
        how: how the supernet is computed.

    Returns:
        The child's term, and the targets of all others.
    """
    from bignas_zoo.models.active import ActiveChild
    from bignas_zoo.models.backend import ops
    from bignas_zoo.models.preprocess import resize
    from bignas_zoo.models.supernet import forward
    from bignas_zoo.recipes.methods import losses

    space = recipe.search_space
    if index == 0:
        targets = losses.smooth_labels(examples.labels, space.classes, recipe.label_smoothing)
    x = ops.cast(resize(examples.images, child.spec.resolution), recipe.precision)
    statistics = {name: ops.convert_to_tensor(array) for name, array in child.statistics.items()}
    logits = forward(space, weights, x, ActiveChild.of(child.spec), how=how, statistics=statistics)
    entropy = losses.cross_entropy(logits, targets)
    if index:
        return Term(share * entropy, {SMALLEST: entropy}, targets)
    if _settings(recipe).distillation:
        targets = losses.soft_labels(logits, 1.0)
    return Term(share * entropy, {BIGGEST: entropy, "accuracy": losses.accuracy(logits, examples.labels)}, targets)


def trains(recipe: RecipeView, name: str) -> bool:
    """Return whether a weight is trained: those of the stem and the first stages may stay as they are."""
    block = name.partition(".")[0]
    if block == "stem":
        return _settings(recipe).frozen_stages < 0
    return not block.startswith("stage") or int(block.removeprefix("stage")) > _settings(recipe).frozen_stages


def _settings(recipe: RecipeView) -> MatchedSandwich:
    assert isinstance(recipe.method, MatchedSandwich)
    return recipe.method


METHOD = Method(
    MatchedSandwich, no_state, control, loss, keep_state, trains, needs_start=True, may_shorten=True
)  # fmt: skip
