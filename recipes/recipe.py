"""Recipes: strict YAML to a frozen dataclass; every field checked, none guessed.

Defaults are the paper's wherever the paper states a value (BigNAS, arXiv 2003.11142, section 4.1
and appendix). The resolved recipe, defaults included, is stored with every checkpoint and family.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.forms import ACTIVATIONS
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces import get_space, variant
from bignas_zoo.errors import LocalIOError, NotFoundError, RecipeError, SpaceError, nearest
from bignas_zoo.recipes import strict_yaml
from bignas_zoo.recipes.methods import METHODS
from bignas_zoo.recipes.methods.method import Settings
from bignas_zoo.recipes.methods.sandwich import Sandwich
from bignas_zoo.recipes.rules import Rule, above, among, check, short, typed, whole, within

#: The method of a recipe that names none: the paper's, and all there was in version 0.1.0.
UNNAMED = Sandwich()


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
        method: how a step trains, with the method's own fields: the section ``method:`` of a recipe,
            ``name`` among them (see `bignas_zoo.recipes.methods`). Fields of the sandwich that stand beside
            the others are read as well: so wrote version 0.1.0, and so `to_json` stores that method.
        label_smoothing: of the labels.
        weight_decay: L2 factor on kernels.
        dropout: before the classifier.
        optimizer: "rmsprop" (paper), "sgd" (Nesterov) or "adamw" (its weight decay is decoupled, not in the loss).
        momentum, rho, epsilon: of the optimizer; rho and epsilon for RMSProp; rho is AdamW's second moment's.
        clip: largest norm of all gradients together; 0 leaves them as they are.
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
    method: Settings = UNNAMED
    label_smoothing: float = 0.1
    weight_decay: float = 1e-5
    dropout: float = 0.2
    optimizer: str = "rmsprop"
    momentum: float = 0.9
    rho: float = 0.9
    epsilon: float = 1e-3
    clip: float = 0.0
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
        check(f"recipe '{self.name}': ", self, RULES)
        check(f"recipe '{self.name}': ", self.method, self.method.rules)
        if problem := self.method.problem(self.steps):
            raise RecipeError(f"recipe '{self.name}': {problem}")
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

    def with_fields(self, **changes: Any) -> Recipe:
        """Return the recipe with other values of its own or its method's fields, by their names."""
        own = {f.name for f in dataclasses.fields(self.method)}
        method = dataclasses.replace(self.method, **{k: v for k, v in changes.items() if k in own})
        return dataclasses.replace(self, **{"method": method, **{k: v for k, v in changes.items() if k not in own}})

    def to_json(self) -> dict[str, Any]:
        """Return every field, defaults included, as JSON data; those of the sandwich as 0.1.0 wrote them."""
        data: dict[str, Any] = {}
        for key, value in dataclasses.asdict(self).items():
            if key == "method":
                value = _without_later(self.method, value)
                data |= value if self.method.name == UNNAMED.name else {key: {"name": self.method.name, **value}}
            elif key in LATER and value == FIELDS[key].default:
                continue
            else:
                data[key] = list(value) if isinstance(value, tuple) else value
        return data


