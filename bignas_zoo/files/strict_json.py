"""JSON of others, read strictly: what is ambiguous or made to cost time is refused before anything is built of it."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

#: Levels of lists and objects; the deepest file of this package has eight.
MAX_DEPTH = 64
#: One that is never closed goes to the end, so that no byte is looked at twice.
_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def loads(data: bytes) -> Any:
    """Return what JSON text says.

    Args:
        data: UTF-8.

    Raises:
        ValueError: it is not UTF-8 or not JSON, nested too deeply, or has a key twice, half a surrogate pair, or a
            number that is none (NaN, infinity, 1e999).
    """
    text = data.decode("utf-8")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_number, parse_float=_finite)
    except ValueError as error:
        if "integer string" in str(error):  # Python's own limit on digits
            raise ValueError("a whole number has thousands of digits") from error
        raise
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair") from error
    return value


def _depth(text: str) -> int:
    brackets = _NOT_BRACKETS.sub("", _STRINGS.sub("", text))
    return max(itertools.accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:60]!r} stands twice in one object")
    return members


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value
