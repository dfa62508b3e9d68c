"""Files of weights read without torch: both torch formats as torch writes them, safetensors, and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.importers.torch_file import open_tensors

WEIGHTS = {
    "conv.weight": np.arange(24, dtype="f4").reshape(2, 3, 2, 2),
    "bn.weight": np.array([1.5, -2.0], "f4"),
}
TYPES = {"f4": "FloatStorage", "f2": "HalfStorage", "f8": "DoubleStorage", "i8": "LongStorage"}


class Storage:
    """Stands for a storage of torch's, which a pickle refers to."""

    def __init__(self, array: np.ndarray, key: str, kind: str | None = None) -> None:
        self.array, self.key = array, key
        self.kind = kind or TYPES[array.dtype.str[1:]]


class _Global:
    """Pickles as a name of a module that is not here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes what torch's own pickler does: names of torch's functions, and storages by reference."""

    def __init__(self, stream: io.BytesIO, *, legacy: bool) -> None:
        super().__init__(stream, 2)
        self.legacy = legacy

    def persistent_id(self, value: object) -> Any:
        if not isinstance(value, Storage):
            return None
        entry = ("storage", _Global("torch", value.kind), value.key, "cpu", value.array.size)
        return (*entry, None) if self.legacy else entry

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Tensor):
            self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
            super().save((obj.storage, obj.offset, obj.shape, obj.strides, False, OrderedDict()))
            self.write(b"R")
        else:
            super().save(obj, save_persistent_id)


class Tensor:
    """Stands for a view of a storage."""

    def __init__(
        self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0
    ) -> None:
        self.storage, self.shape, self.offset = storage, shape, offset
        self.strides = strides or tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def pickled(value: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, legacy=legacy).dump(value)
    return stream.getvalue()


def state(weights: dict[str, np.ndarray], prefix: str = "") -> tuple[Any, list[Storage]]:
    storages = [Storage(array, str(i)) for i, array in enumerate(weights.values())]
    pairs = zip(weights.items(), storages, strict=True)
    return OrderedDict((prefix + name, Tensor(s, array.shape)) for (name, array), s in pairs), storages


def zipped(outline: bytes, storages: list[Storage], byteorder: bytes = b"little") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", outline)
        archive.writestr("archive/byteorder", byteorder)
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
    return stream.getvalue()


def legacy(outline: bytes, storages: list[Storage]) -> bytes:
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = [pickle.dumps([s.key for s in storages], 2)]
    tail += [struct.pack("<q", s.array.size) + s.array.tobytes() for s in storages]
    return b"".join([*head, outline, *tail])


