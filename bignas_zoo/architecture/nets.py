"""Published mobile nets that are no children of one space, block by block: those of timm's EfficientNet builder.

A net is one line: its blocks in the notation of `_block`, stages between slashes. MACs and parameters of each are
compared with timm's own network in the tests.

Reference: github.com/huggingface/pytorch-image-models (Apache-2.0), timm 1.0.31; each net's paper is named there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.forms import SqueezeExcite
from bignas_zoo.architecture.network import BlockList
from bignas_zoo.errors import NotFoundError, SpaceError, nearest

CLASSES = 1000
#: Squeeze-excite of MobileNetV3, of FBNetV3, of MnasNet and of EfficientNet.
MOBILENET = SqueezeExcite(4, "expanded", 8, "relu", "hard_sigmoid", make_divisible=True)
FBNET = SqueezeExcite(4, "input", 8, "hard_swish", "hard_sigmoid", make_divisible=True)
MNASNET = SqueezeExcite(4, "input", 1, "relu", "sigmoid")
EFFICIENTNET = SqueezeExcite(4, "input", 1, "swish", "sigmoid")
ACTIVATIONS = {"hsw": "hard_swish"}
BLOCK = re.compile(
    r"(?P<only>d?)(?P<kernel>\d)(?P<halves>v?):(?P<mid>\d+)>(?P<out>\d+)(?P<sum>\+?)(!(?P<hidden>\d+))?(\*(?P<times>\d+))?"
)


@dataclass(frozen=True)
class Net:
    """A net as it is written down.

    Attributes:
        stem: channels of the first convolution.
        head: channels of the last one; of MobileNetV3's head those of its convolution and of its dense layer.
        activation: of stem and head.
        resolution: input size in pixels that it is for.
        blocks: its stages, see `_block`; ``[ACTIVATION]`` after a stage is of that stage and those that follow.
        squeeze_excite: the form where a block has one.
        head_bias: whether the dense layer of MobileNetV3's head has a bias.
    """

    stem: int
    head: tuple[int, ...]
    activation: str
    resolution: int
    blocks: str
    squeeze_excite: SqueezeExcite | None = None
    head_bias: bool = False


NETS = {
    "mobilenetv2_100": Net(
        32,
        (1280,),
        "relu6",
        224,
        "d3:32>16 [relu6] / 3v:96>24 3:144>24+ / 3v:144>32 3:192>32+*2 / 3v:192>64 3:384>64+*3 / 3:384>96 "
        "3:576>96+*2 / 3v:576>160 3:960>160+*2 / 3:960>320",
    ),
    "mobilenetv3_small_050": Net(
        16,
        (288, 1024),
        "hard_swish",
        224,
        "d3v:16>8!8 [relu] / 3v:40>16 3:56>16+ / 5v:64>24!16 5:144>24+!40*2 [hsw] / 5:72>24+!24*2 / 5v:144>48!40 "
        "5:288>48+!72*2",
        MOBILENET,
        head_bias=True,
    ),
    "mobilenetv3_small_075": Net(
        16,
        (432, 1024),
        "hard_swish",
        224,
        "d3v:16>16!8 [relu] / 3v:72>24 3:88>24+ / 5v:96>32!24 5:192>32+!48*2 [hsw] / 5:96>40!24 5:120>40+!32 / "
        "5v:240>72!64 5:432>72+!112*2",
        MOBILENET,
        head_bias=True,
    ),
    "mobilenetv3_small_100": Net(
        16,
        (576, 1024),
        "hard_swish",
        224,
        "d3v:16>16!8 [relu] / 3v:72>24 3:88>24+ / 5v:96>40!24 5:240>40+!64*2 [hsw] / 5:120>48!32 5:144>48+!40 / "
        "5v:288>96!72 5:576>96+!144*2",
        MOBILENET,
        head_bias=True,
    ),
    "mobilenetv3_large_100": Net(
        16,
        (960, 1280),
        "hard_swish",
        224,
        "d3:16>16+ [relu] / 3v:64>24 3:72>24+ / 5v:72>40!24 5:120>40+!32*2 / 3v:240>80 3:200>80+ 3:184>80+*2 "
        "[hsw] / 3:480>112!120 3:672>112+!168 / 5v:672>160!168 5:960>160+!240*2",
        MOBILENET,
        head_bias=True,
    ),
    "hardcorenas_a": Net(
        32,
        (960, 1280),
        "hard_swish",
        224,
        "d3:32>16 [relu] / 5v:48>24 5:72>24+!24 / 5v:72>40 5:240>40+!64 / 5v:240>80!64 5:480>80+!120 [hsw] / "
        "5:480>112!120 5:672>112+!168 / 5v:672>192!168 5:1152>192+!288",
        MOBILENET,
        head_bias=True,
    ),
    "hardcorenas_b": Net(
        32,
        (960, 1280),
        "hard_swish",
        224,
        "d3:32>16 [relu] / 5v:48>24 5:72>24+!24 3:72>24+ / 5v:72>40 5:120>40+*2 / 5v:120>80 5:240>80+ 3:240>80+*2 "
        "[hsw] / 5:240>112 3:336>112+*3 / 5v:672>192!168 5:1152>192+!288 3:576>192+!144",
        MOBILENET,
        head_bias=True,
    ),
    "hardcorenas_c": Net(
        32,
        (960, 1280),
        "hard_swish",
        224,
        "d3:32>16 [relu] / 5v:48>24 5:72>24+!24 / 5v:72>40 5:120>40+*3 / 5v:160>80 5:480>80+!120 3:240>80+*2 "
        "[hsw] / 5:480>112!120 3:336>112+*3 / 5v:672>192!168 5:1152>192+!288 3:576>192+!144",
        MOBILENET,
        head_bias=True,
    ),
    "hardcorenas_d": Net(
        32,
        (960, 1280),
        "hard_swish",
        224,
        "d3:32>16 [relu] / 5v:48>24!16 5:72>24+!24 / 5v:72>40!24 5:160>40+!40 3:120>40+!32 / 5v:160>80!40 "
        "3:240>80+!64*3 [hsw] / 3:320>112!80 5:448>112+!112 3:336>112+!88 5:336>112+!88 / 5v:672>192!168 "
        "5:1152>192+!288*2 3:1152>192+!288",
        MOBILENET,
        head_bias=True,
    ),
    "hardcorenas_e": Net(
        32,
        (960, 1280),
        "hard_swish",
        224,
        "d3:32>16 [relu] / 5v:48>24!16 5:72>24+!24 / 5v:144>40!40 5:160>40+!40*2 3:120>40+!32 / 5v:160>80!40 "
        "3:480>80+!120 [hsw] / 5:480>112!120 5:672>112+!168*2 5:336>112+!88 / 5v:672>192!168 5:1152>192+!288*2 "
        "3:1152>192+!288",
        MOBILENET,
        head_bias=True,
    ),
    "hardcorenas_f": Net(
        32,
        (960, 1280),
        "hard_swish",
        224,
        "d3:32>16 [relu] / 5v:48>24!16 5:72>24+!24 / 5v:144>40!40 5:240>40+!64 / 5v:240>80!64 5:480>80+!120 "
        "3:240>80+!64*2 [hsw] / 3:480>112!120 5:672>112+!168*2 3:336>112+!88 / 5v:672>192!168 5:1152>192+!288 "
        "3:1152>192+!288*2",
        MOBILENET,
        head_bias=True,
    ),
    "mnasnet_100": Net(
        32,
        (1280,),
        "relu",
        224,
        "d3:32>16 [relu] / 3v:48>24 3:72>24+*2 / 5v:72>40 5:120>40+*2 / 5v:240>80 5:480>80+*2 / 3:480>96 "
        "3:576>96+ / 5v:576>192 5:1152>192+*3 / 3:1152>320",
    ),
    "semnasnet_100": Net(
        32,
        (1280,),
        "relu",
        224,
        "d3:32>16 [relu] / 3v:96>24 3:144>24+ / 5v:72>40!6 5:120>40+!10*2 / 3v:240>80 3:480>80+*3 / 3:480>112!20 "
        "3:672>112+!28 / 5v:672>160!28 5:960>160+!40*2 / 3:960>320",
        MNASNET,
    ),
    "fbnetc_100": Net(
        16,
        (1984,),
        "relu",
        224,
        "3:16>16+ [relu] / 3v:96>24 3:24>24+*2 / 5v:144>32 5:96>32+ 5:192>32+ 3:192>32+ / 5v:192>64 5:192>64+ "
        "5:384>64+*2 / 5:384>112 5:672>112+*2 5:336>112+ / 5v:672>184 5:1104>184+*3 / 3:1104>352",
    ),
    "fbnetv3_b": Net(
        16,
        (1344, 1984),
        "hard_swish",
        224,
        "d3:16>16+*2 [hsw] / 5v:64>24 5:48>24+*3 / 5v:120>40!8 5:120>40+!16*4 / 5v:200>72 3:216>72+*4 / "
        "3:360>120!24 5:360>120+!32*5 / 3v:720>184!32 5:736>184+!48*5 5:1104>224!48",
        FBNET,
    ),
    "fbnetv3_d": Net(
        24,
        (1440, 1984),
        "hard_swish",
        224,
        "d3:24>16 d3:16>16+ [hsw] / 3v:80>24 3:48>24+*5 / 5v:96>40!8 3:120>40+!16*4 / 3v:200>72 3:216>72+*4 / "
        "3:360>128!24 5:384>128+!32*6 / 3v:768>208!32 5:1040>208+!56*5 5:1248>240!56",
        FBNET,
    ),
    "efficientnet_b0": Net(
        32,
        (1280,),
        "swish",
        224,
        "d3:32>16!8 [swish] / 3v:96>24!4 3:144>24+!6 / 5v:144>40!6 5:240>40+!10 / 3v:240>80!10 3:480>80+!20*2 / "
        "5:480>112!20 5:672>112+!28*2 / 5v:672>192!28 5:1152>192+!48*3 / 3:1152>320!48",
        EFFICIENTNET,
    ),
    "efficientnet_b1": Net(
        32,
        (1280,),
        "swish",
        240,
        "d3:32>16!8 d3:16>16+!4 [swish] / 3v:96>24!4 3:144>24+!6*2 / 5v:144>40!6 5:240>40+!10*2 / 3v:240>80!10 "
        "3:480>80+!20*3 / 5:480>112!20 5:672>112+!28*3 / 5v:672>192!28 5:1152>192+!48*4 / 3:1152>320!48 "
        "3:1920>320+!80",
        EFFICIENTNET,
    ),
    "tf_efficientnet_lite0": Net(
        32,
        (1280,),
        "relu6",
        224,
        "d3:32>16 [relu6] / 3v:96>24 3:144>24+ / 5v:144>40 5:240>40+ / 3v:240>80 3:480>80+*2 / 5:480>112 "
        "5:672>112+*2 / 5v:672>192 5:1152>192+*3 / 3:1152>320",
    ),
    "tf_efficientnet_lite1": Net(
        32,
        (1280,),
        "relu6",
        240,
        "d3:32>16 [relu6] / 3v:96>24 3:144>24+*2 / 5v:144>40 5:240>40+*2 / 3v:240>80 3:480>80+*3 / 5:480>112 "
        "5:672>112+*3 / 5v:672>192 5:1152>192+*4 / 3:1152>320",
    ),
    "tf_efficientnet_lite2": Net(
        32,
        (1280,),
        "relu6",
        260,
        "d3:32>16 [relu6] / 3v:96>24 3:144>24+*2 / 5v:144>48 5:288>48+*2 / 3v:288>88 3:528>88+*3 / 5:528>120 "
        "5:720>120+*3 / 5v:720>208 5:1248>208+*4 / 3:1248>352",
    ),
    "spnasnet_100": Net(
        32,
        (1280,),
        "relu",
        224,
        "d3:32>16 [relu] / 3v:48>24 3:72>24+*2 / 5v:144>40 3:120>40+*3 / 5v:240>80 3:240>80+*3 / 5:480>96 "
        "5:288>96+*3 / 5v:576>192 5:1152>192+*3 / 3:1152>320",
    ),
}
#: The same with TensorFlow's padding and its batch norms' epsilon.
OF_TENSORFLOW = ("efficientnet_b0", "efficientnet_b1", "mobilenetv3_large_100", "mobilenetv3_small_100")


def names() -> tuple[str, ...]:
    """Return what nets are called, in timm's words."""
    return (*NETS, *(f"tf_{name}" for name in OF_TENSORFLOW))


