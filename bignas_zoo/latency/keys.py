"""What a row of a latency table is about: a block, without its place in the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from bignas_zoo.architecture.blocks import KINDS, SHORTCUTS, Block, Op
from bignas_zoo.architecture.forms import ACTIVATIONS, GATES, SqueezeExcite
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan

LARGEST = 1 << 16


@dataclass(frozen=True)
class _Hidden(SqueezeExcite):
    """A squeeze-excite of which the hidden channels are known, and not what they were counted from."""

    channels: int = 0

    def hidden(self, cin: Any, mid: Any) -> Any:
        """Return the hidden channels."""
        return self.channels


@dataclass(frozen=True)
class BlockKey:
    """A block as its time depends on it; its precision is the table's, see `table.Protocol`.

    Attributes:
        kind: of `architecture.blocks.KINDS`.
        size_in, size_out: side of the input and output map in pixels.
        cin, mid, cout: channels in, expanded, out.
        kernel, stride: of the stem's or the depthwise convolution.
        expands: whether there is an expansion convolution.
        shortcut: "none", "identity" or "project".
        activation: name of the activation function.
        se_hidden: hidden channels of the squeeze-excite; 0 without one.
        se_activation, se_gate: its two functions; empty without one.
    """

    kind: str
    size_in: int
    size_out: int
    cin: int
    mid: int
    cout: int
    kernel: int
    stride: int
    expands: bool
    shortcut: str
    activation: str
    se_hidden: int = 0
    se_activation: str = ""
    se_gate: str = ""

    @staticmethod
    def of(block: Block) -> BlockKey:
        """Return the key of a block of a plan."""
        form = block.squeeze_excite
        return BlockKey(
            block.kind, block.size_in, block.size_out, block.cin, block.mid, block.cout, block.kernel, block.stride,
            block.expands, block.shortcut, block.activation,
            form.hidden(block.cin, block.mid) if form else 0,
            form.activation if form else "",
            form.gate if form else "",
        )  # fmt: skip

    @staticmethod
    def from_json(values: Sequence[Any]) -> BlockKey:
        """Read a key from its values in the order of `FIELDS`; raises ValueError or TypeError."""
        key = BlockKey(*values)
        for name in WHOLE:
            value = getattr(key, name)
            least = 0 if name == "se_hidden" else 1
            if type(value) is not int or not least <= value <= LARGEST:
                raise ValueError(f"{name} must be a whole number of {least} to {LARGEST:,}, got {value!r:.40}")
        if type(key.expands) is not bool:
            raise ValueError(f"expands must be true or false, got {key.expands!r:.40}")
        with_se = key.se_hidden > 0
        for name, allowed in (
            ("kind", KINDS),
            ("shortcut", SHORTCUTS),
            ("activation", (*ACTIVATIONS, "softmax")),
            ("se_activation", ACTIVATIONS if with_se else ("",)),
            ("se_gate", GATES if with_se else ("",)),
        ):
            if getattr(key, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(key, name)!r:.40}")
        return key

    @property
    def ops(self) -> tuple[Op, ...]:
        """The weighted operations of such a block, in the order they run."""
        form = None
        if self.se_hidden:
            form = _Hidden(activation=self.se_activation, gate=self.se_gate, channels=self.se_hidden)
        return Block(
            self.kind, "block", self.size_in, self.size_out, self.cin, self.mid, self.cout, self.kernel, self.stride,
            expands=self.expands, shortcut=self.shortcut, activation=self.activation,
            squeeze_excite=form,
        ).ops  # fmt: skip

    def to_json(self) -> list[Any]:
        """Return the values in the order of `FIELDS`."""
        return [getattr(self, name) for name in FIELDS]

    def __str__(self) -> str:
        """Return the block in words, e.g. ``mbconv 14 px, 80 > 480 > 112, k5, squeeze-excite 20, swish, project``."""
        channels = (self.cin, self.mid, self.cout) if self.expands else (self.cin, self.cout)
        size = str(self.size_in) if self.size_in == self.size_out else f"{self.size_in} > {self.size_out}"
        parts = [f"{self.kind} {size} px", " > ".join(map(str, channels)), f"k{self.kernel}"]
        if self.se_hidden:
            parts.append(f"squeeze-excite {self.se_hidden} ({self.se_activation}, {self.se_gate})")
        parts.append(self.activation)
        if self.shortcut != "none":
            parts.append(f"{self.shortcut} shortcut")
        return ", ".join(parts)


FIELDS = tuple(f.name for f in fields(BlockKey))
WHOLE = ("size_in", "size_out", "cin", "mid", "cout", "kernel", "stride", "se_hidden")

#: A network, or its blocks alone.
Measurable = Network | Sequence[Block]


def blocks_of(network: Measurable) -> tuple[Block, ...]:
    """Return the blocks of a network, in order."""
    return tuple(network) if isinstance(network, Sequence) else plan(network)
