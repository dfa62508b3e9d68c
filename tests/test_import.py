"""`import` of published weights: a family of them, what a budget makes of it, what is fetched, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import once
from safetensors.numpy import save

import bignas_zoo as bz
from bignas_zoo.architecture.nets import names as net_names
from bignas_zoo.architecture.nets import net
from bignas_zoo.architecture.plan import plan
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, NetworkError, NotFoundError, UsageError
from bignas_zoo.files import store
from bignas_zoo.hub import public_files
from bignas_zoo.importers import sources as table
from bignas_zoo.importers.keys import timm_keys
from bignas_zoo.importers.sources import Digest, Source, find_source, sources
from bignas_zoo.tasks import import_weights as task
from bignas_zoo.zoo import imported, registry
from bignas_zoo.zoo.license import check_publishing

SMALL = "mobilenetv3-small-050.lamb-in1k"
#: timm's own count of its state dict's entries, by facts about the net.
ENTRIES = {"mobilenetv3_small_050": 244, "mobilenetv2_100": 314, "fbnetv3_b": 597, "efficientnet_b1": 508}


def state_of(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """A file of one of timm's nets with random weights, by the names that its builder gives."""
    network, draw = net(name), np.random.default_rng(seed)
    last, state = max(block.stage for block in plan(network)), {}
    for block in plan(network):
        for op in block.ops:
            keys = timm_keys(block, op, last)
            shape: tuple[int, ...] = (op.cout, op.cin, op.kernel, op.kernel)
            if op.kind == "depthwise":
                shape = (op.cout, 1, op.kernel, op.kernel)
            elif op.kind == "dense":
                shape = (op.cout, op.cin) if op.role == "classifier" else (op.cout, op.cin, 1, 1)
            spread = float(np.prod(shape[1:])) ** -0.5
            state[f"{keys.layer}.weight"] = (draw.normal(size=shape) * spread).astype("f4")
            if op.bias:
                state[f"{keys.layer}.bias"] = (draw.normal(size=op.cout) * 0.1).astype("f4")
            if op.batch_norm:
                for key, low in (("weight", 0.7), ("bias", -0.1), ("running_mean", -0.1), ("running_var", 0.5)):
                    state[f"{keys.batch_norm}.{key}"] = (low + draw.random(op.cout) * 0.2).astype("f4")
                state[f"{keys.batch_norm}.num_batches_tracked"] = np.array(7, "i8")
    return state


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(
        tmp_path_factory, "small-timm",
        lambda folder: (folder / "model.safetensors").write_bytes(save(state_of("mobilenetv3_small_050"))),
    ) / "model.safetensors"  # fmt: skip


