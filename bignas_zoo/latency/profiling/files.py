"""Files to be profiled, and what measures them: this machine in processes of its own, or a phone through adb."""

from __future__ import annotations

import datetime
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bignas_zoo.architecture.blocks import Block
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.errors import UsageError
from bignas_zoo.files.formats import Export
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.files.store import atomic_write
from bignas_zoo.latency import Measurement, Protocol
from bignas_zoo.latency.profiling import adb
from bignas_zoo.runtime.runner import LoadedFile
from bignas_zoo.runtime.workers import LocalWorkers

if TYPE_CHECKING:
    import keras
    import numpy as np

#: Calls of one round: about so many seconds' worth, within these numbers.
SECONDS, FEWEST, MOST = 0.025, 3, 200
MAPS = 64  # random inputs that int8 ranges are found on
CONDITIONING = 8  # of them, those that statistics are from
EVERY = 100.0  # percent of values that ranges cover: the outermost alone, found in half the time
#: Files of a process. TensorFlow keeps each traced swish for good (its gradient is registered): up to 40 MB a network.
RENEW_AFTER = 25


@dataclass(frozen=True)
class TFLiteBuilder:
    """Makes TFLite files with random weights: speed does not depend on them.

    Attributes:
        space: that blocks are from.
        precision: of the files.
    """

    space: SearchSpace
    precision: str = "float32"

    def make(self, parts: Sequence[tuple[Block | ChildSpec, Path]]) -> None:
        """Write the files of blocks and children."""
        for part, path in parts:
            if isinstance(part, Block):
                self.block(part, path)
            else:
                self.network(part, path)

    def block(self, block: Block, path: Path) -> None:
        """Write the file of a block, from map to map."""
        from bignas_zoo.models.child import build_block

        self._part(build_block(block, self.space.bn_epsilon), path)

    def floor(self, path: Path) -> None:
        """Write the file of a dense layer from one channel to one."""
        from bignas_zoo.models.backend import keras

        pixel = keras.Input((1, 1, 1), name="image")
        self._part(keras.Model(pixel, keras.layers.Dense(1)(keras.layers.Flatten()(pixel))), path)

    def network(self, spec: ChildSpec, path: Path) -> None:
        """Write the file of a child, as `export` would."""
        from bignas_zoo.export.tflite import convert
        from bignas_zoo.models.backend import keras
        from bignas_zoo.models.child import build_child

        child = build_child(spec)
        maps = _conditioned(child) if self.precision == "int8" else None
        atomic_write(path, convert(child, Export("tflite", self.precision), images=maps, cover=EVERY))
        keras.backend.clear_session()

    def _part(self, part: keras.Model, path: Path) -> None:
        from bignas_zoo.export.keras_tflite import convert_part
        from bignas_zoo.models.backend import keras

        maps = _conditioned(part) if self.precision == "int8" else None
        atomic_write(path, convert_part(part, Export("tflite", self.precision), inputs=maps, cover=EVERY))
        keras.backend.clear_session()


class ParallelBuilder:
    """Makes files as a `TFLiteBuilder` does, several at a time, in processes that idle while files are measured."""

    def __init__(self, builder: TFLiteBuilder, workers: int) -> None:
        self._builder, self._workers = builder, LocalWorkers(workers, _maker, builder, renew_after=RENEW_AFTER)

    def make(self, parts: Sequence[tuple[Block | ChildSpec, Path]]) -> None:
        """Write the files of blocks and children."""
        for _ in self._workers(parts):
            pass

    def floor(self, path: Path) -> None:
        """Write a file that computes almost nothing."""
        self._builder.floor(path)

    def __enter__(self) -> ParallelBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.close()


def _maker(builder: TFLiteBuilder) -> Callable[[tuple[Block | ChildSpec, Path]], None]:
    return lambda part: builder.make([part])