def both(value: Callable[[], tuple[Any, list[Storage]]]) -> list[bytes]:
    outline, storages = value()
    return [zipped(pickled(outline), storages), legacy(pickled(outline, legacy=True), storages)]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_both_formats_give_the_same_tensors(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    def value() -> tuple[Any, list[Storage]]:
        tensors, storages = state(WEIGHTS, prefix)
        extra = {"epoch": 3, "args": {"lr": 0.1, "names": ["a"], "none": None, "yes": True}, "s": (1, 2.5, "x")}
        return ({"state_dict": tensors, **extra} if wrapped else tensors), storages

    for data in both(value):
        path = tmp_path / "weights"  # without a suffix, as Once-for-all's
        path.write_bytes(data)
        file = open_tensors(path)
        assert set(file.tensors) == set(WEIGHTS)
        for name, array in WEIGHTS.items():
            assert np.array_equal(file.read(name, array.shape), array)


def test_views_and_types(tmp_path: Path) -> None:
    base = np.arange(24, dtype="f4")
    halves = (np.arange(6, dtype="f4") / 4).astype("f2")
    brains = (np.arange(6, dtype="f4").view("u4") >> 16).astype("u2")
    shared, half = Storage(base, "0"), Storage(halves, "1")
    brain, double = Storage(brains, "2", "BFloat16Storage"), Storage(base.astype("f8"), "3")
    tensors = {
        "t": Tensor(shared, (6, 4), (1, 6)), "v": Tensor(shared, (2, 2), (6, 1), 8), "h": Tensor(half, (6,)),
        "b": Tensor(brain, (6,)), "d": Tensor(double, (24,)), "e": Tensor(shared, (3, 2), (0, 1)),
    }  # fmt: skip
    expected = {
        "t": base.reshape(4, 6).T, "v": base.reshape(4, 6)[1:3, 2:4], "h": np.arange(6) / 4, "b": np.arange(6),
        "d": base, "e": np.broadcast_to(base[:2], (3, 2)),
    }  # fmt: skip
    for data in both(lambda: (tensors, [shared, half, brain, double])):
        (tmp_path / "f").write_bytes(data)
        file = open_tensors(tmp_path / "f")
        for name, array in expected.items():
            assert np.array_equal(file.read(name, array.shape), array), name


def test_the_running_average_goes_first_and_wrappers_are_taken_off(tmp_path: Path) -> None:
    plain, average = np.zeros(2, "f4"), np.ones(2, "f4")
    for part in ("state_dict_ema", "model_ema"):

        def value(part: str = part) -> tuple[Any, list[Storage]]:
            storages = [Storage(plain, "0"), Storage(average, "1"), Storage(np.array([7], "i8"), "2")]
            own = {"module._orig_mod.w": Tensor(storages[1], (2,)), "n_averaged": Tensor(storages[2], (1,))}
            return {"state_dict": {"w": Tensor(storages[0], (2,))}, part: own}, storages

        for data in both(value):
            (tmp_path / "f").write_bytes(data)
            file = open_tensors(tmp_path / "f")
            assert (file.part, list(file.tensors)) == (part, ["w"])
            assert np.array_equal(file.read("w", (2,)), average)


def test_a_changed_byte_in_a_zip_is_noticed(tmp_path: Path) -> None:
    data = bytearray(GOOD[0])
    data[data.index(WEIGHTS["conv.weight"].tobytes()) + 3] ^= 1
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(IntegrityError, match="checksum"):
        open_tensors(tmp_path / "f").check()
    for good in GOOD:
        (tmp_path / "f").write_bytes(good)
        open_tensors(tmp_path / "f").check()


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({**WEIGHTS, "half": WEIGHTS["bn.weight"].astype("f2")}))
    file = open_tensors(path)
    assert np.array_equal(file.read("conv.weight", (2, 3, 2, 2)), WEIGHTS["conv.weight"])
    assert np.array_equal(file.read("half", (2,)), WEIGHTS["bn.weight"])


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def bomb(depth: int) -> bytes:
    """Tuples of tuples, whose hash takes twice as long for each level, as a dict's key."""
    return b"\x80\x02)" + b"q\x00h\x00\x86" * depth + b"}" + b"h\x00K\x01s."


def tensor_of(shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0) -> bytes:
    storage = Storage(np.zeros(4, "f4"), "0")
    return zipped(pickled({"w": Tensor(storage, shape, strides, offset)}), [storage])


def compressed() -> bytes:
    outline, storages = state({"w": np.zeros(8, "f4")})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled(outline))
        archive.writestr("archive/data/0", storages[0].array.tobytes() + bytes(100 << 20))
    return stream.getvalue()


def many_members() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for i in range(30_000):
            archive.writestr(f"archive/data/{i}", b"")
    return stream.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("weights.pth")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


