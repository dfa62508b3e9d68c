"""A network lowered to the nodes that file formats know: one list, which every writer and the cost of memory read.

It is one more way to run the bodies of blocks (`operations`): what they ask for is written down, not computed. Batch
norms are part of the convolution before them, ReLU and ReLU6 of whatever comes before them; swish, hard swish and the
gates of squeeze-excites become the operations that TFLite and ONNX have.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.bodies import run_block
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.operations import Gate, Operations, Tensor
from bignas_zoo.architecture.plan import plan

#: Names of the input and the output of a file.
IMAGE, SCORES = "image", "scores"
#: Activations that a runtime applies as it stores a result.
FUSED = ("relu", "relu6")
#: Nodes that have a fused activation: those that compute, not those that move.
FUSING = ("conv", "depthwise", "dense", "add")


@dataclass(frozen=True)
class Value:
    """A tensor between nodes, of one image.

    Attributes:
        name: of the node that gives it; `IMAGE` is the input.
        shape: ``(height, width, channels)``, or ``(channels,)``.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Node:
    """One operation of a file.

    Attributes:
        kind: "conv" (of a map, or of one pixel: a dense layer between them), "depthwise", "dense", "mean" (over a map's
            pixels), "average" (of 2x2 pixels; what lies beyond an odd map does not count), "quarter" (the same over an
            even map, as a depthwise convolution), "add", "multiply", "sigmoid", "hard_swish", "relu", "relu6", "sixth"
            (times 1/6), "pad_map" (rows and columns of zeros around a map), "subsample" (each second pixel),
            "pad_channels", "cut_channels", "normalise" (pixels, see `models.preprocess`) or "softmax".
        inputs: what it reads.
        output: what it gives; its name is the node's.
        op: its weights; None without any.
        activation: fused: "", "relu" or "relu6".
        bias_shift: added to its bias.
        pads: rows and columns of zeros before and after a map: of "pad_map" and convolutions, as TensorFlow's
            "same" has them.
    """

    kind: str
    inputs: tuple[Value, ...]
    output: Value
    op: Op | None = None
    activation: str = ""
    bias_shift: float = 0.0
    pads: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """That of its output."""
        return self.output.name


def lower(network: Network, *, quarters: bool = False, normalise: bool = False) -> tuple[Node, ...]:
    """Return the nodes of a network in the order they run, from `IMAGE` to `SCORES`.

    A block's shortcut runs before its branch: its input is free earlier, which takes 3 to 5 % less memory.

    Args:
        network: what to lower.
        quarters: whether averages over even maps are "quarter" nodes: XNNPACK has no average in int8, so that each one
            cuts the network in two.
        normalise: whether the input is pixels of 0 to 255, which a first node normalises.
    """
    size = network.resolution
    lowering = _Lowering(quarters)
    x = Value(IMAGE, (size, size, 3))
    if normalise:
        x = lowering.node("normalise", (x,), "pixels.normalised", x.shape)
    for block in plan(network):
        lowering.begin = len(lowering.nodes)
        x = run_block(lowering, x, block)
    lowering.node("softmax", (x,), SCORES, x.shape)
    return tuple(lowering.nodes)


