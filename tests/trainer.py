"""``bignas-zoo`` as a process of its own with a space small enough to train in seconds, killed on demand.

KILL="step:3" ends it by SIGKILL right after step 3. KILL="replace:manifest.json:2" does so when the second
manifest is written but has not got its name yet. PAUSE="3" makes it wait after step 3, to be sent signals.
POISON="3" gives step 3 a learning rate that is no number. MEASURE="stop" has the process sent SIGTERM when
children are to be measured.
The family is made of no children: what is tested here ends with the training.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from bignas_zoo.architecture import spaces
from bignas_zoo.architecture.space import SearchSpace
from bignas_zoo.architecture.stage import StageSpace
from bignas_zoo.files import store

MINI = SearchSpace(
    name="mini",
    source="tests",
    classes=2,
    resolutions=(8, 10),
    unseen_resolutions=(),
    stem_widths=(8,),
    stem_stride=2,
    stages=(StageSpace(widths=(8, 16), depths=(1, 2), kernels=(3,), stride=1, expansions=(1,)),),
    head_widths=(16,),
)
RECIPE = """
name: mini
space: mini
crop_size: 10
mean: [128, 128, 128]
std: [64, 64, 64]
steps: {steps}
holdout: 4
batch_size: 4
biggest_only_steps: 3
random_children: 1
learning_rate: 0.01
learning_rate_batch: 4
warmup_steps: 2
dropout: 0.2
calibration_images: 64
front_children: 8
evaluate_every: 5
checkpoint_every: 2
"""


def kill_on_demand() -> None:
    kind, *rest = os.environ.get("KILL", "none").split(":")
    if kind == "replace":
        name, left = rest[0], [int(rest[1])]
        replace = os.replace

        def dangerous(source: str, target: Path) -> None:
            left[0] -= Path(target).name == name
            if left[0] == 0 and Path(target).name == name:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        store.os.replace = dangerous  # type: ignore[assignment]


def watch(step: int) -> None:
    if os.environ.get("KILL") == f"step:{step}":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("PAUSE") == str(step):
        print(f"paused after step {step}", flush=True)
        signal.pause()


def measure(*_: Any) -> None:
    if os.environ.get("MEASURE") == "stop":
        signal.raise_signal(signal.SIGTERM)
    sys.exit(0)


def main() -> None:
    sys.modules["jax"] = sys.modules["matplotlib"] = None  # type: ignore[assignment]  # loaded where they are installed
    import tensorflow as tf

    from bignas_zoo.cli.main import main as command
    from bignas_zoo.measure import from_recipe
    from bignas_zoo.recipes import train as loop
    from bignas_zoo.tasks import train as training

    spaces.SPACES["mini"] = MINI
    tf.config.experimental.enable_op_determinism()
    from_recipe.measure_front = measure
    original = training.train

    def train(*arguments: Any, report: Any, **options: Any) -> Path:
        return original(*arguments, report=lambda p: (report(p), watch(p.step)), **options)

    training.train = train
    rate = loop.learning_rate
    poisoned = int(os.environ.get("POISON", "0")) - 1
    loop.learning_rate = lambda recipe, step: float("nan") if step == poisoned else rate(recipe, step)
    kill_on_demand()
    command()


if __name__ == "__main__":
    main()
