"""What families and slices there are, and which of them a name means.

The shipped families lie in ``bignas_zoo/data/families``. The paper's four models are a family without weights.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from bignas_zoo.architecture.spaces.bignas import BIGNAS, PAPER_MODELS, PAPER_TOP1
from bignas_zoo.errors import BigNASError, NotFoundError, nearest
from bignas_zoo.files import names
from bignas_zoo.zoo import imported
from bignas_zoo.zoo.family import DEFAULT_FAMILY, PAPER_FAMILY, Family, load_family
from bignas_zoo.zoo.slice import Slice

MOVED = "Where it was moved, name its folder with --family; else import it again."
SHIPPED = Path(__file__).parents[1] / "data" / "families"


@functools.cache
def paper_family() -> Family:
    """Return the paper's four models: MACs, parameters and printed accuracies, no weights."""
    source = "the BigNAS paper (arXiv 2003.11142); its weights were never published"
    slices = tuple(
        Slice(
            name=name,
            family=PAPER_FAMILY,
            spec=spec,
            top1=PAPER_TOP1[name],
            top1_images=None,
            top1_source="the paper's figure on ImageNet (BigNAS, arXiv 2003.11142), not measured here",
            source=source,
        )
        for name, spec in PAPER_MODELS.items()
    )
    description = "The four models of the BigNAS paper; Google never published their weights."
    return Family(PAPER_FAMILY, description, BIGNAS, (), {}, slices, source=source)


def families() -> tuple[Family, ...]:
    """Return the shipped families, the paper's and imported ones, by name, the one that is meant by default first."""
    known = [*(load_family(folder) for folder in _shipped()), paper_family(), *_imported()]
    return tuple(sorted(known, key=lambda f: (f.name != DEFAULT_FAMILY, f.name)))


def _imported() -> Iterator[Family]:
    """Give the imported families that can be read; one called like a shipped family is not looked for by its name."""
    shipped = _shipped_names()
    for name, folder in imported.folders().items():
        if name not in shipped:
            with contextlib.suppress(BigNASError):
                yield load_family(folder)


def _shipped_names() -> set[str]:
    return {PAPER_FAMILY, *(folder.name for folder in _shipped())}


def _shipped() -> list[Path]:
    """Return the folders of the shipped families."""
    return [path.parent for path in sorted(SHIPPED.glob(f"*/{names.FAMILY}"))]


def families_of_task(family: Family) -> tuple[Family, ...]:
    """Return the families that tell the same classes apart as a family does, and have weights; it comes first.

    A family with other classes answers another question, whatever its accuracy.
    """
    others = [other for other in families() if other.class_names == family.class_names and other.name != family.name]
    return (family, *(other for other in others if other.has_weights))


def get_family(name: str | Path) -> Family:
    """Return a family by name, or from a folder that `train` made.

    Args:
        name: a shipped family's name, the path of a folder that holds family.json, or of a training's run; or the name
            of an imported family.

    Raises:
        NotFoundError: neither a family nor such a folder.
        IntegrityError: the folder's family.json is damaged.
    """
    known = _shipped_names()
    if str(name) == PAPER_FAMILY:
        return paper_family()
    if str(name) in known:
        return load_family(SHIPPED / str(name))
    for folder in (Path(name), Path(name) / names.FAMILY_FOLDER):  # of a run, or the run itself
        if os.path.isfile(folder / names.FAMILY):  # unlike Path.is_file: also False where a name is too long
            return load_family(folder)
    elsewhere = imported.folders()
    if str(name) in elsewhere:
        return load_family(elsewhere[str(name)])
    if gone := imported.lost().get(str(name)):
        raise NotFoundError(f"family '{name}': was imported to {gone}, and is not there any more. {MOVED}")
    known |= elsewhere.keys()
    raise NotFoundError(f"family '{name}': not known, and no folder with a {names.FAMILY}. {nearest(str(name), known)}")


def list_slices(family: str | Path | None = None) -> tuple[Slice, ...]:
    """Return all slices, of one family or of all, ordered by family and MACs."""
    searched = families() if family is None else (get_family(family),)
    return tuple(s for f in searched for s in f.slices)


def _homes(name: str) -> Iterator[Family]:
    """Yield families that a slice may be in: most are called after theirs, and no other is read then."""
    yield from (load_family(folder) for folder in _shipped() if name.startswith(f"{folder.name}-"))
    yield from families()


def find_slice(name: str, family: str | Path | None = None) -> tuple[Family, Slice]:
    """Return a slice and its family.

    Raises:
        NotFoundError: no slice has this name; the message names the nearest.
    """
    if family is not None:
        named = get_family(family)
        return named, named.find(name)
    for home in _homes(name):
        for slice_ in home.slices:
            if slice_.name == name:
                return home, slice_
    if os.path.isfile(os.path.join(name, names.SLICE)):
        raise NotFoundError(
            f"{name}: is a slice folder, not the name of a slice. Its files are there already: `bignas-zoo export "
            f"{name}` adds other formats, `bignas-zoo verify {name}` checks it."
        )
    if os.path.isdir(name):
        raise NotFoundError(
            f"{name}: is a folder, but no slice's: it has no file slice.json. Name one that `bignas-zoo get` or "
            "`finetune` made, or a slice of `bignas-zoo list`."
        )
    if any(home.name == name for home in families()):
        raise NotFoundError(f"'{name}' is a family, not a slice. `bignas-zoo list --family {name}` shows its slices.")
    for family, folder in imported.lost().items():
        if name.startswith(family):
            raise NotFoundError(
                f"slice '{name}': family '{family}' was imported to {folder}, and is not there. {MOVED}"
            )
    known = [s.name for s in list_slices()]
    raise NotFoundError(f"slice '{name}': not known. {_hub_hint(name) or nearest(name, known)} See `bignas-zoo list`.")


def _hub_hint(name: str) -> str:
    """Return how a slice of the Hub is written, if a name looks as if one was meant."""
    match = re.fullmatch(r"(?:hf:/*|https?://[^/]+/)?(\w[\w.-]*/\w[\w.-]*?)/?", name, re.IGNORECASE)
    return f"There is no such folder, and a slice of the Hub is written hf://{match[1]}." if match else ""
