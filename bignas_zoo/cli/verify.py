"""``bignas-zoo verify``: is an exported file whole, and does it compute what its slice does?"""

from __future__ import annotations

from collections.abc import Sequence

import click

from bignas_zoo.cli.common import json_option, print_json, say
from bignas_zoo.errors import QualityError
from bignas_zoo.files import names
from bignas_zoo.files.say import silent
from bignas_zoo.zoo import slice_folder

MARKS = {True: "pass", False: "FAIL", None: "-"}


@click.command("verify")
@click.argument("file", metavar="FILE|FOLDER|hf://ORG/NAME")
@click.option(
    "--with", "judges", type=click.Choice(("task-library", "mediapipe")), multiple=True,
    help="Let the TensorFlow Lite Task Library or MediaPipe Tasks read and run the file as well.",
)  # fmt: skip
@click.option("--judge-python", help="Python with the judge's library [default: this one].")
@click.option("--images", metavar="PLACE", help="Real images to compare on, as for `export`; judges need some.")
@click.option("--test-data", metavar="PLACE", help="Labelled images to measure accuracy on.")
@json_option
def verify_command(
    file: str,
    judges: Sequence[str],
    judge_python: str | None,
    images: str | None,
    test_data: str | None,
    as_json: bool,
) -> None:
    """Check an exported FILE: record, metadata, and whether it computes what the slice does.

    Of a slice FOLDER every file is checked. The file runs in a process of its own, so a damaged one ends in a
    message, not in a crash. Exit code 9 if a check fails, 4 if the file cannot be run at all.
    """
    from bignas_zoo.tasks.verify import verify

    report = verify(
        file, judges=judges, pythons=dict.fromkeys(judges, judge_python) if judge_python else None, images=images,
        test_data=test_data, say=silent if as_json else say,
    )  # fmt: skip
    if as_json:
        print_json("verify", report.to_json())
    else:
        width = max(len(check.file or "") for check in report.checks)
        for check in report.checks:
            file_name = f"{check.file or '':<{width}}  " if width else ""
            click.echo(f"{file_name}{check.name:<13} {MARKS[check.passed]:<5} {check.detail}")
    if not report.passed:
        wrong = [check for check in report.checks if check.passed is False]
        failed = ", ".join(f"{check.name} of {check.file}" if check.file else check.name for check in wrong)
        own = any(check.name == "files" or (check.name == "record" and check.file == names.TFLITE) for check in wrong)
        raise QualityError(f"{file}: failed: {failed}. {slice_folder.REMAKE if own else 'Export the file again.'}")
