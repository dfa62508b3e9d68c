"""What the TPU compiler says of a training step: figures of its programs, and of the whole.

Times and cycles are the compiler's estimates, never measurements.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

#: BigNAS, arXiv 2003.11142: 36 hours on a v3 pod of 8x8 chips. The seconds a step are this project's
#: reading of it (see imagenet_tpu.yaml).
PAPER_HOURS, PAPER_STEP_SECONDS = 36.0, 1.1
ESTIMATE = "the compiler's estimate, not a measurement"
#: For kinds of core whose "optimal seconds" are none: memory and arithmetic at their published peaks.
ROOFLINE = "bytes moved and arithmetic at the core's published peaks; no measurement"
#: Bytes and bfloat16 operations a second of a core, by Google's Cloud TPU documentation.
PEAKS = {"TPU v5 lite": (819e9, 197e12), "TPU v6 lite": (1600e9, 918e12)}
OPTIMIZER = "optimizer"


@dataclass(frozen=True)
class Program:
    """What the compiler says of one of the programs that make a step, for one core.

    Attributes:
        name: "child 1" (the biggest) and so on, or "optimizer".
        temporary_bytes, argument_bytes, output_bytes: memory; outputs that take over an argument's
            are not counted.
        flops, bytes_accessed: arithmetic and memory traffic.
        estimated_seconds: the compiler's "optimal seconds": each operation as fast as arithmetic or
            memory allows. For v5e and v6e it gives none (a negative number): then all bytes or all
            arithmetic at the core's published peak, whichever takes longer; None for unknown cores.
        estimated_cycles: the compiler's cycles of each operation as scheduled, summed as if none
            overlapped: a less hopeful estimate; 0 if it names none.
        compile_seconds: from tracing done to program, others compiling beside it.
    """

    name: str
    temporary_bytes: int
    argument_bytes: int
    output_bytes: int
    flops: float
    bytes_accessed: float
    estimated_seconds: float | None
    estimated_cycles: int
    compile_seconds: float

    @property
    def memory_bytes(self) -> int:
        """All memory the program needs while it runs."""
        return self.temporary_bytes + self.argument_bytes + self.output_bytes

    @staticmethod
    def of(name: str, compiled: Any, seconds: float, device: str = "") -> Program:
        """Read a program compiled for a kind of core; it has the methods of JAX's executables that are used here."""
        entry = compiled.as_text().rpartition("\nENTRY ")[2]
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        return Program(
            name,
            int(memory.temp_size_in_bytes),
            int(memory.argument_size_in_bytes),
            int(memory.output_size_in_bytes - memory.alias_size_in_bytes),
            float(cost["flops"]),
            float(cost["bytes accessed"]),
            _seconds(cost, device),
            sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', entry))),
            seconds,
        )


