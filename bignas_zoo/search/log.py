"""The log of measured children: JSON lines, so that nothing is measured twice.

A line holds the child, its accuracy, and ``of``: a digest of everything the accuracy depends on but the child.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bignas_zoo.architecture.space import ChildSpec, SearchSpace
from bignas_zoo.errors import IntegrityError, LocalIOError, SpaceError
from bignas_zoo.files import store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.search.children import Measured


class Log:
    """Measurements kept in a file.

    Attributes:
        path: of the file.
        of: digest of weights, images and protocol.
        known: child to accuracy in percent.
    """

    def __init__(self, path: Path, of: str, known: dict[ChildSpec, float]) -> None:
        self.path, self.of, self.known = path, of, known

    @staticmethod
    def open(
        path: Path,
        of: str,
        space: SearchSpace,
        say: Say = silent,
        *,
        others: str = "refuse",
    ) -> Log:
        """Read a log, or begin one.

        Args:
            path: of the file; it need not be there.
            of: digest of weights, images and protocol.
            space: the children's.
            say: told of lines that are dropped because they are damaged, such as one that a kill cut off.
            others: what to do with measurements of other weights, images or protocol: "refuse" or "drop" them.

        Raises:
            IntegrityError: there are such measurements, and they are to be refused.
            LocalIOError: the file cannot be read or written.
        """
        data = _read(path)
        lines, known, damaged, foreign = [], {}, 0, 0
        for line in data.splitlines():
            try:
                record = json.loads(line)
                spec = ChildSpec.from_json(record["spec"], space) if record["of"] == of else None
                top1 = record["holdout_top1"]
                if type(top1) not in (int, float) or not 0 <= top1 <= 100:
                    raise ValueError("not a percentage")
            except (ValueError, KeyError, TypeError, RecursionError, SpaceError):
                damaged += 1
                continue
            if spec is None:
                foreign += 1
            else:
                known[spec] = float(top1)
                lines.append(line)
        if foreign and others == "refuse":
            raise IntegrityError(
                f"{path}: holds {foreign} children measured with other weights, images or another way of measuring. "
                "Choose another --output, or delete this file to measure anew."
            )
        if damaged:
            say(f"{path}: {damaged} damaged line{'s' * (damaged > 1)} dropped; measured again where needed")
        if damaged or foreign or not data.endswith(b"\n"):
            store.atomic_write(path, b"".join(line + b"\n" for line in lines))
        return Log(path, of, known)

    def add(self, measured: Measured) -> None:
        """Keep a measurement; it is on the disk when this returns."""
        store.append_line(self.path, json.dumps({**measured_to_json(measured), "of": self.of}))
        self.known[measured.spec] = measured.top1


def measured_to_json(m: Measured) -> dict[str, Any]:
    """Return a measured child as front.json and the log hold it."""
    return {"spec": m.spec.to_json(), "macs": m.macs, "holdout_top1": m.top1, "origin": m.origin}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise LocalIOError(f"{path}: cannot be read ({error.strerror}).") from error
