"""What a push puts into a repository: a slice folder's files, card, pictures, Keras layout, manifest."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.network import Network
from bignas_zoo.errors import IntegrityError, UsageError, reason
from bignas_zoo.files import names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.hub import layout, manifest
from bignas_zoo.hub.pushing import Bundle
from bignas_zoo.runtime.extras import INSTALL, has_keras
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.opening import SliceFolder, open_slice
from bignas_zoo.tasks.slice_cache import finished
from bignas_zoo.zoo import slice_folder
from bignas_zoo.zoo.slice import Slice


@contextmanager
def source(name: str | Path, family: str | Path | None = None, say: Say = silent) -> Iterator[Path]:
    """Yield a slice folder: the one named, or the files of a slice of the zoo. It is not to be written to.

    Raises:
        NotFoundError, IntegrityError, QualityError: see `tasks.get.get`.
    """
    opened = open_slice(name, family, say=say)
    if isinstance(opened.home, SliceFolder):
        yield opened.home.path
        return
    with finished(opened.home, opened.slice, say) as files:
        yield files.folder


def published_exports(folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the entries of exports.json whose files are pushed, checked; and which are not, with the reason.

    Raises:
        IntegrityError: exports.json is not valid, or a file differs from its record or was made of other weights.
    """
    weights = store.sha256(folder / names.WEIGHTS)
    published, left_out = [], {}
    for entry in slice_folder.read_exports(folder)["exports"]:
        name = str(entry["file"])
        if layout.published(name) is None:
            left_out[name] = "only TFLite and ONNX files are pushed; Keras has a layout of its own there"
            continue
        again = "Export it again, or remove it from exports.json."
        if entry.get("weights_sha256") != weights:
            raise IntegrityError(f"{folder / name}: was exported from other weights than {names.WEIGHTS}. {again}")
        store.verify(folder / name, str(entry["sha256"]), size=int(entry["bytes"]), fix=again)
        published.append(dict(entry))
    return published, left_out


def card(folder: Path, repo: str | None = None, plots: tuple[str, ...] = ()) -> str:
    """Return the card of a slice folder, from its description and exports.

    Raises:
        IntegrityError: the folder is damaged, or its description lacks what a card needs.
    """
    slice_, description = slice_folder.describe(folder)
    return _card(folder, description, slice_.network, published_exports(folder)[0], repo, plots)


def _card(
    folder: Path, description: Mapping[str, Any], network: Network, exports: list[dict[str, Any]],
    repo: str | None, plots: tuple[str, ...], *, keras: bool = True,
) -> str:  # fmt: skip
    import jinja2

    from bignas_zoo.hub_cards.card import render_card

    try:
        return render_card(description, network, exports, repo=repo, plots=plots, keras=keras)
    except (jinja2.TemplateError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IntegrityError(
            f"{folder / names.SLICE}: it, or {names.EXPORTS}, lacks what a card needs "
            f"({reason(error, 120)}). "
            f"{slice_folder.REMAKE} Then export again."
        ) from error


def make(folder: Path, repo: str, place: Path, say: Say = silent) -> Bundle:
    """Make the files of a slice's repository; the slice folder is checked first and stays as it is.

    Args:
        folder: a slice folder.
        repo: ``ORG/NAME``.
        place: an empty folder to write to.
        say: told what is left out.

    Raises:
        IntegrityError: a file of the slice is missing or damaged.
        LocalIOError: a file cannot be read or written.
    """
    from bignas_zoo.hub_cards.metadata import eval_results

    slice_folder.check_files(folder)
    slice_, description = slice_folder.describe(folder)
    exports, left_out = published_exports(folder)
    if names.TRAINING_IMAGES in description["files"]:
        left_out[names.TRAINING_IMAGES] = "they are somebody's own; int8 of what is fetched wants --images"
        description = _without_images(description)
    notice = {names.NOTICE} & description["files"].keys()
    ours = [names.WEIGHTS, names.LABELS, names.TFLITE, *notice, *(str(e["file"]) for e in exports)]
    files = {str(layout.published(name)): folder / name for name in dict.fromkeys(ours)}
    whole = has_keras()
    if not whole:
        say(f"without the layout that Keras loads: {INSTALL} adds Keras, and a push with it the layout")
    for path, data in (keras_layout(folder) if whole else {names.CONFIG: _config(description)}).items():
        files[path] = _written(place / path, data)
    plots = draw(place, description, slice_, say)
    files |= {path: place / path for path in plots}
    text = _card(folder, description, slice_.network, exports, repo, plots, keras=whole).encode()
    files[names.CARD] = _written(place / names.CARD, text)
    described = store.sealed(
        {**description, "files": {**description["files"], names.CARD: store.record(files[names.CARD])}}
    )
    files[names.SLICE] = _written(place / names.SLICE, store.json_bytes(described))
    if exports:
        listed = store.sealed({"schema": slice_folder.EXPORTS_SCHEMA, "exports": exports})
        files[names.EXPORTS] = _written(place / names.EXPORTS, store.json_bytes(listed))
    sums = manifest.write({path: store.sha256(file) for path, file in files.items()})
    files[names.SUMS] = _written(place / names.SUMS, sums)
    if results := eval_results(description):
        files[layout.EVAL_RESULTS] = _written(place / layout.EVAL_RESULTS, results.encode())
    return Bundle(slice_, dict(sorted(files.items())), left_out)


def _without_images(description: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a description without the training images, which a push leaves at home."""
    files = {name: record for name, record in description["files"].items() if name != names.TRAINING_IMAGES}
    return {**{key: value for key, value in description.items() if key != "calibration"}, "files": files}


def keras_layout(folder: Path) -> dict[str, bytes]:
    """Return the files of a slice that Keras's own loader reads, from a .keras file made here and now."""
    from bignas_zoo.export.keras_formats import to_keras

    _, _, child = slice_files.read(folder)
    with store.scratch_folder() as place:
        path = place / "model.keras"
        to_keras(child, path)
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            return {file: archive.read(file) for file in layout.KERAS}


def _config(description: Mapping[str, Any]) -> bytes:
    """Return a config.json where Keras's own is not to be had: the Hub counts downloads by the file of this name."""
    return store.json_bytes({"library": "bignas-zoo", "model": str(description["name"]), "see": names.SLICE})


def draw(place: Path, description: Mapping[str, Any], slice_: Slice, say: Say) -> tuple[str, ...]:
    """Draw the pictures of a card; none without matplotlib."""
    from bignas_zoo.hub_cards.plots import plot_architectures
    from bignas_zoo.hub_cards.slice_plot import plot_slice

    architecture, front = layout.PLOTS
    (place / architecture).parent.mkdir(parents=True, exist_ok=True)
    try:
        plot_architectures([slice_], place / architecture)
        return (architecture, front) if plot_slice(description, place / front) else (architecture,)
    except UsageError as error:
        say(f"no pictures: {error}")
        return ()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IntegrityError(f"{names.SLICE}: front is not as it should be ({reason(error)}).") from error


def _written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    store.atomic_write(path, data)
    return path
