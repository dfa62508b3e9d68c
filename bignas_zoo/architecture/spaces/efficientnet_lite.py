"""EfficientNet-Lite 0 to 2, and 4: networks trained one by one, so that only the resolution is a choice.

Reference: EfficientNet (Tan and Le 2019, arXiv 1905.11946), Table 1, and
github.com/tensorflow/tpu, models/official/efficientnet/lite (Apache-2.0): no squeeze-excite, ReLU6, stem and head not
scaled. Published as 407, 631 and 899 million "MAdds", which count more than the multiply-adds of convolutions.
"""

from __future__ import annotations

from bignas_zoo.architecture.forms import Shortcut
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace

_KERNELS = (3, 3, 5, 3, 5, 5, 3)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)


def _space(number: int, resolution: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> SearchSpace:
    rows = zip(widths, depths, _KERNELS, _STRIDES, strict=True)
    return SearchSpace(
        name=f"efficientnet-lite{number}",
        source="EfficientNet-Lite, github.com/tensorflow/tpu, models/official/efficientnet/lite",
        classes=1000,
        resolutions=(resolution,),
        unseen_resolutions=tuple(size for size in (128, 144, 160, 176, 192, 208, 224, 240, 260) if size != resolution),
        stem_widths=(32,),
        stages=tuple(
            StageSpace((width,), (depth,), (kernel,), stride, (6,) if i else (1,), squeeze_excite=None)
            for i, (width, depth, kernel, stride) in enumerate(rows)
        ),
        head_widths=(1280,),
        activation="relu6",
        shortcut=Shortcut("identity_unchanged"),
    )


EFFICIENTNET_LITE0 = _space(0, 224, (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1))
EFFICIENTNET_LITE1 = _space(1, 240, (16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1))
EFFICIENTNET_LITE2 = _space(2, 260, (16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1))
EFFICIENTNET_LITE4 = _space(4, 300, (24, 32, 56, 112, 160, 272, 448), (1, 4, 4, 6, 6, 8, 1))
