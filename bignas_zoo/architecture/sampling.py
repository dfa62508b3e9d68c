"""Random children without hidden state: every draw is a pure function of its key.

A draw is keyed by ``(seed, step, child, what, stage, layer)`` and hashed, so the same key gives
the same child on every machine, backend and Python version, and a resumed run repeats exactly the
draws of an uninterrupted one.

Reference: BigNAS (arXiv 2003.11142) section 3.1, "sandwich rule".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from bignas_zoo.architecture.choices import Choice, Place
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.errors import UsageError

T = TypeVar("T")
Key = tuple[int | str, ...]


def uniform(key: Key) -> float:
    """Return the uniform number in [0, 1) that belongs to `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def choose(options: Sequence[T], key: Key) -> T:
    """Return one of `options`, each equally likely, decided by `key` alone."""
    return options[int(uniform(key) * len(options))]


def uniform_child(space: SearchSpace, key: Key, resolution: int | None = None) -> ChildSpec:
    """Draw every choice of a child independently and uniformly.

    Args:
        space: the search space.
        key: names the draw, e.g. ``(seed, step, child)``.
        resolution: fixed input size in pixels; drawn from the trained sizes if None.

    Returns:
        The child.
    """
    values: dict[Place, int] = {}
    for choice in space.choices:
        if choice.acts(values):
            values[choice.place] = choose(choice.options, (*key, *choice.key))
    if resolution is not None:
        values["resolution", -1, -1] = resolution
    return space.child(values)


def sandwich(space: SearchSpace, seed: int, step: int, random_children: int = 2) -> tuple[ChildSpec, ...]:
    """Return the children of one training step: biggest, random ones, smallest.

    The biggest child takes the largest trained resolution and the smallest the least; random
    children go round the resolutions between, so that four resolutions serve four children.

    Args:
        space: the search space.
        seed, step: the key of the step's draws.
        random_children: how many children between the two ends (2 in the paper).

    Returns:
        ``random_children + 2`` children, the biggest first, the smallest last.
    """
    middle = space.resolutions[1:-1] or space.resolutions
    drawn = tuple(uniform_child(space, (seed, step, i), middle[i % len(middle)]) for i in range(random_children))
    return (space.biggest, *drawn, space.smallest)


def mutate(spec: ChildSpec, key: Key, rate: float = 0.1, *, unseen_resolutions: bool = False) -> ChildSpec:
    """Redraw each choice of a child with probability `rate`.

    Args:
        spec: the parent.
        key: names the draw.
        rate: probability for each choice, in [0, 1].
        unseen_resolutions: whether sizes not seen in training may be drawn.

    Returns:
        A child of the same space; it may equal its parent.

    Raises:
        UsageError: `rate` is not a probability.
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"mutation rate: must be within 0 and 1, got {rate!r}.")

    def redraw(choice: Choice, old: int) -> int:
        if uniform((*key, "change", *choice.key)) >= rate:
            return old
        return choose(choice.allowed if unseen_resolutions else choice.options, (*key, *choice.key))

    values: dict[Place, int] = {}
    for choice in spec.space.choices:
        if choice.acts(values):  # a layer that is new starts from the parent's last one
            values[choice.place] = redraw(choice, spec.values[choice.place])
    return spec.space.child(values)


def crossover(first: ChildSpec, second: ChildSpec, key: Key, share: float = 0.5) -> ChildSpec:
    """Mix two children: resolution, stem, head and each stage come whole from one of them.

    Args:
        first, second: the parents, of one space.
        key: names the draw.
        share: probability of each part to come from `second`, in [0, 1].

    Returns:
        A child of the same space; it may equal a parent.

    Raises:
        UsageError: the parents are of different spaces, or `share` is not a probability.
    """
    if first.space != second.space:
        raise UsageError(f"crossover: '{first.space.name}' and '{second.space.name}' are different spaces.")
    if not 0 <= share <= 1:
        raise UsageError(f"crossover: share must be within 0 and 1, got {share!r}.")

    def part(choice: Choice) -> Key:
        return choice.key if choice.stage < 0 else ("stage", choice.stage)

    parts = dict.fromkeys(part(choice) for choice in first.space.choices)
    from_second = {what for what in parts if uniform((*key, "second", *what)) < share}
    one, other = first.values, second.values
    return first.space.child(
        {c.place: (other if part(c) in from_second else one)[c.place] for c in first.space.choices}
    )
