"""Recipes: strict YAML to a frozen dataclass; every field checked, none guessed.

Defaults are the paper's wherever the paper states a value (BigNAS, arXiv 2003.11142, section 4.1
and appendix). The resolved recipe, defaults included, is stored with every checkpoint and family.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.forms import ACTIVATIONS
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces import get_space, variant
from bignas_zoo.errors import LocalIOError, NotFoundError, RecipeError, SpaceError, nearest
from bignas_zoo.recipes import strict_yaml


@dataclass(frozen=True)
class Recipe:
    """How one supernet is trained.

    Attributes:
        name: of the family it makes.
        space: name of the search space.
        crop_size: side of the training crop in pixels.
        mean, std: input normalisation per channel, in pixel values 0 to 255.
        steps: optimizer steps in all.
        holdout: training images kept out, for choosing slices and for the learning curve: their
            number, or below 1 that part of all.
        batch_size: images a step, over all devices and hosts.
        engine: "tensorflow", "jax" or "auto" (JAX on a GPU or TPU, TensorFlow otherwise).
        precision: of activations, "float32" or "bfloat16" (the paper's TPUs); weights, moments and
            losses stay float32.
        batch_norm, depthwise, branch, pack: see `bignas_zoo.models.elastic.Execution`; "auto" and 0
            take the engine's own.
        program: what JAX compiles as one program, the whole "step" or each "child"; "auto" takes a
            child on TPUs and CPUs, whose compilers need too long for a step of a large space.
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
        label_smoothing: of the labels.
        weight_decay: L2 factor on kernels.
        dropout: before the classifier.
        optimizer: "rmsprop" (paper) or "sgd" (Nesterov).
        momentum, rho, epsilon: of the optimizer; rho and epsilon for RMSProp.
        learning_rate: at a batch of `learning_rate_batch`; scaled linearly to `batch_size`.
        warmup_steps: linear rise from zero.
        decay: "staircase" (paper: times `decay_rate` every `decay_every` steps), "exponential" (to
            `ending` at `decay_until`), "cosine" or "linear" (to zero at `decay_until`).
        decay_rate, decay_every: of the staircase; 751 steps of 4,096 are 2.4 epochs of ImageNet.
        ending: the rate never falls below this part of its peak (constant ending).
        decay_until: part of all steps at which the decay is over (see `recipes.schedule`).
        last_gamma: initial last gamma of each residual block.
        layerwise_widths: whether each layer, not each stage, has its own width.
        squeeze_excite: false takes squeeze-excite out of the space.
        activation: in place of the space's: "swish" (paper), "hard_swish", "relu6" or "relu".
        classes: number of classes in place of the space's.
        augment: "none", or "autoaugment" (policy v0 of arXiv 1805.09501; TFRecord data only).
        crop_padding: pixels of reflected border before the random crop.
        crop_area: least part of the image's area that a random crop with random aspect ratio takes
            (Szegedy et al. 2015); 1 leaves this crop out.
        flip: whether to mirror half of the images.
        label_offset: label of the first class in TFRecords (1 where 0 stands for background).
        calibration_images: training images for batch-norm calibration.
        front_children: children measured after training to find the family's front.
        evaluate_every, checkpoint_every: in steps.
        keep_checkpoints: how many of the last checkpoints stay.
        seed: of every random draw.
        start_from: a family (a shipped one's name, or a folder) whose weights the run starts from, in
            place of random ones; "" for none. ``NAME@SHA256`` with the first digits of its weights'
            sha256 insists on those weights. Its space must be the recipe's; a classifier of another
            number of classes starts at random.
    """

    name: str
    space: str
    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    steps: int
    holdout: float
    batch_size: int = 4096
    engine: str = "auto"
    precision: str = "float32"
    batch_norm: str = "auto"
    depthwise: str = "auto"
    branch: str = "auto"
    pack: int = 0
    program: str = "auto"
    biggest_only_steps: int = 0
    random_children: int = 2
    smallest_child: bool = True
    distillation: bool = True
    distillation_temperature: float = 1.0
    regularise: str = "biggest"
    loss_reduction: str = "sum"
    label_smoothing: float = 0.1
    weight_decay: float = 1e-5
    dropout: float = 0.2
    optimizer: str = "rmsprop"
    momentum: float = 0.9
    rho: float = 0.9
    epsilon: float = 1e-3
    learning_rate: float = 0.256
    learning_rate_batch: int = 4096
    warmup_steps: int = 0
    decay: str = "staircase"
    decay_rate: float = 0.97
    decay_every: int = 751
    ending: float = 0.05
    decay_until: float = 0.8
    last_gamma: float = 0.0
    layerwise_widths: bool = False
    squeeze_excite: bool = True
    activation: str = "space"
    classes: int = 0
    augment: str = "none"
    crop_padding: int = 0
    crop_area: float = 1.0
    flip: bool = True
    label_offset: int = 0
    calibration_images: int = 2_000
    front_children: int = 120
    evaluate_every: int = 1_000
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    seed: int = 0
    start_from: str = ""

    def __post_init__(self) -> None:
        try:
            get_space(self.space)
        except NotFoundError as error:
            raise RecipeError(f"recipe '{self.name}': space: {error}") from error
        for key, (good, allowed) in RULES.items():
            value = getattr(self, key)
            if not good(value):
                raise RecipeError(f"recipe '{self.name}': {key}: must be {allowed}, got {_short(value)}.")
        if self.biggest_only_steps > self.steps:
            raise RecipeError(f"recipe '{self.name}': biggest_only_steps: more than steps ({self.steps}).")
        try:
            space = self.search_space
        except SpaceError as error:
            raise RecipeError(f"recipe '{self.name}': {error}") from error
        if self.crop_size < space.resolutions[-1] // 2:
            raise RecipeError(
                f"recipe '{self.name}': crop_size: {self.crop_size} px would be enlarged more than twice "
                f"for the space's {space.resolutions[-1]} px."
            )

    @property
    def search_space(self) -> SearchSpace:
        """The search space itself, with the recipe's changes to it."""
        return _space(self.space, self.layerwise_widths, self.squeeze_excite, self.activation, self.classes)

    def holdout_images(self, count: int) -> int:
        """Return how many of `count` training images are held out."""
        return max(1, round(self.holdout * count)) if self.holdout < 1 else int(self.holdout)

    def to_json(self) -> dict[str, Any]:
        """Return every field, defaults included, as JSON data."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


@functools.lru_cache(maxsize=64)
def _space(name: str, layerwise: bool, squeeze_excite: bool, activation: str, classes: int) -> SearchSpace:
    return variant(
        get_space(name),
        layerwise_widths=layerwise or None,
        squeeze_excite=None if squeeze_excite else False,
        activation=None if activation == "space" else activation,
        classes=classes or None,
    )


def _above(least: float, *, inclusive: bool = False) -> tuple[Callable[[Any], bool], str]:
    if inclusive:
        return (lambda v: v >= least), f"at least {least}"
    return (lambda v: v > least), f"above {least}"


def _whole(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    return (lambda v: low <= v <= high), f"a whole number within {low:,} and {high:,}"


def _within(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return (lambda v: low <= v <= high), f"within {low} and {high}"


def _among(*options: Any) -> tuple[Callable[[Any], bool], str]:
    return (lambda v: v in options), f"one of {', '.join(map(str, options))}"


#: No count, step or seed of a recipe is beyond this.
MOST_WHOLE = 10**30
#: For each field that needs it: a test and its description.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": ((lambda v: re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", v) is not None), "lower-case letters, digits and '-'"),
    "loss_reduction": _among("sum", "mean"),
    "engine": _among("auto", "tensorflow", "jax"),
    "precision": _among("float32", "bfloat16"),
    "batch_norm": _among("auto", "fused", "two_pass", "one_pass", "lean"),
    "pack": _among(0, 1, 2, 4, 8, 16),
    "depthwise": _among("auto", "native", "shifted"),
    "branch": _among("auto", "cond", "where"),
    "program": _among("auto", "step", "child"),
    "regularise": _among("biggest", "all"),
    "optimizer": _among("rmsprop", "sgd"),
    "decay": _among("staircase", "exponential", "cosine", "linear"),
    "activation": _among("space", *ACTIVATIONS),
    "augment": _among("none", "autoaugment"),
    "mean": ((lambda v: all(-1000 <= x <= 1000 for x in v)), "three values within -1000 and 1000"),
    "std": ((lambda v: all(1e-6 <= x <= 1000 for x in v)), "three values within 1e-06 and 1000"),
    **{
        key: _above(0)
        for key in (
            "learning_rate", "learning_rate_batch", "epsilon", "evaluate_every", "checkpoint_every",
            "distillation_temperature", "decay_every", "keep_checkpoints",
        )
    },
    # Upper ends keep a slip of the finger from taking the machine's memory; real recipes are far below.
    "crop_size": _whole(4, 4096),
    "batch_size": _whole(1, 1 << 20),
    "steps": _whole(1, 10**9),
    "random_children": _whole(0, 64),
    "crop_padding": _whole(0, 1024),
    "calibration_images": _whole(64, 1_000_000),
    "front_children": _whole(8, 1_000_000),
    "holdout": (lambda v: 0 < v < 1 or (v >= 1 and v == int(v)), "a whole number, or a part between 0 and 1"),
    **{
        key: _above(0, inclusive=True)
        for key in (
            "biggest_only_steps", "weight_decay", "warmup_steps", "seed", "classes", "label_offset",
        )
    },
    **{key: _within(0, 0.999) for key in ("label_smoothing", "dropout", "momentum", "rho")},
    **{key: _within(0, 1) for key in ("ending", "last_gamma")},
    "decay_until": _within(0.01, 1),
    "crop_area": _within(0.01, 1),
    "decay_rate": _within(0.01, 1),
}  # fmt: skip


def find_recipe(recipe: str | Path) -> Path:
    """Return the path of a recipe file, or of a shipped recipe by its name.

    Raises:
        NotFoundError: neither exists.
    """
    path = Path(recipe)
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        raise NotFoundError(f"recipe '{recipe}': is a folder. Name a YAML file, or a shipped recipe.")
    shipped = {p.stem: p for p in Path(__file__).parent.glob("*.yaml")}
    name = str(recipe).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise NotFoundError(f"recipe '{recipe}': no such file, nor a shipped recipe. {nearest(name, shipped)}")


def read_recipe(path: Path, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: YAML; one mapping of `Recipe` fields.
        changes: fields in place of the file's.

    Returns:
        The recipe.

    Raises:
        LocalIOError: the file cannot be read.
        RecipeError: it is not plain YAML, has an unknown or missing key, or a value of the wrong
            type or range. Tags, anchors, aliases and merge keys are refused.
    """
    try:
        if path.stat().st_size > strict_yaml.MAX_BYTES:
            raise RecipeError(f"{path}: larger than {strict_yaml.MAX_BYTES >> 10} KiB; not a recipe.")
        text = path.read_text("utf-8")
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a text file.") from error
    return dataclasses.replace(parse_recipe(text, str(path)), **(changes or {}))


def parse_recipe(text: str, where: str = "recipe") -> Recipe:
    """Parse recipe text; see `read_recipe`."""
    data = strict_yaml.loads(text, where)
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    for key in data:
        if key not in fields:
            raise RecipeError(f"{where}: unknown key '{str(key)[:80]}'. {nearest(str(key)[:80], fields)}")
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in data]
    if missing:
        raise RecipeError(f"{where}: missing key(s) {', '.join(missing)}.")
    hints = typing.get_type_hints(Recipe)
    return Recipe(**{k: _typed(where, k, v, hints[k]) for k, v in data.items()})


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _typed(where: str, key: str, value: Any, hint: Any) -> Any:
    """Check one value against its field's type; ints pass as floats, lists become tuples."""
    if typing.get_origin(hint) is tuple:
        count = len(typing.get_args(hint))
        if isinstance(value, list) and len(value) == count:
            return tuple(_typed(where, key, v, float) for v in value)
        raise RecipeError(f"{where}: {key}: must be a list of {count} numbers, got {_short(value)}.")
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    accepted: Any = int | float if hint is float else hint
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, accepted):
        name = hint.__name__ if not isinstance(hint, types.UnionType) else str(hint)
        raise RecipeError(f"{where}: {key}: must be of type {name}, got {_short(value)}.")
    if isinstance(value, int) and hint is not float and not -MOST_WHOLE <= value <= MOST_WHOLE:
        raise RecipeError(f"{where}: {key}: must be within {MOST_WHOLE:.0e}, got {_short(value)}.")
    if hint is float:
        try:
            value = float(value)
        except OverflowError:  # a whole number beyond the largest float
            value = float("inf")
        if value != value or value in (float("inf"), float("-inf")):
            raise RecipeError(f"{where}: {key}: must be a finite number, got {_short(value)}.")
    return value
