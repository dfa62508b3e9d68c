"""The arithmetic of a basic block: two convolutions, the shortcut added, then the second activation.

Reference: ResNet (arXiv 1512.03385) section 3.3 and figure 5, left.
"""

from __future__ import annotations

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.mbconv import residual
from bignas_zoo.architecture.operations import Operations, Tensor


def basic(run: Operations, x: Tensor, block: Block) -> Tensor:
    """Run a block with its shortcut."""
    ops = {op.role: op for op in block.ops}
    y = run.conv(run.conv(x, ops["first"], block.activation), ops["second"])
    return run.activate(residual(run, x, y, block), block.activation, block)
