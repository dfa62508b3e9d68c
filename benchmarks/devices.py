"""The shipped device tables, made from public data: what each covers, and what interpolating in it costs.

    python benchmarks/devices.py DATA            # write bignas_zoo/data/devices/*.json and benchmarks/devices.md
    python benchmarks/devices.py DATA --check    # only say whether the files are what the data give

DATA is a folder with lut_xeon6130_titanrtx_tfnas.csv, lut_pixel1_spnas.csv, lut_pixel1_tunas_proxyless.csv and
lut_pixel1_proxyless_trim.csv: numbers extracted from the repositories and commits named in `SOURCES`.

Numbers are as published. Nothing is filled in: a block that nobody measured is not in a table.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces import SPACES, variant
from bignas_zoo.files.store import atomic_write
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, Protocol
from bignas_zoo.latency.coverage import coverage, space_blocks
from bignas_zoo.latency.devices import SHIPPED
from bignas_zoo.latency.files import text
from bignas_zoo.latency.interpolation import held_out

REPORT = Path(__file__).with_name("devices.md")
SOURCES = {
    "tfnas": "AberHu/TF-NAS at 08b31a2e6dc2386ae72890369847c2206745006a, latency_pkl/ (Hu et al., ECCV 2020)",
    "spnas": "dstamoulis/single-path-nas at 21c1f3e9c790e591749c0fb861bff3737b6d5fc7 (Stamoulis et al. 2019)",
    "tunas": "google-research/google-research at 0c1bbe5fc971a1de1a427debc814e66ab4f1e7fa, tunas/cost_model_data.py "
    "(Bender et al., CVPR 2020)",
}
MIT = """MIT, Copyright (c) {}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated \
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the \
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit \
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the \
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE \
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR \
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR \
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
NO_PROJECTION = (
    "No block has the 1x1 projection shortcut that the first layer of every stage has in this package's spaces, so no "
    "child of them is covered; such a slice is an error that names the blocks."
)


