"""``bignas-zoo train``: from a recipe to a family."""

from __future__ import annotations

from pathlib import Path

import click

from bignas_zoo import zoo
from bignas_zoo.cli.common import print_table, say
from bignas_zoo.cli.progress import training_progress
from bignas_zoo.registry import get_family


@click.command("train")
@click.argument("recipe")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of the recipe's images.")
@click.option("--output", type=click.Path(path_type=Path), help="The run's folder [default: runs/RECIPE].")
def train_command(recipe: str, data: Path, output: Path | None) -> None:
    """Train a supernet by RECIPE (a YAML file or a shipped recipe's name) and make a family of it.

    Run the same command again to go on after an interruption. SIGTERM saves a checkpoint and stops with
    exit code 75; so does Ctrl-C, with 130. `bignas-zoo curves` shows how far a run is.
    """
    run = output or Path("runs") / Path(recipe).stem
    with training_progress() as report:
        folder = zoo.train(recipe, data, run, say=say, report=report)
    family = get_family(folder)
    print_table(
        ("slice", ">MMACs", ">top-1 %", "measured on"),
        [(s.name, f"{s.macs / 1e6:.2f}", f"{s.top1:.2f}", s.top1_source) for s in family.slices],
    )
    click.echo(f"\nNext: bignas-zoo get --family {folder} --budget {family.slices[-1].macs / 1e6:.0f}MFLOPs")
