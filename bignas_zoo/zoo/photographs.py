"""The images that int8 ranges come from and files are compared on where nobody names others.

Either those of the package, or some of those that a family was trained on, which lie beside its weights and in each
folder made of it (`files.names.TRAINING_IMAGES`; a push leaves them out). The package has 128 photographs from
Flickr under CC BY 2.0, of things that ImageNet has classes for; `CREDITS.csv` beside them names each one's page and
author. They suit networks for photographs of anything; one's own training images suit one's own classes better.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bignas_zoo.errors import IntegrityError
from bignas_zoo.files import names

FOLDERS = {"photographs": Path(__file__).parents[1] / "data" / "photographs"}
SOURCE = "photographs of the package (CC BY 2.0)"
#: What a family says that has images of its own training.
TRAINING = "training images"
ALLOWED = (*FOLDERS, TRAINING)


def known(value: Any) -> str:
    """Check which images a family names; raises ValueError."""
    if value not in ("", *ALLOWED):
        raise ValueError(f"calibration is {value!r:.40}, allowed: {', '.join(ALLOWED)}")
    return str(value)


def folder(name: str) -> Path:
    """Return where the package's images of a name are."""
    return FOLDERS[name]


def place(name: str, slice_folder: Path) -> Path:
    """Return where the images are that a slice folder's description names."""
    return slice_folder / names.TRAINING_IMAGES if name == TRAINING else folder(name)


def files(name: str) -> list[Path]:
    """Return their files, in an order that does not change.

    Raises:
        IntegrityError: they are not there.
    """
    paths = sorted(folder(name).glob("*.jpg"))
    if not paths:
        raise IntegrityError(f"{folder(name)}: the package's photographs are missing. Reinstall bignas-zoo.")
    return paths
