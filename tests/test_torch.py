"""Imported weights against the projects they come from: timm, Once-for-all, AlphaNet, run by torch."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, once

from bignas_zoo.architecture import cost
from bignas_zoo.architecture.nets import names as net_names
from bignas_zoo.architecture.nets import net
from bignas_zoo.architecture.network import Network
from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.architecture.spaces.attentivenas import ATTENTIVENAS, PAPER_MODELS
from bignas_zoo.architecture.spaces.once_for_all_nets import NETS, SPACES
from bignas_zoo.importers.public_family import read_weights_of, statistics_of
from bignas_zoo.importers.sources import Source, find_source, sources
from bignas_zoo.models.numpy_calibration import calibrate_by_batch
from bignas_zoo.models.numpy_forward import numpy_forward
from bignas_zoo.models.slicing import slice_weights

pytestmark = pytest.mark.slow

JUDGE = Path(__file__).with_name("torch_judge.py")
#: Of random weights, as parts of the logits' standard deviation. torch's own float32 noise is 9e-5 on timm's nets.
SPREAD, SPREAD_OF_TIMM = 1e-4, 3e-4
#: Even maps, and maps that are odd from the second halving on.
SIZES = (96, 100)
OFA_WIDTHS = ("1.0", "1.2")


def torch_python() -> str:
    """Return the Python of an environment with torch, timm and ofa."""
    named = os.environ.get("BIGNAS_ZOO_TORCH_PYTHON")
    own = ROOT / ".torch" / "bin" / "python"
    if not named and not own.is_file():
        pytest.skip("no environment with torch, timm and ofa: the README's command `torch` makes it")
    return named or str(own)


def asked(factory: pytest.TempPathFactory, name: str, jobs: list[dict[str, Any]]) -> Path:
    """Return the folder of what the judge wrote for some jobs, asked once a run of the tests."""
    python = torch_python()

    def ask(folder: Path) -> None:
        (folder / "jobs.json").write_text(json.dumps(jobs))
        command = [python, str(JUDGE), str(folder / "jobs.json"), str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert run.returncode == 0, run.stderr[-3000:]

    return once(factory, name, ask)


def at(network: Network, size: int) -> Network:
    """Return a child at another input size, which its space need not have."""
    if not isinstance(network, ChildSpec):
        return replace(network, resolution=size)
    space = replace(network.space, resolutions=(size,), unseen_resolutions=())
    return replace(network, space=space, resolution=size)


def spread(network: Network, weights: Mapping[str, np.ndarray], images: np.ndarray, logits: np.ndarray) -> float:
    """Return the largest difference to the judge's logits in parts of their standard deviation."""
    return float(np.abs(numpy_forward(network, weights, images) - logits).max() / logits.std())


def of_layers(spec: ChildSpec) -> dict[str, Any]:
    """Return a child of Once-for-all's spaces as the judge takes it."""
    stages = spec.stages[1:]
    return {"kernels": [list(s.kernels) for s in stages], "expansions": [list(s.expansions) for s in stages]}


@pytest.fixture(scope="session")
def timm_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    jobs = [{"kind": "timm", "net": name, "sizes": SIZES, "file": f"{name}.pth"} for name in net_names()]
    return asked(tmp_path_factory, "timm", jobs)


