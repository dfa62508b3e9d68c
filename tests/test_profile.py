"""Profiling a device: workload, log, fit, on times made by hand; a phone's answers as recorded; a real run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import TINY
from latency_tables import PHONE, time_of

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform, uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import SPACES
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.errors import BigNASError, IntegrityError, LocalIOError, UsageError
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, predict
from bignas_zoo.latency.coverage import coverage, space_blocks, thinned_blocks
from bignas_zoo.latency.profiling import adb
from bignas_zoo.latency.profiling.profile import GROUP, PASSES, TRIES, profile
from bignas_zoo.latency.profiling.workload import Workload

FLOOR_MS, OVERHEAD, SCALE = 0.5, 3.0, 1.25


class Written:
    """Writes what a file would take into it."""

    def make(self, parts: Sequence[tuple[Block | ChildSpec, Path]]) -> None:
        for part, path in parts:
            if isinstance(part, Block):
                taken = FLOOR_MS + time_of(BlockKey.of(part))
            else:
                taken = OVERHEAD + SCALE * sum(time_of(BlockKey.of(b)) for b in plan(part))
            path.write_text(str(taken))

    def floor(self, path: Path) -> None:
        path.write_text(str(FLOOR_MS))


class Clock:
    """Reads it; a busy machine takes `factors` times as long in its groups, and stops when they are used up."""

    def __init__(self, factors: Sequence[float] = (1.0,) * 1000) -> None:
        self.factors, self.groups = list(factors), 0

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        if self.groups == len(self.factors):
            raise KeyboardInterrupt
        factor = self.factors[self.groups]
        self.groups += 1
        return [Measurement(factor * float(f.read_text()), 0.0, 5) for f in files]


WORKLOAD = Workload(TINY, most_blocks=10_000, fit=10, networks=20)
FILES = len(WORKLOAD.blocks()) + 30
GROUPS = PASSES * -(-FILES // GROUP)


def measured(folder: Path, clock: Clock, workload: Workload = WORKLOAD) -> DeviceTable:
    return profile(workload, "phone", PHONE, folder, meter=clock, builder=Written())


def test_overhead_and_scale_are_found_and_checked(tmp_path: Path) -> None:
    table = measured(tmp_path, Clock())
    assert table.overhead_ms == pytest.approx(OVERHEAD)
    assert table.scale == pytest.approx(SCALE)
    assert set(table.rows) == set(WORKLOAD.blocks())
    for key, row in table.rows.items():
        assert row.mean_ms == pytest.approx(time_of(key))
    assert table.validation is not None
    assert table.validation.networks == 20
    assert table.validation.worst < 1e-9
    for number in range(20):
        child = uniform_child(TINY, ("other", number))
        exact = OVERHEAD + SCALE * sum(time_of(BlockKey.of(b)) for b in plan(child))
        assert predict(table, child).latency_ms == pytest.approx(exact)


def test_a_machine_that_grows_slower_is_noticed_by_the_anchor(tmp_path: Path) -> None:
    clock = Clock([1.0] * (GROUPS - 4) + [2.0] * 4 * TRIES)
    table = measured(tmp_path, clock)
    assert clock.groups == GROUPS + 4 * (TRIES - 1)
    assert table.overhead_ms == pytest.approx(OVERHEAD)
    assert table.scale == pytest.approx(SCALE)
    assert table.validation is not None
    assert table.validation.worst < 1e-9


def test_a_group_that_was_slow_is_measured_again(tmp_path: Path) -> None:
    clock = Clock([1.0, 1.0, 1.5, 1.02, 1.4, 1.2, 1.1, *[1.0] * (GROUPS - 4)])
    measured(tmp_path, clock)
    assert clock.groups == len(clock.factors)
    entries = [json.loads(line) for line in (tmp_path / "phone.log.jsonl").read_text().splitlines()[1:]]
    floors = {entry["group"]: entry["floor"] / FLOOR_MS for entry in entries}
    assert list(floors.values()) == pytest.approx([1.0, 1.0, 1.02, 1.1, *[1.0] * (GROUPS - 4)])


def test_every_file_is_measured_twice_among_others(tmp_path: Path) -> None:
    measured(tmp_path, Clock())
    entries = [json.loads(line) for line in (tmp_path / "phone.log.jsonl").read_text().splitlines()[1:]]
    groups: dict[str, list[int]] = {}
    for entry in entries:
        groups.setdefault(entry["name"], []).append(entry["group"])
    assert len(groups) == FILES
    assert {len(found) for found in groups.values()} == {2}
    neighbours = [{n for n in groups if g in groups[n]} - {name} for name, found in groups.items() for g in found]
    assert sum(not first & second for first, second in zip(neighbours[::2], neighbours[1::2], strict=True)) > FILES / 2


def test_a_file_whose_times_differ_is_measured_a_third_time(tmp_path: Path) -> None:
    class Disturbed(Clock):
        """Measures one file 20 % too slow the first time."""

        def measure(self, files: Sequence[Path]) -> list[Measurement]:
            found = super().measure(files)
            if self.groups == 2:
                found[4] = dataclasses.replace(found[4], mean_ms=1.2 * found[4].mean_ms)
            return found

    clock = Disturbed()
    table = measured(tmp_path, clock)
    assert clock.groups == GROUPS + 1
    entries = [json.loads(line)["name"] for line in (tmp_path / "phone.log.jsonl").read_text().splitlines()[1:]]
    assert len(entries) == PASSES * FILES + 1
    assert entries.count(entries[-1]) == 3
    for key, row in table.rows.items():
        assert row.mean_ms == pytest.approx(time_of(key))
    assert table.validation is not None
    assert table.validation.worst < 1e-9


def test_an_anchor_that_is_wrong_is_outvoted_by_the_other_files(tmp_path: Path) -> None:
    class Unsteady(Clock):
        """Measures the first file of a group, the anchor, up to 1 % wrong."""

        def measure(self, files: Sequence[Path]) -> list[Measurement]:
            anchor, *others = super().measure(files)
            wrong = 1 + 0.01 * uniform(("wrong", self.groups))
            return [dataclasses.replace(anchor, mean_ms=anchor.mean_ms * wrong), *others]

    table = measured(tmp_path, Unsteady())
    assert table.validation is not None
    assert table.validation.worst < 1e-3


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, Clock([1.0] * 3))
    log = tmp_path / "phone.log.jsonl"
    assert len(log.read_text().splitlines()) == 1 + 3 * GROUP  # header, three groups
    with log.open("a") as file:
        file.write('{"name": "block [')  # killed while it wrote
    clock = Clock()
    assert measured(tmp_path, clock).scale == pytest.approx(SCALE)
    assert clock.groups == GROUPS - 3
    again = Clock([])
    assert measured(tmp_path, again).scale == pytest.approx(SCALE)
    assert again.groups == 0
    assert {p.name for p in tmp_path.iterdir()} == {"phone.log.jsonl"}


def test_a_log_of_another_protocol_is_never_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, Clock([1.0]))
    other = dataclasses.replace(PHONE, precision="int8")
    with pytest.raises(UsageError, match="another protocol; times of another protocol are never mixed"):
        profile(WORKLOAD, "phone", other, tmp_path, meter=Clock(), builder=Written())
    later = dataclasses.replace(PHONE, date="2030-01-01")
    assert profile(WORKLOAD, "phone", later, tmp_path, meter=Clock(), builder=Written()).scale == pytest.approx(SCALE)


@pytest.mark.parametrize("content", ["", "null\n", "{}\n", "[\n", '{"protocol": {}}\n{"name": "x"}\n'])
def test_a_damaged_log_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "phone.log.jsonl").write_text(content)
    with pytest.raises((IntegrityError, UsageError)):
        measured(tmp_path, Clock())


@pytest.mark.parametrize(("key", "value"), [("anchor", 0), ("ms", -1), ("floor", float("nan")), ("std", "1")])
def test_times_that_cannot_be_are_refused(key: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, Clock([1.0]))
    log = tmp_path / "phone.log.jsonl"
    *lines, last = log.read_text().splitlines()
    log.write_text("\n".join([*lines, json.dumps({**json.loads(last), key: value})]) + "\n")
    with pytest.raises(IntegrityError, match=f"not a log of `profile` .{key} must be a number"):
        measured(tmp_path, Clock())


def test_fit_and_check_have_different_networks() -> None:
    children = WORKLOAD.children()
    assert len(set(children)) == len(children) == 30
    assert Workload(TINY, fit=10, networks=20, seed=1).children() != children


def test_few_blocks_are_measured_and_the_rest_lies_between() -> None:
    bignas = SPACES["bignas"]
    every = space_blocks(bignas)
    for most, fewer in ((300, 300), (900, 900)):
        chosen = thinned_blocks(bignas, most)
        assert len(chosen) <= fewer < len(every)
        table = DeviceTable("x", PHONE, {key: Measurement(time_of(key)) for key in chosen})
        assert coverage(table, every).missing == 0
        unseen = space_blocks(bignas, bignas.unseen_resolutions)
        assert coverage(table, unseen).missing == 0
    assert set(every) <= set(thinned_blocks(bignas, 10_000))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_space_can_be_profiled_in_some_hundred_files(name: str) -> None:
    chosen = thinned_blocks(SPACES[name], 300)
    table = DeviceTable("x", PHONE, {key: Measurement(1.0) for key in chosen})
    assert coverage(table, space_blocks(SPACES[name])).missing == 0
    assert len(chosen) < 500


# What benchmark_model printed on machines of others: tensorflow/tensorflow issue 42507 and google/XNNPACK issue 999
# (2020), and a version of 2019 (yuenshome/yuenshome.github.io issue 77).
PRINTED = """Loaded model /data/local/tmp/espcn_harmonic_2x_slim_w_cl.tflite
Initialized session in 0.855ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, Inference (avg): 33209.4
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual
"""
XNNPACK = """INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
Initialized session in 18.777ms.
count=9 first=64791 curr=56295 min=54873 max=65831 avg=57758.2 std=4065

