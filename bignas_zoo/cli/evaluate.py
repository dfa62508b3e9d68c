"""``bignas-zoo evaluate``: accuracy of a slice on labelled images."""

from __future__ import annotations

from pathlib import Path

import click

from bignas_zoo.cli.common import SliceName, family_option, json_option, print_json
from bignas_zoo.cli.progress import image_progress


@click.command("evaluate")
@click.argument("name", type=SliceName())
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with one sub-folder of images a class, or with CIFAR-10's test files.",
)
@family_option
@click.option("--limit", type=click.IntRange(min=1), help="Use the first so many images only.")
@json_option
def evaluate_command(name: str, data: Path, family: str | None, limit: int | None, as_json: bool) -> None:
    """Measure a slice's (or a slice folder's) top-1 accuracy."""
    from bignas_zoo.tasks.evaluate import evaluate

    with image_progress("evaluating") as report:
        result = evaluate(name, data, family=family, limit=limit, report=report)
    if as_json:
        print_json("evaluate", result)
        return
    click.echo(f"{result['name']}: top-1 {result['top1']:.2f} % on {result['images']:,} images of {result['source']}")
