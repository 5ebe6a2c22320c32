"""Neuroglancer Precomputed, on disk and behind a web server."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.input_kinds.case import OFFSET_NM, SIZE_NM, VOLUME, Case, Made

_OFFSET = (2, -2, 3)  # voxels, z y x: OFFSET_NM in voxels of SIZE_NM


def _written(folder: Path, array: Any = None, encoding: str = "raw", kind: str = "image", **info: Any) -> Made:
    from cloudvolume import CloudVolume

    stored = VOLUME if array is None else array
    described = CloudVolume.create_new_info(
        1, kind, str(stored.dtype), encoding, SIZE_NM[::-1], _OFFSET[::-1], stored.shape[::-1], chunk_size=(16, 16, 8)
    )
    volume = CloudVolume(
        f"file://{folder}/pc", info=described, progress=False, compress=info.pop("compress", True), bounded=True
    )
    volume.commit_info()
    volume[:] = np.ascontiguousarray(stored.T)
    _edited(folder, **info)
    return Made(f"{folder}/pc", stored, SIZE_NM, OFFSET_NM)


def _edited(folder: Path, scale: dict[str, Any] | None = None, **info: Any) -> None:
    path = folder / "pc" / "info"
    described = json.loads(path.read_text())
    described |= info
    described["scales"][0] |= scale or {}
    path.write_text(json.dumps(described))


def _lossy(folder: Path, encoding: str) -> Made:
    """Read back through cloud-volume itself: what is stored has lost a little."""
    from cloudvolume import CloudVolume

    smooth = np.broadcast_to(np.arange(1, 32, dtype=np.uint8) * 8, VOLUME.shape).copy()
    made = _written(folder, smooth, encoding)
    truth = CloudVolume(f"file://{folder}/pc", progress=False)[:][..., 0].T
    return Made(made.address, np.asarray(truth), SIZE_NM)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files as a plain web server gives them, with the answers of ``odd`` instead where its words are in the path."""

    def __init__(self, *given: Any, odd: dict[str, int], **more: Any) -> None:
        self._odd = odd
        super().__init__(*given, **more)

    def do_GET(self) -> None:
        for word, status in self._odd.items():
            if word in self.path:
                self.send_error(status)
                return
        super().do_GET()

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *given: Any) -> None:
        pass


def _served(folder: Path, odd: dict[str, int] | None = None, **how: Any) -> Made:
    made = _written(folder, **how)
    handler = functools.partial(_Handler, directory=str(folder), odd=odd or {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"precomputed://http://127.0.0.1:{server.server_port}/pc"
    return Made(address, made.voxels, SIZE_NM)


def _no_chunks(folder: Path) -> Made:
    made = _written(folder)
    for path in (folder / "pc").rglob("*_*-*"):
        path.unlink()
    return made


def _sparse(folder: Path) -> Made:
    """A label volume whose empty chunks are not stored."""
    labels = np.zeros(VOLUME.shape, np.uint64)
    labels[:3, :5, :7] = 5
    made = _written(folder, labels, "compressed_segmentation", "segmentation")
    for path in (folder / "pc").rglob("*_*-*"):
        if not path.name.startswith("3-"):
            path.unlink()
    return made


def cases() -> list[Case]:
    """All of them."""
    labels = VOLUME.astype(np.uint32)
    segmentation: dict[str, Any] = {"array": labels, "kind": "segmentation"}
    found = [
        Case("precomputed codecs", "raw", _written),
        Case("precomputed codecs", "raw, not compressed", partial(_written, compress=False)),
        Case("precomputed codecs", "png", partial(_written, encoding="png"), "right or refused"),
        Case("precomputed codecs", "jpeg", partial(_lossy, encoding="jpeg"), "right or refused"),
        Case("precomputed codecs", "jpegxl", partial(_lossy, encoding="jpegxl"), "right or refused"),
    ]
    for encoding in ("compressed_segmentation", "crackle", "compresso"):
        how = {**segmentation, "encoding": encoding}
        found.append(Case("precomputed codecs", encoding, partial(_written, **how), "right or refused"))
    return [
        *found,
        Case("precomputed info", "dtype in capitals", partial(_written, data_type="UINT8"), "right or refused"),
        Case("precomputed info", "two channels", partial(_written, num_channels=2), "refused"),
        Case("precomputed info", "unknown dtype", partial(_written, data_type="uint7"), "refused"),
        Case("precomputed info", "unknown encoding", partial(_written, scale={"encoding": "abc"}), "refused"),
        Case("precomputed info", "another key", partial(_written, scale={"key": "9_9_9"}), "refused"),
        Case("precomputed info", "no scales", partial(_no_scales), "refused"),
        Case("precomputed info", "zero resolution", partial(_written, scale={"resolution": [0, 8, 30]}), "refused"),
        Case("precomputed info", "a mip that is none", lambda f: Made(_written(f).address + ":7"), "refused"),
        Case("precomputed info", "no JSON", _broken_info, "refused"),
        Case("precomputed holes", "no chunk at all", _no_chunks, "refused"),
        Case("precomputed holes", "some chunks", _sparse),
        Case("precomputed served", "plain names", partial(_served, compress=False)),
        Case("precomputed served", "names with .gz", _served, "refused"),
        Case("precomputed served", "401 for a chunk", partial(_served, odd={"/3-": 401}, compress=False), "refused"),
        Case("precomputed served", "403 for a chunk", partial(_served, odd={"/3-": 403}, compress=False), "refused"),
        Case("precomputed served", "403 for one", partial(_served, odd={"3-19": 403}, compress=False), "refused"),
        Case("precomputed served", "403 for the info", partial(_served, odd={"info": 403}, compress=False), "refused"),
        Case("precomputed served", "404 for the info", partial(_served, odd={"info": 404}, compress=False), "refused"),
    ]


def _no_scales(folder: Path) -> Made:
    made = _written(folder)
    path = folder / "pc" / "info"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scales": []}))
    return made


def _broken_info(folder: Path) -> Made:
    made = _written(folder)
    path = folder / "pc" / "info"
    path.write_bytes(path.read_bytes()[:-9])
    return made
