"""The operations that the bodies of blocks are written in.

A block's arithmetic is written once (`bodies`). Each way to run a network supplies these operations: the supernet,
which slices or masks (`supernet`), the plain Keras child (`child`), the child run block by block (`blockwise`), and
numpy (`numpy_forward`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.forms import SqueezeExcite

Tensor = Any


@dataclass(frozen=True)
class Gate:
    """A squeeze-excite: each channel of each image is scaled by what two dense layers make of the global means.

    Attributes:
        squeeze, excite: the two layers.
        form: gives the function after each.
    """

    squeeze: Op
    excite: Op
    form: SqueezeExcite


class Operations(ABC):
    """What bodies are made of. Maps are ``[batch, height, width, channels]``; an `Op` names its weights."""

    @abstractmethod
    def conv(self, x: Tensor, op: Op, activation: str | None = None, gate: Gate | None = None) -> Tensor:
        """Convolve (each channel by itself if "depthwise"), normalise if `op` says so, activate, scale by a gate."""

    @abstractmethod
    def dense(self, x: Tensor, op: Op, activation: str | None = None) -> Tensor:
        """Multiply vectors ``[batch, channels]`` by the kernel, add the bias if there is one, activate."""

    @abstractmethod
    def mean(self, x: Tensor) -> Tensor:
        """Average a map over its pixels; a vector stays as it is."""

    @abstractmethod
    def activate(self, x: Tensor, activation: str, block: Block) -> Tensor:
        """Activate the sum at the end of a block."""

    @abstractmethod
    def add(self, shortcut: Tensor, branch: Tensor, block: Block) -> Tensor:
        """Add a block's shortcut to its branch."""

    @abstractmethod
    def halve(self, x: Tensor, block: Block) -> Tensor:
        """Bring a shortcut to half the size, as `block.pooling` says."""

    @abstractmethod
    def resize(self, x: Tensor, block: Block) -> Tensor:
        """Give an identity shortcut the width of the branch: cut channels off or append zeros."""

    def shortcut(self, x: Tensor, block: Block) -> Tensor:
        """Return what a block's input becomes beside its branch; None without a shortcut."""
        if block.shortcut == "none":
            return None
        if block.stride == 2:
            x = self.halve(x, block)
        if block.shortcut == "identity":
            return self.resize(x, block)
        (op,) = (op for op in block.ops if op.role == "shortcut")
        return self.conv(x, op)
