"""Budgets: what a slice may cost, as a user writes it.

    BUDGET = TERM {"," TERM}
    TERM   = ["<="] NUMBER UNIT ["@" DEVICE]  |  "top1" ">=" NUMBER

========== ============================================ ===========================
quantity   units                                        example
========== ============================================ ===========================
macs       FLOPs, MACs with K, M, G; or K, M, G alone   400MFLOPs, 0.4GMACs, 400M
parameters params with K, M, G                          5Mparams
bytes      B, KB, MB, GB (powers of 1000), KiB, MiB      4MB
memory     the same with "ram" behind                   96KBram
latency    us, ms, s, and the device's name             8ms@pixel-6
top1       percent, a lower limit                       top1>=80
========== ============================================ ===========================

MACs are multiply-adds counted once; mobile papers call the same count FLOPs, so both words mean
the same here.

Bytes are those of the float32 TFLite file. Memory is that of a microcontroller: what tflite-micro needs for the int8
file (`architecture.cost.arena`), so bytes beside it are the int8 file's (`architecture.cost.int8_bytes`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bignas_zoo.errors import BudgetError

if TYPE_CHECKING:
    from fractions import Fraction

#: What a limit can be about: the names of figures.
QUANTITIES = ("macs", "parameters", "bytes", "int8_bytes", "arena_bytes", "latency_ms", "top1")
PREFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20}
RAM = "ram"
UNITS = {"macs": "MACs", "parameters": "params", "bytes": "B", "int8_bytes": "B in int8", "arena_bytes": "B of memory"}
MILLISECONDS = {"us": "1/1000", "ms": "1", "s": "1000"}

GRAMMAR = (
    "Write for example 400MFLOPs, 0.4GMACs, 5Mparams, 4MB, 96KBram, 8ms@DEVICE or 'top1>=80'; "
    "join several with commas; K, M and G are capital letters."
)
MAX_LENGTH = 200
_NUMBER = r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?)"
_UPPER = re.compile(rf"(?:<=)?{_NUMBER}(?P<unit>[A-Za-z]+)(?:@(?P<device>[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}))?")
_TOP1 = re.compile(rf"top1>={_NUMBER}")
_COUNT = re.compile(r"(?P<prefix>[KMG]?)(?P<word>flops|macs|params)", re.IGNORECASE)
#: What is wrong with a term that does not follow the grammar: the first that matches.
_REASONS = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"$", "a term is empty"),
        (r"(<=)?-", "a limit is above zero"),
        (r"top1", "top1 takes '>=' and a percentage, as in top1>=80.5"),
        (r"(<(?!=)|>|=)", "a limit has '<=' in front or nothing; only top1 has '>='"),
        (r"(<=)?[+]?(nan|inf)", "that is not a number"),
        (r".*\s", "a term has no spaces"),
        (r".*@$", "the device's name is missing after '@'"),
        (r"(<=)?[0-9.]+$", "its unit is missing"),
        (r"(<=)?[0-9]+([.][0-9]+)?e[-+0-9]", "write numbers without an exponent"),
        (r"(<=)?([0-9]{16}|[0-9]*[.][0-9]{10})", "a number has at most 15 digits before the point and 9 after it"),
    )
)


@dataclass(frozen=True)
class Limit:
    """One term: `quantity` may be at most `value` (at least, for top1).

    Attributes:
        quantity: one of `QUANTITIES`.
        value: the exact limit, in the quantity's unit (percent for top1).
        device: for latency, where it is to be met.
        text: the term as written.
    """

    quantity: str
    value: Fraction
    device: str | None
    text: str

    @property
    def figure(self) -> str:
        """The name of the figure it limits: the quantity, and for latency ``latency_ms@DEVICE``."""
        return self.quantity if self.device is None else f"{self.quantity}@{self.device}"

    def allows(self, measured: float) -> bool:
        """Return whether a slice with this figure meets the limit."""
        # A float is compared as a float, so that 88.1 meets "88.1"; whole numbers are compared exactly.
        limit = self.value if isinstance(measured, int) else float(self.value)
        return measured >= limit if self.quantity == "top1" else measured <= limit


@dataclass(frozen=True)
class Budget:
    """One or more limits that must all hold."""

    limits: tuple[Limit, ...]

    @staticmethod
    def parse(text: str) -> Budget:
        """Parse a budget string.

        Args:
            text: see the module's grammar, e.g. ``"400MFLOPs,4MB"``.

        Returns:
            The budget.

        Raises:
            BudgetError: the text does not follow the grammar, or a number is zero.
        """
        if not isinstance(text, str) or not text.strip():
            raise BudgetError(f"budget: is empty. {GRAMMAR}")
        if len(text) > MAX_LENGTH:
            raise BudgetError(f"budget: longer than {MAX_LENGTH} characters. {GRAMMAR}")
        limits = [_term(part.strip(" ")) for part in text.split(",")]
        budget = Budget(tuple(limits))
        if not budget.of_microcontroller:
            return budget
        return Budget(tuple(replace(v, quantity="int8_bytes") if v.quantity == "bytes" else v for v in limits))

    @property
    def upper(self) -> tuple[Limit, ...]:
        """The limits on cost (everything but top1)."""
        return tuple(limit for limit in self.limits if limit.quantity != "top1")

    def violations(self, figures: Mapping[str, float | None]) -> tuple[Limit, ...]:
        """Return the limits that do not hold for a slice; an unknown figure never holds.

        Args:
            figures: `Limit.figure` to value, e.g. ``{"macs": 17_000_000, "top1": 88.1, "latency_ms@pixel-6": 7.9}``.
        """
        return tuple(limit for limit in self.limits if not _holds(limit, figures.get(limit.figure)))

    @property
    def of_microcontroller(self) -> bool:
        """Whether it limits memory: then the file is the int8 one."""
        return any(limit.quantity == "arena_bytes" for limit in self.limits)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that latencies are limited on, each once."""
        return tuple(dict.fromkeys(limit.device for limit in self.limits if limit.device is not None))

    def __str__(self) -> str:
        return ", ".join(limit.text for limit in self.limits)


