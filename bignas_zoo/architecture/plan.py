"""The one walk over a network: from a child spec to its blocks and their operations.

Everything that needs to know what a network consists of reads `plan`: MACs and parameters (`cost`), the supernet, the
plain Keras child, slicing, latency tables, cards and drawings. Channels and map sizes are decided here and nowhere
else.

Accounting (it reproduces all published figures of the BigNAS models, see `bignas_zoo.architecture.spaces.bignas`):
"SAME" padding, output size = ceil(input / stride); squeeze-excite after the depthwise activation;
at the first layer of each stage the shortcut is a 2x2 average pool if the stride is 2, then a
bias-free 1x1 convolution without batch norm; on the other layers the identity, which costs nothing.
With layer-wise widths the identity may meet another width: channels are then cut off, or zeros
appended, which costs nothing either.
"""

from __future__ import annotations

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.network import BlockList, Network
from bignas_zoo.architecture.space import ChildSpec


def plan(network: Network) -> tuple[Block, ...]:
    """Walk a network from the input to the logits.

    Args:
        network: a child, whose space gives everything that is not a choice; or a list of blocks.

    Returns:
        Its blocks in order: stem, the blocks of each stage, head, classifier.
    """
    return network.blocks if isinstance(network, BlockList) else _child(network)


def _child(spec: ChildSpec) -> tuple[Block, ...]:
    space = spec.space
    act = space.activation
    size = -(-spec.resolution // space.stem_stride)
    cin = spec.stem_width
    blocks = [
        Block("stem", "stem", spec.resolution, size, 3, 3, cin, 3, space.stem_stride, activation=act),
    ]
    for i, (stage, allowed) in enumerate(zip(spec.stages, space.stages, strict=True)):
        layers = zip(stage.kernels, stage.widths, stage.expansions, strict=True)
        for j, (kernel, cout, expansion) in enumerate(layers):
            stride = allowed.stride if j == 0 else 1
            out = -(-size // stride)
            blocks.append(
                Block(
                    kind="mbconv",
                    name=f"stage{i + 1}.layer{j + 1}",
                    size_in=size,
                    size_out=out,
                    cin=cin,
                    mid=cin * expansion,
                    cout=cout,
                    kernel=kernel,
                    stride=stride,
                    stage=i,
                    layer=j,
                    expands=allowed.expands,
                    shortcut="project" if j == 0 else "identity",
                    squeeze_excite=allowed.squeeze_excite,
                    activation=act,
                )
            )
            size, cin = out, cout
    head = spec.head_width
    blocks.append(Block("head", "head", size, size, cin, cin, head, activation=act))
    blocks.append(Block("classifier", "classifier", 1, 1, head, head, space.classes, activation="softmax"))
    return tuple(blocks)
