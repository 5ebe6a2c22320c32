"""The exported layers in a browser: a read-only web server on loopback, and Neuroglancer's page where it is installed.

One port serves both, so that one forwarded port (``ssh -L``) is enough to look at a run from elsewhere. Every address
holds a random token: other people on a shared machine can reach loopback too.
"""

from __future__ import annotations

import asyncio
import errno
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, StaticFileHandler

from pipeline.arrays import Kind
from pipeline.engine.directory import RunDirectory
from pipeline.errors import BadInput
from pipeline.export.neuroglancer import neuroglancer_state
from pipeline.geometry import FloatVec3, Vec3
from pipeline.store.formats import Description
from pipeline.store.formats.precomputed import describe

HOST = "127.0.0.1"
HOSTED = "https://neuroglancer-demo.appspot.com"
_ORDER = (
    "raw",
    "restored",
    "segmentation",
    "replaced",
    "damage",  # what replaced was called before
    "semantic",
    "boundary",
)  # bottom first; the first image is the background
OVERLAY_COLORS = {"semantic": "#00ff7f", "boundary": "#ff4040", "replaced": "#ffd700", "damage": "#ffd700"}
PANEL_PIXELS = 340  # height of one of four panels on a laptop; the volume is fitted into it
COARSEST_NM = 32.0  # a pixel, at most: a mitochondrion of 500 nm is then still 16 pixels wide

ShownLayers = dict[str, tuple[Kind, Description]]


@dataclass(frozen=True, slots=True)
class Shown:
    """Where to look: ``page`` is the address to open, ``layers`` the sources for any other Neuroglancer."""

    page: str
    layers: dict[str, str]
    offline: bool


class LayerFiles(StaticFileHandler):
    """Files of the export for any origin: cloud-volume stores ``NAME`` as ``NAME.gz``, browsers ask for ``NAME``."""

    def set_default_headers(self) -> None:
        """Neuroglancer's page may come from another address, a hosted one even from another network."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "Range")
        self.set_header("Access-Control-Allow-Private-Network", "true")
        self.set_header("Cache-Control", "no-cache")

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """The file behind a name; refuses whatever lies outside of the export."""
        zipped = Path(absolute_path + ".gz")
        if Path(absolute_path).is_file() or not zipped.is_file():
            return super().validate_absolute_path(root, absolute_path)
        self.set_header("Content-Encoding", "gzip")
        return super().validate_absolute_path(root, str(zipped))

    def get_content_type(self) -> str:
        """Chunks are bytes, never an archive to be unpacked by hand."""
        return "application/octet-stream"

    def compute_etag(self) -> str | None:
        """None: tornado would read every chunk twice and keep its hash for good; the time of change is enough."""
        return None

    def options(self, path: str) -> None:
        """A browser's question before it asks a loopback server for a page of another site."""
        self.set_status(204)

    def post(self, path: str) -> None:
        """Read only."""
        raise HTTPError(405)


@contextmanager
def serving(directory: RunDirectory, port: int = 0) -> Iterator[Shown]:
    """Serve a run's exported layers on loopback as long as this context lives; port 0 takes any free one.

    Raises:
        BadInput: nothing is exported, or the port is taken.
    """
    descriptions = exported(directory)
    serve = _neuroglancer if find_spec("neuroglancer") else _files_only
    with serve(directory.precomputed, descriptions, port) as shown:
        yield shown


def exported(directory: RunDirectory) -> ShownLayers:
    """The layers of a run that have an ``info`` file, bottom first.

    Raises:
        BadInput: there is none.
    """
    found = {path.parent.name: path for path in directory.precomputed.glob("*/info")}
    names = [name for name in _ORDER if name in found] + sorted(found.keys() - set(_ORDER))
    if not names:
        raise BadInput(
            str(directory.root),
            "nothing of this run is exported yet",
            "the layers are written by its last step",
            f"See how far it is: teramito status {directory.root}",
        )
    return {
        name: (json.loads(found[name].read_text())["type"], describe(str(found[name].parent), "")) for name in names
    }


