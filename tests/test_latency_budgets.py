"""Budgets in milliseconds: what they pick, what they refuse, what is recorded; the commands around them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import TINY
from latency_tables import PHONE, table_of, time_of

import bignas_zoo as bz
from bignas_zoo.architecture.plan import plan
from bignas_zoo.budget import Budget, amount
from bignas_zoo.cli.main import main
from bignas_zoo.errors import LocalIOError, NotFoundError, NothingFitsError, UsageError
from bignas_zoo.files import store
from bignas_zoo.latency import BlockKey, DeviceTable, write_table
from bignas_zoo.zoo import selection
from bignas_zoo.zoo.selection import LatencyPredictor
from bignas_zoo.zoo.slice import Slice

#: The sums of a table without validation carry a bar of 15 %.
UPPER = 1.15


def milliseconds(chosen: Slice, overhead: float = 2.0) -> float:
    return overhead + sum(time_of(BlockKey.of(block)) for block in plan(chosen.spec))


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceTable:
    """A device named "phone" among the user's own."""
    folder = tmp_path / "devices"
    folder.mkdir()
    monkeypatch.setenv("BIGNAS_ZOO_DEVICES", str(folder))
    table = table_of(TINY, overhead_ms=2.0)
    write_table(folder / "phone.json", table)
    return table


@pytest.fixture
def family(tiny_family: Path) -> bz.Family:
    return bz.get_family(tiny_family)


def best_within(family: bz.Family, limit: float, factor: float) -> str:
    fitting = [s for s in family.slices if factor * milliseconds(s) <= limit]
    return max(fitting, key=lambda s: (s.holdout_top1, -s.macs)).name


def test_the_upper_end_of_the_bar_must_meet_the_budget(phone: DeviceTable, family: bz.Family) -> None:
    times = sorted(milliseconds(s) for s in family.slices)
    assert len(set(times)) > 2
    for time in times:
        for limit in (time * 1.001, time * UPPER * 1.001):
            budget = Budget.parse(f"{limit:.4f}ms@phone")
            for risk, factor in (("upper", UPPER), ("mean", 1.0)):
                predictor = LatencyPredictor.of(budget, risk=risk)
                if factor * times[0] > limit:
                    with pytest.raises(NothingFitsError):
                        selection.pick(family, budget, predictor)
                    continue
                assert selection.pick(family, budget, predictor).name == best_within(family, limit, factor)


def test_nothing_fits_names_the_nearest_in_milliseconds(phone: DeviceTable, family: bz.Family) -> None:
    with pytest.raises(NothingFitsError) as caught:
        selection.pick(family, Budget.parse("1ms@phone"))
    fastest = min(family.slices, key=milliseconds)
    upper = UPPER * milliseconds(fastest)
    assert str(caught.value) == (
        f"nothing in family 'tiny' meets 1ms@phone. Nearest: '{fastest.name}': {upper:.2f} ms, the upper end of "
        f"its bar, is {upper - 1:.2f} ms over 1ms@phone."
    )


def test_several_devices_and_limits_must_all_hold(phone: DeviceTable, family: bz.Family) -> None:
    slow = dataclasses.replace(phone, name="slow", scale=10.0, overhead_ms=20.0)
    chosen = max(family.slices, key=milliseconds)
    limit = UPPER * milliseconds(chosen) * 1.001
    budget = Budget.parse(f"{limit:.4f}ms@phone,{10 * limit:.4f}ms@slow,{chosen.parameters}params")
    assert selection.pick(family, budget, LatencyPredictor.of(budget, tables=[slow])).name in {
        s.name for s in family.slices
    }
    tight = Budget.parse(f"{limit:.4f}ms@phone,{limit / 5:.4f}ms@slow")
    with pytest.raises(NothingFitsError, match="ms@slow"):
        selection.pick(family, tight, LatencyPredictor.of(tight, tables=[slow]))


