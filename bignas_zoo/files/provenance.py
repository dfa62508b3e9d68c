"""Who made a number: the versions and the machine behind it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

PACKAGES = (
    "bignas-zoo",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "jax",
    "numpy",
    "ai-edge-litert",
    "litert-quantizer",
    "onnx",
    "onnxruntime",
)


#: Those of them that files written from the plan depend on.
OF_PLAN = ("bignas-zoo", "numpy", "ai-edge-litert")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of the packages that make a slice, those that are installed."""
    from importlib.metadata import PackageNotFoundError, version  # 30 ms that `list` can do without

    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def machine() -> str:
    """Return processor and core count in words, e.g. ``2 cores of AMD EPYC 9R14, Linux``."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}, {platform.system()}"
