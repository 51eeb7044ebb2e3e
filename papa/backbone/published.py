"""Data sets as their authors publish them: fetched, checked against the published checksums, written as one array file.

Every file has one layout, which `load_npz` reads: x_train and x_test uint8, [n, height, width] grey or
[n, height, width, 3] colour; y_train and y_test uint8 [n], the classes in the authors' order, the images too.
"""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import tarfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test"]
Progress = Callable[[int, int], None]
"""Told the bytes that are here and those that there are to be, of all files together."""

_CHUNK = 1 << 18
_SILENCE = 30.0
"""Seconds without a byte after which a server is given up."""


@dataclass(frozen=True)
class PublishedFile:
    """One file on the server: its name, its size in bytes, its checksum as "algorithm:hex"."""

    name: str
    size: int
    checksum: str


@dataclass(frozen=True)
class Layout:
    """The number of images in a split, and their indexes in the files."""

    count: int
    images: str
    labels: str = ""


@dataclass(frozen=True)
class PublishedData:
    """A data set. `address` is the folder on the authors' server, `shape` that of one image, `batch` the images of one
    binary file where an archive holds several."""

    name: str
    file: str
    shape: tuple[int, ...]
    address: str
    homepage: str
    licence: str
    files: tuple[PublishedFile, ...]
    splits: Mapping[Split, Layout]
    batch: int = 0

    @property
    def size(self) -> int:
        """Bytes to fetch in all."""
        return sum(each.size for each in self.files)


def _idx(train: tuple[int, str, int, str], test: tuple[int, str, int, str]) -> tuple[PublishedFile, ...]:
    """The four files of the MNIST family; of each split the size and MD5 of images and of labels."""
    names = (("train", train), ("t10k", test))
    return tuple(
        PublishedFile(f"{prefix}-{kind}-ubyte.gz", size, f"md5:{checksum}")
        for prefix, (images, images_md5, labels, labels_md5) in names
        for kind, size, checksum in (("images-idx3", images, images_md5), ("labels-idx1", labels, labels_md5))
    )


