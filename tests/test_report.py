"""The report of a training on photographs: one page, nothing fetched, nothing from data that a browser would run."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_photos_parts import SMALL
from test_writers import weights_of

from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, NotFoundError
from bignas_zoo.files import store
from bignas_zoo.files.formats import REPORT_SCHEMA, THUMBNAIL
from bignas_zoo.hub_cards.report import render_report
from bignas_zoo.models.slicing import supernet_shapes
from bignas_zoo.models.weights import write_weights
from bignas_zoo.zoo.family import SCHEMA

#: Names that a page must show and a browser must not obey.
CLASSES = ["<script>alert(1)</script>", 'a" onload="x', "Größe & mehr", "{{ 7 * 7 }}", "plain"]


def picture() -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(buffer, "JPEG")
    return THUMBNAIL + base64.b64encode(buffer.getvalue()).decode()


def data(**changes: Any) -> dict[str, Any]:
    confusion = (10 * np.eye(5, dtype=int) + 1).tolist()
    mistake = {"image": picture(), "true": CLASSES[0], "said": CLASSES[1], "score": 0.987}
    return {
        "schema": REPORT_SCHEMA, "judged_on": "a test (75 images)", "judged_slice": "x-biggest",
        "remarks": ["50 images of 5 classes to train on", "Warning: 3 training images are copies of others"],
        "counts": {part: dict.fromkeys(CLASSES, 10) for part in ("train", "test")}, "confusion": confusion,
        "errors": [mistake] * 3, **changes,
    }  # fmt: skip


def write_run(run: Path, **changes: Any) -> Path:
    family = run / "family"
    family.mkdir(parents=True)
    weights = {k: v for k, v in weights_of(SMALL.biggest).items() if k in supernet_shapes(SMALL)}
    write_weights(family / "supernet.safetensors", weights)
    slices = []
    for name, child, top1 in (("x-smallest", SMALL.smallest, 71.5), ("x-biggest", SMALL.biggest, 93.25)):
        file = f"{name}.safetensors"
        write_weights(family / file, {k: v for k, v in weights_of(child).items() if k.endswith(("mean", "variance"))})
        slices.append({
            "name": name, "spec": child.to_json(), "top1": top1, "top1_images": 75, "top1_source": "a test",
            "holdout_top1": top1, "bytes": 12_345, "statistics": {"file": file, **store.record(family / file)},
        })  # fmt: skip
    record = {"file": "supernet.safetensors", **store.record(family / "supernet.safetensors")}
    description = {
        "schema": SCHEMA, "name": "x", "description": "a test", "license": "MIT", "source": "here",
        "space": SMALL.to_json(), "class_names": CLASSES, "weights": record, "slices": slices,
        "training": {"notes": "none", "machine": "this", "command": "bignas-zoo train photos --data '<x>'"},
        "preprocess": {"crop_size": 24, "mean": [128] * 3, "std": [64] * 3},
    }  # fmt: skip
    store.write_json(family / "family.json", store.sealed(description))
    store.write_json(run / "report.json", store.sealed(data(**changes)))
    return run


class Page(HTMLParser):
    """What a browser would make of a page: elements with attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_it_shows_everything_and_fetches_nothing(tmp_path: Path) -> None:
    page = render_report(write_run(tmp_path / "run"), {"my-phone": lambda s: f"{s.macs / 1e4:.1f}"})
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.elements]
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(tags)
    for tag, attributes in parsed.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert str(attributes.get(name) or "data:").startswith("data:image/") or name not in attributes
    assert "url(" not in page
    assert "@import" not in page
    text = " ".join(" ".join(parsed.text).split())
    for words in (*CLASSES, "x-smallest", "x-biggest", "93.25 ± 2.90", "71.50", "ms on my-phone", "a test (75 images)",
                  "3 training images are copies of others", "99 %"):  # fmt: skip
        assert words in text, words
    assert "49" not in re.findall(r"\{\{.*?\}\}", text)
    assert tags.count("figure") == 3
    # The confusion matrix, row by row: 11 right, one of each other.
    rows = re.findall(r"<th>[^<]*</th>((?:<td style=[^>]*>\d*</td>)+)", page)
    assert [re.findall(r">(\d*)</td>", row) for row in rows] == [
        ["11" if i == j else "1" for j in range(5)] for i in range(5)
    ]
    assert page.count("73.3") >= 5  # 11 of 15 of each class


def test_without_mistakes_it_says_so(tmp_path: Path) -> None:
    assert "<p>None.</p>" in render_report(write_run(tmp_path / "run", errors=[]))


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "other"},
        {"confusion": [[1, 2], [3, 4]]},
        {"errors": [{"image": "https://example.org/x.jpg", "true": "a", "said": "b", "score": 1.0}]},
        {"errors": [{"image": "javascript:alert(1)", "true": "a", "said": "b", "score": 1.0}]},
    ],
    ids=("schema", "matrix", "address", "script"),
)
def test_other_data_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="report.json"):
        render_report(write_run(tmp_path / "run", **changes))


def test_the_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    result = CliRunner().invoke(main, ["report", str(run), "--device", "xeon-amx-litert"])
    assert result.exit_code == 0, result.output
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    (run / "mine.txt").write_text("not a page")
    result = CliRunner().invoke(main, ["report", str(run), "-o", str(run / "mine.txt")])
    assert result.exit_code == 7
    assert (run / "mine.txt").read_text() == "not a page"
    missing = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert (missing.exit_code, "holds no finished run" in missing.stderr) == (3, True)
    with pytest.raises(NotFoundError):
        render_report(tmp_path)


@pytest.mark.slow
def test_a_browser_shows_it(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    run = write_run(tmp_path / "run")
    (run / "report.html").write_text(render_report(run), "utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,1600",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={tmp_path / 'shot.png'}", "--virtual-time-budget=3000", (run / "report.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (tmp_path / "shot.png").is_file(), done.stderr
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    assert pixels.shape[:2] == (1600, 1000)
    white = (pixels > 250).all(-1)
    assert 0.02 < 1 - white.mean() < 0.6  # text and tables, on white
    assert (~white).any(1)[:1200].mean() > 0.3  # down the page, not in one place
