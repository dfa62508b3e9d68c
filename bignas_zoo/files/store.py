"""The one writer: every final file of the package goes through here.

A file is written beside its final name, flushed to the disk, and renamed; a folder likewise. At
every instant the final name is absent, the old good content, or the new good content. What a killed
process leaves beside is cleared away by the next that writes in the same folder (`leftovers`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.files import leftovers, names, strict_json
from bignas_zoo.files.formats import EXPORT_NAME
from bignas_zoo.files.places import check_place, user_folder

CHUNK = 1 << 20
#: The largest JSON file of this package, a device's table, has half a megabyte.
MAX_JSON = 32 << 20


def _one_of(*allowed: str, pattern: str | None = None) -> re.Pattern[str]:
    """Return a pattern of these names, and of those that another pattern allows."""
    return re.compile("|".join([*map(re.escape, allowed), *([pattern] if pattern else [])]))


#: What a folder of each kind consists of, by the file that marks it. Anything else in it is somebody's own.
FOLDERS = {
    names.SLICE: _one_of(
        *(names.SLICE, names.TFLITE, names.WEIGHTS, names.LABELS, names.CARD, names.NOTICE, names.MANIFEST),
        *(names.EXPORTS, names.TRAINING_IMAGES),
        pattern=EXPORT_NAME.pattern,
    ),
    names.FAMILY: _one_of(
        *(names.FAMILY, names.FRONT, names.METRICS, names.SUPERNET, names.STATISTICS, names.NETS, names.NOTICE),
        names.TRAINING_IMAGES,
    ),
    names.SUMS: _one_of(names.SUMS, names.SIGNATURE, names.CONFIG, names.DIGESTS, names.FETCHED_SLICE),
    names.SAVED_MODEL: _one_of(names.SAVED_MODEL, "fingerprint.pb", "variables", "assets"),
}
#: The key of a JSON file that holds its own digest, see `sealed`.
SEAL = "digest"
TEMPORARY = leftovers.TEMPORARY


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file's bytes.

    Raises:
        LocalIOError: the file cannot be read.
    """
    import hashlib  # loads OpenSSL, which listing does without

    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def record(path: Path) -> dict[str, Any]:
    """Return a file's identity: ``{"bytes": size, "sha256": hex digits}``."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def record_bytes(data: bytes) -> dict[str, Any]:
    """Return the identity that a file with these bytes has, see `record`."""
    import hashlib

    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def verify(path: Path, expected: str, *, size: int | None = None, fix: str) -> None:
    """Check a file's size and sha256 against the recorded ones.

    Args:
        path: the file.
        expected: 64 hex digits.
        size: in bytes, checked first; None where it is not recorded.
        fix: what to do if it differs, as the message's last sentence.

    Raises:
        IntegrityError: the file is missing or its bytes differ.
    """
    if not path.is_file():
        raise IntegrityError(f"{path}: missing, though it is recorded. {fix}".rstrip())
    actual_size = path.stat().st_size
    if size is not None and actual_size != size:
        raise IntegrityError(
            f"{path}: damaged: {actual_size:,} bytes, recorded are {size:,}; sha256 not checked. {fix}".rstrip()
        )
    actual = sha256(path)
    if actual != expected:
        raise IntegrityError(
            f"{path}: damaged or replaced: sha256 is {actual[:12]}…, recorded is {expected[:12]}…. {fix}".rstrip()
        )


def atomic_write(path: Path, data: bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        LocalIOError: the folder is missing, not writable, or full. An old file stays as it was.
    """
    temporary = None
    leftovers.remove(path.parent)
    try:
        handle, temporary = leftovers.new_file(path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            if os.name == "nt":  # which renames no open file, and has no locks to hold
                file.close()
            os.replace(temporary, path)  # still locked, or somebody would take it for a leftover
        _sync_folder(path.parent)
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from error
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            leftovers.done_with(temporary)


def append_line(path: Path, line: str) -> None:
    """Add one line to a log and flush it to the disk: the one write that is not of a whole file.

    A kill or a full disk may leave part of the line; whoever reads the log drops a last line without
    its newline.

    Raises:
        LocalIOError: the file cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be written ({error.strerror}). Free space and run again.") from error


def remove_leftovers(folder: Path, *, older_than: float = 0) -> list[Path]:
    """Delete what killed writers left in a folder; what cannot be deleted, or is in use, stays.

    Args:
        folder: where to look.
        older_than: spare what is younger, in seconds, where no lock tells that its writer is gone: another process may
            be writing it.

    Returns:
        What is gone.
    """
    return leftovers.remove(folder, older_than=older_than)


def _temporary() -> Path:
    """Return where temporary files are; a command that reads alone does without the library."""
    import tempfile

    return Path(tempfile.gettempdir())


def tidy_up(output: Path) -> None:
    """Delete what killed processes left beside and in an output folder, and where temporary files are."""
    for folder in (output.absolute().parent, output, _temporary()):
        leftovers.remove(folder)


def copy(source: Path, target: Path) -> None:
    """Copy a file of a slice, whole or not at all.

    Raises:
        LocalIOError: one of the two cannot be used.
    """
    try:
        data = source.read_bytes()
    except OSError as error:
        raise LocalIOError(f"{source}: cannot be read ({error.strerror}).") from error
    atomic_write(target, data)


def write_json(path: Path, data: Any) -> None:
    """Write JSON in the project's one layout: two spaces, sorted nowhere, a final newline."""
    atomic_write(path, json_bytes(data))


def json_bytes(data: Any) -> bytes:
    """Return JSON text as bytes; NaN is refused, since it is not JSON."""
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        LocalIOError: it cannot be read.
        IntegrityError: it is not JSON.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise LocalIOError(f"{path}: is no regular file. Name one with JSON in it.")
        if status.st_size > MAX_JSON:
            raise ValueError(f"over {MAX_JSON >> 20} MiB")
        return strict_json.loads(path.read_bytes())
    except OSError as error:
        if isinstance(error, LocalIOError):
            raise
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        why = str(error)[:120]
        raise IntegrityError(f"{path}: not valid JSON ({why}). Put back a whole copy, or make it anew.") from error


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a digest of its content as its last key: no other file holds its sha256."""
    content = {key: value for key, value in data.items() if key != SEAL}
    return {**content, SEAL: _digest(content)}


def check_seal(data: Mapping[str, Any]) -> None:
    """Check the digest of a JSON object; raises KeyError where there is none, ValueError where it differs."""
    if data[SEAL] != _digest({key: value for key, value in data.items() if key != SEAL}):
        raise ValueError(f"its content is not what its {SEAL} says: it was damaged, or changed by hand")


def _digest(content: Mapping[str, Any]) -> str:
    content = json.loads(json.dumps(content, allow_nan=False))  # as a reader will find it
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def new_folder(path: Path, *, force: bool, marker: str | None = names.SLICE) -> Iterator[Path]:
    """Fill a folder under a temporary name, then give it its final one.

    Args:
        path: the final folder.
        force: whether a folder that is already there may be replaced; it is replaced only once the
            new one is complete.
        marker: names the kind (a key of `FOLDERS`): a folder without this file, or with any file of
            another name, is never replaced. None, for entries of the cache, which nobody else writes to: whatever
            is there is replaced.

    Yields:
        The temporary folder to write into.

    Raises:
        LocalIOError: the folder exists and `force` is false, or it cannot be written.
    """
    path = path.absolute()
    leftovers.remove(path.parent)
    check_free(path, force=force, marker=marker)
    created = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with leftovers.new_folder(path.parent) as temporary:
            created = True
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            check_free(path, force=force, marker=marker)
            leftovers.replace(temporary, path)
            _sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, LocalIOError):
            raise
        if created:
            raise LocalIOError(f"{path}: cannot be written ({error.strerror}).") from error
        raise LocalIOError(
            f"{path}: cannot be created ({error.strerror}). Choose another place with --output."
        ) from error


@contextlib.contextmanager
def working_folder(parent: Path) -> Iterator[Path]:
    """Yield a temporary folder inside another, so that what is made in it can be renamed into place.

    Raises:
        LocalIOError: the other folder is missing or not writable.
    """
    leftovers.remove(parent)
    created = False
    try:
        with leftovers.new_folder(parent) as temporary:
            created = True
            yield temporary
    except OSError as error:
        if created:
            raise
        raise LocalIOError(f"{parent}: cannot be written to ({error.strerror}).") from error


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder for what is not renamed into place; see `working_folder`.

    Unlike one of `tempfile`, it is cleared away by the next process if this one is killed.
    """
    with working_folder(_temporary()) as folder:
        yield folder


def give_name(finished: Path, path: Path) -> None:
    """Rename a finished file or folder; what had the name goes.

    Raises:
        LocalIOError: it cannot be renamed; the old content stays.
    """
    try:
        leftovers.replace(finished, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be written ({error.strerror}).") from error


def check_free(path: Path, *, force: bool, marker: str | None = names.SLICE) -> None:
    """Refuse an output folder that exists, unless it may be replaced.

    Raises:
        LocalIOError: something is there and `force` is false, or it is not a folder of ours.
    """
    check_place(path)
    empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if empty or not os.path.lexists(path) or (force and marker is None):
        return
    reason = _not_ours(path, marker)
    if reason:
        raise LocalIOError(
            f"{path}: exists already, and {reason}, so it is never replaced. Move it away, or choose another --output."
        )
    if not force:
        raise LocalIOError(
            f"{path}: exists already and is not overwritten. Choose another --output, or add --force to replace it."
        )


def _not_ours(path: Path, marker: str | None) -> str | None:
    """Return why an existing path must not be replaced even with --force, or None if it may."""
    if marker is None:
        return None
    if path.is_symlink() or not path.is_dir():
        return "is not a folder"
    if not (path / marker).is_file():
        return f"was not made by this command (no {marker} in it)"
    foreign = sorted(p.name for p in path.iterdir() if not FOLDERS[marker].fullmatch(p.name))
    return f"holds files that this command did not make, such as '{foreign[0][:60]}'" if foreign else None


def cache_root() -> Path:
    """Return the cache folder: ``BIGNAS_ZOO_CACHE``, else ``bignas-zoo`` in the platform's folder for a user's caches.

    Raises:
        LocalIOError: there is no such folder, as the user has no home.
    """
    return user_folder("BIGNAS_ZOO_CACHE", "cache")


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the rename holds
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
