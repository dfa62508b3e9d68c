"""Children a minute: the search's measurement against the usual loop of extract, calibrate, evaluate.

    python benchmarks/search_speed.py DATA [--children 10] [--sizes 1000:500 200:100]

The usual loop is that of Once-for-All and AlphaNet: for each child a network of its own is cut from the supernet, its
batch norms are calibrated, and a graph of its own classifies the images. Both take the same weights, calibration
images, images and children, on one thread, each in a process of its own; CPU seconds of the process, so that other
work on the machine counts for little. The table goes to benchmarks/search_speed.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPORT = Path(__file__).with_suffix(".md")
FAMILY = "bignas-cifar10"
NOTE = (
    f"Random children of `{FAMILY}`, calibrated on training images and measured on held-out ones; CPU seconds of one "
    "thread while the machine did other work. The loop's building, tracing and calibrating of a network cost the same "
    "with few images, so the ratio falls as a child takes more of them; a search of this family takes 2,500 and 2,000."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--children", type=int, default=10)
    parser.add_argument("--sizes", nargs="+", default=["1000:500", "200:100"], help="images:calibration images")
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
    from bignas_zoo.measure.reopening import reopen
    from bignas_zoo.provenance import machine, versions
    from bignas_zoo.sampling import uniform_child
    from bignas_zoo.zoo import supernet_weights

    count, calibration = map(int, options.sizes[0].split(":"))
    home = bz.get_family(FAMILY)
    run = reopen(home, supernet_weights(home), options.data, None, lambda message: None)
    run = dataclasses.replace(run, calibration=run.calibration[:calibration])
    images = run.holdout.take(slice(0, count))
    specs = [uniform_child(home.space, ("search speed", i)) for i in range(options.children)]
    evaluator = Evaluator(home.space, run.rounded, run.preprocess, run.calibration)

    def loop(spec: bz.ChildSpec) -> float:
        return child_top1(run.child(spec), spec.resolution, run.preprocess, images)

    def shared(spec: bz.ChildSpec) -> float:
        return evaluator.top1(spec, images)

    measure = shared if options.way == "shared" else loop
    seen: set[int] = set()
    rows = []
    for spec in specs:
        cpu, wall = time.process_time(), time.monotonic()
        top1 = measure(spec)
        seconds = (time.process_time() - cpu, time.monotonic() - wall)
        rows.append({"top1": top1, "macs": bz.macs(spec), "resolution": spec.resolution, "cpu": seconds[0]})
        rows[-1] |= {"wall": seconds[1], "first": spec.resolution not in seen}
        seen.add(spec.resolution)
    return {
        "rows": rows,
        "seconds": sum(r["cpu"] for r in rows),
        "machine": machine(),
        "versions": versions(),
        "images": len(images),
        "calibration": len(run.calibration),
    }


def section(rows: dict[str, Any]) -> str:
    """Return the tables of one size as Markdown."""
    shared, loop = rows["shared"]["rows"], rows["loop"]["rows"]
    later = [i for i, r in enumerate(shared) if not r["first"]]
    resolutions = len({r["resolution"] for r in shared})
    tracing = sum(r["cpu"] for r in shared if r["first"])
    each = sum(shared[i]["cpu"] for i in later) / max(1, len(later))
    usual = sum(r["cpu"] for r in loop) / len(loop)
    differ = max(abs(a["top1"] - b["top1"]) for a, b in zip(shared, loop, strict=True))
    space = 7  # resolutions of the space, each traced once a worker
    first = tracing / resolutions
    whole = (space * first + (200 - space) * each) / 200
    lines = [
        f"## {rows['shared']['images']:,} images, {rows['shared']['calibration']:,} to calibrate",
        "",
        "| way | CPU s a child | children a CPU minute |",
        "|---|---|---|",
        f"| extract, calibrate, evaluate with a graph of its own | {usual:.2f} | {60 / usual:.1f} |",
        f"| shared graph, resolution met before | {each:.2f} | {60 / each:.1f} |",
        f"| shared graph, first child of a resolution (traces it) | {first:.2f} | |",
        f"| shared graph, 200 children, {space} resolutions (from the two above) | {whole:.2f} | {60 / whole:.1f} |",
        "",
        f"{usual / each:.1f} times as many children a minute, {usual / whole:.1f} times over a search of 200 with its "
        f"tracing. Accuracies of the two ways differ by at most {differ:.2f} points (an image is "
        f"{100 / rows['shared']['images']:.2f}).",
        "",
        "| child | MMACs | px | shared, CPU s | loop, CPU s | top-1 % shared | top-1 % loop |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {i} | {a['macs'] / 1e6:.2f} | {a['resolution']} | {a['cpu']:.2f}{'*' * a['first']} | {b['cpu']:.2f} | "
            f"{a['top1']:.2f} | {b['top1']:.2f} |"
            for i, (a, b) in enumerate(zip(shared, loop, strict=True))
        ),
        "",
        "\\* traces the graph of its resolution.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
