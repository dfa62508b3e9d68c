"""What the TPU compiler says of a step: the arithmetic of the report, errors, and a real compilation."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from engine_parity import make_recipe

from bignas_zoo.cli.main import main
from bignas_zoo.errors import BigNASError, UsageError
from bignas_zoo.recipes.recipe import Recipe, find_recipe, read_recipe
from bignas_zoo.recipes.tpu import compiler
from bignas_zoo.recipes.tpu.compiler import ANSWER, ENVIRONMENT, compile_only
from bignas_zoo.recipes.tpu.report import PAPER_HOURS, PAPER_STEP_SECONDS, CompileReport, Program

GIB = 2**30
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install 'bignas-zoo[tpu]'"
)


class Compiled:
    """What JAX's executables answer, with round numbers."""

    def memory_analysis(self) -> Any:
        return SimpleNamespace(
            temp_size_in_bytes=3 * GIB,
            argument_size_in_bytes=GIB,
            output_size_in_bytes=GIB,
            alias_size_in_bytes=GIB // 2,
        )

    def cost_analysis(self) -> dict[str, float]:
        return {"flops": 2e12, "bytes accessed": 10.0 * GIB, "optimal_seconds": 0.05, "utilization": 1.0}

    def as_text(self) -> str:
        inner, one, two = (f'  %x = f32[] add(), backend_config={{"estimated_cycles":"{n}"}}' for n in (9, 1000, 234))
        return (
            f"HloModule m\n\n%fused (p: f32[]) -> f32[] {{\n{inner}\n}}\n\nENTRY %main () -> f32[] {{\n{one}\n{two}\n}}"
        )


def report(*programs: Program) -> CompileReport:
    return CompileReport(
        "r", "v3:8x8", "TPU v3", 128, 4096, 36_000, 16 * GIB, GIB // 4, programs, 60.0, 100.0, {"jax": "0"}
    )


def test_a_program_is_read_from_what_the_compiler_says() -> None:
    program = Program.of("child 1", Compiled(), 7.0)
    assert (program.temporary_bytes, program.argument_bytes, program.output_bytes) == (3 * GIB, GIB, GIB // 2)
    assert (program.flops, program.bytes_accessed, program.estimated_seconds) == (2e12, 10 * GIB, 0.05)
    assert program.memory_bytes == 4.5 * GIB
    assert program.estimated_cycles == 1234  # operations as scheduled, not what is fused into them
    assert program.compile_seconds == 7.0


def test_where_the_compiler_gives_no_seconds_the_published_peaks_do() -> None:
    # 10 GiB at 819 GB/s are 13.11 ms; 2 TFLOP at 197 TFLOP/s 10.15 ms. v6e: 6.71 ms at 1,600 GB/s.
    found = Program.of("child 1", Compiled(), 7.0, "TPU v5 lite")
    assert found.estimated_seconds == pytest.approx(0.01311, rel=1e-3)
    assert Program.of("child 1", Compiled(), 7.0, "TPU v6 lite").estimated_seconds == pytest.approx(0.00671, rel=1e-3)
    rows = {what.strip(): note for what, _, note in dataclasses.replace(report(found), device="TPU v5 lite").table()}
    assert "published peaks" in rows["time a step"]
    unknown = dataclasses.replace(found, estimated_seconds=None)
    assert report(unknown, found).estimated_seconds is None
    assert report(unknown).estimated_hours is None
    rows = {what.strip(): value for what, value, _ in report(unknown).table()}
    assert (rows["time a step"], rows["all steps"]) == ("unknown", "unknown")


def test_programs_run_one_after_the_other() -> None:
    # So times add up and memory is that of the hungriest; the optimizer's state waits while children run.
    child = Program.of("child 1", Compiled(), 7.0)
    optimizer = dataclasses.replace(child, name="optimizer", temporary_bytes=0, estimated_seconds=0.01)
    found = report(child, child, optimizer)
    assert found.estimated_seconds == pytest.approx(0.11)
    assert found.estimated_hours == pytest.approx(1.1)  # 36,000 steps are ten hours at a second each
    assert found.memory_bytes == 4.75 * GIB
    assert found.temporary_bytes == 3 * GIB
    assert found.flops == 6e12
    assert found.estimated_cycles == 3 * 1234
    assert found.bytes_accessed == 30 * GIB


def test_report_goes_to_json_and_back_and_marks_estimates() -> None:
    found = report(Program.of("child 1", Compiled(), 7.0))
    data = json.loads(json.dumps(found.to_json()))
    assert data["paper"] == {"hours": 36.0, "seconds_per_step": 1.1, "topology": "v3:8x8"}
    assert data["images_per_core"] == 32
    assert "estimate" in data["estimates_are"]
    fields = {f.name for f in dataclasses.fields(CompileReport)}
    assert CompileReport.from_json({k: v for k, v in data.items() if k in fields}) == found
    rows = {what.strip(): (value, note) for what, value, note in found.table()}
    assert rows["memory a core"][0] == "4.75 GiB"
    assert rows["memory a core"][1].startswith("of 16.00 GiB; ")
    assert rows["time a step"] == ("0.0500 s", "the compiler's estimate, not a measurement; the paper: about 1.1 s")
    assert "estimate" in rows["all steps"][1]
    assert "36 h" in rows["all steps"][1]


def test_report_says_when_memory_is_short() -> None:
    big = dataclasses.replace(Program.of("child 1", Compiled(), 7.0), temporary_bytes=20 * GIB)
    assert any("DOES NOT FIT" in note for _, _, note in report(big).table())


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = read_recipe(find_recipe("imagenet_tpu.yaml"))
    assert (recipe.batch_size, recipe.learning_rate, recipe.dropout, recipe.weight_decay) == (4096, 0.256, 0.2, 1e-5)
    assert (recipe.decay, recipe.decay_rate, recipe.decay_every, recipe.ending) == ("staircase", 0.97, 751, 0.05)
    assert (recipe.engine, recipe.precision, recipe.augment) == ("jax", "bfloat16", "autoaugment")
    assert recipe.search_space.resolutions == (192, 224, 288, 320)
    assert round(recipe.steps * PAPER_STEP_SECONDS / 3600) == PAPER_HOURS


def test_without_libtpu_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "libtpu" else real(n, *a))
    with pytest.raises(UsageError, match=r"libtpu is not installed: pip install 'bignas-zoo\[tpu\]'"):
        compile_only(make_recipe(), "v3:8x8")


