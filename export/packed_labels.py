"""Labels as TFLite files carry them: a text file in a zip archive that follows the model.

Positions in the archive count from the begin of the whole file, so any zip reader opens a TFLite file.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

from bignas_zoo.errors import IntegrityError
from bignas_zoo.files import names

#: Bytes of a text of labels, and of an archive's directory, which holds 46 bytes and the name for a file.
MAX_LABELS, MAX_DIRECTORY = 1 << 22, 1 << 16
#: What the last record of an archive begins with, and its size if the archive has no comment.
END, END_SIZE, ZIP64_SIZE = b"PK\x05\x06", 22, 20
#: All that `zipfile` is known to raise on bytes that are no archive.
DAMAGED = (
    zipfile.BadZipFile, KeyError, ValueError, IndexError, RuntimeError, EOFError, OSError, struct.error, zlib.error,
)  # fmt: skip


def has_archive(model: bytes) -> bool:
    """Tell whether files are packed into a TFLite file already."""
    return zipfile.is_zipfile(io.BytesIO(model))


def append_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """Return the file with its labels, uncompressed and without anything that differs from run to run."""
    entry = zipfile.ZipInfo(names.LABELS, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, "".join(f"{label}\n" for label in labels))
    return file.getvalue()


def read_labels(model: bytes, name: str) -> tuple[str, ...]:
    """Return the lines of a text file packed into a TFLite file.

    Args:
        model: the whole file, not trusted.
        name: of the text file.

    Raises:
        IntegrityError: there is no such file, it is damaged, over 4 MiB, or not UTF-8.
    """
    try:
        text = _read(model, name).decode()
    except DAMAGED as error:
        raise IntegrityError(
            f"TFLite file: its labels '{name[:60]}' cannot be read ({str(error)[:100]}). Make the file again."
        ) from error
    return tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))


def _read(model: bytes, name: str) -> bytes:
    # Other than `zipfile`, this bounds the directory before anything is built of it.
    end = model[-END_SIZE:]
    if len(end) < END_SIZE or not end.startswith(END) or model[-END_SIZE - ZIP64_SIZE :].startswith(b"PK\x06\x07"):
        raise ValueError("no zip archive at the file's end")
    if struct.unpack_from("<I", end, 12)[0] > MAX_DIRECTORY:
        raise ValueError(f"a directory of more than {MAX_DIRECTORY:,} bytes")
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        entry = archive.getinfo(name)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.file_size > MAX_LABELS:
            raise ValueError(f"compressed in an unknown way, or over {MAX_LABELS:,} bytes")
        with archive.open(entry) as file:
            data = file.read(MAX_LABELS + 1)
    if len(data) != entry.file_size:
        raise ValueError("another size than the archive says")
    return data
