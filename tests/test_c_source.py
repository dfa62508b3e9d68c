"""C++ source for microcontrollers: the file in it, and what a compiler says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image
from test_writers import weights_of

import bignas_zoo as bz
from bignas_zoo.cli.main import main
from bignas_zoo.errors import IntegrityError, UsageError
from bignas_zoo.export.c_source import HEADER, SOURCE, Facts, array_of, c_source
from bignas_zoo.export.tflite import convert
from bignas_zoo.files.formats import EXPORT_NAME, Export
from bignas_zoo.models.preprocess import Preprocess
from bignas_zoo.models.weighted import WeightedNetwork
from bignas_zoo.zoo import registry

#: What has tripped writers of C: quotes, escapes, trigraphs, other alphabets, a comment's end.
LABELS = ("plain", 'a "quoted" one', "back\\slash", "what??/", "Größe", "*/ 100 %d", "line", "x0a1", "empty ", "last")
MAIN = """
#include <cstdio>
#include "model.h"
struct Resolver {
  int count = 0;
  void Add() { ++count; } void AveragePool2D() { ++count; } void Conv2D() { ++count; }
  void DepthwiseConv2D() { ++count; }
  void FullyConnected() { ++count; } void HardSwish() { ++count; } void Logistic() { ++count; } void Mean() { ++count; }
  void Mul() { ++count; } void Quantize() { ++count; } void Softmax() { ++count; } void Sub() { ++count; }
};
int main() {
  Resolver resolver;
#define ADD(name) resolver.name();
  MODEL_OPERATORS(ADD)
  if (resolver.count != kOperators) return 1;
  if (reinterpret_cast<std::size_t>(kModel) % 16) return 2;
  unsigned long sum = 0;
  for (std::size_t i = 0; i < kModelBytes; ++i) sum = sum * 31 % 1000000007 + kModel[i];
  std::printf("%lu %zu %zu\\n", sum, kModelBytes, sizeof(ModelValue));
  for (int i = 0; i < kClasses; ++i) std::printf("%s\\n", kLabels[i]);
}
"""


@pytest.fixture(scope="module", params=["int8", "uint8"])
def file(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    space = registry.get_family("bignas-cifar10").space
    assert space
    child = space.smallest
    contract = Preprocess(32, (125.0, 123.0, 114.0), (63.0, 62.0, 67.0))
    pixels = np.random.default_rng(2).uniform(0, 255, (64, child.resolution, child.resolution, 3)).astype(np.float32)
    images, contract = (pixels, contract) if request.param == "uint8" else (contract.normalise(pixels), None)
    network = WeightedNetwork(child, weights_of(child))
    return request.param, convert(
        network, Export("tflite", "int8", io=request.param), images=images, preprocess=contract
    )


def facts(**changes: object) -> Facts:
    values = {
        "name": "evil\n*/ name\\", "license": "Apache-2.0\\", "arena_bytes": 66_080, "side": 20, "labels": LABELS,
        "mean": (125.3, 123, 114.5), "std": (63, 62.1, 1e-7),
    }  # fmt: skip
    return Facts(**{**values, **changes})  # type: ignore[arg-type]


def test_a_compiler_takes_it_and_reads_the_same_bytes(file: tuple[str, bytes], tmp_path: Path) -> None:
    io, data = file
    files = c_source(data, facts())
    assert files == c_source(data, facts())
    assert array_of(files[SOURCE]) == data
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "main.cc").write_text(MAIN)
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wcomment"]
    command = [compiler, *strict, "-o", "program", "main.cc", SOURCE]
    subprocess.run(command, cwd=tmp_path, check=True)
    lines = subprocess.run(["./program"], cwd=tmp_path, check=True, capture_output=True).stdout.decode().splitlines()
    total = 0
    for byte in data:
        total = total * 31 % 1000000007 + byte
    assert lines[0] == f"{total} {len(data)} 1"
    assert lines[1:] == list(LABELS)
    header = files[HEADER].decode()
    assert f"using ModelValue = std::{io}_t;" in header
    # 2 % to spare, whole steps of 16 bytes.
    assert f"kArenaBytes = {-(-int(66_080 * 1.02) // 16) * 16};" in header


def test_scales_are_those_of_the_file(file: tuple[str, bytes]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    io, data = file
    interpreter = Interpreter(model_content=data)
    header = c_source(data, facts())[HEADER].decode()
    for end, details in (("Input", interpreter.get_input_details()), ("Score", interpreter.get_output_details())):
        scale, zero = details[0]["quantization"]
        (text,) = (line for line in header.splitlines() if f"k{end}Scale" in line and line.startswith("constexpr"))
        assert np.float32(text.split("=")[1].strip("; f")) == np.float32(scale)
        assert f"k{end}Zero = {zero};" in header
    if io == "uint8":
        assert "as they are" in header


def test_a_source_without_an_array() -> None:
    with pytest.raises(IntegrityError, match="holds no array"):
        array_of(b"int main() {}")


def test_options_that_do_not_go_together() -> None:
    assert Export("c", "int8", io="uint8").file == "micro-uint8"
    assert EXPORT_NAME.fullmatch("micro-uint8")
    for options in ({"precision": "float32"}, {"io": "float32"}, {"io": "int8", "normalize_in_graph": True}):
        with pytest.raises(UsageError, match="export: "):
            Export(**{"format": "c", "precision": "int8", **options})  # type: ignore[arg-type]


def test_export_writes_and_proves_it(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(100):  # smooth, as photographs are
        small = generator.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    command = ["export", "bignas-cifar10-smallest", "--format", "c", "--images", str(folder), "-o", str(tmp_path / "s")]
    result = CliRunner().invoke(main, [*command, "--json"])
    assert result.exit_code in (0, 9), result.output
    if result.exit_code == 9:  # on such images first classes may be near ties
        assert (tmp_path / "s/micro.rejected/model.cc").is_file()
        return
    (entry,) = json.loads(result.stdout)["exports"]
    assert (entry["file"], entry["io"], entry["format"]) == ("micro", "int8", "c")
    assert set(entry["files"]) == {"micro/model.h", "micro/model.cc"}
    again = CliRunner().invoke(
        main, ["export", str(tmp_path / "s"), "--format", "c", "--images", str(folder), "--json"]
    )
    assert json.loads(again.stdout)["exports"][0]["cached"] is True
    checked = CliRunner().invoke(main, ["verify", str(tmp_path / "s")])
    assert checked.exit_code == 0, checked.output
    source = tmp_path / "s/micro/model.cc"
    source.write_bytes(source.read_bytes().replace(b"0x00", b"0x01", 1))
    assert CliRunner().invoke(main, ["verify", str(tmp_path / "s")]).exit_code == 9
    (record,) = (c for c in bz.verify(tmp_path / "s").checks if c.passed is False)
    assert "model.cc" in record.detail


#: Stand-ins of what docs/MICRO.md uses of tflite-micro; the input is kept, and the last class is the answer.
STAND_INS = {
    "tensorflow/lite/schema/schema_generated.h": """
