"""The ends of int8 files: as TensorFlow's own tool makes them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from test_writers import CROSSED, space_of, weights_of

from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.errors import QualityError
from bignas_zoo.export.integer_ends import with_ends
from bignas_zoo.export.tflite import convert
from bignas_zoo.files.formats import Export
from bignas_zoo.models.weighted import WeightedNetwork


def float_ends(case: tuple) -> tuple[bytes, np.ndarray]:
    *forms, size = case
    child = uniform_child(dataclasses.replace(space_of(*forms), resolutions=(size,)), ("ends", *map(str, case)))
    images = np.random.default_rng(2).normal(size=(64, size, size, 3)).astype(np.float32)
    network = WeightedNetwork(child, weights_of(child))
    return convert(network, Export("tflite", "int8"), images=images), images


def run(data: bytes, values: np.ndarray) -> tuple[np.ndarray, dict, dict]:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    classify = interpreter.get_signature_runner("classify")
    outputs = np.concatenate([np.zeros((0, 5)), *(classify(image=value[None])["scores"] for value in values)])
    return outputs, interpreter.get_input_details()[0], interpreter.get_output_details()[0]


@pytest.mark.parametrize("case", CROSSED[7::17], ids=lambda c: "-".join((c[0], c[1], c[2].rule, str(c[5]))))
@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_ends_are_those_of_tensorflow(case: tuple, io: str) -> None:
    import tensorflow as tf
    from tensorflow.lite.python import util

    data, images = float_ends(case)
    kind = {"int8": tf.int8, "uint8": tf.uint8}[io]
    theirs = bytes(util.modify_model_io_type(data, kind, kind))
    ours = with_ends(data, io)
    _, entry, _ = run(theirs, images[:0])
    scale, zero = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    given = np.clip(np.rint(images[:8] / scale) + zero, limits.min, limits.max).astype(entry["dtype"])
    expected, *their_ends = run(theirs, given)
    scores, *our_ends = run(ours, given)
    np.testing.assert_array_equal(scores, expected)
    for mine, wanted in zip(our_ends, their_ends, strict=True):
        assert (mine["dtype"], mine["quantization"], list(mine["shape"])) == (
            wanted["dtype"], wanted["quantization"], list(wanted["shape"])
        )  # fmt: skip
    assert [kind for kind, _ in operators(ours)] == [kind for kind, _ in operators(theirs)]
    # Nothing is named that is not used: a microcontroller would have to bring it.
    assert {kind for kind, _ in operators(ours)} == codes(ours)


def operators(data: bytes) -> list[tuple[int, list[int]]]:
    model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    (graph,) = model.subgraphs
    return [(model.operatorCodes[op.opcodeIndex].builtinCode, list(op.outputs)) for op in graph.operators]


def codes(data: bytes) -> set[int]:
    return {code.builtinCode for code in schema.ModelT.InitFromPackedBuf(bytearray(data), 0).operatorCodes}


def test_a_file_that_is_not_quantised_has_no_such_ends() -> None:
    *forms, size = CROSSED[0]
    child = dataclasses.replace(space_of(*forms), resolutions=(size,)).smallest
    data = convert(WeightedNetwork(child, weights_of(child)))
    with pytest.raises(QualityError, match="does not begin and end in float32"):
        with_ends(data, "int8")