def test_a_device_without_these_blocks_is_an_error_that_names_them(family: bz.Family) -> None:
    with pytest.raises(NotFoundError) as caught:
        selection.pick(family, Budget.parse("100ms@pixel-1-tunas"))
    assert not isinstance(caught.value, NothingFitsError)
    assert "device 'pixel-1-tunas'" in str(caught.value)
    assert "no honest prediction: stem (stem" in str(caught.value)
    chosen = family.slices[0]
    with pytest.raises(NotFoundError, match="no honest prediction"):
        selection.check_fits(chosen, Budget.parse("100ms@pixel-1-tunas"))


def test_slices_that_cannot_be_predicted_are_left_out(phone: DeviceTable, family: bz.Family) -> None:
    fastest = min(family.slices, key=milliseconds)
    needed = {BlockKey.of(b) for b in plan(fastest.spec)}
    partial = dataclasses.replace(phone, name="partial", rows={k: m for k, m in phone.rows.items() if k in needed})
    predictable = [s for s in family.slices if {BlockKey.of(b) for b in plan(s.spec)} <= needed]
    budget = Budget.parse("1000ms@partial")
    picked = selection.pick(family, budget, LatencyPredictor.of(budget, tables=[partial]))
    assert picked.name in {s.name for s in predictable}


def test_risk_is_one_of_two() -> None:
    with pytest.raises(UsageError, match="risk: must be one of upper, mean; got 'p99'"):
        LatencyPredictor(risk="p99")


def test_amounts_of_milliseconds() -> None:
    for value, text in ((7.949, "7.95"), (1234.5, "1,234.50"), (0.10772, "0.108"), (0.0127, "0.0127"), (0, "0.00")):
        assert amount("latency_ms", value) == f"{text} ms"


def test_get_records_what_was_predicted(phone: DeviceTable, family: bz.Family, tmp_path: Path) -> None:
    biggest = max(family.slices, key=milliseconds)
    limit = 1.2 * milliseconds(biggest)
    result = bz.get(budget=f"{limit:.3f}ms@phone", family=family.folder, output=tmp_path / "out")
    predicted = milliseconds(result.slice)
    assert result.latency is not None
    (entry,) = result.latency
    assert entry["device"] == "phone"
    assert entry["predicted_ms"] == pytest.approx(predicted)
    assert (entry["low_ms"], entry["high_ms"]) == (pytest.approx(0.85 * predicted), pytest.approx(1.15 * predicted))
    assert entry["protocol"] == PHONE.to_json()
    assert entry["risk"] == "upper"
    description = json.loads((tmp_path / "out" / "slice.json").read_text("utf-8"))
    assert description["latency"] == [dict(entry)]
    assert result.to_json()["latency"] == [dict(entry)]
    # The same again is recognised, and no budget in time records null.
    assert bz.get(budget=f"{limit:.3f}ms@phone", family=family.folder, output=tmp_path / "out").cached
    plain = bz.get(result.slice.name, family=family.folder, output=tmp_path / "plain")
    assert plain.latency is None
    assert json.loads((tmp_path / "plain" / "slice.json").read_text("utf-8"))["latency"] is None
    assert plain.files["slice.json"]["sha256"] != result.files["slice.json"]["sha256"]
    assert bz.load(tmp_path / "out").count_params() > 0


