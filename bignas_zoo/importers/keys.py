"""What PyTorch projects call the weights of a network, and how they lay them out: from their names to the plan's.

Kernels are ``[out, in, height, width]`` there, depthwise ones ``[channels, 1, height, width]``, dense ones
``[out, in]`` (or a convolution of one pixel).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bignas_zoo.architecture.blocks import Block, Op
from bignas_zoo.errors import IntegrityError
from bignas_zoo.importers.torch_file import TensorFile

#: A batch norm's vectors, ours and theirs.
BATCH_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}


@dataclass(frozen=True)
class Keys:
    """Where a project keeps the weights of one operation.

    Attributes:
        layer: prefix of ``.weight`` and ``.bias``.
        batch_norm: prefix of the batch norm's vectors; "" without one.
        matrix: what a matrix of transformed kernels is called, given its two sizes; "" without one.
    """

    layer: str
    batch_norm: str = ""
    matrix: str = ""


#: The place of an operation of a block, which is the n-th of the file's layers (-1: of none).
KeysOf = Callable[[Block, Op, int], Keys]


def read_network(
    file: TensorFile, blocks: Iterable[Block], keys_of: KeysOf, *, statistics: bool, spare: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    """Read the weights of a network, or of a supernet, by the names of its plan.

    Args:
        file: theirs, its names as `keys_of` gives them.
        blocks: of the plan.
        keys_of: where each operation's weights are.
        statistics: whether the batch norms' are read too.
        spare: whether a tensor of the file may be left over, by its name.

    Returns:
        Name to float32 array.

    Raises:
        IntegrityError: a tensor is missing, left over, of another shape or not finite: it is another network's file.
    """
    weights: dict[str, np.ndarray] = {}
    used = set()
    layer = -1
    for block in blocks:
        layer += block.of_stage
        for op in block.ops:
            for name, key, shape in _tensors(op, keys_of(block, op, layer), file):
                if not statistics and name.endswith((".bn.mean", ".bn.variance")):
                    used.add(key)
                    continue
                if key not in file.tensors:
                    raise IntegrityError(
                        f"{file.path}: has no tensor '{key}' ({name}): it is the file of another network."
                    )
                if op.role == "classifier":
                    _check_classes(file, key, op.cout)
                weights[name] = _laid_out(file.read(key, shape), op, name)
                used.add(key)
    left = [
        key for key in file.tensors if key not in used and not key.endswith("num_batches_tracked") and not spare(key)
    ]
    if left:
        more = f" and {len(left) - 1} more" if left[1:] else ""
        raise IntegrityError(
            f"{file.path}: holds '{left[0]}'{more}, which this network does not have: it is the file of another one."
        )
    for name, array in weights.items():
        if name.endswith(".variance") and (array < 0).any():
            raise IntegrityError(f"{file.path}: '{name}' holds variances below zero.")
    return weights


def _check_classes(file: TensorFile, key: str, classes: int) -> None:
    """Refuse a network of other classes by their number, not by a shape."""
    count = file.tensors[key].shape[:1]
    if count and count != (classes,):
        raise IntegrityError(
            f"{file.path}: is of {count[0]:,} classes; only the {classes:,} of ImageNet can be imported. "
            "`bignas-zoo finetune` makes a network of your own classes from an imported one."
        )


def _tensors(op: Op, keys: Keys, file: TensorFile) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Give our name, their name and their shape of each of an operation's tensors."""
    kernel = f"{keys.layer}.weight"
    if op.kind == "depthwise":
        yield f"{op.name}.kernel", kernel, (op.cin, 1, op.kernel, op.kernel)
    elif op.kind == "conv":
        yield f"{op.name}.kernel", kernel, (op.cout, op.cin, op.kernel, op.kernel)
    else:
        flat = (op.cout, op.cin)
        entry = file.tensors.get(kernel)
        yield f"{op.name}.kernel", kernel, (*flat, 1, 1) if entry and len(entry.shape) == 4 else flat
    if op.bias:
        yield f"{op.name}.bias", f"{keys.layer}.bias", (op.cout,)
    if op.batch_norm:
        for ours, theirs in BATCH_NORM.items():
            yield f"{op.name}.bn.{ours}", f"{keys.batch_norm}.{theirs}", (op.cout,)
    for size in op.transforms:
        yield f"{op.name}.to{size}", keys.matrix.format(size + 2, size), (size**2, size**2)


