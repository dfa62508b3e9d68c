"""Fixtures of the tests of the Hub: a server, who uses it, and a slice folder to push."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY
from hub_repos import WRITER
from hub_server import HubServer

from bignas_zoo.files import names, store
from bignas_zoo.files.records import FileRecord
from bignas_zoo.hub import layout, pushing
from bignas_zoo.hub.client import Hub
from bignas_zoo.tasks import bundle, slice_files
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice

REPO = "zoo/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A server that this process uses as its Hub, with a writer's token, LFS instead of xet, and no waits."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path_factory.mktemp("home") / "token"))
    for module in (_http, pushing):
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="session")
def slice_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice folder whose files are whole but hold noise: nothing of the Hub looks into them. Not to be changed."""
    return write_noise(tmp_path_factory.mktemp("noise") / "tiny-s")


def write_noise(folder: Path) -> Path:
    """Make such a folder."""
    import random

    from bignas_zoo.hub_cards.card import render_card

    folder.mkdir()
    noise = random.Random(0)
    record = FileRecord("bn/tiny-s.safetensors", 1, "0" * 64)
    slices = tuple(
        Slice(name, "tiny", spec, top1, 30, "noise (30 images)", 20.0, 1, record, license="MIT")
        for name, spec, top1 in (("tiny-s", TINY.smallest, 25.0), ("tiny-xl", TINY.biggest, 50.0))
    )
    contract = {"crop_size": 20, "mean": [128.0] * 3, "std": [64.0] * 3, "channels": "RGB", "resize": "bicubic"}
    family = Family("tiny", "of the tests", TINY, tuple("abcde"), contract, slices)
    for name, size in (("model.tflite", 50_000), ("model.safetensors", 30_000)):
        (folder / name).write_bytes(noise.randbytes(size))
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    files = {p.name: store.record(p) for p in folder.iterdir()}
    parity = {"max_abs": 1e-6, "mean_abs": 1e-7, "max_logit": 3.0, "images": 16, "inputs": "random inputs"}
    description = slice_files.content(family, slices[0], files, parity)
    (folder / "README.md").write_text(render_card(description, slices[0].spec), "utf-8")
    description["files"]["README.md"] = store.record(folder / "README.md")
    store.write_json(folder / "slice.json", store.sealed(description))
    return folder


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the files of Keras and the pictures: to make real ones takes seconds."""
    use_stand_ins(monkeypatch)


def use_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put them in place."""

    def draw(place: Path, *_: object) -> tuple[str, ...]:
        for path in layout.PLOTS:
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_bytes(b"picture " + path.encode())
        return layout.PLOTS

    monkeypatch.setattr(bundle, "draw", draw)
    fakes = {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"weights" * 1000}
    monkeypatch.setattr(bundle, "keras_layout", lambda folder: fakes)


@pytest.fixture
def tiny_bundle(slice_folder: Path, stand_ins: None, tmp_path_factory: pytest.TempPathFactory) -> pushing.Bundle:
    """The files of the slice's repository."""
    return bundle.make(slice_folder, REPO, tmp_path_factory.mktemp("bundle"))


def push(made: pushing.Bundle, repo: str = REPO, branch: str = "main", private: bool = False) -> pushing.PushResult:
    """Push a bundle that is made already."""
    client = Hub()
    client.require_token()
    return pushing.carry_out(client, made, pushing.plan(client, made, repo, branch, private))


def changed(made: pushing.Bundle, place: Path, path: str, data: bytes) -> pushing.Bundle:
    """Return a copy of a bundle in which one file is another, and the manifest says so."""
    import hashlib

    from bignas_zoo.hub import manifest

    place.mkdir(parents=True)
    files = {}
    for name, file in made.files.items():
        files[name] = place / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, files[name])
    files[path] = place / path
    files[path].write_bytes(data)
    sums = {n: hashlib.sha256(f.read_bytes()).hexdigest() for n, f in files.items() if n != names.SUMS}
    files[names.SUMS].write_bytes(manifest.write(sums))
    return pushing.Bundle(made.slice, files, made.left_out)
