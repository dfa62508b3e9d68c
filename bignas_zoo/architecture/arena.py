"""Memory that a network's int8 file takes on a microcontroller, under tflite-micro, from its nodes alone.

tflite-micro works in one array, the arena. Its front holds the activations, which a planner lays out before the first
call; its end holds what the interpreter knows of tensors and operators. The planner is written once more here, from
github.com/tensorflow/tflite-micro, tensorflow/lite/micro/memory_planner/greedy_memory_planner.cc (Apache-2.0): bytes
are its bytes. The rest is fitted, see `bookkeeping`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bignas_zoo.architecture.lowering import Node

#: Buffers begin at multiples of this.
ALIGNMENT = 16
INT32_BYTES = 4
#: What the interpreter keeps of a tensor, an operator, a channel of a weight (a multiplier and a shift), of itself.
TENSOR_BYTES, OPERATOR_BYTES, CHANNEL_BYTES, INTERPRETER_BYTES = 24, 64, 8, 860
#: What an operator keeps beside, by kind; fitted.
KIND_BYTES = {
    "conv": 108, "depthwise": 96, "quarter": 88, "dense": 92, "add": 87, "mean": 85, "average": 40, "multiply": 34,
    "sixth": 34, "sigmoid": 34, "hard_swish": 32, "relu": 34, "relu6": 34, "softmax": 32, "pad_channels": 84,
    "pad_map": 60, "cut_channels": 71, "subsample": 71, "normalise": 68,
}  # fmt: skip
#: Tensors that say how, of each operator of a kind; axes of means and where slices begin are there once.
OWN_CONSTANTS = {"pad_map": 1, "pad_channels": 1, "subsample": 2, "cut_channels": 2}
STRIDED = {"subsample", "cut_channels"}


@dataclass(frozen=True)
class Buffer:
    """What needs a place in the arena while some nodes run.

    Attributes:
        bytes: that it takes.
        first, last: numbers of the nodes between which it is in use, both included.
    """

    bytes: int
    first: int
    last: int


def activations(nodes: Sequence[Node]) -> int:
    """Return the bytes of the arena that the activations of an int8 file take, ends in int8 as well."""
    return packed(buffers(nodes))


def arena(nodes: Sequence[Node]) -> int:
    """Return the bytes of the whole arena on a 64-bit machine: activations, and an estimate of the rest.

    Where the activations will lie, the planner works before; of tiny networks that takes more than they do.
    """
    planning = 40 * len(buffers(nodes)) + 32 * _tensors(nodes) + 240
    return max(activations(nodes), planning) + bookkeeping(nodes)


def buffers(nodes: Sequence[Node]) -> list[Buffer]:
    """Return one buffer a tensor, a byte an entry, and one for the sums that a mean is made of, in int32."""
    sizes, first, last = {nodes[0].inputs[0].name: nodes[0].inputs[0].size}, {nodes[0].inputs[0].name: 0}, {}
    sums = []
    for number, node in enumerate(nodes):
        sizes[node.name], first[node.name] = node.output.size, number
        for value in node.inputs:
            last[value.name] = number
        if node.kind == "mean":
            sums.append(Buffer(INT32_BYTES * node.output.size, number, number))
    last[nodes[-1].name] = len(nodes) - 1
    return [*(Buffer(size, first[name], last[name]) for name, size in sizes.items()), *sums]


def packed(wanted: Iterable[Buffer]) -> int:
    """Lay buffers out as the planner does, each in the lowest gap; return where the last one ends.

    The largest comes first, and of equal ones the last.
    """
    placed: list[tuple[int, int, int, int]] = []  # where it begins and ends, and when it is in use
    numbered = sorted(enumerate(wanted), key=lambda pair: (-_aligned(pair[1].bytes), -pair[0]))
    for _, buffer in numbered:
        size, begin = _aligned(buffer.bytes), 0
        for other, end, first, last in placed:
            if first > buffer.last or last < buffer.first:
                continue
            if other - begin >= size:
                break
            begin = max(begin, end)
        placed.append((begin, begin + size, buffer.first, buffer.last))
        placed.sort()
    return max(end for _, end, _, _ in placed)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def bookkeeping(nodes: Sequence[Node]) -> int:
    """Estimate the bytes of what the interpreter knows of tensors, operators and channels.

    Sizes of its structures on a 64-bit machine and a fit to its own figures, see `benchmarks/arena.py`, which says how
    far it is off.
    Pointers are half as long on microcontrollers; kernels made for one (CMSIS-NN) want more room of their own.
    """
    channels = sum(node.output.shape[-1] for node in _weighted(nodes))
    operators = sum(OPERATOR_BYTES + KIND_BYTES[node.kind] for node in nodes)
    return TENSOR_BYTES * _tensors(nodes) + operators + CHANNEL_BYTES * channels + INTERPRETER_BYTES


def _tensors(nodes: Sequence[Node]) -> int:
    """Return how many tensors a file has, constants included."""
    kinds = {node.kind for node in nodes}
    own = sum(OWN_CONSTANTS.get(node.kind, 0) for node in nodes)
    return 1 + len(nodes) + 2 * len(_weighted(nodes)) + own + len(kinds & {"mean"}) + bool(kinds & STRIDED)


def _weighted(nodes: Sequence[Node]) -> list[Node]:
    return [node for node in nodes if node.op or node.kind == "quarter"]
