"""What a child costs, as whole numbers read off its plan.

MACs are multiply-adds counted once; the papers of the field call the same count "FLOPs".
"""

from __future__ import annotations

from bignas_zoo.architecture.plan import Op, plan_child
from bignas_zoo.architecture.space import ChildSpec

FLOAT32_BYTES = 4


def ops(spec: ChildSpec) -> tuple[Op, ...]:
    """Return every operation of a child in order."""
    return tuple(op for block in plan_child(spec) for op in block.ops)


def macs(spec: ChildSpec) -> int:
    """Count multiply-adds for one image: convolutions and dense layers.

    Batch norm, activations, pooling and the squeeze-excite product are not counted, as in the
    BigNAS and EfficientNet papers.

    Args:
        spec: the child.

    Returns:
        MACs of one forward pass with batch 1.
    """
    return sum(op.macs for op in ops(spec))


def parameters(spec: ChildSpec) -> int:
    """Count parameters, batch norm's moving statistics included (as the papers' tables do)."""
    return sum(op.parameters for op in ops(spec))


def weight_bytes(spec: ChildSpec) -> int:
    """Return the bytes of a float32 model's weights with batch norms folded."""
    return FLOAT32_BYTES * sum(op.folded_parameters for op in ops(spec))


def peak_activation_bytes(spec: ChildSpec) -> int:
    """Return the bytes of the float32 tensors that must be alive at once, at the worst moment.

    Counted for batch 1, an operation's input and output together, plus the block input that an
    MBConv's shortcut keeps alive.
    """
    peak = 0
    for block in plan_child(spec):
        held = block.size_in**2 * block.cin if block.kind == "mbconv" else 0
        inside, size = 0, block.size_in
        path = [op for op in block.ops if op.kind != "dense" and not op.name.endswith("shortcut")]
        for position, op in enumerate(path):
            before = size**2 * op.cin  # of the first operation: the block input itself
            inside = max(inside, before + op.size**2 * op.cout + (held if position else 0))
            size = op.size
        peak = max(peak, inside)
    return FLOAT32_BYTES * peak
