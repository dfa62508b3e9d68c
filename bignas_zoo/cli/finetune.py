"""``bignas-zoo finetune``: a slice on one's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.cli.common import SliceName, family_option, json_option, license_option, print_json, say
from bignas_zoo.cli.progress import training_progress
from bignas_zoo.files import names
from bignas_zoo.recipes.finetune_settings import (
    BATCH_ORIGINAL,
    EPOCHS_ORIGINAL,
    LEARNING_RATE,
    LEARNING_RATE_FROZEN,
    LEARNING_RATE_ORIGINAL,
    STATISTICS,
    FinetuneSettings,
)

if TYPE_CHECKING:
    from bignas_zoo.tasks.finetune import FinetuneResult

DEFAULTS = FinetuneSettings()


@click.command("finetune")
@click.argument("name", metavar="SLICE", type=SliceName())
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with one sub-folder of images a class, or with train/CLASS and val/CLASS, test/CLASS or both.",
)
@family_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make [default: the new slice's name].")
@click.option("--force", is_flag=True, help="Replace the output folder if it is there already.")
@click.option(
    "--resolution", type=int, help="Input size of the new slice, in pixels, at most SLICE's crop [default: SLICE's]."
)
@click.option(
    "--epochs",
    type=int,
    help=f"At most so many epochs [default: {DEFAULTS.epochs}, with --statistics original {EPOCHS_ORIGINAL}].",
)
@click.option(
    "--freeze/--no-freeze",
    default=DEFAULTS.freeze,
    show_default=True,
    help="Train the classifier alone: seconds, not minutes; enough for images like those the slice was trained on.",
)
@click.option(
    "--batch-size",
    type=int,
    help=f"Images a step, at most [default: {DEFAULTS.batch_size}, with --statistics original {BATCH_ORIGINAL}].",
)
@click.option(
    "--learning-rate",
    type=float,
    help=f"Peak learning rate of AdamW [default: {LEARNING_RATE:g}, with --freeze {LEARNING_RATE_FROZEN:g}, with "
    f"--statistics original {LEARNING_RATE_ORIGINAL:g}].",
)
@click.option(
    "--patience",
    type=int,
    default=DEFAULTS.patience,
    show_default=True,
    help="Stop after so many epochs without a higher held-out accuracy.",
)
@click.option(
    "--holdout",
    type=float,
    default=DEFAULTS.holdout,
    show_default=True,
    help="Part of each class held out, if there is no val/.",
)
@click.option(
    "--seed", type=int, default=DEFAULTS.seed, show_default=True, help="Of the split, the order and the augmentation."
)
@click.option(
    "--statistics",
    type=click.Choice(STATISTICS),
    help="Of batch norms: of the batches and then the training images, or SLICE's own [default: original for nets that "
    "were trained alone, such as efficientnet-lite; batch for slices of a supernet].",
)
@license_option("that of SLICE")
@json_option
def finetune_command(
    name: str,
    data: Path,
    family: str | None,
    output: Path | None,
    force: bool,
    resolution: int | None,
    epochs: int | None,
    freeze: bool,
    batch_size: int | None,
    learning_rate: float | None,
    patience: int,
    holdout: float,
    seed: int,
    statistics: str | None,
    license: str | None,
    as_json: bool,
) -> None:
    """Train SLICE (a slice's name, a slice folder or hf://ORG/NAME) on your own classes.

    Its classifier is replaced, the rest is trained on, or kept with --freeze. The weights of the epoch
    with the best held-out accuracy are exported into a slice folder like those of `get`. The new slice is under the
    licence of the one it is made of, unless --license says otherwise.
    """
    from bignas_zoo.tasks.finetune import finetune

    with training_progress() as report:
        result = finetune(
            name,
            data,
            family=family,
            output=output,
            force=force,
            resolution=resolution,
            epochs=epochs,
            freeze=freeze,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            holdout=holdout,
            seed=seed,
            statistics=statistics,
            license=license,
            say=say,
            report=report,
        )
    if as_json:
        print_json("finetune", result.to_json())
    else:
        _print(result)


def _print(result: FinetuneResult) -> None:
    slice_, training = result.slice, result.finetuned
    images = {use: sum(counts.values()) for use, counts in training["data"]["images"].items()}
    for label, value in (
        ("slice", f"{slice_.name} (from {training['parent']['name']})"),
        ("classes", f"{training['data']['classes']}"),
        ("images", ", ".join(f"{count:,} {WORDS[use]}" for use, count in images.items())),
        ("epochs", f"{training['epochs']} trained, the weights of epoch {training['best_epoch']} kept"),
        (
            "held-out",
            f"top-1 {training['holdout_top1_before']:.2f} % with an untrained classifier, "
            f"{training['holdout_top1']:.2f} % now",
        ),
        ("top-1", f"{slice_.top1:.2f} % on {slice_.top1_source}"),
        (names.TFLITE, f"{slice_.bytes:,} bytes, float32"),
        ("parity", f"log-probabilities differ from numpy's by at most {result.description['parity']['max_abs']:.1e}"),
        ("written to", f"{result.path}"),
    ):
        click.echo(f"{label:<13} {value}")


WORDS = {"train": "to train on", "holdout": "held out", "test": "to test on"}