class _Lowering(Operations):
    """Writes nodes down."""

    def __init__(self, quarters: bool) -> None:
        self.quarters = quarters
        self.nodes: list[Node] = []
        self.begin = 0

    def node(
        self,
        kind: str,
        inputs: tuple[Value, ...],
        name: str,
        shape: tuple[int, ...],
        op: Op | None = None,
        pads: tuple[int, int] = (0, 0),
    ) -> Value:
        """Add a node and return what it gives."""
        output = Value(name, shape)
        self.nodes.append(Node(kind, inputs, output, op, pads=pads))
        return output

    def conv(self, x: Tensor, op: Op, activation: str | None = None, gate: Gate | None = None) -> Value:
        pads, ours = _pads(x.shape[0], op), same_padding(x.shape[0], op.kernel, op.stride)
        if pads != ours:  # PyTorch's, where the two differ: no runtime of TFLite has that in a convolution
            side = x.shape[0] + sum(pads)
            x, ours = self.node("pad_map", (x,), f"{op.name}.pad", (side, side, x.shape[-1]), pads=pads), (0, 0)
        y = self.node(op.kind, (x,), op.name, (op.size, op.size, op.cout), op, ours)
        y = self._activate(y, activation) if activation else y
        return self._scale(y, gate) if gate else y

    def _scale(self, x: Value, gate: Gate) -> Value:
        block = gate.squeeze.name.rpartition(".")[0]
        mean = self.node("mean", (x,), f"{block}.mean", (1, 1, x.shape[-1]))
        hidden = self._activate(self._on_a_pixel(mean, gate.squeeze), gate.form.activation)
        scale = self._activate(self._on_a_pixel(hidden, gate.excite), gate.form.gate)
        return self.node("multiply", (x, scale), f"{block}.scaled", x.shape)

    def _on_a_pixel(self, x: Value, op: Op) -> Value:
        return self.node("conv", (x,), op.name, (1, 1, op.cout), op)

    def dense(self, x: Tensor, op: Op, activation: str | None = None) -> Value:
        y = self.node("dense", (x,), op.name, (op.cout,), op)
        return self._activate(y, activation) if activation else y

    def mean(self, x: Tensor) -> Value:
        if len(x.shape) == 1:
            return x  # type: ignore[no-any-return]
        return self.node("mean", (x,), f"{x.name}.mean", x.shape[-1:])

    def activate(self, x: Tensor, activation: str, block: Block) -> Value:
        return self._activate(x, activation)

    def _activate(self, x: Value, activation: str) -> Value:
        if activation in FUSED:
            if self._last_gives(x) and self.nodes[-1].kind in FUSING and not self.nodes[-1].activation:
                self.nodes[-1] = dataclasses.replace(self.nodes[-1], activation=activation)
                return x
            return self.node(activation, (x,), f"{x.name}.{activation}", x.shape)
        if activation == "swish":
            gate = self.node("sigmoid", (x,), f"{x.name}.sigmoid", x.shape)
            return self.node("multiply", (x, gate), f"{x.name}.swish", x.shape)
        if activation == "hard_sigmoid":  # relu6(x + 3) / 6; the 3 goes into the bias
            assert self._last_gives(x)
            self.nodes[-1] = dataclasses.replace(self.nodes[-1], activation="relu6", bias_shift=3.0)
            return self.node("sixth", (x,), f"{x.name}.hard_sigmoid", x.shape)
        return self.node(activation, (x,), f"{x.name}.{activation}", x.shape)

    def _last_gives(self, x: Value) -> bool:
        return bool(self.nodes) and self.nodes[-1].output == x

    def add(self, shortcut: Tensor, branch: Tensor, block: Block) -> Value:
        return self.node("add", (shortcut, branch), f"{block.name}.add", branch.shape)

    def shortcut(self, x: Tensor, block: Block) -> Value | None:
        """Write the shortcut down before the branch of its block, which has run."""
        written = len(self.nodes)
        value: Value | None = super().shortcut(x, block)
        nodes, self.nodes[written:] = self.nodes[written:], []
        self.nodes[self.begin : self.begin] = nodes
        return value

    def halve(self, x: Tensor, block: Block) -> Value:
        name, channels = f"{block.name}.shortcut", x.shape[-1]
        shape = (block.size_out, block.size_out, channels)
        if block.pooling == "subsample":
            return self.node("subsample", (x,), f"{name}.subsample", shape)
        odd = block.size_in % 2
        if block.pooling == "average_padded" and odd:
            padded = (block.size_in + 1, block.size_in + 1, channels)
            x, odd = self.node("pad_map", (x,), f"{name}.pad", padded, pads=(1, 0)), 0
        return self.node("quarter" if self.quarters and not odd else "average", (x,), f"{name}.average", shape)

    def resize(self, x: Tensor, block: Block) -> Value:
        if block.cin == block.cout:
            return x  # type: ignore[no-any-return]
        kind = "cut_channels" if block.cout < block.cin else "pad_channels"
        return self.node(kind, (x,), f"{block.name}.shortcut.{kind}", (*x.shape[:-1], block.cout))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding: no more than is needed, the smaller half before."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pads(size: int, op: Op) -> tuple[int, int]:
    """Return the padding of a convolution before and after a map of a size."""
    if op.padding == "same":
        return same_padding(size, op.kernel, op.stride)
    before = op.kernel // 2
    return before, max((op.size - 1) * op.stride + op.kernel - size - before, 0)
