"""The arithmetic of an MBConv: expand, convolve each channel, squeeze and excite, project, add the shortcut.

Reference: MobileNetV2 (arXiv 1801.04381) section 3; EfficientNet (arXiv 1905.11946) for the squeeze-excite.
"""

from __future__ import annotations

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.operations import Gate, Operations, Tensor


def mbconv(run: Operations, x: Tensor, block: Block) -> Tensor:
    """Run a block with its shortcut."""
    ops = {op.role: op for op in block.ops}
    y = x
    if "expand" in ops:
        y = run.conv(y, ops["expand"], block.activation)
    form = block.squeeze_excite
    gate = Gate(ops["squeeze"], ops["excite"], form) if form else None
    y = run.conv(y, ops["depthwise"], block.activation, gate)
    return residual(run, x, run.conv(y, ops["project"]), block)


def residual(run: Operations, x: Tensor, branch: Tensor, block: Block) -> Tensor:
    """Add the shortcut to what a block's branch has made of `x`."""
    shortcut = run.shortcut(x, block)
    return branch if shortcut is None else run.add(shortcut, branch, block)
