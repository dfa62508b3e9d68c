"""Are latency budgets met? Random budgets on this machine: what is chosen, predicted, and then measured.

    python benchmarks/latency_budgets.py DEVICE [DEVICE ...]     # tables that `bignas-zoo profile` measured here

For each budget the most accurate measured child of the family is taken whose predicted latency meets it, by the upper
end of its bar, as `get` takes slices. The chosen children are then exported and measured as `profile` measures, all in
turns. Writes latency_budgets.md beside this file.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bignas_zoo import macs
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.budget import milliseconds
from bignas_zoo.errors import UsageError
from bignas_zoo.files import store
from bignas_zoo.latency import DeviceTable, Estimate, Measurement, find_device, predict
from bignas_zoo.latency.profiling.files import LocalMeter, TFLiteBuilder
from bignas_zoo.latency.table import check_same_protocol
from bignas_zoo.zoo.family import DEFAULT_SUPERNET, Family
from bignas_zoo.zoo.registry import get_family

REPORT = Path(__file__).with_suffix(".md")
ROUNDS = 25


@dataclass(frozen=True)
class Candidate:
    """A child that was measured for accuracy, and what it is predicted to take."""

    spec: ChildSpec
    top1: float
    estimate: Estimate


def candidates(family: Family, table: DeviceTable) -> list[Candidate]:
    """Return the children of a family's front, fastest first."""
    assert family.folder
    measured = store.read_json(family.folder / "front.json")["measured"]
    specs = [(ChildSpec.from_json(entry["spec"], family.space), float(entry["holdout_top1"])) for entry in measured]
    found = [Candidate(spec, top1, predict(table, spec)) for spec, top1 in specs]
    return sorted(found, key=lambda c: c.estimate.high_ms)


def draw_budgets(found: list[Candidate], count: int, seed: int) -> list[float]:
    """Return budgets in milliseconds, uniform on a logarithmic scale between what the ends of the front need."""
    low, high = (math.log(found[i].estimate.high_ms) for i in (0, -1))
    generator = random.Random(f"latency budgets {seed}")
    return sorted(math.exp(generator.uniform(low, high)) for _ in range(count))


def choose(found: list[Candidate], budget: float) -> Candidate:
    """Return the most accurate child whose predicted upper end meets a budget; the fastest of equals."""
    return max((c for c in found if c.estimate.high_ms <= budget), key=lambda c: (c.top1, -c.estimate.high_ms))


def measure(specs: list[ChildSpec], table: DeviceTable) -> dict[ChildSpec, Measurement]:
    """Export children and measure them in turns."""
    precision, meter = table.protocol.precision, LocalMeter(table.protocol.threads or 1, ROUNDS)
    check_same_protocol(table.name, table.protocol, "this machine", meter.protocol(precision))
    with tempfile.TemporaryDirectory(prefix="bignas-zoo-") as folder:
        paths = [Path(folder) / f"{i}.tflite" for i in range(len(specs))]
        for spec, path in zip(specs, paths, strict=True):
            TFLiteBuilder(spec.space, precision).network(spec, path)
        return dict(zip(specs, meter.measure(paths), strict=True))


def section(table: DeviceTable, family: Family, count: int, seed: int) -> list[str]:
    """Return what happened to the budgets on one device, as lines of Markdown."""
    found = candidates(family, table)
    budgets = draw_budgets(found, count, seed)
    chosen = [choose(found, budget) for budget in budgets]
    measured = measure(list(dict.fromkeys(c.spec for c in chosen)), table)
    rows = [(b, c, measured[c.spec]) for b, c in zip(budgets, chosen, strict=True)]
    inside = sum(m.mean_ms <= b for b, _, m in rows)
    in_bar = sum(c.estimate.low_ms <= m.mean_ms <= c.estimate.high_ms for _, c, m in rows)
    used = statistics.fmean(m.mean_ms / b for b, _, m in rows)
    error = statistics.fmean(abs(c.estimate.latency_ms / m.mean_ms - 1) for _, c, m in rows)
    return [
        f"## {table.name}",
        "",
        f"{table.protocol}; {table.protocol.time} time. {inside} of {len(rows)} budgets are met; {in_bar} measured "
        f"times lie within the predicted bar; MAPE {error:.2%}; {used:.0%} of a budget is used on average.",
        "",
        "| budget ms | chosen child | MMACs | top-1 % | predicted ms (bar) | measured ms | inside |",
        "|---|---|---|---|---|---|---|",
        *(_row(*row) for row in rows),
        "",
    ]


def _row(budget: float, chosen: Candidate, measured: Measurement) -> str:
    e, spec, names = chosen.estimate, chosen.spec, chosen.spec.to_json()
    bar = f"{milliseconds(e.latency_ms)} ({milliseconds(e.low_ms)} to {milliseconds(e.high_ms)})"
    child = f"{spec.resolution} px, depths {'-'.join(map(str, names['depths']))}"
    return (
        f"| {milliseconds(budget)} | {child} | {macs(spec) / 1e6:.2f} | {chosen.top1:.2f} | {bar} | "
        f"{milliseconds(measured.mean_ms)} ± {milliseconds(measured.std_ms or 0)} | "
        f"{'yes' if measured.mean_ms <= budget else 'no'} |"
    )


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="+", metavar="DEVICE", help="name or file of a table measured on this machine")
    parser.add_argument("--family", default=DEFAULT_SUPERNET)
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=REPORT)
    given = parser.parse_args()
    if given.budgets < 1:
        raise UsageError("latency_budgets: --budgets must be at least 1.")
    family, tables = get_family(given.family), [find_device(name) for name in given.devices]
    lines = [
        "# Latency budgets, met or not",
        "",
        f"`python benchmarks/latency_budgets.py {' '.join(t.name for t in tables)}`: {given.budgets} random budgets on",
        f"the machine that the tables were measured on. Chosen among the measured children of `{family.name}` by the",
        "upper end of the predicted bar; top-1 is that on held-out images. Measured in turns: the median of "
        f"{ROUNDS} rounds ± their deviation.",
        "",
    ]
    for table in tables:
        lines += section(table, family, given.budgets, given.seed)
    store.atomic_write(given.output, "\n".join(lines).encode())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
