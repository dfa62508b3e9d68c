"""The supernet: one set of weights, and a function that runs any child with them.

`forward` is a pure function of weights, images and the active child. Its walk is the plan of the biggest
child (`plan(space.biggest)`); the active child says how much of each block is in use.

Reference: BigNAS (arXiv 2003.11142) sections 3 and 4.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.models import elastic, squeeze_excite
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.elastic import Execution, is_static
from bignas_zoo.models.slicing import trainable_shapes

Tensor = Any
Weights = Mapping[str, Tensor]
Gate = tuple[Callable[..., Tensor], tuple[Tensor, ...]]  # of pooled values and weights; the weights
LANES = 128  # channels that a TPU's vector unit works on at once; narrower maps waste the rest


def initial_weights(space: SearchSpace, seed: int, *, last_gamma: float = 0.0) -> dict[str, np.ndarray]:
    """Draw the supernet's weights.

    Kernels are normal with variance ``2 / fan_out`` (as EfficientNet; fan-out of a depthwise kernel
    is its area), the classifier's normal with deviation 0.01. The last gamma of each residual block
    is `last_gamma`: zero makes every block an identity at first, whatever its width.

    Args:
        space: the search space.
        seed: of numpy's Philox generator, one stream a weight name.
        last_gamma: 0 as in the paper's section 3.1, or 1 for plain He initialisation.

    Returns:
        Weight name to float32 array, at the biggest child's size.
    """
    weights: dict[str, np.ndarray] = {}
    for block in plan(space.biggest):
        for op in block.ops:
            for name, shape in trainable_shapes(op).items():
                weights[name] = np.zeros(shape, np.float32)
                if name.endswith("kernel"):
                    weights[name] = _kernel(op, name, shape, seed)
                elif name.endswith("gamma"):
                    last = op.role == "project"
                    weights[name] = np.full(shape, last_gamma if last else 1.0, np.float32)
    return weights


def _kernel(op: Op, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    key = np.frombuffer(name.encode().ljust(64, b"\0")[:64], np.uint32)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key.tolist()])))
    fan_out = op.kernel**2 * (1 if op.kind == "depthwise" else op.cout)
    deviation = 0.01 if op.role == "classifier" else (2.0 / fan_out) ** 0.5
    return (generator.standard_normal(shape) * deviation).astype(np.float32)


def pack_of(block: Block, most: int, batch: int | None, layerwise: bool) -> int:
    """Return how many images lie side by side in a block: until its output fills `LANES` channels.

    Args:
        block: of the plan of the biggest child.
        most: `Execution.pack`.
        batch: images; None (unknown) and what does not divide by the result give fewer.
        layerwise: whether the layers of its stage differ in width; such maps are not packed.
    """
    pack = 1
    if block.kind not in ("stem", "mbconv") or layerwise:
        return pack
    while pack < most and pack * block.cout < LANES and batch and batch % (2 * pack) == 0:
        pack *= 2
    return pack


class _Run:
    """One forward pass: the values every block needs."""

    def __init__(self, space: SearchSpace, weights: Weights, how: Execution, batch: int | None) -> None:
        self.space, self.weights, self.how, self.batch = space, weights, how, batch
        self.pack = 1

    def lay(self, x: Tensor, block: Block) -> Tensor:
        """Lay as many images side by side as `block` wants."""
        layerwise = block.stage >= 0 and self.space.stages[block.stage].layerwise_widths
        old, self.pack = self.pack, pack_of(block, self.how.pack, self.batch, layerwise)
        return elastic.packed(x, old, self.pack)

    def norm(self, x: Tensor, op: Op, choice: Any, *, act: bool = True, gate: Gate | None = None) -> Tensor:
        """Normalise; then activate and scale by a gate."""
        if self._lean():
            from bignas_zoo.models import lean

            form = self._form(act, gate and gate[0])
            return lean.norm_act_gate(form, x, *self._affine(op, choice), gate[1] if gate else ())[0]
        gamma, beta = self.weights[f"{op.name}.bn.gamma"], self.weights[f"{op.name}.bn.beta"]
        epsilon, form = self.space.bn_epsilon, self.how.batch_norm
        y, _ = elastic.batch_norm(x, gamma, beta, choice, epsilon, form, self.pack)
        y = self.act(y) if act else y
        return squeeze_excite.scale_by(y, lambda pooled: gate[0](pooled, *gate[1]), self.pack) if gate else y

    def expand(self, x: Tensor, op: Op, cin: Any, mid: Any) -> Tensor:
        """Widen with a 1x1 convolution, normalise, activate."""
        if not self._lean():
            return self.norm(elastic.conv(x, self.kernel(op), cin, mid, 1, self.pack), op, mid)
        from bignas_zoo.models import lean

        conv = functools.partial(elastic.plain_conv, pack=self.pack)
        kernel = elastic.conv_kernel(self.kernel(op), cin, mid)
        return lean.expand(self._form(True, None), conv, x, kernel, *self._affine(op, mid))[0]

    def _lean(self) -> bool:
        return self.how.batch_norm == "lean"

    def _form(self, act: bool, gate: Any) -> Any:
        from bignas_zoo.models import lean

        return lean.Form(self.space.bn_epsilon, self.act if act else None, gate, self.pack)

    def _affine(self, op: Op, choice: Any) -> list[Tensor]:
        return [elastic.channels(self.weights[f"{op.name}.bn.{key}"], choice) for key in ("gamma", "beta")]

    def kernel(self, op: Op) -> Tensor:
        return self.weights[f"{op.name}.kernel"]

    def dense(self, op: Op) -> tuple[Tensor, Tensor]:
        return self.kernel(op), self.weights[f"{op.name}.bias"]

    def act(self, x: Tensor) -> Tensor:
        return elastic.ACTIVATIONS[self.space.activation](x)

    def conv_block(self, x: Tensor, block: Block, cin: Any, cout: Any) -> Tensor:
        """Run the stem or the head: convolution, batch norm, activation."""
        (op,) = block.ops
        y = elastic.conv(x, self.weights[f"{op.name}.kernel"], cin, cout, block.stride, self.pack)
        return self.norm(y, op, cout)

    def branch_of(
        self, x: Tensor, block: Block, cin: Any, cout: Any, choice: ActiveChild, active: Any = True
    ) -> Tensor:
        """Run an MBConv without its shortcut; all zeros if not `active` (a traced bool)."""
        named = {op.role: op for op in block.ops}
        kernel = self.kernel
        mid = cin * choice.expansion(block.stage, block.layer) if block.expands else cin
        if block.expands:
            op = named["expand"]
            x = self.expand(x, op, cin, mid)
        op = named["depthwise"]
        size = choice.kernel(block.stage, block.layer)
        x = elastic.depthwise(x, kernel(op), mid, size, block.stride, self.how, self.pack)
        gate = None
        if block.squeeze_excite:
            se = block.squeeze_excite
            hidden = se.hidden(cin, mid)
            used = squeeze_excite.gate_weights(self.dense(named["squeeze"]), self.dense(named["excite"]), mid, hidden)
            gate = functools.partial(squeeze_excite.gate, activation=se.activation, last=se.gate), used
        x = self.norm(x, op, mid, gate=gate)
        op = named["project"]
        x = elastic.conv(x, kernel(op), mid, cout, 1, self.pack)
        return self.norm(x, op, cout if active is True else ops.where(active, cout, 0), act=False)

    def residual(self, x: Tensor, block: Block, cin: Any, cout: Any, choice: ActiveChild, active: Any = True) -> Tensor:
        """Run an MBConv with its shortcut; only the shortcut if not `active` (a traced bool)."""
        y = self.branch_of(x, block, cin, cout, choice, active)
        if block.shortcut == "project":
            return y + self.shortcut_of(x, block, cin, cout)
        if cin is not cout:
            x = elastic.identity(x, y.shape[-1], cout)
        return x + y

    def shortcut_of(self, x: Tensor, block: Block, cin: Any, cout: Any) -> Tensor:
        """Project the input of a stage's first layer: average pool if strided, then a 1x1."""
        if block.stride == 2:
            x = ops.average_pool(x, 2, 2, padding="same")
        kernel = elastic.channels(self.weights[f"{block.name}.shortcut.kernel"], cout)
        return elastic.conv(x, kernel, cin, kernel.shape[-1], 1, self.pack)


