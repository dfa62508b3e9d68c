"""``bignas-zoo reproduce``: does a slice come out of its family's weights again, byte for byte?"""

from __future__ import annotations

from pathlib import Path

import click

from bignas_zoo.cli.common import SliceName, family_option, json_option, print_json, print_table, say
from bignas_zoo.errors import QualityError
from bignas_zoo.files.say import silent


@click.command("reproduce")
@click.argument("name", type=SliceName(), metavar="SLICE|FOLDER|hf://ORG/NAME")
@family_option
@click.option("--images", metavar="PLACE", help="Of a child of `get --spec`: the images it was calibrated on.")
@click.option(
    "--verify-key", metavar="KEY", type=click.Path(path_type=Path),
    help="For hf://: public key (Ed25519) that must have signed it.",
)  # fmt: skip
@json_option
def reproduce_command(
    name: str, family: str | None, images: str | None, verify_key: Path | None, as_json: bool
) -> None:
    """Cut and write a slice again from its family's weights, and compare every file that its slice.json lists.

    Exit code 9 if a file differs; the first one, in the order in which they are made, says which step does.
    """
    from bignas_zoo.tasks.reproduce import reproduce

    report = reproduce(name, family=family, images=images, verify_key=verify_key, say=silent if as_json else say)
    if as_json:
        print_json("reproduce", report.to_json())
    else:
        print_table(
            ("file", "step", "", "sha256", "what differs"),
            [
                (file.file, file.step, "same" if file.same else "DIFFERS", f"{file.sha256[:16]}…", file.detail)
                for file in report.files
            ],
        )
        for package, (before, here) in report.versions.items():
            say(f"{package}: {before or 'not there'} where it was made, {here or 'not there'} here")
    if report.first:
        raise QualityError(
            f"{name}: {sum(not file.same for file in report.files)} of {len(report.files)} files differ, first "
            f"{report.first.file} ({report.first.step}): {report.first.detail}."
        )
