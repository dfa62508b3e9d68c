"""``curves``: what a run has logged, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bignas_zoo.cli.main import main
from bignas_zoo.data import __path__ as data_path
from bignas_zoo.errors import IntegrityError, NotFoundError
from bignas_zoo.hub_cards.curves import Evaluation, plot_curves, read_curves

SHIPPED = Path(data_path[0]) / "families" / "bignas-cifar10"
#: The steps of the training that made the shipped family, from its recipe.
STEPS: int = json.loads((SHIPPED / "family.json").read_text())["training"]["recipe"]["steps"]


def point(step: int, phase: str = "sandwich") -> dict[str, Any]:
    return {
        "step": step, "seconds": 1.0, "learning_rate": 0.1, "images_per_second": 300.0, "phase": phase,
        "loss": 4 - step / 100, "biggest": 1.0, "accuracy": 0.5,
    }  # fmt: skip


def evaluation(step: int, smallest: float, biggest: float) -> dict[str, Any]:
    return {"step": step, "evaluation": {"smallest": smallest, "biggest": biggest}}


RECORDS = [
    point(20, "biggest"),
    point(40, "biggest"),
    evaluation(50, 10.0, 60.5),
    point(60),
    evaluation(100, 30.0, 70.25),
    evaluation(150, 40.0, 70.25),
    point(160),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    (folder / "recipe.json").write_text(json.dumps({"name": "mine", "steps": 200}))
    return folder


def test_what_is_read(run: Path) -> None:
    curves = read_curves(run)
    assert (curves.name, curves.steps, curves.sandwich_after) == ("mine", 200, 40)
    assert curves.evaluations == (
        Evaluation(50, 10.0, 60.5), Evaluation(100, 30.0, 70.25), Evaluation(150, 40.0, 70.25),
    )  # fmt: skip
    assert curves.best == Evaluation(100, 30.0, 70.25)  # the first of equals, as for checkpoints
    assert [p.step for p in curves.points] == [20, 40, 60, 160]


def test_the_table(run: Path) -> None:
    result = CliRunner().invoke(main, ["curves", str(run)])
    assert result.exit_code == 0
    assert result.stdout == (
        "step  smallest %  biggest %\n"
        "  50       10.00      60.50\n"
        " 100       30.00      70.25  best\n"
        " 150       40.00      70.25\n"
        "\nstep 160 of 200 (sandwich): loss 2.400, learning rate 0.1, 300 images/s\n"
    )
    assert result.stderr == f"Draw it: bignas-zoo curves {run} --output curves.png\n"
    (run / "tensorboard").mkdir()
    assert f"tensorboard --logdir {run}/tensorboard" in CliRunner().invoke(main, ["curves", str(run)]).stderr


def test_the_json(run: Path) -> None:
    data = json.loads(CliRunner().invoke(main, ["curves", str(run), "--json"]).stdout)
    training = {"step": 20, "phase": "biggest", "loss": 3.8, "learning_rate": 0.1, "images_per_second": 300.0}
    assert data.pop("training")[0] == training
    assert data.pop("evaluations")[0] == {"step": 50, "smallest": 10.0, "biggest": 60.5}
    assert data == {
        "schema": "bignas-zoo/curves/1",
        "name": "mine",
        "steps": 200,
        "best": {"step": 100, "smallest": 30.0, "biggest": 70.25},
        "plot": None,
    }


def test_a_run_that_has_only_begun(run: Path) -> None:
    (run / "metrics.jsonl").write_text(json.dumps(point(20)) + "\n" + '{"step": 40, "lo')
    (run / "recipe.json").unlink()
    result = CliRunner().invoke(main, ["curves", str(run)])
    assert result.stdout.startswith("no evaluation yet\n\nstep 20 (sandwich): loss 3.800")
    (run / "metrics.jsonl").write_text(json.dumps(evaluation(7, 1.0, 2.0)) + "\n" + '{"step": 8, "evaluation": {}}\n')
    assert "   7        1.00       2.00  best\n" in CliRunner().invoke(main, ["curves", str(run)]).stdout


@pytest.mark.parametrize("only", ["points", "evaluations", "both"])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture(run: Path, tmp_path: Path, suffix: str, only: str) -> None:
    pytest.importorskip("matplotlib")
    kept = [r for r in RECORDS if only == "both" or ("evaluation" in r) == (only == "evaluations")]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    path = tmp_path / f"curves{suffix}"
    result = CliRunner().invoke(main, ["curves", str(run), "--output", str(path)])
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"drawn: {path}\n")
    if suffix == ".png":
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        return
    text = path.read_text()
    words = {
        "points": ["training loss", "learning rate", "sandwich rule"],
        "evaluations": ["biggest child, held-out top-1", "smallest child, held-out top-1", ">70.2<", ">40.0<"],
    }
    for word in [w for key, group in words.items() if only in (key, "both") for w in group]:
        assert word in text
    assert ("mine: learning curves, 160 of 200 steps" in text) == (only != "evaluations")


def test_the_picture_of_the_shipped_family_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves = read_curves(SHIPPED)
    for name in ("a.svg", "b.svg"):
        plot_curves(curves, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    steps = f"{STEPS:,}"
    assert f"bignas-cifar10: learning curves, {steps} of {steps} steps" in (tmp_path / "a.svg").read_text()


def test_without_matplotlib_the_error_names_the_extra(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(main, ["curves", str(run), "--output", "x.png"])
    assert result.exit_code == 2
    assert 'pip install "bignas-zoo[plots]"' in result.stderr
    assert CliRunner().invoke(main, ["curves", str(run)]).exit_code == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no metrics.jsonl in it. Name a folder that `bignas-zoo train` writes to"),
        ("", "nothing logged yet"),
        ('{"step": 20}\n', "nothing logged yet"),
    ],
)
def test_a_folder_without_a_log(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(NotFoundError, match=says):
        read_curves(tmp_path)
    with pytest.raises(NotFoundError, match="no such folder. Name a folder"):
        read_curves(tmp_path / "absent")


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"null", b'"x"', b"\xff", b'{"step": "x"}', b'{"step": 1, "loss": 2.0}',
     b'{"step": 1, "evaluation": 3}', b'{"step": 1, "evaluation": {"biggest": 3}}'],
)  # fmt: skip
def test_a_damaged_line_is_named(run: Path, line: bytes) -> None:
    (run / "metrics.jsonl").write_bytes(json.dumps(point(20)).encode() + b"\n" + line + b"\n")
    with pytest.raises(IntegrityError, match=r"metrics.jsonl: line 2 is damaged .*Delete that line"):
        read_curves(run)


def test_a_familys_log_must_be_the_recorded_one(tmp_path: Path) -> None:
    for name in ("family.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    assert read_curves(tmp_path).steps == STEPS
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(IntegrityError, match="damaged or replaced"):
        read_curves(tmp_path)
    (tmp_path / "family.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"family.json: not as this version writes it"):
        read_curves(tmp_path)
