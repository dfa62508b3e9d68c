"""A process that does an operation of the store again and again, each time in a child that is killed on the way.

Started by `killing.Killer`. A line of JSON on stdin names a place and when to kill: ``{"at": 7}`` before the seventh
write point, ``{"after": 0.01}`` seconds after the start, ``{}`` never; a line on stdout says how the child ended, how
many write points it met and how long it took. The parent stays a process of one thread, so that forking it is safe.

Write points: opening a file to write, the middle of each write, and every call that changes a name, a mode, a time, a
lock or flushes to the disk. Most are seen by an audit hook, which no code of the package can go round.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EVENTS = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.utime", "os.truncate", "os.link", "os.symlink",
    "fcntl.flock",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NEW = b"new " * 5000


class Points:
    """Counts write points and kills this process at one of them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.count = at, 0

    def __call__(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            self()

    def install(self) -> None:
        from bignas_zoo.files import leftovers

        sys.addaudithook(self.hook)
        fsync, fdopen, exchange = os.fsync, os.fdopen, leftovers.exchange

        def watched_fsync(handle: int) -> None:
            self()
            fsync(handle)

        def watched_exchange(one: Path, other: Path) -> bool:
            self()
            return "NO_EXCHANGE" not in os.environ and exchange(one, other)

        def watched_fdopen(handle: int, *more: Any) -> Any:
            file = fdopen(handle, *more)
            return HalfWay(file, self) if more and "w" in str(more[0]) else file

        os.fsync, os.fdopen, leftovers.exchange = watched_fsync, watched_fdopen, watched_exchange


class HalfWay:
    """A file whose writes can be interrupted in their middle."""

    def __init__(self, file: Any, point: Callable[[], None]) -> None:
        self.file, self.point = file, point

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.point()
        self.file.write(data[len(data) // 2 :])

    def __enter__(self) -> HalfWay:
        return self

    def __exit__(self, *details: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def get(place: Path, out: str = "out") -> None:
    """Choose a shipped slice, make it (here: copy it), put it into the cache, write it over an older folder."""
    from bignas_zoo.tasks import get as delivery
    from bignas_zoo.tasks import slice_cache

    slice_cache.cut = lambda *_: None  # type: ignore[assignment]
    made = lambda folder, *_: [copy(p, folder / p.name) for p in (place / "made").iterdir()]
    slice_cache.slice_files = SimpleNamespace(**{**vars(slice_cache.slice_files), "write": made})  # type: ignore[assignment]
    delivery.get("bignas-cifar10-s", output=place / out, force=True)


def copy(source: Path, target: Path) -> None:
    from bignas_zoo.files import store

    store.atomic_write(target, source.read_bytes())


def fetch(place: Path) -> None:
    """Fetch a slice of the Hub, whose cached commit is damaged, and write it over an older folder."""
    import bignas_zoo as bz

    bz.get("hf://zoo/tiny", output=place / "out", force=True)


def family(place: Path) -> None:
    """Write a family folder over an older one, file by file, the description last, as `train` does."""
    from bignas_zoo.files import store

    with store.new_folder(place / "family", force=True, marker="family.json") as new:
        (new / "bn").mkdir()
        for name in ("supernet.safetensors", "bn/x.safetensors", "front.json", "metrics.jsonl"):
            store.atomic_write(new / name, NEW + name.encode())
        store.write_json(new / "family.json", store.sealed({"schema": "bignas-zoo/family/2", "name": "new"}))


def export(place: Path) -> None:
    """Export a slice anew in a file and a folder; what converts and judges is replaced."""
    import types

    from bignas_zoo.files import store
    from bignas_zoo.files.formats import Export
    from bignas_zoo.tasks import export as exporting
    from bignas_zoo.zoo import slice_folder

    def make(subject: Any, option: Export, work: Path) -> Path:
        made = work / option.file
        if option.format == "saved_model":
            (made / "variables").mkdir(parents=True)
            store.atomic_write(made / "saved_model.pb", NEW)
            store.atomic_write(made / "variables" / "variables.index", NEW)
        else:
            store.atomic_write(made, NEW)
        return made

    proof = SimpleNamespace(parity={}, accuracy=None, to_json=lambda: {"parity": {}, "accuracy": None, "ranges": None})
    stubs: dict[str, dict[str, Any]] = {
        "bignas_zoo.tasks.proving": {
            "make": make,
            "prove": lambda *_: proof,
            "open_subject": lambda folder, _: SimpleNamespace(
                description=slice_folder.describe(folder)[1], inputs="stand-ins", sample=None,
                weights_sha256=store.sha256(folder / "model.safetensors"),
            ),
        },
        "bignas_zoo.export.gates": {"check": lambda *_, **__: None},
    }  # fmt: skip
    for name, content in stubs.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    exporting.export_slice(place / "slice", [Export(precision="float16"), Export("saved_model")], force=True)


def push(place: Path) -> None:
    """Push a slice folder; Keras's files and the pictures are stand-ins."""
    import bignas_zoo as bz
    from bignas_zoo.tasks import bundle

    bundle.draw = lambda *_: ()  # type: ignore[assignment]
    fakes = {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b"weights" * 1000}
    bundle.keras_layout = lambda _: fakes  # type: ignore[assignment]
    bz.push(place / "slice", "zoo/tiny")


def child(operation: Callable[[Path], None], order: dict[str, Any], report: int) -> None:
    """Do the operation; only a child that is not killed gets to its end."""
    place = Path(order["place"])
    tempfile.tempdir = str(place / "tmp")
    os.environ["BIGNAS_ZOO_CACHE"] = str(place / "cache")
    points = Points(order.get("at"))
    points.install()
    try:
        operation(place)
    except BaseException:  # noqa: BLE001  told to the parent
        os.write(report, json.dumps({"error": traceback.format_exc()[-2000:]}).encode())
        os._exit(1)
    os.write(report, json.dumps({"points": points.count}).encode())
    os._exit(0)


def carry_out(operation: Callable[[Path], None], order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(operation, order, writing)
    os.close(writing)
    if order.get("after") is not None:
        time.sleep(order["after"])
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - start
    with os.fdopen(reading, "rb") as file:
        text = file.read()
    said = json.loads(text) if text and os.WIFEXITED(status) else {}
    return {"killed": os.WIFSIGNALED(status), "seconds": seconds, **said}


OPERATIONS = {"get": get, "fetch": fetch, "family": family, "export": export, "push": push}


def main() -> None:
    """Carry out orders until there are none."""

    if sys.argv[1] in ("fetch", "push"):
        import huggingface_hub.file_download
        import huggingface_hub.hf_api
        from huggingface_hub.utils import _http

        assert huggingface_hub.hf_api
        _http.time.sleep = lambda seconds: None
    operation = OPERATIONS[sys.argv[1]]
    for line in sys.stdin:
        print(json.dumps(carry_out(operation, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
