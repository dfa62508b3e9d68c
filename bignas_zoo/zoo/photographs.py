"""The photographs that the package has: images that int8 ranges come from and files are compared on.

128 photographs from Flickr under CC BY 2.0, of things that ImageNet has classes for; `CREDITS.csv` beside them names
each one's page and author. They suit networks for photographs of anything; one's own training images suit one's own
classes better.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bignas_zoo.errors import IntegrityError

FOLDERS = {"photographs": Path(__file__).parents[1] / "data" / "photographs"}
SOURCE = "photographs of the package (CC BY 2.0)"


def known(value: Any) -> str:
    """Check which images a family names; raises ValueError."""
    if value not in ("", *FOLDERS):
        raise ValueError(f"calibration is {value!r:.40}, allowed: {', '.join(FOLDERS)}")
    return str(value)


def folder(name: str) -> Path:
    """Return where these images are."""
    return FOLDERS[name]


def files(name: str) -> list[Path]:
    """Return their files, in an order that does not change.

    Raises:
        IntegrityError: they are not there.
    """
    paths = sorted(folder(name).glob("*.jpg"))
    if not paths:
        raise IntegrityError(f"{folder(name)}: the package's photographs are missing. Reinstall bignas-zoo.")
    return paths
