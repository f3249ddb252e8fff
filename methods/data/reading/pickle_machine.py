"""The interpreter behind :mod:`methods.data.reading.pickles`: one operation of a pickle at a time, nothing called.

Facts on the operations: the comments of the standard library's ``pickletools``; on arrays: numpy's
``ndarray.__reduce__`` and ``__reduce_ex__``, ``dtype.__reduce__``.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from methods.data.reading.pickled_arrays import Piece, StoredArray

LONG = 1024  # bytes; what is longer stays in the file where arrays are only outlined
_MOST_AXES = 32
_DTYPE = re.compile(r"\?|[<>=|]?(?:b1|i[1248]|u[1248]|f[248]|[SU]\d{1,7})")


class RefusedError(Exception):
    """What may not be in a pickle, in a few words."""


@dataclass(frozen=True)
class _Name:
    """A name that a pickle may mention, as what is done here in its place."""

    does: str


@dataclass
class _Dtype:
    """A dtype in the making: its byte order comes after it was made."""

    value: np.dtype[Any]


_NAMES = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name("array") for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Name("scalar") for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Name("whole_array") for core in ("core", "_core")},
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype"),
    ("_codecs", "encode"): _Name("encode"),
    ("collections", "OrderedDict"): _Name("mapping"),
    **{(builtins, "set"): _Name("set") for builtins in ("builtins", "__builtin__")},
    **{(builtins, "frozenset"): _Name("frozenset") for builtins in ("builtins", "__builtin__")},
    **{(builtins, "bytes"): _Name("no_bytes") for builtins in ("builtins", "__builtin__")},
}
_LONG_KINDS = {  # operation -> (bytes before the content, whether it lies there as UTF-8)
    "BINBYTES": (5, False),
    "BINBYTES8": (9, False),
    "BYTEARRAY8": (9, False),
    "BINSTRING": (5, False),
    "BINUNICODE": (5, True),
    "BINUNICODE8": (9, True),
}
_LITERALS = frozenset({
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING"),
    *("SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "SHORT_BINBYTES", *_LONG_KINDS),
})  # fmt: skip
_KEYS = (str, bytes, int, float, np.generic, type(None))


class Machine:
    """The stack and the memo of a pickle being read; ``do`` carries out one operation."""

    def __init__(self, view: mmap.mmap, outline: bool) -> None:
        self._view = view
        self._outline = outline
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._room = 2 * len(view) + LONG  # bytes that encoded texts and arrays may take

    def result(self) -> object:
        if len(self._stack) != 1 or self._marks:
            raise ValueError("ends with its work half done")
        return self._stack.pop()

    def do(self, name: str, value: Any, place: int) -> None:
        if name in _LITERALS:
            self._stack.append(self._literal(name, value, place))
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, value)
        else:
            raise RefusedError(f"the operation {name}")

    def _literal(self, name: str, value: Any, place: int) -> Any:
        if self._outline and name in _LONG_KINDS and len(value) > LONG:
            before, text = _LONG_KINDS[name]
            return Piece(place + before, self._view.tell() - place - before, len(value), text)
        return bytes(value) if name == "BYTEARRAY8" else value

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def _top(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("takes more than there is")
        found = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return found

    def _target(self, kind: type[Any]) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"adds to a {type(self._stack[-1]).__name__} as if it were a {kind.__name__}")
        return self._stack[-1]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def pop_mark(self, _: Any) -> None:
        self._since_mark()

    def duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def keep(self, number: Any) -> None:
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def recall(self, number: Any) -> None:
        self._stack.append(self._memo[number])

    def append(self, _: Any) -> None:
        (value,) = self._top(1)
        self._target(list).append(value)

    def extend(self, _: Any) -> None:
        values = self._since_mark()
        self._target(list).extend(values)

    def add(self, _: Any) -> None:
        values = self._since_mark()
        self._target(set).update(_as_keys(values))

    def set_item(self, _: Any) -> None:
        pair = self._top(2)
        self._target(dict).update(_as_dict(pair))

    def set_items(self, _: Any) -> None:
        values = self._since_mark()
        self._target(dict).update(_as_dict(values))

    def gather(self, kind: Callable[[list[Any]], Any]) -> None:
        self._stack.append(kind(self._since_mark()))

    def tuple_of(self, count: int) -> None:
        self._stack.append(tuple(self._top(count)))

    def global_name(self, value: str) -> None:
        module, _, name = value.partition(" ")
        self._stack.append(_named(module, name))

    def instance(self, value: str) -> None:
        raise RefusedError(value.replace(" ", ".", 1)[:100])

    def stack_global(self, _: Any) -> None:
        module, name = self._top(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        self._stack.append(_named(module, name))

    def call(self, _: Any) -> None:
        function, arguments = self._top(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple) or function.does not in _CALLS:
            raise RefusedError("a call of something that is no function")
        self._stack.append(_CALLS[function.does](self, *arguments))

    def build(self, _: Any) -> None:
        (state,) = self._top(1)
        made = self._stack[-1]
        if isinstance(made, _Dtype) and isinstance(state, tuple) and len(state) > 1:
            made.value = made.value.newbyteorder(_byte_order(state[1]))
        elif isinstance(made, (np.ndarray, StoredArray)) and isinstance(state, tuple) and len(state) in (4, 5):
            self._fill(made, *state[-4:])
        else:
            raise RefusedError(f"a state for a {type(made).__name__}")

    def _fill(self, made: Any, shape: Any, dtype: Any, fortran: Any, raw: Any) -> None:
        if isinstance(raw, list):
            raise RefusedError("arrays of objects")
        whole = self._stored(shape, dtype, bool(fortran), raw)
        if made.shape != (0,):
            raise ValueError("fills an array twice")
        if isinstance(made, StoredArray):
            made.dtype, made.shape, made.fortran, made.raw = whole.dtype, whole.shape, whole.fortran, whole.raw
        else:  # in place, for the list that holds it may have been told of it before
            made.__setstate__((1, whole.shape, whole.dtype, whole.fortran, whole.raw))
            made.flags.writeable = False

    def _stored(self, shape: Any, dtype: Any, fortran: bool, raw: Any) -> StoredArray:
        """Check the parts of an array against each other."""
        if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or len(shape) > _MOST_AXES:
            raise ValueError("an array without a type or a shape")
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError("an array with a shape of other than whole numbers")
        content = raw if isinstance(raw, Piece) else self._bytes(raw)
        length = content.length if isinstance(content, Piece) else len(content)
        if math.prod(shape) * dtype.value.itemsize != length:
            raise ValueError(f"an array {shape} of {dtype.value} in {length} bytes")
        return StoredArray(dtype.value, shape, fortran, content)

    def _bytes(self, raw: Any) -> bytes:
        """Bytes as they are, or in Python 2's way as a text; counted, for a file may use its content many times."""
        if not isinstance(raw, (bytes, str)):
            raise ValueError(f"bytes wanted, got a {type(raw).__name__}")
        self._room -= len(raw)
        if self._room < 0:
            raise ValueError("uses its content more often than an array can")
        return raw.encode("latin1") if isinstance(raw, str) else raw

    def new_array(self, kind: Any, *_: Any) -> Any:
        if kind != _Name("ndarray"):
            raise RefusedError("arrays of a class of their own")
        empty = np.ndarray((0,), np.int8)
        return StoredArray(empty.dtype, (0,), False, b"") if self._outline else empty

    def whole_array(self, raw: Any, dtype: Any, shape: Any, order: Any) -> Any:
        whole = self._stored(shape, dtype, order == "F", raw)
        if self._outline:
            return whole
        return np.ndarray(whole.shape, whole.dtype, cast(bytes, whole.raw), order="F" if whole.fortran else "C")

    def scalar(self, dtype: Any, raw: Any) -> Any:
        content = cast(bytes, self._stored((), dtype, False, raw).raw)
        return np.frombuffer(content, dtype.value)[0]

    def encode(self, text: Any, encoding: Any) -> Any:
        if encoding not in ("latin1", "latin-1"):
            raise RefusedError("_codecs.encode other than to latin1")
        if isinstance(text, Piece):
            return text
        return self._bytes(text)


