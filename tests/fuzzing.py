"""Fuzzing of everything that reads what others wrote: mutation, and the judge; `fuzz_targets.py` says of what.

The judge allows the package's own errors only, and looks at time and memory. What once failed is kept under
``fuzz_corpus/TARGET``.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import BigNASError

CORPUS = Path(__file__).parent / "fuzz_corpus"
#: What the worst input may take.
MOST_SECONDS, MOST_BYTES = 1.0, 200 << 20
#: Longest input, so that 10^6 of them end in a night.
LONGEST = 40_000

Mutate = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """Something that reads bytes of others.

    Attributes:
        name: of the target.
        seeds: valid inputs.
        run: reads one input; returns whether it was accepted is of no interest, what it raises is.
        mutate: makes another input of one.
    """

    name: str
    seeds: tuple[bytes, ...]
    run: Callable[[bytes], object]
    mutate: Mutate


# ---------------------------------------------------------------------------------------------------- mutation

#: Values that readers stumble over.
WORDS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 8, 255, 1 << 31, 1 << 63, 10**30, -(10**30), 0.0, -0.5, 1.5, 1e308, 1e-400, "", "a",
    "..", "../x", "/etc/passwd", "a\0b", "\u202eabc", "\x1b[2J", "\ud800", "x" * 300, "é", "1", "NaN", [], {}, [[]],
    [1, 2, 3], [3, 2, 1],
    {"a": 1}, [0] * 100, [8] * 3, "0" * 64, "<<", "hf://a/b",
)  # fmt: skip
PIECES = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"[", b"{", b'"', b"\\", b"\\ud800", b"NaN", b"1e999", b"9" * 5000, b"[" * 500,
    b"\n", b"\r",
    b"\t", b": ", b"- ", b"&a ", b"*a", b"<<: ", b"!!python/object:os.system ", b"---\n", b"%YAML 9.9\n", b"? ", b"| ",
    b"2020-99-99",
    b"1:99:99", b"0x", b"0b2", b".inf", b"~", b"''", b"@", b">=", b",", b"\xe2\x80\xae", b"\xd9\xa3",
    b"1_0", b"1e5", b"=",
)  # fmt: skip


def mutate_bytes(draw: random.Random, data: bytes) -> bytes:
    """Change bytes: flip, cut, repeat, move, insert what readers stumble over."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 1, 2, 8, 60)))
        kind = draw.randrange(6)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[end:]
        elif kind == 2:
            data = data[:at] + data[at:end] * draw.choice((2, 3, 50)) + data[end:]
        elif kind == 3:
            data = data[:at] + draw.choice(PIECES) + data[at:]
        elif kind == 4:
            data = data[:at] + draw.choice(PIECES) + data[end:]
        else:
            data = data[:at] if draw.random() < 0.5 else data[at:]
    return data[:LONGEST]


