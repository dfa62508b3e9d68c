"""Training steps of the supernet, engine against engine and form against form: images a second and CPU time.

    python benchmarks/train_step.py --engine jax --space bignas-imagenette --forms
    python benchmarks/train_step.py --engine tensorflow --space bignas-micro --batch 32 --form precision=bfloat16

Measured is a step of the sandwich as a recipe trains it (biggest, random children, smallest; forward, backward,
optimizer), on random images. The forms take turns, round by round, so that a machine that grows slower or
busier does so for all of them; figures are medians over the rounds. A process runs one engine: `--json` of two
calls gives the two halves of a comparison of engines.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from typing import Any

ATTENTIVENAS = "attentivenas-sized"
FIELDS = ("batch_norm", "depthwise", "branch", "precision", "program")
#: What `--forms` compares with the engine's own form in bfloat16: one change each.
CHANGES = ({}, {"depthwise": "shifted"}, {"precision": "float32"}, {"branch": "where"})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("jax", "tensorflow"), default="jax")
    parser.add_argument("--space", default="bignas-imagenette")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="steps of each form in a round [10]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--random-children", type=int, default=2)
    parser.add_argument("--forms", action="store_true", help="bfloat16, native depthwise and cond, and one change each")
    parser.add_argument(
        "--form", action="append", default=[], metavar="FIELD=VALUE[,...]", help=f"fields: {', '.join(FIELDS)}"
    )
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no further form begins")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def forms(chosen: argparse.Namespace) -> list[dict[str, str]]:
    """Return what each form changes in the recipe; without a choice, the engine's own form alone."""
    given = [dict(part.split("=", 1) for part in text.split(",")) for text in chosen.form]
    base = {"precision": "bfloat16"}
    if chosen.engine == "jax":
        base |= {"depthwise": "native", "branch": "cond"}
    return [*([{**base, **change} for change in CHANGES] if chosen.forms else []), *given] or [{}]


def attentivenas_sized() -> Any:
    """A space of AttentiveNAS's widths, depths, kernels, expansions and squeeze-excites (arXiv 2011.09011, table 7).

    Its blocks are this project's: its head and shortcuts differ, so weights do not fit; the work is the same to a few
    percent (smallest child 207 MMACs, the original 203).
    """
    from bignas_zoo.architecture.forms import SqueezeExcite
    from bignas_zoo.architecture.space import SearchSpace
    from bignas_zoo.architecture.stage import StageSpace

    gate = SqueezeExcite(source="expanded", rounding=8, activation="relu", gate="hard_sigmoid")

    def stage(widths: range, depths: range, expansions: tuple[int, ...], stride: int, gated: bool) -> StageSpace:
        se = gate if gated else None
        return StageSpace(tuple(widths), tuple(depths), (3, 5), stride, expansions, se)

    return SearchSpace(
        name=ATTENTIVENAS,
        source="sizes of AttentiveNAS, arXiv 2011.09011",
        classes=1000,
        resolutions=(192, 224, 256, 288),
        stem_widths=(16, 24),
        stages=(
            stage(range(16, 25, 8), range(1, 3), (1,), 1, False),
            stage(range(24, 33, 8), range(3, 6), (4, 5, 6), 2, False),
            stage(range(32, 41, 8), range(3, 7), (4, 5, 6), 2, True),
            stage(range(64, 73, 8), range(3, 7), (4, 5, 6), 2, False),
            stage(range(112, 129, 8), range(3, 9), (4, 5, 6), 1, True),
            stage(range(192, 217, 8), range(3, 9), (6,), 2, True),
            stage(range(216, 225, 8), range(1, 3), (6,), 1, True),
        ),
        head_widths=(1792, 1984),
    )


