"""Families that `import` made, remembered by where they are, so that a budget chooses among them as well.

The list is one file in the platform's folder for a user's data (``BIGNAS_ZOO_DATA`` names another). A family that is
moved or deleted is forgotten; one that cannot be read is left out.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bignas_zoo.errors import BigNASError, LocalIOError
from bignas_zoo.files import names, places, store

SCHEMA = "bignas-zoo/imported/1"


def list_file() -> Path:
    """Return where the list is.

    Raises:
        LocalIOError: there is no such folder, as the user has no home.
    """
    return places.data_root() / names.IMPORTED


def folders() -> dict[str, Path]:
    """Return the folders of imported families that are still there, by the families' names."""
    try:
        data = store.read_json(list_file())
        if data["schema"] != SCHEMA:
            return {}
        known = {str(name): Path(path) for name, path in data["families"].items() if isinstance(path, str)}
        return {name: path for name, path in known.items() if os.path.isfile(path / names.FAMILY)}
    except (BigNASError, KeyError, TypeError, AttributeError, ValueError):
        return {}


def remember(name: str, folder: Path) -> str | None:
    """Add a family to the list, in place of one of the same name.

    Returns:
        None; or why it is not remembered, in words.
    """
    try:
        path = list_file()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        known = {**folders(), name: folder.absolute()}
        store.write_json(path, {"schema": SCHEMA, "families": {key: str(known[key]) for key in sorted(known)}})
    except LocalIOError as error:
        return f"this family is not remembered, so name it with --family {folder} ({error})"
    return None
