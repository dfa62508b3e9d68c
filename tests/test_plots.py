"""Drawings: written whole, the same bytes each time, every name in them, and clear errors."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from conftest import LAYERWISE_CHILD

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces.small import BIGNAS_CIFAR10
from bignas_zoo.errors import IntegrityError, LocalIOError, NotFoundError, UsageError
from bignas_zoo.hub_cards import plots
from bignas_zoo.zoo.family import Family, load_family
from bignas_zoo.zoo.registry import paper_family
from bignas_zoo.zoo.slice import Slice

SOURCE = "CIFAR-10 test (9,500 images)"
CHOSEN_ON = "2,500 training images held out of training"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHORT_NAMES = ("smallest", "s", "m", "l", "xl", "f01", "f02", "f03", "f04", "biggest")

Draw = Callable[[Family, Path], None]
DRAWINGS: dict[str, Draw] = {
    "architectures": lambda family, path: plots.plot_architectures(family.slices, path),
    "front": plots.plot_front,
    "curve": plots.plot_curve,
}


def write_recorded(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    (folder / name).write_bytes(content)
    return {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def metrics_lines() -> bytes:
    records: list[dict[str, Any]] = []
    for step in range(20, 1001, 20):
        phase = "biggest" if step <= 400 else "sandwich"
        records.append({"step": step, "learning_rate": 0.2 * (1 - step / 1001), "phase": phase, "loss": 2.0})
        if step % 200 == 0:
            ends = {"smallest": 10 + step / 20, "biggest": 40 + step / 25}
            records.append({"step": step, "evaluation": ends})
    return "".join(json.dumps(r) + "\n" for r in records).encode()


@pytest.fixture
def family(tmp_path: Path) -> Family:
    """A family folder with everything a drawing reads; its slices crowd on purpose."""
    space, folder = BIGNAS_CIFAR10, tmp_path / "family"
    folder.mkdir()
    inner = [uniform_child(space, ("plots", i)) for i in range(30)]
    specs = [space.smallest, *inner[: len(SHORT_NAMES) - 2], space.biggest]
    nothing = write_recorded(folder, "nothing", b"")

    def measured(spec: ChildSpec, index: int, origin: str) -> dict[str, Any]:
        return {"spec": spec.to_json(), "macs": cost.macs(spec), "holdout_top1": 80.0 + index % 7, "origin": origin}

    front = {
        "schema": "bignas-zoo/front/1",
        "chosen_on": CHOSEN_ON,
        "measured": [
            measured(space.smallest, 0, "corner"),
            measured(space.biggest, 6, "corner"),
            *(measured(spec, i, "mutation" if i % 2 else "random") for i, spec in enumerate(inner)),
        ],
    }
    description = {
        "schema": "bignas-zoo/family/1",
        "name": "bignas-cifar10",
        "description": "A family for drawing.",
        "space": space.to_json(),
        "class_names": [f"class {i}" for i in range(space.classes)],
        "preprocess": {"crop_size": 32, "mean": [127.5] * 3, "std": [64.0] * 3},
        "weights": nothing,
        "front": write_recorded(folder, "front.json", json.dumps(front).encode()),
        "metrics": write_recorded(folder, "metrics.jsonl", metrics_lines()),
        "training": {"held_out": 2500},
        "slices": [
            {
                "name": f"bignas-cifar10-{short}",
                "spec": spec.to_json(),
                "top1": 84.0 + 0.25 * i,
                "top1_images": 9500,
                "top1_source": SOURCE,
                "holdout_top1": 84.0,
                "bytes": 1,
                "statistics": nothing,
            }
            for i, (short, spec) in enumerate(zip(SHORT_NAMES, specs, strict=True))
        ],
    }
    (folder / "family.json").write_text(json.dumps(description))
    return load_family(folder)


def texts(path: Path) -> list[str]:
    """Return the texts of an SVG file, which are texts and not outlines."""
    from xml.etree import ElementTree

    return [e.text or "" for e in ElementTree.parse(path).iter() if e.tag.endswith("}text")]


def draw_svg(name: str, family: Family, folder: Path) -> list[str]:
    path = folder / f"{name}.svg"
    DRAWINGS[name](family, path)
    return texts(path)


@pytest.mark.parametrize("name", DRAWINGS)
def test_png(name: str, family: Family, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.png"
    DRAWINGS[name](family, path)
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(PNG_SIGNATURE)
    assert 1000 <= width <= 4500
    assert 700 <= height <= 1500
    assert 20_000 < len(data) < 600_000


@pytest.mark.parametrize("name", DRAWINGS)
def test_svg_bytes_are_the_same_each_time_and_hold_no_date(name: str, family: Family, tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.SVG"
    DRAWINGS[name](family, first)
    DRAWINGS[name](family, second)
    assert first.read_bytes() == second.read_bytes()
    assert b"dc:date" not in first.read_bytes()


def test_the_papers_four_models_side_by_side(tmp_path: Path) -> None:
    family = paper_family()
    found = draw_svg("architectures", family, tmp_path)
    for chosen in family.slices:
        assert chosen.name in found
        assert f"{chosen.macs / 1e6:,.2f} MMACs, {chosen.spec.resolution} px" in found
        assert f"{chosen.spec.resolution} px" in found
    assert "top-1 (76.5 %, the paper's)" in found
    assert [f"stage {i}" in found for i in range(1, 9)] == [True] * 7 + [False]
    assert "not measured here" in " ".join(found)


def test_layerwise_widths_are_drawn_layer_by_layer(tmp_path: Path) -> None:
    chosen = Slice("layers", "none", LAYERWISE_CHILD, None, None, "")
    path = tmp_path / "layers.svg"
    plots.plot_architectures([chosen], path)
    labels = [t for t in texts(path) if re.fullmatch(r"(×\d+  )?k\dx\d → \d+", t)]
    assert [t.split()[-1] for t in labels] == ["8", "16", "24", "16", "16", "32", "16", "24"]


def test_one_slice_block_by_block(tmp_path: Path) -> None:
    chosen = paper_family().find("bignas-s")
    path = tmp_path / "one.svg"
    plots.plot_architectures([chosen], path)
    found = texts(path)
    blocks = plan(chosen.spec)
    mbconvs = [b for b in blocks if b.kind == "mbconv"]
    labels = [t for t in found if re.fullmatch(r"(×\d+  )?k\dx\d → \d+", t)]
    assert len(labels) == len(mbconvs)
    assert [t.split()[-1] for t in labels] == [str(b.cout) for b in mbconvs]
    assert "×6  k5x5 → 40" in labels
    assert found.count("/2") == sum(b.stride == 2 for b in blocks)
    assert [t for t in found if re.fullmatch(r"\d+ px", t)] == [f"{192 // 2**i} px" for i in range(6)]


def test_an_accuracy_of_ours_has_no_parentheses(family: Family, tmp_path: Path) -> None:
    found = draw_svg("architectures", family, tmp_path)
    assert "top-1 84.25 %" in found
    assert SOURCE in " ".join(found)


def test_a_slice_that_was_never_measured(tmp_path: Path) -> None:
    chosen = Slice("new", "none", BIGNAS_CIFAR10.smallest, None, None, "")
    path = tmp_path / "new.svg"
    plots.plot_architectures([chosen], path)
    assert "top-1 not measured" in texts(path)


def test_front_names_every_slice_and_says_on_which_images(family: Family, tmp_path: Path) -> None:
    found = draw_svg("front", family, tmp_path)
    assert set(SHORT_NAMES) <= set(found)
    assert {"MACs (multiply-adds, millions)", "top-1 %"} <= set(found)
    assert f"random children (15), on {CHOSEN_ON}" in found
    assert f"smallest and biggest child (2), on {CHOSEN_ON}" in found
    assert f"slices (10), on {SOURCE}" in found


def test_labels_of_the_front_do_not_overlap(family: Family) -> None:
    figure = plots._front(family, *plots.read_front(family))
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    assert len(boxes) == len(SHORT_NAMES)
    assert [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])] == []


def test_curve(family: Family, tmp_path: Path) -> None:
    found = draw_svg("curve", family, tmp_path)
    assert {"biggest child", "smallest child", "optimizer steps", "learning rate", "top-1 %"} <= set(found)
    assert {"biggest child alone", "sandwich rule"} <= set(found)
    assert plots._read_curve(family).sandwich_after == 400


def test_curve_of_a_run_without_the_first_phase(family: Family, tmp_path: Path) -> None:
    lines = metrics_lines().replace(b'"phase": "biggest"', b'"phase": "sandwich"')
    replace_recorded(family, "metrics", lines)
    assert "sandwich rule" not in draw_svg("curve", family, tmp_path)


def replace_recorded(family: Family, key: str, content: bytes) -> None:
    assert family.folder is not None
    path = family.folder / "family.json"
    data = json.loads(path.read_text())
    data[key] = write_recorded(family.folder, data[key]["file"], content)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("file", ["drawing.pdf", "drawing", "drawing.svg.gz"])
def test_other_suffixes_are_refused(name: str, file: str, family: Family, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"drawings are \.png or \.svg files; got suffix"):
        DRAWINGS[name](family, tmp_path / file)
    assert not (tmp_path / file).exists()


@pytest.mark.parametrize("name", DRAWINGS)
def test_without_matplotlib(name: str, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r'pip install "bignas-zoo\[plots\]"'):
        DRAWINGS[name](family, tmp_path / "drawing.png")


def test_no_slices(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one slice"):
        plots.plot_architectures([], tmp_path / "none.png")


@pytest.mark.parametrize("draw", [plots.plot_front, plots.plot_curve])
def test_a_family_without_files(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="never published"):
        draw(paper_family(), tmp_path / "paper.svg")


def test_a_folder_that_is_not_there(family: Family, tmp_path: Path) -> None:
    with pytest.raises(LocalIOError, match="cannot be written"):
        plots.plot_architectures(family.slices[:1], tmp_path / "missing" / "a.svg")


@pytest.mark.parametrize(("draw", "file"), [(plots.plot_front, "front.json"), (plots.plot_curve, "metrics.jsonl")])
def test_a_file_that_is_not_the_recorded_one(draw: Draw, file: str, family: Family, tmp_path: Path) -> None:
    assert family.folder is not None
    (family.folder / file).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="damaged or replaced"):
        draw(family, tmp_path / "a.svg")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"step": 1}\n', b'{"step": 1, "learning_rate": 0.1}\n'])
@pytest.mark.parametrize(("draw", "key"), [(plots.plot_front, "front"), (plots.plot_curve, "metrics")])
def test_a_recorded_file_with_other_content(
    draw: Draw, key: str, content: bytes, family: Family, tmp_path: Path
) -> None:
    replace_recorded(family, key, content)
    with pytest.raises(IntegrityError, match="not as this version writes it|not valid JSON"):
        draw(family, tmp_path / "a.svg")


def test_the_users_style_is_neither_used_nor_changed(family: Family, tmp_path: Path) -> None:
    import matplotlib

    plain = draw_svg("front", family, tmp_path)
    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 30.0}):
        assert draw_svg("front", family, tmp_path) == plain
        assert matplotlib.rcParams["font.size"] == 30.0


def test_pyplot_is_never_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from bignas_zoo.hub_cards.plots import plot_architectures\n"
        "from bignas_zoo.zoo.registry import paper_family\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_architectures(paper_family().slices, Path({str(tmp_path / 'a.png')!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'numpy' in sys.modules and 'keras' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
