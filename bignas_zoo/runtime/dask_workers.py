"""Measure children on a Dask cluster (extra ``search``); results come in the order asked for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bignas_zoo.architecture.space import ChildSpec
from bignas_zoo.errors import UsageError
from bignas_zoo.runtime.workers import ATTEMPTS, Work

#: How long a scheduler may take to answer.
SECONDS = 10


class DaskWorkers:
    """The workers of a Dask cluster; its scheduler gives a lost child to another worker."""

    def __init__(self, address: str, make: Callable[..., Work], *arguments: Any) -> None:
        """Connect to a scheduler.

        Args:
            address: of the scheduler, e.g. ``tcp://10.0.0.1:8786``.
            make, arguments: see `LocalWorkers`; paths among the arguments must mean the same on every host.

        Raises:
            UsageError: Dask is not installed, or no scheduler answers.
        """
        try:
            from distributed import Client
        except ImportError as error:
            raise UsageError(
                'workers: a cluster needs Dask. Install it with pip install "bignas-zoo[search]", or give a number.'
            ) from error
        try:
            self._client: Any = Client(address, timeout=SECONDS)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise UsageError(f"workers: no Dask scheduler at {address} ({error}).") from error
        self._make, self._arguments = make, arguments

    def __call__(self, specs: Sequence[ChildSpec]) -> Iterator[float]:
        """Yield the accuracies of children, in their order."""
        futures = [
            self._client.submit(_measure_there, self._make, self._arguments, s, pure=False, retries=ATTEMPTS - 1)
            for s in specs
        ]
        yield from (float(future.result()) for future in futures)

    def close(self) -> None:
        """Leave the cluster; it goes on running."""
        self._client.close()

    def __enter__(self) -> DaskWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_THERE = threading.Lock()


def _measure_there(make: Callable[..., Work], arguments: tuple[Any, ...], spec: ChildSpec) -> float:
    with _THERE:  # a Dask worker may have several threads; an evaluator takes all cores itself
        return float(_made(make, arguments)(spec))


@functools.lru_cache(maxsize=1)
def _made(make: Callable[..., Work], arguments: tuple[Any, ...]) -> Work:
    return make(*arguments)
