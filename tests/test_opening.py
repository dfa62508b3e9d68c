"""What a user names, a slice, a folder or an address of the Hub, means the same to every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TINY
from hub_fixtures import REPO, push
from hub_fixtures import hub as hub
from hub_fixtures import slice_folder as slice_folder
from hub_fixtures import stand_ins as stand_ins
from hub_fixtures import tiny_bundle as tiny_bundle
from hub_server import HubServer
from latency_tables import table_of, time_of

import bignas_zoo as bz
from bignas_zoo.architecture.plan import plan
from bignas_zoo.cli.main import main
from bignas_zoo.errors import NotFoundError
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.latency import BlockKey, write_table
from bignas_zoo.tasks.bundle import source
from bignas_zoo.tasks.opening import SliceFolder, open_named, open_slice
from bignas_zoo.zoo.family import Family

LONG = "a" * 300


def test_a_folder_goes_before_a_slice_of_its_name(
    slice_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bignas-cifar10-s").symlink_to(slice_folder)
    monkeypatch.chdir(tmp_path)
    opened = open_slice("bignas-cifar10-s")
    assert isinstance(opened.home, SliceFolder)
    assert (opened.slice.name, opened.home.class_names) == ("tiny-s", ("a", "b", "c", "d", "e"))
    named = open_named("bignas-cifar10-s")  # what `get` takes: it may have made that folder itself
    assert isinstance(named.home, Family)
    assert named.slice.name == "bignas-cifar10-s"


@pytest.mark.parametrize(
    "command",
    [
        ["show", LONG],
        ["get", LONG],
        ["latency", LONG, "--device", "xeon-6130-pytorch"],
        ["evaluate", LONG, "--data", "."],
        ["export", LONG],
        ["bench", LONG],
        ["card", LONG],
        ["finetune", LONG, "--data", "."],
        ["verify", LONG],
    ],
    ids=lambda command: str(command[0]),
)
def test_a_name_that_no_file_system_takes_is_not_found(command: list[str]) -> None:
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("Error: ")


def test_so_it_is_for_those_who_push_and_load(hub: HubServer) -> None:
    for call in (lambda: bz.push(LONG, REPO), lambda: bz.load(LONG), lambda: source(LONG).__enter__()):
        with pytest.raises(NotFoundError, match="not known"):
            call()


def test_get_of_the_hub_shows_the_prediction_that_it_checked(
    hub: HubServer, tiny_bundle: Bundle, slice_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(tiny_bundle)
    monkeypatch.setenv("BIGNAS_ZOO_DEVICES", str(tmp_path))
    write_table(tmp_path / "phone.json", table_of(TINY, overhead_ms=2.0))
    expected = 2.0 + sum(time_of(BlockKey.of(block)) for block in plan(tiny_bundle.slice.spec))
    command = ["get", f"hf://{REPO}", "--budget", f"{2 * expected:.3f}ms@phone", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*command, "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["latency"]
    assert row["predicted_ms"] == pytest.approx(expected, abs=1e-3)
    assert json.loads((tmp_path / "out" / "slice.json").read_text())["latency"] == [row]
    assert "on phone" in CliRunner().invoke(main, command).stdout

    plain = bz.get(f"hf://{REPO}", output=tmp_path / "plain")
    assert plain.latency is None
    assert (tmp_path / "plain" / "slice.json").read_bytes() == tiny_bundle.files["slice.json"].read_bytes()
