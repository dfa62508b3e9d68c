"""The Hub fails in every way, at every moment: exit code, message, exactly one commit, nothing sent twice, no token."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hub_fixtures import REPO, changed, push
from hub_repos import WRITER, Fault, Repo
from hub_server import HubServer

from bignas_zoo.cli.main import main
from bignas_zoo.files import store
from bignas_zoo.hub import fetching, pushing
from bignas_zoo.hub.pushing import Bundle

STATUSES = (401, 403, 404, 408, 409, 412, 429, 500, 502, 503, 504)
#: Exit code of each status that does not go away; those the client or we try again are met with success if they do.
CODES = {401: 6, 403: 6, 404: 3, **dict.fromkeys((408, 409, 412, 429, 500, 502, 503, 504, "drop"), 5)}
WORDS = {
    401: r"does not exist, or is private, .* \(401\)\. Log in with `hf auth login`",
    403: r"the token may not do that \(403: .*\)\. Use one with write access",
    404: r"no such repository, or it is private \(404\)",
    408: r"waited too long for the request \(408",
    409: r"in conflict with something there \(409",
    412: r"somebody else changed it meanwhile \(412",
    429: r"too many requests; wait some minutes \(429",
    500: r"a fault of its own \(500",
    502: r"a fault of its own \(502",
    503: r"a fault of its own \(503",
    504: r"a fault of its own \(504",
    "drop": r"the connection failed \(",
}
ALWAYS = 10_000
#: Requests before the commit, and how often the client repeats them by itself.
BEFORE = {
    "create": ("POST", "/api/repos/create"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/info/lfs/objects/batch"),
    "upload": ("PUT", "/_lfs/"),
}


@pytest.fixture
def folder(slice_folder: Path, stand_ins: None) -> Path:
    return slice_folder


def run(*arguments: str) -> Result:
    """Run a command; whatever becomes of it, the token is in no output and nothing looks like a bug."""
    result = CliRunner().invoke(main, arguments)
    everything = f"{result.output}\n{result.stderr}\n{''.join(traceback.format_exception(result.exception))}"
    assert WRITER not in everything
    assert "internal error" not in everything
    assert "Traceback" not in result.output
    return result


def run_push(folder: Path) -> Result:
    return run("push", str(folder), "--repo", REPO, "--yes")


def check_complete(hub: HubServer, made: Bundle) -> None:
    """Check that the repository holds the slice, by exactly one commit, and each blob was sent once."""
    head = hub.repos[REPO].head()
    assert {path: head[path] for path in made.files} == {p: f.read_bytes() for p, f in made.files.items()}
    assert len(hub.history(REPO)) == 1
    sent = [r.path for r in hub.requests if r.method == "PUT" and r.status == 200]
    assert len(sent) == len(set(sent))


def check_nothing(hub: HubServer) -> None:
    assert REPO not in hub.repos or hub.history(REPO) == []


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
@pytest.mark.parametrize("request_kind", BEFORE)
def test_a_fault_before_the_commit(
    hub: HubServer, folder: Path, tiny_bundle: Bundle, request_kind: str, status: int | str
) -> None:
    method, path = BEFORE[request_kind]
    fault = Fault(method, path, status, times=ALWAYS)
    hub.faults.append(fault)
    result = run_push(folder)
    if request_kind == "create" and status == 409:  # what a Hub says of a repository that is there
        assert result.exit_code != 0
    else:
        assert result.exit_code == CODES[status], result.output
    check_nothing(hub)
    hub.faults.clear()
    assert run_push(folder).exit_code == 0  # the same command completes it
    check_complete(hub, tiny_bundle)


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
def test_a_commit_that_is_always_refused(hub: HubServer, folder: Path, tiny_bundle: Bundle, status: int | str) -> None:
    import re

    hub.faults.append(Fault("POST", "/commit/", status, times=ALWAYS))
    result = run_push(folder)
    assert result.exit_code == CODES[status], result.output
    assert re.search(WORDS[status], result.stderr), result.stderr
    check_nothing(hub)
    uploads = hub.count("PUT", "/_lfs/")
    hub.faults.clear()
    assert run_push(folder).exit_code == 0
    assert hub.count("PUT", "/_lfs/") == uploads  # interrupted, completed: nothing is sent twice
    check_complete(hub, tiny_bundle)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, "drop"])
def test_a_commit_that_is_refused_twice_is_made_the_third_time(
    hub: HubServer, folder: Path, tiny_bundle: Bundle, status: int | str
) -> None:
    hub.faults.append(Fault("POST", "/commit/", status, times=2))
    result = run_push(folder)
    assert result.exit_code == 0, result.output
    assert hub.count("POST", "/commit/") == 3
    check_complete(hub, tiny_bundle)


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
def test_a_commit_that_is_made_though_answered_with_an_error(
    hub: HubServer, folder: Path, tiny_bundle: Bundle, status: int | str
) -> None:
    hub.faults.append(Fault("POST", "/commit/", status, done=True))
    result = run_push(folder)
    if status in (401, 403, 404):  # such an answer is believed; the same command then finds the commit
        assert result.exit_code == CODES[status], result.output
        assert run_push(folder).exit_code == 0
    else:
        assert result.exit_code == 0, result.output
        assert "the commit is there" in result.stderr
    assert hub.count("POST", "/commit/") == 1
    check_complete(hub, tiny_bundle)


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
def test_a_commit_of_which_nothing_can_be_seen_afterwards(
    hub: HubServer, folder: Path, tiny_bundle: Bundle, status: int | str
) -> None:
    push_first = Fault("POST", "/commit/", 500, done=True)
    look = Fault("GET", f"/api/models/{REPO}/revision/main", status, times=ALWAYS, skip=1 + 1)
    hub.faults += [push_first, look]
    result = run_push(folder)
    assert result.exit_code == 5, result.output
    assert "whether it was made cannot be seen" in result.stderr
    hub.faults.clear()
    result = run_push(folder)
    assert result.exit_code == 0
    assert "nothing to do" in result.stdout
    assert hub.count("POST", "/commit/") == 1
    check_complete(hub, tiny_bundle)


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
def test_a_fault_after_a_good_commit_is_a_remark(
    hub: HubServer, folder: Path, tiny_bundle: Bundle, status: int | str
) -> None:
    hub.faults.append(Fault("GET", f"/api/models/{REPO}/revision/[0-9a-f]{{40}}", status, times=ALWAYS))
    result = run_push(folder)
    assert result.exit_code == 0, result.output
    assert "pushed, but not looked at again" in result.stderr
    check_complete(hub, tiny_bundle)


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
def test_a_plan_that_cannot_be_made(hub: HubServer, folder: Path, status: int | str) -> None:
    hub.repos[REPO] = Repo(REPO, False, "writer")
    hub.faults.append(Fault("GET", f"/api/models/{REPO}", status, times=ALWAYS))
    result = run_push(folder)
    # "Not found" means that the repository is to be made; then it is there, but cannot be seen.
    assert result.exit_code == CODES[status], result.output
    check_nothing(hub)


def test_somebody_else_pushes_meanwhile(hub: HubServer, tiny_bundle: Bundle, tmp_path: Path) -> None:
    from bignas_zoo.errors import NetworkError
    from bignas_zoo.hub.client import Hub

    client = Hub()
    push(changed(tiny_bundle, tmp_path / "old", "labels.txt", b"1\n2\n3\n4\n5\n"))
    planned = pushing.plan(client, tiny_bundle, REPO, "main", False)
    push(changed(tiny_bundle, tmp_path / "other", "labels.txt", b"5\n4\n3\n2\n1\n"))
    with pytest.raises(NetworkError, match=r"somebody else pushed to main meanwhile; nothing was changed"):
        pushing.carry_out(client, tiny_bundle, planned)
    assert hub.repos[REPO].head()["labels.txt"] == b"5\n4\n3\n2\n1\n"
    # Somebody pushed the same: that is as good.
    planned = pushing.plan(client, tiny_bundle, REPO, "main", False)
    push(tiny_bundle)
    commits = len(hub.history(REPO))
    assert pushing.carry_out(client, tiny_bundle, planned).commit == hub.repos[REPO].at("main").oid
    assert len(hub.history(REPO)) == commits


def test_files_that_the_hub_leaves_out_are_noticed(hub: HubServer, folder: Path) -> None:
    from hub_repos import Blob

    push_target = Repo(REPO, False, "writer")
    push_target.add("main", {".gitignore": Blob(b"x", lfs=False)}, "ignores", "writer")
    hub.repos[REPO] = push_target
    original = Repo.apply

    def forgetful(self: Repo, revision: str, lines: list, lfs: dict, author: str):  # type: ignore[no-untyped-def, type-arg]
        kept = [line for line in lines if line["value"].get("path") != "labels.txt"]
        return original(self, revision, kept, lfs, author)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repo, "apply", forgetful)
        result = run_push(folder)
    assert result.exit_code == 4
    assert "holds other files than were pushed (labels.txt)" in result.stderr


# Fetching.

GET_KINDS = {
    "state": ("GET", f"/api/models/{REPO}/revision/"),
    "head": ("HEAD", "/resolve/"),
    "small file": ("GET", "/resolve/"),
    "large file": ("GET", "/_cdn/"),
}


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
@pytest.mark.parametrize("request_kind", GET_KINDS)
def test_a_fetch_that_always_fails(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path, request_kind: str, status: int | str
) -> None:
    push(tiny_bundle)
    hub.faults.append(Fault(*GET_KINDS[request_kind], status, times=ALWAYS))
    result = run("get", f"hf://{REPO}", "--output", str(tmp_path / "out"))
    assert result.exit_code == CODES[status], result.output
    assert not (tmp_path / "out").exists()
    home = store.cache_root() / "hub"
    assert [p.name for p in home.glob("*/*") if p.name != "refs"] == []
    hub.faults.clear()
    assert run("get", f"hf://{REPO}", "--output", str(tmp_path / "out")).exit_code == 0


@pytest.mark.parametrize("request_kind", ["small file", "large file"])
@pytest.mark.parametrize("action", ["truncate", "flip"])
def test_a_spoilt_body_once_is_made_good_and_always_is_refused(
    hub: HubServer, tiny_bundle: Bundle, tmp_path: Path, request_kind: str, action: str
) -> None:
    push(tiny_bundle)
    method, path = GET_KINDS[request_kind]
    hub.faults.append(Fault(method, path, action))
    assert run("get", f"hf://{REPO}", "--output", str(tmp_path / "once")).exit_code == 0
    for file in ("model.tflite", "labels.txt"):
        source = tiny_bundle.files["tflite/model.tflite" if file.startswith("model") else file]
        assert (tmp_path / "once" / file).read_bytes() == source.read_bytes()
    import shutil

    shutil.rmtree(store.cache_root() / "hub")
    hub.faults.append(Fault(method, path, action, times=ALWAYS))
    before = len(hub.requests)
    result = run("get", f"hf://{REPO}", "--output", str(tmp_path / "always"))
    assert result.exit_code == (4 if action == "flip" else 5), result.output
    assert not (tmp_path / "always").exists()
    if action == "flip":
        assert "arrived twice with other bytes" in result.stderr
        bodies = [r for r in hub.requests[before:] if r.method == "GET" and r.path.startswith(("/_cdn", f"/{REPO}"))]
        spoilt = bodies[-1].path
        assert sum(r.path == spoilt for r in bodies) == 2


@pytest.mark.parametrize("path", ["SHA256SUMS", "slice.json", "labels.txt", "config.json", "README.md"])
def test_a_wrong_byte_in_any_file_is_found_at_fetch(hub: HubServer, tiny_bundle: Bundle, path: str) -> None:
    from bignas_zoo.errors import IntegrityError

    push(tiny_bundle)
    hub.faults.append(Fault("GET", f"/resolve/[^/]+/{path}", "flip", times=ALWAYS))
    with pytest.raises(IntegrityError, match=f"{path}.*arrived twice with other bytes"):
        fetching.fetch(f"hf://{REPO}")


@pytest.mark.parametrize(
    "listed",
    [
        "../../../evil",
        "/etc/passwd",
        "tflite/../../x",
        "C:\\x",
        "a/b/c/d/e",
        "con",
        ".git/config",
        "a\u202eb",
        "x" * 200,
    ],
)
def test_a_hostile_manifest_is_refused_before_any_other_file(hub: HubServer, tiny_bundle: Bundle, listed: str) -> None:
    from hub_repos import Blob

    from bignas_zoo.errors import IntegrityError

    push(tiny_bundle)
    repo = hub.repos[REPO]
    files = dict(repo.at("main").files)
    evil = files["SHA256SUMS"].data + f"{hashlib.sha256(b'').hexdigest()}  {listed}\n".encode()
    repo.add("main", {**files, "SHA256SUMS": Blob(evil, lfs=False), listed: Blob(b"", lfs=False)}, "evil", "writer")
    before = len(hub.requests)
    with pytest.raises(IntegrityError, match="not a sha256 and a plain path"):
        fetching.fetch(f"hf://{REPO}")
    assert {r.path.rpartition("/")[2] for r in hub.requests[before:] if "/resolve/" in r.path} == {"SHA256SUMS"}


@pytest.mark.parametrize("status", [*STATUSES, "drop"])
def test_a_listing_that_fails(hub: HubServer, status: int | str) -> None:
    hub.faults.append(Fault("GET", "/api/models", status, times=ALWAYS))
    assert run("list", "--hub", "zoo").exit_code == CODES[status]


def test_an_answer_that_is_no_json(hub: HubServer, tiny_bundle: Bundle) -> None:
    push(tiny_bundle)
    hub.faults.append(Fault("GET", "/api/models/", "flip", times=ALWAYS))
    assert run("get", f"hf://{REPO}").exit_code in (4, 5)
    hub.faults[0].action = "truncate"
    assert run("get", f"hf://{REPO}").exit_code == 5


def test_no_server_at_all(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    for arguments in (
        ["get", f"hf://{REPO}"],
        ["list", "--hub", "zoo"],
        ["push", str(folder), "--repo", REPO, "--yes"],
    ):
        result = run(*arguments)
        assert result.exit_code == 5, result.output
        assert "http://127.0.0.1:9" in result.stderr


def test_the_command_line_asks_first(hub: HubServer, folder: Path, tiny_bundle: Bundle) -> None:
    import json

    result = run("push", str(folder), "--repo", REPO)
    assert result.exit_code == 2
    assert "nobody can be asked" in result.stderr
    result = run("push", str(folder), "--repo", REPO, "--dry-run")
    assert result.exit_code == 0
    assert f"tiny-s -> {hub.url}/{REPO} (new public repository), branch main" in result.stdout
    assert hub.repos == {}
    assert run("push", str(folder), "--repo", REPO, "--json").exit_code == 2
    data = json.loads(run("push", str(folder), "--repo", REPO, "--json", "--yes").stdout)
    (made,) = data["pushes"]
    assert data["schema"] == "bignas-zoo/push/1"
    assert made["pushed"]
    assert made["commit"] == hub.repos[REPO].at("main").oid
    assert {f["path"] for f in made["files"]} == set(tiny_bundle.files)
    data = json.loads(run("list", "--hub", "zoo", "--json").stdout)
    assert [row["address"] for row in data["slices"]] == [f"hf://{REPO}"]
    assert f"hf://{REPO}" in run("list", "--hub", "zoo").stdout
    assert run("push", "--repo", REPO).exit_code == 2
    assert run("push", str(folder), "--repo", "no-slash", "--yes").exit_code == 2
