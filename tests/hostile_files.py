"""Hostile images, models, archives and slice folders, and the whole set; see `hostile.py`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz_targets import sealed, slice_data
from hostile import CANARY, Case, Gadget, json_cases, name_cases, pickled, put
from hostile_text import weight_cases, yaml_cases

from bignas_zoo.errors import BigNASError, IntegrityError, LocalIOError, NotFoundError, RecipeError, UsageError

# ------------------------------------------------------------------------------------- pickles, Keras files, images


def pth(place: Path) -> bytes:
    """Return what torch.save writes: a zip archive with a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(place))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def keras_file(place: Path) -> bytes:
    """Return a .keras file whose layers are a Lambda of marshalled code and a function of a foreign module."""
    evil = {"module": "os", "class_name": "mkdir", "config": {"path": str(place / CANARY)}, "registered_name": "mkdir"}
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}
    layers = [evil, {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": code}}]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("model.weights.h5", b"\0" * (50 << 20))  # a bomb: 50 kB packed
        archive.writestr("../../escaped", b"outside")
    return buffer.getvalue()


def arrays(place: Path, **more: Any) -> bytes:
    """Return a packed data set in which an array is a pickle."""
    import numpy as np

    gadget = np.empty(1, object)
    gadget[0] = Gadget(place / CANARY)
    fields = {"schema": "bignas-zoo/packed/1", "source": "x", "labels": np.zeros(1, np.int32), "webp": gadget, **more}
    fields.setdefault("class_names", np.array(["a"]))
    fields.setdefault("offsets", np.array([0, 1]))
    buffer = io.BytesIO()
    np.savez(buffer, **fields)
    return buffer.getvalue()


def lying_array() -> bytes:
    """Return a .npz file one of whose arrays claims 4 TB."""
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (4398046511104,), }"
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("schema", "source", "class_names", "labels", "offsets", "webp"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text)
    return buffer.getvalue()


def packed_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("webp.npy", "w") as file:
        for _ in range(300):
            file.write(b"\0" * (1 << 20))
    return buffer.getvalue()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data or zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def jpeg() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), (200, 30, 60)).save(buffer, "JPEG")
    return buffer.getvalue()


#: Pillow's plugin for it starts Ghostscript, which runs the program in it.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(canary) (w) file closefile showpage\n%%EOF\n"
IMAGES: dict[str, Callable[[Path], bytes]] = {
    "60,000 x 60,000 pixels": lambda p: png(60_000, 60_000),
    "13,000 x 13,000 pixels": lambda p: png(13_000, 13_000),
    "no pixels": lambda p: png(0, 0),
    "truncated JPEG": lambda p: jpeg()[:400],
    "EPS": lambda p: EPS,
    "pickle": pickled,
    "npy": lambda p: b"\x93NUMPY\x01\0" + pickled(p),
    "empty": lambda p: b"",
}


def image_cases() -> list[Case]:
    def run(place: Path, make: Callable[[Path], bytes]) -> object:
        from bignas_zoo.recipes.data import image_folder

        put(place, "images/cat/a.png", make(place))
        return image_folder(place / "images", 32)

    words = r"a\.png: (not a readable|damaged) image|a\.png: damaged image"
    cases = [
        Case(f"image: {what}", lambda place, m=make: run(place, m), IntegrityError, words)
        for what, make in IMAGES.items()
    ]

    def link(place: Path) -> object:
        (place / "images" / "cat").mkdir(parents=True)
        (place / "images" / "cat" / "a.png").symlink_to("/etc/passwd")
        return _folder(place)

    def fifo(place: Path) -> object:
        (place / "images" / "cat").mkdir(parents=True)
        os.mkfifo(place / "images" / "cat" / "a.png")
        return _folder(place)

    def zero(place: Path) -> object:
        (place / "images" / "cat").mkdir(parents=True)
        (place / "images" / "cat" / "a.png").symlink_to("/dev/zero")
        return _folder(place)

    def circle(place: Path) -> object:
        from bignas_zoo.recipes.data import unlabelled_images

        (place / "images").mkdir()
        (place / "images" / "again").symlink_to(place / "images")
        return unlabelled_images(place / "images", 32, 10)

    cases.append(Case("image: link to another file", link, IntegrityError, r"a\.png: not a readable image"))
    cases.append(Case("image: named pipe", fifo, LocalIOError, "no images found"))
    cases.append(Case("image: link to /dev/zero", zero, LocalIOError, "no images found"))
    cases.append(Case("image: folder in itself", circle, LocalIOError, "no images found"))
    return cases


def _folder(place: Path) -> object:
    from bignas_zoo.recipes.data import image_folder

    return image_folder(place / "images", 32)


