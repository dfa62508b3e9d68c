"""Under which licence new weights are: as told, or else that of the weights they were made from."""

from __future__ import annotations

import re

from bignas_zoo.errors import UsageError
from bignas_zoo.files.records import UNKNOWN, license_name

NONCOMMERCIAL = re.compile(r"\bnc\b|non-?commercial", re.IGNORECASE)


def check_publishing(name: str, license: str, accepted: str | None, *, private: bool) -> None:
    """Refuse to publish weights that others may not use for money, unless whoever publishes them has seen that.

    Args:
        name: of the slice, for the message.
        license: of its weights.
        accepted: the licence that the user names as accepted.
        private: whether others will not see them.

    Raises:
        UsageError: the licence is non-commercial, the place public, and the licence is not named.
    """
    if accepted is not None and accepted.lower() != license.lower():
        raise UsageError(f"push {name}: its weights are under {license}, not '{accepted}'. Name that licence, or none.")
    if private or not NONCOMMERCIAL.search(license) or accepted is not None:
        return
    raise UsageError(
        f"push {name}: its weights are under {license}, which forbids commercial use and asks for attribution; its "
        f"card says so. --accept-licence {license} publishes them all the same, --private keeps them to yourself."
    )


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
