"""A run's log, lock and requests to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bignas_zoo.errors import LocalIOError, PreemptedError, UsageError
from bignas_zoo.files import store
from bignas_zoo.files.say import silent
from bignas_zoo.recipes.runs import log as run_log
from bignas_zoo.recipes.runs import stopping
from bignas_zoo.recipes.runs.folder import check_output, hold
from bignas_zoo.recipes.runs.log import RunLog
from bignas_zoo.recipes.runs.stopping import stop_requests


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def points(workdir: Path) -> list[tuple[int, str, float]]:
    """Read the event files with TensorFlow's own reader."""
    import tensorflow as tf

    found = []
    for file in sorted((workdir / "tensorboard").iterdir()):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return found


def test_records_are_appended_and_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path, 0, silent)
    log.add({"step": 20, "loss": 2.5})
    before, synced = (tmp_path / "metrics.jsonl").stat().st_ino, []
    monkeypatch.setattr(store.os, "fsync", synced.append)
    log.add({"step": 40, "loss": 1.5})
    log.close()
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 20, "loss": 2.5}, {"step": 40, "loss": 1.5}]
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before  # the same file, not a new one each time
    assert len(synced) == 1


def test_a_resumed_log_holds_each_step_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, silent)
    for step in (20, 40, 60):
        log.add({"step": step, "loss": step / 8, "phase": "biggest", "seconds": 1.0})
    log.add({"step": 60, "evaluation": {"smallest": 10.0, "biggest": 20.0}})
    log.close()
    again = RunLog(tmp_path, 40, silent)
    assert not again.evaluated(60)
    again.add({"step": 60, "loss": 1.0})
    again.close()
    assert [r["step"] for r in lines(tmp_path / "metrics.jsonl")] == [20, 40, 60]
    assert points(tmp_path) == [
        (20, "training/loss", 2.5), (40, "training/loss", 5.0), (60, "training/loss", 1.0),
    ]  # fmt: skip


def test_evaluations_are_drawn_and_known_after_a_resume(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, silent)
    log.add({"step": 5, "evaluation": {"smallest": 12.5, "biggest": 25.0}})
    log.close()
    assert points(tmp_path) == [(5, "evaluation/smallest", 12.5), (5, "evaluation/biggest", 25.0)]
    assert RunLog(tmp_path, 5, silent).evaluated(5)


def test_a_torn_last_line_is_dropped_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    RunLog(tmp_path, 9, silent).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    path.write_bytes(b'{"step": 1}\n\xff\xfe\n[]\n{"step": 2}\n')
    said: list[str] = []
    RunLog(tmp_path, 9, said.append).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert said == [f"{path}: line {n} is damaged and left out" for n in (2, 3)]


def test_without_tensorflow_there_is_a_log_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    said: list[str] = []
    log = RunLog(tmp_path, 0, said.append)
    log.add({"step": 1, "loss": 1.0})
    log.add({"step": 2, "loss": 1.0})
    log.close()
    assert len(lines(tmp_path / "metrics.jsonl")) == 2
    assert said == ["no TensorBoard log: TensorFlow is not installed; metrics.jsonl holds the same figures"]
    assert not (tmp_path / "tensorboard").exists()


def test_a_log_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_log, "_board", lambda folder, say: None)
    log = RunLog(tmp_path, 0, silent)
    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(LocalIOError, match=r"metrics.jsonl: cannot be written \(No space left on device\)"):
        log.add({"step": 1})


