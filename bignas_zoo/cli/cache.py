"""``bignas-zoo cache``: what the cache holds, whether it is whole, repairing it, making room."""

from __future__ import annotations

import re

import click

from bignas_zoo.cli.common import json_option, millions, print_json, print_table, say
from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.files import store

UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
SPANS = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


class Amount(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit."""

    def __init__(self, name: str, units: dict[str, int], example: str) -> None:
        self.name, self.units, self.example = name, units, example

    def convert(self, value: object, param: object, ctx: object) -> int:
        """Return the amount in the smallest unit."""
        amount = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", str(value))
        unit = self.units.get(amount[2].lower()) if amount else None
        if amount is None or unit is None:
            raise click.BadParameter(f"{str(value)[:80]!r}: write for example {self.example}.")
        return int(float(amount[1]) * unit)


@click.group("cache")
def cache_command() -> None:
    """Show, check, repair and prune the cache.

    What `get` has made or fetched lies in a folder (BIGNAS_ZOO_CACHE, on Linux by default ~/.cache/bignas-zoo), so
    that it need not be done twice. Everything in it can be made or fetched again.
    """


@cache_command.command("list")
@json_option
def list_entries(as_json: bool) -> None:
    """List what is in the cache, the one used last first."""
    from bignas_zoo.tasks import cache

    entries, odd = cache.list_entries(), cache.strangers()
    if as_json:
        total = sum(e.bytes for e in entries)
        listed = [e.to_json() for e in entries]
        print_json(
            "cache", {"path": str(store.cache_root()), "bytes": total, "entries": listed, "strangers": _texts(odd)}
        )
        return
    print_table(
        ("kind", "name", "commit", ">MB", "made", "used"),
        [
            (e.kind, e.name, (e.commit or "-")[:12], millions(e.bytes), d["made"][:16], d["used"][:16])
            for e in entries
            for d in [e.to_json()]
        ],
    )
    size = millions(sum(e.bytes for e in entries))
    click.echo(f"\n{_counted(len(entries))}, {size} MB in {store.cache_root()}")
    for path in odd:
        say(f"Note: {path}: was not put there by this program; never touched")


@cache_command.command("verify")
@json_option
def verify(as_json: bool) -> None:
    """Check every file against its record; exit code 4 if any is damaged."""
    from bignas_zoo.tasks import cache

    entries, damages = cache.list_entries(), cache.verify()
    if as_json:
        print_json("cache-verify", {"entries": len(entries), "damaged": [d.to_json() for d in damages]})
    else:
        for damage in damages:
            click.echo(f"damaged: {damage.reason}")
        click.echo(f"{_counted(len(entries))}, {len(damages)} damaged")
    if damages:
        names = "\n".join(f"  {d.path}" for d in damages)
        raise IntegrityError(
            f"cache: damaged:\n{names}\nRemove it with `bignas-zoo cache repair`; it is made again when asked for."
        )


@cache_command.command("repair")
@json_option
def repair(as_json: bool) -> None:
    """Remove what is damaged, and what killed processes left; `get` makes or fetches it again."""
    from bignas_zoo.tasks import cache

    _report(cache.repair(), as_json, "cache-repair", "removed")


@cache_command.command("prune")
@click.option(
    "--older-than", type=Amount("age", SPANS, "30d, 12h or 2w"), help="What was not used for so long, e.g. 30d."
)
@click.option(
    "--keep", type=Amount("size", UNITS, "2GB or 500MB"), help="What was used longest ago, until so much is left."
)
@click.option("--unreferenced", is_flag=True, help="Commits of the Hub that no branch or tag was last seen to mean.")
@click.option("--all", "everything", is_flag=True, help="All of it.")
@click.option("--dry-run", is_flag=True, help="Remove nothing, say what would go.")
@json_option
def prune(
    older_than: int | None, keep: int | None, unreferenced: bool, everything: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove entries to make room; what a running process uses stays."""
    from bignas_zoo.tasks import cache

    done = cache.prune(
        everything=everything, older_than=older_than, keep=keep, unreferenced=unreferenced, dry_run=dry_run
    )
    _report(done, as_json, "cache-prune", "would remove" if dry_run else "removed")


def _report(done: object, as_json: bool, schema: str, verb: str) -> None:
    from bignas_zoo.tasks.cache import READ_ONLY, Entry, Removed

    assert isinstance(done, Removed)
    freed = sum(e.bytes for e in done.entries if isinstance(e, Entry))
    if as_json:
        print_json(schema, {**done.to_json(), "bytes": freed})
    else:
        for entry in done.entries:
            click.echo(
                f"{verb}: {entry.path} ({entry.name})" if isinstance(entry, Entry) else f"{verb}: {entry.reason}"
            )
        for path in done.leftovers:
            click.echo(f"{verb}: {path} (left by a process that was killed)")
        for path, reason in done.kept:
            say(f"kept: {path}: {reason}")
        size = f", {millions(freed)} MB" if freed else ""
        click.echo(f"{verb}: {_counted(len(done.entries))}{size}, {len(done.leftovers)} leftovers")
    if stuck := [path for path, reason in done.kept if reason == READ_ONLY]:
        raise LocalIOError(f"{_counted(len(stuck))} could not be removed: {READ_ONLY}.")


def _counted(entries: int) -> str:
    return "1 entry" if entries == 1 else f"{entries:,} entries"


def _texts(paths: tuple[object, ...]) -> list[str]:
    return [str(path) for path in paths]
