"""The BigNAS search space and the four models of the paper.

Reference: BigNAS (Yu et al. 2020), Table 1 (ranges), Figure 9 and section 4.4 of the ICLR
submission (the four models), Table 2 (MACs, parameters, accuracy). Widths are the multiples of 8
in each printed range. Strides, the squeeze-excite on a quarter of the block *input*, and the
placement of the shortcut's pooling before its 1x1 convolution are not spelled out in the text;
they are the only reading that reproduces all published MACs and parameter counts at once.
"""

from __future__ import annotations

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.stage import StageSpace

BIGNAS = SearchSpace(
    name="bignas",
    source="BigNAS, arXiv 2003.11142, Table 1",
    classes=1000,
    resolutions=(192, 224, 288, 320),
    unseen_resolutions=(208, 240, 256, 272, 304, 336),
    stem_widths=(32, 40),
    stages=(
        StageSpace(widths=(16, 24), depths=(1, 2), kernels=(3,), stride=1, expansions=(1,)),
        StageSpace(widths=(24, 32), depths=(2, 3), kernels=(3,), stride=2),
        StageSpace(widths=(40, 48), depths=(2, 3), kernels=(3, 5), stride=2),
        StageSpace(widths=(80, 88), depths=(2, 3, 4), kernels=(3, 5), stride=2),
        StageSpace(widths=(112, 120, 128), depths=(2, 3, 4, 5, 6), kernels=(3, 5), stride=1),
        StageSpace(widths=(192, 200, 208, 216), depths=(2, 3, 4, 5, 6), kernels=(3, 5), stride=2),
        StageSpace(widths=(320, 328, 336, 344, 352), depths=(1, 2), kernels=(3, 5), stride=1),
    ),
    head_widths=tuple(range(1280, 1409, 8)),
)


def _model(resolution: int, widths: str, depths: str, kernels: str) -> ChildSpec:
    """Read one column of Figure 9: widths of stem, seven stages and head; depths; kernels."""
    return BIGNAS.spec(
        resolution=resolution,
        widths=[int(w) for w in widths.split()],
        depths=[int(d) for d in depths.split()],
        kernels=[int(k) for k in kernels.split()],
    )


#: Figure 9 of the ICLR submission. `bignas-l` is the model that text calls "@660M"; the 586-MFLOP
#: "L" of the later ECCV version was never published as text and cannot be rebuilt.
PAPER_MODELS: dict[str, ChildSpec] = {
    "bignas-s": _model(192, "32 16 24 40 80 112 192 320 1280", "1 2 2 2 2 3 1", "3 3 5 3 5 5 3"),
    "bignas-m": _model(224, "32 16 24 40 80 112 192 320 1280", "1 2 2 2 4 4 1", "3 3 5 3 5 5 3"),
    "bignas-l": _model(256, "32 16 24 48 88 128 216 352 1408", "1 2 2 2 4 4 1", "3 3 5 3 5 5 3"),
    "bignas-xl": _model(288, "32 16 24 40 80 112 216 352 1408", "2 2 3 3 5 5 2", "3 3 5 3 5 5 5"),
}

#: ImageNet top-1 accuracy in percent as the paper prints it (its Table 2); not ours.
PAPER_TOP1: dict[str, float] = {"bignas-s": 76.5, "bignas-m": 78.9, "bignas-l": 79.6, "bignas-xl": 80.9}
