"""What is fuzzed: each target turns bytes into one call of the package. Seeds are valid files made at run time."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing import Target, mutate_bytes, mutate_header, mutate_json

from bignas_zoo.files import store

PLACES: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def target(name: str) -> Target:
    """Return a target by its name, made once; only `weights` loads Keras."""
    PLACES.append(tempfile.TemporaryDirectory(prefix="bignas-fuzz-"))  # gone when the process ends
    return MAKERS[name](Path(PLACES[-1].name))


def _text(data: bytes) -> str:
    """Return bytes as a command line gives them."""
    return data.decode("utf-8", "surrogateescape")


def _file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        path.write_bytes(_sealed_again(data))
        return read(path)

    return run


def sealed(data: dict[str, Any]) -> bytes:
    """Return JSON with a digest that is right, so that a reader looks at the rest."""
    return json.dumps(store.sealed(data)).encode()


def _sealed_again(data: bytes) -> bytes:
    """Mend the digest of changed JSON, if it has one."""
    try:
        found = json.loads(data)
        return sealed(found) if isinstance(found, dict) and store.SEAL in found else data
    except (ValueError, RecursionError):
        return data


def budget(place: Path) -> Target:
    from bignas_zoo.budget import Budget

    seeds = (b"400MFLOPs", b"0.4GMACs, <=5Mparams", b"4MiB,8ms@pixel-6", b"top1>=80.5", b"1us@a", b"3K")
    return Target("budget", seeds, lambda data: str(Budget.parse(_text(data))), mutate_bytes)


def address(place: Path) -> Target:
    from bignas_zoo.hub.address import parse

    def run(data: bytes) -> object:
        found = parse(_text(data))
        assert (place / found.folder).resolve().parent == place.resolve()
        assert parse(str(found)) == found
        return found

    return Target("address", (b"hf://org/name", b"hf://a/b@v1.0", b"hf://o-1/n_2.3@refs/pr/4"), run, mutate_bytes)


def manifest(place: Path) -> Target:
    from bignas_zoo.hub import manifest as reader

    seed = reader.write({"a.txt": "0" * 64, "tflite/model.tflite": "f" * 64, "slice.json": "1" * 64})
    root = place.resolve()

    def run(data: bytes) -> object:
        listed = reader.read(data, "manifest")
        assert all(root in (place / name).resolve().parents for name in listed)
        return listed

    return Target("manifest", (seed,), run, mutate_bytes)


def signature(place: Path) -> Target:
    from bignas_zoo.errors import IntegrityError
    from bignas_zoo.hub.signing import KIND, _parse

    def text(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    parts = (text(KIND) + text(b"k" * 32), b"a/b@bignas-zoo", b"", b"sha512", text(KIND) + text(b"s" * 64))
    blob = base64.encodebytes(b"SSHSIG\0\0\0\1" + b"".join(map(text, parts)))
    seed = b"-----BEGIN SSH SIGNATURE-----\n" + blob + b"-----END SSH SIGNATURE-----\n"

    def run(data: bytes) -> object:
        try:
            return _parse(data)
        except ValueError as error:  # as `Verifier.check` does
            raise IntegrityError(str(error)) from error

    return Target("signature", (seed,), run, mutate_bytes)


def listing(place: Path) -> Target:
    from bignas_zoo.errors import NetworkError
    from bignas_zoo.tasks.listing import _listed

    facts = {"name": "s", "family": "f", "macs": 5, "parameters": 6, "bytes": 7, "resolution": 32, "top1": 80.5}
    seed = {"id": "zoo/a", "sha": "0" * 40, "modified": "2026-01-01", "private": False, "card": {"bignas_zoo": facts}}

    def run(data: bytes) -> object:
        try:
            row = json.loads(data)
        except (ValueError, RecursionError) as error:  # the client's part
            raise NetworkError("no JSON") from error
        if not isinstance(row, dict) or not seed.keys() <= row.keys():
            raise NetworkError("no row")  # `Hub.models` makes all five
        found = _listed(row)
        assert found is None or json.dumps(found.to_json(), allow_nan=False)
        return found

    return Target("listing", (json.dumps(seed).encode(),), run, mutate_json)


def family_data() -> dict[str, Any]:
    """Return a valid family.json."""
    from conftest import TINY

    record = {"file": "bn/tiny-s.safetensors", "bytes": 1, "sha256": "0" * 64}
    entry = {
        "name": "tiny-s", "spec": TINY.smallest.to_json(), "top1": 50.0, "top1_images": 30, "top1_source": "noise",
        "holdout_top1": 20.0, "holdout_images": 10, "bytes": 100, "statistics": record,
    }  # fmt: skip
    contract = {"crop_size": 20, "mean": [128.0] * 3, "std": [64.0] * 3, "channels": "RGB", "resize": "bicubic"}
    return {
        "schema": "bignas-zoo/family/2", "name": "tiny", "description": "tests", "license": "Apache-2.0",
        "space": TINY.to_json(), "class_names": list("abcde"), "preprocess": contract,
        "weights": {**record, "file": "supernet.safetensors"}, "training": {"recipe": {}}, "slices": [entry],
    }  # fmt: skip


def family(place: Path) -> Target:
    from bignas_zoo.zoo.family import load_family

    folder = place / "family"
    folder.mkdir()

    def read(path: Path) -> object:
        found = load_family(folder)
        for chosen in found.slices:  # what `list` shows
            json.dumps(chosen.to_json(), allow_nan=False)
        return found

    return Target("family", (sealed(family_data()),), _file(folder / "family.json", read), mutate_json)


def slice_data() -> dict[str, Any]:
    """Return a valid slice.json."""
    family, record = family_data(), {"bytes": 1, "sha256": "0" * 64}
    entry = family["slices"][0]
    protocol = {"runtime": "litert", "precision": "float32", "threads": 1}
    row = {"device": "d", "predicted_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "risk": "upper", "protocol": protocol}
    kept = ("name", "top1", "top1_images", "top1_source", "holdout_top1")
    return {
        "schema": "bignas-zoo/slice/2", **{k: entry[k] for k in kept}, "family": "tiny", "child": entry["spec"],
        "space": family["space"], "class_names": family["class_names"], "preprocess": family["preprocess"],
        "parity": {"max_abs": 1e-6, "images": 16, "inputs": "random inputs"}, "latency": [row],
        "files": {"model.tflite": record, "model.safetensors": record, "labels.txt": record, "README.md": record},
    }  # fmt: skip


def slice_json(place: Path) -> Target:
    from bignas_zoo.zoo import slice_folder

    folder = place / "slice"
    folder.mkdir()
    seeds = (sealed(slice_data()),)

    def read(path: Path) -> object:
        chosen, description = slice_folder.describe(folder)
        f"{description['parity']['max_abs']:.1e} {description['parity']['images']:,}"
        return chosen.to_json(), chosen.macs

    return Target("slice", seeds, _file(folder / "slice.json", read), mutate_json)


def labels(place: Path) -> Target:
    from bignas_zoo.zoo import slice_folder

    folder = place / "labels"
    folder.mkdir()
    description = slice_data()
    for name in ("model.tflite", "model.safetensors", "README.md"):
        (folder / name).write_bytes(b"x")
        description["files"][name] = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}

    def run(data: bytes) -> object:
        (folder / "labels.txt").write_bytes(data)
        description["files"]["labels.txt"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        (folder / "slice.json").write_bytes(sealed(description))
        return slice_folder.check_files(folder)

    return Target("labels", (b"a\nb\nc\nd\ne\n", "ä\nß\n猫\n".encode()), run, mutate_bytes)


def exports(place: Path) -> Target:
    from bignas_zoo.zoo import slice_folder

    folder = place / "exports"
    folder.mkdir()
    entry = {
        "file": "model-int8.tflite",
        "format": "tflite",
        "bytes": 5,
        "sha256": "0" * 64,
        "weights_sha256": "1" * 64,
    }
    tree = {
        "file": "saved",
        "files": {"saved/saved_model.pb": {"bytes": 1, "sha256": "2" * 64}},
        "bytes": 1,
        "sha256": "",
    }
    seed = {"schema": slice_folder.EXPORTS_SCHEMA, "exports": [entry, tree]}

    def read(path: Path) -> object:
        found = slice_folder.read_exports(folder)
        for entry in found["exports"]:
            for name in (str(entry["file"]), *entry.get("files", {})):
                assert folder.resolve() in (folder / name).resolve().parents
        return found

    return Target("exports", (sealed(seed),), _file(folder / "exports.json", read), mutate_json)


def device(place: Path) -> Target:
    from latency_tables import table_of

    from bignas_zoo.architecture.spaces import SPACES
    from bignas_zoo.latency import files

    data = json.loads(files.text(table_of(SPACES["bignas-cifar10"])))
    data["rows"] = data["rows"][:20]
    path = place / "device.json"
    return Target("device", (json.dumps(data).encode(),), _file(path, files.read_table), mutate_json)


def space(place: Path) -> Target:
    from conftest import LAYERWISE, LAYERWISE_CHILD, TINY

    from bignas_zoo.architecture import cost
    from bignas_zoo.architecture.space import ChildSpec, SearchSpace
    from bignas_zoo.files import store

    def read(path: Path) -> object:
        data = store.read_json(path)
        found = SearchSpace.from_json(data[0] if isinstance(data, list) and data else data)
        child = data[1] if isinstance(data, list) and len(data) > 1 else None
        spec = found.smallest if child is None else ChildSpec.from_json(child, found)
        return cost.macs(spec), cost.parameters(found.biggest)

    pairs = ((TINY, TINY.biggest), (LAYERWISE, LAYERWISE_CHILD))
    seeds = tuple(json.dumps([s.to_json(), c.to_json()]).encode() for s, c in pairs)
    return Target("space", seeds, _file(place / "space.json", read), mutate_json)


def recipe(place: Path) -> Target:
    from bignas_zoo.recipes.recipe import find_recipe, read_recipe

    seeds = tuple(find_recipe(name).read_bytes() for name in ("cifar10_cpu", "imagenet_tpu"))
    short = b"name: a\nspace: bignas-cifar10\ncrop_size: 32\nmean: [1, 2, 3]\nstd: [1, 2, 3]\nsteps: 5\nholdout: 0.1\n"
    return Target("recipe", (short, *seeds), _file(place / "recipe.yaml", read_recipe), mutate_bytes)


def weights(place: Path) -> Target:
    import numpy as np
    from safetensors.numpy import save

    from bignas_zoo.models import weights as reader

    arrays = {"stem.kernel": np.ones((3, 3), np.float32), "head.bias": np.zeros(4, np.float16), "step": np.int64(3)}
    seed = save({k: np.asarray(v) for k, v in arrays.items()}, {"slice": "tiny-s"})

    def read(path: Path) -> object:
        return reader.read_weights(path), reader.read_metadata(path)

    return Target("weights", (seed,), _file(place / "w.safetensors", read), mutate_header)


MAKERS: dict[str, Callable[[Path], Target]] = {
    "budget": budget, "address": address, "manifest": manifest, "signature": signature, "listing": listing,
    "family": family, "slice": slice_json, "labels": labels, "exports": exports, "device": device, "space": space,
    "recipe": recipe, "weights": weights,
}  # fmt: skip
