"""Decoding what strangers send."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from papa_serving.contracts.samples import unpack_sample
from papa_serving.gateway.conversion.pictures import MAX_SCANS, BadPicture, decode
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


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, colour: int, rows: list[bytes], transparent: bytes, width: int = 2) -> bytes:
    """A PNG file of the given bytes per row; colour 0 is grey, 2 is RGB."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", header), (b"tRNS", transparent), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "seen"),
    [
        (16, 0, struct.pack(">HH", 0x1234, 0x1235), struct.pack(">H", 0x1234), [255, 0x12]),
        (8, 0, bytes([7, 8]), struct.pack(">H", 7), [255, 8]),
        (4, 0, bytes([0x23]), struct.pack(">H", 2), [255, 3 * 17]),
        (2, 0, bytes([0b01_10_0000]), struct.pack(">H", 1), [255, 2 * 85]),
        (1, 0, bytes([0b01_000000]), struct.pack(">H", 0), [255, 255]),
        (16, 2, struct.pack(">6H", *[0x1234] * 3, *[0x2234] * 3), struct.pack(">3H", *[0x1234] * 3), [255, 0x22]),
        (8, 2, bytes([9] * 3 + [8] * 3), struct.pack(">3H", 9, 9, 9), [255, 8]),
    ],
)
def test_one_transparent_colour_in_every_depth(
    depth: int, colour: int, row: bytes, transparent: bytes, seen: list[int]
) -> None:
    found = pixels(png(depth, colour, [row, row], transparent), (1, 2, 2))
    assert found[0].tolist() == [seen, seen]


BROKEN_EXIF = (
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 40,
    b"\1\2\3",
    *(b"Exif\0\0II*\0\x08\0\0\0" + np.random.default_rng(seed).bytes(80) for seed in range(20)),
)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_a_broken_exif_does_not_cost_a_whole_picture(kind: str, exif: bytes) -> None:
    picture = Image.new("RGB", (28, 28), (200, 200, 200))
    found = pixels(encoded(picture, kind, exif=exif), COLOUR)
    assert np.abs(found.astype(int) - 200).max() <= 3


def s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def icc(space: bytes, columns: dict[bytes, tuple[float, float, float]], gamma: float) -> bytes:
    """A minimal ICC profile, version 2.4: `columns` are the primaries' D50 XYZ; without any it is one of grey."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 78
    tags = [(b"desc", description + b"\0" * (-len(description) % 4)), (b"cprt", b"text\0\0\0\0none\0\0\0\0")]
    tags += [(b"wtpt", b"XYZ \0\0\0\0" + s15(0.9642) + s15(1) + s15(0.8249))]
    tags += [(name + b"XYZ", b"XYZ \0\0\0\0" + b"".join(map(s15, column))) for name, column in columns.items()]
    tags += [(name + b"TRC", curve) for name in columns or (b"k",)]
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table, body, at = table + name + struct.pack(">II", at, len(data)), body + data, at + len(data)
    header = (
        struct.pack(">I", at) + b"\0\0\0\0\x02\x40\0\0mntr" + space + b"XYZ " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    )
    header += b"acsp" + b"\0" * 28 + s15(0.9642) + s15(1) + s15(0.8249)
    return header.ljust(128, b"\0") + table + body


WIDE = {b"r": (0.60974, 0.31111, 0.01947), b"g": (0.20528, 0.62567, 0.06087), b"b": (0.14919, 0.06322, 0.74457)}
WIDEST = {b"r": (0.79767, 0.28807, 0.0), b"g": (0.13519, 0.71187, 0.0), b"b": (0.03135, 0.00009, 0.82491)}
GREY_LINEAR = icc(b"GRAY", {}, 1.0)


def shown(colour: tuple[int, ...], columns: dict[bytes, tuple[float, float, float]], gamma: float) -> np.ndarray:
    """The naive way: decode the gamma, go by XYZ to linear sRGB (Bradford-adapted to D50), clip, encode."""
    to_srgb = np.linalg.inv([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    linear = to_srgb @ np.array(list(columns.values())).T @ (np.array(colour) / 255) ** gamma
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("columns", "gamma"), [(WIDE, 2.2), (WIDEST, 1.8)])
@pytest.mark.parametrize("colour", [(60, 180, 75), (200, 60, 50), (255, 255, 255), (90, 90, 90)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colours_are_those_that_a_viewer_shows(
    columns: dict[bytes, tuple[float, float, float]], gamma: float, colour: tuple[int, int, int], kind: str
) -> None:
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "PNG": {}}[kind]
    data = encoded(Image.new("RGB", (32, 32), colour), kind, icc_profile=icc(b"RGB ", columns, gamma), **options)
    assert np.abs(pixels(data, COLOUR)[:, 14, 14] - shown(colour, columns, gamma)).max() < 4
    grey = pixels(data, GREY)[0, 14, 14]
    assert abs(grey - shown(colour, columns, gamma) @ [0.299, 0.587, 0.114]) < 4


@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_a_profile_of_grey_is_one_too(shape: tuple[int, int, int]) -> None:
    data = encoded(Image.new("L", (28, 28), 55), "PNG", icc_profile=GREY_LINEAR)
    assert np.abs(pixels(data, shape).astype(int) - 128).max() < 3, "linear 0.216 is sRGB 0.502"
    clear = Image.new("LA", (28, 28), (55, 0))
    assert pixels(encoded(clear, "PNG", icc_profile=GREY_LINEAR), shape).min() == 255


@pytest.mark.parametrize("profile", [b"no profile", icc(b"RGB ", WIDE, 2.2)[:200], GREY_LINEAR, bytes(200)])
def test_a_profile_that_does_not_fit_costs_no_picture(profile: bytes) -> None:
    data = encoded(Image.new("RGB", (28, 28), (200, 60, 50)), "PNG", icc_profile=profile)
    assert pixels(data, COLOUR)[:, 14, 14].tolist() == [200, 60, 50]


def described(colour: tuple[int, int, int], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with further chunks before its pixels."""
    data = encoded(Image.new("RGB", (28, 28), colour), "PNG")
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(*values: float) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ADOBE_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


