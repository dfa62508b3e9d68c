"""What values a field may have: tests with their descriptions, and types as YAML spells them."""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from bignas_zoo.errors import RecipeError

#: A test of a value, and what it allows, in words.
Rule = tuple[Callable[[Any], bool], str]
#: No count, step or seed of a recipe is beyond this.
MOST_WHOLE = 10**30


def above(least: float, *, inclusive: bool = False) -> Rule:
    """Return the rule of numbers above another, or of at least it."""
    if inclusive:
        return (lambda v: v >= least), f"at least {least}"
    return (lambda v: v > least), f"above {least}"


def whole(low: int, high: int) -> Rule:
    """Return the rule of whole numbers of a range, both ends included."""
    return (lambda v: low <= v <= high), f"a whole number within {low:,} and {high:,}"


def within(low: float, high: float) -> Rule:
    """Return the rule of numbers of a range, both ends included."""
    return (lambda v: low <= v <= high), f"within {low} and {high}"


def among(*options: Any) -> Rule:
    """Return the rule of a few allowed values."""
    return (lambda v: v in options), f"one of {', '.join(map(str, options))}"


def check(where: str, fields: object, rules: Mapping[str, Rule]) -> None:
    """Test the fields of a value.

    Args:
        where: begins the message, e.g. ``"recipe 'mine': "``.
        fields: has an attribute for each rule.
        rules: field name to rule.

    Raises:
        RecipeError: a value is not allowed; the message says which are.
    """
    for key, (good, allowed) in rules.items():
        value = getattr(fields, key)
        if not good(value):
            raise RecipeError(f"{where}{key}: must be {allowed}, got {short(value)}.")


def short(value: Any) -> str:
    """Return a value for a message: never longer than a few lines."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def typed(where: str, key: str, value: Any, hint: Any) -> Any:
    """Check one value against its field's type.

    Args:
        where, key: begin the message.
        value: as YAML or JSON gave it.
        hint: ``int``, ``float``, ``bool``, ``str`` or a tuple of floats.

    Returns:
        The value; ints pass as floats, lists become tuples.

    Raises:
        RecipeError: it is of another type, or a number out of all proportion.
    """
    if typing.get_origin(hint) is tuple:
        return _numbers(where, key, value, len(typing.get_args(hint)))
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    accepted: Any = int | float if hint is float else hint
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, accepted):
        name = hint.__name__ if not isinstance(hint, types.UnionType) else str(hint)
        raise RecipeError(f"{where}: {key}: must be of type {name}, got {short(value)}.")
    if isinstance(value, int) and hint is not float and not -MOST_WHOLE <= value <= MOST_WHOLE:
        raise RecipeError(f"{where}: {key}: must be within {MOST_WHOLE:.0e}, got {short(value)}.")
    return _finite(where, key, value) if hint is float else value


def _numbers(where: str, key: str, value: Any, count: int) -> tuple[float, ...]:
    if isinstance(value, list) and len(value) == count:
        return tuple(typed(where, key, v, float) for v in value)
    raise RecipeError(f"{where}: {key}: must be a list of {count} numbers, got {short(value)}.")


def _finite(where: str, key: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond the largest float
        number = float("inf")
    if number != number or number in (float("inf"), float("-inf")):
        raise RecipeError(f"{where}: {key}: must be a finite number, got {short(number)}.")
    return number
