"""Once-for-all's MobileNetV3 spaces, at width multipliers 1.0 and 1.2.

Reference: Once-for-All (Cai et al. 2020, arXiv 1908.09791), section 4.1; github.com/mit-han-lab/once-for-all (MIT).
Widths are fixed; each layer has a kernel and an expansion of its own. Smaller kernels are the centres of larger ones,
times a matrix of the layer's own (section 3.3).
"""

from __future__ import annotations

from bignas_zoo.architecture.forms import Head, Shortcut, SqueezeExcite
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace

_SE = SqueezeExcite(
    divisor=4, source="expanded", rounding=8, activation="relu", gate="hard_sigmoid", make_divisible=True
)


def _stage(width: int, stride: int, activation: str, squeeze_excite: SqueezeExcite | None) -> StageSpace:
    return StageSpace(
        (width,), (2, 3, 4), (3, 5, 7), stride, (3, 4, 6), squeeze_excite,
        layerwise_expansions=True, activation=activation,
    )  # fmt: skip


def _space(name: str, multiplier: str, stem: int, widths: tuple[int, ...], head: int) -> SearchSpace:
    first, second, third, fourth, fifth = widths
    return SearchSpace(
        name=name,
        source=f"Once-for-All, arXiv 1908.09791, MobileNetV3 of width {multiplier}",
        classes=1000,
        resolutions=tuple(range(128, 225, 4)),
        unseen_resolutions=(228, 236, 240, 260),  # of the published specialised networks
        stem_widths=(stem,),
        stages=(
            StageSpace((stem,), (1,), (3,), 1, (1,), None, activation="relu"),
            _stage(first, 2, "relu", None),
            _stage(second, 2, "relu", _SE),
            _stage(third, 2, "hard_swish", None),
            _stage(fourth, 1, "hard_swish", _SE),
            _stage(fifth, 2, "hard_swish", _SE),
        ),
        head_widths=(head,),
        activation="hard_swish",
        bn_epsilon=1e-5,
        shortcut=Shortcut("identity_unchanged"),
        padding="symmetric",
        head=Head("pooled", expansion=6),
        kernel_sharing="transformed",
    )


ONCE_FOR_ALL = _space("once-for-all", "1.0", 16, (24, 40, 80, 112, 160), 1280)
ONCE_FOR_ALL_WIDE = _space("once-for-all-w1.2", "1.2", 24, (32, 48, 96, 136, 192), 1536)
