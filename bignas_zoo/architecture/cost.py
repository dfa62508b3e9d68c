"""What a network costs, as whole numbers read off its plan.

MACs are multiply-adds counted once; the papers of the field call the same count "FLOPs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan

if TYPE_CHECKING:
    from bignas_zoo.architecture.lowering import Node

FLOAT32_BYTES = 4


def ops(network: Network) -> tuple[Op, ...]:
    """Return every operation of a network in order."""
    return tuple(op for block in plan(network) for op in block.ops)


def macs(network: Network) -> int:
    """Count multiply-adds for one image: convolutions and dense layers.

    Batch norm, activations, pooling and the squeeze-excite product are not counted, as in the
    BigNAS and EfficientNet papers.

    Args:
        network: a child, or a list of blocks.

    Returns:
        MACs of one forward pass with batch 1.
    """
    return sum(op.macs for op in ops(network))


def parameters(network: Network) -> int:
    """Count parameters, batch norm's moving statistics included (as the papers' tables do)."""
    return sum(op.parameters for op in ops(network))


def weight_bytes(network: Network) -> int:
    """Return the bytes of a float32 model's weights with batch norms folded."""
    return FLOAT32_BYTES * sum(op.folded_parameters for op in ops(network))


def peak_activation_bytes(network: Network) -> int:
    """Return the bytes of the float32 tensors that must be alive at once, at the worst moment.

    Counted for batch 1, an operation's input and output together, plus the block input that a shortcut keeps alive.
    """
    return FLOAT32_BYTES * max(_peak_values(block) for block in plan(network))


def _peak_values(block: Block) -> int:
    """Return how many values are alive at the worst moment of a block."""
    held = block.size_in**2 * block.cin if block.shortcut != "none" else 0
    peak, size = 0, block.size_in
    path = [op for op in block.ops if op.kind != "dense" and op.role != "shortcut"]
    for position, op in enumerate(path):
        before = size**2 * op.cin  # of the first operation: the block input itself
        peak = max(peak, before + op.size**2 * op.cout + (held if position else 0))
        size = op.size
    return peak


def activations(network: Network) -> int:
    """Return the bytes of activations that its int8 file needs under tflite-micro, exactly; one image a call.

    Input and scores are int8 too (``export --precision int8 --io int8``).
    """
    from bignas_zoo.architecture import arena as planner

    return planner.activations(_int8_nodes(network))


def arena(network: Network) -> int:
    """Return the bytes of memory that its int8 file needs under tflite-micro in all, on a 64-bit machine.

    `activations` and an estimate of what the interpreter knows of tensors and operators, see `arena.bookkeeping`. On
    microcontrollers, whose pointers are half as long, it is less, unless kernels made for them want room of their own.
    """
    from bignas_zoo.architecture import arena as planner

    return planner.arena(_int8_nodes(network))


def _int8_nodes(network: Network) -> tuple[Node, ...]:
    from bignas_zoo.architecture.lowering import lower  # `list` and a cached `get` count no memory

    return lower(network, quarters=True)


def int8_bytes(network: Network) -> int:
    """Estimate the size of its int8 TFLite file, metadata and labels included, from above.

    A weight takes a byte, a bias four; a channel of a convolution has two scales and two zero points beside them (24
    bytes in all). What else an operation takes is fitted to files of nine networks of the zoo (1 % over at most,
    `tests/test_memory.py`).
    """
    nodes = _int8_nodes(network)
    weighted = [node for node in nodes if node.op or node.kind == "quarter"]
    channels = sum(node.output.shape[-1] for node in weighted)
    weights = sum(op.folded_parameters for op in ops(network))
    graph = 430 * len(weighted) + 160 * (len(nodes) - len(weighted))
    return weights + 27 * channels + graph + 2_600 + 12 * network.classes
