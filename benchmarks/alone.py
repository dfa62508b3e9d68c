"""Slices of `bignas-cifar10` against the same networks trained alone, as long as the supernet trained them.

    python benchmarks/alone.py run --data FOLDER --runs FOLDER [--child smallest --seed 0]
    python benchmarks/alone.py table

A child is trained by itself with the fields of `recipes/cifar10_cpu.yaml` (images, augmentation, optimizer, rate), in
a space that holds it alone, for as many steps as the supernet's sandwich took: 10,000 (of its 13,600 the first 3,600
trained the biggest alone), the biggest for 13,600. Statistics of 2,000 training images, accuracy on the 9,500 test
images: as the family's slices. A run that was stopped goes on from its checkpoint; one that is in
``benchmarks/alone.jsonl`` is not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = Path(__file__).with_suffix(".jsonl")
FAMILY = "bignas-cifar10"
#: Steps that the supernet took for each: its sandwich's, and the biggest's own before.
STEPS = {"smallest": 10_000, "s": 10_000, "m": 10_000, "biggest": 13_600}
#: What is run, first things first: three seeds of the two smallest, one of the others.
WANTED = [*((child, seed) for seed in range(3) for child in ("smallest", "s")), ("m", 0), ("biggest", 0)]


def slice_of(child: str):
    """Return the shipped slice."""
    from bignas_zoo.zoo.registry import get_family

    return get_family(FAMILY).find(child)


def space_of(child: str):
    """Return a space that holds one child only; recipes look spaces up by name."""
    from bignas_zoo.architecture import spaces

    spec = slice_of(child).spec
    stages = tuple(
        dataclasses.replace(
            stage,
            widths=(taken.width,),
            depths=(taken.depth,),
            kernels=(taken.kernels[0],),
            expansions=(taken.expansion,),
        )
        for stage, taken in zip(spec.space.stages, spec.stages, strict=True)
    )
    space = dataclasses.replace(
        spec.space,
        name=f"alone-{child}",
        resolutions=(spec.resolution,),
        unseen_resolutions=(),
        stem_widths=(spec.stem_width,),
        head_widths=(spec.head_width,),
        stages=stages,
    )
    spaces.SPACES[space.name] = space
    from bignas_zoo.architecture import cost

    assert (cost.macs(space.biggest), cost.parameters(space.biggest)) == (cost.macs(spec), cost.parameters(spec))
    return space


def train(child: str, seed: int, data: Path, runs: Path) -> dict[str, object]:
    """Make one run, or go on with it; return its record."""
    from bignas_zoo.files.provenance import machine, versions
    from bignas_zoo.measure.evaluate import Evaluator
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data.dataset import open_dataset
    from bignas_zoo.recipes.recipe import find_recipe, read_recipe
    from bignas_zoo.recipes.train import train as train_supernet

    steps = STEPS[child]
    recipe = read_recipe(find_recipe("cifar10_cpu")).with_fields(
        name=f"alone-{child}", space=space_of(child).name, steps=steps, biggest_only_steps=steps, seed=seed,
        evaluate_every=1_000, checkpoint_every=500,
    )  # fmt: skip
    dataset = open_dataset(recipe, data, None)
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)

    def top1(weights, images) -> float:
        evaluator = Evaluator(recipe.search_space, weights, preprocess, dataset.calibration)
        return evaluator.top1(recipe.search_space.biggest, images)

    def curve(weights) -> dict[str, float]:
        value = round(top1(weights, dataset.holdout), 2)
        print(f"{child} seed {seed}: {value} % held out, {time.process_time():.0f} CPU s", flush=True)
        return {"smallest": value, "biggest": value}

    cpu = time.process_time()
    weights = train_supernet(recipe, dataset.images, runs / f"{child}-{seed}", curve, lambda progress: None, print)
    return {
        "child": child, "seed": seed, "steps": steps, "top1": round(top1(weights, dataset.test), 2),
        "test_images": len(dataset.test), "cpu_seconds_of_last_process": round(time.process_time() - cpu),
        "machine": machine(), "versions": versions(),
    }  # fmt: skip


def done() -> dict[tuple[str, int], dict[str, object]]:
    """Return the runs that are recorded."""
    lines = RESULTS.read_text("utf-8").splitlines() if RESULTS.is_file() else []
    return {(r["child"], r["seed"]): r for r in map(json.loads, lines)}


def table() -> None:
    """Print each child alone beside its slice."""
    runs = done()
    print("| child | MMACs | steps alone | alone, % (seeds) | slice, % | slice - alone |\n|---|---|---|---|---|---|")
    for child, steps in STEPS.items():
        values = [float(r["top1"]) for (name, _), r in sorted(runs.items()) if name == child]
        slice_ = slice_of(child)
        cells = ("not run", "")
        if values:
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            mean = statistics.mean(values)
            cells = (f"{mean:.2f}{spread} ({len(values)})", f"{slice_.top1 - mean:+.2f}")
        print(f"| {child} | {slice_.macs / 1e6:.2f} | {steps:,} | {cells[0]} | {slice_.top1:.2f} | {cells[1]} |")


def main() -> None:
    """Run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/alone"))
    parser.add_argument("--child", choices=tuple(STEPS))
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    if options.action == "table":
        table()
        return
    for child, seed in WANTED:
        if (child, seed) in done() or options.child not in (None, child) or options.seed not in (None, seed):
            continue
        record = train(child, seed, options.data, options.runs)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
        return  # a process a run: spaces of this name are looked up once


if __name__ == "__main__":
    main()