def test_the_same_slice_by_another_budget_is_the_same_folder(
    phone: DeviceTable, family: bz.Family, tmp_path: Path
) -> None:
    write_table(tmp_path / "devices" / "other.json", dataclasses.replace(phone, name="other", overhead_ms=3.0))
    out = tmp_path / "out"
    chosen = max(family.slices, key=milliseconds)
    name, limit = chosen.name, 2 * milliseconds(chosen, 3.0)

    def rows() -> dict[str, float]:
        found = json.loads((out / "slice.json").read_text("utf-8"))["latency"] or []
        return {row["device"]: row["predicted_ms"] for row in found}

    bz.get(name, family=family.folder, output=out)
    assert rows() == {}
    (out / "exports.json").write_text('{"schema": "bignas-zoo/exports/2", "exports": []}')
    for device, overhead in (("phone", 2.0), ("other", 3.0)):
        result = bz.get(name, budget=f"{limit}ms@{device}", family=family.folder, output=out)
        assert [row["device"] for row in result.latency or ()] == [device]
        assert rows()[device] == pytest.approx(milliseconds(chosen, overhead))
        assert result.files["slice.json"]["sha256"] == store.sha256(out / "slice.json")
    assert list(rows()) == ["phone", "other"]
    bz.get(name, family=family.folder, output=out)
    assert list(rows()) == ["phone", "other"]
    assert (out / "exports.json").exists()
    description = json.loads((out / "slice.json").read_text("utf-8"))
    store.write_json(out / "slice.json", {**description, "latency": "no list"})
    with pytest.raises(LocalIOError, match="exists already"):
        bz.get(name, family=family.folder, output=out)


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_get_with_a_table_of_ones_own(tmp_path: Path, family: bz.Family) -> None:
    mine = tmp_path / "anywhere.json"
    write_table(mine, table_of(TINY, name="my-phone", overhead_ms=2.0))
    name = min(family.slices, key=milliseconds).name
    arguments = ["get", name, "--family", str(family.folder), "--output", str(tmp_path / "out")]
    code, out, _ = invoke(*arguments, "--budget", "10s@my-phone", "--device-table", str(mine))
    assert code == 0
    assert "on my-phone" in out
    assert "ms predicted" in out
    assert invoke(*arguments, "--budget", "10s@my-phone")[0] == 3
    code, _, err = invoke(*arguments, "--budget", "1us@my-phone", "--device-table", str(mine), "--risk", "mean")
    assert code == 3
    assert "does not meet 1us@my-phone" in err
    assert invoke(*arguments, "--budget", "1us@my-phone", "--risk", "luck")[0] == 2


def test_devices_command(phone: DeviceTable) -> None:
    code, out, _ = invoke("devices")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:16]] == [
        "epyc-zen3-litert", "epyc-zen3-litert-int8", "phone", "pixel-1-spnas", "pixel-1-tflite", "pixel-1-tunas",
        "pixel-4-cpu-tflite", "pixel-4-cpu-tflite-int8", "pixel-4-edgetpu-tflite", "pixel-4-gpu-tflite",
        "pixel-4-gpu-tflite-float16", "titan-rtx-batch32-pytorch", "xeon-6130-pytorch", "xeon-amx-litert",
        "xeon-amx-litert-int8",
    ]  # fmt: skip
    data = json.loads(invoke("devices", "--json")[1])
    assert data["schema"] == "bignas-zoo/devices/1"
    assert data["devices"][2]["protocol"] == PHONE.to_json()
    one = json.loads(invoke("devices", "xeon-6130-pytorch", "--json")[1])
    assert one["schema"] == "bignas-zoo/device-detail/1"
    assert one["validation"] is None
    code, out, _ = invoke("devices", "xeon-6130-pytorch")
    assert "MIT, Copyright (c) 2020 Aber Hu" in out
    assert "never compared with whole networks" in out
    code, _, err = invoke("devices", "xeon-6130-pytorsch")
    assert code == 3
    assert "Did you mean 'xeon-6130-pytorch'?" in err
    code, out, _ = invoke("devices", "pixel-4-cpu-tflite")
    assert code == 0
    assert "EfficientNet-Lite0: 12 ms at 224 px (tensorflow/tpu at " in out
    assert "blocks" not in out
    quoted = json.loads(invoke("devices", "pixel-4-cpu-tflite", "--json")[1])["networks"]
    code, out, _ = invoke("latency", "efficientnet-lite0-224", "--device", "pixel-4-cpu-tflite")
    assert (code, "12.00 (11.50 to 12.50) ms predicted" in out, "as published" in out, "overhead" in out) == (
        0, True, True, False,
    )  # fmt: skip
    code, _, err = invoke("latency", "efficientnet-lite0-224", "--device", "pixel-4-cpu-tflite", "--plot", "x.png")
    assert (code, "known as a whole" in err) == (2, True)
    assert [n["latency_ms"] for n in quoted] == [{"224": 12.0}, {"260": 26.0}, {"300": 76.0}]


