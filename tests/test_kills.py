"""kill -9 at write points and random moments: the old content or the new, whole; the next run succeeds and tidies up.

scripts/nightly_kills does the same a thousand times each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_fixtures import REPO, push
from hub_server import HubServer
from killing import Killer, Scene, export_scene, family_scene, fetch_scene, get_scene, killing, push_scene, tree

from bignas_zoo.files import leftovers, store
from bignas_zoo.hub.pushing import Bundle


def kills(killer: Killer, step: int = 1) -> None:
    """Kill at every write point, or at some, and some times in between."""
    assert sum(killer.every_point(step)) >= killer.points // step
    assert sum(killer.random_moments(10, seed=1)) > 0


def test_a_family_folder(tmp_path: Path) -> None:
    with killing(family_scene(tmp_path)) as killer:
        assert killer.points > 50
        kills(killer)


def test_get(tmp_path: Path, slice_folder: Path) -> None:
    with killing(get_scene(tmp_path, slice_folder)) as killer:
        assert killer.points > 100
        kills(killer, step=7)


def test_export(tmp_path: Path, slice_folder: Path) -> None:
    with killing(export_scene(tmp_path, slice_folder)) as killer:
        assert killer.points > 40
        kills(killer, step=3)


def hub_environment(hub: HubServer) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def test_fetch(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path, slice_folder: Path) -> None:
    commit = push(tiny_bundle).commit
    assert commit
    with killing(fetch_scene(tmp_path, slice_folder, commit), **hub_environment(hub)) as killer:
        assert killer.points > 200
        kills(killer, step=40)


def hub_scene(hub: HubServer, tmp_path: Path, slice_folder: Path) -> Scene:
    def reset() -> None:
        hub.repos.clear()
        hub.lfs.clear()

    def check() -> None:
        assert hub.history(REPO) == ["Slice tiny-s"]

    return push_scene(tmp_path, slice_folder, reset, check)


def test_push(hub: HubServer, tmp_path: Path, slice_folder: Path) -> None:
    with killing(hub_scene(hub, tmp_path, slice_folder), **hub_environment(hub)) as killer:
        assert killer.points > 40
        kills(killer, step=12)


def test_the_harness_sees_the_instant_without_a_folder(tmp_path: Path) -> None:
    """Two renames instead of an exchange: were that not noticed here, the tests above would prove nothing."""
    with (
        killing(family_scene(tmp_path), NO_EXCHANGE="1") as killer,
        pytest.raises(AssertionError, match="family is neither the old nor the new one"),
    ):
        list(killer.every_point(first=killer.points * 2 // 3))


# A folder that is replaced where two names cannot be exchanged.


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "exchange", lambda one, other: False)


KILLED = """
import os, signal, sys
from pathlib import Path
from bignas_zoo.files import leftovers, store
leftovers.exchange = lambda one, other: False
rename, calls = os.rename, []
def killing(source, target):
    calls.append(1)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = killing
with store.new_folder(Path(sys.argv[1]), force=True) as new:
    (new / "slice.json").write_bytes(b"new")
"""


@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_was_moved_aside_is_put_back(tmp_path: Path, at: int) -> None:
    path = tmp_path / "slice"
    path.mkdir()
    (path / "slice.json").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(at)], check=False)
    assert (done.returncode == -9) == (at <= 2)
    if at == 2:
        assert not path.exists()  # the instant that only an exchange can avoid
    leftovers.remove(tmp_path)  # the next writer
    assert tree(tmp_path) == {"slice/slice.json": b"old" if at <= 2 else b"new"}
    assert os.listdir(tmp_path) == ["slice"]


def test_what_was_moved_aside_never_replaces_what_is_there(tmp_path: Path) -> None:
    aside = tmp_path / f"{leftovers.ASIDE}{leftovers.kernel()}-x"
    (aside / "slice").mkdir(parents=True)
    (tmp_path / "slice").write_bytes(b"theirs")
    leftovers.remove(tmp_path)
    assert tree(tmp_path) == {"slice": b"theirs"}


def test_a_folder_is_replaced_without_an_exchange(tmp_path: Path, no_exchange: None) -> None:
    for data in (b"old", b"new"):
        with store.new_folder(tmp_path / "slice", force=True) as new:
            (new / "slice.json").write_bytes(data)
    assert tree(tmp_path) == {"slice/slice.json": b"new"}
    assert os.listdir(tmp_path) == ["slice"]


# Who owns a temporary file.


def test_what_a_live_process_writes_is_no_leftover(tmp_path: Path) -> None:
    with leftovers.new_folder(tmp_path) as folder:
        handle, file = leftovers.new_file(tmp_path)
        os.utime(folder, (0, 0))
        os.utime(file, (0, 0))
        assert leftovers.remove(tmp_path, older_than=0) == []
        os.close(handle)
        assert leftovers.remove(tmp_path) == [file]
        assert folder.exists()


def test_what_another_kernel_wrote_is_spared_for_an_hour(tmp_path: Path) -> None:
    young, old = (tmp_path / f"{leftovers.TEMPORARY}deadbeef-{name}" for name in ("young", "old"))
    for path in (young, old):
        path.write_text("x")
    os.utime(old, (time.time() - 3700,) * 2)
    assert leftovers.remove(tmp_path) == [old]
    assert young.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    link = tmp_path / f"{leftovers.TEMPORARY}{leftovers.kernel()}-link"
    link.symlink_to(precious)
    leftovers.remove(tmp_path, older_than=0)
    assert not link.is_symlink()
    assert (precious / "file").read_text() == "x"
