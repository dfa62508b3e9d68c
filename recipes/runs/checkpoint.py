"""Checkpoints of a run: complete or not taken, checked when read, the last few kept.

``RUN/checkpoints/step-000123/`` holds ``state.safetensors`` (weights, optimizer, a method's own state) and
``manifest.json``. The manifest is written last and has the sha256 of the state, so a folder without
one was never finished, and one that does not match is damaged. Nothing is deleted before the next
checkpoint is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bignas_zoo.errors import IntegrityError, LocalIOError, RecipeError, TrainingStoppedError
from bignas_zoo.files import store
from bignas_zoo.files.provenance import versions
from bignas_zoo.files.say import Say, silent
from bignas_zoo.models.weights import read_weights, write_weights
from bignas_zoo.recipes.engines.engine import OPTIMIZER
from bignas_zoo.recipes.methods import method_of
from bignas_zoo.recipes.recipe import UNNAMED, Recipe

SCHEMA = "bignas-zoo/checkpoint/1"
FOLDER, STATE, MANIFEST = "checkpoints", "state.safetensors", "manifest.json"
KEEP = 2
#: Prefix of the entries of a method's own state, beside the engine's.
METHOD = "method."
#: Recipe fields that a run may change on the way: they change no step beyond rounding.
FREE = frozenset(
    {"engine", "batch_norm", "depthwise", "branch", "pack", "program", "checkpoint_every", "keep_checkpoints"}
)


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run so far.

    Attributes:
        step: after which it was made.
        accuracy: held-out accuracy of the biggest child, in percent.
    """

    step: int
    accuracy: float


@dataclass(frozen=True)
class Checkpoint:
    """What a resumed run starts from.

    Attributes:
        step: steps done.
        state: see the engine's `state`; with the method's own, if it keeps any, see `joined`.
        best: the best evaluation up to `step`, if there was any.
    """

    step: int
    state: dict[str, np.ndarray]
    best: Best | None

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The supernet's weights alone."""
        return {k: v for k, v in self.state.items() if not k.startswith((OPTIMIZER, METHOD))}

    @property
    def method(self) -> dict[str, np.ndarray]:
        """The method's own state alone."""
        return {k.removeprefix(METHOD): v for k, v in self.state.items() if k.startswith(METHOD)}


