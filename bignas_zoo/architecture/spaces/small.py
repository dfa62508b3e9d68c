"""Search spaces for small images, chosen for this project (no paper)."""

from __future__ import annotations

import dataclasses

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace

#: CIFAR-10 at 32 px, trainable on two CPU cores. The blocks are BigNAS's (squeeze-excite on a
#: quarter of the input, swish, projection shortcuts); expansion 3 and 4, early downsampling and 5x5
#: kernels only on small maps, because training time on a CPU goes by activations, not by MACs.
BIGNAS_CIFAR10 = SearchSpace(
    name="bignas-cifar10",
    source="this project: BigNAS blocks scaled to 32 px images and CPU training",
    classes=10,
    resolutions=(20, 24, 28, 32),
    unseen_resolutions=(22, 26, 30),
    stem_widths=(16,),
    stem_stride=1,
    stages=(
        StageSpace(widths=(16,), depths=(1,), kernels=(3,), stride=2, expansions=(1,)),
        StageSpace(widths=(24,), depths=(1, 2), kernels=(3,), stride=1, expansions=(3,)),
        StageSpace(widths=(40, 48), depths=(1, 2), kernels=(3,), stride=2, expansions=(4,)),
        StageSpace(widths=(64, 72), depths=(1, 2, 3), kernels=(3, 5), stride=1, expansions=(4,)),
        StageSpace(widths=(96, 104, 112), depths=(1, 2), kernels=(3, 5), stride=2, expansions=(4,)),
    ),
    head_widths=(192, 224, 256),
)

#: Photographs at 40 to 64 px on two CPU cores: the network of `BIGNAS_CIFAR10` behind a strided stem.
BIGNAS_PHOTO = dataclasses.replace(
    BIGNAS_CIFAR10,
    name="bignas-photo",
    source="this project: bignas-cifar10 with a strided stem, for photographs and CPU training",
    resolutions=(40, 48, 56, 64),
    unseen_resolutions=(44, 52, 60),
    stem_stride=2,
)

#: CIFAR-10 on one GPU: the biggest child has ten times the MACs of the CPU space's.
BIGNAS_CIFAR10_LARGE = SearchSpace(
    name="bignas-cifar10-large",
    source="this project: BigNAS blocks scaled to 32 px images and one GPU",
    classes=10,
    resolutions=(24, 28, 30, 32),
    unseen_resolutions=(26,),
    stem_widths=(24, 32),
    stem_stride=1,
    stages=(
        StageSpace(widths=(16, 24), depths=(1, 2), kernels=(3,), stride=1, expansions=(1,)),
        StageSpace(widths=(32, 40), depths=(2, 3), kernels=(3,), stride=2, expansions=(4, 6)),
        StageSpace(widths=(64, 72, 80), depths=(2, 3, 4), kernels=(3, 5), stride=1, expansions=(4, 6)),
        StageSpace(widths=(112, 120, 128), depths=(2, 3, 4), kernels=(3, 5), stride=2, expansions=(4, 6)),
        StageSpace(widths=(160, 176, 192), depths=(1, 2), kernels=(3, 5), stride=1, expansions=(4, 6)),
    ),
    head_widths=(512, 640, 768),
)

#: A few million MACs, for trials and ablations: a sandwich step on CIFAR-10 takes a fraction of a second of
#: one CPU core.
BIGNAS_MICRO = SearchSpace(
    name="bignas-micro",
    source="this project: the least that has every elastic dimension of BigNAS",
    classes=10,
    resolutions=(16, 18, 20, 24),
    stem_widths=(8, 16),
    stem_stride=1,
    stages=(
        StageSpace(widths=(8, 16), depths=(1,), kernels=(3,), stride=2, expansions=(1,)),
        StageSpace(widths=(16, 24), depths=(1, 2), kernels=(3,), stride=1, expansions=(3,)),
        StageSpace(widths=(32, 40), depths=(1, 2), kernels=(3, 5), stride=2, expansions=(4,)),
        StageSpace(widths=(56, 64), depths=(1, 2), kernels=(3, 5), stride=2, expansions=(4,)),
    ),
    head_widths=(96, 128),
)
