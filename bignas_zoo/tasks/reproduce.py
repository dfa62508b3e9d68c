"""`reproduce`: is a slice's folder what its family's weights give, byte for byte, and if not, what differs first?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bignas_zoo.errors import IntegrityError, NotFoundError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.provenance import OF_PLAN, versions
from bignas_zoo.files.say import Say, silent
from bignas_zoo.tasks import slice_files
from bignas_zoo.tasks.cutting import check_weights, cut
from bignas_zoo.tasks.opening import SliceFolder, open_slice
from bignas_zoo.tasks.slice_cache import finished
from bignas_zoo.zoo import registry, slice_folder
from bignas_zoo.zoo.family import Family
from bignas_zoo.zoo.slice import Slice

if TYPE_CHECKING:
    import numpy as np

#: Files in the order in which they are made; each depends on those before.
STEPS = {
    names.WEIGHTS: "cut and calibrated weights",
    names.TFLITE: "TFLite file",
    names.LABELS: "labels",
    names.NOTICE: "notice",
    names.CARD: "card",
    names.SLICE: "description",
}


@dataclass(frozen=True)
class Remade:
    """One file, as it is and as it is made again.

    Attributes:
        file: its name.
        step: what makes it.
        same: whether both have the same bytes; of slice.json, the same content but for predicted latencies.
        sha256: of the file that is there.
        sha256_again: of the one that was made.
        detail: what differs, in words; "" if nothing does.
    """

    file: str
    step: str
    same: bool
    sha256: str
    sha256_again: str
    detail: str = ""


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` found.

    Attributes:
        name: of the slice.
        family: of its family.
        files: in the order in which they are made.
        versions: package to version where it was made and here, of those that differ.
    """

    name: str
    family: str
    files: tuple[Remade, ...]
    versions: Mapping[str, tuple[str | None, str | None]]

    @property
    def same(self) -> bool:
        """Whether every file is."""
        return all(file.same for file in self.files)

    @property
    def first(self) -> Remade | None:
        """The first file that differs, in the order in which they are made."""
        return next((file for file in self.files if not file.same), None)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "name": self.name,
            "family": self.family,
            "same": self.same,
            "first": self.first and self.first.file,
            "files": [asdict(file) for file in self.files],
            "versions": {package: list(pair) for package, pair in self.versions.items()},
        }


def reproduce(
    name: str | Path,
    *,
    family: str | Path | None = None,
    images: str | Path | None = None,
    verify_key: str | Path | None = None,
    say: Say = silent,
) -> Reproduction:
    """Cut and write a slice again from its family's weights, and compare every file.

    Args:
        name: of a slice, whose files are taken from the cache or made first; a slice folder; or ``hf://ORG/NAME``.
        family: name or folder of its family; by default the one that its slice.json names.
        images: of a child of one's own (``get --spec``), the images that it was calibrated on.
        verify_key: file of the Ed25519 public key that must have signed a slice of the Hub.
        say: told what is going on.

    Returns:
        The report; a difference is in it and does not raise.

    Raises:
        UsageError: a slice that its family's weights do not give: it was fine-tuned, or its images are not named.
        NotFoundError: no such slice, or its family is not here.
        IntegrityError: a file of the folder is not what its slice.json says, or it was made of other weights.
        QualityError: the file that is made does not compute what the network does.
        AuthError, NetworkError: the Hub does not give it.
    """
    opened = open_slice(name, family, verify_key=verify_key, say=say)
    if isinstance(opened.home, SliceFolder):
        slice_folder.check_files(opened.home.path)
        home = _home(opened.slice, opened.home.description, family)
        return _compared(opened.home.path, opened.home.description, home, opened.slice, images, say)
    check_weights(opened.home, opened.slice)
    with finished(opened.home, opened.slice, say) as files:
        description = store.read_json(files.folder / names.SLICE)
        return _compared(files.folder, description, opened.home, opened.slice, images, say)


def _home(slice_: Slice, description: Mapping[str, Any], family: str | Path | None) -> Family:
    """Return the family that a folder's slice was cut from, if its weights are those."""
    provenance = description.get("provenance")
    if not isinstance(provenance, dict):
        raise IntegrityError(
            f"reproduce: '{slice_.name}': its slice.json does not say what it was made of (provenance)."
        )
    if provenance.get("finetuned"):
        raise UsageError(
            f"reproduce: '{slice_.name}' was fine-tuned on somebody's images, so no family's weights give it. Its card "
            "has the command that made it."
        )
    try:
        home = registry.get_family(family or slice_.family)
    except NotFoundError as error:
        raise NotFoundError(f"reproduce: {error} Name the folder of its family with --family.") from error
    weights = provenance.get("weights")
    wanted = weights if isinstance(weights, dict) else {"supernet": provenance.get("supernet_sha256")}
    known = {home.weights.sha256} if home.weights else set()
    for own in home.slices if home.weights is None else ():
        known |= {record.sha256 for record in (own.weights, own.statistics) if record}
    if not set(wanted.values()) <= known:
        raise IntegrityError(
            f"reproduce: '{slice_.name}' was made of other weights than those of family '{home.name}' here: the first "
            "step differs, and so may all files. Name the folder of its own family with --family."
        )
    return home


