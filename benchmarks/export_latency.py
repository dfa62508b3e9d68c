"""Latency of exported files for the arithmetic they do: this project's nets against others, and what costs what.

    python benchmarks/export_latency.py make FOLDER           # float32 and int8 files of every net, once
    python benchmarks/export_latency.py time FOLDER           # all of them in turns, 40 rounds on one thread
    python benchmarks/export_latency.py time FOLDER --only s efficientnet_b0

Nets have random weights and batch-norm statistics of random images: speed, not accuracy. All go through the same
exporter and quantiser. A round runs every file twice, in random order, each in a process of its own, and takes the CPU
time of the second call; figures are medians over the rounds, and ratios are medians of each round's ratio.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PRECISIONS = ("float32", "int8")
#: What each variant of a model of the paper, BigNAS-S if none is named, changes.
VARIANTS: dict[str, dict[str, Any]] = {
    "s": {},
    "s_no_se": {"squeeze_excite": False},
    "s_hard_swish": {"activation": "hard_swish"},
    "s_relu6": {"activation": "relu6"},
    "s_no_se_hard_swish": {"squeeze_excite": False, "activation": "hard_swish"},
    "s_no_se_relu6": {"squeeze_excite": False, "activation": "relu6"},
    "s_kernel3": {"kernels": 3},
    "s_200": {"resolution": 200},
    "s_208": {"resolution": 208},
    "s_hard_swish_parts": {"activation": "hard_swish", "parts": True},
    "s_224": {"resolution": 224},
    "m": {"base": "bignas-m"},
    "m_hard_swish": {"base": "bignas-m", "activation": "hard_swish"},
    "m_relu6": {"base": "bignas-m", "activation": "relu6"},
    "m_no_se_relu6": {"base": "bignas-m", "squeeze_excite": False, "activation": "relu6"},
}
OTHERS = ("efficientnet_b0", "mobilenet_v3_large")
SHIPPED = ("bignas-cifar10-s", "bignas-cifar10-m", "bignas-cifar10-biggest")


def paper_model(
    base: str = "bignas-s", squeeze_excite: bool | None = None, activation: str | None = None, **changes: Any
) -> tuple[Any, int]:
    """Build a model of the paper with something changed; return it and its MACs."""
    from bignas_zoo.architecture import cost
    from bignas_zoo.architecture.spaces import variant
    from bignas_zoo.architecture.spaces.bignas import BIGNAS, PAPER_MODELS
    from bignas_zoo.models.child import build_child

    choices = PAPER_MODELS[base].to_json()
    if "kernels" in changes:
        choices["kernels"] = [changes["kernels"]] * len(choices["kernels"])
    choices["resolution"] = changes.get("resolution", choices["resolution"])
    space = dataclasses.replace(BIGNAS, unseen_resolutions=(200, *BIGNAS.unseen_resolutions))
    space = variant(space, squeeze_excite=squeeze_excite, activation=activation)
    spec = space.spec(**{k: choices[k] for k in ("resolution", "widths", "depths", "kernels")})
    return rewritten(build_child(spec), **changes), cost.macs(spec)


def rewritten(child: Any, parts: bool = False, **_: Any) -> Any:
    """Return the same function; with `parts` hard_swish is an addition, a relu6 and a multiplication."""
    if not parts:
        return child
    import keras

    def change(layer: Any) -> Any:
        if layer.name.replace(".", "_").endswith("hard_swish"):
            return keras.layers.Lambda(lambda x: (x * (1 / 6)) * keras.ops.relu6(x + 3.0), name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(child, clone_function=change)


def other(name: str) -> tuple[Any, int]:
    """Build a network of keras.applications for 224 px; return it and its MACs, of convolutions and dense layers."""
    import keras

    make = {
        "efficientnet_b0": lambda **k: keras.applications.EfficientNetB0(**k),
        "mobilenet_v3_large": lambda **k: keras.applications.MobileNetV3Large(include_preprocessing=False, **k),
    }
    model = make[name](input_shape=(224, 224, 3), weights=None, classifier_activation=None)
    return model, sum(_macs(layer) for layer in model.layers)


def _macs(layer: Any) -> int:
    kind = type(layer).__name__
    if kind == "Dense":
        return int(layer.kernel.shape[0] * layer.kernel.shape[1])
    if kind not in ("Conv2D", "DepthwiseConv2D"):
        return 0
    _, height, width, _ = layer.output.shape
    return int(height * width * layer.kernel.shape[0] * layer.kernel.shape[1] * layer.kernel.shape[2]) * (
        int(layer.kernel.shape[3])
    )


def shipped(name: str) -> tuple[Any, int]:
    """Load a shipped slice; return it and its MACs."""
    import bignas_zoo as bz

    (chosen,) = (s for s in bz.list_slices() if s.name == name)
    return bz.load(name), chosen.macs


def nets() -> dict[str, Callable[[], tuple[Any, int]]]:
    """Return how each net is built."""
    return {
        **{name: (lambda changes=changes: paper_model(**changes)) for name, changes in VARIANTS.items()},
        **{name: (lambda name=name: other(name)) for name in OTHERS},
        **{name: (lambda name=name: shipped(name)) for name in SHIPPED},
    }


def settle(model: Any, images: Any) -> None:
    """Set batch-norm statistics to those of images: values that grow or vanish would take another time."""
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)


def make(folder: Path, only: list[str]) -> None:
    """Write the files of all nets, and nets.json with their MACs."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    import numpy as np

    from bignas_zoo.export.fold import pool_by_convolution
    from bignas_zoo.export.quantise import quantise
    from bignas_zoo.export.tflite import SIGNATURE, convert

    folder.mkdir(parents=True, exist_ok=True)
    for name, build in nets().items():
        if (only and name not in only) or (folder / f"{name}.json").exists():
            continue
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        model, macs = build()
        size = model.input_shape[1]
        pixels = np.random.default_rng(0).uniform(-1, 1, (64, size, size, 3)).astype(np.float32)
        images = (pixels + 1) * 127.5 if name == "efficientnet_b0" else pixels  # which normalises by itself
        if name not in SHIPPED:
            settle(model, images[:8])
        data = convert(model)
        (folder / f"{name}.float32.tflite").write_bytes(data)
        # As the exporter does it, but with all values within the ranges: it takes half the time, and is as fast.
        source = data if name in OTHERS else convert(pool_by_convolution(model))
        (folder / f"{name}.int8.tflite").write_bytes(quantise(source, images, SIGNATURE, cover=100))
        (folder / f"{name}.json").write_text(json.dumps({"macs": macs, "resolution": size}))
        print(f"{name}: {macs / 1e6:.1f} MMACs at {size} px", flush=True)


