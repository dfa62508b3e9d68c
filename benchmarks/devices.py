"""The shipped device tables, made from public data: what each covers, and what interpolating in it costs.

    python benchmarks/devices.py DATA            # write bignas_zoo/data/devices/*.json and benchmarks/devices.md
    python benchmarks/devices.py DATA --check    # only say whether the files are what the data give

DATA is a folder with published_tables.csv, lut_xeon6130_titanrtx_tfnas.csv, lut_pixel1_spnas.csv,
lut_pixel1_tunas_proxyless.csv and lut_pixel1_proxyless_trim.csv: numbers extracted from the repositories and commits
named in `SOURCES`.

Numbers are as published. Nothing is filled in: a block that nobody measured is in no table. One table has a model of
such blocks, whose error is measured on whole networks.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from devices_report import report

from bignas_zoo.architecture.plan import plan
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces import get_space
from bignas_zoo.files.store import atomic_write
from bignas_zoo.latency import BlockKey, DeviceTable, Measurement, Protocol, Validation, predict
from bignas_zoo.latency.cost_model import MODELLED, fit_model, model_held_out
from bignas_zoo.latency.devices import SHIPPED
from bignas_zoo.latency.files import text
from bignas_zoo.latency.interpolation import held_out
from bignas_zoo.latency.whole_networks import Figure, MeasuredNetwork, fit_fixed_share, sizes_held_out

REPORT = Path(__file__).with_name("devices.md")
SOURCES = {
    "tfnas": "AberHu/TF-NAS at 08b31a2e6dc2386ae72890369847c2206745006a, latency_pkl/ (Hu et al., ECCV 2020)",
    "spnas": "dstamoulis/single-path-nas at 21c1f3e9c790e591749c0fb861bff3737b6d5fc7 (Stamoulis et al. 2019)",
    "tunas": "google-research/google-research at 0c1bbe5fc971a1de1a427debc814e66ab4f1e7fa, tunas/cost_model_data.py "
    "(Bender et al., CVPR 2020)",
    "mobilenet_v2": "tensorflow/models at 0ba83cf0211401a8505505276c59418f15338d31, the README of MobileNet",
    "mnasnet_a1": "tensorflow/tpu at 7dc921f846c9e4071f3884b768a7ddf521272a49, the README of MnasNet",
    "efficientnet_lite": "tensorflow/tpu at 7dc921f846c9e4071f3884b768a7ddf521272a49, the README of EfficientNet-Lite",
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
#: Of the data of each source.
LICENSES = {
    "tfnas": MIT.format("2020 Aber Hu"),
    **dict.fromkeys(("spnas", "tunas", "mobilenet_v2", "mnasnet_a1", "efficientnet_lite"), "Apache-2.0"),
}
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
        license=LICENSES["tfnas"],
        coverage="224 px only. MBConv with k3 and k5, channels 16-24-40-80-112-192-320, expanded channels in steps "
        "of 8 to 8 times the input; without squeeze-excite, or with as many hidden channels as the input or twice that "
        "(BigNAS: a quarter); relu on maps of 112 and 56 px (but 56 > 28), swish after. " + NO_PROJECTION,
        note="The overhead is the published sum of stem, first block, head, pooling and classifier. Interpolated and "
        "extrapolated rows of the publication were dropped before. Never compared with whole networks by its authors.",
    )


def spnas(rows: list[dict[str, str]], phone: list[MeasuredNetwork]) -> DeviceTable:
    """Make the table of Single-Path NAS, with a model for blocks beside its rows.

    Args:
        rows: of its file.
        phone: whole networks of other publications on the same phone. Those without squeeze-excite say how far sums of
            modelled blocks are off; nothing is fitted to them.
    """
    samples = defaultdict(list)
    for row in rows:
        size, cin, cout, stride, kernel, expand = (
            int(row[c]) for c in ("h_in", "cin", "cout", "stride", "kernel", "expand")
        )
        samples[mbconv(size, cin, cin * expand, cout, kernel, stride, "relu")].append(float(row["latency_ms"]))
    blocks = averaged(samples)
    checks = [network for network in phone if not any(key.se_hidden for key in network.blocks)]
    timed = [(child, f.ms) for network in checks for f, child in children(network)]
    also = [BlockKey.of(block) for child, _ in timed for block in plan(child)]
    modelled = model_held_out(blocks)
    assert modelled
    table = DeviceTable(
        name="pixel-1-spnas",
        protocol=Protocol("Google Pixel 1, CPU", "TFLite", None, None, None, "float32", 1, None, "wall", "2019"),
        rows=blocks,
        model=fit_model(blocks, also),
        interpolation={**held_out(blocks), MODELLED: modelled},
        source=SOURCES["spnas"],
        license=LICENSES["spnas"],
        coverage="Measured at 224 px: MBConv with k3 and k5, expansion 3 and 6, channels 16-24-40-80-96-192-320, relu "
        "(relu6 counts as the same), no squeeze-excite. Modelled from what they compute and move: such blocks of other "
        "widths and sizes, stem, head and classifier, which nobody measured. " + NO_PROJECTION,
        note="count is the number of layers with this block; the deviation is over them. The model was fitted to the "
        "rows; its held-out errors are those of all rows of an input size and widths, predicted from the others.",
    )
    pairs = [(predict(table, child).latency_ms, ms) for child, ms in timed]
    source = f"MobileNetV2 at five widths and four input sizes on the same phone: {SOURCES['mobilenet_v2']}"
    return dataclasses.replace(table, validation=Validation.of(pairs, source))


#: What a network of the published tables is called here.
NETWORKS = {
    "mobilenet_v2": ("mobilenet-v2-{}", "MobileNetV2 {}"),
    "mnasnet_a1": ("mnasnet-a1-{}", "MnasNet-A1 {}"),
    "efficientnet_lite0": ("efficientnet-lite0", "EfficientNet-Lite0"),
    "efficientnet_lite2": ("efficientnet-lite2", "EfficientNet-Lite2"),
    "efficientnet_lite4": ("efficientnet-lite4", "EfficientNet-Lite4"),
}
PIXEL_4 = {
    "pixel-4-cpu-tflite": ("Pixel 4 CPU", "fp32", "Google Pixel 4, CPU"),
    "pixel-4-cpu-tflite-int8": ("Pixel 4 CPU", "int8", "Google Pixel 4, CPU"),
    "pixel-4-gpu-tflite": ("Pixel 4 GPU", "fp32", "Google Pixel 4, GPU"),
    "pixel-4-gpu-tflite-float16": ("Pixel 4 GPU", "fp16", "Google Pixel 4, GPU"),
    "pixel-4-edgetpu-tflite": ("Pixel 4 EdgeTPU", "int8", "Google Pixel 4, Edge TPU"),
}
PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def published(rows: list[dict[str, str]], device: str, precision: str) -> list[MeasuredNetwork]:
    """Return the networks that were published for a device by TFLite, if this package has their architecture."""
    figures: dict[tuple[str, str], list[Figure]] = defaultdict(list)
    for row in rows:
        mine = (row["device"], row["precision"], row["framework"]) == (device, precision, "TFLite")
        if mine and row["model"] in NETWORKS:
            figure = Figure(int(row["resolution"]), float(row["latency_ms"]), rounding(row["latency_ms"]))
            figures[row["model"], row["width"] and f"{float(row['width'])}"].append(figure)
    return [
        MeasuredNetwork(
            NETWORKS[model][1].format(width),
            SOURCES["efficientnet_lite" if model.startswith("efficientnet") else model],
            tuple(BlockKey.of(block) for block in plan(get_space(NETWORKS[model][0].format(width)).biggest)),
            tuple(sorted(sizes, key=lambda f: f.size)),
        )
        for (model, width), sizes in figures.items()
    ]


def children(network: MeasuredNetwork) -> Iterable[tuple[Figure, ChildSpec]]:
    """Give each figure of a MobileNetV2 with the child that it is of."""
    child = get_space(network.name.replace("MobileNetV2 ", "mobilenet-v2-")).biggest
    for figure in network.figures:
        yield figure, dataclasses.replace(child, resolution=figure.size)


def rounding(text: str) -> float:
    """Return half a unit of the last digit of a published figure."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def pixel_1(phone: list[MeasuredNetwork]) -> DeviceTable:
    """Make the table of whole networks on a Pixel 1."""
    return DeviceTable(
        name="pixel-1-tflite",
        protocol=Protocol(
            "Google Pixel 1, one large core", "TFLite", None, 1, None, "float32", 1, None, "wall", "2019"
        ),
        rows={},
        networks=tuple(phone),
        fixed_share=fit_fixed_share(phone),
        interpolation=sizes_held_out(phone),
        source=f"{SOURCES['mobilenet_v2']}; {SOURCES['mnasnet_a1']}",
        license=LICENSES["mobilenet_v2"],
        coverage="Whole networks: MobileNetV2 and MnasNet-A1 at five widths each.",
        note="The part of a time that does not depend on the area is fitted to networks of several sizes; its error is "
        "that of each network by the others' part, from its larger to its smaller sizes.",
    )


