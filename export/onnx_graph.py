"""What every ONNX file of ours goes through at the end: names in order, a check, the same bytes every time."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from bignas_zoo.errors import QualityError

BATCH = "batch"
#: Operations that the body may not hold: a batch norm that was not folded, a change of layout.
FORBIDDEN = ("BatchNormalization", "Transpose")


def finish(model: onnx.ModelProto, properties: Mapping[str, str], name: str, producer: str = "bignas-zoo") -> bytes:
    """Describe, check and serialise a model.

    Args:
        model: changed in place.
        properties: what the file says of itself.
        name: of the graph.
        producer: what made the float file: ours is written from a plan.

    Raises:
        QualityError: it is not valid.
    """
    model.graph.name, model.producer_name, model.producer_version, model.doc_string = name, producer, "", ""
    del model.metadata_props[:]
    for key, value in sorted(properties.items()):
        model.metadata_props.add(key=key, value=value)
    kinds = [node.op_type for node in model.graph.node]
    body = kinds[kinds.index("Conv") :] if "Conv" in kinds else kinds  # an nhwc input is transposed once, before it
    left = sorted({*FORBIDDEN} & {*body} | {node.op_type for node in model.graph.node if node.domain})
    if left:
        raise QualityError(f"ONNX conversion left operations that should be gone: {', '.join(left)}.")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise QualityError(f"ONNX conversion made an invalid model: {str(error)[:300]}") from error
    return bytes(model.SerializeToString(deterministic=True))


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Number names in the order of the graph, in place: converters count on from call to call."""
    graph = model.graph
    names = {value.name: value.name for value in [*graph.input, *graph.output]}
    for node in graph.node:
        for value in [*node.input, *node.output]:
            if value:
                names.setdefault(value, f"t{len(names)}")
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        node.doc_string = ""
        for values in (node.input, node.output):
            values[:] = [names.get(v, "") for v in values]
    order = {name: i for i, name in enumerate(names.values())}
    tensors = sorted((t for t in graph.initializer if t.name in names), key=lambda t: order[names[t.name]])
    del graph.value_info[:], graph.initializer[:]
    for tensor in tensors:
        tensor.name, tensor.doc_string = names[tensor.name], ""
        graph.initializer.append(tensor)
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    return model
