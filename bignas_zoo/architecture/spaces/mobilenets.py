"""MobileNetV2 and MnasNet-A1 at their published widths: single networks, of which phones' latencies are published.

References: MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), Table 2; MnasNet (Tan et al. 2019, arXiv 1807.11626),
Figure 7. Widths are rounded as in github.com/tensorflow/models and github.com/tensorflow/tpu; a head is never narrower
than at width 1, and MnasNet's is never scaled.
"""

from __future__ import annotations

from bignas_zoo.architecture.forms import Shortcut, SqueezeExcite
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace

#: Width, layers, stride and expansion of each stage.
_V2 = ((16, 1, 1, 1), (24, 2, 2, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6))
#: And kernel size and squeeze-excite.
_A1 = (
    (16, 1, 1, 1, 3, False),
    (24, 2, 2, 6, 3, False),
    (40, 3, 2, 3, 5, True),
    (80, 4, 2, 6, 3, False),
    (112, 2, 1, 6, 3, True),
    (160, 3, 2, 6, 5, True),
    (320, 1, 1, 6, 3, False),
)
_STEM, _HEAD = 32, 1280
_SIZES = (96, 128, 160, 192, 224)


def _scaled(width: int, multiplier: float) -> int:
    """Return a width in multiples of 8, the nearest that is not less than nine tenths."""
    rounded = max(8, int(width * multiplier + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width * multiplier else rounded


def _space(name: str, source: str, multiplier: float, head: int, activation: str, *stages: StageSpace) -> SearchSpace:
    return SearchSpace(
        name=f"{name}-{multiplier}",
        source=source,
        classes=1000,
        resolutions=(224,),
        unseen_resolutions=_SIZES[:-1],
        stem_widths=(_scaled(_STEM, multiplier),),
        stages=stages,
        head_widths=(head,),
        activation=activation,
        shortcut=Shortcut("identity_unchanged"),
    )


def _mobilenet_v2(multiplier: float) -> SearchSpace:
    stages = (
        StageSpace((_scaled(width, multiplier),), (depth,), (3,), stride, (expansion,), squeeze_excite=None)
        for width, depth, stride, expansion in _V2
    )
    head = _scaled(_HEAD, max(1.0, multiplier))
    return _space("mobilenet-v2", "MobileNetV2, arXiv 1801.04381, Table 2", multiplier, head, "relu6", *stages)


def _mnasnet_a1(multiplier: float) -> SearchSpace:
    squeeze_excite = SqueezeExcite(activation="relu")
    stages = (
        StageSpace(
            (_scaled(width, multiplier),),
            (depth,),
            (kernel,),
            stride,
            (expansion,),
            squeeze_excite if squeezes else None,
        )
        for width, depth, stride, expansion, kernel, squeezes in _A1
    )
    return _space("mnasnet-a1", "MnasNet-A1, arXiv 1807.11626, Figure 7", multiplier, _HEAD, "relu", *stages)


MOBILENET_V2 = tuple(map(_mobilenet_v2, (0.35, 0.5, 1.0, 1.3, 1.4)))
MNASNET_A1 = tuple(map(_mnasnet_a1, (0.35, 0.5, 0.75, 1.0, 1.4)))
