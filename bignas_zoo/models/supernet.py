"""The supernet: one set of weights, and a function that runs any child with them.

`forward` is a pure function of weights, images and the active child. Its walk is the plan of the biggest
child (`plan_supernet`); the active child says how much of each block is in use.

Reference: BigNAS (arXiv 2003.11142) sections 3 and 4.1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.architecture.bodies import run_block
from bignas_zoo.architecture.operations import Gate, Operations
from bignas_zoo.architecture.plan import plan_supernet
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.models import elastic, squeeze_excite
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.backend import ops
from bignas_zoo.models.batch_norm import batch_norm
from bignas_zoo.models.elastic import Execution, is_static
from bignas_zoo.models.slicing import trainable_shapes

Tensor = Any
Weights = Mapping[str, Tensor]
Statistics = Mapping[str, Tensor] | Callable[[Op, Tensor, Tensor], tuple[Tensor, Tensor]]
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
    for block in plan_supernet(space):
        for op in block.ops:
            for name, shape in trainable_shapes(op).items():
                weights[name] = np.zeros(shape, np.float32)
                if name.endswith("kernel"):
                    weights[name] = _kernel(op, name, shape, seed)
                elif name.rpartition(".")[2].startswith("to"):  # a transformed kernel begins as a centre
                    weights[name] = np.eye(*shape, dtype=np.float32)
                elif name.endswith("gamma"):
                    weights[name] = np.full(shape, last_gamma if op.ends_branch else 1.0, np.float32)
    return weights


def _kernel(op: Op, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    key = np.frombuffer(name.encode().ljust(64, b"\0")[:64], np.uint32)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key.tolist()])))
    fan_out = op.kernel**2 * (1 if op.kind == "depthwise" else op.cout)
    deviation = 0.01 if op.role == "classifier" else (2.0 / fan_out) ** 0.5
    return (generator.standard_normal(shape) * deviation).astype(np.float32)


def pack_of(block: Block, most: int, batch: int | None, resizes: bool) -> int:
    """Return how many images lie side by side in a block: until its output fills `LANES` channels.

    Args:
        block: of the plan of the supernet.
        most: `Execution.pack`.
        batch: images; None (unknown) and what does not divide by the result give fewer.
        resizes: whether an identity shortcut may meet another width; such maps are not packed.
    """
    pack = 1
    if block.kind not in ("stem", "mbconv") or resizes:
        return pack
    while pack < most and pack * block.cout < LANES and batch and batch % (2 * pack) == 0:
        pack *= 2
    return pack


@dataclass(frozen=True)
class _Elastic(Operations):
    """The operations of one block of one forward pass, on the leading part of the shared weights.

    Attributes:
        space, weights, how: see `forward`.
        pack: how many images lie side by side.
        widths: the block's widths in use: "cin", "mid", "hidden", "cout".
        kernel: size in use of a depthwise kernel.
        active: whether the block is in use: True, or a traced bool that makes its branch all zeros.
        dropout_mask, statistics: see `forward`.
    """

    space: SearchSpace
    weights: Weights
    how: Execution
    pack: int
    widths: Mapping[str, Any]
    kernel: Any = None
    active: Any = True
    dropout_mask: Tensor | None = None
    statistics: Statistics | None = None

    def conv(self, x: Tensor, op: Op, activation: str | None = None, gate: Gate | None = None) -> Tensor:
        kernel, cin, cout = self.weights[f"{op.name}.kernel"], self.widths[op.reads], self.widths[op.gives]
        if op.batch_norm and self.statistics is not None:
            return self._with_statistics(x, op, activation, gate)
        if op.role == "expand" and self.how.batch_norm == "lean":
            return self._lean_expand(x, op, activation)
        if op.kind == "depthwise":
            y = elastic.depthwise(x, self._sized(op), cin, self.kernel, op.stride, self.how, self.pack, op.padding)
        elif op.batch_norm:
            y = elastic.conv(x, kernel, cin, cout, op.stride, self.pack, op.padding)
        else:  # nothing else masks its output
            kernel = elastic.channels(kernel, cout)
            y = elastic.conv(x, kernel, cin, kernel.shape[-1], op.stride, self.pack, op.padding)
        return self._norm(y, op, activation, gate) if op.batch_norm else y

    def _sized(self, op: Op) -> Tensor:
        """Return a shared depthwise kernel, made what the size in use is of it where that is not its centre."""
        kernel = self.weights[f"{op.name}.kernel"]
        if not op.transforms:
            return kernel
        return elastic.transformed(kernel, {k: self.weights[f"{op.name}.to{k}"] for k in op.transforms}, self.kernel)

    def _norm(self, x: Tensor, op: Op, activation: str | None, gate: Gate | None) -> Tensor:
        """Normalise; then activate and scale by a gate."""
        function, values = self._gate(gate) if gate else (None, ())
        if self.how.batch_norm == "lean":
            from bignas_zoo.models import lean

            return lean.norm_act_gate(self._lean(activation, function), x, *self._affine(op), values)[0]
        gamma, beta = self._affine(op)
        y, _ = batch_norm(x, gamma, beta, self.space.bn_epsilon, self.how.batch_norm, self.pack)
        y = elastic.ACTIVATIONS[activation](y) if activation else y
        return squeeze_excite.scale_by(y, lambda pooled: function(pooled, *values), self.pack) if function else y

    def _with_statistics(self, x: Tensor, op: Op, activation: str | None, gate: Gate | None) -> Tensor:
        """Convolve by a static child's weights, normalise with its statistics, activate, scale by a gate."""
        kernel, cin, cout = self.weights[f"{op.name}.kernel"], self.widths[op.reads], self.widths[op.gives]
        gamma, beta = self._affine(op)

        def convolved(factor: Tensor | None) -> Tensor:
            if op.kind == "depthwise":
                shared = self._sized(op)
                whole = shared if factor is None else elastic.rows(shared, cin) * factor[:, None]
                return elastic.depthwise(x, whole, cin, self.kernel, op.stride, self.how, self.pack, op.padding)
            part = elastic.conv_kernel(kernel, cin, cout)
            part = part if factor is None else part * factor
            return elastic.plain_conv(x, part, op.stride, self.pack, elastic.rim(op.kernel, op.stride, op.padding))

        given = self.statistics
        assert given is not None
        if callable(given):  # it looks at what is to be normalised
            y = convolved(None)
            mean, variance = given(op, x, y)
            scale = gamma * ops.rsqrt(variance + self.space.bn_epsilon)
            y = y * scale + (beta - mean * scale)
        else:  # folded into the kernel: one pass over the map less
            mean, variance = (given[f"{op.name}.bn.{key}"] for key in ("mean", "variance"))
            scale = gamma * ops.rsqrt(variance + self.space.bn_epsilon)
            y = elastic.add_bias(convolved(scale), beta - mean * scale)
        y = elastic.ACTIVATIONS[activation](y) if activation else y
        function, values = self._gate(gate) if gate else (None, ())
        return squeeze_excite.scale_by(y, lambda pooled: function(pooled, *values), self.pack) if function else y

    def _gate(self, gate: Gate) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """Return a squeeze-excite as a function of pooled values and weights, and the weights."""
        squeeze, excite = (
            (self.weights[f"{op.name}.kernel"], self.weights[f"{op.name}.bias"]) for op in (gate.squeeze, gate.excite)
        )
        used = squeeze_excite.gate_weights(squeeze, excite, self.widths["mid"], self.widths["hidden"])
        return functools.partial(squeeze_excite.gate, activation=gate.form.activation, last=gate.form.gate), used

    def _lean_expand(self, x: Tensor, op: Op, activation: str | None) -> Tensor:
        """Widen with a 1x1 convolution, normalise, activate."""
        from bignas_zoo.models import lean

        conv = functools.partial(elastic.plain_conv, pack=self.pack)
        kernel = elastic.conv_kernel(self.weights[f"{op.name}.kernel"], self.widths[op.reads], self.widths[op.gives])
        return lean.expand(self._lean(activation, None), conv, x, kernel, *self._affine(op))[0]

    def _lean(self, activation: str | None, gate: Callable[..., Tensor] | None) -> Any:
        from bignas_zoo.models import lean

        act = elastic.ACTIVATIONS[activation] if activation else None
        return lean.Fixed(self.space.bn_epsilon, act, gate, self.pack)

    def _affine(self, op: Op) -> list[Tensor]:
        """Return a batch norm's gamma and beta for the channels that it lets through."""
        cout = self.widths[op.gives]
        if op.ends_branch and self.active is not True:
            cout = ops.where(self.active, cout, 0)
        return [elastic.channels(self.weights[f"{op.name}.bn.{key}"], cout) for key in ("gamma", "beta")]

    def dense(self, x: Tensor, op: Op, activation: str | None = None) -> Tensor:
        if op.role == "classifier" and self.dropout_mask is not None:
            x = x * self.dropout_mask[:, : x.shape[-1]]
        bias = self.weights[f"{op.name}.bias"] if op.bias else None
        kernel = self.weights[f"{op.name}.kernel"]
        y = elastic.dense(x, kernel, bias, self.widths[op.reads], self.widths[op.gives])
        return elastic.ACTIVATIONS[activation](y) if activation else y

    def mean(self, x: Tensor) -> Tensor:
        return ops.cast(ops.mean(x, axis=(1, 2)), "float32") if len(x.shape) == 4 else x

    def activate(self, x: Tensor, activation: str, block: Block) -> Tensor:
        return elastic.ACTIVATIONS[activation](x)

    def add(self, shortcut: Tensor, branch: Tensor, block: Block) -> Tensor:
        return shortcut + branch

    def halve(self, x: Tensor, block: Block) -> Tensor:
        return elastic.halve(x, block.pooling, odd=x.shape[1] % 2 == 1)

    def resize(self, x: Tensor, block: Block) -> Tensor:
        if self.widths["cin"] is self.widths["cout"]:
            return x
        cout = self.widths["cout"]
        return elastic.identity(x, cout if is_static(cout) else block.cout, cout)

    def shortcut(self, x: Tensor, block: Block) -> Tensor:
        """Follow the space's rule for the widths in use; where they are traced, for both outcomes, and select."""
        cin, cout = self.widths["cin"], self.widths["cout"]
        alike, unlike = (self.space.shortcut.of(block.layer, block.stride, same) for same in (True, False))
        if alike == unlike or cin is cout or (is_static(cin) and is_static(cout)):
            kind = alike if cin is cout or (is_static(cin) and is_static(cout) and cin == cout) else unlike
            return super().shortcut(x, replace(block, shortcut=kind))
        same = super().shortcut(x, replace(block, shortcut=alike))
        other = super().shortcut(x, replace(block, shortcut=unlike))
        return ops.where(ops.equal(cin, cout), same, ops.zeros_like(same) if other is None else other)


