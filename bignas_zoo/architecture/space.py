"""Search spaces and the children in them, as plain validated data.

`SearchSpace` says which choices exist, `ChildSpec` is one point among them. Both are frozen, hold
no tensors, and go to JSON and back byte for byte. Every block and head form the package can build
is a *value* (here and in `forms`), so that another published space is another table in
`bignas_zoo.architecture.spaces` and not another class.

Reference: BigNAS (Yu et al. 2020, arXiv 2003.11142), section 4.1 and Table 1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bignas_zoo.architecture.checks import MOST_STAGES, ascending, at_least, multiples, one_of, option
from bignas_zoo.architecture.choices import LAYERED, Choice, Place, check_choices, choices_of, values_of
from bignas_zoo.architecture.forms import (
    ACTIVATIONS,
    BN_VARIANCES,
    KERNEL_SHARING,
    LATER,
    PADDINGS,
    Head,
    Shortcut,
    SqueezeExcite,
    to_json,
)
from bignas_zoo.architecture.stage import StageSpace, StageSpec
from bignas_zoo.errors import SpaceError

USUAL_SHORTCUT, USUAL_HEAD = Shortcut(), Head()


@dataclass(frozen=True)
class SearchSpace:
    """A family of networks that share one set of weights.

    Attributes:
        name: unique short name, e.g. ``bignas``.
        source: where it is published, or how it was chosen.
        classes: number of output classes.
        resolutions: input sizes in pixels seen in training, ascending.
        unseen_resolutions: further sizes that may be deployed.
        stem_widths, head_widths: channels of the first and the last convolution.
        stages: the MBConv stages in order.
        stem_stride: 1 or 2.
        activation: after stem, expansion, depthwise and head convolutions.
        bn_epsilon: of every batch norm.
        shortcut: of the layers of all stages.
        padding: "same" (TensorFlow's: even maps are padded less in front where the stride is 2) or "symmetric"
            (PyTorch's: half a kernel on each side).
        head: its form; without one, `head_widths` is ``(0,)``.
        kernel_sharing: what a smaller depthwise kernel is of a shared one: "centre", its centre; or "transformed", its
            centre times a matrix of the layer's own, size after size (Once-for-all's: 7 to 5 to 3 pixels).
        bn_variance: which variance a calibrated batch norm keeps: "population", or "sample" (times n / (n - 1) for n
            pixels in all, as PyTorch's batch norm does).
    """

    name: str
    source: str
    classes: int
    resolutions: tuple[int, ...]
    stem_widths: tuple[int, ...]
    head_widths: tuple[int, ...]
    stages: tuple[StageSpace, ...]
    unseen_resolutions: tuple[int, ...] = ()
    stem_stride: int = 2
    activation: str = "swish"
    bn_epsilon: float = 1e-3
    shortcut: Shortcut = field(default=USUAL_SHORTCUT, metadata=LATER)
    padding: str = field(default="same", metadata=LATER)
    head: Head = field(default=USUAL_HEAD, metadata=LATER)
    kernel_sharing: str = field(default="centre", metadata=LATER)
    bn_variance: str = field(default="population", metadata=LATER)

    def __post_init__(self) -> None:
        for what in ("resolutions", "stem_widths"):
            ascending(what, getattr(self, what))
        if self.head.form != "none":
            ascending("head_widths", self.head_widths)
        elif self.head_widths != (0,):
            raise SpaceError(f"head_widths: must be (0,) without a head, got {self.head_widths}.")
        if self.unseen_resolutions != ():
            ascending("unseen_resolutions", self.unseen_resolutions)
        multiples("stem_widths", self.stem_widths)
        multiples("head_widths", self.head_widths)
        one_of("stem_stride", self.stem_stride, (1, 2))
        one_of("activation", self.activation, ACTIVATIONS)
        one_of("padding", self.padding, PADDINGS)
        one_of("kernel_sharing", self.kernel_sharing, KERNEL_SHARING)
        one_of("bn_variance", self.bn_variance, BN_VARIANCES)
        at_least("classes", self.classes, 2)
        if not isinstance(self.bn_epsilon, float) or not 0 < self.bn_epsilon < 1:
            raise SpaceError(f"bn_epsilon: must be a number between 0 and 1, got {self.bn_epsilon!r}.")
        if not self.stages:
            raise SpaceError(f"space '{self.name}': needs at least one stage.")
        if len(self.stages) > MOST_STAGES:
            raise SpaceError(f"space '{self.name}': may have {MOST_STAGES} stages, got {len(self.stages)}.")

    @property
    def all_resolutions(self) -> tuple[int, ...]:
        """Every input size a child may have, ascending."""
        return tuple(sorted({*self.resolutions, *self.unseen_resolutions}))

    @property
    def most_features(self) -> int:
        """The most channels that the classifier may take."""
        return self.head_widths[-1] or self.stages[-1].widths[-1]

    @functools.cached_property
    def biggest(self) -> ChildSpec:
        """The child with the upper bound of every choice: it uses every weight."""
        return self._corner(-1)

    @functools.cached_property
    def smallest(self) -> ChildSpec:
        """The child with the lower bound of every choice."""
        return self._corner(0)

    @functools.cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Every choice there is, from the input to the logits."""
        return tuple(choices_of(self))

    def child(self, values: Mapping[Place, int]) -> ChildSpec:
        """Build the child of one value for each choice.

        Args:
            values: place of a choice to its value; those of absent layers are not read and may be left out.

        Raises:
            SpaceError: a choice has no value or one that is not in the space.
        """
        try:
            stages = tuple(self._stage(i, values) for i in range(len(self.stages)))
            resolution, stem, head = (values[name, -1, -1] for name in ("resolution", "stem width", "head width"))
        except KeyError as error:
            raise SpaceError(f"space '{self.name}': no value for the choice {error}.") from None
        return ChildSpec(self, resolution, stem, stages, head)

    def _stage(self, i: int, values: Mapping[Place, int]) -> StageSpec:
        allowed, depth = self.stages[i], values["depth", i, -1]
        option(f"stage {i + 1}: depth", depth, allowed.depths, f"is not in space '{self.name}'")
        layers = {
            f"{name}s": tuple([values[name, i, j] for j in range(depth)])
            if allowed.layerwise(name)
            else (values[name, i, -1],) * depth
            for name in LAYERED
        }
        return StageSpec(depth, **layers)

    def _corner(self, end: int) -> ChildSpec:
        return self.child({c.place: c.options[end] for c in self.choices})

    def spec(
        self,
        *,
        resolution: int,
        depths: Sequence[int],
        widths: Sequence[int | Sequence[int]],
        kernels: Sequence[int | Sequence[int]],
        expansions: Sequence[int | Sequence[int]] | None = None,
        stem_width: int | None = None,
        head_width: int | None = None,
    ) -> ChildSpec:
        """Build and validate one child.

        Args:
            resolution: input size in pixels.
            depths: layers of each stage.
            widths: channels of ``stem, each stage, head``; or of the stages alone, the stem and the
                head then being `stem_width` and `head_width` (default: the smallest allowed). A
                stage takes one number, or one a layer.
            kernels: for each stage one size, or one size a layer.
            expansions: for each stage one, or one a layer; may be left out where every stage allows only one.

        Returns:
            The child.

        Raises:
            SpaceError: a list has the wrong length or a value is not in the space.
        """
        n = len(self.stages)
        stage_widths: list[Any] = list(widths)
        if len(stage_widths) == n + 2:
            if stem_width is not None or head_width is not None:
                raise SpaceError(
                    f"widths: {n + 2} values already hold the stem and the head; leave out stem_width and head_width."
                )
            stem_width, *stage_widths, head_width = stage_widths
        else:
            stem_width = self.stem_widths[0] if stem_width is None else stem_width
            head_width = self.head_widths[0] if head_width is None else head_width
        if expansions is None:
            if any(len(s.expansions) > 1 for s in self.stages):
                raise SpaceError(f"expansions: space '{self.name}' leaves a choice, so give one a stage.")
            expansions = [s.expansions[0] for s in self.stages]
        for what, values, lengths in (
            ("depths", depths, f"{n} (one a stage)"),
            ("widths", stage_widths, f"{n} (one a stage) or {n + 2} (stem, stages, head)"),
            ("kernels", kernels, f"{n} (one a stage)"),
            ("expansions", expansions, f"{n} (one a stage)"),
        ):
            if len(values) != n:
                raise SpaceError(f"{what}: space '{self.name}' needs {lengths} values, got {len(values)}.")
        for i, (depth, stage) in enumerate(zip(depths, self.stages, strict=True), start=1):
            option(f"stage {i}: depth", depth, stage.depths, f"is not in space '{self.name}'")
        stages = tuple(
            StageSpec(d, _layers(w, d), _layers(k, d), _layers(e, d))
            for d, w, k, e in zip(depths, stage_widths, kernels, expansions, strict=True)
        )
        return ChildSpec(self, resolution, stem_width, stages, head_width)

    def to_json(self) -> dict[str, Any]:
        """Return the space as JSON-ready data; `SearchSpace.from_json` reverses it."""
        data: dict[str, Any] = to_json(self)
        return data

    @staticmethod
    def from_json(data: Any) -> SearchSpace:
        """Rebuild a space from `to_json` data.

        Raises:
            SpaceError: a key is missing or unknown, or a value is not allowed.
        """
        try:
            fields = _tuples(data)
            known = dataclasses.fields(SearchSpace)
            missing = {f.name for f in known if "later" not in f.metadata} - fields.keys()
            if missing:
                raise TypeError(f"lacks {', '.join(sorted(missing))}")
            if len(fields["stages"]) > MOST_STAGES:
                raise TypeError(f"{len(fields['stages']):,} stages")
            stages = tuple(
                StageSpace(
                    **{
                        **stage,
                        "squeeze_excite": SqueezeExcite(**stage["squeeze_excite"]) if stage["squeeze_excite"] else None,
                    }
                )
                for stage in fields.pop("stages")
            )
            forms = {key: form(**fields.pop(key)) for key, form in FORMS.items() if key in fields}
            return SearchSpace(**fields, **forms, stages=stages)
        except (TypeError, KeyError, AttributeError) as error:
            raise SpaceError(f"search space: not a valid description ({error}).") from error


#: Fields that are dataclasses of their own.
FORMS: dict[str, Callable[..., Any]] = {"shortcut": Shortcut, "head": Head}


@dataclass(frozen=True)
class ChildSpec:
    """One network of a search space, as data.

    Attributes:
        space: the search space it belongs to.
        resolution: input size in pixels.
        stem_width, head_width: channels of the first and last convolution.
        stages: one `StageSpec` a stage.
    """

    space: SearchSpace = field(repr=False)
    resolution: int
    stem_width: int
    stages: tuple[StageSpec, ...]
    head_width: int

    @property
    def model_name(self) -> str:
        """What a model of it is called."""
        return f"{self.space.name}_child"

    @property
    def classes(self) -> int:
        """Number of output classes."""
        return self.space.classes

    @property
    def bn_epsilon(self) -> float:
        """What every batch norm adds to its variance."""
        return self.space.bn_epsilon

    @property
    def bn_variance(self) -> str:
        """Which variance calibration keeps, see `SearchSpace`."""
        return self.space.bn_variance

    def __post_init__(self) -> None:
        space = self.space
        if len(self.stages) != len(space.stages):
            raise SpaceError(f"stages: space '{space.name}' has {len(space.stages)}, got {len(self.stages)}.")
        check_choices(self)

    @functools.cached_property
    def values(self) -> Mapping[Place, int]:
        """Place of each choice of the space to the value it has here; absent layers repeat the last one's."""
        return values_of(self)

    def to_json(self) -> dict[str, Any]:
        """Return the child as JSON-ready data; the space goes by its name."""
        stages = list(zip(self.stages, self.space.stages, strict=True))

        def given(name: str) -> list[int | list[int]]:
            values = ((getattr(stage, f"{name}s"), allowed.layerwise(name)) for stage, allowed in stages)
            return [list(each) if layerwise else each[-1] for each, layerwise in values]

        data: dict[str, Any] = {
            "space": self.space.name,
            "resolution": self.resolution,
            "depths": [s.depth for s in self.stages],
            "widths": [self.stem_width, *given("width"), self.head_width],
            "kernels": given("kernel"),
        }
        if any(len(allowed.expansions) > 1 for allowed in self.space.stages):
            data["expansions"] = given("expansion")
        return data

    @staticmethod
    def from_json(data: Any, space: SearchSpace) -> ChildSpec:
        """Rebuild a child from `to_json` data.

        Raises:
            SpaceError: the data names another space, lacks or adds a key, or leaves the space.
        """
        if not isinstance(data, dict) or data.get("space") != space.name:
            raise SpaceError(f"child: not a description of a child of space '{space.name}'.")
        try:
            return space.spec(**{k: v for k, v in data.items() if k != "space"})
        except TypeError as error:
            raise SpaceError(f"child: not a valid description ({error}).") from error


def _tuples(value: Any) -> Any:
    """Turn lists into tuples all the way down; dicts become new dicts."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value


def _layers(value: Any, depth: int) -> tuple[Any, ...]:
    """Return a stage's choice layer by layer: given so, or one for all."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * depth
