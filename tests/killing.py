"""Kills processes in the middle of operations of the store, and looks at what they leave; see `kill_worker`."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.files import store
from bignas_zoo.files.leftovers import TEMPORARY
from bignas_zoo.tasks import slice_cache
from bignas_zoo.zoo import registry, slice_folder

WORKER = Path(__file__).with_name("kill_worker.py")
#: Where a flush to the disk costs nothing: kills cannot tell the difference.
MEMORY = Path("/dev/shm")
Tree = Mapping[str, bytes]


def tree(folder: Path) -> Tree:
    """Return every file under a folder; one entry for the folder itself if it is empty, none if it is missing."""
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass(frozen=True)
class Scene:
    """What an operation begins with and what may be there at any moment.

    Attributes:
        name: of the operation in `kill_worker`.
        template: a folder that is copied for each kill.
        outcome: names under it that must hold their old or their new content, whole.
        may_lack: names that need not be there before the operation has ended once.
        reset: called before each kill, for what is not a file here.
        check: called after the run that follows a kill.
    """

    name: str
    template: Path
    outcome: tuple[str, ...]
    may_lack: tuple[str, ...] = ()
    reset: Callable[[], None] = lambda: None
    check: Callable[[], None] = lambda: None


class Killer:
    """A worker, and the place where it works."""

    def __init__(self, scene: Scene, environment: Mapping[str, str] = {}) -> None:
        self.scene = scene
        base = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.home = Path(tempfile.mkdtemp(prefix="bignas-kill-", dir=base))
        self.place = self.home / "place"
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), scene.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HOME": str(self.home / "hf"), **environment},
        )  # fmt: skip

    def __enter__(self) -> Killer:
        self.old = {name: tree(self.scene.template / name) for name in self.scene.outcome}
        self.renew()
        self.order()  # loads what is loaded on first use
        self.renew()
        first = self.order()
        assert not first["killed"], first
        assert "error" not in first, first["error"]
        self.points, self.seconds = int(first["points"]), float(first["seconds"])
        self.new = {name: tree(self.place / name) for name in self.scene.outcome}
        self.at_end = self._everything()
        assert all(self.new[name] != self.old[name] for name in self.scene.outcome)
        assert self._orphans() == []
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)
        assert self.process.stdout
        self.process.stdout.close()
        shutil.rmtree(self.home)

    def order(self, **when: float) -> dict[str, Any]:
        """Carry out the operation in a child; see `kill_worker`."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"place": str(self.place), **when}) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def renew(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.scene.template, self.place, symlinks=True)
        (self.place / "tmp").mkdir()
        self.scene.reset()

    def kill(self, **when: float) -> bool:
        """Kill one run, look at what is there, run once more, look again; say whether it was killed at all."""
        self.renew()
        killed = bool(self.order(**when)["killed"])
        for name in self.scene.outcome:
            found = tree(self.place / name)
            if not found and name in self.scene.may_lack:
                continue
            assert found in (self.old[name], self.new[name]), f"{when}: {name} is neither the old nor the new one"
        after = self.order()
        assert not after["killed"], when
        assert "error" not in after, f"{when}: {after.get('error')}"
        self.seconds = min(self.seconds, float(after["seconds"]))  # the first run may have been a slow one
        assert self._orphans() == [], when
        assert self._everything() == self.at_end, when
        self.scene.check()
        return killed

    def every_point(self, step: int = 1, first: int = 1) -> Iterator[bool]:
        """Kill at each write point, or at some of them; and after the last."""
        for at in range(first, self.points + 2, step):
            yield self.kill(at=at)

    def random_moments(self, count: int, seed: int) -> Iterator[bool]:
        """Kill at random moments of a run until so many were killed; some end before."""
        draw, left = random.Random(seed), count
        for _ in range(10 * count):
            if not left:
                break
            killed = self.kill(after=draw.random() * self.seconds * 1.1)
            left -= killed
            yield killed

    def _orphans(self) -> list[Path]:
        return [p for p in self.place.rglob("*") if p.name.startswith(TEMPORARY)] + list((self.place / "tmp").iterdir())

    def _everything(self) -> set[str]:
        # Not what is in files that say when or by which process they were made.
        return {str(p.relative_to(self.place)) for p in self.place.rglob("*")}


def family_scene(home: Path) -> Scene:
    """Return the scene of writing a family over an older one."""
    old = home / "family" / "family"
    (old / "bn").mkdir(parents=True)
    for name in ("supernet.safetensors", "bn/old.safetensors", "family.json"):
        (old / name).write_bytes(b"old " + name.encode())
    return Scene("family", home / "family", ("family",))


def get_scene(home: Path, source: Path) -> Scene:
    """Return the scene of making a slice over an older folder, with a damaged entry in the cache.

    Args:
        home: to write to.
        source: a slice folder.
    """
    template = home / "get"
    made, out = template / "made", template / "out"
    shutil.copytree(source, made)
    shutil.copytree(source, out)
    (out / "model.tflite").write_bytes(b"older")
    family = registry.get_family("bignas-cifar10")
    key = slice_cache.cache_key(family, family.find("s"))
    entry = template / "cache" / "slices" / key
    shutil.copytree(source, entry)
    return Scene("get", template, ("out", f"cache/slices/{key}"))


def export_scene(home: Path, source: Path) -> Scene:
    """Return the scene of exporting a file and a folder over older ones."""
    template = home / "export"
    folder = template / "slice"
    shutil.copytree(source, folder)
    weights = slice_folder.describe(folder)[1]["files"]["model.safetensors"]["sha256"]
    (folder / "model-float16.tflite").write_bytes(b"old")
    (folder / "saved_model").mkdir()
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"old")
    pb = store.record(folder / "saved_model" / "saved_model.pb")
    whole = {"bytes": pb["bytes"], "files": {"saved_model/saved_model.pb": pb}}
    entries = [
        {"file": "model-float16.tflite", **store.record(folder / "model-float16.tflite"), "weights_sha256": weights},
        {"file": "saved_model", **whole, "weights_sha256": weights},
    ]
    store.write_json(folder / "exports.json", store.sealed({"schema": slice_folder.EXPORTS_SCHEMA, "exports": entries}))
    return Scene("export", template, ("slice/model-float16.tflite", "slice/saved_model"))


def fetch_scene(home: Path, source: Path, commit: str) -> Scene:
    """Return the scene of fetching a commit whose entry in the cache is damaged, over an older folder."""
    template = home / "fetch"
    shutil.copytree(source, template / "out")
    (template / "out" / "model.tflite").write_bytes(b"older")
    entry = template / "cache" / "hub" / "zoo--tiny" / commit
    shutil.copytree(source, entry / "slice")
    (entry / "SHA256SUMS").write_bytes(b"damaged")
    refs = template / "cache" / "hub" / "zoo--tiny" / "refs"
    refs.mkdir()
    store.write_json(refs / "main.json", store.sealed({"revision": "main", "commit": "0" * 40}))
    return Scene("fetch", template, ("out", f"cache/hub/zoo--tiny/{commit}", "cache/hub/zoo--tiny/refs/main.json"))


def push_scene(home: Path, source: Path, reset: Callable[[], None], check: Callable[[], None]) -> Scene:
    """Return the scene of pushing a slice folder, which stays as it is."""
    shutil.copytree(source, home / "push" / "slice")
    return Scene("push", home / "push", (), reset=reset, check=check)


@contextmanager
def killing(scene: Scene, **environment: str) -> Iterator[Killer]:
    """Yield a killer of an operation."""
    with Killer(scene, environment) as killer:
        yield killer
