"""Random numbers by key: streams on the host, and keys of what is drawn inside a step."""

from __future__ import annotations

import numpy as np


def philox(seed: int, *key: int | str) -> np.random.Generator:
    """Return the random generator that belongs to a key; equal keys give equal streams."""
    words = [seed]
    for part in key:
        words += [part] if isinstance(part, int) else list(part.encode())
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def key_of(seed: int, step: int, child: int) -> np.ndarray:
    """Return the uint32 key of one child's draws in one step."""
    return np.asarray(np.random.SeedSequence([seed, step, child]).generate_state(1, np.uint32)[0])
