"""The hostile set of `hostile.py`: nothing runs or is written elsewhere, our own error, in bounded time and memory."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
from click.testing import CliRunner
from fuzz_targets import slice_data
from hostile import CANARY, Case, put
from hostile_files import CASES, slice_folder
from hub_fixtures import REPO, changed, push
from hub_server import HubServer

from bignas_zoo.cli.common import printable
from bignas_zoo.cli.main import main
from bignas_zoo.files import store
from bignas_zoo.hub import fetching
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.tasks.get import get

MOST_SECONDS, MOST_BYTES = 2.0, 200 << 20
#: Events of Python's audit hooks that say that something runs.
RUNS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "pickle.find_class"}
#: The one process that reads models of others; see `bignas_zoo.runtime`.
OWN = "runner_process.py"


class Watch:
    """What happens while it is on: processes and pickles, and files opened to be written outside some folders."""

    def __init__(self) -> None:
        self.on, self.inside, self.seen = False, (), list[str]()  # type: ignore[var-annotated]

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event in RUNS and OWN not in str(arguments):
            self.seen.append(f"{event} {arguments}"[:300])
        if event == "open" and isinstance(arguments[0], str | bytes):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            path = os.path.realpath(os.fsdecode(arguments[0]))
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            inside = tuple(f"{p}{os.sep}" for p in self.inside)
            if writes and not path.startswith((*inside, "/dev/", "/proc/")) and "__pycache__" not in path:
                self.seen.append(f"open {path} {flags}")


WATCH = Watch()
sys.addaudithook(WATCH)


@contextlib.contextmanager
def watched(*inside: Path) -> Iterator[Watch]:
    WATCH.seen, WATCH.inside, WATCH.on = [], tuple(os.path.realpath(p) for p in inside), True  # type: ignore[assignment]
    try:
        yield WATCH
    finally:
        WATCH.on = False


def reset_peak() -> bool:
    """Forget the most memory this process has used; only Linux can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def memory(kind: str) -> int:
    """Return VmHWM (the most) or VmRSS (now) of this process in bytes."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load what the readers load, so that no case pays for it."""
    import keras  # noqa: F401

    import bignas_zoo.models.child
    import bignas_zoo.recipes.data
    import bignas_zoo.tasks.verify  # noqa: F401


