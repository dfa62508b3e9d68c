"""Push and fetch over xet, the Hub's own transport: the real hf_xet, with a folder as its store."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_fixtures import REPO
from hub_repos import WRITER
from hub_server import HubServer

from bignas_zoo.hub.pushing import Bundle

PUSH = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from hub_fixtures import push, REPO
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.zoo import slice_folder
place = Path(sys.argv[2])
files = {p.relative_to(place).as_posix(): p for p in sorted(place.rglob("*")) if p.is_file()}
chosen = slice_folder.describe(place)[0]
print(push(Bundle(chosen, files, {})).commit)
"""
FETCH = """
import sys
from bignas_zoo.hub.fetching import fetch
print(fetch(sys.argv[1]).folder)
"""


@pytest.mark.skipif(importlib.util.find_spec("hf_xet") is None, reason="needs hf_xet")
def test_push_and_fetch_over_xet(tiny_bundle: Bundle, tmp_path: Path) -> None:
    import hf_xet

    place = tmp_path / "files"
    for path, file in tiny_bundle.files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(file.read_bytes())
    store = tmp_path / "store"
    store.mkdir()
    with HubServer(xet_store=store) as hub:
        environment = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": WRITER,
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "0",
        }  # fmt: skip
        # The store has the content; the server is told it, to hash and to list files as the Hub does.
        for path in sorted(p for p in place.rglob("*") if p.is_file()):
            data = path.read_bytes()
            blob = hub.learn(data)
            hub.xet_hashes[blob] = hf_xet.hash_files([str(path)])[0].hash

        def run(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", *arguments],
                env=environment, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]
            assert WRITER not in done.stdout + done.stderr
            return done.stdout.split()[-1]

        commit = run(PUSH, str(Path(__file__).parent), str(place))
        assert hub.repos[REPO].at("main").oid == commit
        assert len(hub.history(REPO)) == 1
        assert hub.count("PUT", "/_lfs/") == 0
        assert hub.count("GET", "/xet-write-token/") >= 1
        assert any(p.is_file() for p in store.rglob("*"))
        assert run(PUSH, str(Path(__file__).parent), str(place)) == commit
        assert len(hub.history(REPO)) == 1
        folder = Path(run(FETCH, f"hf://{REPO}"))
        assert hub.count("GET", "/xet-read-token/") >= 1
        assert hub.count("GET", "/_cdn/") == 0
        for name in ("model.safetensors", "labels.txt"):
            assert (folder / name).read_bytes() == tiny_bundle.files[name].read_bytes()
        assert (folder / "model.tflite").read_bytes() == tiny_bundle.files["tflite/model.tflite"].read_bytes()