def _laid_out(array: np.ndarray, op: Op, name: str) -> np.ndarray:
    """Return a tensor with its axes as ours are."""
    if not name.endswith(".kernel"):
        return array
    if op.kind == "dense":
        return np.ascontiguousarray(array.reshape(op.cout, op.cin).T)
    axes = (2, 3, 0, 1) if op.kind == "depthwise" else (2, 3, 1, 0)
    return np.ascontiguousarray(array.transpose(axes))


def renamed(file: TensorFile, rename: Callable[[str], str]) -> TensorFile:
    """Return a file whose tensors go by other names.

    Raises:
        IntegrityError: two of them get one name.
    """
    tensors: dict[str, object] = {}
    for name, entry in file.tensors.items():
        new = rename(name)
        if new in tensors:
            raise IntegrityError(f"{file.path}: two of its tensors mean '{new}'.")
        tensors[new] = entry
    return TensorFile(file.path, tensors, file.part)  # type: ignore[arg-type]


#: Of an MBConv's operation, where Once-for-all's code and what came of it keeps them.
_OF_OFA = {
    "expand": Keys("inverted_bottleneck.conv", "inverted_bottleneck.bn"),
    "depthwise": Keys("depth_conv.conv", "depth_conv.bn", "depth_conv.conv.{}to{}_matrix"),
    "squeeze": Keys("depth_conv.se.fc.reduce"),
    "excite": Keys("depth_conv.se.fc.expand"),
    "project": Keys("point_linear.conv", "point_linear.bn"),
}
_OFA_ENDS = {
    "stem": Keys("first_conv.conv", "first_conv.bn"),
    "head": Keys("final_expand_layer.conv", "final_expand_layer.bn"),
    "mix": Keys("feature_mix_layer.conv"),
    "classifier": Keys("classifier.linear"),
}


def ofa_name(name: str) -> str:
    """Return the one form of the names that a weight has in releases of Once-for-all, AttentiveNAS and AlphaNet.

    Supernets double the part before the last, and older releases call a block's convolutions "mobile_inverted_conv".
    """
    name = name.removeprefix("last_conv.").replace(".mobile_inverted_conv.", ".conv.")
    for twice in ("bn", "conv", "linear"):
        name = name.replace(f".{twice}.{twice}.", f".{twice}.")
    return name


def ofa_keys(block: Block, op: Op, layer: int) -> Keys:
    """Return where Once-for-all's code, or AttentiveNAS's, keeps an operation's weights; see `ofa_name`."""
    if layer < 0 or not block.of_stage:
        return _OFA_ENDS[op.role]
    if op.role == "shortcut":
        return Keys(f"blocks.{layer}.shortcut.conv")
    inner, prefix = _OF_OFA[op.role], f"blocks.{layer}.conv."
    norm = f"{prefix}{inner.batch_norm}" if inner.batch_norm else ""
    return Keys(f"{prefix}{inner.layer}", norm, f"{prefix}{inner.matrix}")


_TIMM_ENDS = {
    "stem": Keys("conv_stem", "bn1"),
    "mix": Keys("conv_head"),
    "classifier": Keys("classifier"),
}


def timm_keys(block: Block, op: Op, last_stage: int) -> Keys:
    """Return where timm's EfficientNet builder keeps an operation's weights.

    A block without an expansion has its own meaning of ``bn1``, ``bn2`` and ``conv_pw``.

    Args:
        block, op: see `KeysOf`.
        last_stage: number of the last stage, counted from 0.
    """
    if op.role == "head":
        if block.kind == "head":
            return Keys("conv_head", "bn2")
        return Keys(f"blocks.{last_stage + 1}.0.conv", f"blocks.{last_stage + 1}.0.bn1")
    if not block.of_stage:
        return _TIMM_ENDS[op.role]
    prefix = f"blocks.{block.stage}.{block.layer}."
    if op.role in ("squeeze", "excite"):
        return Keys(prefix + {"squeeze": "se.conv_reduce", "excite": "se.conv_expand"}[op.role])
    if block.expands:
        layer, norm = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}[
            op.role
        ]
    else:
        layer, norm = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}[op.role]
    return Keys(prefix + layer, prefix + norm)


def spare_of_supernet(name: str) -> bool:
    """Return whether a tensor of a supernet's file is none of its weights: unused shortcuts, statistics of sizes."""
    return name.endswith(".shortcut.conv.weight") or ".bn_tracking." in name or ".bn.running_" in name
