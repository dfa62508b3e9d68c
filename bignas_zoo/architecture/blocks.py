"""Blocks of a network and their weighted operations, as plain data.

Weight names, the order of operations and their shapes are decided here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bignas_zoo.architecture.forms import LATER, SqueezeExcite


@dataclass(frozen=True)
class Op:
    """One operation that holds weights.

    Attributes:
        kind: "conv", "depthwise" or "dense".
        role: what it is for in its block: "stem", "expand", "depthwise", "squeeze", "excite", "project", "shortcut",
            "first", "second", "head", "mix" or "classifier".
        name: prefix of its weights, e.g. ``stage3.layer1.expand``.
        reads, gives: which of its block's widths it has as input and as output channels: "cin", "mid", "hidden" (of the
            squeeze-excite) or "cout".
        cin, cout: channels in and out.
        kernel: kernel size in pixels (1 for dense).
        size: side of the output map in pixels (1 for dense).
        stride: 1 or 2.
        padding: "same" or "symmetric", see `SearchSpace`.
        batch_norm: whether a batch norm follows (weights ``NAME.bn.gamma`` and so on).
        bias: whether it has a bias of its own.
        transforms: of a supernet's depthwise kernel: the smaller sizes that each have a matrix (weights ``NAME.to5``
            and so on), which the centre of the next larger kernel is multiplied by; descending.
    """

    kind: str
    role: str
    name: str
    reads: str
    gives: str
    cin: int
    cout: int
    kernel: int = 1
    size: int = 1
    stride: int = 1
    padding: str = "same"
    batch_norm: bool = False
    bias: bool = False
    transforms: tuple[int, ...] = ()

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
    def ends_branch(self) -> bool:
        """Whether its batch norm is the last of a block's branch, before the shortcut is added."""
        return self.role in ("project", "second")

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
        kind: "stem", "mbconv", "basic" (two convolutions and a shortcut), "head", "pooled_head" (MobileNetV3's) or
            "classifier".
        name: ``stem``, ``stage3.layer1``, ``head``, ``classifier``.
        stage, layer: 0-based position of a block of a stage; -1 elsewhere.
        size_in, size_out: side of the input and output map in pixels.
        cin, mid, cout: channels in, expanded, out (``mid = cin`` without an expansion).
        kernel, stride: of the stem's or the depthwise convolution.
        expands: whether there is an expansion convolution.
        shortcut: "none", "identity" (the first `cout` channels of the input, zeros beyond its `cin`) or
            "project".
        squeeze_excite: its form, or None.
        activation: name of the activation function.
        padding: "same" or "symmetric", see `SearchSpace`.
        pooling: how the shortcut is halved if the stride is 2, see `forms.Shortcut`.
        bias: whether the dense layer of a pooled head has a bias.
        transforms: of a supernet's block, see `Op`.
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
    padding: str = field(default="same", metadata=LATER)
    pooling: str = field(default="average", metadata=LATER)
    bias: bool = field(default=False, metadata=LATER)
    transforms: tuple[int, ...] = field(default=(), metadata=LATER)

    @property
    def ops(self) -> tuple[Op, ...]:
        """The weighted operations of the block, in the order they run."""
        return tuple(_OPS[self.kind](self))

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(op.macs for op in self.ops)

    @property
    def ends_in_sum(self) -> bool:
        """Whether nothing follows the sum of shortcut and branch, so that a branch of zeros makes it its shortcut."""
        return self.kind == "mbconv"

    @property
    def of_stage(self) -> bool:
        """Whether it is one of the layers of a stage, which a search repeats and reshapes."""
        return self.stage >= 0


def _mbconv(block: Block) -> list[Op]:
    ops = []
    if block.expands:
        ops.append(_conv(block, "expand", "cin", "mid", block.size_in))
    depthwise = _conv(block, "depthwise", "mid", "mid", block.size_out, block.kernel, block.stride, kind="depthwise")
    ops.append(replace(depthwise, transforms=block.transforms))
    if block.squeeze_excite:
        ops.append(_dense(block, "squeeze", "mid", "hidden", bias=True))
        ops.append(_dense(block, "excite", "hidden", "mid", bias=True))
    ops.append(_conv(block, "project", "mid", "cout", block.size_out))
    return ops + _projection(block)


def _basic(block: Block) -> list[Op]:
    first = _conv(block, "first", "cin", "cout", block.size_out, block.kernel, block.stride)
    return [first, _conv(block, "second", "cout", "cout", block.size_out, block.kernel), *_projection(block)]


def _projection(block: Block) -> list[Op]:
    if block.shortcut != "project":
        return []
    return [_conv(block, "shortcut", "cin", "cout", block.size_out, batch_norm=False)]


def _stem(block: Block) -> list[Op]:
    return [_conv(block, "stem", "cin", "cout", block.size_out, block.kernel, block.stride)]


def _head(block: Block) -> list[Op]:
    return [_conv(block, "head", "cin", "cout", block.size_out, block.kernel)]


def _pooled_head(block: Block) -> list[Op]:
    return [
        _conv(block, "head", "cin", "mid", block.size_out),
        _dense(block, "mix", "mid", "cout", bias=block.bias),
    ]


def _classifier(block: Block) -> list[Op]:
    return [_dense(block, "classifier", "cin", "cout", bias=True)]


def _name(block: Block, role: str) -> str:
    """Return the prefix of an operation's weights: the block's own name for the operation that gives it its name."""
    return block.name if role in ("stem", "head", "classifier") else f"{block.name}.{role}"


def _width(block: Block, which: str) -> int:
    if which == "hidden":
        assert block.squeeze_excite
        hidden: int = block.squeeze_excite.hidden(block.cin, block.mid)
        return hidden
    return {"cin": block.cin, "mid": block.mid, "cout": block.cout}[which]


def _conv(
    block: Block,
    role: str,
    reads: str,
    gives: str,
    size: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    kind: str = "conv",
    batch_norm: bool = True,
) -> Op:
    cin, cout = _width(block, reads), _width(block, gives)
    name, padding = _name(block, role), block.padding
    return Op(kind, role, name, reads, gives, cin, cout, kernel, size, stride, padding, batch_norm=batch_norm)


def _dense(block: Block, role: str, reads: str, gives: str, *, bias: bool) -> Op:
    cin, cout = _width(block, reads), _width(block, gives)
    return Op("dense", role, _name(block, role), reads, gives, cin, cout, bias=bias)


#: One entry a kind of block: its operations in the order they run.
_OPS = {
    "stem": _stem,
    "mbconv": _mbconv,
    "basic": _basic,
    "head": _head,
    "pooled_head": _pooled_head,
    "classifier": _classifier,
}
KINDS = tuple(_OPS)
#: Kinds that are layers of stages; one of each other kind, at most, is in a network.
STAGE_KINDS = ("mbconv", "basic")
SHORTCUTS = ("none", "identity", "project")