_IDX_SPLITS: Mapping[Split, Layout] = {
    "train": Layout(60_000, "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": Layout(10_000, "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}

PUBLISHED = {
    each.name: each
    for each in (
        PublishedData(
            "fashion-mnist",
            "fashion_mnist.npz",
            (28, 28),
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "https://github.com/zalandoresearch/fashion-mnist",
            "MIT (Zalando SE)",
            _idx(
                (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
                (4_422_102, "bef4ecab320f06d8554ea6380940ec79", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
            ),
            _IDX_SPLITS,
        ),
        PublishedData(
            "mnist",
            "mnist.npz",
            (28, 28),
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "http://yann.lecun.com/exdb/mnist/",
            "CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)",
            _idx(
                (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
                (1_648_877, "9fb629c4189551a2d022fa330f9573f3", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
            ),
            _IDX_SPLITS,
        ),
        PublishedData(
            "cifar-10",
            "cifar10.npz",
            (32, 32, 3),
            "https://www.cs.toronto.edu/~kriz",
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            "none stated; cite Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
            (PublishedFile("cifar-10-binary.tar.gz", 170_052_171, "md5:c32a1d4ab5d03f1284b67883e8d87530"),),
            {"train": Layout(50_000, "data_batch_{}.bin"), "test": Layout(10_000, "test_batch.bin")},
            batch=10_000,
        ),
    )
}
"""The data sets by the name that `papa data fetch` takes."""


def fetch(data: PublishedData, folder: Path, mirror: str = "", progress: Progress = lambda _here, _all: None) -> Path:
    """Writes `data.file` into `folder`, from the authors' server or from a `mirror` of the same files.

    A file that is there already is left as it is. What was fetched in part goes on where it stopped. Raises OSError
    where the server cannot be reached or the folder not be written, ValueError for a file whose checksum or contents
    are not as published.
    """
    target = folder / data.file
    if target.exists():
        return target
    parts = folder / f".{data.file}.parts"
    parts.mkdir(parents=True, exist_ok=True)
    start = 0
    for each in data.files:
        url = f"{(mirror or data.address).rstrip('/')}/{each.name}"
        _download(url, each, parts / each.name, partial(_report, progress, start, data.size))
        start += each.size
    arrays = _read_binary(data, parts) if data.batch else _read_idx(data, parts)
    unfinished = parts / data.file
    with unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    unfinished.replace(target)
    for each in data.files:
        (parts / each.name).unlink()
    parts.rmdir()
    return target


def _report(progress: Progress, start: int, size: int, here: int) -> None:
    progress(start + here, size)


def _download(url: str, file: PublishedFile, path: Path, progress: Callable[[int], None]) -> None:
    """Raises OSError, and ValueError where what the server sent is not the published file; that is then removed."""
    here = path.stat().st_size if path.exists() else 0
    if here < file.size:
        _append(url, file, path, here, progress)
    if (here := path.stat().st_size) < file.size:
        raise OSError(f"{url} ended after {here} of {file.size} bytes")
    algorithm, expected = file.checksum.split(":")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if found != expected:
        path.unlink()
        raise ValueError(f"{url} is not the published file: its {algorithm.upper()} is {found}, not {expected}")
    progress(file.size)


def _append(url: str, file: PublishedFile, path: Path, here: int, progress: Callable[[int], None]) -> None:
    request = Request(url, headers={"Range": f"bytes={here}-"} if here else {})  # noqa: S310 - the scheme is checked
    try:
        with _opener(url).open(request, timeout=_SILENCE) as answer:
            goes_on = answer.status == HTTPStatus.PARTIAL_CONTENT
            with path.open("ab" if goes_on else "wb") as target:
                _copy(answer, target, file.size + 1, progress)
    except HTTPError as error:
        raise OSError(f"{url} answers {error.code} {error.reason}") from error


def _copy(source: IO[bytes], target: IO[bytes], limit: int, progress: Callable[[int], None]) -> None:
    """Until the source ends, or one byte more than expected is there."""
    while target.tell() < limit and (chunk := source.read(min(_CHUNK, limit - target.tell()))):
        target.write(chunk)
        progress(target.tell())


def _opener(url: str) -> OpenerDirector:
    """Raises ValueError for an address that is not of the web. This machine's own are never asked for by a proxy."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no http or https address")
    loopback = parts.hostname == "localhost"
    with suppress(ValueError):
        loopback = loopback or ipaddress.ip_address(parts.hostname).is_loopback
    return build_opener(ProxyHandler({})) if loopback else build_opener()


def _read_idx(data: PublishedData, folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Reads a file of the MNIST family: a big-endian header [magic, n, …], then the bytes."""
    arrays = {}
    for split, layout in data.splits.items():
        shapes = {"x": (layout.images, (layout.count, *data.shape)), "y": (layout.labels, (layout.count,))}
        for letter, (name, shape) in shapes.items():
            with gzip.open(folder / name) as file:
                header = np.frombuffer(file.read(4 * (1 + len(shape))), ">i4")
                content = np.frombuffer(file.read(int(np.prod(shape)) + 1), np.uint8)
            if tuple(header[1:]) != shape or content.size != np.prod(shape):
                raise ValueError(f"{name} holds {list(map(int, header[1:]))}, not {list(shape)}")
            arrays[f"{letter}_{split}"] = content.reshape(shape)
    return arrays


def _read_binary(data: PublishedData, folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Reads CIFAR-10: one record per image, its class and then its planes. Nothing is unpacked to disk."""
    height, width, channels = data.shape
    record = 1 + height * width * channels
    arrays: dict[str, NDArray[np.uint8]] = {}
    with tarfile.open(folder / data.files[0].name) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        for split, layout in data.splits.items():
            names = [layout.images.format(number + 1) for number in range(layout.count // data.batch)]
            missing = [name for name in names if name not in members or members[name].size != record * data.batch]
            if missing:
                raise ValueError(f"{data.files[0].name} has no {missing[0]} of {record * data.batch} bytes")
            content = b"".join(file.read() for name in names if (file := archive.extractfile(members[name])))
            records = np.frombuffer(content, np.uint8).reshape(-1, record)
            arrays[f"y_{split}"] = records[:, 0].copy()
            arrays[f"x_{split}"] = records[:, 1:].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return arrays
