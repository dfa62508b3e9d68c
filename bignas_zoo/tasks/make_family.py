"""`family`: a family of a finished training run; also as a process of its own, for a run that was trained on JAX."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bignas_zoo.errors import BigNASError
from bignas_zoo.files.say import Say, silent
from bignas_zoo.runtime.extras import need_keras


def make_family(
    data: str | Path,
    output: str | Path,
    *,
    test_data: str | Path | None = None,
    license: str | None = None,
    say: Say = silent,
) -> Path:
    """Make the family of a finished training run: measure children, choose slices, store them.

    Args:
        data, test_data: the run's images, see `train`.
        output: the run's folder.
        license: of the family's weights, see `train`.
        say: told what is going on, a sentence at a time.

    Returns:
        The family's folder.

    Raises:
        NotFoundError: the folder holds no finished run.
        LocalIOError, IntegrityError: images or the run cannot be read or are damaged.
    """
    need_keras("family")
    from bignas_zoo.measure import from_recipe

    return from_recipe.make_family(data, Path(output), test_data=test_data, license=license, say=say)


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _main(data: str, run: str, test_data: str, license: str) -> int:
    """Make a family on TensorFlow, whatever the process that started this one runs on; return the exit code.

    An empty text stands for None.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        make_family(data, run, test_data=test_data or None, license=license or None, say=_to_stderr)
    except BigNASError as error:
        _to_stderr(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
