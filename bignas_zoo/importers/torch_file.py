"""Tensors of a torch file (zip, or legacy as before torch 1.6) or a safetensors file, read without torch.

A torch file's outline is a pickle, which is not executed (`outline`). Values are read later, tensor by tensor, when a
shape is known to be the expected one, so that no size that a file claims is allocated.

Reference: torch/serialization.py of PyTorch (BSD-3), for the layout of both formats.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.importers.outline import DTYPES, OutlineError, Storage, View, sizes, walk

#: Bounds on what a hostile file can take: bytes of a file, of its pickles and of a zip's directory; tensors.
MOST_BYTES, MOST_PICKLE, MOST_DIRECTORY, MOST_TENSORS = 2 << 30, 16 << 20, 4 << 20, 20_000
#: Begins a legacy file, whose second pickle is the format's number.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SIZES = {name: 2 if kind == "bfloat16" else np.dtype(kind).itemsize for name, kind in DTYPES.items()}
OF_SAFETENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "bfloat16", "I64": "<i8", "I32": "<i4"}
#: Dicts of a checkpoint that hold weights: their running average goes first, which is what its makers measure.
PARTS = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model")
#: What training on several devices, compiling and averaging put before each name.
WRAPPERS = ("module.", "_orig_mod.")
#: How other files begin that people take for weights.
OTHERS = {
    b"": "it is empty",
    b"<": "it is a web page or another text, not the file: open the address in a browser and save what it offers",
    b"version https://git-lfs": "it is a pointer of git-lfs, not the file: `git lfs pull` fetches it",
    b"\x1f\x8b": "it is packed by gzip: unpack it first",
    b"BZh": "it is packed by bzip2: unpack it first",
    b"\xfd7zXZ": "it is packed by xz: unpack it first",
}
FIX = "Fetch it again, or name the file that its makers published."


@dataclass(frozen=True)
class TensorEntry:
    """A tensor that a file says it holds.

    Attributes:
        dtype: numpy's name of its type, or "bfloat16".
        shape: its shape.
        start: the byte of the file that its first value lies at.
        strides: values from one index to the next, one an axis.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class TensorFile:
    """A file and the tensors that it says it holds, by name; none is read yet.

    Attributes:
        path: the file.
        tensors: name to description.
        part: which of a checkpoint's dicts they are in, e.g. ``state_dict_ema``; "" if they are all there is.
    """

    path: Path
    tensors: Mapping[str, TensorEntry]
    part: str = ""

    def check(self) -> None:
        """Compare what is in a zip with its checksums.

        Raises:
            IntegrityError: a byte was changed.
        """
        if not zipfile.is_zipfile(self.path):
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            raise IntegrityError(f"{self.path}: is damaged ({error}). {FIX}") from error
        if damaged:
            raise IntegrityError(f"{self.path}: is damaged: '{damaged[:80]}' in it does not have its checksum. {FIX}")

    def read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Read one tensor.

        Args:
            name: of a tensor that is there.
            shape: that it must have.

        Returns:
            float32 array of that shape.

        Raises:
            IntegrityError: it has another shape or type, or holds values that are not finite.
            LocalIOError: the file cannot be read.
        """
        entry = self.tensors[name]
        if entry.shape != shape:
            raise IntegrityError(f"{self.path}: '{name}' has shape {entry.shape}, expected {shape}.")
        if entry.dtype[-2:] not in ("f2", "f4", "f8") and entry.dtype != "bfloat16":
            raise IntegrityError(f"{self.path}: '{name}' has type {entry.dtype}, expected numbers with a point.")
        stored = "<u2" if entry.dtype == "bfloat16" else entry.dtype
        reach = 1 + sum((n - 1) * step for n, step in zip(shape, entry.strides, strict=True)) if math.prod(shape) else 0
        try:
            with self.path.open("rb") as file:
                file.seek(entry.start)
                flat = np.frombuffer(file.read(reach * np.dtype(stored).itemsize), stored)
        except OSError as error:
            raise LocalIOError(f"{self.path}: cannot be read ({error.strerror}).") from error
        if len(flat) < reach:
            raise IntegrityError(f"{self.path}: ends within '{name}'. {FIX}")
        steps = [step * flat.itemsize for step in entry.strides]
        values = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
        if entry.dtype == "bfloat16":
            values = (values.astype("<u4") << 16).view("<f4")
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise IntegrityError(f"{self.path}: '{name}' holds values that are not numbers.")
        return values


def open_tensors(path: Path) -> TensorFile:
    """Read the outline of a file of weights: a torch file, zip or legacy, or a safetensors file.

    The names of a torch file are those of the first of the dicts `PARTS` that it has, without what wrappers put before
    all of them (`WRAPPERS`).

    Raises:
        LocalIOError: it cannot be read.
        IntegrityError: it is none of these, damaged, too large, or names something to call that no weights need.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise LocalIOError(f"{path}: is no file.")
        if size > MOST_BYTES:
            raise IntegrityError(f"{path}: has {size:,} bytes; at most {MOST_BYTES:,} are read. {FIX}")
        with path.open("rb") as file:
            start = file.read(300)
            file.seek(0)
            if start[8:9] != b"{":  # safetensors begin with a length, which may be any bytes
                _refuse_others(start)
            if start.startswith(b"PK"):
                outline, places = _zip(file, size)
            elif start[8:9] == b"{":
                return TensorFile(path, _safetensors(file, size))
            else:
                outline, places = _legacy(file, size)
        part, table = _state(outline)
        return TensorFile(path, dict(_tensors(table, places)), part)
    except OSError as error:
        if isinstance(error, LocalIOError):
            raise
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
    except (
        OutlineError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        struct.error,
        zipfile.BadZipFile,
        EOFError,
    ) as error:
        raise IntegrityError(f"{path}: is no file of weights that can be read ({_short(error)}). {FIX}") from error
    except (NotImplementedError, RuntimeError, RecursionError, OverflowError, MemoryError) as error:
        raise IntegrityError(f"{path}: is no file of weights that can be read ({_short(error)}). {FIX}") from error


