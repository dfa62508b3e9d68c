"""``bignas-zoo curves``: how a run has gone so far."""

from __future__ import annotations

from pathlib import Path

import click

from bignas_zoo.cli.common import json_option, print_json, print_table, say
from bignas_zoo.cli.progress import speed


@click.command("curves")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Draw the curves into a .png or .svg file.")
@json_option
def curves_command(run: Path, output: Path | None, as_json: bool) -> None:
    """Show the learning curves of RUN, the folder of a training run or of a family.

    Held-out accuracy of the smallest and the biggest child over the steps; with --output also the loss
    and the learning rate. A run that still goes on is shown as far as it is.
    """
    from bignas_zoo.hub_cards.curves import plot_curves, read_curves

    curves = read_curves(run)
    if output:
        plot_curves(curves, output)
        say(f"drawn: {output}")
    if as_json:
        print_json("curves", {**curves.to_json(), "plot": str(output) if output else None})
        return
    if curves.evaluations:
        print_table(
            (">step", ">smallest %", ">biggest %", ""),
            [
                (f"{e.step:,}", f"{e.smallest:.2f}", f"{e.biggest:.2f}", "best" if e == curves.best else "")
                for e in curves.evaluations
            ],
        )
    else:
        click.echo("no evaluation yet")
    if curves.points:
        last = curves.points[-1]
        of = f" of {curves.steps:,}" if curves.steps else ""
        click.echo(
            f"\nstep {last.step:,}{of} ({last.phase}): loss {last.loss:.3f}, learning rate {last.learning_rate:.3g}, "
            f"{speed(last.images_per_second)} images/s"
        )
    if not output:
        say(f"Draw it: bignas-zoo curves {run} --output curves.png")
    if (run / "tensorboard").is_dir():
        say(f"Watch it: tensorboard --logdir {run / 'tensorboard'}")
