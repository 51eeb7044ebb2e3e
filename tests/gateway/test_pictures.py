"""Decoding what strangers send."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from papa_serving.contracts.samples import unpack_sample
from papa_serving.gateway.conversion.pictures import BadPicture, decode
from PIL import Image

GREY, COLOUR = (1, 28, 28), (3, 28, 28)
LIMIT = 2**22
# A WebP file of 34 bytes, 64 by 64 pixels, without loss.
WEBP = bytes.fromhex("524946461a000000574542505650384c0e0000002f3fc00f0007101111fd0f4444ff03")[:34]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def pixels(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    return unpack_sample(decode(data, shape, LIMIT))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_each_format_in_each_shape(kind: str, mode: str, shape: tuple[int, int, int]) -> None:
    ramp = np.repeat(np.linspace(0, 255, 56, dtype=np.uint8)[None], 56, axis=0)
    found = pixels(encoded(Image.fromarray(ramp).convert(mode), kind), shape)
    assert found.shape == shape
    expected = ramp.reshape(28, 2, 28, 2).mean(axis=(1, 3))
    assert np.abs(found.astype(float) - expected).max() < 10


def test_rows_stay_rows_and_channels_channels() -> None:
    image = np.zeros((28, 28, 3), dtype=np.uint8)
    image[:14, :, 0] = 255
    found = pixels(encoded(Image.fromarray(image), "PNG"), COLOUR)
    assert found[0, :14].min() == 255
    assert found[0, 14:].max() == 0
    assert found[1:].max() == 0


def test_transparency_shows_white() -> None:
    for mode in ("RGBA", "LA"):
        clear = Image.new(mode, (28, 28), 0)
        assert pixels(encoded(clear, "PNG"), GREY).min() == 255
    palette = Image.new("P", (28, 28), 0)
    assert pixels(encoded(palette, "PNG", transparency=0), GREY).min() == 255


def test_sixteen_bits_are_scaled_not_cut() -> None:
    image = Image.fromarray(np.full((28, 28), 0x8000, dtype=np.uint16))
    assert set(pixels(encoded(image, "PNG"), GREY).ravel().tolist()) == {0x80}


def test_the_camera_may_lie_on_its_side() -> None:
    picture = np.zeros((28, 28), dtype=np.uint8)
    picture[:7] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels(encoded(Image.fromarray(picture), "JPEG", exif=exif, quality=95), GREY)[0]
    assert found[:, 22:].mean() > 240
    assert found[:, :20].mean() < 10


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def test_size_is_refused_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    bombs = [png_header(2049, 2049), png_header(30_000, 30_000), png_header(2**31 - 1, 2**31 - 1)]
    bits = struct.pack("<I", 12_999 << 14 | 12_999)
    bombs.append(WEBP[:21] + bits + WEBP[25:])
    for bomb in bombs:
        with pytest.raises(BadPicture):
            decode(bomb, GREY, LIMIT)
    with pytest.raises(BadPicture, match="at most 4194304 pixels"):
        decode(bombs[0], GREY, LIMIT)


def test_the_limit_itself_is_allowed() -> None:
    data = encoded(Image.new("L", (64, 64)), "PNG")
    decode(data, GREY, 64 * 64)
    with pytest.raises(BadPicture):
        decode(data, GREY, 64 * 64 - 1)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(BadPicture, match="PNG, JPEG or WebP"):
        decode(encoded(Image.new("L", (28, 28)), kind), GREY, LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_half_a_picture_is_none(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    decode(whole, GREY, LIMIT)
    for length in (0, 1, 12, 40, len(whole) // 2, len(whole) * 9 // 10):
        with pytest.raises(BadPicture):
            decode(whole[:length], GREY, LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_bytes_give_a_picture_or_a_refusal_and_nothing_else(kind: str) -> None:
    random = np.random.default_rng(1)
    image = Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    whole = np.frombuffer(encoded(image, kind), dtype=np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        damaged[random.integers(0, len(damaged), 4)] = random.integers(0, 256, 4)
        try:
            assert pixels(damaged.tobytes(), COLOUR).shape == COLOUR
        except BadPicture:
            continue