count=50 first=58154 curr=53809 min=53077 max=60727 avg=55043.2 std=1562
"""
OLD = """Running benchmark for at least 4 iterations and at least 0.5 seconds
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

Running benchmark for at least 10 iterations and at least 1 seconds
count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""


@pytest.mark.parametrize(
    ("output", "ms", "std", "count"),
    [(PRINTED, 33.2094, 0.45, 50), (XNNPACK, 55.0432, 1.562, 50), (OLD, 66.7676, 0.039, 15)],
)
def test_recorded_output_of_benchmark_model_is_read(output: str, ms: float, std: float, count: int) -> None:
    assert adb.parse(output) == Measurement(pytest.approx(ms), pytest.approx(std), count)


@pytest.mark.parametrize("output", ["", "ERROR: Failed to load model\n", "count=3 min=1 max=2 avg=e std=+", "count=x"])
def test_output_without_timings_is_an_error(output: str) -> None:
    with pytest.raises(BigNASError, match="benchmark_model printed no"):
        adb.parse(output)


def test_commands_for_a_phone() -> None:
    assert adb.push_command("R58M:5555", Path("/tmp/x/0.tflite")) == [
        "adb", "-s", "R58M:5555", "push", "/tmp/x/0.tflite", "/data/local/tmp/bignas-zoo/0.tflite",
    ]  # fmt: skip
    assert adb.benchmark_command("R58M", "0.tflite", threads=2, runs=50, cores="f0") == [
        "adb", "-s", "R58M", "shell",
        "taskset f0 /data/local/tmp/benchmark_model --graph=/data/local/tmp/bignas-zoo/0.tflite --num_threads=2 "
        "--num_runs=50 --warmup_runs=3 --use_xnnpack=true",
    ]  # fmt: skip
    for serial in ("", "-x", "a b", "x;reboot", "$(x)"):
        with pytest.raises(UsageError, match="no serial number"):
            adb.benchmark_command(serial, "0.tflite", threads=1, runs=1)
    with pytest.raises(UsageError, match="hexadecimal mask"):
        adb.benchmark_command("x", "0.tflite", threads=1, runs=1, cores="f0;reboot")
    quoted = adb.benchmark_command("x", "a b;c.tflite", threads=1, runs=1)[-1]
    assert "'--graph=/data/local/tmp/bignas-zoo/a b;c.tflite'" in quoted  # the phone's shell reads it as one word