def a_source(name: str) -> Source:
    return next(source for source in sources().values() if source.net == name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", net_names())
def test_nets_of_timm(timm_answers: Path, name: str, size: int) -> None:
    network, said = net(name, size), np.load(timm_answers / f"{name}.npz")
    weights = read_weights_of(a_source(name), timm_answers / f"{name}-{size}.pth", network)
    assert spread(network, weights, said[f"images{size}"], said[f"logits{size}"]) <= SPREAD_OF_TIMM


@pytest.fixture(scope="session")
def ofa_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    jobs = [
        {"kind": "ofa", "width": float(width), **of_layers(spec), "size": SIZES[i % 2], "file": f"{name}.pth"}
        for i, (name, spec) in enumerate(NETS.items())
        for width in OFA_WIDTHS
        if spec.space == SPACES[width]
    ]
    return asked(tmp_path_factory, "ofa", jobs)


@pytest.mark.parametrize("name", NETS)
def test_nets_of_once_for_all(ofa_answers: Path, name: str) -> None:
    path = ofa_answers / f"{name}.pth"
    network = at(NETS[name], SIZES[list(NETS).index(name) % 2])
    weights, said = read_weights_of(find_source(f"ofa-{name}"), path, network), np.load(path.with_suffix(".npz"))
    assert spread(network, weights, said["images"], said["logits"]) <= SPREAD


def random_children(width: str) -> list[ChildSpec]:
    """Corners and random children: each kernel is transformed, each layer has an expansion of its own."""
    space, draw = SPACES[width], random.Random(7)
    drawn = [space.child({c.place: draw.choice(c.allowed) for c in space.choices}) for _ in range(4)]
    return [space.biggest, space.smallest, *drawn]


@pytest.fixture(scope="session")
def ofa_supernet_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    jobs = [
        {
            "kind": "ofa-supernet", "width": float(width), "file": f"{width}.pth",
            "children": [{**of_layers(s), "size": SIZES[i // 2 % 2]} for i, s in enumerate(random_children(width))],
        }
        for width in OFA_WIDTHS
    ]  # fmt: skip
    return asked(tmp_path_factory, "ofa-supernets", jobs)


@pytest.mark.parametrize("width", OFA_WIDTHS)
def test_supernets_of_once_for_all(ofa_supernet_answers: Path, width: str) -> None:
    path, source = ofa_supernet_answers / f"{width}.pth", find_source(f"ofa-mbv3-w{width}")
    supernet, said = read_weights_of(source, path, SPACES[width]), np.load(path.with_suffix(".npz"))
    for number, spec in enumerate(random_children(width)):
        child = at(spec, SIZES[number // 2 % 2])
        weights, images = slice_weights(supernet, child), said[f"images{number}"]
        own = {**weights, **statistics_of(path, spec)}
        assert spread(child, own, images, said[f"logits{number}"]) <= SPREAD, number
        calibration = said[f"calibration{number}"]
        calibrated = calibrate_by_batch(child, weights, [calibration[:6], calibration[6:]])
        assert spread(child, calibrated, images, said[f"calibrated{number}"]) <= SPREAD, number


def attentive_children() -> list[ChildSpec]:
    draw = random.Random(11)
    drawn = [ATTENTIVENAS.child({c.place: draw.choice(c.allowed) for c in ATTENTIVENAS.choices}) for _ in range(3)]
    return [*PAPER_MODELS.values(), ATTENTIVENAS.biggest, *drawn]


@pytest.fixture(scope="session")
def attentive_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    children = [
        {
            "width": [spec.stem_width, *(s.width for s in spec.stages), spec.head_width],
            "depth": [s.depth for s in spec.stages], "kernel": [s.kernels[0] for s in spec.stages],
            "expand": [s.expansion for s in spec.stages], "size": SIZES[i % 2],
        }
        for i, spec in enumerate(attentive_children())
    ]  # fmt: skip
    job = {"kind": "attentivenas", "file": "supernet.pth", "children": children}
    return asked(tmp_path_factory, "attentivenas", [job])


@pytest.mark.parametrize("number", range(len(attentive_children())))
def test_children_of_alphanet(attentive_answers: Path, number: int) -> None:
    path = attentive_answers / "supernet.pth"
    supernet, said = read_weights_of(find_source("alphanet"), path, ATTENTIVENAS), np.load(path.with_suffix(".npz"))
    assert not any(name.endswith(".mean") for name in supernet)  # a trained supernet's are no child's
    child = at(attentive_children()[number], SIZES[number % 2])
    weights = calibrate_by_batch(child, slice_weights(supernet, child), [said[f"calibration{number}"]])
    assert spread(child, weights, said[f"images{number}"], said[f"calibrated{number}"]) <= SPREAD


def test_the_judge_is_sharp(attentive_answers: Path) -> None:
    """What is wrong by one form is far beyond the bound."""
    path = attentive_answers / "supernet.pth"
    supernet, said = read_weights_of(find_source("alphanet"), path, ATTENTIVENAS), np.load(path.with_suffix(".npz"))
    child = at(attentive_children()[1], SIZES[1])
    assert isinstance(child, ChildSpec)
    for wrong in ({"padding": "same"}, {"bn_variance": "population"}, {"bn_epsilon": 1e-3}):
        other = replace(child, space=replace(child.space, **wrong))
        weights = calibrate_by_batch(other, slice_weights(supernet, other), [said["calibration1"]])
        assert spread(other, weights, said["images1"], said["calibrated1"]) > 5 * SPREAD, wrong


def test_published_macs() -> None:
    assert len(sources()) == 75
    for source in sources().values():
        for published in source.nets:
            network = source.network(published)
            assert (cost.macs(network), network.resolution) == (published.macs, published.resolution), source.name
