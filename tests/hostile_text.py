"""Hostile weights and recipes; see `hostile.py`."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hostile import CANARY, Case, put

from bignas_zoo.errors import IntegrityError, RecipeError

# -------------------------------------------------------------------------------------------------------- weights


def header(entries: Mapping[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: str = "F32", shape: Any = (1,), begin: int = 0, end: int = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def empty_tensors(count: int) -> bytes:
    rows = b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(count))
    return header(b"{%s}" % rows)


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}'
WEIGHTS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "7 bytes": lambda: b"1234567",
    "header past the end": lambda: struct.pack("<Q", 1 << 20) + b"{}",
    "header of 2^63": lambda: struct.pack("<Q", 1 << 63) + b"{}",
    "header of 100 MB": lambda: header(b" " * (100 << 20)),
    "500,000 tensors": lambda: empty_tensors(500_000),
    "20,000 tensors": lambda: empty_tensors(20_000),
    "key twice": lambda: header(TWICE, b"\0" * 4),
    "name ../../x": lambda: header({"../../x": tensor()}, b"\0" * 4),
    "name with NUL": lambda: header({"a\0b": tensor()}, b"\0" * 4),
    "name of 10 kB": lambda: header({"a" * 10_000: tensor()}, b"\0" * 4),
    "name turned around": lambda: header({"a\u202eb": tensor()}, b"\0" * 4),
    "BF16": lambda: header({"a": tensor("BF16", [2])}, b"\0" * 4),
    "F8": lambda: header({"a": tensor("F8_E4M3", [4])}, b"\0" * 4),
    "BOOL": lambda: header({"a": tensor("BOOL", [4])}, b"\0" * 4),
    "rank 100": lambda: header({"a": tensor(shape=[1] * 100)}, b"\0" * 4),
    "0 x 2^62": lambda: header({"a": tensor(shape=[0, 1 << 62], end=0)}),
    "overflowing product": lambda: header({"a": tensor(shape=[4194305, 4194305, 211106198978564])}, b"\0" * 4),
    "negative dimension": lambda: header({"a": tensor(shape=[-1])}, b"\0" * 4),
    "float dimension": lambda: header({"a": tensor(shape=[1.0])}, b"\0" * 4),
    "bytes left over": lambda: header({"a": tensor()}, b"\0" * 8),
    "overlap": lambda: header({"a": tensor(), "b": tensor()}, b"\0" * 4),
    "hole": lambda: header({"a": tensor(), "b": tensor(begin=8, end=12)}, b"\0" * 12),
    "depth of 100,000": lambda: header(b"[" * 100_000),
    "no object": lambda: header(b"[]"),
    "metadata of numbers": lambda: header({"__metadata__": {"a": 1}, "a": tensor()}, b"\0" * 4),
}


def weight_cases() -> list[Case]:
    def run(place: Path, make: Callable[[], bytes]) -> object:
        from bignas_zoo.models.weights import read_weights

        return read_weights(put(place, "w.safetensors", make()))

    def metadata(place: Path, make: Callable[[], bytes]) -> object:
        from bignas_zoo.models.weights import read_metadata

        return read_metadata(put(place, "w.safetensors", make()))

    cases = []
    for what, make in WEIGHTS.items():
        for reader in (run, metadata):
            call = lambda place, m=make, r=reader: r(place, m)
            cases.append(
                Case(f"weights: {what} ({reader.__name__})", call, IntegrityError, "damaged or not a safetensors")
            )
    for value, words in ((float("nan"), "not numbers"), (float("inf"), "not numbers"), (-1.0, "variances below zero")):

        def check(place: Path, value: float = value) -> object:
            import numpy as np

            from bignas_zoo.models.weights import check_shapes

            return check_shapes({"a.bn.variance": np.full(3, value)}, {"a.bn.variance": (3,)}, "there")

        cases.append(Case(f"weights: variance {value}", check, IntegrityError, words))
    return cases


# ----------------------------------------------------------------------------------------------------------- YAML

RECIPE = "name: a\nspace: bignas-cifar10\ncrop_size: 32\nmean: [1, 2, 3]\nstd: [1, 2, 3]\nsteps: 5\nholdout: 0.1\n"
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML: dict[str, tuple[Callable[[Path], str], str]] = {
    "os.system": (lambda p: f"name: !!python/object/apply:os.mkdir ['{p / CANARY}']\n", "tags are not allowed"),
    "python/object/new": (lambda p: f"a: !!python/object/new:os.mkdir ['{p / CANARY}']\n", "tags are not allowed"),
    "python/name": (lambda p: "a: !!python/name:os.system\n", "tags are not allowed"),
    "binary tag": (lambda p: "a: !!binary aGk=\n", "tags are not allowed"),
    "alias bomb": (lambda p: ALIASES, "anchors, aliases"),
    "merge bomb": (lambda p: MERGES, "anchors, aliases"),
    "merge key": (lambda p: RECIPE + "<<: {seed: 5}\n", r"line 8: merge keys \(<<\) are not allowed"),
    "merge key inside": (lambda p: RECIPE + "seed: {<<: {a: 5}}\n", "merge keys"),
    "merge key in a list": (lambda p: RECIPE + "seed: [{<<: {a: 5}}]\n", "merge keys"),
    "merge key as a value": (lambda p: RECIPE + "activation: <<\n", "not valid YAML|must be"),
    "anchor of itself": (lambda p: "&a [*a]\n", "anchors, aliases"),
    "key twice": (lambda p: RECIPE + "steps: 6\n", "key 'steps' stands twice"),
    "key twice inside": (lambda p: RECIPE + "seed: {a: 1, a: 2}\n", "key 'a' stands twice"),
    "depth": (lambda p: "[" * 30_000, "nested too deeply"),
    "block depth": (lambda p: "".join(" " * i + "a:\n" for i in range(300)), "nested too deeply"),
    "60,000 keys": (lambda p: "a:\n" * 20_000, "more than a recipe can hold"),
    "a file of 10 MB": (lambda p: "#" * (10 << 20), "larger than 64 KiB"),
    "NUL": (lambda p: "name: a\0b\n", "not valid YAML"),
    "date": (lambda p: RECIPE + "seed: 2020-99-99\n", "not valid YAML"),
    "digits": (lambda p: RECIPE + f"seed: {'9' * 5000}\n", "not valid YAML"),
    "empty number": (lambda p: RECIPE + "seed: 0x\n", "must be of type int|not valid YAML"),
    "sexagesimal": (lambda p: RECIPE + f"seed: {'1:' * 5000}1\n", "line 8: .* means another thing in YAML"),
    "octal": (lambda p: RECIPE + "seed: 010\n", "'010' means another thing in YAML"),
    "hexadecimal": (lambda p: RECIPE + "seed: 0x10\n", "means another thing in YAML"),
    "underscore": (lambda p: RECIPE + "seed: 1_0\n", "means another thing in YAML"),
    "Norway": (lambda p: RECIPE + "flip: no\n", "'no' means another thing in YAML"),
    "unprintable name": (lambda p: RECIPE.replace("name: a", 'name: "\\e[2J"'), "lower-case letters"),
    "a key of 60 kB": (lambda p: f"{'k' * 60_000}: 1\n", "unknown key|not valid YAML"),
}


def yaml_cases() -> list[Case]:
    def run(place: Path, make: Callable[[Path], str]) -> object:
        from bignas_zoo.recipes.recipe import find_recipe, read_recipe

        return read_recipe(find_recipe(put(place, "r.yaml", make(place).encode())))

    return [
        Case(f"recipe: {what}", lambda place, m=make: run(place, m), RecipeError, words)
        for what, (make, words) in YAML.items()
    ]
