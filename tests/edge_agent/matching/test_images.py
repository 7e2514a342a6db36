from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_agent.matching.images import MAX_BYTES, MAX_SIDE, BadImage, ImageFault, decode_image, read_image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_reads_the_usual_formats_as_bgr(kind: str) -> None:
    red = Image.new("RGB", (40, 30), (250, 10, 20))
    frame = decode_image(encoded(red, kind))
    assert frame.shape == (30, 40, 3)
    assert np.abs(frame[15, 20].astype(int) - [20, 10, 250]).max() <= 6


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_reads_grey_palette_and_transparent_images(mode: str) -> None:
    assert decode_image(encoded(picture(mode))).shape == (48, 64, 3)


def test_what_is_transparent_becomes_white() -> None:
    assert (decode_image(encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0)))) == 255).all()


def test_turns_a_photograph_upright() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn to the left
    frame = decode_image(encoded(image, "JPEG", exif=exif, quality=95))
    assert frame.shape == (40, 20, 3)
    assert frame[5].mean() > 240
    assert frame[35].mean() < 15


def test_a_telephones_jpeg_with_pictures_appended_is_its_first() -> None:
    appended = encoded(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")])
    assert np.abs(decode_image(appended).astype(int) - decode_image(encoded(picture(), "JPEG"))).max() <= 2


def test_large_photographs_are_reduced() -> None:
    assert max(decode_image(encoded(picture(size=(2400, 1800)), "JPEG")).shape) == MAX_SIDE


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", ImageFault.EMPTY),
        (b"\0" * (MAX_BYTES + 1), ImageFault.TOO_MANY_BYTES),
        (b"not a picture at all", ImageFault.NOT_AN_IMAGE),
        (b"GIF89a" + b"\0" * 50, ImageFault.NOT_AN_IMAGE),
        (b"%PDF-1.7", ImageFault.NOT_AN_IMAGE),
        (png_header(30_000, 30_000), ImageFault.TOO_MANY_PIXELS),
        (png_header(10_000, 9_000), ImageFault.TOO_MANY_PIXELS),
        (png_header(2**31 - 1, 2**31 - 1), ImageFault.TOO_MANY_PIXELS),
        (png_header(500, 500), ImageFault.BROKEN),
        (encoded(picture(), "JPEG")[:600], ImageFault.BROKEN),
        (encoded(picture(size=(8, 400))), ImageFault.TOO_FEW_PIXELS),
        (encoded(picture("CMYK"), "JPEG"), ImageFault.COLOUR_MODE),
        (encoded(Image.fromarray(np.zeros((40, 40), np.uint16))), ImageFault.COLOUR_MODE),
        (encoded(picture(), save_all=True, append_images=[picture("L").convert("RGB")]), ImageFault.ANIMATED),
        (encoded(picture(), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48))]), ImageFault.ANIMATED),
    ],
    ids=lambda value: value.value if isinstance(value, ImageFault) else "",
)
def test_refuses_what_is_no_photograph_and_says_why(data: bytes, fault: ImageFault) -> None:
    with pytest.raises(BadImage) as caught:
        decode_image(data)
    assert caught.value.fault is fault


def test_a_zero_sized_png_is_refused() -> None:
    with pytest.raises(BadImage):
        decode_image(png_header(0, 0))


def test_a_pixel_bomb_costs_no_memory() -> None:
    bomb = png_header(100_000, 100_000)
    tracemalloc.start()
    with pytest.raises(BadImage):
        decode_image(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_reads_no_more_of_a_file_than_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES * 20)
    with pytest.raises(BadImage) as caught:
        read_image(path)
    assert caught.value.fault is ImageFault.TOO_MANY_BYTES


SEEDS = [encoded(picture(), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP")]


@settings(max_examples=150, deadline=None)
@given(seed=st.sampled_from(SEEDS), at=st.integers(0, 4000), patch=st.binary(max_size=12), cut=st.integers(0, 6000))
def test_damaged_images_raise_only_the_declared_error(seed: bytes, at: int, patch: bytes, cut: int) -> None:
    damaged = bytearray(seed)
    at %= len(damaged)
    damaged[at : at + len(patch)] = patch
    try:
        frame = decode_image(bytes(damaged[: cut or None]))
    except BadImage:
        return
    assert frame.shape[2] == 3


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_raise_only_the_declared_error(data: bytes) -> None:
    try:
        decode_image(data)
    except BadImage:
        return