def _compared(
    folder: Path,
    description: Mapping[str, Any],
    home: Family,
    slice_: Slice,
    images: str | Path | None,
    say: Say,
) -> Reproduction:
    say(f"making {slice_.name} again from the weights of {home.name}")
    with _made_again(home, slice_, description, images, say) as again:
        listed = [name for name in STEPS if name in description["files"] or name == names.SLICE]
        files = tuple(_remade(name, folder, again, slice_) for name in listed)
    here = versions(OF_PLAN)
    before = dict(description.get("versions") or {})
    differing = {p: (before.get(p), here.get(p)) for p in sorted({*before, *here}) if before.get(p) != here.get(p)}
    return Reproduction(slice_.name, home.name, files, differing)


@contextlib.contextmanager
def _made_again(
    home: Family, slice_: Slice, description: Mapping[str, Any], images: str | Path | None, say: Say
) -> Iterator[Path]:
    """Yield a folder with the slice's files, made now."""
    calibration = dict(description["provenance"]).get("calibration")
    if images is not None and not isinstance(calibration, dict):
        raise UsageError(
            f"reproduce: '{slice_.name}' needs no images: its statistics are its family's. Leave them out."
        )
    with store.scratch_folder() as folder:
        if isinstance(calibration, dict):
            from bignas_zoo.tasks.get_child import child_slice, write_child

            if images is None:
                raise UsageError(
                    f"reproduce: '{slice_.name}' was calibrated on {calibration.get('images')} "
                    f"{calibration.get('source')}; "
                    "name them with --images."
                )
            assert slice_.spec
            write_child(folder, home, child_slice(home, slice_.spec), images, say, calibration)
        else:
            own = home.find(slice_.name)
            if own.network != slice_.network:
                raise IntegrityError(f"reproduce: '{slice_.name}' is another network in family '{home.name}' here.")
            slice_files.write(folder, home, own, cut(home, own))
        yield folder


def _remade(name: str, folder: Path, again: Path, slice_: Slice) -> Remade:
    old, new = folder / name, again / name
    before, after = store.sha256(old), store.sha256(new) if new.is_file() else ""
    detail = ""
    if name == names.SLICE:
        detail = _description_differs(store.read_json(old), store.read_json(new))
    elif before != after:
        detail = _weights_differ(old, new, slice_) if name == names.WEIGHTS else _bytes_differ(old, new)
    return Remade(name, STEPS[name], not detail, before, after, detail)


def _description_differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say which keys of slice.json differ, but for what `get` adds and the digest."""
    aside = {"latency", store.SEAL}
    keys = [key for key in {**before, **after} if key not in aside and before.get(key) != after.get(key)]
    return f"other {', '.join(keys)}" if keys else ""


def _weights_differ(before: Path, after: Path, slice_: Slice) -> str:
    from bignas_zoo.models.slicing import child_shapes
    from bignas_zoo.models.weights import read_weights

    one, other = read_weights(before), read_weights(after)
    if one.keys() != other.keys():
        return f"other tensors: {', '.join(sorted(one.keys() ^ other.keys())[:3])}"
    order = child_shapes(slice_.network, statistics=True)  # the network's: what differs first is the cause
    differing = [name for name in order if not _equal(one[name], other[name])]
    if not differing:
        return "the same values, written in another way"
    first = differing[0]
    if one[first].shape != other[first].shape:
        return f"'{first}' has another shape"
    largest = max(float(abs(one[n] - other[n]).max()) for n in differing if one[n].shape == other[n].shape)
    return f"{len(differing)} of {len(one)} tensors, the first '{first}'; by at most {largest:.1e}"


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _bytes_differ(before: Path, after: Path) -> str:
    if not after.is_file():
        return "not made again"
    one, other = before.read_bytes(), after.read_bytes()
    at = _first_difference(one, other)
    return f"from byte {at:,} on; {len(one):,} bytes, {len(other):,} made again"


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
