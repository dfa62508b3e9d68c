"""Masked supernet = sliced supernet = child run block by block = plain Keras child = numpy.

Runs as a script on another Keras backend:

``python equality.py COUNT OUT.npz`` prints the worst errors as JSON and stores the logits, so that two
backends can be compared.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache

import keras
import numpy as np
from conftest import LAYERWISE, LAYERWISE_EXPANSIONS, STAGEWISE_KERNELS, TINY

from bignas_zoo.architecture.sampling import uniform_child
from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.architecture.spaces import variant
from bignas_zoo.models.active import ActiveChild
from bignas_zoo.models.blockwise import CutChild
from bignas_zoo.models.calibration import calibrate
from bignas_zoo.models.child import build_child, get_weights, set_weights
from bignas_zoo.models.elastic import Execution
from bignas_zoo.models.numpy_forward import numpy_forward
from bignas_zoo.models.slicing import slice_weights
from bignas_zoo.models.supernet import forward, initial_weights

IMAGES = 64
BRANCHES = ("where", "cond")
FORMS = {
    "sliced": Execution(),
    "two-pass": Execution(batch_norm="two_pass"),
    "one-pass": Execution(batch_norm="one_pass"),
    "shifted": Execution(depthwise="shifted"),
}

#: One width a stage; one a layer; one a layer with another activation and without squeeze-excite; one expansion a
#: layer and one kernel a stage; and everything one a layer.
SPACES = (
    TINY, LAYERWISE, variant(LAYERWISE, activation="hard_swish", squeeze_excite=False), STAGEWISE_KERNELS,
    LAYERWISE_EXPANSIONS,
)  # fmt: skip


def random_weights(seed: int, space: SearchSpace = TINY) -> dict[str, np.ndarray]:
    """Weights of no special form: no zero gammas or betas behind which a mistake could hide."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, value in initial_weights(space, seed).items():
        spread = 0.3 if name.endswith(("beta", "bias", "gamma")) else float(np.std(value)) or 0.1
        weights[name] = (generator.normal(size=value.shape) * spread + name.endswith("gamma")).astype(np.float32)
    return weights


def children(count: int, space: SearchSpace = TINY) -> list[ChildSpec]:
    """Random children at trained and unseen (odd) resolutions; the corners too where widths are stage-wise."""
    corners = 2 if space is TINY else 0  # the corners of the others have the same width in every layer
    first = 1 if space in SPACES[3:] else 0  # those whose expansions rise and fall
    sizes = space.all_resolutions
    drawn = [uniform_child(space, ("equality", i + first), sizes[i % len(sizes)]) for i in range(count - corners)]
    return [TINY.biggest, *drawn, TINY.smallest] if corners else drawn


def compiled(function):
    """Compile for the backend at hand."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, autograph=False, jit_compile=False)


@lru_cache(maxsize=2)  # a program takes 16 MB a resolution
def masked(space: SearchSpace, branch: str):
    """Return the program of a space that masks what a child does not have, traced once a resolution.

    It takes the weights too, so that one program is every child's, as in training.
    """
    how = Execution(branch=branch)
    return compiled(lambda w, x, v: forward(space, w, x, ActiveChild.from_vector(space, v), how=how))


def sliced(spec: ChildSpec, weights: dict[str, np.ndarray], images: np.ndarray, how: Execution, *, compile_: bool):
    """Return the logits of a child whose every choice is static."""

    def program(x):
        return forward(spec.space, weights, x, ActiveChild.of(spec), how=how)

    return (compiled(program) if compile_ else program)(images)


def run(
    spec: ChildSpec, weights: dict[str, np.ndarray], seed: int, *, compile_: bool = True
) -> tuple[dict[str, float], np.ndarray]:
    """Return the errors of one child, relative to the largest logit, and its calibrated logits.

    Args:
        spec: the child.
        weights: of the supernet.
        seed: of the images.
        compile_: run the sliced forms as compiled programs, which takes a second each, and not step by step.
    """
    images = np.random.default_rng(seed).normal(size=(IMAGES, spec.resolution, spec.resolution, 3)).astype("f4")
    child = build_child(spec)
    set_weights(child, spec, slice_weights(weights, spec), calibrated=False)
    results = {
        **{branch: masked(spec.space, branch)(weights, images, ActiveChild.of(spec).vector()) for branch in BRANCHES},
        **{form: sliced(spec, weights, images, how, compile_=compile_) for form, how in FORMS.items()},
    }
    reference = np.asarray(child(images, training=True))
    errors = {f"batch {k}": error(v, reference) for k, v in results.items()}

    part = 32 if keras.backend.backend() == "jax" else 40  # JAX compiles every operation for each size of a part
    calibrate(child, [images[:part], images[part:]])
    logits = np.asarray(child(images, training=False))
    stored = get_weights(child, spec)
    cut = CutChild(spec, weights)
    statistics = cut.moments(images)
    assert {f"{name}.bn.mean" for name in statistics} == {name for name in stored if name.endswith(".mean")}
    errors["calibrated blockwise"] = error(cut.logits(images, statistics), logits)
    errors["calibrated numpy"] = error(numpy_forward(spec, stored, images), logits)
    # One batch of all images: batch statistics and calibrated statistics are the same numbers.
    errors["calibrated batch"] = error(reference, logits)
    return errors, logits


def error(actual, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())


def main(count: int, out: str) -> None:
    """Run `count` children of the tiny space and one of the layer-wise one."""
    worst: dict[str, float] = {}
    logits = {}
    for space, some in ((TINY, count), (LAYERWISE, 1)):
        weights = random_weights(0, space)
        for i, spec in enumerate(children(some, space)):
            errors, logits[f"{space.name}.child{i}"] = run(spec, weights, i)
            worst = {k: max(v, worst.get(k, 0.0)) for k, v in errors.items()}
    np.savez(out, **logits)
    print(json.dumps({"backend": keras.backend.backend(), "children": len(logits), **worst}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
