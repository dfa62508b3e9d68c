"""A wrong byte or a file cut short is found before it is used; scripts/nightly_store does 10,000 and every length."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import flipping
import pytest
from hub_fixtures import REPO, push
from hub_server import HubServer
from test_cache import fill

import bignas_zoo as bz
from bignas_zoo.errors import IntegrityError
from bignas_zoo.files import store
from bignas_zoo.hub import fetching
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.zoo import slice_folder as folders

FLIPS = 600


def judge(target: flipping.Target, flips: int = FLIPS, least: float = 0.9) -> None:
    outcome = flipping.flips(target, flips, seed=1) + flipping.truncations(target, flipping.some)
    assert outcome["found"] > least * outcome.total()


def with_exports(slice_folder: Path, folder: Path) -> Path:
    """Copy a slice folder and add an export."""
    shutil.copytree(slice_folder, folder)
    (folder / "model.onnx").write_bytes(bytes(range(256)) * 8)
    weights = store.sha256(folder / "model.safetensors")
    entry = {"file": "model.onnx", **store.record(folder / "model.onnx"), "weights_sha256": weights}
    store.write_json(folder / "exports.json", store.sealed({"schema": folders.EXPORTS_SCHEMA, "exports": [entry]}))
    return folder


def test_a_slice_folder(slice_folder: Path, tmp_path: Path) -> None:
    judge(flipping.of_slice_folder(with_exports(slice_folder, tmp_path / "slice")))


def test_an_entry_of_the_cache(slice_folder: Path) -> None:
    judge(flipping.of_cache_entry(fill(slice_folder)))


def test_an_entry_of_the_hub(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    entry = fetching.fetch(f"hf://{REPO}").folder.parent
    judge(flipping.of_hub_entry(entry))
    judge(flipping.of_ref(entry.parent / "refs" / "main.json"), flips=200, least=0.8)


def test_a_family(tmp_path: Path) -> None:
    shipped = bz.get_family("bignas-cifar10").folder
    assert shipped
    unrecorded = shutil.ignore_patterns("front.json", "metrics.jsonl")  # only drawings read them
    target = flipping.of_family(shutil.copytree(shipped, tmp_path / "family", ignore=unrecorded))
    assert flipping.flips(target, FLIPS // 6, seed=1)["found"] > FLIPS // 8


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"top1": 99.0},
        lambda d: d | {"license": "CC0-1.0"},
        lambda d: d | {"front": []},
        lambda d: {k: v for k, v in d.items() if k != "digest"},
        lambda d: d | {"digest": "0" * 64},
        lambda d: d | {"digest": None},
        lambda d: d | {"more": 1},
    ],
)
def test_what_no_other_file_records_is_covered(
    slice_folder: Path, tmp_path: Path, change: Callable[[dict], dict]
) -> None:
    folder = tmp_path / "slice"
    shutil.copytree(slice_folder, folder)
    path = folder / "slice.json"
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))))
    with pytest.raises(IntegrityError, match=r"slice\.json: not a valid slice description .*Make the folder again"):
        folders.describe(folder)


def test_the_digest_is_sha256_of_the_canonical_content() -> None:
    """By hand: keys sorted, no spaces, ASCII."""
    import hashlib

    made = store.sealed({"b": [1, 2.5], "a": "\u00e9"})
    assert made["digest"] == hashlib.sha256(b'{"a":"\\u00e9","b":[1,2.5]}').hexdigest()
    assert list(made) == ["b", "a", "digest"]
    assert store.sealed(made) == made
    store.check_seal(json.loads(json.dumps(made)))


def test_families_from_before_the_digest_are_read(tmp_path: Path) -> None:
    shipped = bz.get_family("bignas-cifar10").folder
    assert shipped
    data = json.loads((shipped / "family.json").read_text("utf-8"))
    del data["digest"]
    for schema, good in (("bignas-zoo/family/1", True), ("bignas-zoo/family/2", False)):
        (tmp_path / "family.json").write_text(json.dumps({**data, "schema": schema}))
        if good:
            assert bz.get_family(tmp_path).name == "bignas-cifar10"
        else:
            with pytest.raises(IntegrityError, match="digest"):
                bz.get_family(tmp_path)