def forward(
    space: SearchSpace,
    weights: Weights,
    images: Tensor,
    choice: ActiveChild,
    *,
    dropout_mask: Tensor | None = None,
    how: Execution | None = None,
    statistics: Statistics | None = None,
) -> Tensor:
    """Run one child of the supernet, batch norms normalising with the batch's own moments (BigNAS, section 3.1).

    Args:
        space: the search space.
        weights: weight name to array, at the biggest child's size (see `initial_weights`).
        images: ``[batch, size, size, 3]`` float32, normalised, already at the child's resolution.
        choice: static entries slice, traced entries mask; both may be mixed.
        dropout_mask: ``[batch, most features]``, multiplied into the features that the classifier takes; None for no
            dropout.
        how: see `Execution`; None takes its defaults.
        statistics: of a static child, in place of the batch's moments: mean and variance of the channels in use by
            their names in the plan; or a function that is given an operation, what it reads and what its batch norm is
            given (``[batch, height, width, channels]``), and returns both, ``[channels]`` each. Images are not packed.

    Returns:
        Logits ``[batch, classes]`` float32.
    """
    how = how or Execution()
    x, cin, pack = images, 3, 1
    for block in plan_supernet(space):
        most = how.pack if statistics is None else 1
        old, pack = pack, pack_of(block, most, images.shape[0], _resizes(space, block))
        run = _Elastic(
            space,
            weights,
            how,
            pack,
            _widths(space, block, cin, choice),
            dropout_mask=dropout_mask,
            statistics=statistics,
        )
        x, cin = _run(run, elastic.packed(x, old, pack), block, choice)
    return x