def pixel_4(name: str, rows: list[dict[str, str]], phone: list[MeasuredNetwork]) -> DeviceTable:
    """Make a table of whole networks on a Pixel 4: by other input sizes where that is known of such a processor."""
    device, precision, words = PIXEL_4[name]
    networks = published(rows, device, precision)
    scales = name == "pixel-4-cpu-tflite"
    threads = next(row["threads"] for row in rows if row["device"] == device)
    note = (
        "What does not depend on the area, and how far another input size is off, is from MobileNetV2 and MnasNet-A1 "
        "on a Pixel 1's CPU (device pixel-1-tflite): these networks were published at one size each."
        if scales
        else "These networks were published at one size each, and nothing is known of others on this processor in this "
        "precision, so they are quoted at that size only."
    )
    return DeviceTable(
        name=name,
        protocol=Protocol(
            words,
            "TFLite",
            None,
            int(threads) if threads else None,
            None,
            PRECISIONS[precision],
            1,
            None,
            "wall",
            "2020",
        ),
        rows={},
        networks=tuple(networks),
        fixed_share=fit_fixed_share(phone) if scales else None,
        interpolation=sizes_held_out(phone) if scales else {},
        source=SOURCES["efficientnet_lite"],
        license=LICENSES["efficientnet_lite"],
        coverage=f"Whole networks: {', '.join(n.name for n in networks)}.",
        note=note,
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
        license=LICENSES["tunas"],
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
    others = read(data / "published_tables.csv")
    phone = published(others, "Pixel 1", "fp32")
    pytorch: dict[str, Any] = {
        "runtime": "PyTorch", "version": "1.1", "delegate": None, "precision": "float32", "clocks": None,
        "time": "wall", "date": "2020",
    }  # fmt: skip
    return [
        pixel_1(phone),
        *(pixel_4(name, others, phone) for name in PIXEL_4),
        spnas(read(data / "lut_pixel1_spnas.csv"), phone),
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
    files = {SHIPPED / f"{t.name}.json": text(t) for t in made} | {REPORT: report(made, others, NO_PROJECTION)}
    if options.check:
        wrong = [path.name for path, content in files.items() if _rounded(path.read_text("utf-8")) != _rounded(content)]
        raise SystemExit(f"differ: {', '.join(wrong)}" if wrong else 0)
    for path, content in files.items():
        atomic_write(path, content.encode())
        print(f"{path.name}: {len(content):,} bytes")
    print(files[REPORT])


if __name__ == "__main__":
    main()
