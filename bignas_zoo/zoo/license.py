"""Under which licence new weights are: as told, or else that of the weights they were made from."""

from __future__ import annotations

from bignas_zoo.errors import UsageError
from bignas_zoo.files.records import UNKNOWN, license_name


def license_of(told: str | None, inherited: str = UNKNOWN) -> str:
    """Return the licence of new weights.

    Args:
        told: by the user, e.g. ``"CC-BY-4.0"``; None if not.
        inherited: that of the weights they are made from, or that an earlier command was told.

    Raises:
        UsageError: it is no line of text that files and cards can show.
    """
    try:
        if told == "":  # of a variable that a script has not set: not to be taken for the parent's licence
            raise ValueError("license: is empty")
        return inherited if told is None else license_name(told)
    except ValueError as error:
        raise UsageError(f"{error}. Give an SPDX name such as Apache-2.0 or CC-BY-NC-4.0, or a short line.") from error