def net(name: str, resolution: int | None = None) -> BlockList:
    """Return a published net.

    Args:
        name: one of `names`.
        resolution: input size in pixels; default: the net's own.

    Raises:
        NotFoundError: no such net.
    """
    if name not in names():
        raise NotFoundError(f"net '{name}': not known. {nearest(name, names())}")
    row = NETS.get(name) or NETS[name.removeprefix("tf_")]
    of_tensorflow = name.startswith("tf_")
    padding = "same" if of_tensorflow else "symmetric"
    size = resolution or row.resolution
    stem = Block("stem", "stem", size, -(-size // 2), 3, 3, row.stem, 3, 2, activation=row.activation, padding=padding)
    blocks = [stem]
    for number, (text, activation) in enumerate(_stages(row.blocks)):
        layer = 0
        for word in text.split():
            parsed = BLOCK.fullmatch(word)
            if parsed is None:
                raise SpaceError(f"net '{name}': '{word}' is no block.")
            for _ in range(int(parsed["times"] or 1)):
                blocks.append(_block(parsed, blocks[-1], (number, layer), row, activation, padding))
                layer += 1
    blocks += _ends(row, blocks[-1])
    return BlockList(name.replace("_", "-"), size, CLASSES, tuple(blocks), 1e-3 if of_tensorflow else 1e-5)


def _stages(text: str) -> Iterator[tuple[str, str]]:
    """Give each stage's blocks and its activation."""
    activation = ""
    for stage in text.split(" / "):
        blocks, _, given = stage.partition(" [")
        activation = given.rstrip("]") or activation
        yield blocks, ACTIVATIONS.get(activation, activation)


def _block(
    parsed: re.Match[str], before: Block, place: tuple[int, int], row: Net, activation: str, padding: str
) -> Block:
    """Return the block of a word.

    ``3v:96>24+!8*2`` is a depthwise kernel of 3 pixels, stride 2 (``v``), 96 expanded channels to 24, with an identity
    shortcut (``+``) and 8 hidden channels of a squeeze-excite (``!8``), twice; ``d`` in front: without an expansion.
    """
    cin, mid = before.cout, int(parsed["mid"])
    if parsed["only"] and mid != cin:
        raise SpaceError(f"block '{parsed[0]}': takes {cin} channels.")
    form = row.squeeze_excite if parsed["hidden"] else None
    if form and form.hidden(cin, mid) != int(parsed["hidden"]):
        raise SpaceError(f"block '{parsed[0]}': {form.hidden(cin, mid)} hidden channels by its form.")
    stride, (stage, layer) = 2 if parsed["halves"] else 1, place
    return Block(
        kind="mbconv",
        name=f"stage{stage + 1}.layer{layer + 1}",
        size_in=before.size_out,
        size_out=-(-before.size_out // stride),
        cin=cin,
        mid=mid,
        cout=int(parsed["out"]),
        kernel=int(parsed["kernel"]),
        stride=stride,
        stage=stage,
        layer=layer,
        expands=not parsed["only"],
        shortcut="identity" if parsed["sum"] else "none",
        squeeze_excite=form,
        activation=activation,
        padding=padding,
    )


def _ends(row: Net, last: Block) -> list[Block]:
    """Return the head and the classifier."""
    size, cin, *mid, cout = last.size_out, last.cout, *row.head
    if mid:
        head = Block(
            "pooled_head", "head", size, size, cin, mid[0], cout,
            expands=True, activation=row.activation, bias=row.head_bias,
        )  # fmt: skip
    else:
        head = Block("head", "head", size, size, cin, cin, cout, activation=row.activation)
    return [head, Block("classifier", "classifier", 1, 1, cout, cout, CLASSES, activation="softmax")]
