"""``bignas-zoo search``: from a trained family to one whose slices were searched for."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.cli.common import (
    Workers,
    device_tables_option,
    json_option,
    license_option,
    print_json,
    print_table,
    read_tables,
    risk_option,
    say,
)
from bignas_zoo.cli.interrupt import INTERRUPT
from bignas_zoo.cli.progress import search_progress
from bignas_zoo.zoo.selection import RISKS

if TYPE_CHECKING:
    from bignas_zoo.tasks.search import SearchResult


@click.command("search")
@click.argument("family")
@click.option("--data", required=True, help="The images of the family's recipe, as for `train`.")
@click.option("--test-data", help="Pattern of the TFRecord test files, where they cannot be told from --data.")
@click.option(
    "--budget", "budgets", multiple=True, metavar="BUDGET", help="What to search for; several share the work."
)
@click.option(
    "--front",
    default="macs,top1",
    show_default=True,
    metavar="AXIS,AXIS",
    help="The front to search where there is no budget: of top1, macs, parameters, bytes, ram, ms@DEVICE.",
)
@click.option(
    "--method",
    type=click.Choice(["coarse-to-fine", "evolution", "reinforce", "random"]),
    default="coarse-to-fine",
    show_default=True,
)
@click.option(
    "--children",
    type=click.IntRange(8, 1_000_000),
    default=200,
    show_default=True,
    help="To measure at most, besides the smallest and the biggest child and the slices that the family has.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of every draw.")
@click.option(
    "--workers",
    type=Workers(),
    metavar="N|ADDRESS",
    help="Processes of this machine [default: one a core, at most 4], or a Dask scheduler such as tcp://HOST:8786 "
    "(extra 'search'). They do not change the result.",
)
@click.option("--predictor", is_flag=True, help="Let a predictor, trained on the measured children, order candidates.")
@click.option("--from-scratch", is_flag=True, help="Do not begin with the slices that the family has.")
@risk_option
@device_tables_option
@click.option("--output", type=click.Path(path_type=Path), help="The search's folder [default: runs/search-FAMILY].")
@click.option("--reuse", is_flag=True, help="Take over an OUTPUT of other settings, with all it has measured.")
@click.option("--in-place", is_flag=True, help="Replace the folder FAMILY itself once the new family is complete.")
@license_option("that of FAMILY")
@json_option
def search_command(
    family: str,
    data: str,
    test_data: str | None,
    budgets: tuple[str, ...],
    front: str,
    method: str,
    children: int,
    seed: int,
    workers: int | str | None,
    predictor: bool,
    from_scratch: bool,
    risk: str,
    device_tables: tuple[Path, ...],
    output: Path | None,
    reuse: bool,
    in_place: bool,
    license: str | None,
    as_json: bool,
) -> None:
    """Search FAMILY (a name or folder) for better slices, and make a family of them in OUTPUT/family.

    Children are chosen on images held out of training, and slices reported on test images. Run the same command again
    to go on after an interruption: every measured child is in OUTPUT/measured.jsonl. OUTPUT/search.png shows them.
    """
    from bignas_zoo.tasks.search import search_family

    INTERRUPT.resumable = True
    with search_progress() as report:
        result = search_family(
            family, data, budgets=budgets, front=front, method=method, children=children, seed=seed, workers=workers,
            predictor=predictor, from_scratch=from_scratch, risk=risk, tables=read_tables(device_tables),
            test_data=test_data, output=output, reuse=reuse, in_place=in_place, license=license, say=say, report=report,
        )  # fmt: skip
    if as_json:
        print_json("search", result.to_json())
    else:
        options = "".join(f" --device-table {shlex.quote(str(path))}" for path in device_tables)
        _print(result, options + (f" --risk {risk}" if risk != RISKS[0] else ""))


def _print(result: SearchResult, options: str) -> None:
    picks: dict[str, list[str]] = {}
    for budget, best in result.chosen.items():
        picks.setdefault(best.name, []).append(budget)
    print_table(
        ("slice", ">MMACs", ">held out %", ">top-1 %", "best for"),
        [
            (
                s.name,
                f"{s.macs / 1e6:.2f}",
                f"{s.holdout_top1:.2f}",
                f"{s.top1:.2f}",
                "; ".join(picks.get(s.name, ())),
            )
            for s in result.family.slices
        ],
    )
    record = result.record
    speed = record["children_a_minute"]
    click.echo(
        f"\n{record['measured']} children, {record['measured_now']} measured now"
        f"{f' ({speed:.1f} a minute)' if speed else ''}."
    )
    if record["ranking"]:
        p = record["ranking"]
        click.echo(f"Predictor: Spearman {p['spearman']:.3f}, Kendall {p['kendall']:.3f} (leave-one-out).")
    budget = next(iter(result.chosen), f"{math.ceil(result.family.slices[-1].macs / 1e4) / 100:g}MFLOPs")
    click.echo(f"Next: bignas-zoo get --family {result.path} --budget '{budget}'{options if result.chosen else ''}")
