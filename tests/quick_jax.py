"""JAX in tests: it compiles far longer than it runs here, so its compiler leaves out what makes programs fast."""

from __future__ import annotations

import os

#: A fifth to a third less time in all; the numbers agree with TensorFlow's to the same digits.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def set_flags(*more: str) -> None:
    """Set them for this process, before JAX is loaded."""
    os.environ["XLA_FLAGS"] = " ".join((FLAGS, *more))
