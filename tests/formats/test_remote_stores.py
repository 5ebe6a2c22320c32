"""Reading and writing over real sockets on loopback: a plain web server, and an S3 server (moto).

Google Cloud Storage has no such server here; ``gs://`` shares the code of ``s3://`` above fsspec and cloud-files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import fsspec
import numpy as np
import numpy.typing as npt
import pytest
from command_line import Teramito
from moto.server import ThreadedMotoServer

from pipeline.errors import BadInput
from pipeline.geometry import Box
from pipeline.store.convert import convert
from pipeline.store.volume import open_volume

BOX = Box((5, 3, 7), (20, 36, 41))


class _Files(SimpleHTTPRequestHandler):
    """A folder as a bucket's web front shows it: ``x`` serves ``x.gz`` with its encoding; byte ranges are honoured."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = Path(self.translate_path(self.path))
        gzipped = path.with_name(path.name + ".gz")
        if not path.is_file() and not gzipped.is_file():
            self.send_error(404)
            return
        data = path.read_bytes() if path.is_file() else gzipped.read_bytes()
        wanted = self.headers.get("Range")
        whole = len(data)
        self.send_response(206 if wanted else 200)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or whole), whole - 1) + 1
            data = data[start:stop]
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{whole}")
        if not path.is_file():
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture(scope="module")
def web(addresses: Mapping[str, str]) -> Iterator[str]:
    """URL of a web server on the folder of all formats."""
    root = Path(addresses["precomputed"]).parent
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """``s3://`` URL of a bucket on a loopback server, found through AWS_ENDPOINT_URL as a user would set it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in {"ACCESS_KEY_ID": "dummy", "SECRET_ACCESS_KEY": "dummy", "DEFAULT_REGION": "us-east-1"}.items():
        patch.setenv(f"AWS_{name}", value)
    patch.delenv("AWS_SESSION_TOKEN", raising=False)
    patch.delenv("AWS_PROFILE", raising=False)
    name = f"teramito-{os.getpid()}"
    boto3.client("s3").create_bucket(Bucket=name)
    yield f"s3://{name}"
    fsspec.filesystem("s3").clear_instance_cache()
    patch.undo()
    os.environ.pop("AWS_SESSION_TOKEN", None)
    server.stop()


@pytest.mark.parametrize("name", ["zarr v2", "zarr v3", "OME-Zarr 0.4", "OME-Zarr 0.5", "precomputed"])
def test_a_chunked_volume_is_read_over_http(
    name: str, web: str, addresses: Mapping[str, str], array: npt.NDArray[np.uint16]
) -> None:
    volume = open_volume(f"{web}/{Path(addresses[name]).name}")
    assert volume.voxel_size_nm == open_volume(addresses[name]).voxel_size_nm
    np.testing.assert_array_equal(volume.read(BOX), array[BOX.slices()])


@pytest.mark.parametrize("name", ["zarr v3", "zarr v2, Fortran order", "precomputed"])
def test_the_command_reads_over_http_too(
    name: str, web: str, addresses: Mapping[str, str], tmp_path: Path, teramito: Teramito
) -> None:
    source, target = f"{web}/{Path(addresses[name]).name}", tmp_path / "copy.zarr"
    said = teramito("convert", source, str(target))
    assert said.code == 0, said.err
    copied, original = open_volume(str(target)), open_volume(addresses[name])
    np.testing.assert_array_equal(copied.read(copied.box), original.read(original.box))


@pytest.mark.parametrize(
    ("name", "suffix"), [("tiled deflate TIFF", ""), ("TIFF", ""), ("HDF5 dataset", ":volumes/raw")]
)
def test_a_single_file_is_read_over_http(
    name: str, suffix: str, web: str, addresses: Mapping[str, str], array: npt.NDArray[np.uint16]
) -> None:
    file = Path(addresses[name].removesuffix(suffix)).name
    np.testing.assert_array_equal(open_volume(f"{web}/{file}{suffix}").read(BOX), array[BOX.slices()])


def test_nothing_behind_a_url_is_one_refusal(web: str) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        open_volume(f"{web}/nowhere")
    with pytest.raises(BadInput, match="has an info file"):
        open_volume(f"precomputed://{web}/nowhere")


def test_a_server_that_is_not_there_is_one_refusal() -> None:
    with pytest.raises(BadInput, match=r"127\.0\.0\.1"):
        open_volume("http://127.0.0.1:9/volume.zarr")


def test_a_web_server_is_not_written_to(web: str, addresses: Mapping[str, str]) -> None:
    with pytest.raises(BadInput, match="cannot be written to"):
        convert(open_volume(addresses["zarr v3"]), f"{web}/new.zarr")


@pytest.mark.parametrize("target", ["v.zarr", "v.precomputed"])
def test_a_volume_is_written_to_and_read_from_s3(
    target: str, bucket: str, addresses: Mapping[str, str], array: npt.NDArray[np.uint16]
) -> None:
    copy = convert(open_volume(addresses["OME-Zarr 0.5"]), f"{bucket}/{target}")
    assert copy.voxel_size_nm == (30.0, 8.5, 8.0)
    assert copy.offset_nm == (90.0, -17.0, 40.0)
    np.testing.assert_array_equal(copy.read(copy.box), array)
    np.testing.assert_array_equal(
        open_volume(f"{bucket}/{target}[5:20,3:36,7:41]").read(Box((0, 0, 0), BOX.shape)), array[BOX.slices()]
    )
    with pytest.raises(BadInput, match="must not exist"):
        convert(open_volume(addresses["OME-Zarr 0.5"]), f"{bucket}/{target}")


def test_files_and_slices_are_read_from_s3(
    bucket: str, addresses: Mapping[str, str], array: npt.NDArray[np.uint16]
) -> None:
    filesystem = fsspec.filesystem("s3")
    filesystem.put(addresses["TIFF folder"], f"{bucket}/slices", recursive=True)
    filesystem.put(addresses["tiled deflate TIFF"], f"{bucket}/tiled.tif")
    filesystem.put(addresses["HDF5"], f"{bucket}/one.h5")
    for name in ("slices", "tiled.tif", "one.h5"):
        np.testing.assert_array_equal(open_volume(f"{bucket}/{name}").read(BOX), array[BOX.slices()])


def test_an_interrupted_upload_leaves_nothing_that_opens_as_a_volume(bucket: str, addresses: Mapping[str, str]) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    source = open_volume(addresses["OME-Zarr 0.5"])
    for name in ("torn.zarr", "torn.precomputed"):
        with pytest.raises(KeyboardInterrupt):
            convert(source, f"{bucket}/{name}", progress=stop)
        with pytest.raises(BadInput, match="no volume is recognised"):
            open_volume(f"{bucket}/{name}")


def test_a_missing_bucket_is_one_refusal(bucket: str) -> None:
    with pytest.raises(BadInput, match="no-such-bucket"):
        open_volume("s3://no-such-bucket-here/volume.zarr")
