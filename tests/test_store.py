"""The one writer: whole files or none, whole folders or none, whatever fails on the way."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from bignas_zoo.errors import IntegrityError, LocalIOError
from bignas_zoo.files import leftovers, store


def full_disk(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("size", [0, 1, 3, store.CHUNK - 1, store.CHUNK, store.CHUNK + 1])
def test_sha256_is_hashlibs(tmp_path: Path, size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    (tmp_path / "file").write_bytes(data)
    assert store.sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_sha256_of_the_standards_test_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert store.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match=r"absent: cannot be read \(No such file or directory\)"):
        store.sha256(tmp_path / "absent")


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    good = hashlib.sha256(b"abc").hexdigest()
    store.verify(path, good, fix="Fetch it again.")
    wrong = "0" * 64
    with pytest.raises(IntegrityError) as caught:
        store.verify(path, wrong, fix="Fetch it again.")
    assert str(caught.value) == (
        f"{path}: damaged or replaced: sha256 is ba7816bf8f01…, recorded is 000000000000…. Fetch it again."
    )
    assert caught.value.exit_code == 4


def test_verify_notices_a_single_bit(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(1000))
    good = store.sha256(path)
    path.write_bytes(bytes(999) + b"\x01")
    with pytest.raises(IntegrityError, match="damaged or replaced"):
        store.verify(path, good, fix="")


def test_verify_of_a_missing_file_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(IntegrityError, match=r"missing, though it is recorded. Do this\.$"):
            store.verify(path, "0" * 64, fix="Do this.")


def test_atomic_write_creates_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    store.atomic_write(path, b"one")
    assert path.read_bytes() == b"one"
    store.atomic_write(path, b"")
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["file.bin"]


def test_atomic_write_gives_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    store.atomic_write(tmp_path / "ours", b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("call", ["replace", "fsync", "chmod", "fdopen"])
def test_atomic_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full_disk)
        with pytest.raises(LocalIOError) as caught:
            store.atomic_write(path, b"new")
    assert str(caught.value) == f"{path}: cannot be written (No space left on device). Choose another place."
    assert caught.value.exit_code == 7
    assert content(tmp_path) == {"file.bin": b"old"}


def test_atomic_write_flushes_the_file_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def watched_replace(source: str, target: Path) -> None:
        assert Path(source).read_bytes() == b"new"
        assert Path(source).parent == target.parent
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    store.atomic_write(tmp_path / "file.bin", b"new")
    assert calls == ["file", "rename", "folder"]


def test_atomic_write_holds_where_a_folder_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def no_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", no_folders)
    store.atomic_write(tmp_path / "file.bin", b"new")
    assert content(tmp_path) == {"file.bin": b"new"}


def test_atomic_write_cleans_up_when_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "file.bin").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.atomic_write(tmp_path / "file.bin", b"new")
    assert content(tmp_path) == {"file.bin": b"old"}


def test_atomic_write_into_a_missing_folder_or_over_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match="No such file or directory"):
        store.atomic_write(tmp_path / "absent" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LocalIOError, match=r"folder: cannot be written \(Is a directory\)"):
        store.atomic_write(tmp_path / "folder", b"")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.fixture
def unwritable(tmp_path: Path) -> Any:
    folder = tmp_path / "unwritable"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        folder.chmod(0o755)
        pytest.skip("this user may write anywhere")
    yield folder
    folder.chmod(0o755)


def test_an_unwritable_folder(unwritable: Path) -> None:
    with pytest.raises(LocalIOError, match="Permission denied"):
        store.atomic_write(unwritable / "file", b"")
    with pytest.raises(LocalIOError, match="Permission denied"), store.new_folder(unwritable / "a", force=False):
        pass


def test_json_is_written_in_one_layout(tmp_path: Path) -> None:
    store.write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": "é"})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "b": [\n    1,\n    2.5\n  ],\n  "a": "é"\n}\n'
    assert store.read_json(tmp_path / "a.json") == {"b": [1, 2.5], "a": "é"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_not_json(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        store.write_json(tmp_path / "a.json", {"x": value})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"not json", b"{} {}", b"'a'", b"[" * 200_000, b"9" * 6000]
)
def test_read_json_of_a_damaged_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        store.read_json(path)
    assert str(caught.value).startswith(f"{path}: not valid JSON (")
    assert str(caught.value).endswith("Put back a whole copy, or make it anew.")
    assert len(str(caught.value)) < len(str(path)) + 200


def test_read_json_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match=r"cannot be read \(No such file"):
        store.read_json(tmp_path / "absent.json")
    with pytest.raises(LocalIOError, match=r"cannot be read \(Is a directory"):
        store.read_json(tmp_path)


def fill(path: Path, *, force: bool = False, data: bytes = b"new") -> None:
    with store.new_folder(path, force=force) as folder:
        (folder / "slice.json").write_bytes(data)


def test_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "slice"
    with store.new_folder(path, force=False) as folder:
        assert folder.parent == path.parent
        (folder / "slice.json").write_bytes(b"new")
        assert not path.exists()
    assert content(tmp_path) == {"deep/slice/slice.json": b"new"}
    assert os.listdir(path.parent) == ["slice"]
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_new_folder_refuses_what_exists(tmp_path: Path) -> None:
    path = tmp_path / "slice"
    fill(path, data=b"old")
    with pytest.raises(LocalIOError) as caught:
        fill(path)
    assert str(caught.value) == (
        f"{path}: exists already and is not overwritten. Choose another --output, or add --force to replace it."
    )
    assert content(tmp_path) == {"slice/slice.json": b"old"}


def test_force_replaces_a_folder_with_the_marker(tmp_path: Path) -> None:
    path = tmp_path / "slice"
    fill(path, data=b"old")
    (path / "README.md").write_bytes(b"gone afterwards")
    fill(path, force=True)
    assert content(tmp_path) == {"slice/slice.json": b"new"}
    assert os.listdir(tmp_path) == ["slice"]


def test_force_never_replaces_a_folder_with_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "slice"
    fill(path, data=b"old")
    (path / "thesis.txt").write_bytes(b"precious")
    with pytest.raises(LocalIOError, match=r"did not make, such as 'thesis\.txt'"):
        fill(path, force=True)
    assert content(tmp_path) == {"slice/slice.json": b"old", "slice/thesis.txt": b"precious"}


def test_force_replaces_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "slice").mkdir()
    fill(tmp_path / "slice", force=True)
    assert content(tmp_path) == {"slice/slice.json": b"new"}


def precious_folder(path: Path) -> None:
    path.mkdir()
    (path / "precious.txt").write_bytes(b"precious")


def precious_link(path: Path) -> None:
    target = path.parent / "elsewhere"
    target.mkdir()
    (target / "slice.json").write_bytes(b"precious")
    path.symlink_to(target)


def broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "absent")


def plain_file(path: Path) -> None:
    path.write_bytes(b"precious")


@pytest.mark.parametrize("make", [precious_folder, precious_link, broken_link, plain_file])
def test_force_never_replaces_anything_else(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "slice"
    make(path)
    before = content(tmp_path), os.listdir(tmp_path)
    with pytest.raises(LocalIOError, match=r"not a folder|was not made by this command \(no slice\.json in it\)"):
        fill(path, force=True)
    with pytest.raises(LocalIOError, match="exists already"):
        fill(path)
    assert (content(tmp_path), os.listdir(tmp_path)) == before


def test_the_marker_is_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "family"
    with store.new_folder(path, force=False, marker="family.json") as folder:
        (folder / "family.json").write_bytes(b"old")
    with pytest.raises(LocalIOError, match=r"no slice\.json in it"):
        fill(path, force=True)
    with store.new_folder(path, force=True, marker="family.json") as folder:
        (folder / "family.json").write_bytes(b"new")
    assert content(tmp_path) == {"family/family.json": b"new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, IntegrityError])
@pytest.mark.parametrize("old", [True, False])
def test_an_exception_inside_leaves_nothing_and_keeps_the_old(
    tmp_path: Path, error: type[BaseException], old: bool
) -> None:
    path = tmp_path / "slice"
    if old:
        fill(path, data=b"old")

    def fail() -> None:
        with store.new_folder(path, force=old) as folder:
            (folder / "half").write_bytes(b"half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        fail()
    assert content(tmp_path) == ({"slice/slice.json": b"old"} if old else {})
    assert os.listdir(tmp_path) == (["slice"] if old else [])


def test_a_full_disk_inside_is_a_local_error(tmp_path: Path) -> None:
    def fail() -> None:
        with store.new_folder(tmp_path / "slice", force=False):
            full_disk()

    with pytest.raises(LocalIOError, match=r"slice: cannot be written \(No space left on device\)"):
        fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_rename_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    path = tmp_path / "slice"
    fill(path, data=b"old")
    rename, calls = os.rename, []

    def fail_once(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing:
            full_disk()
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "exchange", lambda one, other: False)
        patch.setattr(os, "rename", fail_once)
        with pytest.raises(LocalIOError, match="No space left"):
            fill(path, force=True)
    assert content(tmp_path) == {"slice/slice.json": b"old"}
    assert os.listdir(tmp_path) == ["slice"]


def test_the_old_folder_survives_somewhere_if_it_cannot_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slice"
    fill(path, data=b"old")
    rename, calls = os.rename, []

    def fail_from_the_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) >= 2:
            full_disk()
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(leftovers, "exchange", lambda one, other: False)
        patch.setattr(os, "rename", fail_from_the_second)
        with pytest.raises(LocalIOError, match="No space left"):
            fill(path, force=True)
    assert list(content(tmp_path).values()) == [b"old"]


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "slice"

    def race() -> None:
        with store.new_folder(path, force=False) as folder:
            (folder / "slice.json").write_bytes(b"new")
            path.mkdir()
            (path / "slice.json").write_bytes(b"theirs")

    with pytest.raises(LocalIOError, match="exists already"):
        race()
    assert content(tmp_path) == {"slice/slice.json": b"theirs"}
    assert os.listdir(tmp_path) == ["slice"]


def test_new_folder_where_the_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LocalIOError, match=r"cannot be created .* Choose another place with --output"):
        fill(tmp_path / "file" / "slice")


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", "~/own")
    assert store.cache_root() == tmp_path / "own"
    monkeypatch.delenv("BIGNAS_ZOO_CACHE")
    assert store.cache_root() == tmp_path / "xdg" / "bignas-zoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_root() == tmp_path / ".cache" / "bignas-zoo"


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BIGNAS_ZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user whom the system does not know
    monkeypatch.delenv("HOME")
    with pytest.raises(LocalIOError, match="no home folder is known.* Set BIGNAS_ZOO_CACHE"):
        store.cache_root()


@pytest.mark.parametrize(
    ("system", "place"), [(MacOS, "Library/Caches/bignas-zoo"), (Unix, ".cache/bignas-zoo")], ids=["macOS", "Unix"]
)
def test_the_cache_is_where_the_platform_has_caches(
    system: type, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("platformdirs.PlatformDirs", system)
    for variable in ("BIGNAS_ZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_root() == tmp_path / place


def test_json_bytes_are_what_json_reads() -> None:
    data = {"x": [1, "ü", None, True, 0.1], "y": {}}
    assert json.loads(store.json_bytes(data)) == data


def test_ctrl_c_the_instant_something_temporary_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, opened = Path.mkdir, os.open

    def interrupted_mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        mkdir(self, *arguments, **options)
        raise KeyboardInterrupt

    def interrupted_open(path: Any, *arguments: Any, **options: Any) -> int:
        os.close(opened(path, *arguments, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", interrupted_mkdir)
        with pytest.raises(KeyboardInterrupt):
            leftovers.locked_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", interrupted_open)
        with pytest.raises(KeyboardInterrupt):
            leftovers.new_file(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    leftovers.tidy_up()  # as at the end of the process
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_a_free_place(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with store.new_folder(tmp_path / "out", force=False) as made:
        (made / "slice.json").write_text("{}")
    assert (tmp_path / "out" / "slice.json").read_text() == "{}"
    assert os.listdir(tmp_path) == ["out"]
