"""Memory under tflite-micro: what `architecture.arena` says of networks, against what the interpreter itself counts.

    python benchmarks/arena.py [--count 20] [--seed held-out] [--output benchmarks/arena.md]

Random children of the zoo's spaces in all activations, and ImageNet slices, as int8 files with int8 ends. Weights are
drawn at random where a network has none: memory does not depend on them. tflite-micro (PyPI, x86-64, reference kernels)
tells head and tail of its arena, and the smallest arena that a file runs in is found by bisection to 16 bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bignas_zoo.architecture import arena, cost
from bignas_zoo.architecture.forms import Shortcut
from bignas_zoo.architecture.lowering import lower
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.export.tflite import convert
from bignas_zoo.files.formats import Export
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.models.slicing import child_shapes
from bignas_zoo.models.weighted import WeightedNetwork
from bignas_zoo.runtime.micro import measure
from bignas_zoo.zoo.registry import get_family

LITE = ("efficientnet-lite0-128", "efficientnet-lite0-224", "efficientnet-lite1-192", "efficientnet-lite2-260")
IMAGES = 64
SHORTCUTS = (
    Shortcut("project_first"),
    Shortcut("identity_unchanged"),
    Shortcut("identity", "subsample"),
    Shortcut("project_changed", "average_padded"),
)


def networks(count: int, seed: str = "arena") -> Iterator[tuple[str, Network]]:
    """Yield names and networks: slices, then random children."""
    slices = {s.name: s for name in ("bignas-cifar10", "efficientnet-lite") for s in get_family(name).slices}
    for name in ("bignas-cifar10-smallest", "bignas-cifar10-m", "bignas-cifar10-biggest", *LITE):
        yield name, slices[name].network
    space = get_space("bignas-cifar10")
    plain = dataclasses.replace(
        space, name="plain", stages=tuple(dataclasses.replace(s, squeeze_excite=None) for s in space.stages)
    )
    for number in range(count):
        activation, shortcut = (
            ("swish", "hard_swish", "relu6", "relu")[number % 4],
            SHORTCUTS[number // 8 % len(SHORTCUTS)],
        )
        form = dataclasses.replace((space, plain)[number // 4 % 2], activation=activation, shortcut=shortcut)
        child = uniform_child(form, (seed, number), form.resolutions[number % len(form.resolutions)])
        gate = "" if form.stages[0].squeeze_excite else ", no squeeze-excite"
        yield f"random {number}: {activation}{gate}, shortcut {shortcut.rule}", child


def file_of(network: Network) -> bytes:
    """Return an int8 file of a network with random weights."""
    draw = np.random.default_rng(0)
    weights = {}
    for name, shape in child_shapes(network, statistics=True).items():
        values = draw.normal(0, 1 / np.sqrt(max(1, np.prod(shape[:-1]))), shape).astype(np.float32)
        if name.endswith(("gamma", "variance")):
            values = draw.uniform(0.5, 1.5, shape).astype(np.float32)
        weights[name] = values
    side = network.resolution
    images = draw.normal(size=(IMAGES, side, side, 3)).astype(np.float32)
    return convert(WeightedNetwork(network, weights), Export("tflite", "int8", io="int8"), images=images)


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", default="arena", help="of the random children; the fit is to those of 'arena'")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    for name, network in networks(options.count, options.seed):
        data = file_of(network)
        found = measure(data)
        nodes = lower(network, quarters=True)
        predicted = arena.arena(nodes)
        kinds = {kind: sum(node.kind == kind for node in nodes) for kind in sorted({node.kind for node in nodes})}
        channels = sum(n.output.shape[-1] for n in nodes if (n.op or n.kind == "quarter") and n.kind != "dense")
        rows.append((name, network.resolution, found, arena.activations(nodes), predicted, cost.macs(network)))
        facts = {"name": name, "channels": channels, "kinds": kinds, **found.to_json(), "predicted": predicted}
        print(json.dumps({**facts, "activations_predicted": arena.activations(nodes)}), flush=True)
    lines = [
        "# Memory under tflite-micro, int8 files with int8 ends",
        "",
        f"Made by `python benchmarks/arena.py --count {options.count} --seed {options.seed}` on {machine()}, "
        f"{', '.join(f'{k} {v}' for k, v in versions().items())}. Bytes. "
        "Found: the smallest arena that a file runs in.",
        "",
        "| network | px | MMACs | activations: found | predicted | arena: found | predicted | off by |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {side} | {macs / 1e6:.2f} | {found.activations:,} | {activations:,} | {found.arena:,} | "
            f"{predicted:,} | {100 * (predicted / found.arena - 1):+.2f} % |"
            for name, side, found, activations, predicted, macs in rows
        ),
    ]
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", "utf-8")
    worst = max(abs(predicted / found.arena - 1) for _, _, found, _, predicted, _ in rows)
    exact = sum(found.activations == activations for _, _, found, activations, _, _ in rows)
    print(f"activations exact: {exact} of {len(rows)}; arena off by at most {worst:.2%}", file=sys.stderr)


if __name__ == "__main__":
    main()