def mutate_value(draw: random.Random, value: Any) -> Any:
    """Return JSON data with one place changed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        kind = draw.random()
        rest = {k: v for k, v in value.items() if k != key}
        if kind < 0.05:
            return rest
        if kind < 0.1:
            return {**rest, draw.choice(("", "x", "\0", *value)) + draw.choice(("", "x")): value[key]}
        return {**value, key: mutate_value(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at, kind = draw.randrange(len(value)), draw.random()
        if kind < 0.1:
            return value[:at] + value[at + 1 :]
        if kind < 0.2:
            return value[:at] + [value[at]] * draw.choice((2, 3, 300)) + value[at:]
        return [*value[:at], mutate_value(draw, value[at]), *value[at + 1 :]]
    kind = draw.random()
    if kind < 0.2 and type(value) in (int, float):
        return value * draw.choice((-1, 2, 1000, 1e6, 0.5)) + draw.choice((0, 1, 0.5))
    if kind < 0.3:
        for _ in range(draw.choice((1, 2, 70, 400))):
            value = [value] if draw.random() < 0.5 else {"a": value}
        return value
    return draw.choice(WORDS)


def _text(value: Any) -> str:
    """Return JSON text up to the longest input: lists repeated in repeated lists may be gigabytes of it."""
    if _is_small(value):
        return json.dumps(value)[:LONGEST]
    found, size = [], 0
    for piece in json.JSONEncoder().iterencode(value):
        found.append(piece)
        size += len(piece)
        if size >= LONGEST:
            break
    return "".join(found)[:LONGEST]


def _is_small(value: Any) -> bool:
    seen, waiting = 0, [value]
    while waiting and seen <= LONGEST:
        item = waiting.pop()
        seen += 1
        if isinstance(item, (dict, list)):
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return seen <= LONGEST


def mutate_json(draw: random.Random, data: bytes) -> bytes:
    """Change a value of JSON text, or its bytes."""
    if draw.random() < 0.3:
        return mutate_bytes(draw, data)
    try:
        value = json.loads(data)
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            value = mutate_value(draw, value)
        return _text(value).encode()
    except (ValueError, RecursionError, OverflowError):  # the last one: 10^400 times 0.5
        return mutate_bytes(draw, data)


def mutate_header(draw: random.Random, data: bytes) -> bytes:
    """Change the header of a safetensors file with its length made right, or its bytes."""
    size = int.from_bytes(data[:8], "little")
    if draw.random() < 0.3 or not 0 < size < len(data):
        return mutate_bytes(draw, data)
    header = mutate_json(draw, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


# --------------------------------------------------------------------------------------------------------- judge


@dataclass
class Report:
    """What fuzzing of a target found.

    Attributes:
        target: its name.
        inputs, accepted: how many, and how many of them were valid.
        seconds: in all.
        worst_seconds: of one input.
        grown_bytes: how much the process' peak grew while it read the inputs.
        failures: an input and what went wrong.
    """

    target: str
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    worst_seconds: float = 0.0
    grown_bytes: int = 0
    failures: list[tuple[bytes, str]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.failures = self.failures or []

    def judge(self, target: Target, data: bytes) -> None:
        """Run an input and note what came of it."""
        peak = peak_bytes()  # now: making the input is not reading it
        began, before = time.perf_counter(), time.thread_time()
        failure = None
        try:
            target.run(data)
            self.accepted += 1
        except BigNASError as error:
            if len(str(error)) > 20_000:
                failure = f"a message of {len(str(error)):,} characters"
        except Exception:  # noqa: BLE001  that is what is looked for
            failure = "".join(traceback.format_exc().splitlines(keepends=True)[-8:])
        taken = time.thread_time() - before  # of this thread: other processes of the machine do not count
        self.inputs += 1
        self.seconds += time.perf_counter() - began
        self.worst_seconds = max(self.worst_seconds, taken)
        grown = self.grown_bytes + peak_bytes() - peak
        if failure is None and taken > MOST_SECONDS:
            failure = f"took {taken:.2f} s"
        if failure is None and grown > MOST_BYTES > self.grown_bytes:
            failure = f"took {grown >> 20} MiB"
        self.grown_bytes = grown
        if failure is not None and len(self.failures) < 20:
            self.failures.append((data, failure))

    def line(self) -> str:
        """Return the report in one line."""
        rate = self.inputs / self.seconds if self.seconds else 0
        return (
            f"{self.target:<10} {self.inputs:>9,} inputs  {self.accepted:>8,} valid  {rate:>8,.0f}/s  "
            f"worst {self.worst_seconds * 1000:7.1f} ms  +{self.grown_bytes / (1 << 20):.0f} MiB  "
            f"{len(self.failures)} failures"
        )


def peak_bytes() -> int:
    """Return the most memory this process ever used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def kept(name: str) -> list[bytes]:
    """Return the inputs that once failed."""
    return [p.read_bytes() for p in sorted((CORPUS / name).glob("*")) if p.is_file()]


def inputs(target: Target, count: int, seed: int) -> Iterator[bytes]:
    """Give seeds, what once failed, and mutations of both and of each other."""
    draw = random.Random(f"{target.name} {seed}")
    pool = [*target.seeds, *kept(target.name)]
    yield from pool[:count]
    recent: list[bytes] = []
    for _ in range(count - len(pool)):
        data = target.mutate(draw, draw.choice(recent if recent and draw.random() < 0.3 else pool))
        if draw.random() < 0.05:
            recent = [*recent[-50:], data]
        yield data


def fuzz(target: Target, count: int, seed: int = 0, seconds: float = float("inf")) -> Report:
    """Judge so many inputs, or as many as fit the time."""
    target.run(target.seeds[0])  # valid, and what it imports is not the first input's time
    report, began = Report(target.name), time.monotonic()
    for data in inputs(target, count, seed):
        report.judge(target, data)
        if time.monotonic() - began > seconds or len(report.failures) >= 20:
            break
    return report
