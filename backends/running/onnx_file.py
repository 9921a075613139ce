"""Changes to an ONNX file before it is loaded, without the `onnx` package.

Field numbers are those of onnx.proto (github.com/onnx/onnx), the encoding is that of Protocol Buffers
(protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INPUT, _OUTPUT, _INITIALIZER = 7, 11, 12, 5  # of a model; of a graph
_NAME_OF_VALUE, _TYPE_OF_VALUE, _NAME_OF_TENSOR = 1, 2, 8
_FLOATS = b"\x0a\x02\x08\x01"  # a tensor of float32 of any shape


def any_size(path: Path) -> bytes:
    """A model of float32 inputs and outputs that takes and gives every size, whatever sizes the file names.

    What the file lists both as an input and as a weight is a weight alone: ONNX Runtime takes it else for
    something a caller may replace, and does without the optimisations that need constants.

    Raises:
        ValueError: the file is no ONNX model.
    """
    try:
        return b"".join(
            _field(number, _graph(content)) if number == _GRAPH else whole
            for number, whole, content in _fields(path.read_bytes())
        )
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path}: no ONNX model ({error})") from None


def _graph(graph: bytes) -> bytes:
    fields = list(_fields(graph))
    weights = {_first(content, _NAME_OF_TENSOR) for number, _, content in fields if number == _INITIALIZER}
    kept = []
    for number, whole, content in fields:
        if number in (_INPUT, _OUTPUT):
            name = _first(content, _NAME_OF_VALUE)
            if name in weights:
                continue
            whole = _field(number, _field(_NAME_OF_VALUE, name) + _field(_TYPE_OF_VALUE, _FLOATS))
        kept.append(whole)
    return b"".join(kept)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, the field as it stands there, and its content (empty for a number), of each field."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        content = b""
        if key & 7 == _VARINT:
            _, at = _varint(message, at)
        elif key & 7 == _LENGTH:
            length, at = _varint(message, at)
            content = message[at : at + length]
            at += length
        elif key & 7 in (_FIXED32, _FIXED64):
            at += 4 if key & 7 == _FIXED32 else 8
        else:
            raise ValueError(f"field of kind {key & 7}")
        if at > len(message):
            raise ValueError("cut off")
        yield key >> 3, message[start:at], content


def _first(message: bytes, number: int) -> bytes:
    """The content of the first field of this number; empty without one."""
    return next((content for found, _, content in _fields(message) if found == number), b"")


def _field(number: int, content: bytes) -> bytes:
    return _varint_bytes(number << 3 | _LENGTH) + _varint_bytes(len(content)) + content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _varint_bytes(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