def _without_later(method: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out fields that an earlier version's method did not have, where they are the default."""
    later, usual = getattr(method, "later", ()), {f.name: f.default for f in dataclasses.fields(method)}
    return {key: value for key, value in values.items() if not (key in later and value == usual[key])}


@functools.lru_cache(maxsize=64)
def _space(name: str, layerwise: bool, squeeze_excite: bool, activation: str, classes: int) -> SearchSpace:
    return variant(
        get_space(name),
        layerwise_widths=layerwise or None,
        squeeze_excite=None if squeeze_excite else False,
        activation=None if activation == "space" else activation,
        classes=classes or None,
    )


#: Fields that version 0.1.0 did not have: stored where they are not the default, so that its runs go on.
LATER = ("clip",)
#: For each field that needs it: a test and its description.
RULES: dict[str, Rule] = {
    "name": ((lambda v: re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", v) is not None), "lower-case letters, digits and '-'"),
    "engine": among("auto", "tensorflow", "jax"),
    "precision": among("float32", "bfloat16"),
    "batch_norm": among("auto", "fused", "two_pass", "one_pass", "lean"),
    "pack": among(0, 1, 2, 4, 8, 16),
    "depthwise": among("auto", "native", "shifted"),
    "branch": among("auto", "cond", "where"),
    "program": among("auto", "step", "child"),
    "optimizer": among("rmsprop", "sgd", "adamw"),
    "decay": among("staircase", "exponential", "cosine", "linear"),
    "activation": among("space", *ACTIVATIONS),
    "augment": among("none", "autoaugment"),
    "mean": ((lambda v: all(-1000 <= x <= 1000 for x in v)), "three values within -1000 and 1000"),
    "std": ((lambda v: all(1e-6 <= x <= 1000 for x in v)), "three values within 1e-06 and 1000"),
    **{
        key: above(0)
        for key in (
            "learning_rate", "learning_rate_batch", "epsilon", "evaluate_every", "checkpoint_every",
            "decay_every", "keep_checkpoints",
        )
    },
    # Upper ends keep a slip of the finger from taking the machine's memory; real recipes are far below.
    "crop_size": whole(4, 4096),
    "batch_size": whole(1, 1 << 20),
    "steps": whole(1, 10**9),
    "crop_padding": whole(0, 1024),
    "calibration_images": whole(64, 1_000_000),
    "front_children": whole(8, 1_000_000),
    "holdout": (lambda v: 0 < v < 1 or (v >= 1 and v == int(v)), "a whole number, or a part between 0 and 1"),
    **{
        key: above(0, inclusive=True)
        for key in (
            "weight_decay", "warmup_steps", "seed", "classes", "label_offset", "clip",
        )
    },
    **{key: within(0, 0.999) for key in ("label_smoothing", "dropout", "momentum", "rho")},
    **{key: within(0, 1) for key in ("ending", "last_gamma")},
    "decay_until": within(0.01, 1),
    "crop_area": within(0.01, 1),
    "decay_rate": within(0.01, 1),
}  # fmt: skip


def find_recipe(recipe: str | Path) -> Path:
    """Return the path of a recipe file, or of a shipped recipe by its name.

    Raises:
        NotFoundError: neither exists.
    """
    path = Path(recipe)
    if os.path.isfile(path):
        return path
    shipped = {p.stem: p for p in Path(__file__).parent.glob("*.yaml")}
    name = str(recipe).removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    if os.path.isdir(path):
        raise NotFoundError(f"recipe '{recipe}': is a folder. Name a YAML file, or a shipped recipe.")
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
    return parse_recipe(text, str(path)).with_fields(**(changes or {}))


def parse_recipe(text: str, where: str = "recipe") -> Recipe:
    """Parse recipe text; see `read_recipe`."""
    data = strict_yaml.loads(text, where)
    general, method = _sections(data, where)
    missing = [n for n, f in FIELDS.items() if f.default is dataclasses.MISSING and n not in general]
    if missing:
        raise RecipeError(f"{where}: missing key(s) {', '.join(missing)}.")
    hints = typing.get_type_hints(Recipe)
    return Recipe(method=method, **{k: typed(where, k, v, hints[k]) for k, v in general.items()})


def _sections(data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Settings]:
    """Part the fields of a recipe from its method's, which may stand beside them if they are the sandwich's."""
    own = {f.name for f in dataclasses.fields(UNNAMED)}
    known = {*FIELDS, *own}
    for key in data:
        if key not in known:
            raise RecipeError(f"{where}: unknown key '{str(key)[:80]}'. {nearest(str(key)[:80], known)}")
    beside = {k: v for k, v in data.items() if k in own}
    general = {k: v for k, v in data.items() if k not in own and k != "method"}
    if "method" not in data:
        return general, _settings(UNNAMED.name, beside, where, "")
    if beside:
        raise RecipeError(
            f"{where}: {', '.join(beside)}: stand beside a section 'method'. Put fields of '{UNNAMED.name}' into it."
        )
    return general, _method(data["method"], where)


def _method(section: Any, where: str) -> Settings:
    """Read the section ``method:``: a name alone, or a mapping with a name and fields of that method."""
    fields = {"name": section} if isinstance(section, str) else section
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise RecipeError(f"{where}: method: must be a name, or a mapping with a name, got {short(section)}.")
    name = fields["name"]
    if name not in METHODS:
        raise RecipeError(f"{where}: method: unknown method '{name[:80]}'. {nearest(name[:80], METHODS)}")
    return _settings(name, {k: v for k, v in fields.items() if k != "name"}, where, "method.")


def _settings(name: str, fields: Mapping[str, Any], where: str, prefix: str) -> Settings:
    """Return a method's settings; a field that it does not have is an error."""
    settings = METHODS[name].settings
    hints = typing.get_type_hints(settings)
    known = [f.name for f in dataclasses.fields(settings)]
    for key in fields:
        if key not in known:
            raise RecipeError(
                f"{where}: method: '{name}' has no field '{str(key)[:80]}'. {nearest(str(key)[:80], known)}"
            )
    return settings(**{k: typed(where, f"{prefix}{k}", v, hints[k]) for k, v in fields.items()})


FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}
