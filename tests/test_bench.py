"""Measurements of exported files: their structure and errors. No test asserts how fast anything is."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_runner import channel_means, mean_node, onnx_model, put

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import UsageError
from bignas_zoo.runtime import bench as module
from bignas_zoo.runtime.bench import BenchFile, Spread, bench
from bignas_zoo.runtime.runner import LoadedFile, Timings

RUNS = ["--runs", "4", "--warmup", "1"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    return (
        put(folder, channel_means(), "a.tflite"),
        put(folder, onnx_model([mean_node()]).SerializeToString(), "b.onnx"),
    )


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: object, code: int, says: str) -> None:
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert result.exit_code == code, result.stderr
    assert says in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_json_has_the_figures_of_each_file_and_number_of_threads(files: tuple[Path, Path]) -> None:
    data = json.loads(invoke(*files, "--json", *RUNS, "--threads", "1,2", "--batch", 1))
    assert data["schema"] == "bignas-zoo/bench/1"
    assert list(data)[1:] == ["machine", "load", "busy", "versions", "results"]
    rows = data["results"]
    found = [(Path(r["file"]).name, r["threads"], r["format"], r["runtime"].split()[0], r["cpu_of"]) for r in rows]
    assert found == [
        ("a.tflite", 1, "tflite", "ai-edge-litert", "thread"),
        ("b.onnx", 1, "onnx", "onnxruntime", "thread"),
        ("a.tflite", 2, "tflite", "ai-edge-litert", "process"),
        ("b.onnx", 2, "onnx", "onnxruntime", "process"),
    ]
    for row in rows:
        assert row["runs"] == 4
        assert row["bytes"] == Path(row["path"]).stat().st_size
        assert row["macs"] is row["ms_per_100_mmacs"] is None
        assert 0 < row["peak_bytes"] < 1 << 30
        for figure in ("wall_ms", "cpu_ms"):
            spread = row[figure]
            rising = [round(spread[key], 9) for key in ("min", "p10", "median", "p90", "max")]  # percentiles are sums
            assert rising[0] > 0
            assert rising == sorted(rising)
        assert row["images_per_second"] == pytest.approx(1000 / row["wall_ms"]["median"])
        first = row["file"].endswith("a.tflite")
        assert (row["wall_ratio"] is None) == (row["cpu_ratio"] is None) == first


def test_the_table_is_for_people(files: tuple[Path, Path]) -> None:
    text = invoke(*files, *RUNS)
    for word in ("a.tflite", "b.onnx", "ms", "p10 to p90", "images/s", "peak MiB", "time of first", "ai-edge-litert"):
        assert word in text
    assert "time of first" not in invoke(files[0], *RUNS)


def test_a_batch_is_for_files_that_take_any_number(files: tuple[Path, Path]) -> None:
    (row,) = json.loads(invoke(files[1], "--json", *RUNS, "--batch", 8))["results"]
    assert row["batch"] == 8
    assert row["images_per_second"] == pytest.approx(8000 / row["wall_ms"]["median"])
    fails(files[0], "--batch", "8", code=2, says="takes 1 images a call, not 8. Leave the batch out.")


def test_a_slice_and_its_folder_have_macs(tiny_family: Path, tmp_path: Path) -> None:
    family = ["--family", str(tiny_family)]
    (row,) = json.loads(invoke("tiny-smallest", *family, "--json", *RUNS))["results"]
    (macs,) = (s.macs for s in bz.list_slices(tiny_family) if s.name == "tiny-smallest")
    assert (row["file"], row["macs"]) == ("tiny-smallest", macs)
    assert row["ms_per_100_mmacs"] == pytest.approx(row["cpu_ms"]["median"] * 1e8 / macs)
    bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "s")
    put(tmp_path / "s", (tmp_path / "s" / "model.tflite").read_bytes(), "a.tflite")
    rows = json.loads(invoke(tmp_path / "s", "--json", *RUNS))["results"]
    assert [(Path(r["file"]).name, r["macs"]) for r in rows] == [("model.tflite", macs), ("a.tflite", macs)]
    (alone,) = json.loads(invoke(tmp_path / "s" / "model.tflite", "--json", *RUNS))["results"]
    assert alone["macs"] == macs
    (tmp_path / "s" / "slice.json").write_text("{}")
    result = CliRunner().invoke(main, ["bench", str(tmp_path / "s" / "a.tflite"), *RUNS])
    assert "MACs are not known" in result.stderr


def test_what_cannot_be_measured_is_one_sentence_and_an_exit_code(files: tuple[Path, Path], tmp_path: Path) -> None:
    whole = files[0].read_bytes()
    (tmp_path / "folder").mkdir()
    for name, data, code, says in (
        ("cut.tflite", whole[:300], 4, "cut.tflite: "),
        ("text.tflite", b"not a model", 4, "neither a TFLite file"),
        ("empty.onnx", b"", 4, "is empty"),
        ("folder", None, 7, "holds no .tflite or .onnx file"),
        ("missing.tflite", None, 7, "No such file"),
    ):
        path = tmp_path / name if data is None else put(tmp_path, data, name)
        fails(path, *RUNS, code=code, says=says)
    fails("bignas-cifar10-z", code=3, says="Did you mean 'bignas-cifar10-")
    fails(files[0], "--threads", "1,x", code=2, says="not a list of numbers from 1 to 1024, such as 1")
    fails(files[0], "--runs", "0", code=2, says="0 is not in the range")
    fails(code=2, says="Missing argument")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"files": []}, "no file to measure"),
        ({"threads": (1, 1)}, r"different whole numbers, got \[1, 1\]"),
        ({"runs": 0}, "runs must be within 1 and 1,000,000, got 0"),
        ({"warmup": -1}, "warmup must be within 0 and"),
        ({"threads": (0,)}, "threads must be within 1 and 1024, got 0"),
    ],
)
def test_wrong_numbers_are_refused(files: tuple[Path, Path], wrong: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bench(**{"files": [BenchFile(files[0], "a")], **wrong})


def test_percentiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).normal(size=37).tolist()
    spread = Spread.of(values)
    expected = [*np.percentile(values, [50, 10, 90]), min(values), max(values)]
    np.testing.assert_allclose([spread.median, spread.p10, spread.p90, spread.least, spread.most], expected)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 2.0, 2.0)


def test_files_take_turns_and_ratios_are_of_a_round(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, opened, done = [], [], []

    def timed(self: LoadedFile, calls: int, *, warmup: int = 0, batch: int | None = None) -> Timings:
        """Take longer from round to round, the second file always three times as long."""
        asked.append((self.path.name, calls, warmup))
        each = len(asked) // 2 * (3 if self.path.name == "b.onnx" else 1) * 1_000_000
        return Timings(*[(each,) * calls] * 3)

    def load(path: Path, **options: object) -> LoadedFile:
        opened.append(options)
        return LoadedFile(path, **options)

    monkeypatch.setattr(LoadedFile, "time", timed)
    monkeypatch.setattr(module, "LoadedFile", load)
    monkeypatch.setattr(module.random.Random, "sample", lambda self, things, k: list(things))
    report = bench(
        [BenchFile(files[0], "a", 200_000_000), BenchFile(files[1], "b")], threads=(2,), runs=50, warmup=7,
        report=lambda *numbers: done.append(numbers),
    )  # fmt: skip
    assert [o["threads"] for o in opened] == [2, 2]
    assert asked[:2] == [("a.tflite", 1, 6), ("b.onnx", 1, 6)]
    assert [name for name, *_ in asked[2:]] == ["a.tflite", "b.onnx"] * 20
    assert sum(calls for name, calls, _ in asked[2:] if name == "b.onnx") == 50
    assert {warm for *_, warm in asked[2:]} == {1}
    assert done == [(n, 20) for n in range(1, 21)]
    first, second = report.rows
    assert (first.wall_ratio, second.runs, second.threads) == (None, 50, 2)
    assert second.wall_ratio is not None
    rounds = range(1, 21)  # b is asked after a, when one more has been asked: (n + 1) * 3 / n
    assert second.wall_ratio.median == pytest.approx(statistics.median(3 * ((2 * n + 2) // 2) / n for n in rounds), 0.1)
    assert first.ms_per_100_mmacs == pytest.approx(first.wall_ms.median / 2)


def test_runs_fit_the_time_there_is(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for milliseconds, expected in ((1000, 20), (10, 150), (0.001, 1000)):
        each = int(milliseconds * 1e6)
        monkeypatch.setattr(LoadedFile, "time", lambda self, calls, each=each, **_: Timings(*[(each,) * calls] * 3))
        assert bench([BenchFile(files[0], "a")]).rows[0].runs == expected


def test_a_busy_machine_is_told(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for load, busy in ((1000.0, True), (0.0, False)):
        monkeypatch.setattr(module.os, "getloadavg", lambda load=load: (load, 0, 0))
        result = CliRunner().invoke(main, ["bench", str(files[1]), *RUNS])
        assert ("the machine is busy (load 1000.0 on" in result.stderr) == busy


def test_help_loads_no_numpy() -> None:
    code = (
        "import atexit, sys; sys.argv = ['bignas-zoo', 'bench', '--help']\n"
        "atexit.register(lambda: sys.stderr.write(str({'numpy', 'tensorflow', 'keras'} & {*sys.modules})))\n"
        "from bignas_zoo.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "--threads" in done.stdout
    assert done.stderr == "set()"
