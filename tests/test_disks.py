"""Several processes at one cache, and disks that are full or cannot be written to."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hub_fixtures import REPO, push
from hub_server import HubServer
from killing import tree

from bignas_zoo.cli.main import main
from bignas_zoo.files import leftovers, store
from bignas_zoo.hub import fetching
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.tasks import cache, slice_cache
from bignas_zoo.zoo import registry

TESTS = Path(__file__).parent
NAME = "bignas-cifar10-s"
PROCESSES = 8
#: A worker waits until all are loaded, then does its work.
WORK = """
import sys, time
from pathlib import Path
import kill_worker, bignas_zoo.tasks.get, bignas_zoo.hub.fetching, bignas_zoo as bz
place, number = Path(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[1] == "get":
    kill_worker.get(place, number)
else:
    bz.get("hf://zoo/tiny", output=place / number)
"""


def cli(*arguments: str, code: int) -> Result:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


def at_once(what: str, place: Path) -> None:
    """Let eight processes do the same at the same time; each must succeed."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORK, what, str(place), str(number)],
            cwd=TESTS, env={**os.environ, "HF_HUB_DISABLE_XET": "1"}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n", worker.communicate()[1]
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said


def no_leftovers(*folders: Path) -> None:
    assert [p for folder in folders for p in folder.rglob(f"{leftovers.TEMPORARY}*")] == []


@pytest.mark.parametrize("damaged", [False, True])
def test_eight_processes_fetch_one_slice(
    hub: HubServer, tiny_bundle: Bundle, slice_folder: Path, tmp_path: Path, damaged: bool
) -> None:
    push(tiny_bundle)
    if damaged:
        folder = fetching.fetch(f"hf://{REPO}").folder
        (folder / "model.tflite").write_bytes(b"damaged")
        (folder / "labels.txt").unlink()
    at_once("fetch", tmp_path)
    first = tree(tmp_path / "0")
    assert first["model.tflite"] == (slice_folder / "model.tflite").read_bytes()
    assert all(tree(tmp_path / str(n)) == first for n in range(PROCESSES))
    assert cache.verify() == ()
    assert len(cache.list_entries()) == 1
    no_leftovers(store.cache_root(), tmp_path)


@pytest.mark.parametrize("damaged", [False, True])
def test_eight_processes_get_one_slice(slice_folder: Path, tmp_path: Path, damaged: bool) -> None:
    (tmp_path / "made").symlink_to(slice_folder)
    if damaged:
        entry(slice_folder)
        (entry(slice_folder) / "labels.txt").write_bytes(b"damaged")
    at_once("get", tmp_path)
    assert all(tree(tmp_path / str(n)) == tree(slice_folder) for n in range(PROCESSES))
    assert cache.verify() == ()
    assert len(cache.list_entries()) == 1
    no_leftovers(store.cache_root(), tmp_path)


def entry(slice_folder: Path) -> Path:
    """Put a slice folder into the cache under the name of a shipped slice."""
    family = registry.get_family("bignas-cifar10")
    place = store.cache_root() / "slices" / slice_cache.cache_key(family, family.find("s"))
    slice_cache.fill(place, slice_folder, {p.name: store.record(p) for p in slice_folder.iterdir()})
    return place


class Disk:
    """A file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mount(self, options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")

    def again(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    subprocess.run(["umount", "-l", str(made.folder)], capture_output=True, check=False)


@pytest.mark.parametrize("size", ["4k", "60k", "120k", "200k", "300k"])
def test_a_fetch_to_a_full_disk(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    push(tiny_bundle)
    disk.mount(f"size={size}")
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(disk.folder))
    done = cli("get", f"hf://{REPO}", "-o", str(tmp_path / "out"), code=7)
    assert "No space left on device" in done.stderr
    assert str(disk.folder) in done.stderr
    assert not (tmp_path / "out").exists()
    assert cache.list_entries() == ()
    no_leftovers(disk.folder)
    disk.again("size=2m")
    cli("get", f"hf://{REPO}", "-o", str(tmp_path / "out"), code=0)


def test_an_output_on_a_full_disk(slice_folder: Path, disk: Disk) -> None:
    entry(slice_folder)
    disk.mount("size=160k")
    cli("get", NAME, "-o", str(disk.folder / "out"), code=0)
    before = tree(disk.folder / "out")
    (disk.folder / "out" / "labels.txt").write_text("older\n")
    disk.fill()
    done = cli("get", NAME, "-o", str(disk.folder / "out"), "--force", code=7)
    assert "No space left on device" in done.stderr
    assert tree(disk.folder / "out") == {**before, "labels.txt": b"older\n"}
    no_leftovers(disk.folder)


def test_a_full_cache_does_not_keep_get_from_its_work(
    slice_folder: Path, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.mount("size=64k")
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(disk.folder))
    monkeypatch.setattr(slice_cache, "cut", lambda *_: None)

    def write(folder: Path, *_: object) -> None:
        for path in slice_folder.iterdir():
            store.copy(path, folder / path.name)

    monkeypatch.setattr(slice_cache.slice_files, "write", write)
    done = cli("get", NAME, "-o", str(tmp_path / "out"), code=0)
    assert "not cached:" in done.stderr
    assert tree(tmp_path / "out") == tree(slice_folder)
    assert cache.list_entries() == ()
    no_leftovers(disk.folder)


def test_a_read_only_cache(
    hub: HubServer, tiny_bundle: Bundle, slice_folder: Path, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = push(tiny_bundle).commit
    disk.mount("size=2m")
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(disk.folder))
    entry(slice_folder)
    fetching.fetch(f"hf://{REPO}")
    disk.again("ro")
    cli("get", NAME, "-o", str(tmp_path / "a"), code=0)
    cli("get", f"hf://{REPO}", "-o", str(tmp_path / "b"), code=0)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cli("get", f"hf://{REPO}@{commit}", "-o", str(tmp_path / "c"), code=0)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert tree(tmp_path / "a") == tree(slice_folder)
    assert tree(tmp_path / "b") == tree(tmp_path / "c")
    assert "0 damaged" in cli("cache", "verify", code=0).stdout
    assert "kept" in cli("cache", "prune", "--all", code=7).stderr
    push(tiny_bundle, "zoo/other")
    done = cli("get", "hf://zoo/other", "-o", str(tmp_path / "d"), code=7)
    assert "Read-only file system" in done.stderr
    assert "BIGNAS_ZOO_CACHE" in done.stderr
    done = cli("get", NAME, "-o", str(disk.folder / "out"), code=7)
    assert "Read-only file system" in done.stderr


def test_a_cache_that_is_a_file(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(tiny_bundle)
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(tmp_path / "file"))
    done = cli("get", f"hf://{REPO}", "-o", str(tmp_path / "out"), code=7)
    assert "BIGNAS_ZOO_CACHE" in done.stderr
    assert "is no folder" in cli("cache", "list", code=7).stderr
    assert (tmp_path / "file").read_text() == "mine"
    assert os.listdir(tmp_path) == ["file"]
