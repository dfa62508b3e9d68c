"""Runs in an environment of its own that has torch, timm and ofa: files of weights, and what their networks say.

``python torch_judge.py JOBS.json FOLDER`` writes for each job NAME.pth, and NAME.npz with ``images`` (``[n, size, size,
3]``), ``logits`` of the network with the file's statistics, and ``calibrated`` ones after its project's own
calibration on ``calibration`` images. Weights are random, by numpy's frozen generator.

timm's and Once-for-all's networks are their packages'. AlphaNet's repository is no package: `attentivenas` below is its
arithmetic in torch's functions, on tensors by the names of its released file.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CLASSES, COUNT = 1000, 2
BATCHES = (6, 4)


def import_projects() -> None:
    """torchvision's operators may be built for another torch; both projects import it for their data only."""
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, OSError):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_projects.keep = library  # type: ignore[attr-defined]


def drawn(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    key = np.frombuffer(name.encode().ljust(4, b"\0"), np.uint8).sum()
    values = np.random.RandomState((seed * 7919 + int(key) * 31 + len(name)) % 2**31).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def value(seed: int, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A weight of no special form: gammas about 1, positive variances, kernels that keep the spread of their input."""
    noise = drawn(seed, name, tuple(tensor.shape))
    if name.endswith("running_var"):
        return 1 + 0.3 * torch.tanh(noise)
    if name.endswith("_matrix"):
        return torch.eye(tensor.shape[0]) + 0.15 * noise
    if tensor.ndim == 1:
        return 1 + 0.3 * torch.tanh(noise) if name.endswith("weight") else 0.1 * noise
    return noise / float(np.sqrt(np.prod(tensor.shape[1:])))


def randomise(net: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(value(seed, name, tensor))


def images(seed: int, count: int, size: int) -> torch.Tensor:
    return drawn(seed, f"images{size}", (count, 3, size, size))


def measured(net: nn.Module, seed: int, size: int) -> None:
    """Give a network statistics of its own, as a trained one has: else deep layers neither vary nor matter."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    for part in range(2):
        net(images(seed + 10 + part, 8, size))
    net.eval()


def channels_last(x: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))


def timm_net(job: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    import timm

    net, results = timm.create_model(job["net"], pretrained=False), {}
    randomise(net, 1)
    for size in job["sizes"]:
        measured(net, 1, size)
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        file = path.with_name(f"{path.stem}-{size}.pth")
        torch.save(state, file, _use_new_zipfile_serialization=size == job["sizes"][0])
        x = images(2, COUNT, size)
        results |= {f"images{size}": channels_last(x), f"logits{size}": net(x).numpy()}
    return results


def older(name: str) -> str:
    """A name as in Once-for-all's released files."""
    return name.replace(".conv.", ".mobile_inverted_conv.", 1) if name.startswith("blocks.") else name


@functools.cache
def ofa_supernet(width: float) -> nn.Module:
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

    net = OFAMobileNetV3(
        dropout_rate=0, width_mult=width, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )
    randomise(net, 3)
    return net.eval()


def ofa_child(net: nn.Module, child: Mapping[str, Any]) -> nn.Module:
    def of_layers(key: str) -> list[int]:
        return [n for layers in child[key] for n in (*layers, *(3,) * (4 - len(layers)))]

    net.set_active_subnet(ks=of_layers("kernels"), e=of_layers("expansions"), d=[len(k) for k in child["kernels"]])
    return net.get_active_subnet(preserve_weight=True).eval()


def ofa_net(job: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    net = ofa_child(ofa_supernet(job["width"]), job)
    measured(net, 3, job["size"])
    state = {older(name): tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    x = images(4, COUNT, job["size"])
    return {"images": channels_last(x), "logits": net(x).numpy()}


def ofa_of_supernet(job: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics

    net = ofa_supernet(job["width"])
    state = {f"module.{older(name)}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=False)
    results: dict[str, np.ndarray] = {}
    for number, child in enumerate(job["children"]):
        size, own = child["size"], ofa_child(net, child)
        x, batches = images(4, COUNT, size), [images(50 + n, n, size) for n in BATCHES]
        results[f"images{number}"], results[f"logits{number}"] = channels_last(x), own(x).numpy()
        set_running_statistics(own, [(batch, None) for batch in batches])
        results[f"calibration{number}"] = channels_last(torch.cat(batches))
        results[f"calibrated{number}"] = own.eval()(x).numpy()
    return results


# --- AlphaNet and AttentiveNAS --------------------------------------------------------------------------------------

#: Widest output, most layers, squeeze-excite; and the expansion of each of seven stages.
STAGES = (
    (24, 2, False, 1),
    (32, 5, False, 6),
    (40, 6, True, 6),
    (72, 6, False, 6),
    (128, 8, True, 6),
    (216, 8, True, 6),
    (224, 2, True, 6),
)
STRIDES = (1, 2, 2, 2, 1, 2, 1)


def eighths(value: float) -> int:
    n = max(1, int((value + 4) // 8)) * 8
    return n + 8 if n < 0.9 * value else n


def attentivenas_state(seed: int) -> dict[str, torch.Tensor]:
    """A supernet's file: names and shapes as its projects' code has them."""
    shapes: dict[str, tuple[int, ...]] = {"first_conv.conv.conv.weight": (24, 3, 3, 3)}

    def norm(name: str, n: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.bn.{key}"] = (n,)
        shapes[f"{name}.bn.bn_tracking.0.running_mean"] = (n,)

    norm("first_conv", 24)
    block, cin = 0, 24
    for cout, depth, gated, expansion in STAGES:
        for _ in range(depth):
            inner, mid = f"blocks.{block}.mobile_inverted_conv", cin * expansion
            if expansion > 1:
                shapes[f"{inner}.inverted_bottleneck.conv.conv.weight"] = (mid, cin, 1, 1)
                norm(f"{inner}.inverted_bottleneck", mid)
            shapes[f"{inner}.depth_conv.conv.conv.weight"] = (mid, 1, 5, 5)
            norm(f"{inner}.depth_conv", mid)
            if gated:
                hidden = eighths(mid // 4)
                for key, shape in (("reduce", (hidden, mid)), ("expand", (mid, hidden))):
                    shapes[f"{inner}.depth_conv.se.fc.{key}.weight"] = (*shape, 1, 1)
                    shapes[f"{inner}.depth_conv.se.fc.{key}.bias"] = shape[:1]
            shapes[f"{inner}.point_linear.conv.conv.weight"] = (cout, mid, 1, 1)
            norm(f"{inner}.point_linear", cout)
            shapes[f"blocks.{block}.shortcut.conv.conv.weight"] = (cout, cin, 1, 1)
            block, cin = block + 1, cout
    shapes["last_conv.final_expand_layer.conv.conv.weight"] = (1344, 224, 1, 1)
    norm("last_conv.final_expand_layer", 1344)
    shapes["last_conv.feature_mix_layer.conv.conv.weight"] = (1984, 1344, 1, 1)
    shapes["classifier.linear.linear.weight"], shapes["classifier.linear.linear.bias"] = (CLASSES, 1984), (CLASSES,)
    return {f"module.{name}": value(seed, name, torch.empty(shape)) for name, shape in shapes.items()}


def attentivenas(
    state: Mapping[str, torch.Tensor], arch: Mapping[str, Any], x: torch.Tensor, norm: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """One child: leading channels, first layers, centres of kernels; `norm` is given a name, a map, gamma and beta."""

    def weight(name: str) -> torch.Tensor:
        return state[f"module.{name}.weight"]

    def normed(name: str, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        return norm(name, x, weight(f"{name}.bn.bn")[:n], state[f"module.{name}.bn.bn.bias"][:n])

    def conv(name: str, x: torch.Tensor, cout: int) -> torch.Tensor:
        return functional.conv2d(x, weight(f"{name}.conv.conv")[:cout, : x.shape[1]])

    stem, *widths, head = arch["width"]
    x = functional.conv2d(x, weight("first_conv.conv.conv")[:stem], stride=2, padding=1)
    x = functional.silu(normed("first_conv", x))
    first = 0
    for (_, most, gated, _), stride, cout, depth, k, e in zip(
        STAGES, STRIDES, widths, arch["depth"], arch["kernel"], arch["expand"], strict=True
    ):
        for layer in range(depth):
            block, step, cin = f"blocks.{first + layer}", stride if layer == 0 else 1, x.shape[1]
            inner, short = f"{block}.mobile_inverted_conv", x
            if step > 1:
                short = functional.avg_pool2d(short, 2, padding=short.shape[-1] % 2)
            if cin != cout:
                short = conv(f"{block}.shortcut", short, cout)
            y = x
            if e > 1:
                y = conv(f"{inner}.inverted_bottleneck", y, cin * e)
                y = functional.silu(normed(f"{inner}.inverted_bottleneck", y))
            mid, cut = y.shape[1], (5 - k) // 2
            kernel = weight(f"{inner}.depth_conv.conv.conv")[:mid, :, cut : 5 - cut, cut : 5 - cut]
            y = functional.conv2d(y, kernel, stride=step, padding=k // 2, groups=mid)
            y = functional.silu(normed(f"{inner}.depth_conv", y))
            if gated:
                hidden, gate = eighths(mid // 4), f"module.{inner}.depth_conv.se.fc."
                pooled = y.mean((2, 3), keepdim=True)
                pooled = functional.conv2d(
                    pooled, state[f"{gate}reduce.weight"][:hidden, :mid], state[f"{gate}reduce.bias"][:hidden]
                )
                pooled = functional.conv2d(
                    pooled.relu(), state[f"{gate}expand.weight"][:mid, :hidden], state[f"{gate}expand.bias"][:mid]
                )
                y = y * functional.relu6(pooled + 3) / 6
            x = normed(f"{inner}.point_linear", conv(f"{inner}.point_linear", y, cout)) + short
        first += most
    x = functional.silu(
        normed("last_conv.final_expand_layer", conv("last_conv.final_expand_layer", x, x.shape[1] * 6))
    ).mean((2, 3), keepdim=True)
    x = functional.silu(conv("last_conv.feature_mix_layer", x, head)).flatten(1)
    return functional.linear(
        x, weight("classifier.linear.linear")[:, :head], state["module.classifier.linear.linear.bias"]
    )


def attentivenas_supernet(job: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    import argparse

    state = attentivenas_state(5)
    saved = {"state_dict": state, "epoch": 360, "args": argparse.Namespace(seed=0)}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    results: dict[str, np.ndarray] = {}
    for number, arch in enumerate(job["children"]):
        size = arch["size"]
        x, calibration = images(6, COUNT, size), images(7, 8, size)
        known: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

        def in_training(name: str, x: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
            mean, variance = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
            y = functional.batch_norm(x, mean, variance, *affine, training=True, momentum=1.0, eps=1e-5)
            known[name] = mean, variance  # what torch's batch norm keeps of one batch  # noqa: B023
            return y

        def in_use(name: str, x: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
            return functional.batch_norm(x, *known[name], *affine, eps=1e-5)  # noqa: B023

        attentivenas(state, arch, calibration, in_training)
        results[f"images{number}"], results[f"calibration{number}"] = channels_last(x), channels_last(calibration)
        results[f"calibrated{number}"] = attentivenas(state, arch, x, in_use).numpy()
    return results


KINDS = {
    "timm": timm_net,
    "ofa": ofa_net,
    "ofa-supernet": ofa_of_supernet,
    "attentivenas": attentivenas_supernet,
}


def main(jobs: str, folder: str) -> None:
    import_projects()
    torch.manual_seed(0)
    with torch.no_grad():
        for job in json.loads(Path(jobs).read_text()):
            path = Path(folder) / job["file"]
            np.savez(path.with_suffix(".npz"), **KINDS[job["kind"]](job, path))


if __name__ == "__main__":
    main(*sys.argv[1:])
