"""Entry point: the group of commands, and what happens to errors."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from typing import Any

import click

from bignas_zoo import __version__
from bignas_zoo.cli.common import printable
from bignas_zoo.cli.interrupt import INTERRUPT, INTERRUPTED, terminate
from bignas_zoo.errors import BigNASError, LocalIOError, nearest

#: The module of each command. Only the one asked for is loaded.
COMMANDS = {
    "bench": "bignas_zoo.cli.bench",
    "cache": "bignas_zoo.cli.cache",
    "card": "bignas_zoo.cli.push",
    "curves": "bignas_zoo.cli.curves",
    "devices": "bignas_zoo.cli.devices",
    "evaluate": "bignas_zoo.cli.evaluate",
    "export": "bignas_zoo.cli.export",
    "family": "bignas_zoo.cli.train",
    "finetune": "bignas_zoo.cli.finetune",
    "get": "bignas_zoo.cli.get",
    "import": "bignas_zoo.cli.import_weights",
    "latency": "bignas_zoo.cli.latency",
    "list": "bignas_zoo.cli.list",
    "profile": "bignas_zoo.cli.profile",
    "push": "bignas_zoo.cli.push",
    "report": "bignas_zoo.cli.report",
    "reproduce": "bignas_zoo.cli.reproduce",
    "search": "bignas_zoo.cli.search",
    "show": "bignas_zoo.cli.show",
    "train": "bignas_zoo.cli.train",
    "verify": "bignas_zoo.cli.verify",
}


class _Group(click.Group):
    """A group whose errors are one sentence on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"No such command '{printable(args[0])[:80]}'. {nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # No shell can pass it on, but a program that calls us in its own process can; each Python says something else.
        if any("\0" in text for text in args):
            raise click.UsageError("an argument has a NUL character, which no name of a file or slice can have.", ctx)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        debug = "--debug" in sys.argv[1:]
        if sys.stdout is None:  # closed by whoever started us
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        if sys.stderr is None:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        _listen()
        try:
            super().main(*args, **kwargs)
            sys.stdout.flush()
            INTERRUPT.check()
        except SystemExit as stopped:
            # Out of click's main comes an exit with 1 for a closed pipe only (here a success), or ours.
            sys.exit(0 if stopped.code == 1 else stopped.code)
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except BrokenPipeError:
            # The reader went away (`| head`): that is its right. Keep Python from complaining at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  a bug as well: without a wall of text
            _fail(*_explained(error), debug)
        sys.exit(0)


def _listen() -> None:
    """Make SIGTERM an exception, so that temporary files are removed, and Ctrl-C one that no library can lose."""
    with contextlib.suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, terminate)
        if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, INTERRUPT):
            INTERRUPT.came = INTERRUPT.resumable = False
            signal.signal(signal.SIGINT, INTERRUPT)


def _explained(error: BaseException) -> tuple[str, int]:
    """Return an error in a sentence, with its exit code."""
    match error:
        case BigNASError():
            return str(error), error.exit_code
        case KeyboardInterrupt() | click.Abort():  # click makes the first one into the second
            return str(error.__cause__ or error) or INTERRUPT.said("interrupted."), INTERRUPTED
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            text = f"{where}{error.strerror or error}. Free space or choose another place."
            return text, LocalIOError.exit_code
        case MemoryError():
            why = f" ({error})" if str(error) else ""
            text = f"not enough memory{why}. Lower batch_size or crop_size, or give less data."
            return text, LocalIOError.exit_code
        case UnicodeEncodeError():
            return f"a name is not UTF-8 text: {error.object!r}. Rename the file, or choose another name.", 2
    return f"internal error, {type(error).__name__}: {error}. Run with --debug to see where.", 1


def _fail(message: str, code: int, debug: bool) -> None:
    if INTERRUPT.came and code != INTERRUPTED:  # a library made something else of it
        message, code = INTERRUPT.said("interrupted."), INTERRUPTED
    if debug:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(OSError):  # of a full disk, say: the exit code is still to be known
        click.echo(f"Error: {printable(message)}", err=True)
    sys.exit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bignas-zoo")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def main(debug: bool) -> None:
    """Cut the best image classifier for a budget out of a BigNAS supernet, and ship it.

    \b
    Examples:
      bignas-zoo list
      bignas-zoo get --budget 400MFLOPs
      bignas-zoo get --budget "200MMACs,20MB" --output classifier
      bignas-zoo show bignas-xl

    MACs are multiply-adds counted once; mobile papers call the same count FLOPs.
    Shell completion: eval "$(_BIGNAS_ZOO_COMPLETE=bash_source bignas-zoo)" (also zsh_source, fish_source).
    """  # noqa: D301  click reads the escape as "keep these lines"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # slicing and export are TensorFlow's, whatever else is set


if __name__ == "__main__":
    main()
