"""The space of one's own photographs: EfficientNet-Lite0, and what can be left out of it.

Its biggest child is EfficientNet-Lite0 at 160 pixels, so that training starts from weights that know ImageNet. A cut of
depth or of the input costs least before any training (the pilot in docs/photos.md), so these are offered
first; expansions and widths are for what is smaller than the whole net at 64 pixels.
"""

from __future__ import annotations

from bignas_zoo.architecture.forms import Shortcut
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace

#: A row a stage: widths, depths, kernel, stride, expansions. The last of each is EfficientNet-Lite0's.
_STAGES = (
    ((16,), (1,), 3, 1, (1,)),
    ((24,), (1, 2), 3, 2, (4, 6)),
    ((32, 40), (1, 2), 5, 2, (4, 6)),
    ((64, 80), (2, 3), 3, 2, (4, 6)),
    ((96, 112), (2, 3), 5, 1, (4, 6)),
    ((160, 192), (3, 4), 5, 2, (4, 6)),
    ((256, 320), (1,), 3, 1, (4, 6)),
)

PHOTOS = SearchSpace(
    name="photos",
    source="EfficientNet-Lite0 (github.com/tensorflow/tpu, models/official/efficientnet/lite), made elastic here",
    classes=1000,
    resolutions=(64, 80, 96, 112, 128, 160),
    unseen_resolutions=(144, 192),
    stem_widths=(32,),
    stages=tuple(
        StageSpace(widths, depths, (kernel,), stride, expansions, squeeze_excite=None)
        for widths, depths, kernel, stride, expansions in _STAGES
    ),
    head_widths=(1280,),
    activation="relu6",
    shortcut=Shortcut("identity_unchanged"),
)
