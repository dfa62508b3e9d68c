"""The manifest of a repository: ``SHA256SUMS``, which ``sha256sum -c`` reads as well (normative: docs/FORMAT.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bignas_zoo.errors import IntegrityError

#: A signature of the manifest, if its owner signs; see `hub.signing`.
SCHEMA = "# bignas-zoo/manifest/1"
MAX_BYTES, MAX_FILES = 1 << 20, 2_000
LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
#: Part of a path: no hidden file, nothing that another system reads as something else.
PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_])?")
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def write(files: Mapping[str, str]) -> bytes:
    """Return the manifest of files: path to 64 hex digits."""
    lines = [SCHEMA, *(f"{digest}  {path}" for path, digest in sorted(files.items()))]
    return "".join(f"{line}\n" for line in lines).encode()


def read(data: bytes, where: str) -> dict[str, str]:
    """Read a manifest; each path in it is fit to be joined to a folder on any system.

    Args:
        data: its bytes.
        where: what to call it in messages.

    Returns:
        Path to sha256, 64 hex digits.

    Raises:
        IntegrityError: it is not such a manifest, or names a file that must not be written.
    """
    if len(data) > MAX_BYTES:
        raise IntegrityError(f"{where}: {len(data):,} bytes; a manifest has at most {MAX_BYTES:,}.")
    lines = data.decode("ascii", "replace").split("\n")
    if lines[0] != SCHEMA or lines[-1] or len(lines) > MAX_FILES + 2:
        raise IntegrityError(
            f"{where}: not a manifest: it must begin with '{SCHEMA}', end with a line feed, and have at most "
            f"{MAX_FILES:,} files. Ask whoever published it to push it again."
        )
    files: dict[str, str] = {}
    for number, line in enumerate(lines[1:-1], 2):
        match = LINE.fullmatch(line)
        if not match or not safe(match[2]):
            raise IntegrityError(f"{where}, line {number}: not a sha256 and a plain path: {line[:100]!r}.")
        files[match[2]] = match[1]
    if len({path.lower() for path in files}) != len(lines) - 2:
        raise IntegrityError(f"{where}: two of its names are the same, at least on systems that ignore case.")
    return files


def safe(path: str) -> bool:
    """Return whether a path can only mean a file inside the folder it is joined to."""
    parts = path.split("/")
    return len(parts) <= 4 and all(PART.fullmatch(p) and not DEVICES.fullmatch(p) for p in parts)
