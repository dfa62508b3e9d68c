"""The paper's ablations at CPU size: ``python benchmarks/ablations.py run --data FOLDER`` and ``… table``.

Every run is one line of ``benchmarks/ablations.jsonl``; a run that is there is not made again, so the
command can be stopped and started at will, and several may work side by side (``--part 0/2``, ``--part
1/2``). ``table`` prints what ``benchmarks/ablations.md`` quotes.

All runs: space bignas-micro, CIFAR-10 less 2,500 held-out images, the same number of steps, batch and
seeds; accuracy on the test images after calibration on 1,000 training images.
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
SEEDS = (0, 1, 2)
#: What each run changes in the base recipe; "alone" names the one child that is trained by itself.
RUNS: dict[str, dict[str, object]] = {
    "base": {},
    "he": {"last_gamma": 1.0},
    "zero-30": {"learning_rate": 0.3},
    "he-30": {"last_gamma": 1.0, "learning_rate": 0.3},
    "to-zero": {"ending": 0.0005, "decay_until": 1.0},
    "linear-to-zero": {"decay": "linear", "ending": 0.0, "decay_until": 1.0},
    "ending-3": {"ending": 0.03},
    "ending-8": {"ending": 0.08},
    "ending-10": {"ending": 0.10},
    "regularise-all": {"regularise": "all"},
    "strong-biggest": {"weight_decay": 1e-3},
    "strong-all": {"weight_decay": 1e-3, "regularise": "all"},
    "sandwich-only": {"distillation": False},
    "distillation-only": {"smallest_child": False},
    "delayed": {"biggest_only_steps": 0.5},
    "alone-smallest": {"alone": "smallest"},
    "alone-middle": {"alone": "middle"},
    "alone-biggest": {"alone": "biggest"},
    # Not the paper's: what the networks that phones run faster cost in accuracy (export_latency.md).
    "hard-swish": {"activation": "hard_swish"},
    "relu6": {"activation": "relu6"},
    "no-squeeze-excite": {"squeeze_excite": False},
    "relu6-no-squeeze-excite": {"activation": "relu6", "squeeze_excite": False},
}


def base_recipe(seed: int):
    """The paper's rules with a rate that fits a batch of 96 (as 0.012 at 128), and a short warm-up."""
    from bignas_zoo.recipes.recipe import Recipe

    return Recipe(
        name="ablation", space="bignas-micro", crop_size=32, mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7),
        steps=STEPS, holdout=2500, batch_size=96, learning_rate=0.009, learning_rate_batch=96, warmup_steps=80,
        decay="exponential", crop_padding=4, seed=seed,
    )  # fmt: skip


STEPS = 1000


def middle_child(space):
    """The child half-way in every choice, at a middle resolution."""
    return space.spec(
        resolution=20, depths=[1, 2, 1, 2], widths=[16, 8, 24, 32, 64, 96], kernels=[3, 3, 5, 3]
    , expansions=[1, 3, 4, 4])  # fmt: skip


def one_child(label, spec):
    """A space that holds one child only, to train it by itself (recipes look spaces up by name, once)."""
    from bignas_zoo.architecture import spaces

    stages = tuple(
        dataclasses.replace(
            stage, widths=(s.width,), depths=(s.depth,), kernels=(s.kernels[0],), expansions=(s.expansion,)
        )
        for stage, s in zip(spec.space.stages, spec.stages, strict=True)
    )
    space = dataclasses.replace(
        spec.space, name=f"ablation-alone-{label}", resolutions=(spec.resolution,), stem_widths=(spec.stem_width,),
        head_widths=(spec.head_width,), stages=stages,
    )  # fmt: skip
    spaces.SPACES[space.name] = space
    return space


def children(space):
    """The three children that every run is measured on, of the run's own space: it has its activation."""
    return {"smallest": space.smallest, "middle": middle_child(space), "biggest": space.biggest}


