"""Loads one TFLite or ONNX file and runs or times it: a program of its own, which may crash, hang or starve.

`runner.py` runs it; it imports nothing of this package, no TensorFlow and no Keras. Requests come on stdin, a JSON
object a line; a reply to each goes to stdout, ``{"ok": ...}`` or ``{"error": kind, "message": ...}``. The first
request loads the file: ``{"path", "format", "threads", "memory"}``. Those that follow have "do": "run", "time" or
"memory".
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

#: Images a call where a file takes any number.
GROUP = 32
MOST_ENDS, MOST_CHARACTERS = 8, 1000

#: Where messages lie in an ONNX file that can hold a tensor: of each kind, number of a field and kind of its content.
#: (onnx.proto: ModelProto, TrainingInfoProto, FunctionProto, GraphProto, NodeProto, AttributeProto, ...)
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
#: As deep as protobuf itself reads messages within messages.
DEPTH = 100


class FileError(Exception):
    """What is wrong with the file; the first argument is a kind that `runner.py` knows."""


class TFLite:
    """A TFLite file in ai-edge-litert."""

    package = "ai-edge-litert"

    def __init__(self, path: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with open(path, "rb") as file:  # a path that is not UTF-8 is nothing the interpreter would take
            content = file.read()
        mark_memory()
        self.interpreter = Interpreter(model_content=content, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.entries = self.interpreter.get_input_details()
        self.exits = self.interpreter.get_output_details()
        self.signatures = sorted(self.interpreter.get_signature_list())

    def ends(self, details: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Describe inputs or outputs."""
        import numpy as np

        for end in details:
            shape = end["shape_signature"] if len(end["shape_signature"]) else end["shape"]
            scale, zero = end["quantization"]
            dims = [int(d) if d >= 0 else None for d in shape]
            kind = np.dtype(end["dtype"]).name
            yield {"name": end["name"], "shape": dims, "dtype": kind, "scale": float(scale), "zero_point": int(zero)}

    def prepare(self, images: Any) -> None:
        """Take images, as the file has them."""
        index = self.entries[0]["index"]
        if self.interpreter.get_input_details()[0]["shape"].tolist() != list(images.shape):
            self.interpreter.resize_tensor_input(index, images.shape)
            self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(index, images)

    def invoke(self) -> None:
        """Run."""
        self.interpreter.invoke()

    def result(self) -> Any:
        """Return the scores, as the file has them."""
        return self.interpreter.get_tensor(self.exits[0]["index"])


class ONNX:
    """An ONNX file in onnxruntime, on the CPU."""

    package = "onnxruntime"
    signatures: tuple[str, ...] = ()

    def __init__(self, path: str, threads: int) -> None:
        refuse_external_data(path)
        import onnxruntime

        mark_memory()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.entries, self.exits = self.session.get_inputs(), self.session.get_outputs()
        self.feed: dict[str, Any] = {}
        self.scores: Any = None

    def ends(self, details: Any) -> Iterator[dict[str, Any]]:
        """Describe inputs or outputs."""
        for end in details:
            dims = [d if isinstance(d, int) else None for d in end.shape]
            kind = end.type.removeprefix("tensor(").removesuffix(")")
            kind = {"float": "float32", "double": "float64"}.get(kind, kind)
            yield {"name": end.name, "shape": dims, "dtype": kind, "scale": 0.0, "zero_point": 0}

    def prepare(self, images: Any) -> None:
        """Take images, as the file has them."""
        self.feed = {self.entries[0].name: images}

    def invoke(self) -> None:
        """Run."""
        (self.scores,) = self.session.run(None, self.feed)

    def result(self) -> Any:
        """Return the scores, as the file has them."""
        return self.scores


def refuse_external_data(path: str) -> None:
    """Refuse a file that is no ONNX model, and one whose tensors are to be read from other files.

    The content of tensors is not touched, so that it does not count as memory of the model.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        numbers = [number for number, *_ in fields(data, 0, len(data))]
        if not {1, 7} <= set(numbers):  # ir_version and graph
            raise FileError("foreign", "it has no version or no graph")
        waiting = [("model", 0, len(data), 0)]
        while waiting:
            kind, start, end, depth = waiting.pop()
            if depth > DEPTH:
                raise FileError("refused", "its graphs are nested too deeply")
            for number, value, begin, stop in fields(data, start, end):
                if kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
                    raise FileError("refused", "its tensors lie in other files; they must be inside")
                if begin is not None and number in MESSAGES[kind]:
                    waiting.append((MESSAGES[kind][number], begin, stop, depth + 1))


def fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | None, Any, Any]]:
    """Give the fields of a protobuf message: number, value of a whole number, else where the content is."""
    at = start
    while at < end:
        key, at = whole_number(data, at, end)
        number, form = key >> 3, key & 7
        if form == 0:
            value, at = whole_number(data, at, end)
            yield number, value, None, None
            continue
        if form == 2:
            size, at = whole_number(data, at, end)
        elif form in (1, 5):
            size = 8 if form == 1 else 4
        else:
            raise FileError("foreign", "it is no protobuf message")
        if at + size > end:
            raise FileError("foreign", "it ends too early")
        if number:
            yield number, None, at, at + size
        at += size


def whole_number(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Read a protobuf varint; return it and what comes after it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise FileError("foreign", "it is no protobuf message")


def describe(model: Any) -> dict[str, Any]:
    """Say what a loaded file takes and gives."""
    from importlib.metadata import version

    told: dict[str, Any] = {"runtime": f"{model.package} {version(model.package)}", "signatures": []}
    told["signatures"] = [str(s)[:MOST_CHARACTERS] for s in model.signatures][:MOST_ENDS]
    for name, details in (("inputs", model.entries), ("outputs", model.exits)):
        ends = list(model.ends(details[:MOST_ENDS]))
        told[name] = [{**end, "name": str(end["name"])[:MOST_CHARACTERS], "shape": end["shape"][:16]} for end in ends]
        told[f"{name}_count"] = len(details)
    return told


def stored(values: Any, end: dict[str, Any]) -> Any:
    """Return real values in the type of an input."""
    import numpy as np

    if end["dtype"] == "float32":
        return np.ascontiguousarray(values, np.float32)
    limits = np.iinfo(end["dtype"])
    steps = np.nan_to_num(np.asarray(values, np.float32) / (end["scale"] or 1.0)) + end["zero_point"]
    return np.clip(np.rint(steps), limits.min, limits.max).astype(end["dtype"])


def real(values: Any, end: dict[str, Any]) -> Any:
    """Return an output's content as real values."""
    import numpy as np

    if end["dtype"] == "float32":
        return values
    return ((values.astype(np.int32) - end["zero_point"]) * (end["scale"] or 1.0)).astype(np.float32)


