"""Fine-tuning: a slice on one's own classes, from a folder of images to a slice folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import LocalIOError, UsageError
from bignas_zoo.files import store
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.weights import read_weights
from bignas_zoo.recipes.finetune_settings import FinetuneSettings
from bignas_zoo.tasks import finetune as finetuning
from bignas_zoo.tasks import slice_files

COLOURS = {"blue": (40, 50, 200), "green": (50, 190, 60), "red": (200, 60, 40)}
FILES = {"model.tflite", "labels.txt", "slice.json", "model.safetensors", "README.md"}
Paint = Callable[..., Path]


def contract(side: int) -> Preprocess:
    return Preprocess(side, (128.0,) * 3, (64.0,) * 3)


def paint(folder: Path, count: int, *, seed: int = 0, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """Write `count` noisy images a class, told apart by their colour."""
    generator = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.array(COLOURS[name]) + generator.normal(size=(22, 26, 3)) * 40
            suffix = "jpg" if i % 2 else "png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.{suffix}")
    return folder


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def weights(folder: Path) -> dict[str, np.ndarray]:
    return read_weights(folder / "model.safetensors")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split") / "Colour Photos"
    paint(folder / "train", 26)
    paint(folder / "test", 8, seed=1)
    return folder


@pytest.fixture(scope="module")
def parent(tiny_slice: Path) -> Path:
    return tiny_slice


@pytest.fixture(scope="module")
def tuned(tiny_family: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> finetuning.FinetuneResult:
    output = tmp_path_factory.mktemp("tuned") / "out"
    return bz.finetune("tiny-smallest", split, family=tiny_family, output=output, epochs=6, batch_size=16)


@pytest.fixture(scope="module")
def frozen(tiny_family: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> finetuning.FinetuneResult:
    output = tmp_path_factory.mktemp("frozen") / "out"
    return bz.finetune("tiny-smallest", split, family=tiny_family, output=output, freeze=True)


def test_accuracy_rises_far_above_chance(tuned: finetuning.FinetuneResult, frozen: finetuning.FinetuneResult) -> None:
    for result in (tuned, frozen):
        record = result.finetuned
        assert record["holdout_top1_before"] == pytest.approx(100 / 3)  # logits of zeros: the first class always wins
        assert record["holdout_top1"] == max(record["holdout_curve"]) >= 90
        assert result.slice.top1 is not None
        assert result.slice.top1 >= 90
        assert record["holdout_curve"][record["best_epoch"] - 1] == record["holdout_top1"]
        assert len(record["holdout_curve"]) == record["epochs"]


def test_the_folder_is_like_any_other(tuned: finetuning.FinetuneResult, split: Path) -> None:
    assert {p.name for p in tuned.path.iterdir()} == FILES
    assert (tuned.path / "labels.txt").read_text().split() == ["blue", "green", "red"]
    result = bz.evaluate(tuned.path, split / "test")
    assert result["name"] == tuned.slice.name == "tiny-smallest-colour-photos"
    assert result["top1"] == tuned.slice.top1
    assert result["images"] == tuned.slice.top1_images == 24
    assert bz.load(tuned.path).output_shape == (None, 3)
    shown = CliRunner().invoke(main, ["show", str(tuned.path), "--json"])
    assert json.loads(shown.stdout)["top1"] == tuned.slice.top1
    assert json.loads(shown.stdout)["blocks"][-1]["cout"] == 3


def test_the_tflite_file_computes_what_keras_computes(tuned: finetuning.FinetuneResult) -> None:
    from ai_edge_litert.interpreter import Interpreter

    child = bz.load(tuned.path)
    signature = Interpreter(str(tuned.path / "model.tflite")).get_signature_runner("classify")
    images = np.random.default_rng(5).normal(size=(8, *child.input_shape[1:])).astype("f4")
    logits = np.asarray(child(images, training=False), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for image, row in zip(images, expected, strict=True):
        np.testing.assert_allclose(signature(image=image[None])["scores"][0], row, atol=1e-5)


def test_frozen_training_changes_the_classifier_alone(frozen: finetuning.FinetuneResult, parent: Path) -> None:
    old, new = weights(parent), weights(frozen.path)
    assert old.keys() == new.keys()
    for name in old.keys() - {"classifier.kernel", "classifier.bias"}:
        np.testing.assert_array_equal(new[name], old[name], strict=True)
    assert new["classifier.kernel"].shape == (old["classifier.kernel"].shape[0], 3)
    assert new["classifier.bias"].shape == (3,)
    assert np.abs(new["classifier.kernel"]).max() > 0


def test_full_training_changes_every_weight(tuned: finetuning.FinetuneResult, parent: Path) -> None:
    old, new = weights(parent), weights(tuned.path)
    for name in old.keys() - {"classifier.kernel", "classifier.bias"}:
        assert not np.array_equal(new[name], old[name]), name
    assert new["classifier.kernel"].shape == (old["classifier.kernel"].shape[0], 3)


@pytest.mark.slow
def test_statistics_are_the_moments_of_the_training_images(tiny_family: Path, split: Path, tmp_path: Path) -> None:
    # The held-out images are a val split here, so that those trained on are known.
    folder = tmp_path / "data"
    shutil.copytree(split / "train", folder / "train")
    paint(folder / "val", 4, seed=2)
    result = bz.finetune("tiny-smallest", folder, family=tiny_family, output=tmp_path / "o", epochs=1, patience=1)
    from bignas_zoo.models.preprocess import Preprocess, read_image

    child = bz.load(result.path)
    pixels = np.stack([read_image(p, 20) for p in sorted((folder / "train").rglob("*.*"))])
    inputs = np.asarray(Preprocess.from_json(bz.get_family(tiny_family).preprocess).inputs(pixels, 12))
    stem = np.asarray(child.get_layer("stem")(inputs), np.float64).reshape(-1, 8)
    norm = child.get_layer("stem.bn")
    np.testing.assert_allclose(norm.moving_mean, stem.mean(0), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, stem.var(0), rtol=1e-4)
    assert result.finetuned["chosen_on_these"] is True
    assert result.slice.top1_source.startswith("data/val (12 images), which also chose")
    assert bz.evaluate(result.path, folder / "val")["top1"] == result.slice.top1


def test_provenance_names_parent_data_and_command(
    tuned: finetuning.FinetuneResult, tiny_family: Path, split: Path
) -> None:
    description = json.loads((tuned.path / "slice.json").read_text())
    family = bz.get_family(tiny_family)
    assert family.weights
    record = description["provenance"]["finetuned"]
    assert description["provenance"]["supernet_sha256"] == family.weights.sha256
    assert record["parent"]["name"] == "tiny-smallest"
    assert record["parent"]["weights"] == {
        name: store.sha256(tiny_family / name) for name in ("supernet.safetensors", "bn/tiny-smallest.safetensors")
    }
    # 15 % of 26 images are 3.9, so 4 of each class are held out.
    assert record["data"]["images"] == {
        "train": dict.fromkeys(COLOURS, 22),
        "holdout": dict.fromkeys(COLOURS, 4),
        "test": dict.fromkeys(COLOURS, 8),
    }
    assert record["command"].startswith("bignas-zoo finetune tiny-smallest --data 'Colour Photos' --epochs 6")
    assert record["chosen_on_these"] is False
    assert str(split.parent) not in json.dumps(description)
    assert description["space"]["classes"] == 3
    assert description["space"]["name"] == description["child"]["space"] == "tiny-3-classes"
    card = (tuned.path / "README.md").read_text()
    assert record["command"] in card
    assert "test images that chose nothing" in card
    assert "| blue | 22 | 4 | 8 |" in card


def test_a_slice_folder_can_be_tuned_again(tuned: finetuning.FinetuneResult, tmp_path: Path) -> None:
    data = paint(tmp_path / "two", 12, classes=("blue", "red"))
    output = tmp_path / "again"
    result = CliRunner().invoke(
        main,
        [
            "finetune",
            str(tuned.path),
            "--data",
            str(data),
            "--output",
            str(output),
            "--freeze",
            "--epochs",
            "3",
            "--json",
        ],
    )
    assert result.exit_code == 0, result.stderr
    data_out = json.loads(result.stdout)
    assert data_out["schema"] == "bignas-zoo/finetune/1"
    assert data_out["name"] == "tiny-smallest-colour-photos-two"
    assert data_out["finetuned"]["parent"]["weights"] == {
        "model.safetensors": store.sha256(tuned.path / "model.safetensors")
    }
    assert data_out["path"] == str(output)
    assert json.loads((output / "slice.json").read_text())["space"]["name"] == "tiny-2-classes"
    # 15 % of 12 are 1.8: two of each class; they chose the epoch and are all there is to report on.
    assert data_out["top1_images"] == 4
    assert data_out["finetuned"]["chosen_on_these"] is True
    assert "also chose the epoch" in data_out["top1_source"]
    assert "optimistic" in (output / "README.md").read_text()
    plain = CliRunner().invoke(main, ["show", str(output)])
    assert "also chose the epoch" in plain.stdout


def fails(data: Path, output: Path, *options: str, code: int, says: str, name: str = "") -> None:
    result = CliRunner().invoke(main, ["finetune", name, "--data", str(data), "--output", str(output), *options])
    assert result.exit_code == code, result.output
    assert says in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert not output.exists()


def test_bad_input_is_one_sentence_and_an_exit_code(parent: Path, tmp_path: Path) -> None:
    slice_, output = str(parent), tmp_path / "out"
    few = paint(tmp_path / "few", 10)
    fails(few, output, name="bignas-cifar10-sss", code=3, says="Did you mean 'bignas-cifar10-s'?")
    fails(few, output, name="bignas-s", code=3, says="never published")
    fails(tmp_path / "none", output, name=slice_, code=7, says="no such folder. Expected FOLDER/CLASS/*.jpg")
    fails(few, output, name=slice_, code=2, says="24 training images are too few for batch-norm calibration")
    fails(few, output, "--epochs", "0", name=slice_, code=2, says="--epochs: must be a whole number of at least 1")
    fails(few, output, "--holdout", "1", name=slice_, code=2, says="--holdout: must be between 0 and 1")
    fails(few, output, "--learning-rate", "nan", name=slice_, code=2, says="--learning-rate: must be above zero")
    one = paint(tmp_path / "one", 3, classes=("red",))
    fails(one, output, name=slice_, code=2, says="one class, 'red'; a classifier needs at least two")
    (tmp_path / "bare").mkdir()
    fails(tmp_path / "bare", output, name=slice_, code=2, says="no sub-folders; a classifier needs")
    (one / "green").mkdir()
    fails(one, output, name=slice_, code=2, says="class 'green' has 0 images; at least 2 are needed")
    mixed = tmp_path / "mixed"
    paint(mixed / "train", 3)
    paint(mixed / "valid", 3)
    fails(mixed, output, name=slice_, code=4, says="sub-folder 'valid' beside 'train' is none of train, val, test")
    (mixed / "valid").rename(mixed / "val")
    (mixed / "val" / "red").rename(mixed / "val" / "purple")
    fails(mixed, output, name=slice_, code=4, says="'purple' is none of the classes")
    broken = paint(tmp_path / "broken", 3)
    (broken / "red" / "1.jpg").write_bytes((broken / "red" / "1.jpg").read_bytes()[:200])
    fails(broken, output, name=slice_, code=4, says="1.jpg: damaged image")
    (tmp_path / "file").write_text("")
    fails(few, tmp_path / "file" / "out", "--freeze", name=slice_, code=7, says="cannot be created")


def test_an_output_among_the_classes_is_refused(parent: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 4)
    with pytest.raises(UsageError, match="each folder is a class of images"):
        bz.finetune(parent, data, output=data / "out", freeze=True)
    assert not (data / "out").exists()


def test_an_existing_output_is_kept_unless_forced(parent: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 4)
    output = tmp_path / "out"
    shutil.copytree(parent, output)
    before = (output / "slice.json").read_bytes()
    with pytest.raises(LocalIOError, match="--force"):
        bz.finetune(parent, data, output=output, freeze=True)
    assert (output / "slice.json").read_bytes() == before
    bz.finetune(parent, data, output=output, freeze=True, epochs=1, force=True)
    assert json.loads((output / "slice.json").read_text())["class_names"] == list(COLOURS)
    assert leftovers(tmp_path) == ["data", "out"]


@pytest.mark.parametrize("mode", ["--freeze", "--no-freeze"])
def test_a_loss_that_is_no_number_stops_and_leaves_nothing(parent: Path, tmp_path: Path, mode: str) -> None:
    data = paint(tmp_path / "data", 26)
    fails(
        data, tmp_path / "out", mode, "--learning-rate", "1e38", "--batch-size", "16",
        name=str(parent), code=8, says="Lower --learning-rate",
    )  # fmt: skip
    assert leftovers(tmp_path) == ["data"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])  # Ctrl-C, and what the command makes of SIGTERM
def test_an_interrupted_run_leaves_nothing(parent: Path, tmp_path: Path, stop: type[BaseException]) -> None:
    data = paint(tmp_path / "data", 4)

    def report(progress: object) -> None:
        raise stop

    with pytest.raises(stop):
        bz.finetune(parent, data, output=tmp_path / "out", freeze=True, report=report)
    assert leftovers(tmp_path) == ["data"]


def test_training_stops_when_accuracy_no_longer_rises(parent: Path, tmp_path: Path) -> None:
    from bignas_zoo.models.preprocess import Preprocess
    from bignas_zoo.recipes.finetune import finetune_child, with_new_classifier

    settings = FinetuneSettings(freeze=True, learning_rate=1e-30, patience=2)  # a rate that changes no weight
    images = finetuning.read_images(paint(tmp_path / "data", 8), contract(20), settings)
    spec, description, child = slice_files.read(parent)
    child = with_new_classifier(child, spec, finetuning._spec(spec, 3))
    kernel = child.get_layer("classifier").kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    before = child.get_weights()
    said: list[str] = []
    preprocess = Preprocess.from_json(description["preprocess"])
    outcome = finetune_child(child, preprocess, images.train, images.holdout, settings, say=said.append)
    assert (outcome.epochs, outcome.best_epoch) == (3, 1)  # epoch 1 is the highest, two more are waited for
    assert outcome.curve == (outcome.before,) * 3
    assert "no higher accuracy in 2 epochs" in said[-1]
    for old, new in zip(before, child.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-20)


def test_the_held_out_part_is_stratified_and_belongs_to_the_seed(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 10)
    for name in ("7.jpg", "8.png", "9.jpg"):
        (data / "red" / name).unlink()

    def held(seed: int) -> np.ndarray:
        images = finetuning.read_images(data, contract(8), FinetuneSettings(holdout=0.3, seed=seed))
        assert images.counts() == {
            "train": {"blue": 7, "green": 7, "red": 5}, "holdout": {"blue": 3, "green": 3, "red": 2},
        }  # fmt: skip
        together = np.concatenate([images.train.pixels, images.holdout.pixels]).reshape(27, -1)
        assert len(np.unique(together, axis=0)) == 27  # no image is in both
        return images.holdout.pixels

    np.testing.assert_array_equal(held(0), held(0))
    assert not np.array_equal(held(0), held(1))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", 2)
    (data / "red").rename(data / "train")
    assert finetuning.read_images(data, contract(8), FinetuneSettings()).classes == ("blue", "green", "train")


def test_the_learning_rate_warms_up_and_falls_as_a_half_cosine() -> None:
    settings = FinetuneSettings(learning_rate=0.4)
    rates = [settings.rate(step, 105) for step in range(106)]
    assert rates[0] == pytest.approx(0.4 / 5)  # 5 % of 105 steps
    assert rates[4] == rates[5] == pytest.approx(0.4)
    assert rates[55] == pytest.approx(0.2)
    assert rates[105] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 1.5}, {"batch_size": 1}, {"patience": 0}, {"seed": -1}, {"holdout": float("nan")}, {"freeze": 1},
     {"learning_rate": 0}, {"learning_rate": float("inf")}],
)  # fmt: skip
def test_senseless_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--" + next(iter(wrong)).replace("_", "-")):
        FinetuneSettings(**wrong)  # type: ignore[arg-type]


def test_names_stay_names() -> None:
    name = finetuning._slice_name("bignas-cifar10-s", "Ünser Ordner/..")
    assert name == "bignas-cifar10-s-nser-ordner"
    assert finetuning._slice_name("a", "写真") == "a-finetuned"
    assert len(finetuning._slice_name("a" * 90, "b" * 90)) == 96


@pytest.mark.slow
def test_three_classes_of_real_images(shared_data: Path, tmp_path: Path) -> None:
    from bignas_zoo.recipes.data import cifar10

    chosen = (3, 5, 7)  # cat, dog, horse: the pair cat and dog is CIFAR-10's hardest
    for part, count in (("train", 200), ("test", 100)):
        images = cifar10(shared_data, part)
        for label in chosen:
            folder = tmp_path / "animals" / part / images.class_names[label]
            folder.mkdir(parents=True)
            for i in np.flatnonzero(images.labels == label)[:count]:
                Image.fromarray(images.pixels[i]).save(folder / f"{i}.png")
    data = tmp_path / "animals"
    frozen = bz.finetune("bignas-cifar10-s", data, output=tmp_path / "a", freeze=True)
    whole = bz.finetune("bignas-cifar10-s", data, output=tmp_path / "b", epochs=4)
    for result in (frozen, whole):
        assert result.slice.top1_images == 300
        assert result.slice.top1 is not None
        assert result.slice.top1 >= 75
        assert bz.evaluate(result.path, data / "test")["top1"] == result.slice.top1
