"""What a network costs, as whole numbers read off its plan.

MACs are multiply-adds counted once; the papers of the field call the same count "FLOPs".
"""

from __future__ import annotations

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.plan import plan

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
