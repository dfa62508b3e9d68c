"""A child as a plain PyTorch network: what the loop of Once-for-All and AlphaNet builds for each child.

For benchmarks only; `pip install torch` first. Layout, batch norm with the cumulative average (momentum None) and the
order of operations are those of their published test scripts; weights come from a supernet of ours, so that both
classify the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import ChildSpec

ACTIVATIONS = {
    "swish": nn.SiLU, "hard_swish": nn.Hardswish, "relu": nn.ReLU, "relu6": nn.ReLU6, "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
}  # fmt: skip


class Convolution(nn.Module):
    """A convolution with TensorFlow's padding, and its batch norm."""

    def __init__(self, kernel: np.ndarray, stride: int, norm: Mapping[str, np.ndarray], epsilon: float) -> None:
        super().__init__()
        depthwise = kernel.shape[-1] == 1 and kernel.shape[2] > 1 and kernel.shape[0] > 1
        weight = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
        cout, _, self.size, _ = weight.shape
        cin = kernel.shape[2]
        self.stride = stride
        inside = self.size // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(cin, cout, self.size, stride, inside, groups=cin if depthwise else 1, bias=False)
        self.conv.weight.data.copy_(tensor(weight))
        self.norm = nn.BatchNorm2d(cout, eps=epsilon, momentum=None) if norm else nn.Identity()
        if norm:
            self.norm.weight.data.copy_(tensor(norm["gamma"]))
            self.norm.bias.data.copy_(tensor(norm["beta"]))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1 and self.size > 1:
            needed = max((-(-x.shape[-1] // self.stride) - 1) * self.stride + self.size - x.shape[-1], 0)
            before = needed // 2
            x = functional.pad(x, (before, needed - before, before, needed - before))
        result: Tensor = self.norm(self.conv(x))
        return result


class MBConv(nn.Module):
    """An inverted bottleneck with squeeze-excite and shortcut."""

    def __init__(self, block: Block, weights: Mapping[str, np.ndarray], epsilon: float) -> None:
        super().__init__()
        self.block, self.act = block, ACTIVATIONS[block.activation]()
        self.expand = part(weights, ".expand", 1, epsilon) if block.expands else None
        self.depthwise = part(weights, ".depthwise", block.stride, epsilon)
        self.project = part(weights, ".project", 1, epsilon)
        self.shortcut = part(weights, ".shortcut", 1, epsilon) if block.shortcut == "project" else None
        if se := block.squeeze_excite:
            self.squeeze, self.excite = (dense(weights, name) for name in (".squeeze", ".excite"))
            self.middle, self.gate = ACTIVATIONS[se.activation](), ACTIVATIONS[se.gate]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.expand(x)) if self.expand else x
        y = self.act(self.depthwise(y))
        if self.block.squeeze_excite:
            gates = self.gate(self.excite(self.middle(self.squeeze(y.mean((2, 3))))))
            y = y * gates[:, :, None, None]
        y = self.project(y)
        if self.block.shortcut == "none":
            return y
        if self.shortcut:
            x = functional.avg_pool2d(x, 2, ceil_mode=True) if self.block.stride == 2 else x
            x = self.shortcut(x)
        elif self.block.cin != self.block.cout:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.block.cout - self.block.cin))  # a negative pad truncates
        return y + x


class TorchChild(nn.Module):
    """A child with its weights.

    Args:
        spec: the child.
        weights: its own, name to array, as `bignas_zoo.models.slicing.slice_weights` returns them.
    """

    def __init__(self, spec: ChildSpec, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in plan(spec):
            own = {name.removeprefix(block.name): w for name, w in weights.items() if name.startswith(f"{block.name}.")}
            if block.kind == "mbconv":
                layers.append(MBConv(block, own, spec.space.bn_epsilon))
            elif block.kind == "classifier":
                self.classifier = dense(own, "")
            else:
                layers += [part(own, "", block.stride, spec.space.bn_epsilon), ACTIVATIONS[block.activation]()]
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return result

    def calibrate(self, batches: list[Tensor]) -> None:
        """Set all running statistics to the average over batches of images ``[n, 3, size, size]``."""
        self.eval()
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad():
            for batch in batches:
                self(batch)
        self.eval()


def top1(child: TorchChild, batches: list[Tensor], labels: np.ndarray) -> float:
    """Return the top-1 accuracy on labelled images, in percent."""
    with torch.no_grad():
        found = np.concatenate([child(batch).argmax(1).numpy() for batch in batches])
    return float(100 * np.mean(found == labels))


def part(weights: Mapping[str, np.ndarray], name: str, stride: int, epsilon: float) -> Convolution:
    """Return a convolution of a block with its batch norm, if it has one."""
    norm = {key: weights[f"{name}.bn.{key}"] for key in ("gamma", "beta") if f"{name}.bn.{key}" in weights}
    return Convolution(weights[f"{name}.kernel"], stride, norm, epsilon)


def dense(weights: Mapping[str, np.ndarray], name: str) -> nn.Linear:
    """Return a dense layer."""
    kernel = weights[f"{name}.kernel"]
    layer = nn.Linear(*kernel.shape)
    layer.weight.data.copy_(tensor(kernel.T))
    layer.bias.data.copy_(tensor(weights[f"{name}.bias"]))
    return layer


def tensor(value: Any) -> Tensor:
    """Return a float32 tensor of its own."""
    return torch.from_numpy(np.array(value, np.float32))
