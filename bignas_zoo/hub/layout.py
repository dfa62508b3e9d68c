"""Where a slice folder's files are in its repository, and the other way round."""

from __future__ import annotations

from bignas_zoo.files import names
from bignas_zoo.files.formats import EXPORT_NAME

#: The layout that ``keras.saving.load_model("hf://ORG/NAME")`` opens.
KERAS = (names.CONFIG, "metadata.json", "model.weights.h5")
PLOTS = ("plots/architecture.png", "plots/front.png")
#: The accuracy as the Hub reads it. Nothing here fetches it, so it is not in the manifest.
EVAL_RESULTS = ".eval_results/top1.yaml"
PLAIN = (names.CARD, names.SLICE, names.WEIGHTS, names.LABELS, names.EXPORTS, names.NOTICE)
FOLDERS = {".tflite": "tflite", ".onnx": "onnx"}
#: Without these a repository is no slice. config.json is one of them: whoever fetches it is counted as a download.
REQUIRED = (names.SLICE, names.WEIGHTS, names.LABELS, names.CARD, names.CONFIG, "tflite/model.tflite")


def published(name: str) -> str | None:
    """Return the path in the repository of a slice folder's file; None if it stays at home."""
    if name in PLAIN:
        return name
    suffix = name[name.rfind(".") :]
    if EXPORT_NAME.fullmatch(name) and suffix in FOLDERS:
        return f"{FOLDERS[suffix]}/{name}"
    return None


def local(path: str) -> str | None:
    """Return the name in the slice folder of a repository's file; None if it is not part of a slice folder."""
    name = path.rpartition("/")[2]
    return name if published(name) == path else None


def is_ours(path: str) -> bool:
    """Return whether a push may have put a repository's file there, so that a later one may remove it."""
    return path in (*KERAS, *PLOTS, EVAL_RESULTS, names.SUMS, names.SIGNATURE) or local(path) is not None
