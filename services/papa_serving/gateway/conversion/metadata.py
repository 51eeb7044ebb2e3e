"""Takes the metadata out of a file, which may be broken where the pixels are whole."""

from __future__ import annotations

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_APPLICATION, _ADOBE, _COMMENT, _START_OF_SCAN = range(0xE1, 0xF0), 0xEE, 0xFE, 0xDA
_ADOBE_BYTES = 16


def without_metadata(data: bytes) -> bytes:
    """A PNG or a JPEG with what its pixels need alone; other data, and what is cut off, as it is."""
    if data.startswith(PNG):
        return _bare_png(data)
    return _bare_jpeg(data) if data.startswith(JPEG) else data


def _bare_png(data: bytes) -> bytes:
    """Critical chunks, whose names begin with a capital, and tRNS."""
    kept, at = [PNG], len(PNG)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if name[:1].isupper() or name == b"tRNS":
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _bare_jpeg(data: bytes) -> bytes:
    """All segments but comments and those of applications; Adobe's says what the channels are, and stays."""
    kept, at = [JPEG], len(JPEG)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        kind, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        whole = kind == _ADOBE and end - at >= _ADOBE_BYTES
        if kind != _COMMENT and (kind not in _APPLICATION or whole):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