def _named(module: str, name: str) -> _Name:
    if (module, name) not in _NAMES:
        raise RefusedError(f"{module}.{name}"[:100])
    return _NAMES[module, name]


def _as_keys(values: list[Any]) -> Iterator[Any]:
    """Values fit for a set or as keys; anything that hides others is no key, for hashing would follow it."""
    for value in values:
        parts = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(part, _KEYS) for part in parts):
            raise ValueError(f"a {type(value).__name__} as a key")
        yield value


def _as_dict(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise ValueError("a key without a value")
    return dict(zip(_as_keys(values[::2]), values[1::2], strict=True))


def _as_mapping(_: Machine, pairs: Any = ()) -> dict[Any, Any]:
    """An OrderedDict's argument in Python 2: a list of [key, value]."""
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(pair, (list, tuple)) for pair in pairs):
        raise ValueError("an OrderedDict of other than pairs")
    return _as_dict([part for pair in pairs for part in pair])


def _byte_order(text: Any) -> Any:
    if text not in ("<", ">", "=", "|"):
        raise ValueError("a byte order that is none")
    return text


def _as_dtype(_: Machine, text: Any, *_flags: Any) -> _Dtype:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        what = "arrays of objects" if str(text)[:2].strip("<>=|").startswith("O") else "arrays of other than numbers"
        raise RefusedError(what)
    return _Dtype(np.dtype(text))


_CALLS: dict[str, Callable[..., Any]] = {
    "array": Machine.new_array,
    "whole_array": Machine.whole_array,
    "scalar": Machine.scalar,
    "encode": Machine.encode,
    "dtype": _as_dtype,
    "mapping": _as_mapping,
    "set": lambda _, values=(): set(_as_keys(list(values))),
    "frozenset": lambda _, values=(): frozenset(_as_keys(list(values))),
    "no_bytes": lambda _: b"",
}
_OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda _machine, _: None),
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": Machine.pop_mark,
    "DUP": Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.keep),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.recall),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "LIST": lambda machine, _: machine.gather(list),
    "TUPLE": lambda machine, _: machine.gather(tuple),
    "DICT": lambda machine, _: machine.gather(_as_dict),
    "FROZENSET": lambda machine, _: machine.gather(lambda values: frozenset(_as_keys(values))),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": Machine.append,
    "APPENDS": Machine.extend,
    "ADDITEMS": Machine.add,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    "GLOBAL": Machine.global_name,
    "INST": Machine.instance,
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": Machine.call,
    "BUILD": Machine.build,
}
