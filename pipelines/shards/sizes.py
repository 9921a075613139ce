"""How large samples will be in shards, foreseen from their rows of the manifest alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from backends.roles import embedder_of

# Where the manifest does not say, bytes.
BITS_PER_PIXEL = 0.1  # of H.264
WAV_PER_S = 32_000
ROUND = 12_288  # row, prompt, headers, padding
# What is read; a manifest may lack any but the addresses.
COUNTED = (
    *("media_uri", "source_uri", "start_s", "end_s", "crop_x0", "source_size"),
    *("width", "height", "num_frames", "fps", "bitrate_per_pixel", "video_codec", "pixel_format"),
    *("mirrored", "rotation", "variable_frame_rate"),
    *("has_audio", "attribute_embedder", "audio_embedder"),
)
_LARGEST = 2.0**62  # what comes of a frame rate near 0 is still a number


def estimated_bytes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Bytes [N] that each row of a manifest will take."""
    frames, fps = _numbers(table, "num_frames"), _numbers(table, "fps")
    seconds = np.divide(frames, fps, out=np.zeros(len(fps)), where=fps != 0)
    pixels = _numbers(table, "width") * _numbers(table, "height") * frames
    own, size = _is_own_media(table), _numbers(table, "source_size")
    as_is = _equals(table, "video_codec", "h264") & _equals(table, "pixel_format", "yuv420p")
    for shown_otherwise in ("mirrored", "rotation", "variable_frame_rate"):
        as_is &= ~_is_true(table, shown_otherwise)
    whole = _is_null(table, "start_s") & _is_null(table, "end_s") & _is_null(table, "crop_x0")
    rate = _numbers(table, "bitrate_per_pixel")
    rate = np.where(np.isfinite(rate) & (rate > 0), rate, 0.0)
    video = np.select(
        [as_is & whole & ~own & (size != 0), own & (rate > 0)],
        [size, rate * pixels / 8],
        BITS_PER_PIXEL * pixels / 8,
    )
    heard = _is_true(table, "has_audio")
    total = ROUND + video + np.where(heard, WAV_PER_S * seconds, 0)
    total += _of_embedder(table, "attribute_embedder", "bytes_per_clip")
    total += np.where(heard, _of_embedder(table, "audio_embedder", "bytes_per_second") * seconds, 0)
    return np.ceil(np.minimum(total, _LARGEST)).astype(np.int64)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    return table[name] if name in table.column_names else None


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column's numbers; 0 where there is none."""
    column = _column(table, name)
    if column is None or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.zeros(table.num_rows)
    values = np.asarray(pc.fill_null(column.cast(pa.float64()), 0.0), np.float64)
    return np.where(np.isnan(values), 0.0, values)


def _is_true(table: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """Where a column holds anything but null, false, 0 or an empty text."""
    column = _column(table, name)
    if column is None:
        return np.zeros(table.num_rows, bool)
    if pa.types.is_boolean(column.type):
        return np.asarray(pc.fill_null(column, False), bool)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(pc.fill_null(pc.not_equal(column, 0), False), bool)
    return np.asarray([bool(value) for value in column.to_pylist()], bool)


def _is_null(table: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    column = _column(table, name)
    return np.ones(table.num_rows, bool) if column is None else np.asarray(pc.is_null(column), bool)


def _equals(table: pa.Table, name: str, text: str) -> npt.NDArray[np.bool_]:
    column = _column(table, name)
    if column is None or not is_text(column.type):
        return np.zeros(table.num_rows, bool)
    return np.asarray(pc.fill_null(pc.equal(column, text), False), bool)


def _is_own_media(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Where the media is a file made for the sample alone."""
    media, source = table["media_uri"], table["source_uri"]
    same = np.asarray(pc.fill_null(pc.equal(media, source), False), bool)
    return ~(same | (np.asarray(pc.is_null(media)) & np.asarray(pc.is_null(source))))


def _of_embedder(table: pa.Table, role: str, figure: str) -> npt.NDArray[np.float64]:
    """A figure of the embedder that the column of its role names; 0 where it names none."""
    column = _column(table, role)
    if column is None or not is_text(column.type):
        return np.zeros(table.num_rows)
    named = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    figures: list[Any] = [
        getattr(embedder_of(role, name), figure) if name else 0 for name in named.dictionary.to_pylist()
    ]
    return np.asarray(figures, np.float64)[np.asarray(named.indices)]
