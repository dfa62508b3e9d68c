"""What files of others may say: each function checks one kind of value, and raises ValueError; `reading` tells."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bignas_zoo.errors import IntegrityError, reason

MOST_TEXT = 4_000
#: The licence of what nobody has told the licence of.
UNKNOWN = "unknown"
MOST_LICENSE = 200


@contextlib.contextmanager
def reading(fault: str, fix: str = "") -> Iterator[None]:
    """Tell of whatever goes wrong while a file's data are taken apart as of damage to the file.

    Args:
        fault: what is wrong with which file, e.g. ``PATH: not a valid list of files``.
        fix: what to do, as the message's last sentence.

    Raises:
        IntegrityError: a key is missing, or a value is of the wrong kind or not allowed.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise IntegrityError(f"{fault} ({reason(error)}). {fix}".rstrip()) from error


def is_inside(name: PurePosixPath) -> bool:
    """Return whether a recorded file name is one of a file in the folder it is joined to, on any system."""
    text = str(name)
    return bool(name.parts) and not name.is_absolute() and ".." not in name.parts and (
        text.isprintable() and len(text) <= 255 and not any(c in text for c in "\\:")
    )  # fmt: skip


@dataclass(frozen=True)
class FileRecord:
    """A file of a family: its name inside the folder, size and sha256."""

    name: str
    bytes: int
    sha256: str

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> FileRecord:
        """Read a record, whose name cannot leave the folder."""
        name = PurePosixPath(data["file"])
        if not is_inside(name):
            raise ValueError(f"file name {str(name)[:200]!r} leaves the family's folder, or is none")
        return FileRecord(str(name), int(data["bytes"]), str(data["sha256"]))

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        return {"file": self.name, "bytes": self.bytes, "sha256": self.sha256}


def class_names(value: Any, classes: int) -> tuple[str, ...]:
    """Check the labels of a network's classes."""
    good = isinstance(value, list) and all(isinstance(c, str) and c and c.isprintable() for c in value)
    if not good or len(set(value)) != len(value) or len(value) != classes:
        raise ValueError(f"class_names must be {classes} different lines of text")
    return tuple(value)


def contract(value: Any) -> Mapping[str, Any]:
    """Check an input contract (see `models.preprocess.Preprocess`)."""
    crop = value.get("crop_size") if isinstance(value, dict) else None
    if (
        type(crop) is not int
        or not 8 <= crop <= 4096
        or not _three(value.get("mean"), -1000)
        or not _three(value.get("std"), 1e-6)
    ):
        raise ValueError("preprocess must have crop_size (8 to 4096), and mean and std of three numbers, std above 0")
    fraction = value.get("crop_fraction", 1)
    if type(fraction) not in (int, float) or not 0.05 <= fraction <= 1:
        raise ValueError("preprocess: crop_fraction must be a number from 0.05 to 1")
    return dict(value)


def _three(row: Any, least: float) -> bool:
    """Return whether this is a list of three plain numbers within `least` and 1000; NaN is not."""
    return isinstance(row, list) and len(row) == 3 and all(type(v) in (int, float) and least <= v <= 1000 for v in row)


def name(value: Any) -> str:
    """Check a name of a family or slice."""
    # A name becomes a folder's and a file's name, so it must not be able to point anywhere else.
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,95}", value):
        raise ValueError(f"{value!r} is not a name (lower-case letters, digits, '.' and '-')")
    return value


def license_name(value: Any) -> str:
    """Check the name of a licence: as SPDX writes it, or another line without markup; an empty one is "unknown"."""
    # It is printed, and stands in the YAML and the Markdown of cards.
    good = isinstance(value, str) and value.isprintable() and len(value) <= MOST_LICENSE and value == value.strip()
    if not good or any(c in "<>[]{}|`\\" for c in value):
        raise ValueError(
            f"license: {value!r:.60} is not the name of a licence (a printable line of up to {MOST_LICENSE} "
            "characters, without <>[]{}|`\\ and spaces around it)"
        )
    return value or UNKNOWN


def line(value: Any) -> str:
    """Check text that is printed as it is."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > MOST_TEXT:
        raise ValueError(f"{value!r:.80} is not a line of up to {MOST_TEXT:,} printable characters")
    return value


def printable(value: Any) -> None:
    """Check that all text in JSON data can be shown: no control, bidi or other hidden characters but line ends."""
    if isinstance(value, str):
        if not value.replace("\n", "").isprintable():
            raise ValueError(f"{value!r:.80} holds characters that cannot be shown")
    elif isinstance(value, dict):
        printable(list(value))
        printable(list(value.values()))
    elif isinstance(value, list):
        for part in value:
            printable(part)


def described(value: Any) -> Mapping[str, Any]:
    """Check an object that is shown, not interpreted."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.80} is not an object")
    printable(value)
    return value


def percentage(value: Any) -> float | None:
    """Check an accuracy, or None."""
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 100):  # NaN is refused too
        raise ValueError(f"{value!r} is not a percentage")
    return None if value is None else float(value)


def whole(value: Any) -> int | None:
    """Check a count, or None."""
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 60):
        raise ValueError(f"{value!r} is not a whole number")
    return value