def state_of(layers: ShownLayers, base_url: str) -> dict[str, Any]:
    """The Neuroglancer state that shows all layers: the whole volume in view, all instances, maps switched off."""
    shape, size, offset = _geometry(layers)
    z, y, x = (o / s + n / 2 for o, s, n in zip(offset, size, shape, strict=True))
    state = neuroglancer_state(base_url, {name: kind for name, (kind, _) in layers.items()}, size, (z, y, x))
    longest_nm = max(n * s for n, s in zip(shape, size, strict=True))
    nm_a_pixel = min(longest_nm / PANEL_PIXELS, COARSEST_NM)
    state["crossSectionScale"] = nm_a_pixel / min(size)  # in the smallest voxel side, whatever the axis
    state["projectionScale"] = 1.5 * longest_nm / min(size)
    for layer in state["layers"]:
        if layer["name"] in OVERLAY_COLORS:
            layer["shaderControls"] = {"color": OVERLAY_COLORS[layer["name"]]}
        elif layer["name"] == "restored":  # in grey, to be laid over the raw image
            del layer["shader"], layer["opacity"]
    return state


def hosted_link(state: dict[str, Any]) -> str:
    """A link that shows a state in the public Neuroglancer; the data stay on this machine."""
    return f"{HOSTED}/#!{quote(json.dumps(state, separators=(',', ':')), safe='/:,')}"


def _geometry(layers: ShownLayers) -> tuple[Vec3, FloatVec3, FloatVec3]:
    _, first = next(iter(layers.values()))
    return first.shape, first.voxel_size_nm or (1.0, 1.0, 1.0), first.offset_nm or (0.0, 0.0, 0.0)


@contextmanager
def _neuroglancer(folder: Path, layers: ShownLayers, port: int) -> Iterator[Shown]:
    """Neuroglancer's own server, whose page needs no network, with our files beside the page."""
    neuroglancer: Any = import_module("neuroglancer")
    neuroglancer.set_server_bind_address(HOST, port)
    with _port_is_free(port):
        # Credentials: the page could otherwise ask this process for its owner's Google log-in.
        viewer = neuroglancer.Viewer(allow_credentials=False)
    try:
        prefix = f"/precomputed/{viewer.token}"
        neuroglancer.server.global_server.app.add_handlers(".*", _routes(prefix, folder))
        base = neuroglancer.server.get_server_url() + prefix
        viewer.set_state(state_of(layers, base))
        yield Shown(viewer.get_viewer_url(), _sources(base, layers), offline=True)
    finally:
        neuroglancer.stop()


@contextmanager
def _files_only(folder: Path, layers: ShownLayers, port: int) -> Iterator[Shown]:
    """Our files alone, for a Neuroglancer from elsewhere."""
    prefix = f"/precomputed/{secrets.token_hex(16)}"
    app = Application(_routes(prefix, folder), log_function=lambda _handler: None)
    with _port_is_free(port):
        sockets = bind_sockets(port, HOST)
    with _loop() as loop:
        loop.call_soon_threadsafe(lambda: HTTPServer(app).add_sockets(sockets))
        base = f"http://{HOST}:{sockets[0].getsockname()[1]}{prefix}"
        yield Shown(hosted_link(state_of(layers, base)), _sources(base, layers), offline=False)
    for socket in sockets:
        socket.close()


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="layer-files")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextmanager
def _port_is_free(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise BadInput(
            f"--port {port}", "the port must be free", str(error.strerror), "Leave --port out to take any free one."
        ) from None


def _routes(prefix: str, folder: Path) -> list[Any]:
    return [(rf"{prefix}/(.*)", LayerFiles, {"path": str(folder)})]


def _sources(base: str, layers: ShownLayers) -> dict[str, str]:
    return {name: f"precomputed://{base}/{name}" for name in layers}
