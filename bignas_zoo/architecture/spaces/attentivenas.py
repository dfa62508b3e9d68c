"""The search space of AttentiveNAS and AlphaNet, and the networks the two papers publish.

Reference: AttentiveNAS (Wang et al. 2021, arXiv 2011.09011), Table 7; AlphaNet (Wang et al. 2021, arXiv 2102.07954);
configurations of github.com/facebookresearch/AttentiveNAS and github.com/facebookresearch/AlphaNet (code and weights
CC BY-NC 4.0; what follows are facts about them). One width, kernel and expansion serves a whole stage.
"""

from __future__ import annotations

from bignas_zoo.architecture.forms import Head, Shortcut, SqueezeExcite
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.stage import StageSpace

#: Hidden channels are a quarter of the expanded ones (BigNAS: of the block's input), by MobileNet's rounding.
_SE = SqueezeExcite(
    divisor=4, source="expanded", rounding=8, activation="relu", gate="hard_sigmoid", make_divisible=True
)


def _stage(
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    stride: int,
    expansions: tuple[int, ...],
    squeeze_excite: SqueezeExcite | None,
) -> StageSpace:
    return StageSpace(widths, depths, (3, 5), stride, expansions, squeeze_excite, stagewise_kernels=True)


ATTENTIVENAS = SearchSpace(
    name="attentivenas",
    source="AttentiveNAS, arXiv 2011.09011, Table 7",
    classes=1000,
    resolutions=(192, 224, 256, 288),
    stem_widths=(16, 24),
    stages=(
        _stage((16, 24), (1, 2), 1, (1,), None),
        _stage((24, 32), (3, 4, 5), 2, (4, 5, 6), None),
        _stage((32, 40), (3, 4, 5, 6), 2, (4, 5, 6), _SE),
        _stage((64, 72), (3, 4, 5, 6), 2, (4, 5, 6), None),
        _stage((112, 120, 128), (3, 4, 5, 6, 7, 8), 1, (4, 5, 6), _SE),  # 120: in every released configuration
        _stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), 2, (6,), _SE),
        _stage((216, 224), (1, 2), 1, (6,), _SE),
    ),
    head_widths=(1792, 1984),
    bn_epsilon=1e-5,
    # Each block has a shortcut; a pool over a map of odd size counts the padding's zeros, as PyTorch's does.
    shortcut=Shortcut("project_changed", "average_padded"),
    padding="symmetric",
    head=Head("pooled", expansion=6),
    bn_variance="sample",
)


def _model(resolution: int, widths: str, depths: str, kernels: str, expansions: str) -> ChildSpec:
    """Read one configuration: widths of stem, seven stages and head; the others of the seven stages."""
    lists = [[int(number) for number in text.split()] for text in (widths, depths, kernels, expansions)]
    return ATTENTIVENAS.spec(
        resolution=resolution, widths=lists[0], depths=lists[1], kernels=lists[2], expansions=lists[3]
    )


#: A5 differs: AttentiveNAS's is `a5`, AlphaNet's are `alphanet-a5-small` and `alphanet-a5-base`.
PAPER_MODELS: dict[str, ChildSpec] = {
    "a0": _model(192, "16 16 24 32 64 112 192 216 1792", "1 3 3 3 3 3 1", "3 3 3 3 3 3 3", "1 4 4 4 4 6 6"),
    "a1": _model(224, "16 16 24 32 64 112 192 216 1984", "1 3 3 3 3 3 1", "3 3 3 5 3 5 3", "1 4 4 4 4 6 6"),
    "a2": _model(224, "16 16 24 32 64 112 200 224 1984", "1 3 3 3 3 4 1", "3 3 3 3 3 5 3", "1 4 5 4 4 6 6"),
    "a3": _model(224, "16 16 24 32 64 112 208 224 1984", "2 3 3 4 3 5 1", "3 3 3 5 3 3 3", "1 4 4 4 4 6 6"),
    "a4": _model(256, "16 16 24 32 64 112 192 216 1984", "1 3 3 4 3 5 1", "3 3 3 5 3 5 3", "1 4 4 5 4 6 6"),
    "a5": _model(256, "16 16 24 32 72 112 192 216 1792", "1 3 3 3 4 6 1", "3 3 3 5 3 3 3", "1 4 5 4 4 6 6"),
    "alphanet-a5-small": _model(
        256, "16 16 24 32 64 112 208 216 1984", "1 3 3 4 4 5 1", "3 3 3 3 3 5 3", "1 4 4 5 4 6 6"
    ),
    "alphanet-a5-base": _model(
        288, "16 16 24 32 64 112 200 216 1984", "2 3 4 3 3 5 1", "3 3 5 5 3 3 3", "1 4 4 4 5 6 6"
    ),
    "a6": _model(288, "16 16 24 32 64 112 216 224 1984", "1 3 3 4 4 6 1", "3 3 3 3 3 5 3", "1 4 6 5 4 6 6"),
}