def run(model: Any, told: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Compute the scores of all images of one .npy file into another."""
    import numpy as np

    images = np.load(request["inputs"], mmap_mode="r", allow_pickle=False)
    entry, exit_ = told["inputs"][0], told["outputs"][0]
    batch, rows = entry["shape"][0], []
    for start in range(0, len(images), batch or GROUP):
        group = stored(images[start : start + (batch or GROUP)], entry)
        full = np.resize(group, (batch, *group.shape[1:])) if batch else group  # the last repeats its images
        model.prepare(full)
        model.invoke()
        scores = real(model.result(), exit_)
        if scores.ndim != 2 or len(scores) != len(full):
            raise FileError("refused", f"its scores have shape {list(scores.shape)} for {len(full)} images")
        rows.append(scores[: len(group)].copy())
    np.save(request["outputs"], np.concatenate(rows), allow_pickle=False)
    return {}


def time_calls(model: Any, told: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Time calls on random input; return nanoseconds of the wall clock, of this thread and of this process."""
    import numpy as np

    entry = told["inputs"][0]
    generator = np.random.default_rng(0)
    shape = (request["batch"], *entry["shape"][1:])
    if entry["dtype"] == "float32":
        images = generator.standard_normal(shape, np.float32)
    else:
        limits = np.iinfo(entry["dtype"])
        images = generator.integers(limits.min, limits.max, shape, entry["dtype"], endpoint=True)
    model.prepare(images)
    clocks = (time.perf_counter_ns, time.thread_time_ns, time.process_time_ns)
    taken: list[list[int]] = []
    gc.disable()
    for call in range(request["warmup"] + request["calls"]):
        before = [clock() for clock in clocks]
        model.invoke()
        after = [clock() for clock in clocks]
        if call >= request["warmup"]:
            taken.append([b - a for a, b in zip(before, after, strict=True)])
    gc.enable()
    return dict(zip(("wall", "thread", "process"), map(list, zip(*taken, strict=True)), strict=True))


MARK = [0]


def memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    # Not getrusage where it can be helped: its figure begins with that of the process that started this one.
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/self/status", encoding="ascii") as status:
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0


def mark_memory() -> None:
    """Count memory from here, when the runtime is loaded and the file is not."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as marks:
        marks.write("5")  # Linux: the peak begins anew
    MARK[0] = memory()


def limit(memory_limit: int) -> None:
    """Give this process no more address space, and no core file when it crashes."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most == resource.RLIM_INFINITY or most > memory_limit:
            resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))


def open_file(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Load the file; return it and what there is to say of it."""
    limit(request["memory"])
    model = {"tflite": TFLite, "onnx": ONNX}[request["format"]](request["path"], request["threads"])
    return model, describe(model)


def answers(requests: Any) -> Iterator[dict[str, Any]]:
    """Carry requests out; stop at the first error."""
    model: Any = None
    told: dict[str, Any] = {}
    for line in requests:
        request = json.loads(line)
        try:
            if model is None:
                model, told = open_file(request)
                yield {"ok": told}
            elif request["do"] == "memory":
                yield {"ok": {"bytes": memory() - MARK[0]}}
            else:
                yield {"ok": {"run": run, "time": time_calls}[request["do"]](model, told, request)}
        except FileError as error:
            yield {"error": error.args[0], "message": error.args[1]}
            return
        except (ImportError, MemoryError) as error:
            kind = "memory" if isinstance(error, MemoryError) else "missing"
            yield {"error": kind, "message": str(error)[:MOST_CHARACTERS]}
            return
        except Exception as error:  # noqa: BLE001  whatever the runtime raises: it refuses the file
            yield {"error": "refused", "message": f"{type(error).__name__}: {error}"[:MOST_CHARACTERS]}
            return


def main() -> None:
    """Answer requests until there are none."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != here]  # our onnx.py is not to pass for the library
    out = os.dup(1)
    sink = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # native code prints to both
        os.dup2(sink, descriptor)
    with os.fdopen(out, "w", encoding="utf-8") as file:
        for reply in answers(sys.stdin):
            file.write(json.dumps(reply) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
