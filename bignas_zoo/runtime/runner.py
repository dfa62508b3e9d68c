"""Run and time a TFLite or ONNX file of anyone's in a process of its own (`runner_process.py`).

A damaged or hostile file can crash its runtime, keep it busy for ever or ask for all memory. Here that is an error
of this package: the process gets `MEMORY` bytes of address space (where the system has such limits) and a time.
"""

from __future__ import annotations

import json
import queue
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.errors import BigNASError, IntegrityError, LocalIOError, UsageError

if TYPE_CHECKING:
    import numpy as np

SCRIPT = Path(__file__).with_name("runner_process.py")
#: Address space that a file's process may use. Far above what an image classifier needs (the biggest child of the
#: paper's space takes 0.2 GiB), far below what stops a machine.
MEMORY = 8 << 30
LARGEST_FILE = 2 << 30
LARGEST_BATCH = 1024
TYPES = ("float32", "int8", "uint8")
REMAKE = "Export the file again, or fetch it again from where it came from."


@dataclass(frozen=True)
class End:
    """The input or the output of a file.

    Attributes:
        name: of the tensor; characters that cannot be printed are replaced.
        shape: its dimensions; None is one that each call chooses.
        dtype: "float32", "int8" or "uint8".
        scale: of a quantised end, ``real = scale * (stored - zero_point)``; else None.
        zero_point: likewise.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class FileEnds:
    """What an image classifier's file takes and gives.

    Attributes:
        format: "tflite" or "onnx", by its content.
        input: images, of rank 4.
        output: scores ``[batch, classes]``.
        signatures: names of a TFLite file's signatures.
        runtime: name and version of what ran it.
    """

    format: str
    input: End
    output: End
    signatures: tuple[str, ...]
    runtime: str

    @property
    def batch(self) -> int | None:
        """Images a call, or None if any number."""
        return self.input.shape[0]

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Timings:
    """Nanoseconds of each call: of the wall clock, of the calling thread's CPU time, of all threads' CPU time."""

    wall: tuple[int, ...]
    thread: tuple[int, ...]
    process: tuple[int, ...]


def describe_file(path: Path | str, *, timeout: float = 60) -> FileEnds:
    """Load a file and say what it takes and gives.

    Args:
        path: of a .tflite or .onnx file; what it is, its content says.
        timeout: seconds that it may take.

    Raises:
        LocalIOError: there is no such file, or it cannot be read.
        IntegrityError: it is no such file, or its runtime crashes over it or refuses it.
        UsageError: it is not an image classifier with one input and one output.
        BigNASError: it took too long.
    """
    with LoadedFile(path, timeout=timeout) as file:
        return file.ends


def run_file(path: Path | str, inputs: np.ndarray, *, threads: int = 1, timeout: float = 600) -> np.ndarray:
    """Return a file's scores for images.

    Args:
        path: of a .tflite or .onnx file.
        inputs: ``[n, ...]``, as the file takes them but as real values: normalised float images, or pixels 0 to 255
            (float or uint8) for a file that takes pixels. They are quantised for int8 and uint8 inputs.
        threads: that the runtime uses.
        timeout: seconds that it may take.

    Returns:
        ``[n, classes]`` float32; int8 and uint8 scores as the real values that they stand for.

    Raises:
        UsageError: the images are not of the shape that the file takes; and as `describe_file`.
        LocalIOError, IntegrityError, BigNASError: as `describe_file`.
    """
    with LoadedFile(path, threads=threads, timeout=timeout) as file:
        return file.run(inputs)


def time_file(
    path: Path | str,
    *,
    threads: int = 1,
    batch: int | None = None,
    warmup: int = 3,
    runs: int = 20,
    timeout: float = 600,
) -> Timings:
    """Time calls of a file on random input; see `LoadedFile.time`."""
    with LoadedFile(path, threads=threads, timeout=timeout) as file:
        return file.time(runs, warmup=warmup, batch=batch)


class LoadedFile:
    """A file in its process, for as long as a ``with`` statement lasts.

    Args:
        path: of a .tflite or .onnx file.
        threads: that the runtime uses.
        timeout: seconds that each request may take.
        classifier: whether anything but an image classifier is refused; part of one can only be timed.

    Raises:
        As `describe_file`.
    """

    def __init__(self, path: Path | str, *, threads: int = 1, timeout: float = 600, classifier: bool = True) -> None:
        if not 1 <= threads <= 1024:
            raise UsageError(f"threads must be within 1 and 1024, got {threads}.")
        self.path, self.timeout, self._classifier = Path(path), timeout, classifier
        format_ = file_format(self.path)
        self._runtime = {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}[format_]
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            request = {"path": str(self.path.absolute()), "format": format_, "threads": threads, "memory": MEMORY}
            self.ends = self._ends(format_, self._ask(request))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LoadedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # what was not sent yet
                    pipe.close()

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Return the scores of images; see `run_file`."""
        import numpy as np

        images = _real(np.asarray(inputs))
        self._check_shape(images.shape)
        try:
            with tempfile.TemporaryDirectory(prefix="bignas-zoo-") as folder:
                request = {"inputs": f"{folder}/inputs.npy", "outputs": f"{folder}/scores.npy"}
                np.save(request["inputs"], images, allow_pickle=False)
                self._ask({"do": "run", **request})
                scores = np.load(request["outputs"], allow_pickle=False)
        except OSError as error:
            if isinstance(error, BigNASError):
                raise
            raise LocalIOError(f"temporary folder: cannot be used ({error.strerror}). Free space in it.") from error
        return np.asarray(scores, np.float32)

    def time(self, calls: int, *, warmup: int = 0, batch: int | None = None) -> Timings:
        """Time calls on random input, in the process itself.

        Args:
            calls: to time.
            warmup: calls before them.
            batch: images a call, for a file that takes any number [1].

        Raises:
            UsageError: the file takes another number of images, or images of any size.
            IntegrityError, BigNASError: as `describe_file`.
        """
        reply = self._ask({"do": "time", "calls": calls, "warmup": warmup, "batch": self.batch(batch)})
        return Timings(*(tuple(map(int, reply[clock])) for clock in ("wall", "thread", "process")))

    def batch(self, asked: int | None) -> int:
        """Return how many images a call takes, if the caller asks for a number or for none."""
        shape = self.ends.input.shape
        if None in shape[1:]:
            raise UsageError(f"{self.path}: takes images of any size {_shape(shape)}; only a file of one can be timed.")
        batch = shape[0] or asked or 1
        if asked not in (None, batch):
            raise UsageError(f"{self.path}: takes {batch} images a call, not {asked}. Leave the batch out.")
        if not 1 <= batch <= LARGEST_BATCH:
            raise UsageError(f"{self.path}: batch must be within 1 and {LARGEST_BATCH}, got {batch}.")
        return batch

    def peak_memory(self) -> int:
        """Return the most memory that the process has had since it loaded the runtime, in bytes."""
        return int(self._ask({"do": "memory"})["bytes"])

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        wanted = self.ends.input.shape
        if len(shape) != len(wanted) or any(w not in (None, s) for w, s in zip(wanted[1:], shape[1:], strict=True)):
            raise UsageError(f"{self.path}: takes images {_shape((None, *wanted[1:]))}, got {_shape(shape)}.")
        if not all(shape):
            raise UsageError(f"{self.path}: no images were given, their shape is {_shape(shape)}.")

    def _ends(self, format_: str, told: dict[str, Any]) -> FileEnds:
        inputs, outputs = ([_end(e) for e in told[key]] for key in ("inputs", "outputs"))
        problem = _not_a_classifier(inputs, outputs)
        if problem and (self._classifier or problem != SHAPE):
            has = f"{told['inputs_count']} inputs: {_list(inputs)}; {told['outputs_count']} outputs: {_list(outputs)}"
            raise UsageError(
                f"{self.path}: not an image classifier ({problem}). It has {has}. A classifier takes images of rank 4 "
                f"and gives scores [batch, classes], both {', '.join(TYPES)}."
            )
        names = tuple(printable(s) for s in told["signatures"])
        return FileEnds(format_, inputs[0], outputs[0], names, printable(told["runtime"]))

    def _read(self) -> None:
        assert self._process.stdout
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._replies.put(line)
        self._replies.put(None)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:  # it ended: what it said last is still to be read
            pass
        try:
            line = self._replies.get(timeout=self.timeout)
        except queue.Empty:
            raise BigNASError(
                f"{self.path}: no answer within {self.timeout:g} seconds. The machine is busy, the work is too much, "
                "or the file is damaged; give more time or fewer images."
            ) from None
        try:
            reply = json.loads(line) if line else None
        except ValueError:
            reply = None
        if isinstance(reply, dict) and isinstance(reply.get("ok"), dict):
            return dict(reply["ok"])
        if not isinstance(reply, dict):
            reply = {"error": "crashed", "message": "it answered nonsense" if line else self._end_of_process()}
        raise self._error(reply)

    def _end_of_process(self) -> str:
        """Say how it ended; its output is closed, so it has ended or is about to."""
        try:
            return _end_of(self._process.wait(10))
        except subprocess.TimeoutExpired:
            return "it closed its output"

    def _error(self, reply: dict[str, Any]) -> BigNASError:
        """Say what went wrong."""
        kind, words = reply.get("error"), printable(str(reply.get("message")))[:300]
        if kind == "crashed":
            return IntegrityError(
                f"{self.path}: {self._runtime} crashed over it ({words}). The file is damaged, hostile, or needs more "
                f"than {MEMORY >> 30} GiB. {REMAKE}"
            )
        if kind == "missing":
            return UsageError(
                f"{self._runtime} cannot be loaded by {sys.executable} ({words}): pip install {self._runtime}."
            )
        if kind == "foreign":
            return IntegrityError(f"{self.path}: {NEITHER} ({words}). {REMAKE}")
        if kind == "memory":
            return IntegrityError(f"{self.path}: needs more than {MEMORY >> 30} GiB of memory. {REMAKE}")
        return IntegrityError(f"{self.path}: refused by {self._runtime}: {words.rstrip('.')}. {REMAKE}")


