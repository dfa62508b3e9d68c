"""Children a minute: the search's measurement against the usual loop of extract, calibrate, evaluate.

    python benchmarks/search_speed.py DATA [--children 10] [--sizes 1000:500 200:100 large] [--of random search]
        [--ways shared loop torch]

The usual loop is that of Once-for-All and AlphaNet: for each child a network of its own is cut from the supernet, its
batch norms are calibrated, and a graph of its own classifies the images. Both take the same weights, calibration
images, images and children, on one thread, each in a process of its own; CPU seconds of the process, so that other
work on the machine counts for little. `torch` (after `pip install torch`) is the same loop in PyTorch, as those two
have it; resizing and normalising the images is not in its time, but is in the others'. `large` takes children of a
space of AttentiveNAS's size, with random weights and random images, 64 to calibrate and 64 to classify. The table goes
to benchmarks/search_speed.md.

Random children share almost nothing; those of a search do (`models.prefixes`). `--of search` therefore takes, of the
embedded family, the first mutations that its own search measured, after the eight children before them, and of the
large space mutations of a random child.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPORT = Path(__file__).with_suffix(".md")
FAMILY, LARGE = "bignas-cifar10", "large"
WAYS = {
    "shared": "blocks' shared graphs, after the first child",
    "loop": "extract, calibrate, evaluate with a graph of its own",
    "torch": "the same loop in PyTorch",
}
TORCH_BATCH = 250
BEFORE = 8
NOTE = (
    f"Children of `{FAMILY}` are calibrated on training images and measured on held-out ones; CPU seconds of one "
    "thread while the machine did other work. Children of a search begin like earlier ones and go on from there; "
    "random ones do not. The loop's building, tracing and calibrating of a network cost the same with few images, so "
    "the ratio falls as a child takes more of them; a search of this family takes 2,500 and 2,000."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--children", type=int, default=10)
    parser.add_argument("--sizes", nargs="+", default=["1000:500", "200:100", LARGE],
                        help="images:calibration images, or large")  # fmt: skip
    parser.add_argument("--of", nargs="+", choices=("random", "search"), default=["random", "search"])
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=["shared", "loop"])
    parser.add_argument("--way", choices=tuple(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options)))
        return
    parts = []
    for size, of in itertools.product(options.sizes, options.of):
        rows = {}
        for way in options.ways:
            command = [sys.executable, __file__, options.data, "--children", str(options.children), "--sizes", size]
            command += ["--of", of, "--way", way]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows[way] = json.loads(done.stdout.splitlines()[-1])
            print(f"{size}, {of}, {way}: {rows[way]['seconds']:.0f} CPU s", file=sys.stderr, flush=True)
        parts.append(section(rows, of))
    title = "# Children a minute in a search"
    machine = rows["shared"]["machine"]
    command = f"python benchmarks/search_speed.py DATA --children {options.children} --ways {' '.join(options.ways)}"
    made = f"Made by `{command}` on {machine}."
    libraries = {name: version for found in rows.values() for name, version in found["versions"].items()}
    versions = f"Versions: {json.dumps(libraries)}."
    REPORT.write_text("\n\n".join([title, made, NOTE, versions, *parts]) + "\n", "utf-8")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure children in one way, in this process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    import bignas_zoo as bz
    from bignas_zoo.measure.evaluate import Evaluator, child_top1

    task = large_task(options) if options.sizes[0] == LARGE else family_task(options)
    evaluator = Evaluator(task.space, task.weights, task.preprocess, task.calibration)

    def loop(spec: bz.ChildSpec) -> float:
        return child_top1(task.child(spec), spec.resolution, task.preprocess, task.images)

    def shared(spec: bz.ChildSpec) -> float:
        return evaluator.top1(spec, task.images)

    if options.way == "torch":
        rows = [in_torch(task, spec) for spec in task.specs]
        return report(task, rows)
    measure = shared if options.way == "shared" else loop
    for spec in task.before:
        measure(spec)
    rows = []
    for spec in task.specs:
        cpu, wall = time.process_time(), time.monotonic()
        top1 = measure(spec)
        seconds = (time.process_time() - cpu, time.monotonic() - wall)
        rows.append({"top1": top1, "macs": bz.macs(spec), "resolution": spec.resolution, "cpu": seconds[0]})
        rows[-1]["wall"] = seconds[1]
    return report(task, rows)


def in_torch(task: Task, spec: Any) -> dict[str, Any]:
    """Measure a child as a PyTorch network of its own."""
    import numpy as np
    import torch
    from torch_child import TorchChild, top1

    import bignas_zoo as bz
    from bignas_zoo.models.slicing import slice_weights

    torch.set_num_threads(1)
    calibration, images = (
        list(torch.from_numpy(np.array(x).transpose(0, 3, 1, 2)).contiguous().split(TORCH_BATCH))
        for x in (task.preprocess.inputs(p, spec.resolution) for p in (task.calibration, task.images.pixels))
    )
    cpu, wall = time.process_time(), time.monotonic()
    child = TorchChild(spec, slice_weights(task.weights, spec))
    child.calibrate(calibration)
    found = top1(child, images, task.images.labels)
    seconds = time.process_time() - cpu, time.monotonic() - wall
    return {"top1": found, "macs": bz.macs(spec), "resolution": spec.resolution, "cpu": seconds[0], "wall": seconds[1]}


def report(task: Task, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what one process has measured."""
    from bignas_zoo.files.provenance import machine, versions

    libraries = dict(versions())
    if "torch" in sys.modules:
        libraries["torch"] = sys.modules["torch"].__version__
    return {
        "rows": rows,
        "seconds": sum(r["cpu"] for r in rows),
        "machine": machine(),
        "versions": libraries,
        "images": len(task.images),
        "calibration": len(task.calibration),
        "space": task.space.name,
    }


