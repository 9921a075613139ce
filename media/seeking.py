"""Whether jumping in a file can be trusted to land where it should."""

from __future__ import annotations

from typing import BinaryIO

EBML = b"\x1a\x45\xdf\xa3"  # how a Matroska file begins
SEGMENT = b"\x18\x53\x80\x67"
BOXES = 4096  # of an MP4 that are looked at; whole ones have a dozen


def is_indexed(file: BinaryIO, format: str) -> bool:
    """Whether the file's times come from one index or one segment, so that a time names one place.

    That holds for MP4 whose index lists every sample, and for one Matroska segment of known length. Elsewhere
    times may begin again (joined streams), or FFmpeg guesses the place from bit rates and lands behind it
    (MPEG-TS): such a file is read from its beginning.

    Args:
        file: at any place; it is left at its beginning.
        format: FFmpeg's name.
    """
    names = format.split(",")
    try:
        if "mp4" in names:
            return not _has_fragments(file)
        return "matroska" in names and _is_one_segment(file)
    finally:
        file.seek(0)


def _has_fragments(file: BinaryIO) -> bool:
    place = 0
    for _ in range(BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return False
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind == b"moof":
            return True
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # 0: to the end
            return False
        place += size
    return True


def _is_one_segment(file: BinaryIO) -> bool:
    file.seek(0)
    head = file.read(4096)
    header = _length(head, 4)
    if head[:4] != EBML or header is None:
        return False
    begin = header[0] + header[1]
    segment = _length(head, begin + 4)
    if head[begin : begin + 4] != SEGMENT or segment is None:
        return False
    file.seek(segment[0] + segment[1])
    return file.read(4) != EBML


def _length(data: bytes, place: int) -> tuple[int, int] | None:
    """Where an element's content begins, and its length in bytes; None: unknown, or no element."""
    if place >= len(data) or not data[place]:
        return None
    size = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + size], "big") & ((1 << 7 * size) - 1)
    return None if value == (1 << 7 * size) - 1 else (place + size, value)
