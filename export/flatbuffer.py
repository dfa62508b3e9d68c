"""FlatBuffers: read with every access checked, and written.

The usual readers trust their bytes: a wrong offset ends in a crash or an endless loop. Here each number
is checked against the file's size before it is read, and the work a file may cause is limited.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import flatbuffers

from bignas_zoo.errors import IntegrityError

#: Tables in vectors that one file may make us visit. A TFLite file has one buffer a tensor.
MAX_ITEMS = 1 << 17
#: Bytes of one text, and numbers of one vector.
MAX_TEXT = 1 << 20
MAX_NUMBERS = 1 << 16


class Flat:
    """The bytes of one FlatBuffers file.

    Args:
        data: the file.
        what: its name in messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.left = data, what, MAX_ITEMS

    def root(self, identifier: bytes) -> Table:
        """Return the root table.

        Raises:
            IntegrityError: the file is cut off or has another identifier.
        """
        if self.data[4:8] != identifier:
            self.damaged(f"it does not begin as one (identifier '{identifier.decode()}')")
        return Table(self, self.number("I", 0))

    def number(self, code: str, at: int) -> int:
        """Return the whole number of a `struct` code at a position."""
        if not 0 <= at <= len(self.data) - struct.calcsize(f"<{code}"):
            self.damaged(f"an offset points to byte {at:,} of {len(self.data):,}")
        return int(struct.unpack_from(f"<{code}", self.data, at)[0])

    def follow(self, at: int) -> int:
        """Return where the offset stored at a position points to."""
        target = at + self.number("I", at)
        if target >= len(self.data):
            self.damaged(f"an offset points to byte {target:,} of {len(self.data):,}")
        return target

    def vector(self, at: int, width: int, most: int) -> tuple[int, int]:
        """Return start and length of a vector.

        Args:
            at: position of its length.
            width: bytes of an element.
            most: the allowed number of elements.
        """
        count = self.number("I", at)
        if count > most or at + 4 + count * width > len(self.data):
            self.damaged(f"{count:,} elements at byte {at:,} of {len(self.data):,}")
        return at + 4, count

    def damaged(self, why: str) -> NoReturn:
        """Raise the one error of this module."""
        raise IntegrityError(f"{self.what}: damaged, or not such a file: {why}. Make the file again.")


class Table:
    """One table; a field is named by its slot, its place in the schema counted from 0.

    Args:
        flat: the file.
        at: the table's position.
    """

    __slots__ = ("at", "flat", "slots", "vtable")

    def __init__(self, flat: Flat, at: int) -> None:
        self.flat, self.at = flat, at
        self.vtable = at - flat.number("i", at)
        self.slots = (flat.number("H", self.vtable) - 4) // 2

    def field(self, slot: int) -> int | None:
        """Return a field's position, None where the field is absent."""
        if slot >= self.slots:
            return None
        offset = self.flat.number("H", self.vtable + 4 + 2 * slot)
        return self.at + offset if offset else None

    def number(self, slot: int, code: str, default: int = 0) -> int:
        """Return a scalar field."""
        at = self.field(slot)
        return default if at is None else self.flat.number(code, at)

    def target(self, slot: int) -> int | None:
        """Return the position of what a field refers to, None where it is absent."""
        at = self.field(slot)
        return None if at is None else self.flat.follow(at)

    def table(self, slot: int) -> Table | None:
        """Return a table field."""
        at = self.target(slot)
        return None if at is None else Table(self.flat, at)

    def tables(self, slot: int) -> list[Table]:
        """Return a vector of tables, empty where the field is absent."""
        at = self.target(slot)
        if at is None:
            return []
        start, count = self.flat.vector(at, 4, self.flat.left)
        self.flat.left -= count
        return [Table(self.flat, self.flat.follow(start + 4 * i)) for i in range(count)]

    def item(self, slot: int, index: int) -> Table | None:
        """Return one table of a vector, None where there is none."""
        at = self.target(slot)
        start, count = (0, 0) if at is None else self.flat.vector(at, 4, MAX_ITEMS)
        return Table(self.flat, self.flat.follow(start + 4 * index)) if 0 <= index < count else None

    def blob(self, slot: int, most: int = MAX_TEXT) -> bytes:
        """Return a vector of bytes, empty where the field is absent."""
        at = self.target(slot)
        if at is None:
            return b""
        start, count = self.flat.vector(at, 1, most)
        return self.flat.data[start : start + count]

    def text(self, slot: int) -> str:
        """Return a string field, empty where it is absent."""
        try:
            return self.blob(slot).decode()
        except UnicodeDecodeError:
            self.flat.damaged("a text is not UTF-8")

    def numbers(self, slot: int, code: str) -> list[int]:
        """Return a vector of whole numbers."""
        return [int(value) for value in self._values(slot, code)]

    def floats(self, slot: int) -> list[float]:
        """Return a vector of float32."""
        return [float(value) for value in self._values(slot, "f")]

    def _values(self, slot: int, code: str) -> tuple[float, ...]:
        at = self.target(slot)
        if at is None:
            return ()
        start, count = self.flat.vector(at, struct.calcsize(f"<{code}"), MAX_NUMBERS)
        return struct.unpack_from(f"<{count}{code}", self.flat.data, start)


class Ref(int):
    """Where an object is: bytes from the end of what is written back to its begin.

    Negative for an object of a file that will follow: minus its position there.
    """


class Scalar(NamedTuple):
    """A number that a table holds itself: its `struct` code, B or I, and its value."""

    code: str
    value: int


class Writer:
    """Writes one FlatBuffers file; objects before those that refer to them.

    Args:
        alignment: the file's size will be a multiple of it.
    """

    def __init__(self, alignment: int = 4) -> None:
        self.builder: Any = flatbuffers.Builder(1024)
        self.builder.Prep(alignment, 0)

    def text(self, text: str) -> Ref | None:
        """Write a string; an empty one is left out."""
        return Ref(self.builder.CreateString(text)) if text else None

    def blob(self, data: bytes, alignment: int) -> Ref:
        """Write a vector of bytes whose first is aligned."""
        self.builder.Prep(alignment, len(data))
        return Ref(self.builder.CreateByteVector(data))

    def floats(self, values: Sequence[float]) -> Ref:
        """Write a vector of float32."""
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return Ref(self.builder.EndVector())

    def refs(self, *refs: Ref) -> Ref:
        """Write a vector of tables."""
        self.builder.StartVector(4, len(refs), 4)
        for ref in reversed(refs):
            self.builder.PrependUOffsetTRelative(ref)
        return Ref(self.builder.EndVector())

    def table(self, fields: Mapping[int, Ref | Scalar | None]) -> Ref:
        """Write a table, from slot to value; what is None is left out."""
        self.builder.StartObject(max(fields, default=-1) + 1)
        for slot, value in fields.items():
            if isinstance(value, Ref):
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            elif isinstance(value, Scalar):
                put = {"B": self.builder.PrependUint8Slot, "I": self.builder.PrependUint32Slot}[value.code]
                put(slot, value.value, 0)
        return Ref(self.builder.EndObject())

    def finish(self, root: Ref, identifier: bytes) -> bytes:
        """Return the file."""
        self.builder.Finish(root, file_identifier=identifier)
        return bytes(self.builder.Output())
