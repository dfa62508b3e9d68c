"""Work in several processes of this machine, above all the measuring of children; results come in the order asked for.

A local worker is a process with a pipe. It is started anew when it dies, and its child is measured again; it ends when
its parent does, however that ends, because its pipe closes. That, and ending a worker in the middle of a child
(Ctrl-C), is what `concurrent.futures` does not offer. Nothing heavy is imported here: a worker loads what its
measurement needs.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bignas_zoo.errors import BigNASError, UsageError

#: How often a child may lose its worker before the search gives up.
ATTEMPTS = 3
#: Seconds in which an idle worker ends by itself.
IDLE_ENDS = 5
#: Processes at most unless told otherwise; each takes 1.5 to 2.5 GB, a supernet and its activations or an exporter.
DEFAULT = 4
#: What a worker does: for a search, from a child to its accuracy.
Work = Callable[[Any], Any]


def default_workers() -> int:
    """Return how many processes to use unless told otherwise."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(DEFAULT, usable)


@dataclass
class _Worker:
    process: Any
    pipe: Any
    task: int | None = None
    done: int = 0


class LocalWorkers:
    """A pool of processes, each of which makes what does the work once, and then does it.

    Attributes:
        restarts: how many workers died and were replaced.
    """

    def __init__(self, count: int, make: Callable[..., Work], *arguments: Any, renew_after: int | None = None) -> None:
        """Start the processes.

        Args:
            count: how many, at least 1.
            make: a function of a module, called in each process; returns what does the work, e.g. measures a child.
            arguments: of `make`; they are sent to the process.
            renew_after: end a process after so many pieces of work and start another: for work that leaves memory
                behind.
        """
        if count < 1:
            raise UsageError(f"workers: must be at least 1, got {count}.")
        self._context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self._make, self._arguments, self._renew_after = make, arguments, renew_after
        self.restarts = self._tasks = 0
        self._workers = [self._start() for _ in range(count)]

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids."""
        return tuple(w.process.pid for w in self._workers)

    def __call__(self, items: Sequence[Any]) -> Iterator[Any]:
        """Yield the results for items, in their order.

        Raises:
            BigNASError: several workers in turn died over the same item; or what the work raised.
        """
        first, self._tasks = self._tasks, self._tasks + len(items)  # answers to an earlier, abandoned call are ignored
        waiting, done, lost = list(range(len(items)))[::-1], dict[int, Any](), [0] * len(items)
        for due in range(len(items)):
            while due not in done:
                for worker in list(self._workers):
                    if worker.task is None and waiting:
                        self._send(self._fresh(worker), first + waiting[-1], items[waiting.pop()])
                for worker in self._ready():
                    index = worker.task - first if worker.task is not None else -1
                    result = self._receive(worker)
                    if result is None and index >= 0:
                        lost[index] += 1
                        if lost[index] == ATTEMPTS:
                            raise BigNASError(
                                f"workers: {ATTEMPTS} in turn died over the same task, {items[index]}. "
                                "Memory may be short: give fewer --workers."
                            )
                        waiting.append(index)
                    elif result is not None and index >= 0:
                        done[index] = result[0]
            yield done.pop(due)

    def close(self) -> None:
        """End all processes, also in the middle of a child."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.task is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(IDLE_ENDS)  # by itself, tidying up; a worker that is still loading does not
            worker.process.terminate()
            worker.process.join()
        self._workers = []

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._make, self._arguments)
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _fresh(self, worker: _Worker) -> _Worker:
        """Return an idle worker, or another in its place where it has worked long enough."""
        if self._renew_after is None or worker.done < self._renew_after:
            return worker
        worker.pipe.close()
        worker.process.join(IDLE_ENDS)
        worker.process.kill()
        worker.process.join()
        place = self._workers.index(worker)
        self._workers[place] = self._start()
        return self._workers[place]

    def _replace(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()
        self.restarts += 1
        self._workers[self._workers.index(worker)] = self._start()

    def _send(self, worker: _Worker, task: int, item: Any) -> None:
        worker.task = task
        with suppress(OSError):  # it died; noticed when its answer is read
            worker.pipe.send(item)

    def _ready(self) -> list[_Worker]:
        busy = {w.pipe: w for w in self._workers if w.task is not None}
        return [busy[pipe] for pipe in multiprocessing.connection.wait(list(busy))]  # type: ignore[index]

    def _receive(self, worker: _Worker) -> tuple[Any] | None:
        """Return a result in a tuple; None, and a new worker, where this one died."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return None
        worker.task, worker.done = None, worker.done + 1
        if kind == "error":
            raise value
        if kind == "bug":
            raise RuntimeError(f"in a worker: {value[0]}") from RuntimeError(value[1])
        return (value,)


def _work(pipe: Any, make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    """Work until the pipe closes: the body of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    work = None
    with suppress(EOFError, OSError):
        while True:
            item = pipe.recv()
            try:
                work = work or make(*arguments)
                answer: tuple[str, Any] = ("result", work(item))
            except BigNASError as error:
                answer = ("error", error)
            except Exception as error:  # noqa: BLE001  the parent raises it
                answer = ("bug", (f"{type(error).__name__}: {error}", traceback.format_exc()))
            pipe.send(answer)
