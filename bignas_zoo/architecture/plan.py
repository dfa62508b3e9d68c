"""The one walk over a network: from a child spec to its blocks and their operations.

Everything that needs to know what a network consists of reads `plan`: MACs and parameters (`cost`), the supernet, the
plain Keras child, slicing, latency tables, cards and drawings. Channels and map sizes are decided here and nowhere
else.

Accounting (it reproduces the published figures of every space in `bignas_zoo.architecture.spaces`): output size =
ceil(input / stride), with either padding; squeeze-excite after the depthwise activation; the shortcut as the space's
rule says (`forms.Shortcut`): a convolution without batch norm and bias, the identity, or none. A shortcut past a
stride of 2 is halved first. Halving and the identity cost nothing, also where an identity meets another width:
channels are then cut off, or zeros appended.
"""

from __future__ import annotations

from dataclasses import replace

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.network import BlockList, Network
from bignas_zoo.architecture.space import ChildSpec, SearchSpace


def plan(network: Network) -> tuple[Block, ...]:
    """Walk a network from the input to the logits.

    Args:
        network: a child, whose space gives everything that is not a choice; or a list of blocks.

    Returns:
        Its blocks in order: stem, the blocks of each stage, head, classifier.
    """
    return network.blocks if isinstance(network, BlockList) else _child(network)


def plan_supernet(space: SearchSpace) -> tuple[Block, ...]:
    """Walk a supernet: the biggest child, with all weights that any child needs.

    Where the rule of shortcuts goes by whether the width changes, the biggest child may lack a convolution that smaller
    children need. Where kernels are transformed, it lacks the matrices.

    Args:
        space: the search space.

    Returns:
        Blocks whose operations hold all weights of the supernet.
    """
    return tuple(
        _with_transforms(_with_every_shortcut(block, space), space) if block.of_stage else block
        for block in plan(space.biggest)
    )


def _with_transforms(block: Block, space: SearchSpace) -> Block:
    if space.kernel_sharing == "centre":
        return block
    return replace(block, transforms=space.stages[block.stage].kernels[-2::-1])


def _with_every_shortcut(block: Block, space: SearchSpace) -> Block:
    stage = space.stages[block.stage]
    if block.layer and not stage.layerwise_widths:  # it takes the width that it gives
        return block
    before = space.stages[block.stage - 1].widths if block.stage else space.stem_widths
    changes = len({*(stage.widths if block.layer else before), *stage.widths}) > 1
    projects = changes and space.shortcut.of(block.layer, block.stride, same_width=False) == "project"
    return replace(block, shortcut="project") if projects else block


def _child(spec: ChildSpec) -> tuple[Block, ...]:
    space = spec.space
    size = -(-spec.resolution // space.stem_stride)
    stem = Block(
        "stem", "stem", spec.resolution, size, 3, 3, spec.stem_width, 3, space.stem_stride,
        activation=space.activation, padding=space.padding,
    )  # fmt: skip
    blocks = [stem]
    for i, stage in enumerate(spec.stages):
        for j in range(stage.depth):
            blocks.append(_layer(spec, i, j, blocks[-1]))
    blocks += _ends(spec, blocks[-1])
    return tuple(blocks)


def _layer(spec: ChildSpec, i: int, j: int, before: Block) -> Block:
    """Return layer `j` of stage `i`, which takes what the block `before` gives."""
    space, stage, allowed = spec.space, spec.stages[i], spec.space.stages[i]
    stride, cin, cout = allowed.stride if j == 0 else 1, before.cout, stage.widths[j]
    return Block(
        kind=allowed.block,
        name=f"stage{i + 1}.layer{j + 1}",
        size_in=before.size_out,
        size_out=-(-before.size_out // stride),
        cin=cin,
        mid=cin * stage.expansions[j],
        cout=cout,
        kernel=stage.kernels[j],
        stride=stride,
        stage=i,
        layer=j,
        expands=allowed.expands,
        shortcut=space.shortcut.of(j, stride, cin == cout),
        squeeze_excite=allowed.squeeze_excite,
        activation=allowed.activation or space.activation,
        padding=space.padding,
        pooling=space.shortcut.pooling,
    )


def _ends(spec: ChildSpec, last: Block) -> list[Block]:
    """Return the head, if there is one, and the classifier."""
    form, space = spec.space.head, spec.space
    size, cin, width = last.size_out, last.cout, spec.head_width or last.cout
    act = space.activation
    heads: dict[str, list[Block]] = {
        "none": [],
        "conv": [Block("head", "head", size, size, cin, cin, width, activation=act)],
        "pooled": [
            Block(
                "pooled_head", "head", size, size, cin, cin * form.expansion, width,
                expands=True, activation=act, bias=form.bias,
            ),
        ],
    }  # fmt: skip
    return [
        *heads[form.form],
        Block("classifier", "classifier", 1, 1, width, width, space.classes, activation="softmax"),
    ]
