"""From a name, a folder or ``hf://ORG/NAME`` to one slice: the only place that asks which of them it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import UsageError
from bignas_zoo.files import names
from bignas_zoo.files.say import Say, silent
from bignas_zoo.hub.address import SCHEME
from bignas_zoo.zoo import registry, slice_folder
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice


@dataclass(frozen=True)
class SliceFolder:
    """A folder with a slice's files, of the user or in the cache of what was fetched.

    Attributes:
        path: of the folder.
        description: the content of its slice.json.
        cached: whether it was fetched from the Hub before; False for a folder of the user.
    """

    path: Path
    description: Mapping[str, Any]
    cached: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """Label order of the logits."""
        return tuple(self.description["class_names"])

    @property
    def preprocess(self) -> Mapping[str, Any]:
        """The input contract as JSON data."""
        contract: Mapping[str, Any] = self.description["preprocess"]
        return contract


@dataclass(frozen=True)
class Opened:
    """A slice and where its weights are.

    Attributes:
        slice: what it is.
        home: the folder that its files lie in, or the family that it is cut from.
    """

    slice: Slice
    home: SliceFolder | Family


def is_address(name: str | Path) -> bool:
    """Return whether a name is one of the Hub, ``hf://ORG/NAME``."""
    return isinstance(name, str) and name.startswith(SCHEME)


def holds_slice(path: str | Path) -> bool:
    """Return whether this is a slice folder; False for any text that cannot be a path."""
    return os.path.isfile(Path(path) / names.SLICE)  # Path.is_file raises where a name is too long


def local_path(name: str | Path, verify_key: str | Path | None = None, say: Say = silent) -> Path:
    """Return the folder in the cache of a slice of the Hub, fetched if need be; any other name as a path.

    Raises:
        UsageError, NotFoundError, AuthError, NetworkError, IntegrityError, LocalIOError: see `hub.fetching.fetch`.
    """
    return _fetched(str(name), verify_key, say).path if is_address(name) else Path(name)


def open_slice(
    name: str | Path, family: str | Path | None = None, *, verify_key: str | Path | None = None, say: Say = silent
) -> Opened:
    """Open the slice that a user names: a folder goes before a slice of the zoo.

    Args:
        name: of a slice, a slice folder, or ``hf://ORG/NAME[@REVISION]``.
        family: where to look for the name.
        verify_key: file of the Ed25519 public key that must have signed a slice of the Hub.
        say: told what is fetched.

    Raises:
        UsageError: a key for a slice that is not on the Hub, or a file that holds none.
        NotFoundError: no such slice.
        IntegrityError: the folder's slice.json is damaged.
        AuthError, NetworkError: the Hub does not give it.
    """
    if verify_key is not None and not is_address(name):
        raise UsageError(f"{name}: a key verifies what was pushed to the Hub: name hf://ORG/NAME, or give no key.")
    if not is_address(name) and holds_slice(name):
        return open_folder(Path(name))
    return open_named(str(name), family, verify_key=verify_key, say=say)


def open_named(
    name: str, family: str | Path | None = None, *, verify_key: str | Path | None = None, say: Say = silent
) -> Opened:
    """Open a slice of the zoo or of the Hub, whatever folder may have its name; see `open_slice`."""
    if is_address(name):
        folder = _fetched(name, verify_key, say)
        return Opened(slice_folder.describe(folder.path)[0], folder)
    home, slice_ = registry.find_slice(name, family)
    return Opened(slice_, home)


def open_folder(path: Path) -> Opened:
    """Open a slice folder; of its files slice.json alone is read.

    Raises:
        IntegrityError: slice.json is damaged.
        LocalIOError: it cannot be read.
    """
    slice_, description = slice_folder.describe(path)
    return Opened(slice_, SliceFolder(path, description))


def _fetched(address: str, verify_key: str | Path | None, say: Say) -> SliceFolder:
    from bignas_zoo.hub.fetching import fetch

    fetched = fetch(address, verify_key=verify_key, say=say)
    return SliceFolder(fetched.folder, slice_folder.describe(fetched.folder)[1], fetched.cached)