def joined(engine: Mapping[str, np.ndarray], method: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return an engine's state and a method's own as a checkpoint holds them."""
    return {**engine, **{f"{METHOD}{name}": value for name, value in method.items()}}


def save(
    workdir: Path,
    recipe: Recipe,
    step: int,
    state: Mapping[str, np.ndarray],
    best: Best | None = None,
    keep: int = KEEP,
) -> None:
    """Write a checkpoint, then delete those that it makes superfluous.

    Kept are the newest `keep` and the one of the best evaluation. Unfinished ones go, and so do later
    ones: the run went back before them because they are damaged.

    Args:
        workdir: the run's folder.
        recipe: stored whole, so that a changed one is noticed.
        step: steps done.
        state: see `joined`.
        best: the best evaluation so far.
        keep: how many, at least 1.

    Raises:
        TrainingStoppedError: a value of the state is not finite; nothing was written.
        LocalIOError: it cannot be written; all others stay.
    """
    _check_finite(step, state)
    folder = workdir / FOLDER / f"step-{step:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(f"{folder}: cannot be created ({error.strerror}).") from error
    write_weights(folder / STATE, state)
    manifest = {
        "schema": SCHEMA,
        "step": step,
        "data_position": step * recipe.batch_size,
        "seed": recipe.seed,
        "best": {"step": best.step, "biggest": best.accuracy} if best else None,
        "state": {"file": STATE, **store.record(folder / STATE)},
        "recipe": recipe.to_json(),
        "versions": versions(),
    }
    store.write_json(folder / MANIFEST, manifest)
    _prune(workdir, step, best, max(keep, 1))


def newest(workdir: Path, recipe: Recipe, say: Say = silent) -> Checkpoint | None:
    """Read the newest good checkpoint of a run.

    Args:
        workdir: the run's folder.
        recipe: what the run goes on with.
        say: told of checkpoints that are left out, and of versions that differ.

    Returns:
        The checkpoint; None if none was ever finished.

    Raises:
        RecipeError: the run had another recipe; the message lists the keys that differ.
        IntegrityError: there are finished checkpoints and all of them are damaged.
        LocalIOError: a file cannot be read.
    """
    damaged = []
    for _, folder in sorted(_folders(workdir), reverse=True):
        if not (folder / MANIFEST).is_file():
            say(f"{folder}: never finished; passed over")
            continue
        try:
            return _read(folder, recipe, say)
        except IntegrityError as error:
            damaged.append(folder.name)
            say(f"{error} It is passed over.")
    if damaged:
        raise IntegrityError(
            f"{workdir / FOLDER}: no good checkpoint is left; damaged: {', '.join(damaged)}. "
            "Choose another --output, or delete that folder to start from the beginning."
        )
    return None


def check_state(state: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], where: Path) -> None:
    """Compare a read state with the one of a new engine.

    Raises:
        IntegrityError: another name or shape: it comes from another version of this package.
    """
    wrong = sorted(n for n in state.keys() | expected.keys() if _shape(state.get(n)) != _shape(expected.get(n)))
    if wrong:
        raise IntegrityError(
            f"{where / FOLDER}: from another version of this package; {len(wrong)} values do not fit, such as "
            f"'{wrong[0]}'. Go on with that version, or choose another --output."
        )


def _shape(value: np.ndarray | None) -> tuple[int, ...] | None:
    return None if value is None else value.shape


def _read(folder: Path, recipe: Recipe, say: Say) -> Checkpoint:
    data = store.read_json(folder / MANIFEST)
    try:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}")
        step, stored, record, made_with = int(data["step"]), dict(data["recipe"]), data["state"], dict(data["versions"])
        best = Best(int(data["best"]["step"]), float(data["best"]["biggest"])) if data["best"] else None
        digest, size = str(record["sha256"]), int(record["bytes"])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: not as this version writes it ({error!r}).") from error
    _check_recipe(folder.parent.parent, recipe, stored)
    store.verify(folder / STATE, digest, size=size, fix="")
    state = read_weights(folder / STATE)
    now = versions()
    changed = sorted(
        f"{k} {made_with.get(k)} -> {now.get(k)}" for k in made_with.keys() | now if made_with.get(k) != now.get(k)
    )
    if changed:
        say(f"{folder}: made with other versions ({', '.join(changed)}); the result will not be the same bit for bit")
    return Checkpoint(step, state, best)


def _check_recipe(workdir: Path, recipe: Recipe, stored: Mapping[str, Any]) -> None:
    current, before = _flat(recipe.to_json()), _flat(stored)
    # A field that came after the run was begun had its default then.
    defaults = {f.name: f.default for f in dataclasses.fields(recipe)}
    section = "" if recipe.method.name == UNNAMED.name else "method."
    defaults |= {f"{section}{f.name}": f.default for f in dataclasses.fields(recipe.method)}
    keys = (current.keys() | before.keys()) - FREE
    if method_of(recipe).may_shorten and current["steps"] < before["steps"]:
        keys -= {"steps"}
    changed = sorted(k for k in keys if current.get(k) != before.get(k, defaults.get(k)))
    if changed:
        counted = " (classes are counted in --data with --classes-from-folders)" if "classes" in changed else ""
        raise RecipeError(
            f"{workdir}: holds a run of another recipe; different keys: {', '.join(changed)}{counted}. "
            "Choose another --output, or restore the recipe."
        )


def _flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a stored recipe, those of a section under its name and a dot."""
    fields = dict(stored)
    section = fields.pop("method", {})
    return {**fields, **{f"method.{key}": value for key, value in dict(section).items()}}


def _check_finite(step: int, state: Mapping[str, np.ndarray]) -> None:
    for name, value in state.items():
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise TrainingStoppedError(
                f"step {step}: '{name}' holds values that are not numbers, so no checkpoint was written; the ones "
                "before stay. Lower learning_rate or lengthen warmup_steps in the recipe, and start a new run."
            )


def _folders(workdir: Path) -> list[tuple[int, Path]]:
    """Return step and path of every checkpoint, finished or not."""
    parent = workdir / FOLDER
    entries = parent.iterdir() if parent.is_dir() else ()
    matches = ((re.fullmatch(r"step-([0-9]{6,12})", entry.name, re.ASCII), entry) for entry in entries)
    return [(int(match[1]), entry) for match, entry in matches if match]


def _prune(workdir: Path, step: int, best: Best | None, keep: int) -> None:
    finished = sorted((n for n, f in _folders(workdir) if n <= step and (f / MANIFEST).is_file()), reverse=True)
    kept = {*finished[:keep], *([best.step] if best else [])}
    for number, folder in _folders(workdir):
        store.remove_leftovers(folder)
        if number not in kept or number > step:
            with contextlib.suppress(OSError):  # superfluous, not harmful: the next checkpoint tries again
                for name in (MANIFEST, STATE):  # in this order: what is half deleted counts as unfinished
                    (folder / name).unlink(missing_ok=True)
                os.rmdir(folder)