@pytest.mark.parametrize("topology", ["v3:0x0", "v3", "v3:8", "v3:8x-8", "v3:8x8x8x8", "", "v3:8x8 "])
def test_what_is_no_topology_never_meets_the_compiler(topology: str) -> None:
    with pytest.raises(UsageError, match=r"no such topology\. Examples: v3:8x8"):
        compile_only(make_recipe(), topology)


def test_a_dead_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: object())
    monkeypatch.setattr(compiler.sys, "executable", "false")
    with pytest.raises(BigNASError, match=r"--compile-only v3:8x8: the TPU compiler ended with exit code 1\."):
        compile_only(make_recipe(), "v3:8x8", every=0.1)


def test_train_wants_data_unless_it_only_compiles() -> None:
    done = CliRunner().invoke(main, ["train", "cifar10_cpu"])
    assert done.exit_code == 2
    assert "Missing option '--data' (only --compile-only does without)" in done.stderr


def test_cli_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(recipe: Recipe, topology: str, told: Any) -> CompileReport:
        assert (recipe.name, topology) == ("bignas-imagenet-tpu", "v3:8x8")
        told(31.0)
        return report(Program.of("child 1", Compiled(), 7.0))

    monkeypatch.setattr(compiler, "compile_only", fake)
    command = ["train", "imagenet_tpu.yaml", "--compile-only", "v3:8x8"]
    table = CliRunner().invoke(main, command)
    assert table.exit_code == 0, table.output
    assert "4.75 GiB" in table.stdout
    assert "compiling for v3:8x8: 31 s" in table.stderr
    data = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert data["schema"] == "bignas-zoo/compile/1"
    assert data["estimated_seconds"] == 0.05


@needs_libtpu
@pytest.mark.slow
def test_wrong_topologies_and_batches_are_refused() -> None:
    recipe = read_recipe(find_recipe("cifar10_cpu"))
    with pytest.raises(UsageError, match=r"--compile-only v9:8x8: .* no such topology .*Examples: v3:8x8"):
        compile_only(recipe, "v9:8x8")
    with pytest.raises(UsageError, match="batch_size 130 does not divide by the 4 cores of v5e:2x2"):
        compile_only(dataclasses.replace(recipe, batch_size=130), "v5e:2x2")


SCRIPT = """
import dataclasses, json
from engine_parity import make_recipe, small_space
from bignas_zoo.architecture import spaces
from bignas_zoo.recipes.tpu.compiler import ANSWER, compile_here
spaces.SPACES["stage"] = dataclasses.replace(small_space(), name="stage", stages=small_space().stages[1:])
recipe = make_recipe(space="stage", random_children=1, precision="bfloat16", crop_padding=0)
print(ANSWER + json.dumps(dataclasses.asdict(compile_here(recipe, "v5e:2x2"))))
"""


@needs_libtpu
@pytest.mark.slow
def test_a_small_space_compiles_for_a_tpu() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parent, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=1200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith(ANSWER))
    found = CompileReport.from_json(json.loads(line.removeprefix(ANSWER)))
    assert [p.name for p in found.programs] == ["child 1", "child 2", "child 3", "optimizer"]
    assert (found.device, found.cores, found.hbm_bytes) == ("TPU v5 lite", 4, 16 * GIB)
    assert 0 < found.memory_bytes < GIB
    assert found.flops > 0
    assert 0 < found.estimated_seconds < 1
