"""What `profile` has measured, and what of it is the machine's mood."""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.files import store
from bignas_zoo.latency import Measurement
from bignas_zoo.latency.validation import number

LOG_SCHEMA = "bignas-zoo/profile-log/2"
FLOOR, ANCHOR = "floor", "anchor"
TIMES = ("ms", "std", FLOOR, ANCHOR)
TINY_MS = 1e-9  # has a logarithm
POLISHES = 50

Entry = dict[str, Any]


class ProfileLog:
    """What has been measured, one JSON object a line."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.entries = path, list[Entry]()
        if not path.exists():
            store.append_line(path, json.dumps(header))
            return
        *lines, unfinished = path.read_bytes().split(b"\n")
        if unfinished:  # a line that was being written; the next one must not go behind it
            store.atomic_write(path, b"".join(line + b"\n" for line in lines))
        try:
            first, *entries = (json.loads(line) for line in lines)
            written = {**first, "protocol": {**first["protocol"], "date": None}}
            wanted = {**header, "protocol": {**header["protocol"], "date": None}}
            for entry in entries:
                times = {key: _time(entry, key) for key in TIMES}
                self.entries.append({**entry, **times, "name": str(entry["name"]), "group": int(entry["group"])})
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path}: not a log of `profile` ({error}). Remove it to measure again.") from error
        if written != wanted:
            differing = [k for k in wanted if written.get(k) != wanted[k]]
            raise UsageError(
                f"{path}: was measured with another {', '.join(differing)}; times of another protocol are never mixed. "
                "Choose another name, or remove it to measure again."
            )

    @property
    def passes(self) -> Counter[str]:
        """How often each file was measured."""
        return Counter(entry["name"] for entry in self.entries)

    @property
    def next_group(self) -> int:
        """A number that no group has."""
        return max((entry["group"] for entry in self.entries), default=-1) + 1

    def add(self, name: str, group: int, measured: Measurement, floor_ms: float, anchor_ms: float) -> None:
        """Store a measurement, on the disk before anything goes on."""
        entry = {
            "name": name,
            "group": group,
            "ms": measured.mean_ms,
            "std": measured.std_ms or 0.0,
            "count": measured.count,
            FLOOR: floor_ms,
            ANCHOR: anchor_ms,
        }
        store.append_line(self.path, json.dumps(entry))
        self.entries.append(entry)
        for name in ("_polished", "floor_ms"):  # what was made of the entries before
            self.__dict__.pop(name, None)

    @property
    def brisk(self) -> float:
        """What the anchor took at most in the fastest quarter of groups; infinite before the first.

        Not at its fastest: a clock that was raised for a moment would have everything after it measured thrice.
        """
        anchors = sorted(entry[ANCHOR] for entry in self.entries)
        return float(anchors[len(anchors) // 4]) if anchors else math.inf

    def steady(self, name: str) -> Measurement:
        """Return a file's time as if the machine had always been as fast as in its middle group."""
        entries = [entry for entry in self.entries if entry["name"] == name]
        deviation = statistics.fmean(entry["std"] * self._drift(entry) for entry in entries)
        return Measurement(math.exp(self._polished[0][name]), deviation, sum(entry["count"] for entry in entries))

    def differing(self, most: float) -> set[str]:
        """Return the files of which two measurements differ by more than a share, as if the machine had been steady."""
        times = defaultdict[str, list[float]](list)
        for entry in self.entries:
            times[entry["name"]].append(max(entry["ms"], TINY_MS) * self._drift(entry))
        return {name for name, taken in times.items() if max(taken) > (1 + most) * min(taken)}

    @functools.cached_property
    def floor_ms(self) -> float:
        """What any file takes, likewise."""
        return float(statistics.median(entry[FLOOR] * self._drift(entry) for entry in self.entries))

    def _drift(self, entry: Mapping[str, Any]) -> float:
        return math.exp(-self._polished[1][entry["group"]])

    @functools.cached_property
    def _polished(self) -> tuple[dict[str, float], dict[int, float]]:
        """Split the logarithms of times into a part of the file and one of the group: Tukey's median polish.

        It starts from what the anchors say, one file a group; then all files of a group have a say in how slow it was.
        """
        times = {(e["group"], e["name"]): math.log(max(e["ms"], TINY_MS)) for e in self.entries}
        times |= {(e["group"], ANCHOR): math.log(e[ANCHOR]) for e in self.entries}
        by_name, by_group = defaultdict[str, list[int]](list), defaultdict[int, list[str]](list)
        for group, name in times:
            by_name[name].append(group)
            by_group[group].append(name)
        groups = _centred({group: times[group, ANCHOR] for group in by_group})
        for _ in range(POLISHES):
            names = {n: statistics.median(times[g, n] - groups[g] for g in members) for n, members in by_name.items()}
            groups = _centred({g: statistics.median(times[g, n] - names[n] for n in f) for g, f in by_group.items()})
        return names, groups


def _centred(values: dict[int, float]) -> dict[int, float]:
    middle = statistics.median(values.values())
    return {key: value - middle for key, value in values.items()}


def _time(entry: Mapping[str, Any], key: str) -> float:
    return number(entry[key], key, 1e-9 if key == ANCHOR else 0.0, 1e9)
