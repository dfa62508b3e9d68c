"""MACs, parameters and memory against the paper, and against a second calculator written here."""

from __future__ import annotations

import math

import pytest
from conftest import LAYERWISE, TINY

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.forms import SqueezeExcite
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import variant
from bignas_zoo.architecture.spaces.bignas import BIGNAS, PAPER_MODELS
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10
from bignas_zoo.architecture.stage import StageSpace

#: Published: MMACs and million parameters (BigNAS Table 2 and the ICLR submission's section 4.4).
PUBLISHED = {
    "bignas-s": (242, 4.5),
    "bignas-m": (418, 5.5),
    "bignas-l": (659, 6.7),
    "bignas-xl": (1040, 9.5),
}


class Tally:
    """Counts of a network, filled layer by layer."""

    def __init__(self) -> None:
        self.macs = self.weights = self.biases = self.normalised = 0

    def conv(self, size: int, cin: int, cout: int, kernel: int = 1, *, groups: int = 1, norm: bool = True) -> None:
        per_pixel = kernel * kernel * (cin // groups) * cout
        self.macs += per_pixel * size * size
        self.weights += per_pixel
        self.normalised += cout if norm else 0

    def dense(self, cin: int, cout: int) -> None:
        self.macs += cin * cout
        self.weights += cin * cout
        self.biases += cout

    @property
    def parameters(self) -> int:
        gamma_beta_mean_variance = 4 * self.normalised
        return self.weights + self.biases + gamma_beta_mean_variance

    @property
    def folded(self) -> int:
        return self.weights + self.biases + self.normalised


def tally(child: ChildSpec) -> Tally:
    space, result = child.space, Tally()
    pixels = math.ceil(child.resolution / space.stem_stride)
    result.conv(pixels, 3, child.stem_width, 3)
    channels = child.stem_width
    for chosen, allowed in zip(child.stages, space.stages, strict=True):
        for layer in range(chosen.depth):
            before, block_input = pixels, channels
            inner = block_input * chosen.expansion
            if allowed.expansions != (1,):
                result.conv(before, block_input, inner)
            if layer == 0 and allowed.stride == 2:
                pixels = (pixels + 1) // 2
            result.conv(pixels, inner, inner, chosen.kernels[layer], groups=inner)
            gate = allowed.squeeze_excite
            if gate is not None:
                hidden = math.floor({"input": block_input, "expanded": inner}[gate.source] / gate.divisor)
                if gate.rounding > 1:
                    hidden = gate.rounding * math.floor(hidden / gate.rounding + 0.5)
                result.dense(inner, hidden)
                result.dense(hidden, inner)
            result.conv(pixels, inner, chosen.widths[layer])
            if layer == 0:
                result.conv(pixels, block_input, chosen.widths[0], norm=False)
            channels = chosen.widths[layer]
    result.conv(pixels, channels, child.head_width)
    result.dense(child.head_width, space.classes)
    return result


@pytest.mark.parametrize(
    ("name", "mmacs", "parameters"),
    [
        ("bignas-s", 241.949, 4_518_116),
        ("bignas-m", 417.557, 5_534_028),
        ("bignas-l", 658.536, 6_739_900),
        ("bignas-xl", 1036.682, 9_462_992),
    ],
)
def test_the_papers_models(name: str, mmacs: float, parameters: int) -> None:
    model = PAPER_MODELS[name]
    assert round(cost.macs(model) / 1e6, 3) == mmacs
    assert cost.parameters(model) == parameters
    published_mmacs, published_parameters = PUBLISHED[name]
    assert float(f"{cost.macs(model) / 1e6:.3g}") == published_mmacs
    assert round(cost.parameters(model) / 1e6, 1) == published_parameters


@pytest.mark.parametrize(
    ("child", "mmacs", "parameters"),
    [(BIGNAS.smallest, 217.633, 3_871_412), (BIGNAS.biggest, 1891.543, 11_097_830)],
    ids=["smallest", "biggest"],
)
def test_the_ends_of_the_papers_space(child: ChildSpec, mmacs: float, parameters: int) -> None:
    assert round(cost.macs(child) / 1e6, 3) == mmacs
    assert cost.parameters(child) == parameters


@pytest.mark.parametrize("space", [BIGNAS, TINY, BIGNAS_CIFAR10, LAYERWISE], ids=lambda s: s.name)
def test_random_children_against_the_second_calculator(space: SearchSpace) -> None:
    for n in range(200):
        size = space.all_resolutions[n % len(space.all_resolutions)]
        child = uniform_child(space, ("cost", n), size)
        expected = tally(child)
        assert cost.macs(child) == expected.macs
        assert cost.parameters(child) == expected.parameters
        assert cost.weight_bytes(child) == 4 * expected.folded


@pytest.mark.parametrize("child", [*PAPER_MODELS.values(), BIGNAS_CIFAR10.biggest, TINY.smallest])
def test_weight_bytes_drop_three_of_four_batch_norm_vectors(child: ChildSpec) -> None:
    assert cost.weight_bytes(child) == 4 * (cost.parameters(child) - 3 * tally(child).normalised)


@pytest.mark.parametrize(
    ("resolution", "sizes"),
    [
        (192, [96, 96, 48, 24, 12, 12, 6, 6]),
        (208, [104, 104, 52, 26, 13, 13, 7, 7]),
        (240, [120, 120, 60, 30, 15, 15, 8, 8]),
        (272, [136, 136, 68, 34, 17, 17, 9, 9]),
        (304, [152, 152, 76, 38, 19, 19, 10, 10]),
        (336, [168, 168, 84, 42, 21, 21, 11, 11]),
    ],
)
def test_map_sizes_round_up(resolution: int, sizes: list[int]) -> None:
    child = BIGNAS.spec(
        resolution=resolution,
        widths=[16, 24, 40, 80, 112, 192, 320],
        depths=[1, 2, 2, 2, 2, 2, 1],
        kernels=[3] * 7,
    )
    last_of_stage = {block.stage: block.size_out for block in plan(child) if block.kind in ("stem", "mbconv")}
    assert [last_of_stage[i] for i in range(-1, 7)] == sizes


@pytest.mark.parametrize("space", [BIGNAS, variant(BIGNAS, layerwise_widths=True)], ids=lambda s: s.name)
def test_blocks_of_a_plan_join_up(space: SearchSpace) -> None:
    for n in range(50):
        child = uniform_child(space, ("join", n))
        *body, classifier = plan(child)
        assert [b.cin for b in body[1:]] == [b.cout for b in body[:-1]]
        assert [b.size_in for b in body[1:]] == [b.size_out for b in body[:-1]]
        assert (classifier.cin, classifier.cout) == (body[-1].cout, 1000)
        assert len(body) == sum(s.depth for s in child.stages) + 2
        names = [op.name for op in cost.ops(child)]
        assert len(set(names)) == len(names)


def test_only_the_first_layer_of_a_stage_projects_its_shortcut() -> None:
    blocks = [b for b in plan(PAPER_MODELS["bignas-xl"]) if b.kind == "mbconv"]
    assert [b.shortcut == "project" for b in blocks] == [b.layer == 0 for b in blocks]
    assert [b.stride for b in blocks if b.layer == 0] == [1, 2, 2, 2, 1, 2, 1]
    assert {b.stride for b in blocks if b.layer > 0} == {1}


def one_stage(*, expansion: int, stem_stride: int, stem: int, stage: int, head: int) -> ChildSpec:
    space = SearchSpace(
        name="one-stage",
        source="tests",
        classes=2,
        resolutions=(8,),
        stem_widths=(stem,),
        stem_stride=stem_stride,
        stages=(
            StageSpace(
                widths=(stage,),
                depths=(1,),
                kernels=(3,),
                stride=1,
                expansions=(expansion,),
                squeeze_excite=None,
            ),
        ),
        head_widths=(head,),
    )
    return space.smallest


def test_counts_of_a_small_network_by_hand() -> None:
    child = one_stage(expansion=2, stem_stride=2, stem=8, stage=8, head=16)
    stem = 4 * 4 * 27 * 8
    block = 4 * 4 * (8 * 16 + 9 * 16 + 16 * 8 + 8 * 8)  # expand, depthwise, project, shortcut
    head = 4 * 4 * 8 * 16
    classifier = 16 * 2
    assert cost.macs(child) == stem + block + head + classifier == 3456 + 7424 + 2048 + 32
    weights = 216 + (128 + 144 + 128 + 64) + 128 + 32
    batch_norms = 4 * (8 + 16 + 16 + 8 + 16)
    assert cost.parameters(child) == weights + batch_norms + 2


def test_counts_with_layerwise_widths_by_hand() -> None:
    # One stage of three layers, 8 -> 16 -> 16 -> 8 channels on a 4x4 map: the first shortcut projects,
    # the second is the identity, the third cuts 16 channels to 8; both cost nothing.
    stage = StageSpace(
        widths=(8, 16), depths=(3,), kernels=(3,), stride=1, expansions=(2,), squeeze_excite=SqueezeExcite(divisor=2),
        layerwise_widths=True,
    )  # fmt: skip
    space = SearchSpace(
        name="hand", source="tests", classes=2, resolutions=(8,), stem_widths=(8,), stages=(stage,), head_widths=(16,)
    )
    child = space.spec(resolution=8, depths=[3], widths=[8, [16, 16, 8], 16], kernels=[3])
    stem = 16 * 27 * 8
    first = 16 * (8 * 16 + 9 * 16 + 16 * 16 + 8 * 16) + 2 * 16 * 4  # expand, depthwise, project, shortcut; gate
    second = 16 * (16 * 32 + 9 * 32 + 32 * 16) + 2 * 32 * 8
    third = 16 * (16 * 32 + 9 * 32 + 32 * 8) + 2 * 32 * 8
    head = 16 * 8 * 16
    assert cost.macs(child) == stem + first + second + third + head + 16 * 2 == 55_072
    weights = 27 * 8 + (128 + 144 + 256 + 128 + 128) + (512 + 288 + 512 + 512) + (512 + 288 + 256 + 512) + 128 + 32
    biases = (4 + 16) + 2 * (8 + 32) + 2
    batch_norms = 4 * (8 + (16 + 16 + 16) + (32 + 32 + 16) + (32 + 32 + 8) + 16)
    assert cost.parameters(child) == weights + biases + batch_norms == 4552 + 102 + 896
    assert [(b.shortcut, b.cin, b.cout) for b in plan(child) if b.kind == "mbconv"] == [
        ("project", 8, 16),
        ("identity", 16, 16),
        ("identity", 16, 8),
    ]


def test_peak_activations_by_hand_with_expansion() -> None:
    child = one_stage(expansion=2, stem_stride=2, stem=8, stage=8, head=16)
    block_input, expanded, out = 4 * 4 * 8, 4 * 4 * 16, 4 * 4 * 8
    moments = {
        "stem": 8 * 8 * 3 + block_input,
        "expand": block_input + expanded,
        "depthwise": expanded + expanded + block_input,
        "project": expanded + out + block_input,
        "head": out + 4 * 4 * 16,
    }
    assert max(moments, key=lambda k: moments[k]) == "depthwise"
    assert cost.peak_activation_bytes(child) == 4 * moments["depthwise"] == 2560


def test_peak_activations_by_hand_without_expansion() -> None:
    child = one_stage(expansion=1, stem_stride=1, stem=16, stage=8, head=8)
    block_input, out = 8 * 8 * 16, 8 * 8 * 8
    moments = {
        "stem": 8 * 8 * 3 + block_input,
        "depthwise": block_input + block_input,
        "project": block_input + out + block_input,  # the depthwise output, and the input for the shortcut
        "head": out + 8 * 8 * 8,
    }
    assert max(moments, key=lambda k: moments[k]) == "project"
    assert cost.peak_activation_bytes(child) == 4 * moments["project"] == 10_240


def test_peak_activations_grow_with_the_input() -> None:
    peaks = [cost.peak_activation_bytes(uniform_child(BIGNAS, ("peak",), size)) for size in BIGNAS.all_resolutions]
    assert peaks == sorted(set(peaks))
