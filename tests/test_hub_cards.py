"""Cards: every shipped slice's is rendered and checked; every snippet is run; no number comes from nowhere."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT, TINY
from hub_fixtures import REPO
from hub_repos import WRITER
from hub_server import HubServer

import bignas_zoo as bz
from bignas_zoo.architecture.plan import plan
from bignas_zoo.cli.main import main
from bignas_zoo.files import store
from bignas_zoo.hub_cards.card import render_card
from bignas_zoo.hub_cards.metadata import eval_results
from bignas_zoo.tasks import slice_files
from bignas_zoo.zoo import registry, slice_folder
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice

RECORD = {"bytes": 123_457, "sha256": "0123456789abcdef" * 4}
PARITY = {
    "max_abs": 2.5e-6,
    "mean_abs": 1e-7,
    "max_logit": 9.5,
    "images": 16,
    "inputs": "random inputs (normal, seed 0)",
}
EXPORTS = [
    {
        "file": "model-int8.tflite", "bytes": 65_432, "format": "tflite", "precision": "int8",
        "parity": {"score_max_abs": 0.031, "images": 333, "inputs": "images of CIFAR-10"},
        "accuracy": {"float_top1": 85.54, "top1": 84.99, "loss": 0.55, "images": 2000, "source": "CIFAR-10 | test"},
    },
    {
        "file": "model.onnx", "bytes": 76_543, "format": "onnx", "precision": "float32", "input": {"name": "image"},
        "parity": {"score_max_abs": 1.5e-6, "images": 16, "inputs": "random inputs"}, "accuracy": None,
    },
]  # fmt: skip
LATENCY = [
    {
        "device": "my-phone", "predicted_ms": 7.125, "low_ms": 6.0625, "high_ms": 8.1875, "risk": "upper", "notes": [],
        "protocol": {"device": "A phone | 2026", "runtime": "LiteRT", "version": "2.3.0", "threads": None,
                     "delegate": None, "precision": "float32", "batch": 1, "clocks": None, "time": "wall"},
    }
]  # fmt: skip
SHIPPED = [(f, s) for f in registry.families() if f.weights for s in f.slices]
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]\d+)?")


def described(family: Family, chosen: Slice) -> dict[str, Any]:
    files = {name: dict(RECORD) for name in ("model.tflite", "model.safetensors", "labels.txt")}
    return slice_files.content(family, chosen, files, PARITY)


def leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield key
            yield from leaves(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from leaves(value)
    else:
        yield data


def forms(data: Any) -> set[str]:
    """Return every way in which the numbers of JSON data may stand in a card."""
    found: set[str] = set()
    for value in leaves(data):
        if isinstance(value, int | float) and not isinstance(value, bool):
            found |= {
                str(value),
                f"{value:,}",
                f"{value:.2f}",
                f"{value:.1e}",
                f"{value / 1e6:.1f}",
                f"{value / 1e6:.2f}",
            }
        elif isinstance(value, str):
            found |= set(NUMBER.findall(value)) | {value[:12]}
    return found


@pytest.mark.parametrize(("family", "chosen"), SHIPPED, ids=[s.name for _, s in SHIPPED])
def test_the_file_for_leaderboards_is_what_the_hubs_own_reader_reads(family: Family, chosen: Slice) -> None:
    from huggingface_hub import parse_eval_result_entries

    text = eval_results(described(family, chosen))
    assert text is not None
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.value) == ("uoft-cs/cifar10", chosen.top1)
    assert entry.notes == f"top-1 % on {chosen.top1_source}"


def test_no_file_for_leaderboards_without_an_accuracy_on_data_that_the_hub_has() -> None:
    family, chosen = SHIPPED[0]
    assert eval_results({**described(family, chosen), "top1": None}) is None
    assert eval_results({**described(family, chosen), "top1_source": "noise | test"}) is None


@pytest.mark.parametrize(("family", "chosen"), SHIPPED, ids=[s.name for _, s in SHIPPED])
@pytest.mark.parametrize("repo", [None, "zoo/some"])
def test_the_card_of_every_shipped_slice(family: Family, chosen: Slice, repo: str | None) -> None:
    description = {**described(family, chosen), "latency": LATENCY}
    card = render_card(
        description, chosen.spec, EXPORTS, repo=repo, plots=("plots/architecture.png", "plots/front.png")
    )
    head, body = re.fullmatch(r"---\n(.*?)\n---\n\n(# .*)", card, re.DOTALL).groups()  # type: ignore[union-attr]
    data = yaml.safe_load(head)
    assert (data["license"], data["library_name"]) == ("apache-2.0", "keras")
    assert data["pipeline_tag"] == "image-classification"
    assert {"bignas-zoo", "bignas", "tflite", "onnx"} <= set(data["tags"])
    assert data["datasets"] == ["uoft-cs/cifar10"]
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == chosen.top1
    assert result["dataset"]["name"] == chosen.top1_source
    assert data["bignas_zoo"]["macs"] == chosen.macs
    for heading in ("Run it", "Accuracy", "Latency", "Architecture", "Training", "Limits", "Provenance", "Citation"):
        assert f"\n## {heading}\n" in body
    for value in (f"{chosen.top1:.2f} %", f"{chosen.top1_images:,} images", "7.12 | 6.06 | 8.19", "A phone \\| 2026"):
        assert value in body, value
    assert (
        "| 65,432 | int8 | 3.1e-02 | 333 images of CIFAR-10 | 84.99 % on 2,000 images (CIFAR-10 \\| test) | 0.55 |"
        in body
    )
    blocks = [
        (b.name, b.size_in, b.cin, b.mid, b.cout, b.kernel, sum(o.macs for o in b.ops)) for b in plan(chosen.spec)
    ]
    template = "".join(p.read_text("utf-8") for p in (ROOT / "hub_cards").glob("*.j2"))
    known = forms([description, EXPORTS, blocks, chosen.spec.space.classes]) | set(NUMBER.findall(template))
    unknown = [n for n in NUMBER.findall(body) if n not in known and n.replace(",", "") not in known]
    # Widths, sizes and the like are in slice.json too, as the child; short numbers may be parts of names.
    assert [n for n in unknown if not re.search(rf"[a-zA-Z0-9_-]{re.escape(n)}", body)] == []


def test_the_hub_reads_the_metadata(slice_folder: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard((slice_folder / "README.md").read_text("utf-8"))
    assert card.data.license == "mit"
    assert card.data.eval_results[0].metric_value == 25.0
    assert card.data.datasets is None  # noise is no data set of the Hub


def test_the_same_description_gives_the_same_card(slice_folder: Path) -> None:
    chosen, description = slice_folder_of(slice_folder)
    assert render_card(description, chosen.spec) == render_card(json.loads(json.dumps(description)), chosen.spec)


def slice_folder_of(folder: Path) -> tuple[Slice, Any]:
    return slice_folder.describe(folder)


@pytest.mark.parametrize("training", [{}, {"recipe": {}}, {"recipe": "x", "images": 3}, None])
def test_a_family_that_does_not_say_how_it_was_trained(slice_folder: Path, training: Any) -> None:
    chosen, description = slice_folder_of(slice_folder)
    assert "## Training" not in render_card({**description, "training": training}, chosen.spec)


def test_names_cannot_break_a_table(slice_folder: Path) -> None:
    chosen, description = slice_folder_of(slice_folder)
    card = render_card({**description, "top1_source": "a | b\n# c"}, chosen.spec)
    assert "% on a \\| b # c |" in card


def test_the_command_prints_or_writes_a_card(slice_folder: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["card", str(slice_folder)])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == (slice_folder / "README.md").read_text("utf-8")
    target = tmp_path / "card.md"
    done = CliRunner().invoke(main, ["card", str(slice_folder), "--repo", REPO, "--output", str(target)])
    assert done.exit_code == 0, done.output
    assert f'hf_hub_download("{REPO}", "tflite/model.tflite")' in target.read_text("utf-8")


def test_a_description_that_lacks_what_a_card_needs(slice_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "slice"
    shutil.copytree(slice_folder, folder)
    description = json.loads((folder / "slice.json").read_text())
    del description["versions"]
    store.write_json(folder / "slice.json", store.sealed(description))
    done = CliRunner().invoke(main, ["card", str(folder)])
    assert done.exit_code == 4
    assert "slice.json: it, or exports.json, lacks what a card needs ('versions' is undefined" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "seen"),
    [
        ("macs", 1, "macs is 1, of this child it is"),
        ("macs", int("9" * 4000), "macs is 9999"),
        ("macs", -5, "macs is -5"),
        ("parameters", 1, "parameters is 1, of this child it is"),
        ("resolution", 224, "resolution is 224, of this child it is 12"),
        ("bytes", 1, "bytes is 1, of this child it is 50000"),
        ("family", "f\u202ex", "is not a name"),
        ("family", 5, "is not a name"),
        ("license", "a\u202eb", "is not the name of a licence"),
        ("license", "](x) <img>", "is not the name of a licence"),
        ("family", "](x) <img> |", "is not a name"),
        ("versions", {"python": "3\x1b[2J"}, "cannot be shown"),
        ("training", {"notes": ["a\u200fb"]}, "cannot be shown"),
        ("training", {"a\x07": 1}, "cannot be shown"),
    ],
)
def test_a_description_sealed_anew_cannot_say_what_is_not_so(
    slice_folder: Path, tmp_path: Path, key: str, value: object, seen: str
) -> None:
    import shutil

    folder = tmp_path / "slice"
    shutil.copytree(slice_folder, folder)
    description = json.loads((folder / "slice.json").read_text()) | {key: value}
    store.write_json(folder / "slice.json", store.sealed(description))
    for command in ("card", "show"):
        done = CliRunner().invoke(main, [command, str(folder)])
        assert done.exit_code == 4, done.output
        assert seen in done.stderr
        assert len(done.stderr) < 1_000 + len(str(folder))


def test_text_of_others_stays_text_in_a_card() -> None:
    family, chosen = SHIPPED[0]
    hostile = "](x) <img src=x onerror=alert(1)> `\n# Head\n```"
    description = described(family, chosen)
    plain = render_card(description, chosen.spec)
    training = {
        **description["training"], "notes": f"one\n\n# {hostile}", "machine": f"| {hostile}", "command": hostile,
        "recipe": {**description["training"]["recipe"], "optimizer": hostile, "space": hostile},
    }  # fmt: skip
    versions = {**description["versions"], hostile: hostile}
    card = render_card({**description, "training": training, "versions": versions, "license": hostile}, chosen.spec)
    body = card.split("\n---\n", 1)[1]  # the head is YAML
    outside = re.sub(r"^```.*?^```", "", body, flags=re.MULTILINE | re.DOTALL)
    assert "<img" not in outside
    assert not re.search(r"(?<!\\)\]\(x\)", outside)
    assert body.count("```") == plain.count("```")
    assert re.findall("^#+ .*", body, re.MULTILINE) == re.findall("^#+ .*", plain, re.MULTILINE)


def test_a_snippet_cannot_be_broken_out_of(slice_folder: Path) -> None:
    description, spec = json.loads((slice_folder / "slice.json").read_text()), TINY.smallest
    name = 'x": 0}); import os; ({"'
    parity = {"score_max_abs": 1e-6, "images": 1, "inputs": "i"}
    entry = {
        "file": "model.onnx", "bytes": 1, "precision": "float32", "parity": parity, "accuracy": None,
        "input": {"name": name}, "format": "onnx",
    }  # fmt: skip
    card = render_card(description, spec, [entry])
    (line,) = [line for line in card.splitlines() if "session.run" in line]
    (asked,) = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Dict)]
    assert [ast.literal_eval(key) for key in asked.keys if key] == [name]


@pytest.mark.slow
def test_every_snippet_of_a_pushed_card_runs(
    hub: HubServer, tiny_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from bignas_zoo.hub import fetching

    folder = Path(shutil.copytree(tiny_slice, tmp_path / "slice"))
    bz.export_slice(folder, bz.Export("onnx"))
    result = bz.push(folder, REPO)
    head = hub.repos[REPO].head()
    assert {"onnx/model.onnx", "exports.json", "plots/architecture.png", "plots/front.png"} <= set(head)
    assert bz.push(folder, REPO).commit == result.commit  # made anew, the files are the same
    assert len(hub.history(REPO)) == 1
    blocks = re.findall(r"^```python\n(.*?)^```", head["README.md"].decode(), re.MULTILINE | re.DOTALL)
    prepare, *ways = blocks
    assert len(ways) == 3
    Image.new("RGB", (50, 40), (90, 120, 200)).save(tmp_path / "photo.jpg")
    # Nothing of ours, as with somebody who finds the card.
    blocked = "import sys; sys.modules.update(bignas_zoo=None)\n"
    answers = []
    for number, way in enumerate(ways):
        environment = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / f"home{number}"), "HF_TOKEN": WRITER,
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "KERAS_BACKEND": "tensorflow",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", blocked + prepare + way],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{way}\n{done.stderr[-2000:]}"
        answers.append(done.stdout.split()[0])
    assert len(set(answers)) == 1
    assert answers[0] in "abcde"
    fetched = fetching.fetch(f"hf://{REPO}").folder
    assert (fetched / "model.onnx").read_bytes() == head["onnx/model.onnx"]
    assert [e["file"] for e in slice_folder.read_exports(fetched)["exports"]] == ["model.onnx"]
    assert bz.verify(f"hf://{REPO}").passed
    assert bz.verify(bz.get(f"hf://{REPO}", output=tmp_path / "out").path).passed


@pytest.mark.slow
def test_a_real_slice_comes_back_and_computes_the_same(hub: HubServer, tiny_family: Path, tmp_path: Path) -> None:
    import numpy as np

    folder = bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "slice").path
    found = bz.get("tiny-smallest", family=tiny_family, output=tmp_path / "slice").slice
    commit = found.push_to_hub(REPO, family=tiny_family)
    images = np.random.default_rng(0).normal(size=(3, *bz.load(folder).input_shape[1:])).astype("f4")
    expected = np.asarray(bz.load(folder)(images))
    np.testing.assert_array_equal(np.asarray(bz.load(f"hf://{REPO}")(images)), expected)
    again = bz.Slice.from_pretrained(REPO, revision=commit)
    assert again.folder
    np.testing.assert_array_equal(np.asarray(bz.load(again.folder)(images)), expected)
    assert again.push_to_hub(REPO) == commit  # what was fetched is what is there


@pytest.mark.slow
def test_every_command_takes_an_address_like_a_folder(hub: HubServer, tiny_slice: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder, address = Path(shutil.copytree(tiny_slice, tmp_path / "slice")), f"hf://{REPO}"
    bz.push(folder, REPO)
    for i, name in enumerate("abcde"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (30, 24), (50 * i, 10, 200 - 40 * i)).save(tmp_path / "images" / name / "x.png")

    def both(*arguments: str) -> list[dict[str, Any]]:
        answers = []
        for name in (str(folder), address):
            done = CliRunner().invoke(main, [argument.replace("SLICE", name) for argument in arguments])
            assert done.exit_code == 0, done.stderr
            answers.append(json.loads(done.stdout))
        return answers

    here, there = both("show", "SLICE", "--json")
    assert {**here, "path": None} == {**there, "path": None}
    here, there = both("evaluate", "SLICE", "--data", str(tmp_path / "images"), "--json")
    assert here == there
    assert here["images"] == 5
    for name, more in ((str(folder), []), (address, ["-o", str(tmp_path / "exported")])):
        done = CliRunner().invoke(main, ["export", name, "--format", "onnx", *more])
        assert done.exit_code == 0, done.stderr
    assert (folder / "model.onnx").read_bytes() == (tmp_path / "exported" / "model.onnx").read_bytes()
