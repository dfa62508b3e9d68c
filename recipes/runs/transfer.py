"""A run's way home from the machine that trained it: few, small files, and a run folder made of them.

    python -m bignas_zoo.recipes.runs.transfer collect RUN FOLDER
    python -m bignas_zoo.recipes.runs.transfer restore FOLDER RUN

A finished run is its weights in float16 (families are made of weights rounded so), log and recipe. An unfinished
one takes weights and optimizer along as they are, so that it can go on, if they fit into `WHOLE_BYTES`.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from bignas_zoo.errors import IntegrityError, LocalIOError, NotFoundError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.provenance import machine, versions
from bignas_zoo.models.weights import read_weights, write_weights
from bignas_zoo.recipes.data.packing import packed_source
from bignas_zoo.recipes.recipe import read_recipe
from bignas_zoo.recipes.runs import checkpoint
from bignas_zoo.recipes.runs.folder import hold
from bignas_zoo.recipes.scripting import error_exits

SCHEMA = "bignas-zoo/collected/1"
MANIFEST, STATE = "manifest.json", "state.safetensors"
PART_BYTES = 15_000_000
#: Four parts, so that with manifest, recipe and log there are seven files.
WHOLE_BYTES = 4 * PART_BYTES
AGAIN = "Fetch the folder again from the machine that trained."


def collect(run: Path, folder: Path, notes: str = "", part_bytes: int = PART_BYTES) -> dict[str, Any]:
    """Write what is needed of a run into a folder.

    Args:
        run: the run's folder; no process may be training there.
        folder: made if missing; an earlier collection in it is replaced.
        notes: about the run; machine and versions come by themselves.
        part_bytes: largest size of a part of the state.

    Returns:
        The manifest: ``step``, ``steps``, ``whole`` (with the optimizer), ``files`` and others.

    Raises:
        NotFoundError: no run there, or one without a checkpoint.
        LocalIOError, IntegrityError: it cannot be read or is damaged, or the folder cannot be written.
    """
    if not (run / names.RECIPE).is_file():
        raise NotFoundError(f"{run}: holds no training run (no {names.RECIPE}).")
    recipe = read_recipe(run / names.RECIPE)
    with hold(run):
        last = checkpoint.newest(run, recipe)
        log = (run / names.METRICS).read_bytes()
    if last is None:
        raise NotFoundError(f"{run}: holds no checkpoint yet.")
    whole = last.step < recipe.steps and sum(v.nbytes for v in last.state.values()) <= WHOLE_BYTES
    state = last.state if whole else {k: v.astype(np.float16) for k, v in last.weights.items()}
    own = (run / names.NOTES).read_text("utf-8").strip() if (run / names.NOTES).is_file() else ""
    software = ", ".join(f"{name} {version}" for name, version in versions().items())
    sentences = (own, notes, f"Trained on {_device()} with {software}.")
    files = _clear(folder)
    store.write_json(folder / names.RECIPE, recipe.to_json())
    store.atomic_write(folder / names.METRICS, log)
    encoded = _bytes(state)
    for start in range(0, len(encoded), part_bytes):
        files.append(f"{STATE}.{start // part_bytes}")
        store.atomic_write(folder / files[-1], encoded[start : start + part_bytes])
    manifest = {
        "schema": SCHEMA,
        "step": last.step,
        "steps": recipe.steps,
        "whole": whole,
        "best": {"step": last.best.step, "biggest": last.best.accuracy} if last.best else None,
        "notes": " ".join(filter(None, sentences)),
        "files": [{"file": name, **store.record(folder / name)} for name in files],
    }
    store.write_json(folder / MANIFEST, manifest)
    return manifest


def restore(folder: Path, run: Path) -> int:
    """Make a run folder of a collection: `make_family` takes it if the run is finished, `train` if not.

    Args:
        folder: written by `collect`.
        run: the run's folder; it must not hold checkpoints.

    Returns:
        Steps done.

    Raises:
        UsageError: the run is not finished and its optimizer did not travel.
        IntegrityError: a file is missing or damaged.
        LocalIOError: a file cannot be read, or `run` cannot be written or holds a run already.
    """
    if not (folder / MANIFEST).is_file():
        raise IntegrityError(f"{folder}: is no collected run: it has no {MANIFEST}. {AGAIN}")
    manifest = store.read_json(folder / MANIFEST)
    try:
        if manifest["schema"] != SCHEMA:
            raise ValueError(f"schema {str(manifest['schema'])[:60]!r}")
        step, steps, whole, notes = (manifest[key] for key in ("step", "steps", "whole", "notes"))
        best = checkpoint.Best(manifest["best"]["step"], manifest["best"]["biggest"]) if manifest["best"] else None
        records = {str(r["file"]): (str(r["sha256"]), int(r["bytes"])) for r in manifest["files"]}
        parts = [f"{STATE}.{i}" for i in range(len(records) - 2)]
        if records.keys() != {names.RECIPE, names.METRICS, *parts}:
            raise ValueError(f"files {sorted(records)}")
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: not as `collect` writes it ({error!r}). {AGAIN}") from error
    if step < steps and not whole:
        raise UsageError(
            f"{folder}: the run is at step {step:,} of {steps:,}, and its optimizer was too large to travel. "
            "Finish it where it was trained."
        )
    if (run / checkpoint.FOLDER).exists():
        raise LocalIOError(f"{run}: holds a run already. Choose another folder.")
    for name, (digest, size) in records.items():
        store.verify(folder / name, digest, size=size, fix=AGAIN)
    state = _state(b"".join((folder / part).read_bytes() for part in parts))
    recipe = read_recipe(folder / names.RECIPE)
    with hold(run):
        for name in (names.RECIPE, names.METRICS):
            store.copy(folder / name, run / name)
        store.atomic_write(run / names.NOTES, f"{notes}\n".encode())
        checkpoint.save(run, recipe, step, state, best)
    return int(step)


def _clear(folder: Path) -> list[str]:
    """Make a folder, without what an earlier collection left; return the names of the files it always has."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in (folder / MANIFEST, *folder.glob(f"{STATE}.*")):
            old.unlink(missing_ok=True)
    except OSError as error:
        raise LocalIOError(f"{folder}: cannot be written ({error.strerror}). Choose another place.") from error
    return [names.RECIPE, names.METRICS]


