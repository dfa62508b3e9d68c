"""Against the projects imported from: slicing a child, calibrating it, and measuring it, side by side with torch.

``python benchmarks/against_torch.py TORCH_PYTHON [--images 256] [--rounds 3]``: TORCH_PYTHON is that of the README's
command `torch`. Weights are random: what is measured is time. Rounds alternate between the two; CPU seconds of each.
Both run AlphaNet's A0 (203.39 MMACs at 192 px) on the same number of images: statistics of batch norms first, then
logits. torch's side is what AlphaNet's own script does: a static child, batch norms in training mode with a cumulative
average, batches of 64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TORCH = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
import torch_judge as judge
from torch.nn import functional
state = judge.attentivenas_state(5)
arch, count = json.loads(sys.argv[2]), int(sys.argv[3])
images = torch.from_numpy(np.random.RandomState(0).standard_normal((count, 3, 192, 192)).astype("f4"))
known = {}
def in_training(name, x, *affine):
    mean, variance, count = known.setdefault(name, [torch.zeros(x.shape[1]), torch.ones(x.shape[1]), 0])
    known[name][2] += 1
    return functional.batch_norm(x, mean, variance, *affine, training=True, momentum=1 / known[name][2], eps=1e-5)
def in_use(name, x, *affine):
    return functional.batch_norm(x, *known[name][:2], *affine, eps=1e-5)
with torch.no_grad():
    judge.attentivenas(state, arch, images[:8], in_training); known.clear()
    begun = time.process_time(), time.perf_counter()
    for norm in (in_training, in_use):
        for part in images.split(64):
            judge.attentivenas(state, arch, part, norm)
print(json.dumps({"cpu_s": time.process_time() - begun[0], "wall_s": time.perf_counter() - begun[1]}))
"""


def ours(count: int) -> dict[str, float]:
    """Return the seconds of slicing, and of calibrating and measuring, in this process."""
    import numpy as np

    from bignas_zoo.architecture.spaces.attentivenas import ATTENTIVENAS, PAPER_MODELS
    from bignas_zoo.models.blockwise import CutChild
    from bignas_zoo.models.slicing import slice_weights
    from bignas_zoo.models.supernet import initial_weights

    spec = PAPER_MODELS["a0"]
    weights = initial_weights(ATTENTIVENAS, 0, last_gamma=1.0)
    images = np.random.RandomState(0).standard_normal((count, 192, 192, 3)).astype("f4")
    begun = time.process_time()
    slice_weights(weights, spec)
    sliced = time.process_time() - begun
    warm = CutChild(spec, weights)
    warm.logits(images[:8], warm.moments(images[:8]))  # graphs are traced once a form of block, for all children
    begun = time.process_time(), time.perf_counter()
    child = CutChild(spec, weights)
    moments = child.moments(images)
    for i in range(0, count, 64):
        child.logits(images[i : i + 64], moments)
    return {
        "slicing_cpu_s": sliced,
        "cpu_s": time.process_time() - begun[0],
        "wall_s": time.perf_counter() - begun[1],
    }


def main() -> None:
    """Run the rounds and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("torch_python")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(ours(options.images)))
        return
    arch = {
        "width": [16, 16, 24, 32, 64, 112, 192, 216, 1792], "depth": [1, 3, 3, 3, 3, 3, 1], "kernel": [3] * 7,
        "expand": [1, 4, 4, 4, 4, 6, 6],
    }  # fmt: skip
    tests = Path(__file__).resolve().parents[1] / "tests"
    rows: dict[str, list[dict[str, float]]] = {"torch": [], "ours": []}
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(TORCH)
        script.flush()
        commands = {
            "torch": [options.torch_python, script.name, str(tests), json.dumps(arch), str(options.images)],
            "ours": [sys.executable, __file__, options.torch_python, "--ours", "--images", str(options.images)],
        }
        for _ in range(options.rounds):
            for name, command in commands.items():
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows[name].append(json.loads(done.stdout.splitlines()[-1]))
    for name, results in rows.items():
        medians = {key: round(statistics.median(r[key] for r in results), 3) for key in results[0]}
        print(name, json.dumps(medians))


if __name__ == "__main__":
    main()