@dataclass(frozen=True)
class CompileReport:
    """What the TPU compiler says of a training step. Its programs run one after the other.

    Attributes:
        recipe: its name.
        topology, device: as asked for, and the kind of core.
        cores: how many.
        batch, steps: of the recipe.
        hbm_bytes: memory one core has; 0 if unknown.
        held_bytes: optimizer state, which stays in memory while the children's programs run.
        programs: one a child, and the optimizer's.
        compile_seconds, compile_cpu_seconds: of tracing and compiling all of them.
        versions: of jax, jaxlib and libtpu.
    """

    recipe: str
    topology: str
    device: str
    cores: int
    batch: int
    steps: int
    hbm_bytes: int
    held_bytes: int
    programs: tuple[Program, ...]
    compile_seconds: float
    compile_cpu_seconds: float
    versions: dict[str, str]

    @property
    def memory_bytes(self) -> int:
        """The most memory that one core needs at a time."""
        return max(p.memory_bytes + (0 if p.name == OPTIMIZER else self.held_bytes) for p in self.programs)

    @property
    def temporary_bytes(self) -> int:
        """The most memory that a program needs besides its arguments and results."""
        return max(p.temporary_bytes for p in self.programs)

    @property
    def flops(self) -> float:
        """Arithmetic of one core and step."""
        return sum(p.flops for p in self.programs)

    @property
    def bytes_accessed(self) -> float:
        """Memory traffic of one core and step."""
        return sum(p.bytes_accessed for p in self.programs)

    @property
    def estimated_seconds(self) -> float | None:
        """Estimated seconds of a step; None if any part's are unknown."""
        parts = [p.estimated_seconds for p in self.programs]
        return None if None in parts else sum(s for s in parts if s is not None)

    @property
    def basis(self) -> str:
        """What the seconds are."""
        return ROOFLINE if self.device in PEAKS else ESTIMATE

    @property
    def estimated_cycles(self) -> int:
        """Estimated cycles of a step, a less hopeful figure; see `Program`."""
        return sum(p.estimated_cycles for p in self.programs)

    @property
    def estimated_hours(self) -> float | None:
        """Estimated hours for all steps of the recipe; input, evaluation and checkpoints are left out."""
        return None if self.estimated_seconds is None else self.estimated_seconds * self.steps / 3600

    def table(self) -> list[tuple[str, str, str]]:
        """Return rows for people: what, value, note."""
        fits = f"of {_gib(self.hbm_bytes)}" if self.hbm_bytes else "memory of a core unknown"
        if 0 < self.hbm_bytes < self.memory_bytes:
            fits += ": DOES NOT FIT"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [
            ("recipe", self.recipe, f"{self.steps:,} steps of {self.batch:,} images"),
            ("topology", self.topology, f"{self.cores} cores ({self.device}), {self.batch // self.cores} images each"),
            ("memory a core", _gib(self.memory_bytes), f"{fits}; {_gib(self.temporary_bytes)} of it temporary"),
            ("arithmetic a core", f"{self.flops / 1e12:.3f} TFLOP", ESTIMATE),
            ("bytes moved a core", _gib(self.bytes_accessed), ESTIMATE),
            *(
                (
                    f"  {p.name}",
                    _shown(p.estimated_seconds, ".4f", "s"),
                    f"{_gib(p.bytes_accessed)} moved, {_gib(p.temporary_bytes)} temporary; {self.basis}",
                )
                for p in self.programs
            ),
            (
                "time a step",
                _shown(self.estimated_seconds, ".4f", "s"),
                f"{self.basis}; the paper: about {PAPER_STEP_SECONDS} s",
            ),
            ("cycles a step", f"{self.estimated_cycles / 1e6:.0f} M", f"nothing overlapping; {ESTIMATE}"),
            (
                "all steps",
                _shown(self.estimated_hours, ".1f", "h"),
                f"{self.basis}; the paper: {PAPER_HOURS:.0f} h on v3:8x8",
            ),
            ("compiling", f"{self.compile_seconds:.0f} s", f"{self.compile_cpu_seconds:.0f} s of CPU; {versions}"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return every figure, and the paper's, as JSON data."""
        summed = (
            "memory_bytes", "temporary_bytes", "flops", "bytes_accessed", "estimated_seconds", "estimated_cycles",
            "estimated_hours",
        )  # fmt: skip
        return {
            **asdict(self),
            "images_per_core": self.batch // self.cores,
            **{key: getattr(self, key) for key in summed},
            "estimates_are": ESTIMATE,
            "seconds_are": self.basis,
            "paper": {"hours": PAPER_HOURS, "seconds_per_step": PAPER_STEP_SECONDS, "topology": "v3:8x8"},
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> CompileReport:
        """Rebuild from the fields alone."""
        return CompileReport(**{**data, "programs": tuple(Program(**p) for p in data["programs"])})


def _seconds(cost: Any, device: str) -> float | None:
    """Return a program's estimated seconds, see `Program`."""
    optimal = float(cost["optimal_seconds"])
    if device in PEAKS or optimal <= 0:
        peaks = PEAKS.get(device)
        return max(float(cost["bytes accessed"]) / peaks[0], float(cost["flops"]) / peaks[1]) if peaks else None
    return optimal


def _shown(value: float | None, form: str, unit: str) -> str:
    return "unknown" if value is None else f"{value:{form}} {unit}"


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
