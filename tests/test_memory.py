"""Memory on a microcontroller: the planner by hand, tflite-micro as the judge, and budgets of it."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_writers import CROSSED, space_of, weights_of

import bignas_zoo as bz
from bignas_zoo.architecture import arena, cost
from bignas_zoo.architecture.arena import Buffer
from bignas_zoo.architecture.lowering import lower
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.budget import Budget, amount
from bignas_zoo.cli.main import main
from bignas_zoo.errors import BudgetError, IntegrityError, NothingFitsError, UsageError
from bignas_zoo.export.tflite import convert
from bignas_zoo.files.formats import Export
from bignas_zoo.models.weighted import WeightedNetwork
from bignas_zoo.runtime import micro
from bignas_zoo.search import costs
from bignas_zoo.zoo import registry, selection
from bignas_zoo.zoo.selection import LatencyPredictor
from bignas_zoo.zoo.slice import Facts, read_slice

CIFAR10 = "bignas-cifar10"


def int8_file(network: bz.ChildSpec, io: str = "int8") -> bytes:
    side = network.resolution
    images = np.random.default_rng(2).normal(size=(64, side, side, 3)).astype(np.float32)
    return convert(WeightedNetwork(network, weights_of(network)), Export("tflite", "int8", io=io), images=images)


def test_buffers_are_laid_out_by_hand() -> None:
    # 100 bytes take 112; the second is alive beside the first and the third; the third may lie where the first was.
    assert arena.packed([Buffer(100, 0, 1), Buffer(50, 1, 2), Buffer(60, 2, 3)]) == 112 + 64
    # Nothing at the same time: the largest alone counts.
    assert arena.packed([Buffer(16, 0, 0), Buffer(48, 1, 1), Buffer(32, 2, 2)]) == 48
    # By size: 64 at 0; 48 beside it at 64; 32 lives with the 64 alone, and goes behind it; 16 finds the gap at 96.
    assert arena.packed([Buffer(64, 0, 3), Buffer(48, 3, 4), Buffer(32, 0, 1), Buffer(16, 0, 1)]) == 64 + 48
    # Of equal ones the last is placed first: c, b, a.
    a, b, c = Buffer(16, 0, 1), Buffer(16, 1, 2), Buffer(16, 2, 3)
    assert arena.packed([a, b, c]) == 32


def test_a_network_s_buffers_by_hand() -> None:
    child = registry.get_family(CIFAR10).slices[0].spec
    assert child
    nodes = lower(child, quarters=True)
    image, *others = arena.buffers(nodes)
    assert image == Buffer(3 * child.resolution**2, 0, 0)
    means = [i for i, node in enumerate(nodes) if node.kind == "mean"]
    assert len(others) == len(nodes) + len(means)
    # A mean of c channels sums in c numbers of 32 bits while it runs.
    assert others[len(nodes)] == Buffer(4 * nodes[means[0]].output.size, means[0], means[0])


@pytest.mark.parametrize("case", CROSSED[::5], ids=lambda c: "-".join((c[0], c[1], c[2].rule, str(c[5]))))
def test_tflite_micro_needs_what_is_predicted(case: tuple) -> None:
    pytest.importorskip("tflite_micro", reason="no tflite-micro for this Python or machine")
    *forms, size = case
    child = uniform_child(dataclasses.replace(space_of(*forms), resolutions=(size,)), ("memory", *map(str, case)))
    found = micro.measure(int8_file(child))
    assert cost.activations(child) == found.activations
    assert cost.arena(child) == pytest.approx(found.arena, rel=0.01)
    assert found.arena >= found.activations + found.bookkeeping - 16


@pytest.mark.slow
def test_shipped_slices_need_what_is_said(shared_data: Path) -> None:
    pytest.importorskip("tflite_micro", reason="no tflite-micro for this Python or machine")
    for name in ("bignas-cifar10-smallest", "bignas-cifar10-m", "efficientnet-lite0-128"):
        slice_ = next(s for s in bz.list_slices() if s.name == name)
        data = int8_file(slice_.network)
        found = micro.measure(data)
        assert cost.activations(slice_.network) == found.activations
        assert slice_.arena_bytes == pytest.approx(found.arena, rel=0.01)
        assert len(data) <= slice_.int8_bytes <= 1.012 * len(data) + 12 * slice_.network.classes


@pytest.mark.parametrize("case", CROSSED[3::9], ids=lambda c: "-".join((c[0], c[1], c[2].rule, str(c[5]))))
def test_the_int8_file_is_no_larger_than_estimated(case: tuple) -> None:
    *forms, size = case
    child = uniform_child(dataclasses.replace(space_of(*forms), resolutions=(size,)), ("bytes", *map(str, case)))
    assert 0.9 * cost.int8_bytes(child) <= len(int8_file(child)) + 2_600 <= cost.int8_bytes(child) + 2_600


def test_stored_figures_are_those_of_the_networks() -> None:
    for family in registry.families():
        for slice_ in family.slices:
            assert slice_.arena_bytes == cost.arena(slice_.network)
            assert slice_.known_arena is None or family.folder is not None


def test_a_family_without_the_figure_has_it_counted() -> None:
    family = registry.get_family(CIFAR10)
    assert family.folder
    data = json.loads((family.folder / "family.json").read_text())
    entry = data["slices"][0]
    stored = entry.pop("arena_bytes")
    assert read_slice(entry, Facts.from_json(data, family.name), family.space).arena_bytes == stored


@pytest.mark.parametrize(
    ("text", "limit"),
    [("96KBram", 96_000), ("1MBram", 10**6), ("64KiBram", 65_536), ("<=0.5MiBram", 2**19), ("500Bram", 500)],
)
def test_memory_is_written_with_ram_behind(text: str, limit: int) -> None:
    (only,) = Budget.parse(text).limits
    assert (only.quantity, only.value, only.figure) == ("arena_bytes", Fraction(limit), "arena_bytes")


def test_bytes_beside_memory_are_those_of_the_int8_file() -> None:
    assert [v.quantity for v in Budget.parse("320KB,96KBram,5M").limits] == ["int8_bytes", "arena_bytes", "macs"]
    assert [v.quantity for v in Budget.parse("320KB,5M").limits] == ["bytes", "macs"]
    assert amount("arena_bytes", 89_216) == "89.22 KB of memory"
    assert amount("int8_bytes", 294_082) == "294.08 KB in int8"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("96kbram", "capital letters"),
        ("96KBRAM", "as in 96KBram"),
        ("96KBram@pixel-6", "only a time"),
        ("0KBram", "zero"),
        ("96ram", "as in 96KBram"),
        ("9GFLOPsram", "as in 96KBram"),
    ],
)
def test_memory_that_is_written_otherwise(text: str, words: str) -> None:
    with pytest.raises(BudgetError, match=words):
        Budget.parse(text)


def test_a_budget_of_memory_chooses_by_it() -> None:
    family = registry.get_family(CIFAR10)
    budget = Budget.parse("96KBram,320KB")
    chosen = selection.pick(family, budget)
    fitting = [s for s in family.slices if cost.arena(s.network) <= 96_000 and cost.int8_bytes(s.network) <= 320_000]
    assert chosen.holdout_top1 == max(s.holdout_top1 or 0 for s in fitting)
    with pytest.raises(NothingFitsError, match=r"of memory is .* of memory over 60KBram"):
        selection.pick(family, Budget.parse("60KBram"))


def test_get_says_what_memory_it_takes(tmp_path: Path) -> None:
    command = ["get", "--family", CIFAR10, "--budget", "96KBram,320KB", "--output", str(tmp_path / "m")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    for words in ("memory ", "under tflite-micro as int8", "of it activations", "--precision int8 --io int8"):
        assert words in result.output
    data = json.loads((tmp_path / "m/slice.json").read_text())
    assert data["arena_bytes"] <= 96_000
    card = (tmp_path / "m/README.md").read_text()
    assert f"about {data['arena_bytes']:,} bytes under tflite-micro as int8" in card


def test_list_and_show_say_it() -> None:
    table = CliRunner().invoke(main, ["list", "--family", CIFAR10]).stdout
    slice_ = registry.get_family(CIFAR10).slices[0]
    (row,) = (line for line in table.splitlines() if line.startswith(f"{slice_.name} "))
    assert f" {slice_.arena_bytes / 1e3:,.1f} " in row
    shown = json.loads(CliRunner().invoke(main, ["show", slice_.name, "--json"]).stdout)
    assert shown["arena_bytes"] == cost.arena(slice_.network)
    assert shown["activation_bytes"] == cost.activations(slice_.network)
    assert (
        f"{shown['activation_bytes']:,} bytes of activations" in CliRunner().invoke(main, ["show", slice_.name]).stdout
    )


def test_a_search_takes_memory_as_a_cost() -> None:
    family = registry.get_family(CIFAR10)
    assert family.space
    budgets = [Budget.parse("96KBram,320KB")]
    figures = costs.costs_for(family.space, budgets, LatencyPredictor(), ())
    smallest = family.space.smallest
    assert figures(smallest)["arena_bytes"] == cost.arena(smallest)
    assert figures(smallest)["int8_bytes"] == cost.int8_bytes(smallest)
    assert "arena_bytes" not in costs.costs_for(family.space, [], LatencyPredictor(), ())(smallest)
    assert costs.parse_front("ram,top1") == ("arena_bytes", "top1")
    front = costs.costs_for(family.space, [], LatencyPredictor(), (), ("arena_bytes", "top1"))
    assert front(smallest)["arena_bytes"] == cost.arena(smallest)
    with pytest.raises(NothingFitsError, match="below the smallest child"):
        costs.costs_for(family.space, [Budget.parse("1KBram")], LatencyPredictor(), ())


def test_bench_counts_memory(tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro", reason="no tflite-micro for this Python or machine")
    child = registry.get_family(CIFAR10).space.smallest  # type: ignore[union-attr]
    path = tmp_path / "m.tflite"
    path.write_bytes(int8_file(child))
    result = CliRunner().invoke(main, ["bench", str(path), "--micro", "--json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["results"]
    assert row["activations"] == cost.activations(child)
    assert row["predicted"] is None  # it lies in no slice's folder
    assert " arena" in CliRunner().invoke(main, ["bench", str(path), "--micro"]).stdout


def test_what_tflite_micro_cannot_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(main, ["bench", str(tmp_path / "no.tflite"), "--micro"]).exit_code in (2, 7)
    monkeypatch.setattr(micro, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'bignas-zoo\[micro\]'"):
        micro.measure(b"")
    monkeypatch.undo()
    pytest.importorskip("tflite_micro", reason="no tflite-micro for this Python or machine")
    with pytest.raises(IntegrityError, match="is no TFLite file"):
        micro.measure(b"\0" * 64)
    with pytest.raises(IntegrityError, match="tflite-micro cannot run it"):
        micro.measure(b"\0\0\0\0TFL3" + b"\0" * 64)
