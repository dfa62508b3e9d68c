"""Families and slices: names, the choice for a budget, and damaged descriptions."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10
from bignas_zoo.budget import Budget, amount
from bignas_zoo.errors import IntegrityError, NotFoundError, NothingFitsError
from bignas_zoo.files import records
from bignas_zoo.files.records import FileRecord
from bignas_zoo.files.store import json_bytes
from bignas_zoo.zoo import registry, selection
from bignas_zoo.zoo.family import Family, load_family
from bignas_zoo.zoo.slice import Slice

SHA = "0123456789abcdef" * 4


def make_slice(name: str, spec: ChildSpec, **figures: Any) -> Slice:
    values: dict[str, Any] = {"top1": 80.0, "holdout_top1": 80.0, "bytes": 400_000, **figures}
    record = FileRecord(f"bn/{name}.safetensors", 10, SHA)
    return Slice(f"toy-{name}", "toy", spec, top1_images=100, top1_source="tests", statistics=record, **values)


def make_family(*slices: Slice) -> Family:
    return Family(
        name="toy",
        description="Made up.",
        space=BIGNAS_CIFAR10,
        class_names=tuple("abcdefghij"),
        preprocess={"crop_size": 32, "mean": [127.5] * 3, "std": [64.0] * 3},
        slices=tuple(sorted(slices, key=lambda s: s.macs)),
        weights=FileRecord("supernet.safetensors", 10, SHA),
    )


def child(resolution: int) -> ChildSpec:
    """Give the same layers at another size: more MACs, the same parameters."""
    return replace(BIGNAS_CIFAR10.smallest, resolution=resolution)


SMALL = make_slice("s", child(20), top1=80.0, holdout_top1=81.0, bytes=300_000)
MIDDLE = make_slice("m", child(24), top1=84.0, holdout_top1=84.5, bytes=310_000)
BEST = make_slice("b", child(28), top1=85.0, holdout_top1=88.0, bytes=320_000)
LUCKY = make_slice("l", child(32), top1=90.0, holdout_top1=86.0, bytes=330_000)  # reported best, not chosen best
TOY = make_family(SMALL, MIDDLE, BEST, LUCKY)


def pick(text: str, family: Family = TOY) -> str:
    return selection.pick(family, Budget.parse(text)).name


def test_paper_family() -> None:
    family = registry.get_family("bignas-imagenet")
    assert [(s.name, s.top1) for s in family.slices] == [
        ("bignas-s", 76.5),
        ("bignas-m", 78.9),
        ("bignas-l", 79.6),
        ("bignas-xl", 80.9),
    ]
    assert [round(s.macs / 1e6) for s in family.slices] == [242, 418, 659, 1037]
    assert [round(s.parameters / 1e6, 1) for s in family.slices] == [4.5, 5.5, 6.7, 9.5]
    assert [s.spec.resolution for s in family.slices] == [192, 224, 256, 288]
    assert {(s.bytes, s.top1_images, s.holdout_top1, s.statistics) for s in family.slices} == {(None, None, None, None)}
    assert all("paper" in s.top1_source for s in family.slices)


def test_paper_family_has_no_weights_to_pick() -> None:
    with pytest.raises(NotFoundError) as caught:
        pick("400MFLOPs", registry.paper_family())
    assert str(caught.value).startswith("'bignas-imagenet': its weights were never published")
    assert not isinstance(caught.value, NothingFitsError)
    with pytest.raises(NotFoundError, match="never published"):
        registry.paper_family().path(FileRecord("a", 1, SHA))


def test_slices_are_listed_by_family_and_macs() -> None:
    listed = registry.list_slices()
    first = [(s.family != "efficientnet-lite", s.family, s.macs) for s in listed]  # the default family goes first
    assert first == sorted(first)
    assert registry.list_slices("bignas-imagenet") == registry.paper_family().slices
    assert set(registry.paper_family().slices) <= set(listed)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bignas-imagnet", "Did you mean 'bignas-imagenet'?"),
        ("BIGNAS-imagenet", "Did you mean 'bignas-imagenet'?"),
        ("zzzzzz", "Known: "),
        ("", "Known: "),
        ("x" * 300, "Known: "),
        ("\0", "Known: "),
    ],
)
def test_unknown_family(name: str, hint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        registry.get_family(name)
    assert str(caught.value).startswith(f"family '{name}': not known, and no folder with a family.json. {hint}")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(("name", "near"), [("bignas-xxl", "bignas-xl"), ("bignas_m", "bignas-m")])
def test_unknown_slice_names_the_nearest(name: str, near: str) -> None:
    for family in (None, "bignas-imagenet"):
        with pytest.raises(NotFoundError, match=f"^slice '{name}': not .* Did you mean '{near}'"):
            registry.find_slice(name, family)


def test_find_slice_by_full_and_short_name() -> None:
    assert registry.find_slice("bignas-m")[1].name == "bignas-m"
    assert TOY.find("toy-m") is MIDDLE
    assert TOY.find("m") is MIDDLE
    with pytest.raises(NotFoundError, match="^slice 'q': not in family 'toy'"):
        TOY.find("q")


def test_costs_of_the_toy_family_rise_with_the_size() -> None:
    assert [s.name for s in TOY.slices] == ["toy-s", "toy-m", "toy-b", "toy-l"]
    assert len({s.macs for s in TOY.slices}) == 4
    assert {s.parameters for s in TOY.slices} == {cost.parameters(BIGNAS_CIFAR10.smallest)}


def test_pick_goes_by_held_out_accuracy() -> None:
    assert pick("400MFLOPs") == "toy-b"
    assert pick("400MB") == "toy-b"
    assert pick("315KB") == "toy-m"
    assert pick("300000B") == "toy-s"


def test_pick_takes_a_slice_that_meets_the_limit_exactly() -> None:
    assert pick(f"{MIDDLE.macs}MACs") == "toy-m"
    assert pick(f"{MIDDLE.macs - 1}MACs") == "toy-s"


def test_pick_holds_every_limit() -> None:
    assert pick("400M,310KB") == "toy-m"
    assert pick(f"{BEST.macs}MACs,top1>=84") == "toy-b"
    assert pick("400M,top1>=86") == "toy-l"


@given(
    accuracies=st.lists(st.one_of(st.none(), st.integers(10, 14)), min_size=6, max_size=6),
    limits=st.lists(
        st.tuples(st.sampled_from(["MACs", "params", "B"]), st.integers(1, 12_000_000)), min_size=1, max_size=3
    ),
)
@settings(max_examples=150, deadline=None)
def test_pick_against_a_search_by_hand(accuracies: list[int | None], limits: list[tuple[str, int]]) -> None:
    specs = [uniform_child(BIGNAS_CIFAR10, ("pick", n)) for n in range(6)]
    family = make_family(
        *(
            make_slice(str(n), spec, holdout_top1=accuracy, bytes=4 * cost.parameters(spec))
            for n, (spec, accuracy) in enumerate(zip(specs, accuracies, strict=True))
        )
    )
    fitting = []
    for s in family.slices:
        figures = {"MACs": s.macs, "params": s.parameters, "B": s.bytes or 0}
        if all(figures[unit] <= limit for unit, limit in limits):
            fitting.append(s)
    text = ",".join(f"{limit}{unit}" for unit, limit in limits)
    if not fitting:
        with pytest.raises(NothingFitsError):
            pick(text, family)
        return
    best = max(s.holdout_top1 or 0 for s in fitting)
    cheapest_of_the_best = min(s.macs for s in fitting if (s.holdout_top1 or 0) == best)
    assert selection.pick(family, Budget.parse(text)).macs == cheapest_of_the_best


def test_ties_go_to_fewer_macs() -> None:
    twins = make_family(*(replace(s, holdout_top1=84.0) for s in TOY.slices))
    assert pick("400M", twins) == "toy-s"


def test_a_slice_never_measured_comes_last() -> None:
    family = make_family(SMALL, replace(LUCKY, holdout_top1=None))
    assert pick("400M", family) == "toy-s"


def test_a_slice_without_weights_is_never_picked() -> None:
    family = make_family(SMALL, replace(BEST, statistics=None))
    assert pick("400M", family) == "toy-s"


def test_an_unknown_figure_never_fits() -> None:
    family = make_family(SMALL, replace(BEST, bytes=None))
    assert pick("400MB", family) == "toy-s"
    with pytest.raises(NothingFitsError, match="its bytes is not known"):
        pick("400MB", make_family(replace(BEST, bytes=None)))


@pytest.mark.parametrize(
    ("text", "name"),
    [("top1>=50", "toy-s"), ("top1>=80", "toy-s"), ("top1>=80.1", "toy-m"), ("top1>=85.5", "toy-l")],
)
def test_a_lower_limit_alone_takes_the_cheapest(text: str, name: str) -> None:
    assert pick(text) == name


def test_nothing_fits_names_the_nearest_and_what_it_misses_by() -> None:
    with pytest.raises(NothingFitsError) as caught:
        pick("200KB")
    assert str(caught.value) == (
        "nothing in family 'toy' meets 200KB. Nearest: 'toy-s': 300.00 KB is 100.00 KB over 200KB."
    )
    assert caught.value.exit_code == 3
    with pytest.raises(NothingFitsError) as caught:
        pick("top1>=95")
    assert str(caught.value) == (
        "nothing in family 'toy' meets top1>=95. Nearest: 'toy-l': top-1 90.00 % is 5.00 points below top1>=95."
    )


def test_nothing_fits_counts_only_what_is_missed() -> None:
    with pytest.raises(NothingFitsError) as caught:
        pick("400M,305KB,top1>=84")
    assert str(caught.value).endswith("Nearest: 'toy-m': 310.00 KB is 5.00 KB over 305KB.")


def test_the_nearest_miss_is_the_one_with_the_least_relative_excess() -> None:
    limit = SMALL.macs - 1
    with pytest.raises(NothingFitsError) as caught:
        pick(f"{limit}MACs")
    assert f"Nearest: 'toy-s': {SMALL.macs / 1e6:.2f} MMACs is 1 MACs over {limit}MACs." in str(caught.value)


@pytest.mark.parametrize("text", ["8ms@pixel-6", "400M,8ms@pixel-6"])
def test_a_latency_budget_names_the_device(text: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        pick(text)
    assert "budget '8ms@pixel-6': there is no latency table for device 'pixel-6'" in str(caught.value)
    assert not isinstance(caught.value, NothingFitsError)


def test_check_fits() -> None:
    selection.check_fits(SMALL, Budget.parse("300KB,top1>=80"))
    with pytest.raises(NothingFitsError) as caught:
        selection.check_fits(SMALL, Budget.parse("200KB,top1>=81"))
    assert str(caught.value) == (
        "'toy-s' does not meet 200KB, top1>=81: 300.00 KB is 100.00 KB over 200KB; "
        "top-1 80.00 % is 1.00 points below top1>=81."
    )


@pytest.mark.parametrize(
    ("budget", "name"),
    [("300MFLOPs", "bignas-s"), ("400MFLOPs", "bignas-s"), ("418MFLOPs", "bignas-m"), ("5GMACs", "bignas-xl")],
)
def test_underuse_names_the_paper_model_that_would_use_the_budget(budget: str, name: str) -> None:
    hint = selection.underuse(BEST, Budget.parse(budget))
    assert hint is not None
    share = float(Fraction(BEST.macs) / Budget.parse(budget).limits[0].value * 100)
    assert f"'toy-b' is the most accurate of its family, yet uses only {share:.1f} % of {budget}." in hint
    assert f"'{name}'" in hint
    assert "weights were never published" in hint


def test_underuse_without_a_larger_model_that_fits() -> None:
    hint = selection.underuse(SMALL, Budget.parse("100MMACs"))
    assert hint is not None
    assert hint.endswith("% of 100MMACs.")
    assert "published" not in hint


def test_no_hint_once_half_of_one_limit_is_used() -> None:
    assert selection.underuse(SMALL, Budget.parse("600KB")) is None
    assert selection.underuse(SMALL, Budget.parse("601KB")) is not None
    assert selection.underuse(SMALL, Budget.parse("5GMACs,600KB")) is None
    assert selection.underuse(SMALL, Budget.parse("top1>=10")) is None


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        ("macs", 17_300_000, "17.30 MMACs"),
        ("macs", 1_036_682_000, "1.04 GMACs"),
        ("parameters", 999, "999 params"),
        ("parameters", 1000, "1.00 Kparams"),
        ("bytes", 0, "0 B"),
        ("bytes", 4_100_000, "4.10 MB"),
    ],
)
def test_amounts(quantity: str, value: float, text: str) -> None:
    assert amount(quantity, value) == text


def description() -> dict[str, Any]:
    def entry(s: Slice) -> dict[str, Any]:
        return {
            "name": s.name,
            "spec": s.spec.to_json(),
            "top1": s.top1,
            "top1_images": 100,
            "top1_source": "tests",
            "holdout_top1": s.holdout_top1,
            "bytes": s.bytes,
            "statistics": {"file": f"bn/{s.name}.safetensors", "bytes": 10, "sha256": SHA},
        }

    return {
        "schema": "bignas-zoo/family/1",
        "name": "toy",
        "description": "Made up.",
        "space": BIGNAS_CIFAR10.to_json(),
        "class_names": list("abcdefghij"),
        "preprocess": {"crop_size": 32, "mean": [127.5] * 3, "std": [64.0] * 3},
        "weights": {"file": "supernet.safetensors", "bytes": 10, "sha256": SHA},
        "training": {"recipe": None},
        "slices": [entry(s) for s in (BEST, SMALL)],
    }


def write_family(folder: Path, data: Any) -> Path:
    (folder / "family.json").write_bytes(data if isinstance(data, bytes) else json_bytes(data))
    return folder


def test_a_family_folder_is_read(tmp_path: Path) -> None:
    family = registry.get_family(write_family(tmp_path, description()))
    assert [s.name for s in family.slices] == ["toy-s", "toy-b"]
    assert family.slices[0].spec == SMALL.spec
    assert family.slices[0].holdout_top1 == 81.0
    assert family.space == BIGNAS_CIFAR10
    assert family.weights == FileRecord("supernet.safetensors", 10, SHA)
    assert family.path(family.weights) == tmp_path / "supernet.safetensors"
    assert registry.find_slice("s", tmp_path)[1].name == "toy-s"


@pytest.mark.parametrize("key", sorted(description()))
def test_a_missing_key(tmp_path: Path, key: str) -> None:
    data = description()
    del data[key]
    with pytest.raises(IntegrityError, match=r"family\.json: not a valid family description \(key ") as caught:
        load_family(write_family(tmp_path, data))
    assert f"'{key}'" in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("key", sorted(description()["slices"][0]))
def test_a_slice_with_a_missing_key(tmp_path: Path, key: str) -> None:
    data = description()
    del data["slices"][0][key]
    with pytest.raises(IntegrityError, match=f"key '{key}' is missing"):
        load_family(write_family(tmp_path, data))


def test_another_schema(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="schema is 'bignas-zoo/family/9', this version reads"):
        load_family(write_family(tmp_path, {**description(), "schema": "bignas-zoo/family/9"}))


@pytest.mark.parametrize("data", [b"", b"{", b"not json", b"\xff", b"null", b"[]", b"3", b'"text"', b"{}"])
def test_not_a_description_at_all(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        registry.get_family(write_family(tmp_path, data))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "bn/../../evil", "..", "..\\evil", "C:\\evil", "a/../b", "\\\\host\\share"]
)
@pytest.mark.parametrize("place", ["weights", "statistics"])
def test_file_names_cannot_leave_the_folder(tmp_path: Path, name: str, place: str) -> None:
    data = description()
    (data if place == "weights" else data["slices"][1])[place]["file"] = name
    with pytest.raises(IntegrityError, match="leaves the family's folder"):
        load_family(write_family(tmp_path, data))


def test_a_slice_outside_its_space(tmp_path: Path) -> None:
    data = description()
    data["slices"][0]["spec"]["resolution"] = 33
    with pytest.raises(IntegrityError, match="resolution 33 is not in space 'bignas-cifar10'"):
        load_family(write_family(tmp_path, data))


@pytest.mark.parametrize(("key", "value"), [("top1", 10**400), ("holdout_top1", 10**400), ("bytes", "12")])
def test_a_figure_that_is_no_number(tmp_path: Path, key: str, value: Any) -> None:
    data = description()
    data["slices"][0][key] = value
    with pytest.raises(IntegrityError, match="not a valid family description"):
        load_family(write_family(tmp_path, data))


def test_an_endless_file_size(tmp_path: Path) -> None:
    data = json.dumps(description()).replace('"bytes": 10', '"bytes": 1e999')
    with pytest.raises(IntegrityError, match="1e999 is too large a number"):
        load_family(write_family(tmp_path, data.encode()))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


JUNK = [None, True, -1, 0, 2.5, 10**30, float("inf"), float("nan"), "", "x", "\0", [], [1], ["x"], {}, {"x": 1}]


def loaded_or_refused(folder: Path) -> Family | IntegrityError:
    try:
        return load_family(folder)
    except IntegrityError as error:
        return error


@given(st.sampled_from(places(description())[1:]), st.sampled_from(JUNK))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_an_integrity_error_or_leaves_a_usable_family(
    tmp_path: Path, place: tuple[Any, ...], junk: Any
) -> None:
    data = copy.deepcopy(description())
    target = data
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = junk
    family = loaded_or_refused(write_family(tmp_path, json.dumps(data).encode()))
    if isinstance(family, IntegrityError):
        assert str(tmp_path / "family.json") in str(family)
        return
    assert [s.macs for s in family.slices] == sorted(cost.macs(s.spec) for s in family.slices)
    budget = Budget.parse("400M,400MB,top1>=1")
    fitting = [s for s in family.slices if not budget.violations(s.figures)]
    if fitting:
        assert selection.pick(family, budget) in fitting
    else:
        with pytest.raises(NotFoundError):
            selection.pick(family, budget)


def test_a_folder_that_is_no_slices_says_so(tmp_path: Path) -> None:
    for name in ("empty", "of-folders"):
        (tmp_path / name).mkdir()
    (tmp_path / "of-folders" / "slice.json").mkdir()
    for name in ("empty", "of-folders"):
        with pytest.raises(NotFoundError, match="is a folder, but no slice's: it has no file slice.json"):
            registry.find_slice(str(tmp_path / name))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("files"), "key 'files' is missing"),
        (TypeError("x"), "a value is of the wrong kind: x"),
        (AttributeError("x"), "a value is of the wrong kind: x"),
        (ValueError("x"), "x"),
        (OverflowError("x"), "x"),
        (RecursionError("x"), "x"),
    ],
)
def test_what_goes_wrong_in_reading_is_damage(error: Exception, words: str) -> None:
    for fix, end in (("Make it again.", ". Make it again."), ("", ".")):
        with pytest.raises(IntegrityError) as problem, records.reading("f.json: not a list", fix):
            raise error
        assert str(problem.value) == f"f.json: not a list ({words}){end}"
        assert problem.value.__cause__ is error


@pytest.mark.parametrize("error", [OSError("x"), NotFoundError("x"), IntegrityError("x")])
def test_other_errors_pass_through_reading(error: Exception) -> None:
    with pytest.raises(type(error)) as problem, records.reading("f.json: not a list"):
        raise error
    assert problem.value is error


def test_a_slice_folder_is_told_what_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "slice.json").write_text("{}")
    with pytest.raises(NotFoundError) as problem:
        registry.find_slice(str(tmp_path))
    for words in ("is a slice folder", f"`bignas-zoo export {tmp_path}`", f"`bignas-zoo verify {tmp_path}`"):
        assert words in str(problem.value)


@pytest.mark.parametrize("name", ["zoo/s", "hf:/zoo/s", "HF://zoo/s", "https://huggingface.co/zoo/s", "zoo/s/"])
def test_what_looks_like_a_repository_is_told_how_to_be_written(name: str) -> None:
    with pytest.raises(NotFoundError, match=r"There is no such folder, and a slice of the Hub is written hf://zoo/s\."):
        registry.find_slice(name)


@pytest.mark.parametrize("name", ["a/b/c", "../s", "bignas-z"])
def test_other_unknown_names_get_no_such_hint(name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        registry.find_slice(name)
    assert "hf://" not in str(caught.value)


def test_the_folder_of_a_run_stands_for_its_family(tmp_path: Path) -> None:
    (tmp_path / "run" / "family").mkdir(parents=True)
    write_family(tmp_path / "run" / "family", description())
    assert registry.get_family(tmp_path / "run").folder == tmp_path / "run" / "family"
