"""Every export of some slices: size, parity, accuracy, time.

    python benchmarks/exports.py make FOLDER --images PLACE [--slices NAME ...]
    python benchmarks/exports.py table FOLDER

`make` exports and proves each slice in each format and precision, then times all files of a slice in turns; `table`
prints what ``benchmarks/exports.md`` quotes. What FOLDER has already is not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

SLICES = tuple(f"bignas-cifar10-{name}" for name in ("smallest", "s", "m", "l", "xl", "biggest"))


def exports():
    from bignas_zoo import Export

    return [
        Export(),
        Export(normalize_in_graph=True),
        Export(precision="float16"),
        Export(precision="dynamic"),
        Export(precision="int8"),
        Export(precision="int8", io="uint8"),
        Export("onnx"),
        Export("onnx", layout="nchw"),
        Export("onnx", "int8"),
        Export("keras"),
        Export("saved_model"),
    ]


def make(folder: Path, images: str, slices: list[str]) -> None:
    from bignas_zoo import export_slice
    from bignas_zoo.errors import QualityError
    from bignas_zoo.runtime.bench import BenchFile, bench

    for name in slices:
        place = folder / name
        for option in exports():
            try:
                export_slice(place if place.is_dir() else name, [option], images=images,
                             output=None if place.is_dir() else place)  # fmt: skip
            except QualityError as error:
                print(f"missed its gate: {error}", flush=True)
        files = [BenchFile(p, p.name, None) for p in sorted(place.iterdir()) if p.suffix in (".tflite", ".onnx")]
        (place / "bench.json").write_text(json.dumps(bench(files, runs=300).to_json(), indent=1))
        print(name, flush=True)


def table(folder: Path) -> None:
    columns = ["slice", "file", "bytes", "largest logit error", "same first class", "top-1 %", "of float", "ms"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    losses: dict[str, list[float]] = {}
    for place in sorted((p for p in folder.iterdir() if p.is_dir()), key=_macs):
        entries = json.loads((place / "exports.json").read_text())["exports"]
        times = {f["file"]: f for f in json.loads((place / "bench.json").read_text())["results"]}
        for entry in entries:
            parity, accuracy, time = entry["parity"], entry["accuracy"], times.get(entry["file"])
            error = "–" if parity["max_abs"] is None else f"{parity['max_abs'] / parity['max_logit']:.1e}"
            ms = f"{time['cpu_ms']['median']:.3f}" if time else "–"
            cells = [
                place.name.removeprefix("bignas-cifar10-"), f"`{entry['file']}`", f"{entry['bytes']:,}", error,
                f"{100 * parity['top1_agreement']:.1f} %", f"{accuracy['top1']:.2f}",
                f"{0.0 - accuracy['loss']:+.2f}", ms,
            ]  # fmt: skip
            print("| " + " | ".join(cells) + " |")
            losses.setdefault(entry["file"], []).append(accuracy["loss"])
    print("\nPoints of top-1 lost, mean and worst over the slices:\n")
    for file, values in losses.items():
        print(f"* `{file}`: {statistics.mean(values):+.2f}, {max(values):+.2f}")


def _macs(place: Path) -> int:
    return int(json.loads((place / "slice.json").read_text())["macs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", help="CIFAR-10's folder")
    parser.add_argument("--slices", nargs="*", default=list(SLICES))
    options = parser.parse_args()
    if options.action == "table":
        table(options.folder)
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        make(options.folder, options.images, options.slices)


if __name__ == "__main__":
    main()
