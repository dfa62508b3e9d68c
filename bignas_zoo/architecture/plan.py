"""The one walk over a network: from a child spec to its blocks and their operations.

Everything that needs to know what a child consists of reads `plan_child`: MACs and parameters
(`cost`), the supernet, the plain Keras child, slicing, latency tables, cards and drawings. Weight
names, the order of operations and channel rounding are decided here and nowhere else.

Accounting (it reproduces all published figures of the BigNAS models, see `bignas_zoo.architecture.spaces.bignas`):
"SAME" padding, output size = ceil(input / stride); squeeze-excite after the depthwise activation;
at the first layer of each stage the shortcut is a 2x2 average pool if the stride is 2, then a
bias-free 1x1 convolution without batch norm; on the other layers the identity, which costs nothing.
With layer-wise widths the identity may meet another width: channels are then cut off, or zeros
appended, which costs nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass

from bignas_zoo.architecture.space import ChildSpec, SqueezeExcite


@dataclass(frozen=True)
class Op:
    """One operation that holds weights.

    Attributes:
        kind: "conv", "depthwise" or "dense".
        name: prefix of its weights, e.g. ``stage3.layer1.expand``.
        cin, cout: channels in and out.
        kernel: kernel size in pixels (1 for dense).
        size: side of the output map in pixels (1 for dense).
        batch_norm: whether a batch norm follows (weights ``NAME.bn.gamma`` and so on).
        bias: whether it has a bias of its own.
    """

    kind: str
    name: str
    cin: int
    cout: int
    kernel: int
    size: int
    batch_norm: bool = False
    bias: bool = False

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of its kernel in the Keras layout."""
        if self.kind == "dense":
            return (self.cin, self.cout)
        if self.kind == "depthwise":
            return (self.kernel, self.kernel, self.cin, 1)
        return (self.kernel, self.kernel, self.cin, self.cout)

    @property
    def kernel_parameters(self) -> int:
        """Number of entries of the kernel."""
        return self.kernel**2 * (self.cin if self.kind == "depthwise" else self.cin * self.cout)

    @property
    def macs(self) -> int:
        """Multiply-adds for one image; bias, batch norm and activation are not counted."""
        return self.kernel_parameters * self.size**2

    @property
    def parameters(self) -> int:
        """Parameters, with the batch norm's four vectors (moving statistics included)."""
        return self.kernel_parameters + self.cout * (self.bias + 4 * self.batch_norm)

    @property
    def folded_parameters(self) -> int:
        """Parameters once the batch norm is folded into kernel and bias, as exporters do."""
        return self.kernel_parameters + self.cout * (self.bias or self.batch_norm)


@dataclass(frozen=True)
class Block:
    """One block of a child: what latency tables key on and drawings draw.

    Attributes:
        kind: "stem", "mbconv", "head" or "classifier".
        name: ``stem``, ``stage3.layer1``, ``head``, ``classifier``.
        stage, layer: 0-based position of an MBConv block; -1 elsewhere.
        size_in, size_out: side of the input and output map in pixels.
        cin, mid, cout: channels in, expanded, out (``mid = cin`` without an expansion).
        kernel, stride: of the stem's or the depthwise convolution.
        expands: whether there is an expansion convolution.
        shortcut: "none", "identity" (the first `cout` channels of the input, zeros beyond its `cin`) or
            "project".
        squeeze_excite: its form, or None.
        activation: name of the activation function.
    """

    kind: str
    name: str
    size_in: int
    size_out: int
    cin: int
    mid: int
    cout: int
    kernel: int = 1
    stride: int = 1
    stage: int = -1
    layer: int = -1
    expands: bool = False
    shortcut: str = "none"
    squeeze_excite: SqueezeExcite | None = None
    activation: str = "swish"

    @property
    def ops(self) -> tuple[Op, ...]:
        """The weighted operations of the block, in the order they run."""
        if self.kind == "classifier":
            return (Op("dense", self.name, self.cin, self.cout, 1, 1, bias=True),)
        if self.kind in ("stem", "head"):
            return (Op("conv", self.name, self.cin, self.cout, self.kernel, self.size_out, batch_norm=True),)
        return tuple(_mbconv_ops(self))


def _mbconv_ops(block: Block) -> list[Op]:
    name, mid, out = block.name, block.mid, block.size_out
    ops = []
    if block.expands:
        ops.append(Op("conv", f"{name}.expand", block.cin, mid, 1, block.size_in, batch_norm=True))
    ops.append(Op("depthwise", f"{name}.depthwise", mid, mid, block.kernel, out, batch_norm=True))
    if block.squeeze_excite:
        hidden = block.squeeze_excite.hidden(block.cin, mid)
        ops.append(Op("dense", f"{name}.squeeze", mid, hidden, 1, 1, bias=True))
        ops.append(Op("dense", f"{name}.excite", hidden, mid, 1, 1, bias=True))
    ops.append(Op("conv", f"{name}.project", mid, block.cout, 1, out, batch_norm=True))
    if block.shortcut == "project":
        ops.append(Op("conv", f"{name}.shortcut", block.cin, block.cout, 1, out))
    return ops


def plan_child(spec: ChildSpec) -> tuple[Block, ...]:
    """Walk a child from the input to the logits.

    Args:
        spec: the child; its space gives everything that is not a choice.

    Returns:
        Its blocks in order: stem, the MBConv blocks of each stage, head, classifier.
    """
    space = spec.space
    act = space.activation
    size = -(-spec.resolution // space.stem_stride)
    cin = spec.stem_width
    blocks = [
        Block("stem", "stem", spec.resolution, size, 3, 3, cin, 3, space.stem_stride, activation=act),
    ]
    for i, (stage, allowed) in enumerate(zip(spec.stages, space.stages, strict=True)):
        for j, (kernel, cout) in enumerate(zip(stage.kernels, stage.widths, strict=True)):
            stride = allowed.stride if j == 0 else 1
            out = -(-size // stride)
            blocks.append(
                Block(
                    kind="mbconv",
                    name=f"stage{i + 1}.layer{j + 1}",
                    size_in=size,
                    size_out=out,
                    cin=cin,
                    mid=cin * stage.expansion,
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
