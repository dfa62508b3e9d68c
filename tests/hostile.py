"""The hostile set: files made to harm whoever reads them, the call they are given to, and the error that must come.

Each entry of `CASES` makes its files in a folder and calls the package. `CANARY` is what code in a file would make.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_targets import family_data, sealed, slice_data

from bignas_zoo.errors import BigNASError, IntegrityError

CANARY = "canary-that-code-would-make"


@dataclass(frozen=True)
class Case:
    """A hostile input.

    Attributes:
        name: of the case.
        run: makes it in a folder and gives it to the package.
        error, words: what must come of it.
    """

    name: str
    run: Callable[[Path], object]
    error: type[BigNASError]
    words: str


class Gadget:
    """A pickle that makes a folder where it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def pickled(place: Path) -> bytes:
    return pickle.dumps(Gadget(place / CANARY))


AFTER_PUT: list[Callable[[], object]] = []


def put(place: Path, name: str, data: bytes) -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    del data
    for told in AFTER_PUT:  # what the file's making took is not the package's
        told()
    return path


# ---------------------------------------------------------------------------------------------------------- JSON

JSON: dict[str, bytes] = {
    "depth of 100,000": b"[" * 100_000,
    "depth of 100,000, closed": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "depth of 400": b'{"schema": ' + b"[" * 400 + b"]" * 400 + b"}",
    "5,000 digits": b'{"schema": ' + b"9" * 5_000 + b"}",
    "NaN": b'{"schema": NaN}',
    "infinity": b'{"schema": -Infinity}',
    "1e999": b'{"schema": 1e999}',
    "key twice": b'{"schema": 1, "schema": 1}',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "half a surrogate pair": b'{"schema": "\\ud800"}',
    "not UTF-8": b'{"schema": "\xff"}',
    "empty": b"",
    "half written": b'{"schema": "bignas-zoo/fam',
    "34 MB": b" " * (34 << 20) + b"{}",
    "a quote that never ends": b"[" * 100 + b'"' + b'\\"' * 200_000,
}
LISTS = {"no object": b"[1, 2]", "null": b"null", "a number": b"5"}


def read_family(folder: Path) -> object:
    from bignas_zoo.zoo.registry import get_family

    return get_family(folder)


def read_slice(folder: Path) -> object:
    from bignas_zoo.tasks.slices import find

    return find(folder)


def read_exports(folder: Path) -> object:
    from bignas_zoo.zoo.slice_folder import read_exports

    return read_exports(folder)


def read_device(folder: Path) -> object:
    from bignas_zoo.latency import read_table

    return read_table(folder / "device.json")


READERS = {
    "family.json": read_family,
    "slice.json": read_slice,
    "exports.json": read_exports,
    "device.json": read_device,
}


def json_cases() -> list[Case]:
    cases = []
    for file, read in READERS.items():
        for what, data in {**JSON, **LISTS}.items():
            words = rf"{file}: not valid JSON|{file}: not a device table" if what in JSON else rf"{file}: not a valid"

            def run(place: Path, file: str = file, data: bytes = data, read: Any = read) -> object:
                put(place, file, data)
                return read(place)

            cases.append(Case(f"{file}: {what}", run, IntegrityError, words))
    return cases


# ------------------------------------------------------------------------------------------- names and texts

NAMES = (
    "../x",
    "/etc/passwd",
    "a/../../x",
    "C:\\x",
    "C:x",
    "\\\\host\\x",
    "a\0b",
    "",
    ".",
    "x\n",
    "\u202ex",
    "a" * 300,
)
#: Steers a terminal, turns text around, cannot be seen.
TEXTS = ("\x1b[2Jx", "\x9b2Jx", "\u202egnp.x", "a\u200bb", "\u2066x", "a\rb", "a\nb", "\x07")


def changed(data: Any, where: tuple[str | int, ...], value: object) -> bytes:
    parent = data
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    return sealed(data)


def name_cases() -> list[Case]:
    cases = []
    entry = {"file": "x", "bytes": 1, "sha256": "0" * 64}

    def add(name: str, file: str, data: Callable[[], bytes], read: Any, words: str) -> None:
        def run(place: Path) -> object:
            put(place, file, data())
            return read(place)

        cases.append(Case(f"{file}: {name}", run, IntegrityError, words))

    for name in NAMES:
        for where in (("weights", "file"), ("slices", 0, "statistics", "file")):
            add(f"{where[0]} {name[:20]!r}", "family.json",
                lambda w=where, n=name: changed(family_data(), w, n), read_family, "leaves the")  # fmt: skip
        exports = {"schema": "bignas-zoo/exports/2", "exports": [{**entry, "file": name}]}
        add(f"{name[:20]!r}", "exports.json", lambda d=exports: sealed(d), read_exports, "no name inside")
        inner = {"schema": "bignas-zoo/exports/2", "exports": [{**entry, "files": {name: entry}}]}
        add(
            f"inside {name[:20]!r}",
            "exports.json",
            lambda d=inner: sealed(d),
            read_exports,
            "no name inside",
        )
        add(f"files {name[:20]!r}", "slice.json",
            lambda n=name: changed(slice_data(), ("files", n), entry), read_slice, "files are")  # fmt: skip
    for text in TEXTS:
        for where in (("class_names", 0), ("slices", 0, "top1_source"), ("slices", 0, "name"), ("description",)):
            add(f"{where[-1]} {text!r}", "family.json",
                lambda w=where, t=text: changed(family_data(), w, t), read_family, "not a valid")  # fmt: skip
        for where in (("class_names", 0), ("top1_source",), ("latency", 0, "device"), ("parity", "inputs"), ("name",)):
            add(f"{where[-1]} {text!r}", "slice.json",
                lambda w=where, t=text: changed(slice_data(), w, t), read_slice, "not a valid")  # fmt: skip
    big: dict[str, tuple[tuple[str | int, ...], object]] = {
        "depth of 10^9": (("space", "stages", 0, "depths"), [1, 10**9]),
        "width of 8 x 10^12": (("space", "stages", 0, "widths"), [8, 8 * 10**12]),
        "20,000 stages": (("space", "stages"), [family_data()["space"]["stages"][0]] * 20_000),
        "100,000 widths": (("space", "stages", 0, "widths"), [8 * n for n in range(1, 100_000)]),
        "resolution of 10^9": (("space", "resolutions"), [12, 10**9]),
    }
    for what, (where, value) in big.items():
        add(
            what,
            "family.json",
            lambda w=where, v=value: changed(family_data(), w, v),
            read_family,
            "not a valid family",
        )
    return cases
