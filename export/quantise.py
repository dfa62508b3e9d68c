"""Full int8 TFLite: ranges of the activations from real images, by percentiles.

A range from the smallest to the largest value wastes most of the 256 steps on a few outliers, which swish nets
have many of. Ranges that leave out one value in ten thousand at each end cost less accuracy, see
`tests/test_quantise.py`. The rewriting of the file is litert-quantizer's.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from bignas_zoo.errors import QualityError
from bignas_zoo.export.dead_channels import keep_biases_in_range
from bignas_zoo.export.integer_ends import with_ends
from bignas_zoo.export.ranges import COVER, Ranges, check_images, covered_ranges
from bignas_zoo.runtime.quiet import quiet_native

#: Images that ranges are found on at once, as a call for each takes long; large ones come fewer at a time, because all
#: their activations are kept.
MOST_AT_ONCE, PIXELS_AT_ONCE = 50, 65_536


def quantise(
    model: bytes,
    images: np.ndarray,
    signature: str,
    *,
    io: str = "float32",
    cover: float = COVER,
    input_range: tuple[float, float] | None = None,
) -> bytes:
    """Turn a float32 TFLite file into one whose weights and activations are int8.

    Weights have a scale a channel, activations one a tensor; biases are int32.

    Args:
        model: the float32 file, with one input, which takes one image, and one output.
        images: ``[n, size, size, 3]`` float32, as the file takes them; at least 64, from training.
        signature: of the file.
        io: type of input and output: "float32", "int8" or "uint8".
        cover: percent of the values within a range at either end; 100 takes them all.
        input_range: of the input, where it is known: (0, 255) of pixels gives them a scale of 1.

    Returns:
        The int8 file.

    Raises:
        UsageError: images too few or of another shape.
        QualityError: the file cannot be quantised.
    """
    from litert_quantizer import algorithm_manager, qtyping, quantizer, recipe

    check_images(images, _shape(model), pixels=input_range is not None)
    ranges = activation_ranges(model, images, cover)
    model = keep_biases_in_range(model, ranges)
    try:
        with _quiet():
            work = quantizer.Quantizer(model, recipe.static_wi8_ai8())
            for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                work.update_quantization_recipe(".*", end, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
            known = work.calibrate({signature: [{_input_name(model, signature): _first(model, images)}]})
            for name, entry in known.items():
                if name in ranges and "min" in entry:
                    low, high = ranges[name]
                    if input_range and name.startswith(_tensor_name(model)):
                        low, high = input_range
                    entry["min"] = np.full_like(entry["min"], low)
                    entry["max"] = np.full_like(entry["max"], high)
            done = work.quantize(known, enable_progress_bar=False, enable_progress_report=False)
            return with_ends(bytes(done.quantized_model), io)
    except (ValueError, RuntimeError, KeyError) as error:
        raise QualityError(
            f"int8: the file cannot be quantised ({type(error).__name__}: {str(error)[:200]})."
        ) from error


def activation_ranges(model: bytes, images: np.ndarray, cover: float) -> Ranges:
    """Run a float32 file on images and return the range of each tensor that depends on them."""
    return covered_ranges(functools.partial(_each_tensor, model, images), cover)


def _each_tensor(model: bytes, images: np.ndarray, tell: Callable[[str, np.ndarray], None]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    with _quiet():
        interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    floats = [t for t in interpreter.get_tensor_details() if t["dtype"] == np.float32 and t["name"]]
    height, width = entry["shape"][1:3]
    size = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (height * width)))
    for start in range(0, len(images), size):
        group = images[start : start + size].astype(np.float32)
        if len(group) != interpreter.get_input_details()[0]["shape"][0]:
            interpreter.resize_tensor_input(entry["index"], group.shape)
            with _quiet():
                interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], group)
        interpreter.invoke()
        for tensor in floats:
            try:
                values = interpreter.get_tensor(tensor["index"])
            except ValueError:  # lives inside a delegate only
                continue
            if values.size:
                tell(tensor["name"], values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the runtime, and its warning that kept tensors take memory: they are what is wanted."""
    with quiet_native(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`")
        yield


def _first(model: bytes, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    batch = int(Interpreter(model_content=model).get_input_details()[0]["shape"][0])
    return np.resize(images[:batch], (batch, *images.shape[1:])).astype(np.float32)


def _shape(model: bytes) -> tuple[int, ...]:
    """Return the shape of one image."""
    from ai_edge_litert.interpreter import Interpreter

    return tuple(int(n) for n in Interpreter(model_content=model).get_input_details()[0]["shape"][1:])


def _tensor_name(model: bytes) -> str:
    from ai_edge_litert.interpreter import Interpreter

    return str(Interpreter(model_content=model).get_input_details()[0]["name"])


def _input_name(model: bytes, signature: str) -> str:
    from ai_edge_litert.interpreter import Interpreter

    (name,) = Interpreter(model_content=model).get_signature_list()[signature]["inputs"]
    return str(name)
