"""The cache: listing, checking, repairing and pruning it, several processes at it, full and read-only disks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hub_fixtures import REPO, changed, push
from hub_server import HubServer

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.files import leftovers, store
from bignas_zoo.files.locks import exclusive
from bignas_zoo.hub import fetching
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.tasks import cache, slice_cache

DAY = 86_400
KEY = "0123456789abcdef" * 2


def cli(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["cache", *arguments])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


def fill(slice_folder: Path, key: str = KEY) -> Path:
    """Put a slice into the cache as `get` does."""
    entry = store.cache_root() / "slices" / key
    slice_cache.fill(entry, slice_folder, {p.name: store.record(p) for p in slice_folder.iterdir()})
    return entry


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def age(path: Path, days: float) -> None:
    for p in (*path.rglob("*"), path):
        os.utime(p, (time.time() - days * DAY,) * 2)


def test_an_empty_cache() -> None:
    assert cache.list_entries() == cache.verify() == cache.strangers() == ()
    assert json.loads(cli("list", "--json").stdout)["entries"] == []
    assert "0 entries, 0 damaged" in cli("verify").stdout


def test_list_says_what_is_there(hub: HubServer, tiny_bundle: Bundle, slice_folder: Path) -> None:
    commit = push(tiny_bundle).commit
    fetched = fetching.fetch(f"hf://{REPO}")
    entry = fill(slice_folder)
    data = json.loads(cli("list", "--json").stdout)
    assert list(data) == ["schema", "path", "bytes", "entries", "strangers"]
    assert data["schema"] == "bignas-zoo/cache/1"
    made, on_hub = sorted(data["entries"], key=lambda e: str(e["kind"]), reverse=True)
    assert (made["kind"], made["name"], made["commit"], made["path"]) == ("slice", "tiny-s", None, str(entry))
    assert (on_hub["name"], on_hub["commit"], on_hub["refs"]) == (f"hf://{REPO}", commit, ["main"])
    for row, folder in ((made, entry), (on_hub, fetched.folder.parent)):
        files = [p for p in folder.rglob("*") if p.is_file()]
        assert row["bytes"] == sum(len(p.read_bytes()) for p in files)
        assert row["files"] == len(files)
    assert data["bytes"] == made["bytes"] + on_hub["bytes"]
    text = cli("list").stdout
    assert "tiny-s" in text
    assert f"hf://{REPO}" in text


def test_use_is_noted(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    age(fetching.fetch(f"hf://{REPO}").folder.parent, 40)
    (before,) = cache.list_entries()
    assert time.time() - before.used > 39 * DAY
    fetching.fetch(f"hf://{REPO}")
    (after,) = cache.list_entries()
    assert time.time() - after.used < 60
    assert after.made == before.made


def test_verify_names_what_is_damaged_and_repair_removes_it(
    hub: HubServer, tiny_bundle: Bundle, slice_folder: Path
) -> None:
    push(tiny_bundle)
    fetched = fetching.fetch(f"hf://{REPO}")
    ref = store.cache_root() / "hub" / "zoo--tiny" / "refs" / "main.json"
    good, bad = fill(slice_folder), fill(slice_folder, KEY[::-1])
    assert cache.verify() == ()
    for path in (bad / "slice.json", fetched.folder / "labels.txt", ref):
        flip(path)
    done = cli("verify", "--json", code=4)
    damaged = json.loads(done.stdout)["damaged"]
    assert [(d["kind"], d["path"]) for d in damaged] == [
        ("hub", str(fetched.folder.parent)), ("slice", str(bad)), ("ref", str(ref)),
    ] or {d["path"] for d in damaged} == {str(bad), str(fetched.folder.parent), str(ref)}  # fmt: skip
    assert str(bad) in done.stderr
    _let_go()
    removed = json.loads(cli("repair", "--json").stdout)
    assert {r["path"] for r in removed["removed"]} == {str(bad), str(fetched.folder.parent), str(ref)}
    assert not bad.exists()
    assert not fetched.folder.exists()
    assert not ref.exists()
    assert good.exists()
    assert "0 damaged" in cli("verify").stdout
    assert not fetching.fetch(f"hf://{REPO}").cached  # it comes back by itself


def _let_go() -> None:
    """Close what this process keeps: it plays another one."""
    for handle in leftovers._KEPT.values():
        os.close(handle)
    leftovers._KEPT.clear()


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    yield
    _let_go()


def test_repair_removes_what_killed_processes_left_and_nothing_in_use(slice_folder: Path) -> None:
    home = fill(slice_folder).parent
    left = home / f"{leftovers.TEMPORARY}{leftovers.kernel()}-dead"
    left.mkdir()
    (left / "half").write_text("x")
    with leftovers.new_folder(home) as used:
        done = json.loads(cli("repair", "--json").stdout)
        assert done["leftovers"] == [str(left)]
        assert used.exists()
    assert [p.name for p in home.iterdir()] == [KEY]


def three(slice_folder: Path) -> list[Path]:
    """Entries used 1, 10 and 100 days ago."""
    entries = [fill(slice_folder, digit * 32) for digit in "abc"]
    for entry, days in zip(entries, (1, 10, 100), strict=True):
        age(entry, days)
    return entries


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--older-than", "30d"), 2), (("--older-than", "2w"), 2), (("--older-than", "36h"), 1), (("--all",), 0),
        (("--keep", "1GB"), 3), (("--keep", "0B"), 0), (("--unreferenced",), 3), (("--older-than", "1m"), 0),
    ],
)  # fmt: skip
def test_prune(slice_folder: Path, arguments: tuple[str, ...], left: int) -> None:
    entries = three(slice_folder)
    would = json.loads(cli("prune", "--dry-run", "--json", *arguments).stdout)
    assert len(would["removed"]) == 3 - left
    assert all(e.exists() for e in entries)
    done = json.loads(cli("prune", "--json", *arguments).stdout)
    assert done == would
    assert [e.exists() for e in entries] == [True] * left + [False] * (3 - left)


def test_prune_by_size_keeps_what_was_used_last(slice_folder: Path) -> None:
    entries = three(slice_folder)
    size = cache.list_entries()[0].bytes
    assert "removed: 1 entry" in cli("prune", "--keep", f"{2 * size}B").stdout
    assert [e.exists() for e in entries] == [True, True, False]
    cli("prune", "--keep", f"{2 * size - 1}B")
    assert [e.exists() for e in entries] == [True, False, False]


@pytest.mark.parametrize("value", ["", "30", "d", "-1d", "1e3d", "3 fortnights", "inf d", "\u0663d"])
def test_what_is_no_age_is_refused(value: str) -> None:
    assert "30d, 12h or 2w" in cli("prune", "--older-than", value, code=2).stderr
    assert "2GB or 500MB" in cli("prune", "--keep", value, code=2).stderr


def test_prune_needs_to_be_told_what() -> None:
    assert "--older-than 30d, --keep 2GB, --unreferenced or --all" in cli("prune", code=2).stderr


def test_unreferenced_commits_go(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path) -> None:
    first = push(tiny_bundle).commit
    fetching.fetch(f"hf://{REPO}")
    second = push(changed(tiny_bundle, tmp_path / "newer", "README.md", b"newer\n")).commit
    home = store.cache_root() / "hub" / "zoo--tiny"
    shutil.copytree(home / str(first), home / str(second))  # as if fetched
    store.write_json(home / "refs" / "main.json", store.sealed({"revision": "main", "commit": second}))
    _let_go()
    cli("prune", "--unreferenced")
    assert {p.name for p in home.iterdir()} == {str(second), "refs"}
    cli("prune", "--all")
    assert [p.name for p in home.rglob("*")] == ["refs"]  # and what main meant is forgotten


def test_what_a_process_uses_stays(hub: HubServer, tiny_bundle: Bundle, slice_folder: Path) -> None:
    push(tiny_bundle)
    fetched = fetching.fetch(f"hf://{REPO}")  # this process may read from there until it ends
    entry = fill(slice_folder)
    with leftovers.held(entry):
        done = cli("prune", "--all")
        assert done.stderr.count("a running process uses it") == 2
    assert entry.exists()
    assert fetched.folder.exists()
    _let_go()
    cli("prune", "--all")
    assert not entry.exists()
    assert not fetched.folder.exists()


def test_nothing_foreign_is_touched_and_no_link_followed(slice_folder: Path, tmp_path: Path) -> None:
    root, precious = store.cache_root(), tmp_path / "precious"
    shutil.copytree(slice_folder, precious)
    entry = fill(slice_folder)
    mixed = fill(slice_folder, "d" * 32)
    (mixed / "thesis.txt").write_text("x")
    (root / "slices" / ("e" * 32)).symlink_to(precious)
    (root / "slices" / "notes").mkdir()
    (root / "hub").mkdir()
    (root / "hub" / "zoo--linked").symlink_to(precious)
    (root / "mine.txt").write_text("x")
    odd = {str(p.relative_to(root)) for p in cache.strangers()}
    assert odd == {f"slices/{'d' * 32}", f"slices/{'e' * 32}", "slices/notes", "hub/zoo--linked", "mine.txt"}
    before = {p: p.read_bytes() for p in precious.iterdir()}
    assert [e.path for e in cache.list_entries()] == [entry]
    cli("repair")
    cli("prune", "--all")
    assert not entry.exists()
    assert {str(p.relative_to(root)) for p in cache.strangers()} == odd
    assert {p: p.read_bytes() for p in precious.iterdir()} == before
    assert "never touched" in cli("list").stderr


def test_searches_are_listed_checked_and_pruned(tmp_path: Path) -> None:
    family = bz.get_family("bignas-cifar10")
    assert family.folder
    folder = store.cache_root() / "searches" / f"bignas-cifar10-{'0' * 16}"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text("{}")
    (folder / "train.lock").touch()
    shutil.copytree(family.folder, folder / "family")
    assert [(e.kind, e.name) for e in cache.list_entries()] == [("search", folder.name)]
    assert cache.verify() == ()
    flip(folder / "family" / "supernet.safetensors")
    assert "supernet.safetensors: damaged" in cli("verify", code=4).stdout
    cli("repair")
    assert {p.name for p in folder.iterdir()} == {"settings.json", "train.lock"}  # measurements stay
    with exclusive(folder / "train.lock", "a search"):
        assert "kept" in cli("prune", "--all").stderr
    cli("prune", "--all")
    assert not folder.exists()


def test_cache_loads_nothing_heavy(slice_folder: Path) -> None:
    fill(slice_folder)
    heavy = {"numpy", "tensorflow", "keras", "jinja2", "huggingface_hub", "httpx2", "jax"}
    code = (
        "import sys; from bignas_zoo.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    for command in ("list", "verify", "repair", "prune"):
        more = ["--all"] if command == "prune" else []
        done = subprocess.run(
            [sys.executable, "-c", code, "cache", command, *more], capture_output=True, text=True, check=True
        )
        assert heavy & set(done.stderr.split()) == set()


def test_completion_offers_the_commands() -> None:
    environment = {"_BIGNAS_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": "bignas-zoo cache pr", "COMP_CWORD": "2"}
    code = "from bignas_zoo.cli.main import main; main(prog_name='bignas-zoo')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert "prune" in done.stdout


def test_a_file_in_the_caches_place_is_no_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(tmp_path / "file"))
    for command in (["list"], ["verify"], ["prune", "--all"]):
        assert "is no folder, so it cannot be the cache" in cli(*command, code=7).stderr
    assert (tmp_path / "file").read_text() == "x"


def test_an_entry_with_a_file_of_another_name_is_never_removed(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    entry = fetching.fetch(f"hf://{REPO}").folder.parent
    _let_go()
    (entry / "slice" / "mine.txt").write_text("mine")
    assert entry in cache.strangers()
    for command in (("repair",), ("prune", "--all")):
        cli(*command)
        assert (entry / "slice" / "mine.txt").read_text() == "mine"


def test_what_cannot_be_removed_is_said_with_its_reason(slice_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = fill(slice_folder)
    _let_go()
    monkeypatch.setattr(leftovers, "take_away", lambda folder: False)  # as on a read-only disk, also for root
    monkeypatch.setattr(os, "access", lambda path, mode: path != entry.parent)
    done = cli("prune", "--all", code=7)
    assert f"kept: {entry}: the folder cannot be written to" in done.stderr
    assert "1 entry could not be removed" in done.stderr
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert f"kept: {entry}: a running process uses it" in cli("prune", "--all").stderr