GOOD = both(lambda: state(WEIGHTS))
HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "calls": (lambda p: zipped(pickle.dumps({"w": Evil(p)}, 2), []), "names .*mkdir, which no weights need"),
    "calls, legacy": (lambda p: legacy(pickle.dumps({"w": Evil(p)}, 2), []), "mkdir"),
    "calls, protocol 4": (lambda p: zipped(pickle.dumps({"w": Evil(p)}, 4), []), "mkdir"),
    "eval": (lambda p: zipped(b"cbuiltins\neval\n(S'1'\ntR.", []), "builtins.eval"),
    "instance": (lambda p: zipped(b"(ios\nsystem\n.", []), "opcode INST"),
    "extension": (lambda p: zipped(b"\x80\x02\x82\x01.", []), "opcode EXT1"),
    "persistent text": (lambda p: zipped(b"Pabc\n.", []), "opcode PERSID"),
    "hash bomb": (lambda p: zipped(bomb(60), []), "neither text nor number"),
    "no end": (lambda p: zipped(b"\x80\x02}", []), "pickle"),
    "empty stack": (lambda p: zipped(b"\x80\x02R.", []), "stack is empty"),
    "no mark": (lambda p: zipped(b"\x80\x02t.", []), "lacks a mark"),
    "memo": (lambda p: zipped(b"\x80\x02h\x05.", []), "has no 5"),
    "long steps": (lambda p: zipped(b"\x80\x02]" + b"K\x01a" * 300_000 + b".", []), "too many steps"),
    "huge text": (lambda p: zipped(b"\x80\x02X\xff\xff\xff\x7f.", []), "pickle|bytes"),
    "beyond storage": (lambda p: tensor_of((5,)), "reaches beyond its storage"),
    "offset": (lambda p: tensor_of((1,), offset=4), "reaches beyond its storage"),
    "strides": (lambda p: tensor_of((2, 2), (4, 1)), "reaches beyond its storage"),
    "negative": (lambda p: tensor_of((-1,)), "shape is none"),
    "compressed": (lambda p: compressed(), "compressed"),
    "many members": (lambda p: many_members(), "its directory says"),
    "no tensors": (lambda p: zipped(pickled({"epoch": 1}), []), "0 tensors"),
    "a list": (lambda p: zipped(pickled([1]), []), "no dict of tensors"),
    "missing storage": (lambda p: zipped(pickled(state(WEIGHTS)[0]), []), "has no"),
    "big-endian": (
        lambda p: zipped(pickled(state(WEIGHTS)[0]), state(WEIGHTS)[1], byteorder=b"big"),
        "endian",
    ),
    "truncated zip": (lambda p: GOOD[0][:-30], "truncated"),
    "truncated legacy": (lambda p: GOOD[1][:-5], "ends within"),
    "empty": (lambda p: b"", "it is empty"),
    "text": (lambda p: b"<!DOCTYPE html><html>Google Drive can't scan this file", "web page"),
    "git-lfs": (lambda p: b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "pointer of git-lfs"),
    "gzip": (lambda p: gzip.compress(GOOD[0]), "gzip"),
    "tar": (lambda p: tarred(GOOD[0]), "tar archive"),
    "zip in a zip": (lambda p: zip_of({"weights.pth": GOOD[0]}), "unpack it first"),
    "torchscript": (lambda p: zip_of({"archive/data.pkl": b"", "archive/constants.pkl": b""}), "TorchScript"),
    "whole network": (lambda p: zipped(b"ctorch.nn.modules.container\nSequential\n.", []), "save its state_dict"),
    "safetensors, header": (lambda p: struct.pack("<Q", 1 << 40) + b"{" + bytes(40), "claims"),
    "safetensors, reach": (
        lambda p: struct.pack("<Q", 60) + b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(60),
        "beyond the file",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_at_once(tmp_path: Path, case: str) -> None:
    make, says = HOSTILE[case]
    path = tmp_path / "weights.pth"
    path.write_bytes(make(tmp_path / "made"))
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(IntegrityError, match=says):
        open_tensors(path)
    # A second and 200 MB are the bounds; under the tracer all is slower by far.
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    assert time.process_time() - begun < 20
    assert not (tmp_path / "made").exists()


def test_values_that_are_not_numbers(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(both(lambda: state({"w": np.array([1, np.nan], "f4")}))[0])
    with pytest.raises(IntegrityError, match="not numbers"):
        open_tensors(tmp_path / "f").read("w", (2,))
    (tmp_path / "f").write_bytes(both(lambda: state({"w": np.array([1, 2], "i8")}))[0])
    with pytest.raises(IntegrityError, match="with a point"):
        open_tensors(tmp_path / "f").read("w", (2,))
    with pytest.raises(IntegrityError, match=r"has shape \(2,\), expected \(3,\)"):
        open_tensors(tmp_path / "f").read("w", (3,))


def test_places_that_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(LocalIOError):
            open_tensors(path)
