"""YAML of others, read strictly: what is ambiguous or made to cost time is refused before anything is built of it."""

from __future__ import annotations

import re
from typing import Any

import yaml

from bignas_zoo.errors import RecipeError

#: The longest recipe here has 1.7 kB and 110 nodes; PyYAML reads some 100 kB a second.
MAX_BYTES, MAX_EVENTS = 64 << 10, 2_000
MAX_DEPTH = 8

#: What PyYAML raises on text that is no YAML, beside its own errors: on dates, numbers, keys and tags of its resolver.
NO_YAML = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


def loads(text: str, where: str) -> dict[str, Any]:
    """Return the one mapping that YAML text holds.

    Args:
        text: of a recipe.
        where: its name in messages.

    Raises:
        RecipeError: it is not YAML or no mapping, has anchors, aliases, tags, merge keys, a key twice, or a number or
            truth value that YAML 1.1 reads otherwise than it looks; or is too long or too deep for a recipe.
    """
    depth = 0
    try:
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            mark: Any = event.start_mark  # always there, whatever its type says
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # PyYAML takes quadratic time over thousands of levels
                raise RecipeError(f"{where}: line {mark.line + 1}: nested too deeply for a recipe.")
            if number > MAX_EVENTS:
                raise RecipeError(f"{where}: line {mark.line + 1}: more than a recipe can hold.")
            if getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise RecipeError(f"{where}: line {mark.line + 1}: anchors, aliases and tags are not allowed.")
        loader = yaml.SafeLoader(text)
        node: Any = loader.get_single_node()
        _check_keys(node, where)
        data = None if node is None else loader.construct_document(node)
    except NO_YAML as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{where}: not valid YAML ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{where}: must be one mapping of recipe fields.")
    return data


#: What numbers and truth values may look like: 1:30 would be 90, 010 8, 1_0 10, and no would be false.
PLAIN = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)"),
    "float": re.compile(r"[-+]?([0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?|\.[0-9]+|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
}


def _check_keys(node: Any, where: str) -> None:
    """Refuse a key that stands twice, one that YAML 1.1 replaces by the content of its value, and its odd numbers."""
    if isinstance(node, yaml.ScalarNode):
        plain = PLAIN.get(node.tag.rpartition(":")[2])
        if plain and not plain.fullmatch(node.value):
            raise RecipeError(
                f"{where}: line {node.start_mark.line + 1}: {node.value[:40]!r} means another thing in YAML than it "
                "looks like. Write numbers in plain decimal digits, and true or false."
            )
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, where)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            raise RecipeError(f"{where}: line {key.start_mark.line + 1}: merge keys (<<) are not allowed.")
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name is not None and name in seen:
            raise RecipeError(f"{where}: key '{name[:80]}' stands twice.")
        seen.add(name)
        _check_keys(key, where)
        _check_keys(value, where)
