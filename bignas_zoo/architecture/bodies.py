"""The body of each kind of block, in the operations of `operations`."""

from __future__ import annotations

from bignas_zoo.architecture.basic import basic
from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.mbconv import mbconv
from bignas_zoo.architecture.operations import Operations, Tensor


def run_block(run: Operations, x: Tensor, block: Block) -> Tensor:
    """Run one block of a plan.

    Args:
        run: the way to run it.
        x: ``[batch, size_in, size_in, cin]``; the classifier takes ``[batch, cin]`` as well.
        block: of a plan.

    Returns:
        ``[batch, size_out, size_out, cout]``; of a pooled head and the classifier ``[batch, cout]``.
    """
    return BODIES[block.kind](run, x, block)


def _convolution(run: Operations, x: Tensor, block: Block) -> Tensor:
    """Run the stem or the head."""
    (op,) = block.ops
    return run.conv(x, op, block.activation)


def _pooled_head(run: Operations, x: Tensor, block: Block) -> Tensor:
    head, mix = block.ops
    return run.dense(run.mean(run.conv(x, head, block.activation)), mix, block.activation)


def _classifier(run: Operations, x: Tensor, block: Block) -> Tensor:
    (op,) = block.ops
    return run.dense(run.mean(x), op)


BODIES = {
    "stem": _convolution,
    "mbconv": mbconv,
    "basic": basic,
    "head": _convolution,
    "pooled_head": _pooled_head,
    "classifier": _classifier,
}