def _resizes(space: SearchSpace, block: Block) -> bool:
    """Return whether an identity shortcut of a block may meet another width."""
    if not block.of_stage:
        return False
    first = block.layer == 0 and space.shortcut.rule != "project_first"
    return first or space.stages[block.stage].layerwise_widths


def _widths(space: SearchSpace, block: Block, cin: Any, choice: ActiveChild) -> dict[str, Any]:
    """Return a block's widths in use, of which `cin` comes from the block before."""
    if block.of_stage:
        cout, expansion = choice.width(block.stage, block.layer), choice.expansion(block.stage, block.layer)
    else:
        ends = {"stem": choice.stem, "classifier": space.classes}
        cout, expansion = ends.get(block.kind, choice.head), space.head.expansion
    mid = cin * expansion if block.expands else cin
    form = block.squeeze_excite
    return {"cin": cin, "mid": mid, "hidden": form.hidden(cin, mid) if form else None, "cout": cout}


def _run(run: _Elastic, x: Tensor, block: Block, choice: ActiveChild) -> tuple[Tensor, Any]:
    """Run one block, or pass by a layer that is not in use; return the output and the width that is now in use."""
    cin, cout = run.widths["cin"], run.widths["cout"]
    if not block.of_stage:
        return run_block(run, x, block), cout
    run = replace(run, kernel=choice.kernel(block.stage, block.layer))
    depth = choice.depth(block.stage)
    if is_static(depth) and block.layer >= depth:
        return x, cin
    if is_static(depth) or block.layer < run.space.stages[block.stage].depths[0]:
        return run_block(run, x, block), cout
    active = ops.less(block.layer, depth)
    width = elastic.latest(active, cout, cin)
    if run.how.branch == "cond":
        return ops.cond(active, lambda: run_block(run, x, block), lambda: x), width
    idle = replace(run, active=active)
    if cin is cout and block.ends_in_sum:  # an idle branch adds zeros
        return run_block(idle, x, block), width
    return ops.where(active, run_block(idle, x, block), x), width
