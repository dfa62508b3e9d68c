"""What a library that is not ours says about a TFLite file: a program for the Python that has the library.

`judges.py` runs it in a process of its own; it imports nothing of this package. One JSON object comes on stdin,
``{"judge": name, "model": path, "images": [paths], "top": number}``; one goes to stdout: ``{"judge": name and
version, "answer": ...}``, or ``{"error": "missing" or "refused", "message": ...}``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

Answer = list[list[tuple[str, float]]]


class RefusedError(Exception):
    """The library does not take the file."""


def task_library(model: str, images: list[str], top: int) -> Answer:
    """Classify images with the TensorFlow Lite Task Library; it resizes them bilinearly if their size differs."""
    prepare_tflite_support()
    from tflite_support.task import core, processor, vision

    options = vision.ImageClassifierOptions(
        core.BaseOptions(file_name=model, num_threads=1), processor.ClassificationOptions(max_results=top)
    )
    try:
        classifier = vision.ImageClassifier.create_from_options(options)
        results = [classifier.classify(vision.TensorImage.create_from_file(image)) for image in images]
    except (RuntimeError, ValueError, OSError) as error:  # which of them depends on the release
        raise RefusedError(str(error)) from error
    return [[(c.category_name, c.score) for c in result.classifications[0].categories] for result in results]


def mediapipe(model: str, images: list[str], top: int) -> Answer:
    """Classify images with the ImageClassifier of MediaPipe Tasks."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model), max_results=top)
    try:
        with vision.ImageClassifier.create_from_options(options) as classifier:
            results = [classifier.classify(mp.Image.create_from_file(image)) for image in images]
    except (RuntimeError, ValueError, OSError) as error:  # which of them depends on the release
        raise RefusedError(str(error)) from error
    return [[(c.category_name, c.score) for c in result.classifications[0].categories] for result in results]


def metadata(model: str, images: list[str], top: int) -> dict[str, Any]:
    """Return what tflite-support's own reader finds: the metadata as JSON, and the packed files' text."""
    prepare_tflite_support()
    from tensorflow_lite_support.metadata.python.metadata import MetadataDisplayer

    try:
        reader = MetadataDisplayer.with_model_file(model)
        files = {n: reader.get_associated_file_buffer(n).decode() for n in reader.get_packed_associated_file_list()}
        return {"metadata": json.loads(reader.get_metadata_json()), "files": files}
    except ValueError as error:
        raise RefusedError(str(error)) from error


def prepare_tflite_support() -> None:
    """Let tflite-support load: it wants libusb in the process, and clashes with TensorFlow."""
    import ctypes

    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # else: type "StatusCode" is registered twice
    try:
        ctypes.CDLL("libusb-1.0.so.0", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        import libusb_package

        ctypes.CDLL(str(libusb_package.get_library_path()), mode=ctypes.RTLD_GLOBAL)


#: Each judge with the package that its version is asked of.
JUDGES: dict[str, tuple[Any, str]] = {
    "task-library": (task_library, "tflite-support"),
    "mediapipe": (mediapipe, "mediapipe"),
    "tflite-support": (metadata, "tflite-support"),
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Carry a request out."""
    from importlib.metadata import version

    judge, package = JUDGES[request["judge"]]
    try:
        verdict = judge(request["model"], request["images"], request["top"])
        return {"judge": f"{package} {version(package)}", "answer": verdict}
    except ImportError as error:
        return {"error": "missing", "message": str(error)}
    except RefusedError as error:
        return {"error": "refused", "message": str(error)}


def main() -> None:
    """Read a request, write the answer."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]  # our modules are not to pass for libraries
    out = os.dup(1)
    os.dup2(2, 1)  # native code prints to stdout
    reply = answer(json.load(sys.stdin))
    with os.fdopen(out, "w") as file:
        json.dump(reply, file)


if __name__ == "__main__":
    main()