NEITHER = 'neither a TFLite file ("TFL3" at bytes 4 to 8) nor a whole ONNX model'


def file_format(path: Path) -> str:
    """Return "tflite" or "onnx" (which is whatever is not the first), by a look at the file's first bytes.

    Raises:
        LocalIOError: it cannot be read, or is a folder, a pipe or a device.
        IntegrityError: it is empty or too big.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise LocalIOError(f"{path}: is {kind}; a .tflite or .onnx file is expected.")
        with path.open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError) as error:
        if isinstance(error, LocalIOError):
            raise
        why = getattr(error, "strerror", None) or error
        raise LocalIOError(
            f"{printable(str(path))[:300]}: cannot be read ({why}). Name a .tflite or .onnx file."
        ) from error
    if not start:
        raise IntegrityError(f"{path}: is empty. {REMAKE}")
    if status.st_size > LARGEST_FILE:
        raise IntegrityError(f"{path}: has {status.st_size:,} bytes; more than {LARGEST_FILE:,} are not taken.")
    return "tflite" if start[4:8] == b"TFL3" else "onnx"


def _real(images: np.ndarray) -> np.ndarray:
    """Return images as float32 or uint8."""
    if images.dtype.kind not in "fiu":
        raise UsageError(f"images: must be real numbers or uint8 pixels, got {images.dtype}.")
    return images if images.dtype == "uint8" else images.astype("float32", copy=False)


def _end(told: dict[str, Any]) -> End:
    shape = tuple(d if isinstance(d, int) else None for d in told["shape"])
    scale, zero = (told["scale"], told["zero_point"]) if told["scale"] else (None, None)
    return End(printable(told["name"]), shape, printable(told["dtype"]), scale, zero)


SHAPE = "of another shape"


def _not_a_classifier(inputs: list[End], outputs: list[End]) -> str | None:
    if len(inputs) != 1 or len(outputs) != 1:
        return "one input and one output are expected"
    if len(inputs[0].shape) != 4 or len(outputs[0].shape) != 2:
        return SHAPE
    if inputs[0].dtype not in TYPES or outputs[0].dtype not in TYPES:
        return "of another type"
    return None if 0 not in inputs[0].shape else "it takes no images"


def _list(ends: list[End]) -> str:
    return ", ".join(f"{e.name[:60]} {e.dtype} {_shape(e.shape)}" for e in ends) or "none"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if d is None else str(d) for d in shape) + "]"


def printable(text: str) -> str:
    """Return text on one line that no terminal takes for commands."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _end_of(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