class Meter:
    """Time of this thread and memory of this process since it was last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.measurable = reset_peak()
        self.memory = memory("VmRSS") if self.measurable else 0
        self.began = time.thread_time()

    def read(self) -> tuple[float, int]:
        return time.thread_time() - self.began, (memory("VmHWM") - self.memory if self.measurable else 0)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_hostile(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, temporary = tmp_path / "inside", tmp_path / "tmp"
    place.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    meter = Meter()
    monkeypatch.setattr(hostile, "AFTER_PUT", [meter.reset])
    with watched(tmp_path, store.cache_root()) as watch, pytest.raises(case.error, match=case.words) as caught:
        case.run(place)
    seconds, grown = meter.read()
    assert type(caught.value).__module__ == "bignas_zoo.errors"
    assert len(str(caught.value)) < 2_000
    assert watch.seen == []
    assert not (place / CANARY).exists()
    assert {p.name for p in tmp_path.iterdir()} == {"inside", "tmp"}
    assert list(temporary.iterdir()) == []
    assert seconds < MOST_SECONDS
    assert grown < MOST_BYTES


def test_the_set_is_large_and_each_case_is_there_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 250


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    import pickle
    import subprocess

    with watched(tmp_path) as watch:
        (tmp_path / "a").write_text("fine")
        pickle.loads(hostile.pickled(tmp_path))
        subprocess.run(["true"], check=True)
        (tmp_path.parent / f"{tmp_path.name}-outside").write_text("x")
    assert (tmp_path / CANARY).is_dir()
    assert [s.split()[0] for s in watch.seen][:2] == ["pickle.find_class", "subprocess.Popen"]
    assert any(s.startswith("open ") and "-outside" in s for s in watch.seen)
    assert not any(str(tmp_path / "a") in s for s in watch.seen)


# ------------------------------------------------------------------------------------------------------ the terminal

BAD = re.compile(r"[^\x20-\x7e\n]")


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_what_is_printed_cannot_steer_a_terminal(text: str, tmp_path: Path) -> None:
    name = text.replace("\n", "\r")  # a line feed in a message is one
    assert BAD.search(printable(name)) is None
    folder = tmp_path / f"f{name}"
    for command in (
        ["show", str(folder)],
        ["list", "--family", str(folder)],
        ["get", "x", "--family", str(folder)],
        ["verify", str(folder / "m.tflite")],
        ["get", f"hf://zoo/{name}"],
        ["push", str(folder), "--repo", f"zoo/{name}", "--yes"],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code in (2, 3, 4, 6), (command, result.output)
        assert BAD.search(result.output.replace("…", "")) is None, command
    folder.mkdir()
    description = slice_data()
    description["files"]["labels.txt"]["sha256"] = name * 12
    put(folder, "slice.json", __import__("json").dumps(description).encode())
    shown = CliRunner().invoke(main, ["show", str(folder)])  # a folder of this name is shown, and it says nothing of it
    assert BAD.search(shown.output.replace("…", "")) is None
    as_json = CliRunner().invoke(main, ["verify", str(folder), "--json"])
    assert BAD.search(as_json.output.replace("…", "")) is None


def test_json_that_is_printed_is_escaped_and_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from bignas_zoo.cli.common import print_json

    value = {"a": "\x1b[2J\x9b\u202e\u200b\ud83d\ude00é\n", "é": [1]}
    value["a"] = value["a"].encode("utf-16", "surrogatepass").decode("utf-16")  # type: ignore[attr-defined]
    print_json("x", value)
    text = capsys.readouterr().out
    assert {**json.loads(text), "schema": 0} == {"schema": 0, **value}
    assert text.replace("\n", "").isprintable()
    assert "é" in text


# ------------------------------------------------------------------------------------------- links and the Hub


def test_writing_over_a_link_or_a_hard_link_leaves_its_target(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "slice"
    folder.mkdir()
    (folder / "exports.json").symlink_to(victim)
    os.link(victim, folder / "README.md")
    for name in ("exports.json", "README.md"):
        store.atomic_write(folder / name, b"new")
        assert (folder / name).read_bytes() == b"new"
        assert not (folder / name).is_symlink()
    assert victim.read_text() == "mine"


def test_force_replaces_links_and_not_what_they_lead_to(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path) -> None:
    push(tiny_bundle)
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    (victim / "slice.json").write_text("mine")
    slice_folder(out)
    for name in ("model.tflite", "labels.txt"):
        (out / name).unlink()
        (out / name).symlink_to(victim / "slice.json")
    get(f"hf://{REPO}", output=out, force=True)
    assert not any(p.is_symlink() for p in out.iterdir())
    assert (victim / "slice.json").read_text() == "mine"
    out.rename(tmp_path / "elsewhere")
    out.symlink_to(victim)
    with pytest.raises(store.LocalIOError, match="is not a folder, so it is never replaced"):
        get(f"hf://{REPO}", output=out, force=True)
    assert (victim / "slice.json").read_text() == "mine"


def test_a_repository_with_hostile_keras_files_runs_nothing(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    evil = {"module": "os", "class_name": "mkdir", "config": {"path": str(tmp_path / CANARY)}}
    made = changed(tiny_bundle, tmp_path / "a", "config.json", __import__("json").dumps(evil).encode())
    made = changed(made, tmp_path / "b", "model.weights.h5", hostile.pickled(tmp_path))
    push(made)
    with watched(tmp_path, store.cache_root()) as watch:
        fetched = fetching.fetch(f"hf://{REPO}")
        get(f"hf://{REPO}", output=tmp_path / "out")
    assert watch.seen == []
    assert not (tmp_path / CANARY).exists()
    assert not list(fetched.folder.parent.rglob("*.h5"))  # it is not even fetched


@pytest.mark.parametrize("where", [("top1_source",), ("parity", "inputs"), ("class_names", 0), ("name",)])
def test_a_hostile_description_on_the_hub_is_no_entry_of_the_cache(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path, where: tuple[str | int, ...]
) -> None:
    import json

    description = json.loads(tiny_bundle.files["slice.json"].read_bytes())
    push(changed(tiny_bundle, tmp_path / "a", "slice.json", hostile.changed(description, where, "\x1b[2J../x")))
    result = CliRunner().invoke(main, ["get", f"hf://{REPO}", "-o", str(tmp_path / "out")])
    assert result.exit_code == 4
    assert BAD.search(result.output.replace("…", "")) is None
    assert not (tmp_path / "out").exists()
    assert [p.name for p in (store.cache_root() / "hub" / "zoo--tiny").iterdir()] == ["refs"]
