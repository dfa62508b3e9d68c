"""Variants of a search space: one knob turned, everything else as published.

A variant has a name of its own, made from the space's: ``bignas+hard-swish``,
``bignas-cifar10+layerwise+37-classes``. Families carry their whole space, so a variant needs no
entry in `SPACES`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bignas_zoo.architecture.forms import SqueezeExcite
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace


def variant(
    space: SearchSpace,
    *,
    layerwise_widths: bool | None = None,
    squeeze_excite: bool | None = None,
    activation: str | None = None,
    classes: int | None = None,
) -> SearchSpace:
    """Return a space with some knobs turned; None leaves a knob as it is.

    Args:
        space: the space to start from.
        layerwise_widths: whether each layer has a width of its own, or one serves a whole stage.
        squeeze_excite: False removes it from every stage; True puts the form of BigNAS (a quarter of
            the block input) where there is none.
        activation: of the whole network. A squeeze-excite that shares the space's activation follows;
            with "hard_swish" its sigmoid gate becomes a hard sigmoid as well, as in MobileNetV3
            (Howard et al. 2019, section 5.2).
        classes: number of output classes.

    Returns:
        The variant, its name and source telling what was changed; `space` itself if nothing was.

    Raises:
        SpaceError: there is no such activation, or there are fewer than two classes.
    """
    changed, parts = space, []
    if layerwise_widths is not None and any(s.layerwise_widths != layerwise_widths for s in space.stages):
        stages = (replace(s, layerwise_widths=layerwise_widths) for s in space.stages)
        changed = replace(changed, stages=tuple(stages))
        parts.append("layerwise" if layerwise_widths else "stagewise")
    if squeeze_excite is not None and any((s.squeeze_excite is None) == squeeze_excite for s in space.stages):
        changed = replace(changed, stages=tuple(_with_squeeze_excite(changed, squeeze_excite)))
        parts.append("se" if squeeze_excite else "no-se")
    if activation is not None and activation != space.activation:
        changed = _with_activation(changed, activation)
        parts.append(activation.replace("_", "-"))
    if classes is not None and classes != space.classes:
        changed = replace(changed, classes=classes)
        parts.append(f"{classes}-classes")
    if not parts:
        return space
    return replace(changed, name="+".join([space.name, *parts]), source=f"{space.source}; changed: {', '.join(parts)}")


def _with_squeeze_excite(space: SearchSpace, wanted: bool) -> Iterable[StageSpace]:
    form = _following(SqueezeExcite(activation="swish"), "swish", space.activation) if wanted else None
    return (replace(s, squeeze_excite=s.squeeze_excite or form if wanted else None) for s in space.stages)


def _with_activation(space: SearchSpace, activation: str) -> SearchSpace:
    changed = replace(space, activation=activation)  # first, so that a wrong name is refused here
    stages = (
        replace(s, squeeze_excite=s.squeeze_excite and _following(s.squeeze_excite, space.activation, activation))
        for s in space.stages
    )
    return replace(changed, stages=tuple(stages))


def _following(form: SqueezeExcite, old: str, new: str) -> SqueezeExcite:
    """Return a squeeze-excite that goes along with a change of the network's activation."""
    if form.activation != old:
        return form
    return replace(form, activation=new, gate="hard_sigmoid" if new == "hard_swish" else form.gate)