@pytest.mark.parametrize("colour", [(60, 180, 75), (200, 60, 50), (255, 255, 255), (90, 90, 90)])
def test_the_gamma_and_the_primaries_of_a_png(colour: tuple[int, int, int]) -> None:
    def seen(*chunks: tuple[bytes, bytes]) -> np.ndarray:
        return pixels(described(colour, *chunks), COLOUR)[:, 14, 14].astype(float)

    plain = np.array(colour)
    assert np.abs(seen(gama(1 / 2.2), chrm(*ADOBE_PRIMARIES)) - shown(colour, WIDE, 2.2)).max() < 6
    linear = np.where(plain / 255 <= 0.0031308, 12.92 * plain / 255, 1.055 * (plain / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(seen(gama(1.0)) - 255 * linear).max() < 1
    srgb = chrm(*SRGB_PRIMARIES)
    for same in ((gama(0.45455), srgb), (gama(1.0), (b"sRGB", b"\0")), (gama(0.45455),), (srgb,)):
        assert seen(*same).tolist() == plain.tolist()
    for nonsense in ((gama(0.0),), (chrm(*[0.0] * 8),), (chrm(*[0.3] * 8),), (gama(900.0),), ((b"cHRM", b"short"),)):
        assert seen(*nonsense).tolist() == plain.tolist()


@pytest.mark.parametrize("name", [b"cHRM", b"gAMA", b"pHYs", b"sRGB", b"iTXt", b"zTXt", b"iCCP", b"eXIf", b"acTL"])
@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"x\0" * 40, b"x\0\0broken"])
def test_a_broken_chunk_beside_the_pixels_does_not_cost_them(name: bytes, content: bytes) -> None:
    whole = described((200, 60, 50), (name, content))
    at = whole.index(name) + len(name) + len(content)
    damaged = whole[:at] + b"\0\1\2\3" + whole[at + 4 :]  # its checksum
    for data in (whole, damaged):
        assert pixels(data, COLOUR)[:, 14, 14].tolist() == [200, 60, 50]


SEGMENTS = (b"", b"\xff" * 9, b"Adobe", b"ICC_PROFILE\0\2\1", b"MPF\0II*\0", b"Photoshop 3.0\x008BIM")


@pytest.mark.parametrize("kind", [*range(0xE1, 0xF0), 0xFE])
@pytest.mark.parametrize("content", SEGMENTS)
def test_a_broken_segment_beside_the_pixels_does_not_cost_them(kind: int, content: bytes) -> None:
    plain = encoded(Image.new("L", (28, 28), 90), "JPEG")
    segment = b"\xff" + bytes([kind]) + struct.pack(">H", 2 + len(content)) + content
    assert np.abs(pixels(plain[:2] + segment + plain[2:], GREY).astype(int) - 90).max() <= 2


def test_ink_is_light() -> None:
    data = encoded(Image.new("CMYK", (28, 28), (0, 255, 255, 0)), "JPEG", quality=100)
    red, green, blue = pixels(data, COLOUR)[:, 14, 14].tolist()
    assert red > 220
    assert max(green, blue) < 60


def refined(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG", progressive=True)
    start, end = whole.rindex(b"\xff\xda"), len(whole) - 2
    return whole[:start] + whole[start:end] * scans + whole[end:]


def test_scans_are_counted_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decode(refined(20), GREY, LIMIT)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    for scans in (MAX_SCANS + 1, 5_000):
        with pytest.raises(BadPicture, match="at most 64 scans"):
            decode(refined(scans), GREY, LIMIT)


def test_scans_of_a_thumbnail_are_not_those_of_the_picture() -> None:
    data = encoded(Image.new("L", (28, 28), 90), "JPEG", exif=b"Exif\0\0" + b"\xff\xda\xff\xda" * 200)
    assert np.abs(pixels(data, GREY).astype(int) - 90).max() <= 2


def test_the_camera_may_lie_on_its_side() -> None:
    picture = np.zeros((28, 28), dtype=np.uint8)
    picture[:7] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels(encoded(Image.fromarray(picture), "JPEG", exif=exif, quality=95), GREY)[0]
    assert found[:, 22:].mean() > 240
    assert found[:, :20].mean() < 10


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
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
