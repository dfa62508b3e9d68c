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

from bignas_zoo.architecture.space import ChildSpec, SearchSpace, StageSpec
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
    stages = []
    for i, stage in enumerate(space.stages):
        depth = choose(stage.depths, (*key, "depth", i))
        kernels = tuple(choose(stage.kernels, (*key, "kernel", i, j)) for j in range(depth))
        if stage.layerwise_widths:
            widths = tuple(choose(stage.widths, (*key, "width", i, j)) for j in range(depth))
        else:
            widths = (choose(stage.widths, (*key, "width", i)),) * depth
        stages.append(StageSpec(depth, widths, kernels, choose(stage.expansions, (*key, "expansion", i))))
    return ChildSpec(
        space,
        choose(space.resolutions, (*key, "resolution")) if resolution is None else resolution,
        choose(space.stem_widths, (*key, "stem")),
        tuple(stages),
        choose(space.head_widths, (*key, "head")),
    )


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
    space = spec.space
    sizes = space.all_resolutions if unseen_resolutions else space.resolutions

    def redraw(old: T, options: Sequence[T], what: Key) -> T:
        return choose(options, (*key, *what)) if uniform((*key, "change", *what)) < rate else old

    stages = []
    for i, (stage, allowed) in enumerate(zip(spec.stages, space.stages, strict=True)):
        depth = redraw(stage.depth, allowed.depths, ("depth", i))
        last = stage.depth - 1  # a layer that is new starts from the parent's last one
        kernels = tuple(redraw(stage.kernels[min(j, last)], allowed.kernels, ("kernel", i, j)) for j in range(depth))
        if allowed.layerwise_widths:
            widths = tuple(redraw(stage.widths[min(j, last)], allowed.widths, ("width", i, j)) for j in range(depth))
        else:
            widths = (redraw(stage.width, allowed.widths, ("width", i)),) * depth
        expansion = redraw(stage.expansion, allowed.expansions, ("expansion", i))
        stages.append(StageSpec(depth, widths, kernels, expansion))
    return ChildSpec(
        space,
        redraw(spec.resolution, sizes, ("resolution",)),
        redraw(spec.stem_width, space.stem_widths, ("stem",)),
        tuple(stages),
        redraw(spec.head_width, space.head_widths, ("head",)),
    )


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

    def pick(one: T, other: T, *what: int | str) -> T:
        return other if uniform((*key, "second", *what)) < share else one

    return ChildSpec(
        first.space,
        pick(first.resolution, second.resolution, "resolution"),
        pick(first.stem_width, second.stem_width, "stem"),
        tuple(pick(a, b, "stage", i) for i, (a, b) in enumerate(zip(first.stages, second.stages, strict=True))),
        pick(first.head_width, second.head_width, "head"),
    )
