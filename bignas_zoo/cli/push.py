"""``bignas-zoo push`` and ``card``: the Hugging Face Hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bignas_zoo.cli.common import SliceName, family_option, json_option, print_json, say
from bignas_zoo.errors import UsageError

if TYPE_CHECKING:
    from bignas_zoo.hub.pushing import Plan, PushResult

MARKS = {"new": "+", "changed": "~", "same": "=", "removed": "-"}


@click.command("push")
@click.argument("name", metavar="[SLICE|FOLDER]", type=SliceName(), required=False)
@click.option(
    "--repo",
    metavar="ORG/NAME",
    required=True,
    help="Repository to push to, made if it is not there; with a whole family the ORG alone.",
)
@click.option("--private", is_flag=True, help="Others shall not see the repository.")
@click.option("--revision", metavar="BRANCH", default="main", show_default=True, help="Branch to commit to.")
@family_option
@click.option(
    "--sign", metavar="KEY", type=click.Path(path_type=Path), help="Sign the manifest with this private key (Ed25519)."
)
@click.option(
    "--accept-licence",
    "--accept-license",
    metavar="NAME",
    help="Publish weights under this licence although it forbids commercial use.",
)
@click.option("-y", "--yes", is_flag=True, help="Push without asking.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@json_option
def push_command(
    name: str | None,
    repo: str,
    private: bool,
    revision: str,
    family: str | None,
    sign: Path | None,
    accept_licence: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push a slice to the Hugging Face Hub: card, weights, TFLite, ONNX and Keras files, in one commit.

    A FOLDER of `get`, `export` or `finetune` is pushed with its TFLite and ONNX exports. Without a SLICE, every slice
    of --family is pushed to ORG/SLICE. The plan is printed first. The same content again makes no commit; a push that
    was interrupted is completed by the same command.
    """
    from bignas_zoo.tasks import push as pushing

    if name is None and family is None:
        raise UsageError("push: name a slice or a slice folder, or give --family to push all of its slices.")
    if as_json and not (yes or dry_run):
        raise UsageError("push: --json does not ask; add --yes to push or --dry-run to see the plan.")

    def agree(plans: Sequence[Plan]) -> bool:
        if not as_json:
            _print_plans(plans)
        return not dry_run and (yes or _asked(plans))

    def remark(message: str) -> None:
        if not as_json:
            say(message)

    if name is not None:
        results = [
            pushing.push(
                name, repo, private=private, revision=revision, family=family, sign=sign,
                accept_licence=accept_licence, agree=agree, say=remark,
            )
        ]  # fmt: skip
    else:
        assert family is not None
        results = pushing.push_family(
            family, repo, private=private, revision=revision, sign=sign, accept_licence=accept_licence, agree=agree,
            say=remark,
        )  # fmt: skip
    if as_json:
        print_json("push", {"pushes": [r.to_json() for r in results]})
        return
    for result in results:
        _print_result(result, dry_run)


def _asked(plans: Sequence[Plan]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("push: stdin is no terminal, so nobody can be asked. Add --yes to push, or --dry-run.")
    count = len([p for p in plans if not p.is_empty])
    return click.confirm(f"Push {'this' if count == 1 else f'these {count} slices'}?", default=False, err=True)


def _print_plans(plans: Sequence[Plan]) -> None:
    for plan in plans:
        if plan.is_empty:
            continue
        repository = f"new {'private' if plan.private else 'public'} repository" if plan.makes_repo else (
            "private repository" if plan.private else "public repository"
        )  # fmt: skip
        click.echo(f"{plan.slice} -> {plan.url} ({repository}), {'new ' * plan.makes_branch}branch {plan.branch}")
        width = max(len(c.path) for c in plan.changes)
        for change in plan.changes:
            click.echo(f"  {MARKS[change.kind]} {change.path:<{width}}  {change.bytes:>12,} bytes  {change.kind}")
        sent = [c for c in plan.changes if c.kind in ("new", "changed")]
        if not sent and not any(c.kind == "removed" for c in plan.changes):
            click.echo("  no commit: the new branch begins with exactly these files\n")
            continue
        files = "1 file" if len(sent) == 1 else f"{len(sent)} files"
        click.echo(f"  one commit: {files}, {sum(c.bytes for c in sent):,} bytes to send at most\n")


def _print_result(result: PushResult, dry_run: bool) -> None:
    if result.pushed:
        click.echo(f"pushed {result.plan.slice}: {result.commit_url}")
    elif result.commit:
        click.echo(f"{result.plan.slice}: nothing to do, {result.commit_url} holds exactly these files")
    else:
        click.echo(f"{result.plan.slice}: not pushed{' (--dry-run)' if dry_run else ''}")


@click.command("card")
@click.argument("name", metavar="SLICE|FOLDER", type=SliceName())
@click.option("--repo", metavar="ORG/NAME", help="Let its snippets fetch from there, as a push to it would.")
@family_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write [default: print it].")
def card_command(name: str, repo: str | None, family: str | None, output: Path | None) -> None:
    """Write the card of a slice: Markdown, with the metadata that the Hub reads."""
    from bignas_zoo.files.outputs import write_output
    from bignas_zoo.hub.address import check_repo
    from bignas_zoo.tasks.bundle import card, source

    if repo is not None:
        check_repo(repo)
    with source(name, family, say) as folder:
        text = card(folder, repo)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_output(output, text.encode(), ".md")
        say(f"written: {output}")
