"""Blocks of a network and their weighted operations, as plain data.

Weight names, the order of operations and their shapes are decided here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from bignas_zoo.architecture.forms import SqueezeExcite


@dataclass(frozen=True)
class Op:
    """One operation that holds weights.

    Attributes:
        kind: "conv", "depthwise" or "dense".
        role: what it is for in its block: "stem", "expand", "depthwise", "squeeze", "excite", "project", "shortcut",
            "head" or "classifier".
        name: prefix of its weights, e.g. ``stage3.layer1.expand``.
        cin, cout: channels in and out.
        kernel: kernel size in pixels (1 for dense).
        size: side of the output map in pixels (1 for dense).
        stride: 1 or 2.
        batch_norm: whether a batch norm follows (weights ``NAME.bn.gamma`` and so on).
        bias: whether it has a bias of its own.
    """

    kind: str
    role: str
    name: str
    cin: int
    cout: int
    kernel: int
    size: int
    stride: int = 1
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
    """One block of a network: what latency tables key on and drawings draw.

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
        return tuple(_OPS[self.kind](self))

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(op.macs for op in self.ops)

    @property
    def of_stage(self) -> bool:
        """Whether it is one of the layers of a stage, which a search repeats and reshapes."""
        return self.stage >= 0


def _stem(block: Block) -> list[Op]:
    return [
        Op("conv", "stem", block.name, block.cin, block.cout, block.kernel, block.size_out, block.stride, True),
    ]


def _mbconv(block: Block) -> list[Op]:
    name, mid, out = block.name, block.mid, block.size_out
    ops = []
    if block.expands:
        ops.append(Op("conv", "expand", f"{name}.expand", block.cin, mid, 1, block.size_in, batch_norm=True))
    ops.append(Op("depthwise", "depthwise", f"{name}.depthwise", mid, mid, block.kernel, out, block.stride, True))
    if block.squeeze_excite:
        hidden = block.squeeze_excite.hidden(block.cin, mid)
        ops.append(Op("dense", "squeeze", f"{name}.squeeze", mid, hidden, 1, 1, bias=True))
        ops.append(Op("dense", "excite", f"{name}.excite", hidden, mid, 1, 1, bias=True))
    ops.append(Op("conv", "project", f"{name}.project", mid, block.cout, 1, out, batch_norm=True))
    if block.shortcut == "project":
        ops.append(Op("conv", "shortcut", f"{name}.shortcut", block.cin, block.cout, 1, out))
    return ops


def _head(block: Block) -> list[Op]:
    return [Op("conv", "head", block.name, block.cin, block.cout, block.kernel, block.size_out, batch_norm=True)]


def _classifier(block: Block) -> list[Op]:
    return [Op("dense", "classifier", block.name, block.cin, block.cout, 1, 1, bias=True)]


#: One entry a kind of block: its operations in the order they run.
_OPS = {"stem": _stem, "mbconv": _mbconv, "head": _head, "classifier": _classifier}
KINDS = tuple(_OPS)
SHORTCUTS = ("none", "identity", "project")