@dataclasses.dataclass
class Task:
    """Children to measure, after others that do not count, and what with; `child` makes a calibrated Keras model."""

    space: Any
    weights: dict[str, Any]
    preprocess: Any
    calibration: Any
    images: Any
    specs: list[Any]
    child: Callable[[Any], Any]
    before: list[Any] = dataclasses.field(default_factory=list)


def family_task(options: argparse.Namespace) -> Task:
    """Return children of the embedded family, with its weights and images."""
    import bignas_zoo as bz
    from bignas_zoo.architecture.sampling import uniform_child
    from bignas_zoo.files.say import silent
    from bignas_zoo.measure.reopening import reopen
    from bignas_zoo.tasks.cutting import supernet_weights

    count, calibration = map(int, options.sizes[0].split(":"))
    home = bz.get_family(FAMILY)
    run = reopen(home, supernet_weights(home, "benchmark"), options.data, None, silent)
    run = dataclasses.replace(run, calibration=run.calibration[:calibration])
    images = run.holdout.take(slice(0, count))
    task = Task(home.space, run.rounded, run.preprocess, run.calibration, images, [], run.child)
    if options.of == ["random"]:
        task.specs = [uniform_child(home.space, ("search speed", i)) for i in range(options.children)]
        return task
    measured = json.loads((home.folder / "front.json").read_text("utf-8"))["measured"]
    first = next(i for i, m in enumerate(measured) if m["origin"] == "mutation")
    specs = [bz.ChildSpec.from_json(m["spec"], home.space) for m in measured[: first + options.children]]
    task.before, task.specs = specs[first - BEFORE : first], specs[first:]
    return task


def large_task(options: argparse.Namespace) -> Task:
    """Return children of a space of AttentiveNAS's size, with random weights and images."""
    import numpy as np
    from train_step import attentivenas_sized

    from bignas_zoo.architecture.sampling import mutate, uniform_child
    from bignas_zoo.models.calibration import calibrate
    from bignas_zoo.models.child import build_child, set_weights
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.models.slicing import slice_weights
    from bignas_zoo.models.supernet import initial_weights
    from bignas_zoo.recipes.data import LabelledImages
    from bignas_zoo.search.coarse_to_fine import MUTATION_RATE

    space, generator = attentivenas_sized(), np.random.default_rng(0)
    weights = initial_weights(space, 0, last_gamma=1.0)
    preprocess = Preprocess(224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    calibration, pixels = generator.integers(0, 256, (2, 64, 224, 224, 3)).astype(np.uint8)
    images = LabelledImages(pixels, generator.integers(0, 1000, 64), (), "random")
    parent = uniform_child(space, ("search speed", 1))
    if options.of == ["random"]:
        specs = [space.smallest, uniform_child(space, ("search speed", 0)), parent, space.smallest]
    else:
        specs = [parent, *(mutate(parent, ("search speed", i), MUTATION_RATE) for i in range(6))]

    def child(spec: Any) -> Any:
        made = build_child(spec)
        set_weights(made, spec, slice_weights(weights, spec), calibrated=False)
        calibrate(made, [preprocess.inputs(calibration, spec.resolution)])
        return made

    return Task(space, weights, preprocess, calibration, images, specs, child)


def section(rows: dict[str, Any], of: str) -> str:
    """Return the tables of one size as Markdown."""
    found_by = {way: found["rows"] for way, found in rows.items()}
    seconds = {way: sum(r["cpu"] for r in found[1:]) / (len(found) - 1) for way, found in found_by.items()}
    pairs = [pair for found in found_by.values() for pair in zip(found_by["shared"], found, strict=True)]
    differ = max(abs(a["top1"] - b["top1"]) for a, b in pairs)
    images = rows["shared"]["images"]
    lines = [
        f"## `{rows['shared']['space']}`, {images:,} images, {rows['shared']['calibration']:,} to calibrate: "
        f"{'random children' if of == 'random' else 'children of a search'}",
        "",
        "| way | CPU s a child | children a CPU minute | shared graphs: times as many |",
        "|---|---|---|---|",
        *(
            f"| {says} | {seconds[way]:.2f} | {60 / seconds[way]:.1f} | "
            f"{seconds[way] / seconds['shared']:.1f} |"
            for way, says in WAYS.items() if way in found_by
        ),
        "",
        f"Without the first child, which traces the shared graphs ({found_by['shared'][0]['cpu']:.2f} s). "
        f"Accuracies differ by at most {differ:.2f} points (an image is {100 / images:.2f}).",
        "",
        "| child | MMACs | px |" + "".join(f" {way}, {what} |" for what in ("CPU s", "top-1 %") for way in found_by),
        "|---" * (3 + 2 * len(found_by)) + "|",
    ]  # fmt: skip
    for i, child in enumerate(found_by["shared"]):
        cells = [str(i), f"{child['macs'] / 1e6:.2f}", str(child["resolution"])]
        cells += [f"{found_by[way][i][key]:.2f}" for key in ("cpu", "top1") for way in found_by]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
