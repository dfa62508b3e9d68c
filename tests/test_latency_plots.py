"""Drawings of latency: both formats, the numbers in them, the same bytes twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY
from latency_tables import table_of

import bignas_zoo as bz
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.errors import NotFoundError, UsageError
from bignas_zoo.hub_cards import latency_plots
from bignas_zoo.latency import Validation, find_device, predict

PAIRS = [(10.0 + i * 0.5 + (i % 3 - 1) * 0.3, 10.0 + i * 0.5) for i in range(40)]


def draw(kind: str, path: Path, family: Path) -> None:
    table = table_of(TINY, overhead_ms=2.0)
    if kind == "breakdown":
        latency_plots.plot_breakdown(predict(table, uniform_child(TINY, ("plots", 0))), table, "tiny-x", path)
    elif kind == "validation":
        latency_plots.plot_validation(Validation.of(PAIRS, "test"), "phone", path)
    else:
        latency_plots.plot_latency_front(bz.get_family(family), table, path)


@pytest.mark.parametrize("kind", ["breakdown", "validation", "front"])
def test_drawings_are_made_and_repeat(kind: str, tiny_family: Path, tmp_path: Path) -> None:
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        one, two = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        draw(kind, one, tiny_family)
        draw(kind, two, tiny_family)
        assert one.read_bytes().startswith(magic)
        assert one.read_bytes() == two.read_bytes()
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert "phone" in text
    words = {
        "breakdown": ("stage1.layer1", "overhead", "classifier", "tiny-x on phone"),
        "validation": ("MAPE", "within 10 %", "band: ±10 %", "40 networks"),
        "front": ("predicted milliseconds", "top-1 %", "smallest", "biggest", "front:"),
    }
    for word in words[kind]:
        assert word in text


def test_the_front_is_what_no_faster_slice_beats() -> None:
    table = table_of(TINY, overhead_ms=2.0)
    slow, fast = predict(table, TINY.biggest), predict(table, TINY.smallest)
    points = [(slow, 80.0, "a"), (slow, 81.0, "b"), (fast, 70.0, "c"), (fast, 69.0, "d")]
    assert latency_plots._undominated(points) == [(fast.latency_ms, 70.0), (slow.latency_ms, 81.0)]
    assert latency_plots._undominated([(slow, 70.0, "a"), (fast, 70.0, "b")]) == [(fast.latency_ms, 70.0)]


def test_what_cannot_be_drawn_says_why(tiny_family: Path, tmp_path: Path) -> None:
    checked = Validation.of(PAIRS, "test")
    with pytest.raises(UsageError, match="no pairs"):
        latency_plots.plot_validation(Validation(**{**vars(checked), "pairs": ()}), "x", tmp_path / "x.png")
    with pytest.raises(NotFoundError, match="no honest prediction"):
        latency_plots.plot_latency_front(bz.get_family(tiny_family), find_device("pixel-1-tunas"), tmp_path / "x.png")
    with pytest.raises(UsageError, match="suffix"):
        draw("validation", tmp_path / "x.pdf", tiny_family)