def _conditioned(model: keras.Model) -> np.ndarray:
    """Return random inputs, and give the model's batch norms the statistics that belong to them.

    With fresh statistics values shrink from layer to layer. XNNPACK leaves an int8 addition of two very different
    scales to slower code, which would be measured in place of what a trained network runs.
    """
    import numpy as np

    from bignas_zoo.models.backend import keras

    maps = np.random.default_rng(0).standard_normal((MAPS, *model.input_shape[1:]), np.float32)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # the statistics of this call, and nothing of those before
    if norms:
        model(maps[:CONDITIONING], training=True)
    return maps


@dataclass(frozen=True)
class LocalMeter:
    """Measures on this machine, files in turns, each in a process of its own.

    With one thread it takes the CPU time of the calling thread, which other work on the machine disturbs less than the
    wall clock; with several the wall clock.

    Attributes:
        threads: of the runtime.
        rounds: of each file.
    """

    threads: int = 1
    rounds: int = 18

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Return the fastest round's median call, and the deviation of the faster half of rounds.

        Others can only slow a round down: where two processors share a core, by some 15 % while the other one is busy.
        If it is for part of the time, a median or quartile catches some files at one speed and some at the other.
        """
        with ExitStack() as stack:
            loaded = [stack.enter_context(LoadedFile(f, threads=self.threads, classifier=False)) for f in files]
            calls = [self._calls(file) for file in loaded]
            rounds: list[list[float]] = [[] for _ in loaded]
            for number in range(self.rounds):
                for i in random.Random(number).sample(range(len(loaded)), len(loaded)):
                    rounds[i].append(self._round(loaded[i], calls[i]))
        return [Measurement(min(r), _deviation(r), len(r)) for r in rounds]

    def _calls(self, file: LoadedFile) -> int:
        first = file.time(3, warmup=2)
        return max(FEWEST, min(MOST, round(SECONDS * 1e9 / max(min(first.wall), 1))))

    def _round(self, file: LoadedFile, calls: int) -> float:
        taken = file.time(calls, warmup=1)
        return statistics.median(taken.thread if self.threads == 1 else taken.wall) / 1e6

    def protocol(self, precision: str) -> Protocol:
        """Return what the table says of this."""
        return Protocol(
            device=machine(),
            runtime="LiteRT (ai-edge-litert)",
            version=versions().get("ai-edge-litert"),
            threads=self.threads,
            delegate="XNNPACK",
            precision=precision,
            batch=1,
            clocks="not pinned",
            time="thread_cpu" if self.threads == 1 else "wall",
            date=datetime.date.today().isoformat(),
        )


@dataclass(frozen=True)
class AdbMeter:
    """Measures on a phone with TFLite's benchmark_model; never tried on one, see `adb`.

    Attributes:
        serial: of the phone.
        threads: of the interpreter.
        runs: calls a file.
        cores: mask for taskset, or None.
        binary: where benchmark_model is on the phone.
    """

    serial: str
    threads: int = 1
    runs: int = 50
    cores: str | None = None
    binary: str = adb.BINARY

    def measure(self, files: Sequence[Path]) -> list[Measurement]:
        """Return the time of each file, one after the other."""
        adb.run(["adb", "-s", self.serial, "shell", "mkdir", "-p", adb.FOLDER])
        return [self._measure(file) for file in files]

    def _measure(self, file: Path) -> Measurement:
        adb.run(adb.push_command(self.serial, file))
        command = adb.benchmark_command(
            self.serial, file.name, threads=self.threads, runs=self.runs, cores=self.cores, binary=self.binary
        )
        return adb.parse(adb.run(command))

    def protocol(self, precision: str, device: str, version: str | None) -> Protocol:
        """Return what the table says of this; `device` and `version` are the user's words."""
        if not device:
            raise UsageError("profile: a phone needs --device-name, e.g. 'Pixel 6, big cores'.")
        return Protocol(
            device=device,
            runtime="TFLite benchmark_model",
            version=version,
            threads=self.threads,
            delegate="XNNPACK",
            precision=precision,
            batch=1,
            clocks=f"taskset {self.cores}" if self.cores else "not pinned",
            time="wall",
            date=datetime.date.today().isoformat(),
        )


def _deviation(values: Sequence[float]) -> float:
    faster = sorted(values)[: (len(values) + 1) // 2]
    return statistics.stdev(faster) if len(faster) > 1 else 0.0