def _bytes(state: Mapping[str, np.ndarray]) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        write_weights(Path(place) / STATE, state)
        return (Path(place) / STATE).read_bytes()


def _state(encoded: bytes) -> dict[str, np.ndarray]:
    """Return the arrays, those in float16 as float32."""
    with tempfile.TemporaryDirectory() as place:
        store.atomic_write(Path(place) / STATE, encoded)
        state = read_weights(Path(place) / STATE)
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in state.items()}


def _device() -> str:
    """Return the accelerators that JAX sees, and the machine around them."""
    if importlib.util.find_spec("jax") is None:
        return machine()
    import jax

    devices = jax.devices()
    seen = "" if devices[0].platform == "cpu" else f"{len(devices)} {devices[0].device_kind}, "
    return f"{seen}{machine()}"


@click.group()
def main() -> None:
    """Bring a run home from the machine that trained it."""


@main.command("collect")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="The packed data set it trains on, for the record.")
def collect_command(run: Path, folder: Path, data: Path | None) -> None:
    """Write what is needed of RUN into FOLDER: state in parts of at most 15 MB, log, recipe, manifest."""
    with error_exits():
        manifest = collect(run, folder, f"Images: {packed_source(data)}." if data else "")
        total = sum(entry["bytes"] for entry in manifest["files"])
        kind = "weights and optimizer" if manifest["whole"] else "weights in float16"
        click.echo(
            f"{folder}: step {manifest['step']:,} of {manifest['steps']:,}, {kind}, "
            f"{len(manifest['files']) + 1} files, {total:,} bytes"
        )


@main.command("restore")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
def restore_command(folder: Path, run: Path) -> None:
    """Make a run folder RUN of FOLDER, as `bignas-zoo family` and `bignas-zoo train` take it."""
    with error_exits():
        step, steps = restore(folder, run), read_recipe(run / names.RECIPE).steps
        following = f"family {run} --data DATA" if step == steps else f"train RECIPE --data DATA --output {run}"
        click.echo(f"{run}: step {step:,} of {steps:,}\nNext: bignas-zoo {following}")


if __name__ == "__main__":
    main()
