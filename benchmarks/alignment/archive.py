"""The records of all runs as one compressed file with a checksum, which is what the repository keeps of them.

Runs write a file each into a folder of their own, so that an interrupted grid goes on; `pack` makes the archive of that
folder, `unpack` the folder of the archive. The same records always give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "alignment"
ARCHIVE = RESULTS / "raw.tar.xz"
RAW = ROOT / "build" / "alignment"
"""The folder that the runs of this checkout write to; nothing in it is tracked."""

RECORDS = ("*.jsonl", "*.png")


def pack(raw: Path, archive: Path) -> None:
    """Writes `archive` and its checksum beside it, in the format of sha256sum."""
    paths = sorted(path for pattern in RECORDS for path in raw.glob(pattern))
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in paths:
            member = tarfile.TarInfo(path.name)
            member.size = path.stat().st_size
            tar.addfile(member, io.BytesIO(path.read_bytes()))
    packed = lzma.compress(plain.getvalue(), preset=9)
    archive.write_bytes(packed)
    checksum(archive).write_text(f"{hashlib.sha256(packed).hexdigest()}  {archive.name}\n")


def unpack(archive: Path, raw: Path) -> int:
    """Puts what `raw` does not hold yet into it, and returns how many files that were; 0 where there is no archive.

    Raises ValueError where the archive is not the one that its checksum was made of.
    """
    if not archive.exists():
        return 0
    packed = archive.read_bytes()
    promised = checksum(archive).read_text().split()[0]
    if hashlib.sha256(packed).hexdigest() != promised:
        raise ValueError(f"{archive} is damaged: its sha256 is not the {promised} of {checksum(archive).name}")
    raw.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(packed))) as tar:
        missing = [member for member in tar.getmembers() if not (raw / member.name).exists()]
        tar.extractall(raw, missing, filter="data")
    return len(missing)


def completed(raw: Path) -> Path:
    """`raw`; this checkout's own folder first gets what the archive holds. Raises ValueError like `unpack`."""
    if raw == RAW:
        unpack(ARCHIVE, raw)
    return raw


def checksum(archive: Path) -> Path:
    """The path of an archive's checksum file."""
    return archive.with_name(f"{archive.name}.sha256")
