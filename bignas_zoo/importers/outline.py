"""What the pickle of a torch file describes, found without executing it.

Its opcodes are walked over, and build nothing but numbers, texts, lists, dicts and descriptions of tensors. A name that
weights do not need is refused; a few classes that trainings store beside weights stand as empty placeholders.

Reference: torch/_utils.py and torch/serialization.py of PyTorch (BSD-3), for what stands for a tensor.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import Any

#: Bounds on what a hostile pickle can take.
MOST_STEPS, MOST_AXES = 400_000, 8
DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}
ORDERED_DICT = ("collections", "OrderedDict")
TENSOR, PARAMETER = ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")
#: What a training may store beside weights: read over, never made.
IGNORED = {
    *(
        (module, name)
        for module in ("builtins", "__builtin__")
        for name in ("object", "dict", "list", "set", "int", "float")
    ),
    *((module, "_reconstructor") for module in ("copyreg", "copy_reg")),
    *((module, "scalar") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("torch", "Size"),
    ("torch", "device"),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("collections", "defaultdict"),
    ("utils.config", "AttrDict"),
    ("easydict", "EasyDict"),
    ("yacs.config", "CfgNode"),
}


class OutlineError(Exception):
    """What is wrong with a file."""


@dataclass(frozen=True)
class Storage:
    """Values that tensors share: what stands for it in a pickle."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class View:
    """A tensor as a pickle describes it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A name that a pickle would look up."""

    module: str
    name: str


class _Placeholder:
    """An object that is read over."""


_MARK = object()
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": _Placeholder}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def walk(file: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """Return what a pickle describes; the file stands behind it then.

    Args:
        file: begins with the pickle.
        storages: filled with those that are met, by key.

    Raises:
        OutlineError: an opcode or a name is not allowed, or the pickle takes too many steps.
    """
    machine = _Machine({} if storages is None else storages)
    for steps, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if steps > MOST_STEPS:
            raise OutlineError("its pickle takes too many steps")
        if opcode.name == "STOP":
            return machine.stack.pop()
        machine.step(opcode.name, argument)
    raise OutlineError("its pickle has no end")


class _Machine:
    """The stack and memo of a pickle, of which nothing is ever called."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages = storages

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif (action := getattr(self, f"op_{name.lower()}", None)) is not None:
            action(argument)
        else:
            raise OutlineError(f"its pickle has the opcode {name}, which no weights need")

    def _to_mark(self) -> list[Any]:
        for i in range(len(self.stack) - 1, -1, -1):
            if self.stack[i] is _MARK:
                items = self.stack[i + 1 :]
                del self.stack[i:]
                return items
        raise OutlineError("its pickle lacks a mark")

    def op_proto(self, _: Any) -> None:
        """Protocol and frames say nothing about values."""

    op_frame = op_proto

    def op_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def op_pop(self, _: Any) -> None:
        self.stack.pop()

    def op_put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    op_binget = op_long_binget = op_get

    def op_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._to_mark()))

    def op_list(self, _: Any) -> None:
        self.stack.append(self._to_mark())

    def op_dict(self, _: Any) -> None:
        items = self._to_mark()
        self.stack.append({})
        self._set(items)

    def op_empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise OutlineError("its pickle's stack is empty")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def op_tuple1(self, _: Any) -> None:
        self.stack.append(self._last(1))

    def op_tuple2(self, _: Any) -> None:
        self.stack.append(self._last(2))

    def op_tuple3(self, _: Any) -> None:
        self.stack.append(self._last(3))

    def op_append(self, _: Any) -> None:
        (value,) = self._last(1)
        self._extend([value])

    def op_appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)
        elif not isinstance(self.stack[-1], _Placeholder):
            raise OutlineError("its pickle appends to what is no list")

    def op_setitem(self, _: Any) -> None:
        self._set(list(self._last(2)))

    def op_setitems(self, _: Any) -> None:
        self._set(self._to_mark())

    def op_additems(self, _: Any) -> None:
        self._to_mark()

    def _set(self, items: list[Any]) -> None:
        table = self.stack[-1]
        if isinstance(table, _Placeholder):
            return
        if not isinstance(table, dict) or len(items) % 2:
            raise OutlineError("its pickle sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys need a hash, which can take for ever where tuples are nested.
            if not isinstance(key, str | int | float | bytes | None):
                raise OutlineError("its pickle has a dict with a key that is neither text nor number")
            table[key] = value

    def op_global(self, argument: str) -> None:
        module, _, name = str(argument).partition(" ")
        self._look_up(module, name)

    def op_stack_global(self, _: Any) -> None:
        module, name = self._last(2)
        self._look_up(module, name)

    def _look_up(self, module: Any, name: Any) -> None:
        known = (module, name) in {ORDERED_DICT, TENSOR, PARAMETER, *IGNORED} or (
            module in ("torch", "torch.storage") and name in DTYPES
        )
        if not known:
            whole = ": a whole network was saved; save its state_dict()" if str(module).startswith("torch.nn") else ""
            raise OutlineError(f"its pickle names {str(module)[:60]}.{str(name)[:60]}, which no weights need{whole}")
        self.stack.append(_Name(module, name))

    def op_binpersid(self, _: Any) -> None:
        (entry,) = self._last(1)
        if not isinstance(entry, tuple) or len(entry) not in (5, 6) or entry[0] != "storage":
            raise OutlineError("its pickle refers to something that is no storage")
        kind, key, count = entry[1], str(entry[2])[:200], entry[4]
        if not isinstance(kind, _Name) or kind.name not in DTYPES or type(count) is not int or count < 0:
            raise OutlineError("its pickle refers to a storage of an unknown type")
        if len(entry) == 6 and entry[5] is not None:
            raise OutlineError("its pickle has a storage within another")
        storage = Storage(kind.name, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise OutlineError("its pickle describes one storage twice, differently")
        self.stack.append(storage)

    def op_reduce(self, _: Any) -> None:
        name, arguments = self._last(2)
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise OutlineError("its pickle calls what is no name")
        self.stack.append(_made(name, arguments))

    def op_newobj(self, _: Any) -> None:
        self._last(2)
        self.stack.append(_Placeholder())

    def op_build(self, _: Any) -> None:
        self._last(1)  # attributes of a dict or placeholder, such as a state dict's `_metadata`
        if not self.stack or isinstance(self.stack[-1], View | Storage):
            raise OutlineError("its pickle sets attributes of a tensor")


def _made(name: _Name, arguments: tuple[Any, ...]) -> Any:
    """Return what a call in a pickle stands for."""
    which = (name.module, name.name)
    if which == ORDERED_DICT:
        return {}
    if which == PARAMETER:
        if not arguments or not isinstance(arguments[0], View):
            raise OutlineError("its pickle has a parameter that is no tensor")
        return arguments[0]
    if which != TENSOR:
        return _Placeholder()
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise OutlineError("its pickle has a tensor without a storage")
    if len(shape) != len(strides):
        raise OutlineError("its pickle has a tensor with more sizes than strides")
    return View(storage, offset, sizes(shape), sizes(strides))


def sizes(value: Any) -> tuple[int, ...]:
    """Check the axes of a tensor, in length or in stride; raises OutlineError."""
    if not isinstance(value, tuple) or len(value) > MOST_AXES or not all(type(n) is int and n >= 0 for n in value):
        raise OutlineError("it has a tensor whose shape is none")
    return value
