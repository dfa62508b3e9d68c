"""The Expanded Search Space of Network Space Search, and ResNet-20, a point in it.

Reference: Network Space Search (Hong et al. 2021, arXiv 2104.11014), supplement: a 3x3 stem of 16 channels, three
stages of up to 16 basic blocks of up to 512 channels, a global average and a dense layer. Not stated there, and taken
from ResNet for CIFAR (He et al. 2016, arXiv 1512.03385, section 4.2): strides, and shortcuts without weights (option
A). The paper's widths are all whole numbers from 1; here they are multiples of 8, as everywhere in this package.
"""

from __future__ import annotations

from bignas_zoo.architecture.forms import Head, Shortcut
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace


def _stage(stride: int) -> StageSpace:
    return StageSpace(
        widths=tuple(range(8, 513, 8)), depths=tuple(range(1, 17)), kernels=(3,), stride=stride, expansions=(1,),
        squeeze_excite=None, block="basic",
    )  # fmt: skip


NSS = SearchSpace(
    name="nss",
    source="Network Space Search, arXiv 2104.11014, supplement",
    classes=10,
    resolutions=(32,),
    stem_widths=(16,),
    stem_stride=1,
    stages=(_stage(1), _stage(2), _stage(2)),
    head_widths=(0,),
    activation="relu",
    bn_epsilon=1e-5,
    shortcut=Shortcut("identity", "subsample"),
    padding="symmetric",
    head=Head("none"),
)

#: Of He et al. 2016, section 4.2, n = 3.
RESNET20 = NSS.spec(resolution=32, depths=[3, 3, 3], widths=[16, 32, 64], kernels=[3, 3, 3])