def test_damaged_tables_hide_no_others(phone: DeviceTable, tmp_path: Path) -> None:
    (tmp_path / "devices" / "half.json").write_text("{")
    (tmp_path / "devices" / "folder.json").mkdir()
    write_table(tmp_path / "devices" / "alias.json", phone)
    code, out, err = invoke("devices")
    assert code == 4
    assert [line.split()[0] for line in out.splitlines()[3:6]] == ["phone", "pixel-1-spnas", "pixel-1-tflite"]
    assert all(f"Error: {tmp_path}/devices/{name}.json: " in err for name in ("alias", "folder", "half"))
    assert len(err.strip().splitlines()) == 3
    code, out, _ = invoke("devices", "--json")
    assert code == 4
    assert "phone" in {device["name"] for device in json.loads(out)["devices"]}


def test_latency_command(phone: DeviceTable, family: bz.Family, tmp_path: Path) -> None:
    chosen = family.slices[-1]
    code, out, _ = invoke("latency", chosen.name, "--family", str(family.folder), "--device", "phone", "--json")
    assert code == 0
    data = json.loads(out)
    assert data["schema"] == "bignas-zoo/latency/1"
    assert data["latency_ms"] == pytest.approx(milliseconds(chosen))
    assert data["overhead_ms"] + sum(b["ms"] for b in data["blocks"]) == pytest.approx(data["latency_ms"])
    code, out, err = invoke(
        "latency", chosen.name, "--family", str(family.folder), "--device", "phone", "--plot", str(tmp_path / "x.svg")
    )
    assert code == 0
    assert (tmp_path / "x.svg").stat().st_size > 1000
    assert "stage1.layer1" in out
    assert "never compared with whole networks" in out
    code, _, err = invoke("latency", "bignas-m", "--device", "fone")
    assert code == 3
    assert "Did you mean 'phone'?" in err
    assert invoke("latency", "bignas-m")[0] == 2


def test_list_and_show_with_a_device(phone: DeviceTable, family: bz.Family, tmp_path: Path) -> None:
    code, out, _ = invoke("list", "--family", str(family.folder), "--device", "phone", "--json")
    assert code == 0
    for entry, chosen in zip(json.loads(out)["slices"], family.slices, strict=True):
        assert entry["latency"]["latency_ms"] == pytest.approx(milliseconds(chosen))
    code, out, err = invoke("list", "--family", str(family.folder), "--device", "pixel-1-tunas")
    assert code == 0
    assert "No prediction (-) for tiny-" in err
    for device in ([], ["--device", "phone"]):
        path = tmp_path / f"front{len(device)}.svg"
        assert invoke("list", "--family", str(family.folder), "--plot", str(path), *device)[0] == 0
        assert ("predicted milliseconds" in path.read_text("utf-8")) == bool(device)
    chosen = family.slices[0]
    code, out, _ = invoke("show", chosen.name, "--family", str(family.folder), "--device", "phone")
    assert f"on phone: {milliseconds(chosen):.2f} (" in out
    plain = json.loads(invoke("list", "--family", str(family.folder), "--json")[1])
    assert all("latency" not in entry for entry in plain["slices"])


@pytest.mark.slow
def test_a_time_of_another_precision_than_the_file_is_said(tmp_path: Path) -> None:
    other = bz.get(budget="0.07ms@xeon-amx-litert", family="bignas-cifar10", output=tmp_path / "float32")
    assert other.slice.name == "bignas-cifar10-smallest"
    assert other.hint is None
    found = bz.get("bignas-cifar10-smallest", budget="1ms@xeon-amx-litert-int8", output=tmp_path / "int8")
    assert found.hint is not None
    assert "xeon-amx-litert-int8 is that of a file in int8; model.tflite is float32" in found.hint