def amount(quantity: str, value: float) -> str:
    """Return a figure with its unit, e.g. ``17.30 MMACs``."""
    if quantity == "latency_ms":
        return f"{milliseconds(value)} ms"
    unit = UNITS[quantity]
    for factor, prefix in ((10**9, "G"), (10**6, "M"), (10**3, "K")):
        if value >= factor:
            return f"{value / factor:.2f} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def milliseconds(value: float) -> str:
    """Return milliseconds with two decimals, or three significant digits where that is more: 7.95, 0.0127."""
    decimals = 2 if value >= 1 or value <= 0 else min(6, 2 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f}"


def _holds(limit: Limit, figure: float | None) -> bool:
    return figure is not None and limit.allows(figure)


def _term(term: str) -> Limit:
    from fractions import Fraction  # with decimals, 4 ms that a command without a budget need not take

    match = _TOP1.fullmatch(term)
    if match:
        value = Fraction(match["number"])
        if not 0 < value <= 100:
            raise BudgetError(f"budget {term!r}: top1 is a percentage above 0 and up to 100.")
        return Limit("top1", value, None, term)
    match = _UPPER.fullmatch(term)
    if not match:
        what, _, device = term.partition("@")
        if device and _UPPER.fullmatch(what):
            raise BudgetError(
                f"budget {term!r}: {device!r} cannot be a device's name (letters, digits, '_', '.' and '-', "
                "at most 64). `bignas-zoo devices` lists them, and names the folder for tables of your own."
            )
        reason = next((reason for pattern, reason in _REASONS if pattern.match(term)), "not understood")
        raise BudgetError(f"budget {term!r}: {reason}. {GRAMMAR}")
    quantity, scale = _unit(term, match["unit"])
    value = Fraction(match["number"]) * Fraction(scale)
    if value <= 0:
        raise BudgetError(f"budget {term!r}: must be above zero. {GRAMMAR}")
    device = match["device"]
    if quantity == "latency_ms" and device is None:
        raise BudgetError(f"budget {term!r}: a time needs its device, e.g. {term}@pixel-6.")
    if quantity != "latency_ms" and device is not None:
        raise BudgetError(f"budget {term!r}: only a time is tied to a device; leave out '@{device}'.")
    return Limit(quantity, value, device, term)


def _unit(term: str, unit: str) -> tuple[str, int | str]:
    if unit in MILLISECONDS:
        return "latency_ms", MILLISECONDS[unit]
    if unit in BYTES:
        return "bytes", BYTES[unit]
    if unit.endswith(RAM) and unit.removesuffix(RAM) in BYTES:
        return "arena_bytes", BYTES[unit.removesuffix(RAM)]
    if unit in PREFIXES:
        return "macs", PREFIXES[unit]
    match = _COUNT.fullmatch(unit)
    if not match and _COUNT.fullmatch(f"{unit}s"):
        raise BudgetError(f"budget {term!r}: unit '{unit}' is written '{unit}s'. {GRAMMAR}")
    if match and match["prefix"] in PREFIXES:
        return ("parameters" if match["word"].lower() == "params" else "macs"), PREFIXES[match["prefix"]]
    if match or unit.removesuffix(RAM) in ("k", "m", "g", "mb", "kb", "gb", "Mb", "Kb", "Gb", "mB", "kB"):
        raise BudgetError(f"budget {term!r}: K, M and G (and B for bytes) are capital letters. {GRAMMAR}")
    if unit.lower().endswith(RAM):
        raise BudgetError(f"budget {term!r}: memory is written as in 96KBram. {GRAMMAR}")
    raise BudgetError(f"budget {term!r}: unit '{unit}' is not known. {GRAMMAR}")