def measure(folder: Path, only: list[str], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return the CPU milliseconds of each file in each round."""
    from bignas_zoo.runtime.runner import LoadedFile

    taken: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        files = {}
        for name in (n for n in nets() if not only or n in only):
            for precision in PRECISIONS:
                path = folder / f"{name}.{precision}.tflite"
                files[name, precision] = stack.enter_context(LoadedFile(path, threads=1))
        for file in files.values():
            file.time(2)
        for number in range(rounds):
            for key in random.Random(number).sample(list(files), len(files)):
                timings = files[key].time(1, warmup=1)
                taken.setdefault(key, []).append(timings.thread[0] / 1e6)
    return taken


def report(folder: Path, taken: dict[tuple[str, str], list[float]]) -> None:
    """Print a table of the nets."""
    print("| net | px | MMACs | precision | ms (quartiles) | ms/100 MMACs | of EfficientNet-B0's | of BigNAS-S's ms |")
    print("|---|---|---|---|---|---|---|---|")
    for precision in PRECISIONS:
        for name in (n for n in nets() if (n, precision) in taken):
            facts = json.loads((folder / f"{name}.json").read_text())
            times, each = taken[name, precision], facts["macs"] / 1e8
            low, middle, high = statistics.quantiles(times, n=4)
            cells = [name, str(facts["resolution"]), f"{facts['macs'] / 1e6:.0f}", precision]
            cells += [f"{middle:.2f} ({low:.2f}-{high:.2f})", f"{middle / each:.2f}"]
            for against, scale in (("efficientnet_b0", each), ("s", 1)):
                cells.append(_ratio(folder, taken, (name, precision), against, per_mac=scale != 1))
            print(f"| {' | '.join(cells)} |")


def _ratio(folder: Path, taken: Any, key: tuple[str, str], against: str, *, per_mac: bool) -> str:
    """Return the median ratio to another net within a round, by MAC or as it is, and its quartiles."""
    base = taken.get((against, key[1]))
    if base is None:
        return "-"
    macs = [json.loads((folder / f"{n}.json").read_text())["macs"] for n in (key[0], against)] if per_mac else [1, 1]
    ratios = [a / b * macs[1] / macs[0] for a, b in zip(taken[key], base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("make", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], metavar="NET", help=f"of {', '.join(nets())}")
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    if chosen.command == "make":
        make(chosen.folder, chosen.only)
    else:
        report(chosen.folder, measure(chosen.folder, chosen.only, chosen.rounds))


if __name__ == "__main__":
    main()
