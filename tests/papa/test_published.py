"""The published data sets: small ones in the published formats, fetched over HTTP from a server of this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from numpy.typing import NDArray

from papa.backbone.datasets import load_npz
from papa.backbone.published import PUBLISHED, PublishedData, PublishedFile, fetch

COUNTS = {"train": 40, "test": 20}


class Server:
    """Serves `files` by name, in ranges when asked; `asked` is each request's path and range."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.address = f"http://127.0.0.1:{self._http.server_port}/sets"
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *arguments: object) -> None:
        self.owner = server
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name, wanted = self.path.removeprefix("/sets/"), self.headers["Range"]
        self.owner.asked.append((name, wanted))
        content = self.owner.files.get(name)
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.owner.cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def images(name: str) -> dict[str, NDArray[np.uint8]]:
    random, shape = np.random.default_rng(0), PUBLISHED[name].shape
    return {
        f"{letter}_{split}": random.integers(0, 256 if letter == "x" else 10, (count, *dims)).astype(np.uint8)
        for split, count in COUNTS.items()
        for letter, dims in (("x", shape), ("y", ()))
    }


def published(name: str, server: Server, arrays: dict[str, NDArray[np.uint8]]) -> PublishedData:
    """`arrays` on `server` in the format of data set `name`."""
    data = PUBLISHED[name]
    splits = {split: replace(layout, count=COUNTS[split]) for split, layout in data.splits.items()}
    if data.batch:
        server.files[data.files[0].name] = archive(arrays)
    else:
        for split, layout in splits.items():
            server.files[layout.images] = idx(arrays[f"x_{split}"])
            server.files[layout.labels] = idx(arrays[f"y_{split}"])
    files = tuple(_described(each.name, server.files[each.name]) for each in data.files)
    return replace(data, files=files, splits=splits, address=server.address, batch=data.batch and 20)


def _described(name: str, content: bytes) -> PublishedFile:
    return PublishedFile(name, len(content), f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}")


def idx(array: NDArray[np.uint8]) -> bytes:
    header = np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes()
    return gzip.compress(header + array.tobytes())


def archive(arrays: dict[str, NDArray[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, split, part in (
            ("data_batch_1.bin", "train", slice(0, 20)),
            ("data_batch_2.bin", "train", slice(20, 40)),
            ("test_batch.bin", "test", slice(0, 20)),
        ):
            planes = arrays[f"x_{split}"][part].transpose(0, 3, 1, 2).reshape(20, -1)
            content = np.hstack([arrays[f"y_{split}"][part][:, None], planes]).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_fetched_has_the_documented_layout_and_trains(name: str, server: Server, tmp_path: Path) -> None:
    arrays = images(name)
    heard: list[tuple[int, int]] = []
    data = published(name, server, arrays)
    path = fetch(data, tmp_path / "data", progress=lambda here, size: heard.append((here, size)))
    assert path == tmp_path / "data" / PUBLISHED[name].file
    with np.load(path) as found:
        assert set(found) == set(arrays)
        for key, array in arrays.items():
            assert found[key].dtype == np.uint8
            np.testing.assert_array_equal(found[key], array)
    assert len(load_npz(path, "test").x) == COUNTS["test"]
    assert heard[-1] == (data.size, data.size)
    assert heard == sorted(heard)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    data = published("mnist", server, images("mnist"))
    path = fetch(data, tmp_path)
    asked, before = len(server.asked), path.read_bytes()
    assert fetch(data, tmp_path) == path
    assert (len(server.asked), path.read_bytes()) == (asked, before)


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    data = published("mnist", server, images("mnist"))
    server.cut = 1000
    with pytest.raises(OSError, match=f"ended after 1000 of {data.files[0].size} bytes"):
        fetch(data, tmp_path)
    server.cut, server.asked = None, []
    fetch(data, tmp_path)
    assert server.asked[0] == (data.files[0].name, "bytes=1000-")
    assert all(wanted is None for _, wanted in server.asked[1:])


def test_another_file_under_the_published_name_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    data = published("mnist", server, images("mnist"))
    whole = server.files[data.files[0].name]
    server.files[data.files[0].name] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is not the published file: its MD5 is"):
        fetch(data, tmp_path)
    server.files[data.files[0].name] = whole
    assert fetch(data, tmp_path).exists()


def test_a_longer_file_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    data = published("mnist", server, images("mnist"))
    server.files[data.files[0].name] += bytes(5_000_000)
    heard: list[int] = []
    with pytest.raises(ValueError, match="is not the published file"):
        fetch(data, tmp_path, progress=lambda here, _size: heard.append(here))
    assert max(heard) == data.files[0].size + 1


def test_a_mirror_is_asked_instead(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there; this machine is asked directly
    data = replace(published("mnist", server, images("mnist")), address="http://authors.invalid")
    assert fetch(data, tmp_path, mirror=server.address + "/").exists()


@pytest.mark.parametrize(
    ("mirror", "error", "says"),
    [
        ("ftp://127.0.0.1/sets", ValueError, "is no http or https address"),
        ("file:///etc", ValueError, "is no http or https address"),
        ("{server}/elsewhere", OSError, "answers 404"),
    ],
)
def test_an_address_that_does_not_have_it(
    mirror: str, error: type[Exception], says: str, server: Server, tmp_path: Path
) -> None:
    data = published("mnist", server, images("mnist"))
    with pytest.raises(error, match=says):
        fetch(data, tmp_path, mirror=mirror.format(server=server.address))


def test_contents_of_another_shape_are_refused(server: Server, tmp_path: Path) -> None:
    arrays = images("mnist")
    arrays["x_test"] = arrays["x_test"][:, :14]
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz holds \[20, 14, 28\], not \[20, 28, 28\]"):
        fetch(published("mnist", server, arrays), tmp_path)
