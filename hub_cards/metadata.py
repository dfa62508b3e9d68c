"""What a card says to the Hub: licence, library, task, tags, data sets and results, as YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bignas_zoo.files.records import UNKNOWN
from bignas_zoo.hub_cards.licenses import hub_license

#: Tag by which `bignas-zoo list --hub` finds slices.
TAG = "bignas-zoo"
TASK = "image-classification"
#: Data sets that the Hub knows, by how our sources begin: what its id there is, and its split that we test on.
DATASETS = {
    "CIFAR-10 test": ("uoft-cs/cifar10", "test"),
    "Imagenette": ("frgfm/imagenette", "validation"),
    "ImageNet": ("ILSVRC/imagenet-1k", "validation"),
}


def metadata(description: Mapping[str, Any], exports: Iterable[Mapping[str, Any]] = (), *, keras: bool = True) -> str:
    """Return the metadata of a slice's card as YAML, without the lines around it.

    Args:
        description: the content of slice.json.
        exports: the entries of exports.json.
        keras: whether Keras can load it from the Hub.
    """
    from huggingface_hub import ModelCardData

    dataset = known_dataset(description)
    license, license_name = hub_license(description.get("license") or UNKNOWN)
    formats = {"tflite", *(entry["format"] for entry in exports)}
    methods = [] if "imported" in (description.get("training") or {}) else ["bignas", "once-for-all"]
    tags = [TAG, *methods, "litert", *sorted(formats & {"tflite", "onnx"})]
    data = ModelCardData(
        license=license,
        license_name=license_name,
        library_name="keras" if keras else TAG,
        pipeline_tag=TASK,
        tags=tags,
        datasets=[dataset[0]] if dataset else None,
        metrics=["accuracy"] if description["top1"] is not None else None,
        model_name=description["name"],
        eval_results=_results(description),
        bignas_zoo=summary(description),
    )
    text: str = data.to_yaml()
    return text.strip()


def summary(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a listing of the Hub shows of a slice without fetching it."""
    keys = ("name", "family", "macs", "parameters", "bytes", "resolution", "top1", "top1_images")
    return {**{key: description[key] for key in keys}, "classes": len(description["class_names"])}


def known_dataset(description: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return id and split of the test images on the Hub; None if they are not there."""
    source = str(description["top1_source"])
    return next((value for start, value in DATASETS.items() if source.startswith(start)), None)


def eval_results(description: Mapping[str, Any]) -> str | None:
    """Return the accuracy as the YAML of a file under ``.eval_results``, the Hub's newer form of a model index.

    The Hub shows it for data sets that it counts among its benchmarks. None without an accuracy on a data set it knows.

    Args:
        description: the content of slice.json.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    dataset = known_dataset(description)
    if dataset is None or description["top1"] is None:
        return None
    entry = EvalResultEntry(
        dataset_id=dataset[0],
        task_id="default",
        value=description["top1"],
        notes=f"top-1 % on {description['top1_source']}",
    )
    text: str = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return text


def _results(description: Mapping[str, Any]) -> Any:
    from huggingface_hub import EvalResult

    if description["top1"] is None:
        return None
    dataset, split = known_dataset(description) or ("other", None)
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=str(description["top1_source"]),
            dataset_split=split,
            metric_type="accuracy",
            metric_name="top-1 %",
            metric_value=description["top1"],
        )
    ]
