"""What the TPU compiler says of variants of a step: the rows of tpu_compile.md.

    python benchmarks/tpu_compile.py TOPOLOGY [--only "child 1" ...] [--recipe NAME] [FIELD=VALUE ...]

FIELD=VALUE are fields of the recipe, e.g. ``batch_norm=one_pass branch=cond pack=1``. One JSON object a
program on stdout, then one of the sums. Needs libtpu (pip install 'bignas-zoo[tpu]') and no TPU.
"""

from __future__ import annotations

import argparse
import json
import os

from bignas_zoo.recipes.recipe import find_recipe, read_recipe
from bignas_zoo.recipes.tpu import compiler
from bignas_zoo.recipes.tpu.report import Program


def show(label: str, figures: dict[str, object]) -> None:
    print(json.dumps({"what": label, **figures}), flush=True)


def program_row(program: Program) -> None:
    gib = {k: round(getattr(program, f"{k}_bytes") / 2**30, 3) for k in ("temporary", "argument", "output")}
    show(
        program.name,
        {
            "estimated_seconds": program.estimated_seconds,
            "estimated_mcycles": round(program.estimated_cycles / 1e6, 1),
            "moved_gib": round(program.bytes_accessed / 2**30, 2),
            "tflop": round(program.flops / 1e12, 3),
            **{f"{k}_gib": v for k, v in gib.items()},
            "compile_seconds": round(program.compile_seconds),
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topology")
    parser.add_argument("fields", nargs="*", metavar="FIELD=VALUE")
    parser.add_argument("--only", action="append", default=[], help="a program, e.g. 'child 1'")
    parser.add_argument("--recipe", default="imagenet_tpu")
    arguments = parser.parse_intermixed_args()
    os.environ.update(compiler.ENVIRONMENT)
    recipe = read_recipe(find_recipe(arguments.recipe))
    pairs = (field.split("=", 1) for field in arguments.fields)
    fields = {**vars(recipe.method), **vars(recipe)}
    recipe = recipe.with_fields(**{k: type(fields[k])(v) for k, v in pairs})
    found = compiler.compile_here(recipe, arguments.topology, arguments.only, program_row)
    show(
        "sum",
        {
            "estimated_seconds": found.estimated_seconds,
            "estimated_mcycles": round(found.estimated_cycles / 1e6, 1),
            "moved_gib": round(found.bytes_accessed / 2**30, 2),
            "tflop": round(found.flops / 1e12, 3),
            "memory_gib": round(found.memory_bytes / 2**30, 2),
            "estimated_hours": found.estimated_hours,
            "seconds_are": found.basis,
            "compile_seconds": round(found.compile_seconds),
            "compile_cpu_seconds": round(found.compile_cpu_seconds),
            "load": [round(v, 1) for v in os.getloadavg()],
            "versions": found.versions,
        },
    )


if __name__ == "__main__":
    main()