def test_adb_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="adb: not found"):
        adb.run(["adb", "devices"])
    fake = tmp_path / "adb"
    fake.write_text("#!/bin/sh\necho \"adb: device 'x' not found\" >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(LocalIOError, match="device 'x' not found"):
        adb.run(["adb", "-s", "x", "shell", "true"])


def test_a_phone_is_measured_through_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bignas_zoo.latency.profiling.files import AdbMeter

    calls = tmp_path / "calls"
    (tmp_path / "printed").write_text(PRINTED)
    fake = tmp_path / "adb"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *num_runs*) /bin/cat {tmp_path}/printed;; esac\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = AdbMeter("R58M", threads=4).measure([tmp_path / "0.tflite", tmp_path / "1.tflite"])
    assert [m.mean_ms for m in found] == [pytest.approx(33.2094)] * 2
    lines = calls.read_text().splitlines()
    assert len(lines) == 5
    assert "push" in lines[1]
    assert "--num_threads=4" in lines[2]


#: A space of six blocks and two children.
ONE = SearchSpace(
    name="one",
    source="tests",
    classes=3,
    resolutions=(16, 24),
    stem_widths=(8,),
    stem_stride=2,
    stages=(StageSpace(widths=(16,), depths=(2,), kernels=(3,), stride=2, expansions=(2,)),),
    head_widths=(32,),
)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_real_files_are_made_and_measured(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bignas_zoo.latency.profiling.files import LocalMeter, TFLiteBuilder

    monkeypatch.setattr("bignas_zoo.latency.profiling.profile.TRIES", 1)
    meter = LocalMeter(rounds=2)
    workload = Workload(ONE, fit=1, networks=1)
    table = profile(
        workload, "here", meter.protocol(precision), tmp_path, meter=meter, builder=TFLiteBuilder(ONE, precision)
    )  # fmt: skip
    assert {key.kind for key in table.rows} == {"stem", "mbconv", "head", "classifier"}
    assert all(0 <= row.mean_ms < 1000 for row in table.rows.values())
    assert sum(row.mean_ms for row in table.rows.values()) > 0
    assert table.protocol.precision == precision
    assert table.validation is not None
    assert table.validation.networks == 1


@pytest.mark.slow
def test_profile_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from bignas_zoo.architecture import spaces
    from bignas_zoo.cli.main import main
    from bignas_zoo.latency import find_device

    monkeypatch.setitem(spaces.SPACES, "one", ONE)
    monkeypatch.setattr("bignas_zoo.latency.profiling.profile.TRIES", 1)
    monkeypatch.setenv("BIGNAS_ZOO_DEVICES", str(tmp_path / "devices"))
    arguments = ["profile", "here", "--space", "one", "--fit", "1", "--networks", "1", "--rounds", "2"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "MAPE on 1 networks" in result.stdout
    assert find_device("here").protocol.time == "thread_cpu"
    names = {p.name for p in (tmp_path / "devices").iterdir()}
    assert names == {"here.json", "here.log.jsonl", "here.lock", "here.png", "here.svg"}
    header = json.loads((tmp_path / "devices" / "here.log.jsonl").read_text().splitlines()[0])
    assert header["schema"] == "bignas-zoo/profile-log/2"
    assert CliRunner().invoke(main, ["profile", "../x", "--space", "one"]).exit_code == 2
    assert CliRunner().invoke(main, ["profile", "x", "--space", "none-such"]).exit_code == 3


@pytest.mark.parametrize("option", ["--cores", "--device-name", "--runtime-version"])
def test_what_is_about_phones_needs_one(option: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from bignas_zoo.cli.main import main

    done = CliRunner().invoke(main, ["profile", "x", option, "f0", "--output", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert f"{option} belongs to --adb" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_table_that_cannot_be_read_or_is_of_another_protocol_stays(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from bignas_zoo.cli.main import main
    from bignas_zoo.latency import write_table

    path = tmp_path / "mine.json"
    command = ["profile", "mine", "--space", "bignas-micro", "--output", str(tmp_path)]
    path.write_text('{"schema": ')
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 7, result.output
    assert "move it away" in result.output
    assert path.read_text() == '{"schema": '
    table = DeviceTable("mine", PHONE, {BlockKey.of(plan(TINY.smallest)[0]): Measurement(1.0)}, space="tiny")
    write_table(path, table)
    before = path.read_bytes()
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2, result.output
    assert "another NAME" in result.output
    assert path.read_bytes() == before