HOLDER = """
import sys, time
from pathlib import Path
from bignas_zoo.files.locks import exclusive
with exclusive(Path(sys.argv[1]), "process 123 on elsewhere"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_trainer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "train.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(LocalIOError) as caught, hold(tmp_path):
            pass
        assert str(caught.value) == (
            f"{tmp_path}: in use by process 123 on elsewhere. Wait until it has ended, or choose another --output."
        )
        assert caught.value.exit_code == 7
        first.send_signal(signal.SIGKILL)
    with hold(tmp_path, silent):
        assert (tmp_path / "train.lock").read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(LocalIOError, match=f"in use by process {os.getpid()} on "), hold(tmp_path):
            pass
    with hold(tmp_path, silent):
        pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    said: list[str] = []
    with hold(tmp_path, said.append):
        pass
    assert said == [
        f"{tmp_path}: no locks here ([Errno 37] No locks available); see to it yourself that only one process uses it"
    ]


def test_a_folder_that_cannot_be_made_or_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalIOError, match="cannot be created"), hold(tmp_path / "file" / "run"):
        pass
    (tmp_path / "train.lock").mkdir()
    with pytest.raises(LocalIOError, match="train.lock: cannot be opened"), hold(tmp_path):
        pass


def test_old_leftovers_of_killed_writers_go_and_young_ones_stay(tmp_path: Path) -> None:
    for name in (".bignas-tmp-old", ".bignas-tmp-young"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / ".bignas-tmp-link").symlink_to(tmp_path / "nowhere")
    os.utime(tmp_path / ".bignas-tmp-old", (0, 0))
    (tmp_path / "mine").write_text("")
    with hold(tmp_path, silent):
        assert {p.name for p in tmp_path.iterdir()} == {".bignas-tmp-young", ".bignas-tmp-link", "mine", "train.lock"}
    store.remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"mine", "train.lock"}


def test_a_request_waits_and_is_an_error_with_the_exit_code_of_a_resumable_run() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        error = stop.error(" after step 3 of 9")
    assert isinstance(error, PreemptedError)
    assert error.exit_code == 75
    assert str(error) == "stopped on request after step 3 of 9. Run the same command again to go on."
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_waits_too() -> None:
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert isinstance(stop.error(), KeyboardInterrupt)
        said = "interrupted after step 3 of 9. Run the same command again to go on."
        assert str(stop.error(" after step 3 of 9")) == said


def test_at_once_raises_within_the_block_or_before_it() -> None:
    with stop_requests() as stop:
        with pytest.raises(PreemptedError, match="^stopped on request. Run"), stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(PreemptedError), stop.at_once():
            raise AssertionError("not reached")


def test_what_a_library_makes_of_the_stop_does_not_hide_it() -> None:
    """TensorFlow's callbacks turn any Exception into one of their own; others swallow it."""

    def wraps() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception as error:
            raise ValueError("Error when tracing gradients") from error

    def swallows() -> None:
        with suppress(Exception):
            signal.raise_signal(signal.SIGTERM)

    for work in (wraps, swallows):
        with stop_requests() as stop, pytest.raises(PreemptedError, match="^stopped on request"), stop.at_once():
            work()
    with stop_requests() as stop, pytest.raises(ValueError, match="own"), stop.at_once():
        raise ValueError("its own")  # nobody asked to stop


def test_a_second_signal_ends_at_once_but_not_within_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        now[0] = 101.9
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        now[0] = 102.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested
            signal.raise_signal(signal.SIGTERM)
            assert stop.requested
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    import threading

    found: list[object] = []

    def work() -> None:
        with stop_requests() as stop, stop.at_once():
            found.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_an_output_among_the_classes_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
    check_output(data / "run", data)  # nothing in it: that is another error, and comes later
    (data / "cat" / "1.PNG").touch()
    for inside in (data, data / "run", tmp_path / "x" / ".." / "data" / "run"):
        with pytest.raises(UsageError, match=r"each folder is a class of images\. Choose a folder outside it"):
            check_output(inside, data)
    check_output(tmp_path / "run", data)
    check_output(tmp_path / "run", "gs://bucket/train-*")
    (tmp_path / "data2" / "train-00000-of-00001").mkdir(parents=True)
    check_output(tmp_path / "data2" / "run", tmp_path / "data2")  # TFRecord files: folders are no classes
    (tmp_path / "file").touch()
    with pytest.raises(LocalIOError, match="is a file; --output is a folder"):
        check_output(tmp_path / "file", data)
    with pytest.raises(UsageError, match="not a name in UTF-8"):
        check_output(Path(os.fsdecode(b"odd\xff")), data)


@pytest.mark.parametrize(
    ("images", "shown"), [(10480.4, "10,480"), (104.8, "105"), (10.0, "10"), (2.04, "2"), (0.0832, "0.083")]
)
def test_slow_trainings_have_a_speed_too(images: float, shown: str) -> None:
    from bignas_zoo.cli.progress import speed

    assert speed(images) == shown
