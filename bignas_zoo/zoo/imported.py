"""Families that `import` made, remembered by where they are, so that a budget chooses among them as well.

The list is one file in the platform's folder for a user's data (``BIGNAS_ZOO_DATA`` names another). A family that is
moved or deleted is forgotten; one that cannot be read is left out.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bignas_zoo.errors import BigNASError
from bignas_zoo.files import names, places, records, store

SCHEMA = "bignas-zoo/imported/1"


def list_file() -> Path:
    """Return where the list is.

    Raises:
        LocalIOError: there is no such folder, as the user has no home.
    """
    return places.data_root() / names.IMPORTED


def known() -> dict[str, Path]:
    """Return what the list says, whether the folders are there or not.

    Raises:
        IntegrityError: it is damaged.
        LocalIOError: it cannot be read.
    """
    path = list_file()
    if not os.path.exists(path):  # unlike Path.exists: also False where one may not look
        return {}
    data = store.read_json(path)
    with records.reading(f"{path}: not a valid list of families", "Delete it, and import the families again."):
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema is {data['schema']!r}")
        return {records.name(name): Path(folder) for name, folder in data["families"].items()}


def folders() -> dict[str, Path]:
    """Return the folders of imported families that are still there, by the families' names; none of a damaged list."""
    try:
        return {name: path for name, path in known().items() if os.path.isfile(path / names.FAMILY)}
    except BigNASError:
        return {}


def lost() -> dict[str, Path]:
    """Return where families were imported to that are not there any more, by their names."""
    try:
        return {name: path for name, path in known().items() if not os.path.isfile(path / names.FAMILY)}
    except BigNASError:
        return {}


def remember(name: str, folder: Path) -> str | None:
    """Add a family to the list, in place of one of the same name.

    Returns:
        None; or what a user should know, in words: it is not remembered, or another one was.
    """
    try:
        path, before = list_file(), known()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        place = folder.absolute()
        entries = {**before, name: place}
        store.write_json(path, {"schema": SCHEMA, "families": {key: str(entries[key]) for key in sorted(entries)}})
    except BigNASError as error:
        return f"this family is not remembered, so name it with --family {folder} ({error})"
    if name in before and before[name] != place and os.path.isfile(before[name] / names.FAMILY):
        return f"'{name}' means this family from now on; the one in {before[name]} goes by that path alone"
    return None