class Form:
    """One engine over its own weights, compiled by its first step."""

    def __init__(self, name: str, recipe: Any, images: Any) -> None:
        from bignas_zoo.models.preprocess import Preprocess
        from bignas_zoo.recipes.data.dataset import open_batches
        from bignas_zoo.recipes.engines.choosing import make_engine

        self.recipe, self.done = recipe, 0
        self.engine = make_engine(name, recipe, Preprocess(recipe.crop_size, recipe.mean, recipe.std))
        self.stream = open_batches(images, recipe, self.engine)
        began = time.perf_counter()
        self.step()
        self.first = time.perf_counter() - began
        self.step()  # may still allocate
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.operations: list[int] = []

    def step(self) -> None:
        from bignas_zoo.recipes.engines.engine import StepInput
        from bignas_zoo.recipes.methods.sandwich import control

        given = StepInput(self.stream.at(self.done), control(self.recipe, self.done, {}), 0.01)
        float(self.engine.step(given)["loss"])  # waits until the step is over
        self.done += 1

    def measure(self, steps: int) -> None:
        from bignas_zoo.architecture.cost import macs
        from bignas_zoo.recipes.methods.sandwich import children

        for _ in range(steps):
            work = sum(map(macs, children(self.recipe, self.done))) * self.recipe.batch_size
            self.operations.append(6 * work)  # forward, and backward twice as much; a MAC is two operations
            before, began = os.times(), time.perf_counter()
            self.step()
            self.seconds.append(time.perf_counter() - began)
            after = os.times()
            self.cpu.append(after.user + after.system - before.user - before.system)

    def figures(self) -> dict[str, float]:
        seconds = statistics.median(self.seconds)
        return {
            "seconds": round(seconds, 5),
            "cpu_seconds": round(statistics.mean(self.cpu), 5),  # the clock's ticks are too coarse for a median
            "images_per_second": round(self.recipe.batch_size / seconds, 1),
            "gflop_per_cpu_second": round(sum(self.operations) / sum(self.cpu) / 1e9, 1),
            "compile_seconds": round(self.first - seconds, 1),
        }


def measure(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all forms; those that the limit leaves no time for have no figures."""
    import numpy as np

    from bignas_zoo.architecture.spaces import SPACES, get_space
    from bignas_zoo.recipes.data import LabelledImages
    from bignas_zoo.recipes.methods.sandwich import Sandwich
    from bignas_zoo.recipes.recipe import Recipe

    began = time.monotonic()
    SPACES[ATTENTIVENAS] = attentivenas_sized()
    space = get_space(chosen.space)
    side = space.resolutions[-1]
    recipe = Recipe(
        name="step", space=chosen.space, crop_size=side, mean=(128.0,) * 3, std=(64.0,) * 3, steps=1_000_000, holdout=1,
        batch_size=chosen.batch, method=Sandwich(random_children=chosen.random_children),
    )  # fmt: skip
    generator = np.random.default_rng(0)
    count = max(2 * chosen.batch, 512)
    pixels = generator.integers(0, 256, (count, side, side, 3), np.uint8)
    labels = generator.integers(0, space.classes, count).astype(np.int32)
    images = LabelledImages(pixels, labels, tuple(map(str, range(space.classes))), "noise")
    entries: list[dict[str, Any]] = [{"form": form} for form in forms(chosen)]
    ready = []
    for entry in entries:
        if time.monotonic() - began < chosen.limit:
            ready.append((entry, Form(chosen.engine, dataclasses.replace(recipe, **entry["form"]), images)))
            print(f"{title(entry['form'])}: first step {ready[-1][1].first:.1f} s", file=sys.stderr, flush=True)
    for _ in range(chosen.rounds):
        for _, form in ready:
            form.measure(chosen.steps)
    for entry, form in ready:
        entry |= form.figures()
    return entries


def title(form: dict[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in form.items()) or "the engine's own"


def show(entries: list[dict[str, Any]]) -> None:
    print(f"{'images/s':>10} {'s a step':>9} {'CPU s a step':>12} {'GFLOP/CPU s':>12} {'compile s':>10}  form")
    for e in entries:
        if "seconds" in e:
            keys = ("images_per_second", "seconds", "cpu_seconds", "gflop_per_cpu_second", "compile_seconds")
            print("{:>10,.1f} {:>9.4f} {:>12.4f} {:>12.1f} {:>10.1f}".format(*(e[k] for k in keys)), end="")
        else:
            print(f"{'left out: no time':>57}", end="")
        print(f"  {title(e['form'])}")


def main() -> None:
    chosen = arguments()
    os.environ["KERAS_BACKEND"] = chosen.engine
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    entries = measure(chosen)
    from bignas_zoo.files.provenance import machine, versions

    device = "CPU"
    if chosen.engine == "jax":
        import jax

        device = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    settings = {k: vars(chosen)[k] for k in ("engine", "space", "batch", "steps", "rounds", "random_children")}
    about = {**settings, "device": device, "machine": machine(), "versions": versions()}
    if chosen.json:
        print(json.dumps({"schema": "bignas-zoo/train-step/1", **about, "forms": entries}, indent=2))
        return
    print(f"{device}; {chosen.engine}, {chosen.space}, batch {chosen.batch}, {chosen.rounds} rounds of {chosen.steps}")
    show(entries)


if __name__ == "__main__":
    main()