@pytest.fixture(scope="session")
def small_family(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        bz.import_weights(SMALL, [small_file], output=folder / "family")

    return once(tmp_path_factory, "small-family", make) / "family"


@pytest.mark.parametrize("name", ENTRIES)
def test_names_of_timm_are_counted_by_timm(name: str) -> None:
    assert len(state_of(name)) == ENTRIES[name]


def test_every_net_has_weights_in_the_list() -> None:
    assert {source.net for source in sources().values() if source.layout == "timm"} == set(net_names())


def test_a_net_becomes_a_family(small_family: Path, small_file: Path) -> None:
    family = bz.get_family(small_family)
    (slice_,) = family.slices
    assert (slice_.macs, slice_.parameters) == (24_188_688, 1_599_720)  # timm's own count
    assert (family.license, slice_.license) == ("Apache-2.0", "Apache-2.0")
    assert slice_.top1 is None
    assert slice_.published is None  # random weights are not the published ones
    assert slice_.source.endswith("a file of the user's")
    record = dict(family.training)["imported"]
    assert record["is_published_file"] is False
    assert record["file_sha256"] == hashlib.sha256(small_file.read_bytes()).hexdigest()
    contract = slice_.preprocess
    assert contract["crop_fraction"] == 0.875
    assert contract["mean"] == [123.675, 116.28, 103.53]


def test_its_slice_is_cut_exported_and_proven(small_family: Path, tmp_path: Path) -> None:
    got = bz.get(family=small_family, budget="30MFLOPs,10MB", output=tmp_path / "slice")
    assert got.parity["max_abs"] < 1e-3
    description = store.read_json(tmp_path / "slice" / "slice.json")
    assert description["license"] == "Apache-2.0"
    assert got.slice.bytes is not None
    assert abs(description["files"]["model.tflite"]["bytes"] - got.slice.bytes) < 500  # what it says of itself
    assert "timm (github.com/huggingface/pytorch-image-models" in (tmp_path / "slice" / "README.md").read_text()


def test_a_budget_chooses_among_imported_families(small_family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imported.remember(SMALL, small_family) is None
    assert registry.get_family(SMALL).folder == small_family
    assert SMALL in {family.name for family in registry.families()}
    assert SMALL in CliRunner().invoke(main, ["list"]).output
    imported.list_file().write_text("{}")
    assert SMALL not in {family.name for family in registry.families()}
    with pytest.raises(NotFoundError):
        registry.get_family(SMALL)


def vouched(family: Path, place: Path, top1: float) -> Path:
    """A copy of a family whose makers say something of its slices."""
    data = {k: v for k, v in store.read_json(family / "family.json").items() if k != "digest"}
    for entry in data["slices"]:
        entry["published"] = {"top1": top1, "images": 50_000, "source": "its makers"}
    place.mkdir()
    for file in family.rglob("*.safetensors"):
        (place / file.relative_to(family)).parent.mkdir(exist_ok=True)
        store.copy(file, place / file.relative_to(family))
    store.write_json(place / "family.json", store.sealed(data))
    return place


@pytest.mark.parametrize(("top1", "chosen"), [(99.0, f"{SMALL}-224"), (40.0, "efficientnet-lite0-128")])
def test_the_more_accurate_by_its_makers_is_chosen(
    small_family: Path, tmp_path: Path, top1: float, chosen: str
) -> None:
    imported.remember(SMALL, vouched(small_family, tmp_path / "family", top1))
    got = bz.get(budget="130MFLOPs", output=tmp_path / "slice")
    assert got.slice.name == chosen
    assert ("its makers' figure" in str(got.hint)) == chosen.startswith(SMALL)


def test_a_budget_names_what_could_be_imported(tmp_path: Path) -> None:
    got = bz.get(budget="400MFLOPs", output=tmp_path / "slice")
    # The most accurate of at most 400 MMACs in the list: AlphaNet's A3, 356.52 MMACs, 79.4 %.
    assert "'alphanet-a3' (356.52 MMACs, 79.4 % by its makers, licence of its weights: CC-BY-NC-4.0)" in str(got.hint)
    assert "bignas-zoo import alphanet FILE" in str(got.hint)
    # And under a licence that lets one sell it: 385.81 MMACs, 78.68 %.
    assert "'tf-efficientnet-b0.ns-jft-in1k-224' (385.81 MMACs, 78.7 %" in str(got.hint)


def test_the_list_as_a_table_and_as_json() -> None:
    result = CliRunner().invoke(main, ["import", "--list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in sources())
    rows = {
        row["name"]: row
        for row in json.loads(CliRunner().invoke(main, ["import", "--list", "--json"]).output)["sources"]
    }
    assert rows["alphanet"]["license"] == "CC-BY-NC-4.0"
    assert {n["name"]: n["published_top1"] for n in rows["alphanet"]["nets"]}["alphanet-a5-small"] == 80.29
    assert rows["ofa-flops-389m"]["digest"] == "git-blob-sha1:a491cd8b2e522b91df16e889363f259c815a8a99"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "name a source"),
        (["alphanett"], 3, "Did you mean 'alphanet'?"),
        (["mobilenetv3_large_100"], 3, "there are several weights"),
        (["alphanet"], 2, "drive.google.com"),
        (["alphanet", "--accept-licence", "MIT"], 2, "its licence is CC-BY-NC-4.0"),
        (["ofa-flops-389m"], 2, "not accepted"),
        ([SMALL, "a", "b"], 2, "one file"),
        ([SMALL, "missing.pth"], 7, "cannot be read"),
        ([SMALL, "--images", "x", "y"], 2, "supernet"),
        (["--list", SMALL, "x.pth"], 2, "--list takes"),
        (["--list", "nothing-like-it"], 3, "no source has"),
    ],
)
def test_wrong_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["import", *arguments])
    assert result.exit_code == code, result.output
    assert says in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_files_of_other_networks_are_refused(tmp_path: Path, small_file: Path) -> None:
    with pytest.raises(IntegrityError, match=r"another|has shape"):
        bz.import_weights("mobilenetv3-small-100.lamb-in1k", [small_file], output=tmp_path / "out")
    state = state_of("mobilenetv3_small_050")
    (tmp_path / "more").write_bytes(save({**state, "blocks.9.0.conv.weight": np.zeros((1, 1, 1, 1), "f4")}))
    with pytest.raises(IntegrityError, match=r"holds 'blocks.9.0.conv.weight'"):
        bz.import_weights(SMALL, [tmp_path / "more"], output=tmp_path / "out")
    name = "blocks.0.0.bn1.running_var"
    (tmp_path / "less").write_bytes(save({key: value for key, value in state.items() if key != name}))
    with pytest.raises(IntegrityError, match="has no tensor"):
        bz.import_weights(SMALL, [tmp_path / "less"], output=tmp_path / "out")
    (tmp_path / "negative").write_bytes(save({**state, name: -state[name]}))
    with pytest.raises(IntegrityError, match="below zero"):
        bz.import_weights(SMALL, [tmp_path / "negative"], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------ what is fetched


class Files(BaseHTTPRequestHandler):
    """Serves one file, with ranges; the first answers break off after some bytes."""

    data, breaks, requests = b"", 0, 0

    def do_GET(self) -> None:
        cls = type(self)
        cls.requests += 1
        if "missing" in self.path:
            self.send_error(404)
            return
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        part = cls.data[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(part)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(cls.data) - 1}/{len(cls.data)}")
        self.end_headers()
        if cls.requests <= cls.breaks:
            self.wfile.write(part[: len(part) // 2])
            self.wfile.flush()
            self.connection.close()
        else:
            self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    Files.breaks = Files.requests = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.fixture
def source(server: str, small_file: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """The small net as if this server and these bytes were what its makers published."""
    Files.data = small_file.read_bytes()
    digest = Digest("sha256", hashlib.sha256(Files.data).hexdigest())
    own = replace(find_source(SMALL), url=f"{server}/model.safetensors", digest=digest, bytes=len(Files.data))
    monkeypatch.setattr(task, "find_source", lambda name: own)
    return own


def test_a_file_is_fetched_checked_and_its_makers_figure_stands(source: Source, tmp_path: Path) -> None:
    said: list[str] = []
    family = bz.import_weights(SMALL, output=tmp_path / "f", accept_licence="apache-2.0", say=said.append)
    assert family.slices[0].published is not None
    assert family.slices[0].published["top1"] == 57.918
    assert dict(family.training)["imported"]["is_published_file"] is True
    assert any("as published, by SHA-256" in line for line in said)
    assert not [p for p in (store.cache_root() / "imports").iterdir() if p.suffix != ".lock"]  # it is in the family now


def test_a_broken_download_is_gone_on_with(source: Source, tmp_path: Path) -> None:
    Files.breaks = 2
    bz.import_weights(SMALL, output=tmp_path / "f", accept_licence="Apache-2.0")
    assert Files.requests >= 2
    # A part that an earlier call left is not fetched again.
    place = tmp_path / "cache" / "x.bin"
    place.parent.mkdir()
    (place.parent / "x.bin.part").write_bytes(Files.data[:1000])
    Files.requests, Files.breaks = 0, 0
    assert source.url is not None
    assert public_files.fetch_public(source.url, place, size=source.bytes).read_bytes() == Files.data


def test_what_is_not_published_is_deleted(source: Source, tmp_path: Path) -> None:
    Files.data = Files.data[:-1] + b"x"
    with pytest.raises(IntegrityError, match=r"does not have the digest .* it is deleted"):
        bz.import_weights(SMALL, output=tmp_path / "f", accept_licence="Apache-2.0")
    assert not (tmp_path / "f").exists()
    assert not [p for p in (store.cache_root() / "imports").iterdir() if p.suffix != ".lock"]


def test_a_server_that_fails(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, kind, says in (
        (f"{source.url}/missing", NotFoundError, "404"),
        ("http://127.0.0.1:9/x", NetworkError, "connection failed"),
    ):
        monkeypatch.setattr(task, "find_source", lambda name, url=url: replace(source, url=url))
        with pytest.raises(kind, match=says):
            bz.import_weights(SMALL, output=tmp_path / "f", accept_licence="Apache-2.0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE"):
        bz.import_weights(SMALL, output=tmp_path / "f", accept_licence="Apache-2.0")


def test_the_licence_is_asked_before_anything_is_fetched(source: Source, tmp_path: Path) -> None:
    shown: list[str] = []
    with pytest.raises(UsageError, match="not accepted"):
        bz.import_weights(SMALL, output=tmp_path / "f", ask=lambda question: bool(shown.append(question)))
    assert "Apache-2.0" in shown[0]
    assert Files.requests == 0
    bz.import_weights(SMALL, output=tmp_path / "f", ask=lambda question: True)


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        # Of b"hello\n", by sha256sum, sha384sum, md5sum and git hash-object.
        ("sha256", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"),
        ("sha256", "5891b5b5"),
        ("sha384", "1d0f284efe3edea4b9ca3bd514fa134b17eae361ccc7a1eefeff801b9bd6604e01f21f6bf249ef030599f0c218f2ba8c"),
        ("md5", "b1946ac92492d2347c6235b4d2611184"),
        ("git-blob-sha1", "ce013625030ba8dba906f756967f9e9ca394464a"),
    ],
)
def test_digests(tmp_path: Path, algorithm: str, value: str) -> None:
    (tmp_path / "f").write_bytes(b"hello\n")
    assert Digest(algorithm, value).of(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"hello")
    assert not Digest(algorithm, value).of(tmp_path / "f")
    assert Digest(algorithm, value).grade in (*table.GRADES.values(), table.WEAK)


@pytest.mark.parametrize("license", ["CC-BY-NC-4.0", "CC BY-NC 4.0", "cc-by-nc-sa-3.0", "for non-commercial use"])
def test_noncommercial_weights_are_not_published_by_accident(license: str) -> None:
    with pytest.raises(UsageError, match="--accept-licence"):
        check_publishing("a0", license, None, private=False)
    check_publishing("a0", license, None, private=True)
    check_publishing("a0", license, license.upper(), private=False)
    for free in ("Apache-2.0", "MIT", "unknown", "CC-BY-4.0"):
        check_publishing("a0", free, None, private=False)


def test_what_names_mean() -> None:
    for written in ("timm/mobilenetv3_small_050.lamb_in1k", "mobilenetv3_small_050", SMALL, SMALL.upper()):
        assert find_source(written).name == SMALL
    assert all(isinstance(s, Source) and s.where and s.license for s in sources().values())


def test_the_card_says_where_the_weights_come_from(small_family: Path, small_file: Path, tmp_path: Path) -> None:
    bz.get(family=small_family, budget="30MFLOPs", output=tmp_path / "slice")
    card = (tmp_path / "slice" / "README.md").read_text()
    assert "## Where the weights come from" in card
    assert hashlib.sha256(small_file.read_bytes()).hexdigest() in card
    assert "not the one that its makers published" in card
    assert "Licence: Apache-2.0" in card


def test_a_family_that_was_moved_is_named_where_it_was(small_family: Path, tmp_path: Path) -> None:
    shutil.copytree(small_family, tmp_path / "here")
    assert imported.remember(SMALL, tmp_path / "here") is None
    (tmp_path / "here").rename(tmp_path / "there")
    for command in (["list", "--family", SMALL], ["get", f"{SMALL}-224", "-o", str(tmp_path / "out")]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 3
        assert f"was imported to {tmp_path / 'here'}" in " ".join(result.output.split())
    assert imported.remember(SMALL, tmp_path / "there") is None
    shutil.copytree(tmp_path / "there", tmp_path / "other")
    assert "means this family from now on" in str(imported.remember(SMALL, tmp_path / "other"))


def test_a_damaged_list_is_kept(small_family: Path) -> None:
    path = imported.list_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"sch')
    assert imported.folders() == {}
    assert "is not remembered" in str(imported.remember(SMALL, small_family))
    assert path.read_text() == '{"sch'


def test_other_classes_are_counted(tmp_path: Path) -> None:
    state = state_of("mobilenetv3_small_050")
    few = {
        **state,
        "classifier.weight": state["classifier.weight"][:10],
        "classifier.bias": state["classifier.bias"][:10],
    }
    (tmp_path / "f").write_bytes(save(few))
    with pytest.raises(IntegrityError, match="is of 10 classes; only the 1,000 of ImageNet"):
        bz.import_weights(SMALL, [tmp_path / "f"], output=tmp_path / "out")


def test_makers_without_a_digest_are_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(save(state_of("mobilenetv3_large_100")))
    said: list[str] = []
    name = "mobilenetv3_large_100.ra4_e3600_r224_in1k"
    family = bz.import_weights(name, [tmp_path / "f"], output=tmp_path / "family", say=said.append)
    assert any("publish no digest" in line for line in said)
    assert [s.published and s.published["top1"] for s in family.slices] == [76.31, 77.182]
    assert [s.name[-4:] for s in family.slices] == ["-224", "-256"]