def forward(
    space: SearchSpace,
    weights: Weights,
    images: Tensor,
    choice: ActiveChild,
    *,
    dropout_mask: Tensor | None = None,
    how: Execution | None = None,
) -> Tensor:
    """Run one child of the supernet, batch norms normalising with the batch's own moments (BigNAS, section 3.1).

    Args:
        space: the search space.
        weights: weight name to array, at the biggest child's size (see `initial_weights`).
        images: ``[batch, size, size, 3]`` float32, normalised, already at the child's resolution.
        choice: static entries slice, traced entries mask; both may be mixed.
        dropout_mask: ``[batch, max head]``, multiplied into the pooled features; None for no dropout.
        how: see `Execution`; None takes its defaults.

    Returns:
        Logits ``[batch, classes]`` float32.
    """
    run = _Run(space, weights, how or Execution(), images.shape[0])
    x, cin = images, choice.stem
    for block in plan(space.biggest):
        x = run.lay(x, block)
        if block.kind == "stem":
            x = run.conv_block(x, block, 3, choice.stem)
        elif block.kind == "mbconv":
            x, cin = _mbconv(run, x, block, cin, choice)
        elif block.kind == "head":
            x = run.conv_block(x, block, cin, choice.head)
        else:
            x = ops.cast(ops.mean(x, axis=(1, 2)), "float32")
            if dropout_mask is not None:
                x = x * dropout_mask[:, : x.shape[-1]]
            x = elastic.dense(x, weights["classifier.kernel"], weights["classifier.bias"], choice.head, space.classes)
    return x


def _mbconv(run: _Run, x: Tensor, block: Block, cin: Any, choice: ActiveChild) -> tuple[Tensor, Any]:
    """Run one MBConv with its shortcut; return its output and the width that is now in use."""
    depth, cout = choice.depth(block.stage), choice.width(block.stage, block.layer)
    if is_static(depth) and block.layer >= depth:
        return x, cin
    if is_static(depth) or block.layer < run.space.stages[block.stage].depths[0]:
        return run.residual(x, block, cin, cout, choice), cout
    active = ops.less(block.layer, depth)
    width = elastic.latest(active, cout, cin)
    if run.how.branch == "cond":
        return ops.cond(active, lambda: run.residual(x, block, cin, cout, choice), lambda: x), width
    if cin is cout:  # an idle branch adds zeros
        return run.residual(x, block, cin, cout, choice, active), width
    return ops.where(active, run.residual(x, block, cin, cout, choice), x), width