def mbconv(
    size: int, cin: int, mid: int, cout: int, kernel: int, stride: int, activation: str, hidden: int = 0
) -> BlockKey:
    """Return the key of an MBConv block without a projection shortcut."""
    same = cin == cout and stride == 1
    gates = (activation, "sigmoid") if hidden else ("", "")
    return BlockKey(
        "mbconv", size, -(-size // stride), cin, mid, cout, kernel, stride, mid != cin,
        "identity" if same else "none", activation, hidden, *gates,
    )  # fmt: skip


def ends(activation: str, first: BlockKey) -> frozenset[BlockKey]:
    """Return stem, first block, head and classifier of the mobile networks of the papers, at 224 px."""
    return frozenset(
        {
            BlockKey("stem", 224, 112, 3, 3, 32, 3, 2, False, "none", "relu"),
            first,
            BlockKey("head", 7, 7, 320, 320, 1280, 1, 1, False, "none", activation),
            BlockKey("classifier", 1, 1, 1280, 1280, 1000, 1, 1, False, "none", "softmax"),
        }
    )


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def averaged(samples: dict[BlockKey, list[float]]) -> dict[BlockKey, Measurement]:
    """Return mean, deviation and count of the figures of each block: of its places in the network."""
    return {
        key: Measurement(
            round(statistics.fmean(ms), 6), round(statistics.stdev(ms), 6) if len(ms) > 1 else None, len(ms)
        )
        for key, ms in samples.items()
    }


def tfnas(rows: list[dict[str, str]], device: str, protocol: Protocol, name: str) -> DeviceTable:
    """Make a table of TF-NAS: blocks of EfficientNet-B0's plan with expanded channels in steps of 8."""
    mine = [row for row in rows if row["device"] == device]
    (base,) = (row for row in mine if row["op"] == "base")
    blocks = {
        mbconv(
            *(int(row[c]) for c in ("h_in", "cin", "mid", "cout", "kernel", "stride")), row["act"], int(row["se_mid"])
        ): Measurement(float(row["latency_ms"]))
        for row in mine
        if row["op"] == "mbconv"
    }
    return DeviceTable(
        name=name,
        protocol=protocol,
        rows=blocks,
        overhead_ms=float(base["latency_ms"]),
        in_overhead=ends("swish", mbconv(112, 32, 32, 16, 3, 1, "relu", 8)),
        interpolation=held_out(blocks),
        source=SOURCES["tfnas"],
        license=MIT.format("2020 Aber Hu"),
        coverage="224 px only. MBConv with k3 and k5, channels 16-24-40-80-112-192-320, expanded channels in steps "
        "of 8 to 8 times the input; without squeeze-excite, or with as many hidden channels as the input or twice that "
        "(BigNAS: a quarter); relu on maps of 112 and 56 px (but 56 > 28), swish after. " + NO_PROJECTION,
        note="The overhead is the published sum of stem, first block, head, pooling and classifier. Interpolated and "
        "extrapolated rows of the publication were dropped before. Never compared with whole networks by its authors.",
    )


def spnas(rows: list[dict[str, str]]) -> DeviceTable:
    """Make the table of Single-Path NAS."""
    samples = defaultdict(list)
    for row in rows:
        size, cin, cout, stride, kernel, expand = (
            int(row[c]) for c in ("h_in", "cin", "cout", "stride", "kernel", "expand")
        )
        samples[mbconv(size, cin, cin * expand, cout, kernel, stride, "relu")].append(float(row["latency_ms"]))
    blocks = averaged(samples)
    return DeviceTable(
        name="pixel-1-spnas",
        protocol=Protocol("Google Pixel 1, CPU", "TFLite", None, None, None, "float32", 1, None, "wall", "2019"),
        rows=blocks,
        interpolation=held_out(blocks),
        source=SOURCES["spnas"],
        license="Apache-2.0",
        coverage="224 px only. MBConv with k3 and k5, expansion 3 and 6, channels 16-24-40-80-96-192-320, relu, no "
        "squeeze-excite; neither stem nor head nor classifier, so that no whole network is covered. " + NO_PROJECTION,
        note="count is the number of layers with this block; the deviation is over them.",
    )


def tunas(rows: list[dict[str, str]]) -> DeviceTable:
    """Make a table of TuNAS's linear cost model, which knows differences between the choices of a layer only.

    Where a layer can be left out, a block is its coefficient over that of leaving it out. Where it cannot, the block
    with k3 and expansion 3 is taken to be as much as expansion 6 adds to it, time being in proportion to the expanded
    channels; the rest goes to the overhead, so that sums do not depend on it.
    """
    layers: dict[int, list[dict[str, str]]] = defaultdict(list)
    overhead = 0.0
    for row in rows:
        if row["op"] == "bias":
            overhead += float(row["coef_ms"])
        else:
            layers[int(row["layer"])].append(row)
    samples = defaultdict(list)
    for choices in layers.values():
        zero = zero_of(choices)
        overhead += zero
        for row in choices:
            if row["op"] != "zero":
                samples[tunas_key(row)].append(float(row["coef_ms"]) - zero)
    blocks = averaged(samples)
    return DeviceTable(
        name="pixel-1-tunas",
        protocol=Protocol("Google Pixel 1, CPU", "TFLite", None, None, None, "float32", 1, None, "wall", "2020"),
        rows=blocks,
        overhead_ms=round(overhead, 6),
        in_overhead=frozenset(key for key in ends("relu", tunas_key(layers[0][0])) if key.kind != "mbconv"),
        interpolation=held_out(blocks),
        source=SOURCES["tunas"],
        license="Apache-2.0",
        coverage="224 px only. MBConv with k3, k5 and k7, expansion 3 and 6, channels 16-32-40-80-96-192-320, relu, no "
        "squeeze-excite (TuNAS's ProxylessNAS space). " + NO_PROJECTION,
        note="A linear model of simulated latencies, which know only differences within a layer: where a layer cannot "
        "be left out, how much of it is block and how much overhead is this project's choice and cancels in sums over "
        "networks of that space. Stem, head and classifier are in the overhead. Its test architecture of published "
        "84 +- 1 ms comes to 84.02 ms.",
    )


def zero_of(choices: list[dict[str, str]]) -> float:
    """Return the coefficient of leaving a layer out, or what stands for it."""
    by = {(row["kernel"], row["expand"]): float(row["coef_ms"]) for row in choices}
    if ("0", "0") in by:
        return by["0", "0"]
    if ("3", "6") in by:
        return 2 * by["3", "3"] - by["3", "6"]
    # The first block has one expansion. From k3 to k5 and k7 its depthwise convolution grows as 9, 25 and 49; what k3
    # itself takes is not in the data. Single-Path NAS and ProxylessNAS measured 3.93 and 4.04 ms for it on this phone.
    return by["3", "1"] - 4.0


def tunas_key(row: dict[str, str]) -> BlockKey:
    """Return the key of a row of TuNAS."""
    cin = int(row["cin"])
    return mbconv(
        int(row["h_in"]),
        cin,
        cin * int(row["expand"]),
        int(row["cout"]),
        int(row["kernel"]),
        int(row["stride"]),
        "relu",
    )


def trim(rows: list[dict[str, str]]) -> dict[BlockKey, float]:
    """Return ProxylessNAS's Pixel 1 blocks, to compare with: their origin has no licence, so they do not ship."""
    return {
        mbconv(
            int(r["h_in"]), int(r["cin"]), int(r["cin"]) * int(r["expand"]), int(r["cout"]), int(r["kernel"]),
            int(r["stride"]), "relu",
        ): float(r["latency_ms"])
        for r in rows
        if r["op"] == "expanded_conv"
    }  # fmt: skip


def tables(data: Path) -> list[DeviceTable]:
    """Make every table."""
    rows = read(data / "lut_xeon6130_titanrtx_tfnas.csv")
    pytorch: dict[str, Any] = {
        "runtime": "PyTorch", "version": "1.1", "delegate": None, "precision": "float32", "clocks": None,
        "time": "wall", "date": "2020",
    }  # fmt: skip
    return [
        spnas(read(data / "lut_pixel1_spnas.csv")),
        tunas(read(data / "lut_pixel1_tunas_proxyless.csv")),
        tfnas(
            rows, "titan-rtx-bs32-pytorch1.1",
            Protocol(device="NVIDIA Titan RTX", threads=None, batch=32, **pytorch), "titan-rtx-batch32-pytorch",
        ),
        tfnas(
            rows, "xeon-gold-6130-1thread-bs1-pytorch1.1",
            Protocol(device="Intel Xeon Gold 6130", threads=1, batch=1, **pytorch), "xeon-6130-pytorch",
        ),
    ]  # fmt: skip


def spaces() -> Iterable[tuple[str, SearchSpace, tuple[int, ...]]]:
    """Give the spaces that coverage is counted in, with their input sizes."""
    bignas = SPACES["bignas"]
    yield "bignas, 224 px", bignas, (224,)
    yield (
        "bignas without squeeze-excite, relu, 224 px",
        variant(bignas, squeeze_excite=False, activation="relu"),
        (224,),
    )
    yield "bignas-cifar10", SPACES["bignas-cifar10"], SPACES["bignas-cifar10"].resolutions


def report(made: list[DeviceTable], others: dict[BlockKey, float]) -> str:
    """Return the report as Markdown."""
    lines = [
        "# Shipped device tables",
        "",
        "`python benchmarks/devices.py DATA` made these tables and this page from public data; sources, commits,",
        "licences and coverage are in the files (`bignas-zoo devices NAME`). None of them was compared with whole",
        "networks by those who published them, so predictions carry a bar of 15 %.",
        "",
        "Interpolation: each row is held out and predicted from its neighbours, which are then twice as far apart.",
        "",
        "| device | rows | interpolated in | rows held out | MAPE | p95 | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for table in made:
        for kind, e in table.interpolation.items() or [("nothing", None)]:
            cells = [f"{e.rows:,}", *(f"{100 * v:.2f} %" for v in (e.mape, e.p95, e.worst))] if e else ["-"] * 4
            lines.append(f"| {table.name} | {len(table.rows):,} | {kind} | {' | '.join(cells)} |")
    lines += ["", "Different blocks of a space that a table holds, interpolates, and lacks:", ""]
    named = list(spaces())
    lines += ["| device | " + " | ".join(n for n, _, _ in named) + " |", "|---" * (len(named) + 1) + "|"]
    for table in made:
        counts = [coverage(table, space_blocks(space, sizes)) for _, space, sizes in named]
        cells = [f"{c.measured} / {c.interpolated} / {c.missing}" for c in counts]
        lines.append(f"| {table.name} | {' | '.join(cells)} |")
    lines += ["", NO_PROJECTION, "", *agreement(made, others)]
    return "\n".join(lines) + "\n"


def agreement(made: list[DeviceTable], others: dict[BlockKey, float]) -> list[str]:
    """Compare what three groups measured on one phone, block by block."""
    known = {t.name: {k: m.mean_ms for k, m in t.rows.items()} for t in made if t.name.startswith("pixel-1")}
    known["ProxylessNAS (not shipped: its origin has no licence)"] = others
    names = list(known)
    lines = [
        "What different groups measured for the same block on a Pixel 1, which is why tables are never mixed:",
        "",
        "| tables | common blocks | mean ratio | deviation |",
        "|---|---|---|---|",
    ]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            ratios = [ms / known[second][key] for key, ms in known[first].items() if key in known[second]]
            deviation = statistics.stdev(ratios)
            lines.append(f"| {first} / {second} | {len(ratios)} | {statistics.fmean(ratios):.3f} | {deviation:.3f} |")
    return lines


def _rounded(content: str) -> str:
    """Round numbers to nine digits: Python 3.12 and later sum with smaller errors."""
    return re.sub(r"\d+\.\d+(e-?\d+)?", lambda number: f"{float(number[0]):.9g}", content)


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    made = tables(options.data)
    others = trim(read(options.data / "lut_pixel1_proxyless_trim.csv"))
    files = {SHIPPED / f"{t.name}.json": text(t) for t in made} | {REPORT: report(made, others)}
    if options.check:
        wrong = [path.name for path, content in files.items() if _rounded(path.read_text("utf-8")) != _rounded(content)]
        raise SystemExit(f"differ: {', '.join(wrong)}" if wrong else 0)
    for path, content in files.items():
        atomic_write(path, content.encode())
        print(f"{path.name}: {len(content):,} bytes")
    print(files[REPORT])


if __name__ == "__main__":
    main()
