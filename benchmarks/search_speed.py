"""Children a minute: the search's measurement against the usual loop of extract, calibrate, evaluate.

    python benchmarks/search_speed.py DATA [--children 10] [--sizes 1000:500 200:100 large]

The usual loop is that of Once-for-All and AlphaNet: for each child a network of its own is cut from the supernet, its
batch norms are calibrated, and a graph of its own classifies the images. Both take the same weights, calibration
images, images and children, on one thread, each in a process of its own; CPU seconds of the process, so that other
work on the machine counts for little. `large` takes children of a space of AttentiveNAS's size, with random weights and
random images, 64 to calibrate and 64 to classify. The table goes to benchmarks/search_speed.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPORT = Path(__file__).with_suffix(".md")
FAMILY, LARGE = "bignas-cifar10", "large"
NOTE = (
    f"Random children; of `{FAMILY}` calibrated on training images and measured on held-out ones; CPU seconds of one "
    "thread while the machine did other work. The loop's building, tracing and calibrating of a network cost the same "
    "with few images, so the ratio falls as a child takes more of them; a search of this family takes 2,500 and 2,000."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--children", type=int, default=10)
    parser.add_argument("--sizes", nargs="+", default=["1000:500", "200:100", LARGE],
                        help="images:calibration images, or large")  # fmt: skip
    parser.add_argument("--way", choices=("shared", "loop"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options)))
        return
    parts = []
    for size in options.sizes:
        rows = {}
        for way in ("shared", "loop"):
            command = [sys.executable, __file__, options.data, "--children", str(options.children), "--sizes", size]
            done = subprocess.run([*command, "--way", way], check=True, stdout=subprocess.PIPE, text=True)
            rows[way] = json.loads(done.stdout.splitlines()[-1])
            print(size, way, rows[way]["seconds"], file=sys.stderr)
        parts.append(section(rows))
    title = "# Children a minute in a search"
    machine = rows["shared"]["machine"]
    made = f"Made by `python benchmarks/search_speed.py DATA --children {options.children}` on {machine}."
    versions = f"Versions: {json.dumps(rows['shared']['versions'])}."
    REPORT.write_text("\n\n".join([title, made, NOTE, versions, *parts]) + "\n", "utf-8")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure children in one way, in this process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    import bignas_zoo as bz
    from bignas_zoo.measure.evaluate import Evaluator, child_top1
    from bignas_zoo.provenance import machine, versions

    task = large_task(options) if options.sizes[0] == LARGE else family_task(options)
    evaluator = Evaluator(task.space, task.weights, task.preprocess, task.calibration)

    def loop(spec: bz.ChildSpec) -> float:
        return child_top1(task.child(spec), spec.resolution, task.preprocess, task.images)

    def shared(spec: bz.ChildSpec) -> float:
        return evaluator.top1(spec, task.images)

    measure = shared if options.way == "shared" else loop
    rows = []
    for spec in task.specs:
        cpu, wall = time.process_time(), time.monotonic()
        top1 = measure(spec)
        seconds = (time.process_time() - cpu, time.monotonic() - wall)
        rows.append({"top1": top1, "macs": bz.macs(spec), "resolution": spec.resolution, "cpu": seconds[0]})
        rows[-1]["wall"] = seconds[1]
    return {
        "rows": rows,
        "seconds": sum(r["cpu"] for r in rows),
        "machine": machine(),
        "versions": versions(),
        "images": len(task.images),
        "calibration": len(task.calibration),
        "space": task.space.name,
    }


@dataclasses.dataclass
class Task:
    """Children to measure, and what with; `child` makes the calibrated Keras model of one."""

    space: Any
    weights: dict[str, Any]
    preprocess: Any
    calibration: Any
    images: Any
    specs: list[Any]
    child: Callable[[Any], Any]


def family_task(options: argparse.Namespace) -> Task:
    """Return random children of the embedded family, with its weights and images."""
    import bignas_zoo as bz
    from bignas_zoo.measure.reopening import reopen
    from bignas_zoo.sampling import uniform_child
    from bignas_zoo.zoo import supernet_weights

    count, calibration = map(int, options.sizes[0].split(":"))
    home = bz.get_family(FAMILY)
    run = reopen(home, supernet_weights(home), options.data, None, lambda message: None)
    run = dataclasses.replace(run, calibration=run.calibration[:calibration])
    specs = [uniform_child(home.space, ("search speed", i)) for i in range(options.children)]
    images = run.holdout.take(slice(0, count))
    return Task(home.space, run.rounded, run.preprocess, run.calibration, images, specs, run.child)


def large_task(options: argparse.Namespace) -> Task:
    """Return the smallest and two random children of a space of AttentiveNAS's size, with random weights and images."""
    import numpy as np
    from train_step import attentivenas_sized

    from bignas_zoo.models.calibration import calibrate
    from bignas_zoo.models.child import build_child, set_weights
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.models.slicing import slice_weights
    from bignas_zoo.models.supernet import initial_weights
    from bignas_zoo.recipes.data import LabelledImages
    from bignas_zoo.sampling import uniform_child

    space, generator = attentivenas_sized(), np.random.default_rng(0)
    weights = initial_weights(space, 0, last_gamma=1.0)
    preprocess = Preprocess(224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    calibration, pixels = generator.integers(0, 256, (2, 64, 224, 224, 3)).astype(np.uint8)
    images = LabelledImages(pixels, generator.integers(0, 1000, 64), (), "random")
    specs = [space.smallest, *(uniform_child(space, ("search speed", i)) for i in range(2)), space.smallest]

    def child(spec: Any) -> Any:
        made = build_child(spec)
        set_weights(made, spec, slice_weights(weights, spec), calibrated=False)
        calibrate(made, [preprocess.inputs(calibration, spec.resolution)])
        return made

    return Task(space, weights, preprocess, calibration, images, specs, child)


def section(rows: dict[str, Any]) -> str:
    """Return the tables of one size as Markdown."""
    shared, loop = rows["shared"]["rows"], rows["loop"]["rows"]
    each = sum(r["cpu"] for r in shared[1:]) / (len(shared) - 1)
    usual = sum(r["cpu"] for r in loop) / len(loop)
    usual_later = sum(r["cpu"] for r in loop[1:]) / (len(loop) - 1)
    differ = max(abs(a["top1"] - b["top1"]) for a, b in zip(shared, loop, strict=True))
    lines = [
        f"## `{rows['shared']['space']}`, {rows['shared']['images']:,} images, {rows['shared']['calibration']:,} to "
        "calibrate",
        "",
        "| way | CPU s a child | children a CPU minute |",
        "|---|---|---|",
        f"| extract, calibrate, evaluate with a graph of its own | {usual:.2f} | {60 / usual:.1f} |",
        f"| blocks' shared graphs, after the first child | {each:.2f} | {60 / each:.1f} |",
        f"| the first child, which traces them | {shared[0]['cpu']:.2f} | |",
        "",
        f"{usual_later / each:.1f} times as many children a minute. Accuracies of the two ways differ by at most "
        f"{differ:.2f} points (an image is {100 / rows['shared']['images']:.2f}).",
        "",
        "| child | MMACs | px | shared, CPU s | loop, CPU s | top-1 % shared | top-1 % loop |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {i} | {a['macs'] / 1e6:.2f} | {a['resolution']} | {a['cpu']:.2f} | {b['cpu']:.2f} | "
            f"{a['top1']:.2f} | {b['top1']:.2f} |"
            for i, (a, b) in enumerate(zip(shared, loop, strict=True))
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
