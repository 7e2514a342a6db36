"""Photographs people upload -> a BGR frame, or a clear refusal; memory bounded whatever the file says.

The header is read first and decides: format, mode, number of pixels, number of frames. Only then are
pixels decoded, JPEG at a reduced scale where that is enough. A decoder meets hostile bytes here, so only
four formats are tried and every way Pillow is known to fail becomes `BadImage`.
"""

from __future__ import annotations

import io
import struct
import zlib
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
CAMERAS_OWN = "MPO"  # a JPEG to which a telephone appended depth or a thumbnail; the photograph comes first
MODES = frozenset({"RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "1"})
MAX_BYTES = 16 * 1024 * 1024
MAX_PIXELS = 32_000_000  # 96 MB as RGB; a telephone's 24 megapixels pass
MAX_SIDE = 1_600  # of the frame returned: a face that matters is larger than the detector needs at this size
MIN_SIDE = 16


class ImageFault(StrEnum):
    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    NOT_AN_IMAGE = "not_an_image"  # or of a format not taken
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_FEW_PIXELS = "too_few_pixels"
    ANIMATED = "animated"
    COLOUR_MODE = "colour_mode"  # CMYK, 16 bits, floating point
    BROKEN = "broken"


class BadImage(ValueError):
    """A file that is no photograph we take; `fault` says why, the message never holds image data."""

    def __init__(self, fault: ImageFault, detail: str = "") -> None:
        super().__init__(f"{fault.value}: {detail}" if detail else fault.value)
        self.fault = fault


# What Pillow's decoders raise on hostile bytes, beside its own UnidentifiedImageError (an OSError).
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombWarning,
)


def read_image(path: Path) -> NDArray[np.uint8]:
    """As `decode_image`, from a file. Raises BadImage, or OSError if the file cannot be read."""
    with path.open("rb") as file:
        return decode_image(file.read(MAX_BYTES + 1))


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """(height, width, 3) BGR, upright by its EXIF orientation, the longer side at most MAX_SIDE. Raises BadImage."""
    if not data:
        raise BadImage(ImageFault.EMPTY)
    if len(data) > MAX_BYTES:
        raise BadImage(ImageFault.TOO_MANY_BYTES, f"more than {MAX_BYTES} bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _require_photograph(image)
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # JPEG: decode at 1/2, 1/4 or 1/8 where that is enough
            image.load()
            return _frame(image)
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise BadImage(ImageFault.TOO_MANY_PIXELS) from exc
    except UnidentifiedImageError as exc:
        raise BadImage(ImageFault.NOT_AN_IMAGE, f"only {', '.join(FORMATS)} are taken") from exc
    except DECODER_ERRORS as exc:
        raise BadImage(ImageFault.BROKEN) from exc


def _require_photograph(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(ImageFault.TOO_MANY_PIXELS, f"{width} x {height}")
    if min(width, height) < MIN_SIDE:
        raise BadImage(ImageFault.TOO_FEW_PIXELS, f"{width} x {height}")
    if getattr(image, "is_animated", False) and image.format != CAMERAS_OWN:
        raise BadImage(ImageFault.ANIMATED)
    if image.mode not in MODES:
        raise BadImage(ImageFault.COLOUR_MODE, image.mode)


def _frame(image: Image.Image) -> NDArray[np.uint8]:
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    upright = ImageOps.exif_transpose(image)
    if upright.mode in {"LA", "PA", "RGBA"} or (upright.mode == "P" and "transparency" in upright.info):
        backed = Image.new("RGBA", upright.size, "white")  # a cut-out portrait stands on white, not on black
        backed.alpha_composite(upright.convert("RGBA"))
        upright = backed
    rgb = np.asarray(upright.convert("RGB"), np.uint8)
    return np.ascontiguousarray(rgb[:, :, ::-1])
