"""Progress displays on stderr; silent where stderr is no terminal, but for a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

LINE_EVERY_SECONDS = 30


@contextmanager
def image_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for images done and in all."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def file_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for files done and in all; where stderr is no terminal it prints a line now and then."""
    last = [time.monotonic()]
    if sys.stderr.isatty():
        with image_progress(title) as report:
            yield report
        return

    def line(done: int, total: int) -> None:
        if time.monotonic() - last[0] >= LINE_EVERY_SECONDS:
            click.echo(f"{title}: {done} of {total} files", err=True)
            last[0] = time.monotonic()

    yield line


@contextmanager
def elapsed_progress(title: str) -> Iterator[Callable[[float], None]]:
    """Yield a callback for seconds passed, of work whose end is unknown."""
    from rich.console import Console

    console, last = Console(stderr=True), [0.0]
    if sys.stderr.isatty():
        with console.status(title) as status:
            yield lambda seconds: status.update(f"{title}: {seconds / 60:.0f} min {seconds % 60:02.0f} s")
        return

    def line(seconds: float) -> None:
        if seconds - last[0] >= LINE_EVERY_SECONDS:
            click.echo(f"{title}: {seconds:.0f} s", err=True)
            last[0] = seconds

    yield line


def speed(images_per_second: float) -> str:
    """Return a speed for people: 1,048, 24, 0.08."""
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


@contextmanager
def training_progress() -> Iterator[Callable[[Any], None]]:
    """Yield a callback for `recipes.progress.Progress`: loss, images/s and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}{task.fields[speed]} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=None, loss="", speed=0)

        def update(p: Any) -> None:
            bar.update(
                task,
                description=p.phase,
                completed=p.step,
                total=p.steps,
                loss="" if p.loss is None else f"loss {p.loss:.3f}  ",
                speed=speed(p.images_per_second),
            )

        yield update


def _lines() -> Callable[[Any], None]:
    last = [0.0, 0]

    def update(p: Any) -> None:
        now = time.monotonic()
        if now - last[0] < LINE_EVERY_SECONDS and p.step != p.steps:
            return
        rate = (p.step - last[1]) / (now - last[0]) if 0 < last[1] < p.step else 0  # another part begins at 1 again
        left = f", {max(0.0, p.steps - p.step) / rate / 60:.0f} min left" if rate else ""
        loss = "" if p.loss is None else f"loss {p.loss:.3f}, "
        click.echo(
            f"{p.phase}: step {p.step:,}/{p.steps:,}, {loss}{speed(p.images_per_second)} images/s{left}", err=True
        )
        last[:] = [now, p.step]

    return update


@contextmanager
def search_progress(*, silent: bool = False) -> Iterator[Callable[[Any], None]]:
    """Yield a callback for `search.rounds.ChildProgress`: children done and a minute, time left, the last child."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    if silent:
        yield lambda p: None
        return
    began, fresh, last = time.monotonic(), [0], [0.0]

    def text(p: Any) -> str:
        fresh[0] += p.fresh
        speed = 60 * fresh[0] / max(time.monotonic() - began, 1e-9)
        # Of one child, or none after a resumption, no speed can be told.
        rate = f", {speed:.1f} a minute, {max(0, p.children - p.done) / speed:.0f} min left" if fresh[0] > 1 else ""
        child = f"{p.child.macs / 1e6:.2f} MMACs {p.child.top1:.2f} % ({p.child.origin})"
        return f"{child}{rate}"

    if sys.stderr.isatty():
        columns = (TextColumn("searching"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=None)
            yield lambda p: bar.update(task, description=text(p), completed=p.done, total=p.children)
        return

    def line(p: Any) -> None:
        what, now = text(p), time.monotonic()
        if now - last[0] >= LINE_EVERY_SECONDS or p.done == p.children:
            click.echo(f"child {p.done}/{p.children}: {what}", err=True)
            last[0] = now

    yield line
