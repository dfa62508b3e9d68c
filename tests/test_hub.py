"""Push, fetch and list with the real client against our own Hub."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hub_fixtures import REPO, changed, push
from hub_repos import READER, STRANGER, WRITER, Fault
from hub_server import HubServer

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.cli.push import _print_plans
from bignas_zoo.errors import AuthError, IntegrityError, NetworkError, NotFoundError, NothingFitsError, UsageError
from bignas_zoo.files import store
from bignas_zoo.hub import fetching
from bignas_zoo.hub.client import Hub
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.tasks import bundle
from bignas_zoo.tasks import push as pushing
from bignas_zoo.tasks.listing import list_hub

PUBLISHED = {
    "README.md", "SHA256SUMS", "config.json", "labels.txt", "metadata.json", "model.safetensors", "model.weights.h5",
    "plots/architecture.png", "plots/front.png", "slice.json", "tflite/model.tflite",
}  # fmt: skip


def test_a_push_is_one_commit_of_these_files(hub: HubServer, tiny_bundle: Bundle) -> None:
    result = push(tiny_bundle)
    assert result.pushed
    assert hub.history(REPO) == ["Slice tiny-s"]
    head = hub.repos[REPO].head()
    assert set(head) == PUBLISHED | {".gitattributes"}  # the repository's own file stays
    assert {path: file.read_bytes() for path, file in tiny_bundle.files.items()} == {p: head[p] for p in PUBLISHED}
    assert result.commit == hub.repos[REPO].at("main").oid
    assert result.commit_url == f"{hub.url}/{REPO}/commit/{result.commit}"


def test_sha256sum_accepts_the_manifest(tiny_bundle: Bundle) -> None:
    place = tiny_bundle.files["SHA256SUMS"].parent
    for path, file in tiny_bundle.files.items():
        if not (place / path).exists():
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_bytes(file.read_bytes())
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=place, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b": OK") == len(PUBLISHED) - 1


def test_the_same_again_is_no_second_commit_and_sends_nothing(hub: HubServer, tiny_bundle: Bundle) -> None:
    first = push(tiny_bundle)
    before = hub.count("PUT", "/_lfs/")
    again = push(tiny_bundle)
    assert not again.pushed
    assert again.commit == first.commit
    assert again.plan.is_empty
    assert len(hub.history(REPO)) == 1
    assert hub.count("PUT", "/_lfs/") == before
    assert hub.count("POST", "/commit/") == 1


def test_only_what_changed_is_sent_and_what_is_stale_is_removed(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    older = changed(tiny_bundle, tmp_path / "older", "tflite/model-int8.tflite", b"old export")
    push(older)
    hub.repos[REPO].add(
        "main",
        {**hub.repos[REPO].at("main").files, "notes.txt": hub.repos[REPO].at("main").files["labels.txt"]},
        "by hand",
        "writer",
    )
    before = hub.count("PUT", "/_lfs/")
    result = push(tiny_bundle)
    kinds = {c.path: c.kind for c in result.plan.changes if c.kind != "same"}
    assert kinds == {"SHA256SUMS": "changed", "tflite/model-int8.tflite": "removed"}
    assert set(hub.repos[REPO].head()) == PUBLISHED | {".gitattributes", "notes.txt"}
    assert hub.count("PUT", "/_lfs/") == before
    assert len(hub.history(REPO)) == 3


def test_branches_private_repositories_and_tokens(
    hub: HubServer, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = push(tiny_bundle, "zoo/secret", "v2", private=True)
    repo = hub.repos["zoo/secret"]
    assert repo.private
    assert len(repo.history("main")) == 1  # main stays as it was made
    assert repo.at("v2").oid == result.commit
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(NotFoundError, match=r"no such repository, or it is private \(404\)"):
        fetching.fetch("hf://zoo/secret@v2")
    with pytest.raises(AuthError, match="the token may not do that"):
        push(tiny_bundle, "zoo/other")
    monkeypatch.setenv("HF_TOKEN", READER)
    assert fetching.fetch("hf://zoo/secret@v2").commit == result.commit
    with pytest.raises(AuthError, match="Use one with write access"):
        push(tiny_bundle, "zoo/other")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(AuthError, match="there is no token"):
        fetching.fetch("hf://zoo/secret@v2")
    requests = len(hub.requests)
    with pytest.raises(AuthError, match="a token with write access is needed"):
        push(tiny_bundle, "zoo/secret")
    assert len(hub.requests) == requests
    monkeypatch.setenv("HF_TOKEN", "hf_CanaryUnknown")
    with pytest.raises(AuthError, match="the token is not known there"):
        fetching.fetch("hf://zoo/secret@v2")


def test_private_is_never_pushed_to_a_public_repository(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    with pytest.raises(UsageError, match="is public, so it is not pushed to with --private"):
        push(tiny_bundle, private=True)


def test_fetch_gives_the_slice_folder_back(
    hub: HubServer, tiny_bundle: Bundle, slice_folder: Path, tmp_path: Path
) -> None:
    push(tiny_bundle)
    result = bz.get(f"hf://{REPO}", output=tmp_path / "out")
    assert not result.cached
    assert result.slice.name == "tiny-s"
    assert {p.name for p in result.path.iterdir()} == {
        "README.md", "labels.txt", "model.safetensors", "model.tflite", "slice.json",
    }  # fmt: skip
    for name in ("model.tflite", "model.safetensors", "labels.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (slice_folder / name).read_bytes()
    assert hub.repos[REPO].downloads >= 1  # config.json is what the Hub counts


def test_a_second_get_asks_for_the_commit_only_and_a_commit_for_nothing(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    commit = push(tiny_bundle).commit
    fetching.fetch(f"hf://{REPO}")
    before = len(hub.requests)
    assert fetching.fetch(f"hf://{REPO}").cached
    assert [r.method for r in hub.requests[before:]] == ["GET"]
    before = len(hub.requests)
    assert fetching.fetch(f"hf://{REPO}@{commit}").cached
    assert bz.get(f"hf://{REPO}@{commit}", output=tmp_path / "out").cached
    assert len(hub.requests) == before


def test_offline_makes_no_request(hub: HubServer, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    push(tiny_bundle)
    fetched = fetching.fetch(f"hf://{REPO}")
    requests = len(hub.requests)
    assert fetching.fetch(f"hf://{REPO}", offline=True).commit == fetched.commit
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetching.fetch(f"hf://{REPO}").folder == fetched.folder
    with pytest.raises(NetworkError, match="offline, and never fetched"):
        fetching.fetch(f"hf://{REPO}@v9")
    with pytest.raises(NetworkError, match="offline, and commit 000000000000 is not in"):
        fetching.fetch(f"hf://{REPO}@{'0' * 40}")
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE is set"):
        push(tiny_bundle)
    assert len(hub.requests) == requests


def test_a_damaged_cache_is_found_at_load_and_fetched_again(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    entry = fetching.fetch(f"hf://{REPO}").folder.parent
    for file in sorted(p for p in entry.rglob("*") if p.is_file()):
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(IntegrityError, match="Offline, it cannot be fetched again"):
            fetching.fetch(f"hf://{REPO}", offline=True)
        assert not fetching.fetch(f"hf://{REPO}").cached, file.name
        assert file.read_bytes() == data
    (entry / "slice" / "extra.py").write_text("1")
    assert not fetching.fetch(f"hf://{REPO}").cached
    assert not (entry / "slice" / "extra.py").exists()


def test_all_files_are_of_one_commit_though_main_moves(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path) -> None:
    first = push(tiny_bundle)
    newer = changed(tiny_bundle, tmp_path / "newer", "labels.txt", b"v\nw\nx\ny\nz\n")
    original = hub.server.RequestHandlerClass.answer

    def answer(self: object, *args: object) -> None:
        hub.server.RequestHandlerClass.answer = original  # once: as soon as the commit is known, somebody pushes
        original(self, *args)
        files = dict(hub.repos[REPO].at("main").files)
        files["labels.txt"] = type(files["labels.txt"])(newer.files["labels.txt"].read_bytes(), lfs=False)
        hub.repos[REPO].add("main", files, "meanwhile", "writer")

    hub.server.RequestHandlerClass.answer = answer
    fetched = fetching.fetch(f"hf://{REPO}")
    assert hub.history(REPO) == ["Slice tiny-s", "meanwhile"]
    assert fetched.commit == first.commit
    assert (fetched.folder / "labels.txt").read_bytes() == tiny_bundle.files["labels.txt"].read_bytes()


def test_revisions_are_branches_tags_and_commits(hub: HubServer, tiny_bundle: Bundle) -> None:
    commit = push(tiny_bundle).commit
    assert commit
    hub.repos[REPO].tags["v1.0"] = commit
    assert fetching.fetch(f"hf://{REPO}@v1.0").commit == commit
    with pytest.raises(NotFoundError, match="no such branch, tag or commit"):
        fetching.fetch(f"hf://{REPO}@v2.0")


def test_what_is_no_slice_is_refused(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path) -> None:
    push(tiny_bundle)
    repo = hub.repos[REPO]
    files = repo.at("main").files
    repo.add("main", {p: b for p, b in files.items() if p != "SHA256SUMS"}, "no manifest", "writer")
    with pytest.raises(IntegrityError, match="is no slice of this project: it has no SHA256SUMS"):
        fetching.fetch(f"hf://{REPO}")
    repo.add("main", {p: b for p, b in files.items() if p != "labels.txt"}, "no labels", "writer")
    with pytest.raises(IntegrityError, match=r"labels.txt is in its SHA256SUMS, but not there"):
        fetching.fetch(f"hf://{REPO}")
    replaced = dict(files)
    replaced["model.safetensors"] = type(files["labels.txt"])(b"other", lfs=True)
    hub.lfs[hashlib.sha256(b"other").hexdigest()] = b"other"
    repo.add("main", replaced, "other weights", "writer")
    with pytest.raises(IntegrityError, match=r"model.safetensors has sha256 .* there, SHA256SUMS says"):
        fetching.fetch(f"hf://{REPO}")
    assert [p.name for p in (store.cache_root() / "hub" / "zoo--tiny").iterdir()] == ["refs"]


def test_listing_an_owner_over_several_pages(
    hub: HubServer, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(tiny_bundle)
    for number in range(5):
        push(tiny_bundle, f"zoo/tiny-{number}", private=number == 4)
    hub.page = 2
    rows = list_hub("zoo")
    assert [r.repo for r in rows] == [REPO, *(f"zoo/tiny-{n}" for n in range(5))]
    assert {(r.name, r.macs, r.bytes) for r in rows} == {("tiny-s", tiny_bundle.slice.macs, tiny_bundle.slice.bytes)}
    assert hub.count("GET", "/api/models\\?") == 3
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert len(list_hub("zoo")) == 5
    assert list_hub("writer") == []
    done = CliRunner().invoke(main, ["list", "--hub", "writer"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "'writer' has no slices" in done.stderr


def test_from_pretrained_and_push_to_hub(hub: HubServer, tiny_bundle: Bundle, stand_ins: None) -> None:
    push(tiny_bundle)
    found = bz.Slice.from_pretrained(REPO)
    assert found.spec == tiny_bundle.slice.spec
    assert found.folder
    commit = found.push_to_hub("zoo/copy")
    assert hub.repos["zoo/copy"].at("main").oid == commit
    assert hub.history("zoo/copy") == ["Slice tiny-s"]
    requests = len(hub.requests)
    assert bz.Slice.from_pretrained(REPO, local_files_only=True) == found
    assert len(hub.requests) == requests


def test_a_family_is_pushed_slice_by_slice_and_completed_by_the_same_call(
    hub: HubServer, stand_ins: None, slice_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = bz.get_family("bignas-cifar10")
    names = [s.name for s in family.slices][:3]
    home = dataclasses.replace(family, slices=family.slices[:3])
    monkeypatch.setattr(pushing.registry, "get_family", lambda name: home)
    monkeypatch.setattr(pushing, "source", lambda name, family, say: contextlib.nullcontext(slice_folder))
    shown: list[int] = []
    hub.faults.append(Fault("POST", f"{names[1]}/commit/", 403))
    with pytest.raises(AuthError):
        bz.push_family("bignas-cifar10", "zoo", agree=lambda plans: not shown.append(len(plans)))
    assert shown == [3]
    assert [len(hub.history(f"zoo/{n}")) for n in names[:2]] == [1, 0]
    results = bz.push_family("bignas-cifar10", "zoo")
    assert [r.pushed for r in results] == [False, True, True]
    assert [len(hub.history(f"zoo/{n}")) for n in names] == [1, 1, 1]


def test_a_declined_push_sends_nothing(hub: HubServer, slice_folder: Path, stand_ins: None) -> None:
    plans: list[pushing.Plan] = []
    result = bz.push(slice_folder, REPO, agree=lambda p: plans.extend(p) or False)
    assert not result.pushed
    assert result.commit is None
    assert {c.path: c.kind for c in plans[0].changes} == dict.fromkeys(PUBLISHED, "new")
    assert hub.repos == {}
    assert {r.method for r in hub.requests} == {"GET"}


def test_a_damaged_slice_folder_is_not_pushed(hub: HubServer, slice_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "slice"
    shutil.copytree(slice_folder, folder)
    (folder / "labels.txt").write_text("z\n")
    with pytest.raises(IntegrityError, match=r"labels\.txt: damaged"):
        bz.push(folder, REPO)
    assert hub.requests == []


def test_a_budget_is_checked_and_a_family_has_no_place(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path) -> None:
    push(tiny_bundle)
    with pytest.raises(NothingFitsError):
        bz.get(f"hf://{REPO}", budget="1params", output=tmp_path / "out")
    with pytest.raises(UsageError, match=r"is on the Hub, so it is not looked for in a family"):
        bz.get(f"hf://{REPO}", family="bignas-cifar10", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "address",
    [
        "hf://", "hf://zoo", "hf://zoo/a/b", "hf://../x", "hf://zoo/a--b", "hf://zoo/x@", "hf://zoo/x@../y",
        "hf://zoo/x@a b", "hf://zoo/\u202ex", "hf://zoo/x@-v", "hf://zoo/" + "x" * 200,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_a_request(hub: HubServer, address: str) -> None:
    with pytest.raises(UsageError, match="repository|revision"):
        bz.load(address)
    assert hub.requests == []


def test_no_token_is_in_any_file(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    fetching.fetch(f"hf://{REPO}")
    for path in store.cache_root().rglob("*"):
        assert not path.is_file() or WRITER.encode() not in path.read_bytes()


def test_json_of_the_description_is_what_was_pushed(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    head = hub.repos[REPO].head()
    files = json.loads(head["slice.json"])["files"]
    assert files["README.md"]["sha256"] == hashlib.sha256(head["README.md"]).hexdigest()
    assert files["model.tflite"]["sha256"] == hashlib.sha256(head["tflite/model.tflite"]).hexdigest()


@pytest.mark.parametrize(
    ("command", "code", "seen"),
    [
        (("show",), 0, "tiny-s"),
        (("card",), 0, "# tiny-s"),
        # The slice's files are noise, and each command says so of the file that was fetched.
        (("verify",), 4, "slice/model.tflite: neither a TFLite file"),
        (("bench",), 4, "slice/model.tflite: neither a TFLite file"),
        (("finetune", "--data", "absent"), 4, "slice/model.safetensors: damaged"),
    ],
)
def test_other_commands_take_an_address_too(
    hub: HubServer, tiny_bundle: Bundle, command: tuple[str, ...], code: int, seen: str
) -> None:
    push(tiny_bundle)
    done = CliRunner().invoke(main, [*command, f"hf://{REPO}"])
    assert done.exit_code == code, done.output
    assert seen in done.output
    absent = CliRunner().invoke(main, [*command, "hf://zoo/absent"])
    assert absent.exit_code == 3
    assert "zoo/absent" in absent.stderr


def test_a_token_that_cannot_be_one_is_refused_at_once_and_not_shown(
    hub: HubServer, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in ("hf_\u00e9secret", "hf_sec ret"):
        with pytest.raises(AuthError, match="holds characters that no token has") as caught:
            bz.push("tiny-s", REPO, token=token)
        assert "secret" not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize("endpoint", ["garbage", "ftp://x", "http://", "http://a b"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    done = CliRunner().invoke(main, ["list", "--hub", "zoo"])
    assert done.exit_code == 2
    assert "HF_ENDPOINT" in done.stderr


def test_a_repository_does_not_end_in_git(hub: HubServer) -> None:
    for arguments in (["get", "hf://zoo/s.git"], ["push", "bignas-cifar10-s", "--repo", "zoo/s.git", "--yes"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert "does not end in '.git'" in done.stderr


def test_a_new_branch_that_holds_everything_is_said_to_make_no_commit(
    hub: HubServer, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    push(tiny_bundle)
    _print_plans([pushing.plan(Hub(WRITER), tiny_bundle, REPO, "dev", False)])
    shown = capsys.readouterr().out
    assert "new branch dev" in shown
    assert "no commit: the new branch begins with exactly these files" in shown


def test_a_commit_is_not_pushed_to(hub: HubServer, tiny_bundle: Bundle) -> None:
    commit = push(tiny_bundle).commit
    with pytest.raises(UsageError, match="is a commit, which cannot be pushed to"):
        bz.push("tiny-s", REPO, revision=commit)
    assert set(hub.repos[REPO].branches) == {"main"}


def test_a_changed_byte_in_the_cached_manifest_is_found_though_no_cached_file_is_concerned(
    hub: HubServer, tiny_bundle: Bundle
) -> None:
    push(tiny_bundle)
    entry = fetching.fetch(f"hf://{REPO}").folder.parent
    listed = entry / "SHA256SUMS"
    text = listed.read_text()
    (line,) = [line for line in text.splitlines() if line.endswith("  plots/front.png")]  # is not fetched
    other = ("0" if line[0] != "0" else "1") + line[1:]
    listed.write_text(text.replace(line, other))
    done = CliRunner().invoke(main, ["cache", "verify"])
    assert done.exit_code == 4
    assert "SHA256SUMS: damaged or replaced" in done.stdout
    assert not fetching.fetch(f"hf://{REPO}").cached
    assert listed.read_text() == text


def test_a_password_in_the_endpoint_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:pAss@127.0.0.1:9")
    done = CliRunner().invoke(main, ["get", "hf://zoo/s"])
    assert done.exit_code == 2
    assert "pAss" not in done.output


def test_get_says_whose_figures_those_of_a_slice_of_the_hub_are(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    push(tiny_bundle)
    done = CliRunner().invoke(main, ["get", f"hf://{REPO}", "--output", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert f"`bignas-zoo verify {tmp_path / 'out'}` compares them here" in done.stdout


def test_what_is_wrong_with_a_slice_is_said_of_its_address(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path) -> None:
    description = json.loads(tiny_bundle.files["slice.json"].read_text()) | {"top1": 999}
    data = store.json_bytes(store.sealed({k: v for k, v in description.items() if k != "digest"}))
    push(changed(tiny_bundle, tmp_path / "other", "slice.json", data))
    with pytest.raises(IntegrityError) as caught:
        fetching.fetch(f"hf://{REPO}")
    text = str(caught.value)
    assert text.startswith(f"hf://{REPO}: slice.json: not a valid slice description (999 is not a percentage)")
    assert text.endswith("Nothing of it is kept; its owner should push it again.")
    assert ".bignas-tmp" not in text


def test_without_keras_a_push_lacks_its_layout_only(
    hub: HubServer, slice_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "has_keras", lambda: False)
    said: list[str] = []
    made = bundle.make(slice_folder, REPO, tmp_path, said.append)
    assert set(made.files) == PUBLISHED - {"metadata.json", "model.weights.h5"}
    assert any("pip install 'bignas-zoo[train]'" in text for text in said)
    card = made.files["README.md"].read_text()
    assert "library_name: bignas-zoo" in card
    assert "keras" not in card.lower().replace("numpy or keras", "")
    assert push(made).pushed
    fetched = bz.Slice.from_pretrained(REPO)
    assert fetched.name == "tiny-s"


@pytest.mark.slow
def test_a_notice_is_pushed_and_fetched_with_the_weights(hub: HubServer, tmp_path: Path) -> None:
    name = "efficientnet-lite0-128"
    with bundle.source(name) as folder:
        made = bundle.make(folder, "zoo/lite", tmp_path)
        notice = (folder / "NOTICE").read_bytes()
        assert push(made, "zoo/lite").pushed
    assert hub.repos["zoo/lite"].head()["NOTICE"] == notice
    card = hub.repos["zoo/lite"].head()["README.md"].decode()
    assert "license: apache-2.0" in card
    assert "`NOTICE` is to be passed on" in card
    fetched = bz.get("hf://zoo/lite", output=tmp_path / "fetched")
    assert (fetched.path / "NOTICE").read_bytes() == notice
    assert bz.reproduce(fetched.path).files[0].same