def _short(error: Exception) -> str:
    if "set_int_max_str_digits" in str(error):
        return "a number in its pickle has thousands of digits"
    text = f"has no {error}" if isinstance(error, KeyError) else str(error)
    return "".join(c if c.isprintable() else " " for c in text)[:200] or type(error).__name__


#: Where a storage lies: its kind and key to its first byte and its number of values.
Places = Callable[[Storage], tuple[int, int]]


def _zip(file: BinaryIO, size: int) -> tuple[Any, Places]:
    """Read the outline of a torch zip, whose storages are members that are not compressed."""
    _check_directory(file, size)
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise OutlineError("two of its members have one name")
    outlines = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(outlines) != 1:
        raise OutlineError("it is a zip archive that is no torch file: if the file is in it, unpack it first")
    folder = outlines[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise OutlineError("it is TorchScript: save the network's state_dict() instead")
    for info in members.values():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise OutlineError(f"its member '{info.filename[:80]}' is compressed or encrypted")
    order = members.get(f"{folder}byteorder")
    if order is not None and (order.file_size > 10 or archive.read(order) != b"little"):
        raise OutlineError("its bytes are not in little-endian order")
    if members[outlines[0]].file_size > MOST_PICKLE:
        raise OutlineError(f"its data.pkl has {members[outlines[0]].file_size:,} bytes")
    outline = walk(io.BytesIO(archive.read(outlines[0])))

    starts = {name: _first_byte(file, info, size) for name, info in members.items()}

    def places(storage: Storage) -> tuple[int, int]:
        member = f"{folder}data/{storage.key}"
        return starts[member], members[member].file_size // SIZES[storage.kind]

    return outline, places


def _first_byte(file: BinaryIO, info: zipfile.ZipInfo, size: int) -> int:
    """Return where a member's content begins: its own header may be longer than the directory says."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise OutlineError("a member does not begin where the directory says")
    name, extra = struct.unpack("<HH", header[26:30])
    start: int = info.header_offset + 30 + name + extra
    if start + info.file_size > size:
        raise OutlineError(f"it ends within its member '{info.filename[:80]}'")
    return start


def _check_directory(file: BinaryIO, size: int) -> None:
    """Refuse a zip whose directory is large: the library reads all of it before it can be asked anything."""
    file.seek(max(0, size - 65_557))
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end < 22:
        raise OutlineError("it is a zip archive without an end: it is truncated")
    entries, directory, offset = struct.unpack("<HII", tail[end + 10 : end + 20])
    if entries == 0xFFFF or 0xFFFFFFFF in (directory, offset) or entries > MOST_TENSORS or directory > MOST_DIRECTORY:
        raise OutlineError(f"its directory says {entries:,} members in {directory:,} bytes")
    file.seek(0)


def _legacy(file: BinaryIO, size: int) -> tuple[Any, Places]:
    """Read the outline of a legacy file: five pickles, and after them the storages, each after its number of values."""
    head = io.BytesIO(file.read(MOST_PICKLE))
    if walk(head) != MAGIC:
        raise OutlineError("it begins neither as a zip archive nor as a torch file nor as safetensors")
    if walk(head) != PROTOCOL:
        raise OutlineError("its legacy format has another number than 1001")
    system = walk(head)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise OutlineError("its bytes are not in little-endian order")
    kinds: dict[str, Storage] = {}
    outline = walk(head, kinds)
    keys = walk(head)
    if not isinstance(keys, list) or len(keys) > MOST_TENSORS:
        raise OutlineError("its list of storages is none")
    starts: dict[str, tuple[int, int]] = {}
    place = head.tell()
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8))
        storage = kinds[str(key)]
        end = place + 8 + count * SIZES[storage.kind]
        if count < 0 or end > size:
            raise OutlineError(f"it ends within its storage '{str(key)[:40]}'")
        starts[storage.key] = (place + 8, count)
        place = end
    return outline, lambda storage: starts[storage.key]


def _refuse_others(start: bytes) -> None:
    """Name files that are commonly taken for weights."""
    for begin, words in OTHERS.items():
        if start.startswith(begin) if begin else not start:
            raise OutlineError(words)
    if start[257:262] == b"ustar":
        raise OutlineError("it is a tar archive: unpack it first")


def _state(outline: Any) -> tuple[str, dict[Any, Any]]:
    """Return the dict of weights in a checkpoint, and what it is called there."""
    if not isinstance(outline, dict):
        raise OutlineError("it holds no dict of tensors")
    for part in PARTS:
        table = outline.get(part)
        if isinstance(table, dict) and any(isinstance(value, View) for value in table.values()):
            return part, table
    return "", outline


def _tensors(table: Mapping[Any, Any], places: Places) -> Iterator[tuple[str, TensorEntry]]:
    """Give the tensors of a state dict by name, each checked to lie within its storage."""
    views = {name: value for name, value in table.items() if isinstance(value, View)}
    if not views or len(views) > MOST_TENSORS:
        raise OutlineError(f"it holds {len(views):,} tensors")
    views.pop("n_averaged", None)  # torch's averaged models count beside their weights
    for _ in WRAPPERS:
        for wrapper in WRAPPERS:
            if all(isinstance(name, str) and name.startswith(wrapper) for name in views):
                views = {name.removeprefix(wrapper): view for name, view in views.items()}
    for name, view in views.items():
        if not isinstance(name, str):
            raise OutlineError("a tensor has no name")
        start, count = places(view.storage)
        last = view.offset + sum((n - 1) * step for n, step in zip(view.shape, view.strides, strict=True))
        if 0 not in view.shape and last >= min(count, view.storage.count):
            raise OutlineError(f"'{name[:80]}' reaches beyond its storage")
        yield (
            name,
            TensorEntry(
                DTYPES[view.storage.kind], view.shape, start + view.offset * SIZES[view.storage.kind], view.strides
            ),
        )


def _safetensors(file: BinaryIO, size: int) -> dict[str, TensorEntry]:
    """Read the outline of a safetensors file."""
    from bignas_zoo.files import strict_json

    (length,) = struct.unpack("<Q", file.read(8))
    if length > MOST_DIRECTORY or 8 + length > size:
        raise OutlineError(f"its header claims {length:,} bytes")
    header = strict_json.loads(file.read(length))
    entries = {}
    for name, row in header.items():
        if name == "__metadata__":
            continue
        begin, end = row["data_offsets"]
        shape = sizes(tuple(row["shape"]))
        kind = OF_SAFETENSORS[row["dtype"]]
        width = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
        if type(begin) is not int or type(end) is not int or not 0 <= begin <= end <= size - 8 - length:
            raise OutlineError(f"'{name[:80]}' reaches beyond the file")
        if end - begin != math.prod(shape) * width:
            raise OutlineError(f"'{name[:80]}' has {end - begin} bytes for shape {shape}")
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        entries[name] = TensorEntry(kind, shape, 8 + length + begin, strides)
    if not entries or len(entries) > MOST_TENSORS:
        raise OutlineError(f"it holds {len(entries):,} tensors")
    return entries