#pragma once
namespace tflite {
struct Model {};
inline const Model* GetModel(const void* data) { return static_cast<const Model*>(data); }
}
""",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """
#pragma once
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
namespace tflite {
class MicroOpResolver {};
template <unsigned int N>
class MicroMutableOpResolver : public MicroOpResolver {
  unsigned int count = 0;
  TfLiteStatus Count() { return ++count <= N ? kTfLiteOk : kTfLiteError; }
 public:
METHODS
};
}
""",
    "tensorflow/lite/micro/micro_interpreter.h": """
#pragma once
#include <cstddef>
#include <cstdint>
#include "model.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
extern ModelValue given[kInputSide * kInputSide * 3];
extern ModelValue scores[kClasses];
namespace tflite {
class MicroInterpreter {
 public:
  MicroInterpreter(const Model*, const MicroOpResolver&, std::uint8_t*, std::size_t) {}
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { scores[kClasses - 1] = 100; return kTfLiteOk; }
  template <class T> T* typed_input_tensor(int) { return given; }
  template <class T> T* typed_output_tensor(int) { return scores; }
};
}
""",
}
USING = """
#include <cstdio>
#include "model.h"
ModelValue given[kInputSide * kInputSide * 3];
ModelValue scores[kClasses];
int Classify(const std::uint8_t* pixels);
int main() {
  static std::uint8_t pixels[kInputSide * kInputSide * 3];
  for (int i = 0; i < kInputSide * kInputSide * 3; ++i) pixels[i] = static_cast<std::uint8_t>(i * 7);
  std::printf("%d\\n", Classify(pixels));
  for (int i = 0; i < kInputSide * kInputSide * 3; ++i) std::printf("%d ", given[i]);
}
"""


def test_the_program_of_the_document_compiles_and_quantises(file: tuple[str, bytes], tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    io, data = file
    if io == "uint8":
        pytest.skip("the program is for int8 ends")
    kinds = ("Add", "AveragePool2D", "Conv2D", "DepthwiseConv2D", "FullyConnected", "Logistic", "Mean", "Mul")
    methods = "\n".join(f"  TfLiteStatus Add{kind}() {{ return Count(); }}" for kind in (*kinds, "Softmax"))
    program = (ROOT / "docs/MICRO.md").read_text().split("<!-- program: micro -->")[1].split("```")[1]
    sources = {
        **{name: text.replace("METHODS", methods) for name, text in STAND_INS.items()},
        **{name: content.decode() for name, content in c_source(data, facts()).items()},
        "classify.cc": program.removeprefix("c++\n"),
        "main.cc": USING,
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-I."]
    subprocess.run([compiler, *strict, "-o", "program", "main.cc", "classify.cc", SOURCE], cwd=tmp_path, check=True)
    answer, values = (
        subprocess.run(["./program"], cwd=tmp_path, check=True, capture_output=True).stdout.decode().split("\n")
    )
    assert int(answer) == len(LABELS) - 1
    header = sources[HEADER]
    scale = float(header.split("kInputScale = ")[1].split("f;")[0])
    zero = int(header.split("kInputZero = ")[1].split(";")[0])
    pixels = (np.arange(20 * 20 * 3) * 7 % 256).reshape(-1, 3)
    exact = (pixels - np.array(facts().mean)) / np.array(facts().std) / scale + zero
    expected = np.clip(exact, -128, 127).ravel()
    assert np.abs(np.array(values.split(), int) - expected).max() <= 0.5 + 1e-3
