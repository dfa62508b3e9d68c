"""The command that packs a recipe's training images into one file.

It writes what `recipes.data.packing` reads:

    python -m bignas_zoo.recipes.data.packed RECIPE --data DATA --output FILE.npz
"""

from __future__ import annotations

from pathlib import Path

import click

from bignas_zoo.files.outputs import write_output
from bignas_zoo.recipes.data.class_folders import read_splits
from bignas_zoo.recipes.data.dataset import training_images
from bignas_zoo.recipes.data.packing import QUALITY, SUFFIX, pack
from bignas_zoo.recipes.methods import method_of
from bignas_zoo.recipes.recipe import find_recipe, read_recipe
from bignas_zoo.recipes.scripting import error_exits


@click.command()
@click.argument("recipe")
@click.option("--data", required=True, help="The recipe's images, as `bignas-zoo train` takes them.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The file to write, ending in .npz.")
@click.option("--quality", type=click.IntRange(0, 100), default=QUALITY, show_default=True, help="Of WebP.")
def main(recipe: str, data: str, output: Path, quality: int) -> None:
    """Pack RECIPE's training images into one file, to be given to `bignas-zoo train --data`."""
    if output.suffix != SUFFIX:
        raise click.BadParameter(f"must end in {SUFFIX}, got '{output.name}'.", param_hint="--output")
    with error_exits():
        settings = read_recipe(find_recipe(recipe))
        if method_of(settings).needs_start and not settings.start_from:  # of any classes
            images = read_splits(Path(data), settings.crop_size)["train"]
        else:
            images = training_images(settings, data)
        packed = pack(images, quality)
        write_output(output, packed, SUFFIX)
        click.echo(f"{output}: {len(images):,} images, {len(packed):,} bytes")


if __name__ == "__main__":
    main()