def train(name: str, seed: int, images, test) -> dict[str, object]:
    """Make one run; return its record."""
    import numpy as np

    from bignas_zoo.files.provenance import machine, versions
    from bignas_zoo.measure.evaluate import Evaluator
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.data import TrainingBatches
    from bignas_zoo.recipes.engines.engine import StepInput
    from bignas_zoo.recipes.engines.tensorflow import TensorFlowEngine
    from bignas_zoo.recipes.methods import method_of
    from bignas_zoo.recipes.schedule import learning_rate

    changes = dict(RUNS[name])
    recipe = base_recipe(seed)
    alone = changes.pop("alone", None)
    if alone:
        space = one_child(alone, children(recipe.search_space)[str(alone)])
        recipe = recipe.with_fields(space=space.name, biggest_only_steps=STEPS)
    if "learning_rate" in changes:
        changes["learning_rate"] = recipe.learning_rate * float(changes["learning_rate"])
    if "biggest_only_steps" in changes:
        changes["biggest_only_steps"] = int(STEPS * float(changes["biggest_only_steps"]))
    recipe = recipe.with_fields(**changes)
    measured = {str(alone): recipe.search_space.biggest} if alone else children(recipe.search_space)
    preprocess = Preprocess(recipe.crop_size, recipe.mean, recipe.std)
    engine = TensorFlowEngine(recipe, preprocess, "single")
    stream = TrainingBatches(images, recipe)
    method = method_of(recipe)
    state = method.init(recipe)
    began, cpu = time.monotonic(), time.process_time()
    for step in range(STEPS):
        control = method.control(recipe, step, state)
        running = engine.step(StepInput(stream.at(step), control, learning_rate(recipe, step)))
        values = {name: float(value) for name, value in running.items()}
        if not np.isfinite(values["loss"]):
            break
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    record: dict[str, object] = {
        "run": name, "seed": seed, "steps": step + 1, "loss": values["loss"], "seconds": round(seconds),
        "cpu_seconds": round(cpu), "versions": versions(), "machine": machine(), "test_images": len(test),
    }  # fmt: skip
    if np.isfinite(values["loss"]):
        evaluator = Evaluator(recipe.search_space, engine.weights(), preprocess, images.pixels[:1000])
        record["top1"] = {k: round(evaluator.top1(spec, test), 2) for k, spec in measured.items()}
    return record


def done() -> dict[tuple[str, int], dict[str, object]]:
    """Return the runs that are recorded."""
    lines = RESULTS.read_text("utf-8").splitlines() if RESULTS.is_file() else []
    return {(r["run"], r["seed"]): r for r in map(json.loads, lines)}


def run_all(data: Path, part: int, parts: int, limit: int | None) -> None:
    """Make every run of this part that is not recorded yet, seed by seed."""
    from bignas_zoo.recipes.data import cifar10, split_holdout

    images, _ = split_holdout(cifar10(data, "train"), 2500, 0)
    test = cifar10(data, "test")
    wanted = [(name, seed) for seed in SEEDS for name in RUNS]
    for name, seed in [w for i, w in enumerate(wanted) if i % parts == part][:limit]:
        if (name, seed) in done():
            continue
        record = train(name, seed, images, test)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(name, seed, record.get("top1"), record["seconds"], "s", flush=True)


def table() -> None:
    """Print mean and spread of each run, and its difference to the base, seed by seed."""
    runs = done()
    print("| run | smallest | middle | biggest | runs |\n|---|---|---|---|---|")
    for name in RUNS:
        found = [runs[name, s] for s in SEEDS if (name, s) in runs]
        cells = []
        for child in ("smallest", "middle", "biggest"):
            values = [r["top1"][child] for r in found if child in r.get("top1", {})]
            base = [
                runs["base", r["seed"]]["top1"][child]
                for r in found
                if child in r.get("top1", {}) and ("base", r["seed"]) in runs
            ]
            if not values:
                cells.append("–")
                continue
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            text = f"{statistics.mean(values):.1f}{spread}"
            if name != "base" and len(base) == len(values):
                text += f" ({statistics.mean(v - b for v, b in zip(values, base, strict=True)):+.1f})"
            cells.append(text)
        failed = sum("top1" not in r for r in found)
        print(f"| {name} | {' | '.join(cells)} | {len(found)}{f', {failed} diverged' if failed else ''} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--part", default="0/1", help="I/N: every N-th run, from the I-th")
    parser.add_argument("--limit", type=int, help="at most so many runs of this part")
    options = parser.parse_args()
    if options.action == "table":
        table()
        return
    part, parts = map(int, options.part.split("/"))
    run_all(options.data, part, parts, options.limit)


if __name__ == "__main__":
    main()
