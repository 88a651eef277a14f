"""Numbers out of Thrift's compact protocol, in which Parquet writes its footers and page headers. Trusts no byte.

Only what is asked for is kept; a field of another type than expected counts as absent, and of two of one number the
last one counts, as in Thrift itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BOOL, I32, I64, TEXTS = 1, 5, 6, -1
_I16, _BINARY, _LIST, _SET, _MAP, _STRUCT = 4, 8, 9, 10, 11, 12
_BOOLS = (1, 2)
"""True and false: a boolean lies in the field's head."""
_BITS = {_I16: 16, I32: 32, I64: 64}
_SIZES = {1: 0, 2: 0, 3: 1, 7: 8, 13: 16}
"""Bytes of a field that always has as many: booleans lie in the field's head; i8, double, uuid."""

_DEPTH = 64
"""Structs and lists inside each other, as many as Thrift allows."""
_VARINT_BYTES = 10

Wanted = Mapping[int, "int | Struct | Structs"]
"""Field number: BOOL, I32, I64, TEXTS for a list of them, or what is wanted of the struct or structs there."""
Found = dict[int, Any]
"""Field number: a bool, an int, a list of bytes, what was found in the struct, or a list of that."""


@dataclass(frozen=True, slots=True)
class Struct:
    """A field that is a struct."""

    fields: Wanted


@dataclass(frozen=True, slots=True)
class Structs:
    """A field that is a list of structs."""

    fields: Wanted


class ThriftError(ValueError):
    """These bytes are no such struct."""


class ThriftEndError(ThriftError):
    """The bytes end inside the struct."""


def read_struct(data: bytes, wanted: Wanted, start: int = 0) -> tuple[Found, int]:
    """What is wanted of the struct that begins at `start`, and where it ends; ThriftError if it is none."""
    try:
        found, end = _struct(data, start, wanted, _DEPTH)
    except IndexError as error:
        raise ThriftEndError("its metadata end too early") from error
    if end > len(data):
        raise ThriftEndError("its metadata end too early")
    return found, end


def read_i32(data: bytes) -> int:
    """The number in these bytes, as `read_struct` reads it."""
    return _number(data, 0, I32)[0]


def _struct(data: bytes, at: int, wanted: Wanted, depth: int) -> tuple[Found, int]:
    found: Found = {}
    field = 0
    while head := data[at]:
        at += 1
        kind = head & 15
        if head > 15:
            field += head >> 4
        else:
            field, at = _number(data, at, _I16)
        want = wanted.get(field)
        if want == BOOL and kind in _BOOLS:
            found[field] = kind == BOOL
        elif want == kind:
            found[field], at = _number(data, at, kind)
        elif want is None:
            at = _skipped(data, at, kind, depth)
        elif kind == _STRUCT and isinstance(want, Struct):
            found[field], at = _struct(data, at, want.fields, depth - 1)
        elif kind == _LIST and isinstance(want, Structs) and data[at] & 15 == _STRUCT:
            found[field], at = _structs(data, at, want.fields, depth - 1)
        elif kind == _LIST and want == TEXTS and data[at] & 15 == _BINARY:
            found[field], at = _texts(data, at)
        else:
            at = _skipped(data, at, kind, depth)
    return found, at + 1


def _structs(data: bytes, at: int, wanted: Wanted, depth: int) -> tuple[list[Found], int]:
    _, count, at = _list_head(data, at)
    found = []
    for _ in range(count):
        element, at = _struct(data, at, wanted, depth)
        found.append(element)
    return found, at


def _texts(data: bytes, at: int) -> tuple[list[bytes], int]:
    _, count, at = _list_head(data, at)
    found = []
    for _ in range(count):
        length, at = _unsigned(data, at)
        found.append(data[at : at + length])
        at += length
    return found, at


def _skipped(data: bytes, at: int, kind: int, depth: int) -> int:
    """Where a value that begins at `at` ends."""
    if _I16 <= kind <= I64:
        while data[at] > 127:
            at += 1
        return at + 1
    if kind == _BINARY:
        length, at = _unsigned(data, at)
        return at + length
    if kind in _SIZES:
        return at + _SIZES[kind]
    if depth == 0:
        raise ThriftError("its metadata are nested too deeply")
    if kind == _STRUCT:
        return _skipped_struct(data, at, depth - 1)
    if kind in (_LIST, _SET):
        element, count, at = _list_head(data, at)
        return _skipped_elements(data, at, (element,), count, depth - 1)
    if kind == _MAP:
        return _skipped_map(data, at, depth - 1)
    raise ThriftError(f"its metadata hold a field of type {kind}, which is none")


def _skipped_struct(data: bytes, at: int, depth: int) -> int:
    while head := data[at]:
        if head < 16:
            _, at = _unsigned(data, at + 1)
        else:
            at += 1
        kind = head & 15
        if _I16 <= kind <= I64 and data[at] < 128:  # most are: a call less
            at += 1
        else:
            at = _skipped(data, at, kind, depth)
    return at + 1


def _skipped_map(data: bytes, at: int, depth: int) -> int:
    count, at = _unsigned(data, at)
    if not count:
        return at
    return _skipped_elements(data, at + 1, (data[at] >> 4, data[at] & 15), count, depth)


def _skipped_elements(data: bytes, at: int, kinds: tuple[int, ...], count: int, depth: int) -> int:
    for _ in range(count):
        for kind in kinds:
            # A boolean that is no field has a byte of its own.
            at = at + 1 if kind < 3 else _skipped(data, at, kind, depth)
        if at > len(data):
            raise IndexError(at)
    return at


def _list_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Type and number of the elements, and where they begin."""
    head = data[at]
    if head < 0xF0:
        return head & 15, head >> 4, at + 1
    count, at = _unsigned(data, at + 1)
    return head & 15, count, at


def _number(data: bytes, at: int, kind: int) -> tuple[int, int]:
    """A signed number; what is beyond its bits is dropped, as Thrift does."""
    number, at = _unsigned(data, at)
    number &= (1 << _BITS[kind]) - 1
    return (number >> 1) ^ -(number & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    number = data[at]
    if number < 128:
        return number, at + 1
    number &= 127
    for i in range(1, _VARINT_BYTES):
        digit = data[at + i]
        number |= (digit & 127) << (7 * i)
        if digit < 128:
            return number, at + i + 1
    raise ThriftError(f"its metadata hold a number of more than {_VARINT_BYTES} bytes")