def model_cases() -> list[Case]:
    makers: dict[str, Callable[[Path], bytes]] = {
        "m.pth": pth, "m.pkl": pickled, "m.h5": lambda p: b"\x89HDF\r\n\x1a\n" + pickled(p), "m.keras": keras_file,
        "m.npy": lambda p: b"\x93NUMPY\x01\0" + pickled(p),
    }  # fmt: skip

    def weights(path: Path) -> object:
        from bignas_zoo.models.weights import read_weights

        return read_weights(path)

    def load(path: Path) -> object:
        import bignas_zoo

        return bignas_zoo.load(path)

    def family(path: Path) -> object:
        import bignas_zoo

        return bignas_zoo.get("x", family=path, output=path.parent / "out")

    def verify(path: Path) -> object:
        from bignas_zoo.tasks.verify import verify

        return verify(path)

    def packed(path: Path) -> object:
        from bignas_zoo.recipes.data.packing import read_packed

        return read_packed(path)

    def recipe(path: Path) -> object:
        from bignas_zoo.recipes.recipe import find_recipe, read_recipe

        return read_recipe(find_recipe(path))

    calls: list[tuple[Callable[[Path], object], type[BigNASError], str]] = [
        (weights, IntegrityError, "not a safetensors file"),
        (load, NotFoundError, "not known"),
        (family, NotFoundError, "not known"),
        (packed, IntegrityError, "damaged, or no packed data set"),
        (recipe, RecipeError, "not a text file|not valid YAML|larger than"),
    ]
    cases = []
    for name, make in makers.items():
        for call, error, words in calls:

            def run(place: Path, name: str = name, make: Any = make, call: Any = call) -> object:
                return call(put(place, name, make(place)))

            cases.append(Case(f"{name} to {call.__name__}", run, error, words))
        kind: type[BigNASError] = UsageError if name == "m.keras" else IntegrityError
        run_verify = lambda place, n=name, m=make: verify(put(place, n, m(place)))
        cases.append(Case(f"{name} to verify", run_verify, kind, "can run its code|not a|no "))
    data: dict[str, Callable[[Path], bytes]] = {
        "pickled images": arrays, "an array of 4 TB": lambda p: lying_array(), "a bomb": lambda p: packed_bomb(),
        "pickled schema": lambda p: arrays(p, schema=__import__("numpy").array([Gadget(p / CANARY)], object)),
    }  # fmt: skip
    for what, make in data.items():
        run_packed = lambda place, m=make: packed(put(place, "d.npz", m(place)))
        cases.append(Case(f"packed data: {what}", run_packed, IntegrityError, "damaged, or no packed data set"))

        def tiles(place: Path, make: Any = make) -> object:
            from bignas_zoo.recipes.data import cifar10

            put(place, "cifar10_test.npz", make(place))
            return cifar10(place, "test")

        cases.append(Case(f"CIFAR-10 tiles: {what}", tiles, IntegrityError, "damaged CIFAR-10 tile file"))
    return cases


# ------------------------------------------------------------------------------------------------- slice folders


def slice_folder(place: Path, **contents: bytes) -> Path:
    """Make a slice folder whose records are right, whatever its files hold."""
    description = slice_data()
    files = {
        "model.tflite": b"x", "model.safetensors": b"x", "labels.txt": b"a\nb\nc\nd\ne\n", "README.md": b"x",
        **{name.replace("__", "."): data for name, data in contents.items()},
    }  # fmt: skip
    for name, data in files.items():
        put(place, name, data)
        description["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    put(place, "slice.json", sealed(description))
    return place


def folder_cases() -> list[Case]:
    from bignas_zoo.zoo import slice_folder as folders

    def load(place: Path, **contents: bytes) -> object:
        import bignas_zoo

        return bignas_zoo.load(slice_folder(place, **contents))

    def linked(place: Path) -> object:
        slice_folder(place)
        (place / "labels.txt").unlink()
        (place / "labels.txt").symlink_to("/etc/passwd")
        return folders.check_files(place)

    def device(place: Path) -> object:
        slice_folder(place)
        (place / "labels.txt").unlink()
        (place / "labels.txt").symlink_to("/dev/zero")
        return folders.check_files(place)

    return [
        Case("slice: pickled weights", lambda p: load(p, model__safetensors=pickled(p)), IntegrityError, "not a safe"),
        Case("slice: labels are not UTF-8", lambda p: load(p, labels__txt=b"\xff\n"), IntegrityError, "not UTF-8"),
        Case("slice: other labels", lambda p: load(p, labels__txt=b"a\nb\n"), IntegrityError, "class_names are not"),
        Case("slice: turned", lambda p: load(p, labels__txt="\u202ea\nb\n".encode()), IntegrityError, "class_names"),
        Case("slice: labels linked to another file", linked, IntegrityError, r"labels\.txt: damaged"),
        Case("slice: labels linked to /dev/zero", device, IntegrityError, r"labels\.txt: missing"),
    ]  # fmt: skip


CASES = [
    *json_cases(), *name_cases(), *weight_cases(), *yaml_cases(), *image_cases(), *model_cases(), *folder_cases(),
]  # fmt: skip
