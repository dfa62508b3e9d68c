"""Fixtures of all tests: a tiny search space, and where real images are."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The nets are tiny: threads of their own would wait for each other, and each would keep a heap. Workers of pytest-xdist
# and processes that tests start take these from here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("MALLOC_ARENA_MAX", "2")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # JAX's own tests do so: a third less to compile a step
if importlib.util.find_spec("libtpu") and not importlib.util.find_spec("jax_plugins"):
    # The TPU's compiler without a TPU: JAX would look for one, and complain on stderr that there is none.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bignas_zoo.architecture.forms import SqueezeExcite
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.spaces import variant
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.files.say import silent

# A shell's background jobs ignore Ctrl-C; ours, and those that tests start, are to know it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# TensorFlow's graphs are many Python objects; to look through all of them again and again takes minutes.
gc.set_threshold(100_000, 50, 100)


def pytest_configure(config: pytest.Config) -> None:
    """Let files start in the order below: pytest-xdist would begin with those of the most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of the most slow tests; else one process ends with a long one while the others wait."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # stable: a file's tests stay together, in their order


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
        StageSpace(widths=(24, 32), depths=(1, 2), kernels=(3, 5), stride=1, expansions=(2,), squeeze_excite=None),
    ),
    head_widths=(32, 40),
)

#: The same with a width for each layer, and a child of it whose widths rise, stay and fall inside stages.
LAYERWISE = variant(TINY, layerwise_widths=True)
LAYERWISE_CHILD = LAYERWISE.spec(
    resolution=12,
    depths=[2, 3, 2, 1],
    widths=[8, [8, 16], [24, 16, 16], [32, 16], 24, 32],
    kernels=[3, [3, 5, 3], 5, 3],
    expansions=[1, 2, 4, 2],
)


def _with_expansions(space: SearchSpace, name: str, **form: bool) -> SearchSpace:
    """Return a space whose layers have an expansion of their own, and more of a choice than `TINY` leaves."""
    options = ((1,), (2, 3), (3, 4), (2, 4))
    stages = (
        replace(stage, expansions=expansions, layerwise_expansions=True, **form)
        for stage, expansions in zip(space.stages, options, strict=True)
    )
    return replace(space, name=name, stages=tuple(stages))


#: An expansion for each layer: with a width and a kernel for each stage; and with everything for each layer.
STAGEWISE_KERNELS = _with_expansions(TINY, "tiny+stagewise-kernels", stagewise_kernels=True)
LAYERWISE_EXPANSIONS = _with_expansions(LAYERWISE, "tiny+layerwise-expansions")


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
    """Give each test a cache, a folder of device tables and a list of imported families of its own."""
    base = tmp_path_factory.getbasetemp()  # its `mktemp` would look through thousands of names for the next number
    for name in ("CACHE", "DEVICES", "DATA"):
        monkeypatch.setenv(f"BIGNAS_ZOO_{name}", tempfile.mkdtemp(dir=base, prefix=f"own-{name.lower()}-"))


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first worker of a session makes, and all of them read."""
    from filelock import FileLock

    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / f"once-{name}"
    with FileLock(base / f"once-{name}.lock"):
        if not folder.exists():
            new = Path(tempfile.mkdtemp(dir=base))
            make(new)
            new.rename(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family folder of the tiny space with random weights, made by the code that makes the real ones.

    Not to be changed. Beside it lies calibration.npy, the images of its statistics.
    """
    return once(tmp_path_factory, "family", _make_tiny_family) / "family"


@pytest.fixture(scope="session")
def tiny_slice(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `get` makes of its smallest slice; not to be changed."""
    import bignas_zoo as bz

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIGNAS_ZOO_CACHE", str(folder / "cache"))
            bz.get("tiny-smallest", family=tiny_family, output=folder / "slice")

    return once(tmp_path_factory, "slice", make) / "slice"


def _make_tiny_family(place: Path) -> None:
    import numpy as np

    from bignas_zoo.architecture import spaces
    from bignas_zoo.architecture.sampling import uniform_child
    from bignas_zoo.measure.family import write_family
    from bignas_zoo.measure.trained import Trained
    from bignas_zoo.models.supernet import initial_weights
    from bignas_zoo.recipes.data import LabelledImages
    from bignas_zoo.recipes.recipe import Recipe
    from bignas_zoo.search.children import Measured

    generator = np.random.default_rng(0)

    def images(count: int) -> LabelledImages:
        pixels = generator.integers(0, 256, (count, 20, 20, 3)).astype(np.uint8)
        labels = generator.integers(0, 5, count).astype(np.int32)
        return LabelledImages(pixels, labels, tuple("abcde"), f"noise ({count} images)")

    before = dict(spaces.SPACES)
    spaces.SPACES["tiny"] = TINY
    recipe = Recipe(
        name="tiny", space="tiny", crop_size=20, mean=(128.0, 128.0, 128.0), std=(64.0, 64.0, 64.0),
        steps=1, holdout=10, calibration_images=80, front_children=8,
    )  # fmt: skip
    weights = {
        k: (v + generator.normal(size=v.shape) * (0.3 if "gamma" in k else 0.05)).astype(np.float16)
        for k, v in initial_weights(TINY, 0, last_gamma=1.0).items()
    }
    train = images(80)
    run = Trained(recipe, weights, train.pixels, train, images(10), images(30), b'{"step": 1}\n')
    drawn = sorted((uniform_child(TINY, ("family", i)) for i in range(3)), key=lambda s: sum(w.width for w in s.stages))
    measured = tuple(
        Measured(spec, 20.0 + 10 * i, "corner" if i in (0, 4) else "random")
        for i, spec in enumerate([TINY.smallest, *drawn, TINY.biggest])
    )
    write_family(run, measured, place / "family", silent)
    np.save(place / "calibration.npy", train.pixels)
    spaces.SPACES.clear()
    spaces.SPACES.update(before)


pytest_plugins = ["hub_fixtures", "file_processes"]
