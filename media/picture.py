"""Reading one picture from a file that may be anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from media.crop import Crop
from media.decode import Decoded
from media.files import MediaError, open_regular
from media.requests import Audio, AudioPeak, Request
from media.shown import short_side_size

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
# Pillow's own limit against decompression bombs: 256 MiB of RGB.
MAX_PIXELS: Final = 1024 * 1024 * 1024 // 4 // 3
STRIP: Final = 512  # rows that are converted at once


def read_picture(path: Path, max_pixels: int = MAX_PIXELS, crop: Crop | None = None) -> npt.NDArray[np.uint8]:
    """A picture, or a part of it, as upright RGB, uint8 [H, W, 3].

    EXIF orientation is applied, transparent parts become white, 16 bits become 8, of an animation the
    first frame is taken. An embedded colour profile is not applied.

    Raises:
        MediaError: no picture in one of `FORMATS`, cut off, broken, or of more than `max_pixels`.
        OSError: the file cannot be opened.
    """
    with open_regular(path) as file:
        try:
            Image.init()
            with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                if image.width * image.height > max_pixels:  # nothing is decoded yet
                    raise _too_large(f"{image.width}x{image.height} pixels", max_pixels)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _in_strips(image if crop is None else image.crop(crop.window(*image.size)))
        except MediaError:
            raise
        except UnidentifiedImageError as error:
            raise MediaError(f"not a picture that can be read ({', '.join(FORMATS)})") from error
        except Image.DecompressionBombError as error:
            raise _too_large("its size would exhaust the memory", max_pixels) from error
        except Exception as error:  # decoders and EXIF parsers raise anything on broken files
            raise MediaError(f"the picture cannot be decoded: {error or type(error).__name__}") from error


def _too_large(what: str, limit: int) -> MediaError:
    return MediaError(f"the picture is too large: {what}, at most {limit} pixels; make a smaller copy of it")


def _in_strips(image: Any) -> npt.NDArray[np.uint8]:
    """The picture as RGB, some rows at a time: conversions hold several copies of what they convert."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, image.width, bottom))), np.uint8)
    return pixels


def _to_rgb(image: Any) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its values go beyond 16 bits")
        table = ((np.arange(65536) * 255 + 32767) // 65535).astype(np.uint8)
        image = Image.fromarray(table[values.astype(np.uint16)])
    if image.mode == "F":
        raise ValueError("its values are fractions of an unknown range")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        shown = Image.new("RGB", image.size, "white")
        shown.paste(image, mask=image.getchannel("A"))
        return shown
    rgb: Image.Image = image if image.mode == "RGB" else image.convert("RGB")
    return rgb


def decode_picture(path: Path, requests: Iterable[Request], crop: Crop | None = None) -> Decoded:
    """A picture, or a part of it, as a clip of one frame at time 0, without sound.

    Raises:
        MediaError: it cannot be read.
        OSError: the file cannot be opened.
    """
    image = read_picture(path, crop=crop)
    height, width = image.shape[:2]
    digest = hashlib.sha256(f"{width}x{height}|".encode())
    digest.update(np.ascontiguousarray(image).data)
    out = Decoded(format=_format(path), width=width, height=height, content_hash=digest.hexdigest())
    out.crop = crop
    out.frame_times = np.zeros(1)
    made: dict[int, npt.NDArray[np.uint8]] = {}
    for request in requests:
        if isinstance(request, Audio):
            out.audio[request] = None
            continue
        if isinstance(request, AudioPeak):
            continue
        if request.short_side not in made:
            made[request.short_side] = smaller(image, request.short_side)
        out.frames[request] = ([0.0], [made[request.short_side]])
    return out


def _format(path: Path) -> str:
    with Image.open(path) as image:
        return (image.format or "").lower()


def smaller(image: npt.NDArray[np.uint8], short_side: int) -> npt.NDArray[np.uint8]:
    """The picture with its shorter side at most `short_side` pixels."""
    height, width = image.shape[:2]
    size = short_side_size(width, height, short_side)
    if size == (width, height):
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
