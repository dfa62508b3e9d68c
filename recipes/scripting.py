"""What the modules of recipes/ that are commands of their own (``python -m``) share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from bignas_zoo.errors import BigNASError


@contextmanager
def error_exits() -> Iterator[None]:
    """Turn an error of this package into its message on stderr and its exit code."""
    try:
        yield
    except BigNASError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
