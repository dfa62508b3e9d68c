"""Fixtures of all tests: a tiny search space, and where real images are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bignas_zoo.space import SearchSpace, SqueezeExcite, StageSpace

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

#: Every kind of choice at the smallest size: both strides, kernels 3 and 5, odd and even maps, optional
#: layers, elastic and fixed expansion, squeeze-excite from the input, from the expansion, and none.
TINY = SearchSpace(
    name="tiny",
    source="tests",
    classes=5,
    resolutions=(12, 14, 18, 20),
    unseen_resolutions=(13, 15),
    stem_widths=(8, 16),
    stem_stride=1,
    stages=(
        StageSpace(widths=(8, 16), depths=(1, 2), kernels=(3,), stride=1, expansions=(1,)),
        StageSpace(widths=(16, 24), depths=(1, 2, 3), kernels=(3, 5), stride=2, expansions=(2, 3)),
        StageSpace(
            widths=(16, 24, 32),
            depths=(2, 3),
            kernels=(3, 5),
            stride=2,
            expansions=(4,),
            squeeze_excite=SqueezeExcite(source="expanded", rounding=8, activation="relu", gate="hard_sigmoid"),
        ),
        StageSpace(
            widths=(24, 32), depths=(1, 2), kernels=(3, 5), stride=1, expansions=(2,), squeeze_excite=None
        ),
    ),
    head_widths=(32, 40),
)


@pytest.fixture(scope="session")
def tiny() -> SearchSpace:
    return TINY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the repository; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real images: ../shared/data is not there")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a cache of its own."""
    monkeypatch.setenv("BIGNAS_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
