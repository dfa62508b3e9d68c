"""``bignas-zoo train`` and ``bignas-zoo family``: from a recipe to a family."""

from __future__ import annotations

import math
from pathlib import Path

import click

from bignas_zoo.cli.common import license_option, print_json, print_table, say
from bignas_zoo.cli.progress import elapsed_progress, training_progress
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.registry import get_family

DATA = "Folder of the recipe's images, a pattern or bucket of TFRecord files, or (train) a packed FILE.npz."
INHERITED = "that of the family the recipe starts from, or else unknown"
TEST_DATA = "Pattern of the TFRecord test files, where they cannot be told from --data."


@click.command("train")
@click.argument("recipe")
@click.option("--data", help=DATA)
@click.option("--test-data", help=TEST_DATA)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The run's folder [default: runs/RECIPE].")
@click.option(
    "--engine",
    type=click.Choice(["auto", "tensorflow", "jax"]),
    help="In place of the recipe's; auto takes JAX on a GPU or TPU, else TensorFlow.",
)
@click.option(
    "--classes-from-folders", is_flag=True, help="Train on the classes that --data has, whatever the space's."
)
@click.option("--minutes", type=float, help="With `photos`: to take in all [default: 60].")
@click.option("--seed", type=int, help="With `photos`: of every draw [default: 0].")
@license_option(INHERITED)
@click.option("--compile-only", metavar="TOPOLOGY", help="Train nothing: compile the step for TPUs, e.g. v3:8x8.")
@click.option("--json", "as_json", is_flag=True, help="With --compile-only: print one JSON object.")
def train_command(
    recipe: str,
    data: str | None,
    test_data: str | None,
    output: Path | None,
    engine: str | None,
    classes_from_folders: bool,
    minutes: float | None,
    seed: int | None,
    license: str | None,
    compile_only: str | None,
    as_json: bool,
) -> None:
    """Train a supernet by RECIPE (a YAML file or a shipped recipe's name) and make a family of it.

    With RECIPE `photos` (on a GPU `photos_gpu`), --data is a folder of your own photographs (FOLDER/CLASS/*.jpg), and
    training starts from EfficientNet-Lite0 and ends within --minutes.

    Run the same command again to go on after an interruption. SIGTERM saves a checkpoint and stops with
    exit code 75; so does Ctrl-C, with 130. `bignas-zoo curves` shows how far a run is.

    With --compile-only the TPU's compiler (pip install 'bignas-zoo[tpu]') says what a step would need;
    neither images nor a TPU are wanted.
    """
    if compile_only:
        _compile_only(recipe, compile_only, as_json)
        return
    if as_json:
        raise click.UsageError("--json goes with --compile-only; a training's figures are in RUN/metrics.jsonl.")
    if data is None:
        raise click.UsageError("Missing option '--data' (only --compile-only does without).")
    run = output or Path("runs") / Path(recipe).stem
    from bignas_zoo.tasks.train_photos import photos_recipe

    if photos_recipe(recipe):
        if test_data is not None:
            raise click.UsageError("--test-data does not go with recipes of photographs: name FOLDER/test in --data.")
        _train_photos(recipe, data, run, engine, minutes, seed, license)
        return
    if minutes is not None or seed is not None:
        raise click.UsageError(
            "--minutes and --seed go with recipes of photographs, such as `train photos`; others have their own steps "
            "and seed."
        )
    from bignas_zoo.tasks import train as training

    with training_progress() as report:
        folder = training.train(
            recipe, data, run, test_data=test_data, engine=engine, classes_from_folders=classes_from_folders,
            license=license, say=say, report=report,
        )  # fmt: skip
    if folder is None:
        click.echo(
            f"Trained: {run}\nNext, where TensorFlow is installed: bignas-zoo family {run} {_images(data, test_data)}"
        )
    else:
        _print_family(get_family(folder), folder)


def _train_photos(
    recipe: str,
    data: str,
    run: Path,
    engine: str | None,
    minutes: float | None,
    seed: int | None,
    license: str | None,
) -> None:
    """Train on one's own photographs."""
    from bignas_zoo.tasks.train_photos import MINUTES, train_photos

    with training_progress() as report:
        folder = train_photos(
            data, run, recipe=recipe, engine=engine, minutes=MINUTES if minutes is None else minutes, seed=seed or 0,
            license=license, say=say, report=report,
        )  # fmt: skip
    _print_family(get_family(folder), folder)


def _images(data: str, test_data: str | None) -> str:
    """Return the options that name the images a family is measured on."""
    from bignas_zoo.recipes.data.packing import is_packed

    if is_packed(data) and not test_data:
        return f"--data DATA (the images that {data} was packed of)"
    return f"--data {data}{f' --test-data {test_data}' if test_data else ''}"


def _compile_only(recipe: str, topology: str, as_json: bool) -> None:
    from bignas_zoo.tasks.train import compile_only

    with elapsed_progress(f"compiling for {topology}") as report:
        compiled = compile_only(recipe, topology, report=report)
    if as_json:
        print_json("compile", compiled.to_json())
    else:
        print_table(("what", ">value", "note"), compiled.table())


@click.command("family")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", required=True, help=DATA)
@click.option("--test-data", help=TEST_DATA)
@license_option(INHERITED)
def family_command(run: Path, data: str, test_data: str | None, license: str | None) -> None:
    """Make a family of a finished training RUN: measure children, choose slices, store them.

    `train` does this by itself where TensorFlow is installed.
    """
    from bignas_zoo.tasks.make_family import make_family

    folder = make_family(data, run, test_data=test_data, license=license, say=say)
    _print_family(get_family(folder), folder)


def _print_family(family: Family, folder: Path) -> None:
    print_table(
        ("slice", ">MMACs", ">top-1 %", "measured on"),
        [(s.name, f"{s.macs / 1e6:.2f}", f"{s.top1:.2f}", s.top1_source) for s in family.slices],
    )
    click.echo(
        f"\nNext: bignas-zoo get --family {folder} --budget {math.ceil(family.slices[-1].macs / 1e4) / 100:g}MFLOPs"
    )
