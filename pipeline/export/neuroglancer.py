"""The state that opens the exported layers in Neuroglancer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.arrays import Kind
from pipeline.geometry import FloatVec3
from pipeline.store.formats.address import join

OVERLAY_SHADER = "#uicontrol vec3 color color\nvoid main() { emitRGBA(vec4(color, toNormalized(getDataValue()))); }"


def neuroglancer_state(
    base_url: str, layers: Mapping[str, Kind], voxel_size_nm: FloatVec3, position: FloatVec3
) -> dict[str, Any]:
    """The JSON state that shows an export in Neuroglancer.

    Args:
        base_url: URL of the export as the browser reaches it (``https://``, ``s3://``, ``gs://``).
        layers: kind of each layer by name, bottom first; images after the first are shown as coloured overlays.
        voxel_size_nm: z, y, x.
        position: z, y, x, in voxels of mip 0 counted from the origin (offset included).
    """
    images = [name for name, kind in layers.items() if kind == "image"]
    return {
        "dimensions": {axis: [size / 1e9, "m"] for axis, size in zip("xyz", reversed(voxel_size_nm), strict=True)},
        "position": list(reversed(position)),
        "crossSectionScale": 1,
        "layers": [_layer_state(base_url, name, kind, name in images[1:]) for name, kind in layers.items()],
        "selectedLayer": {"layer": list(layers)[-1], "visible": False},
        "layout": "4panel",
    }


def _layer_state(base_url: str, name: str, kind: Kind, overlay: bool) -> dict[str, Any]:
    state: dict[str, Any] = {"type": kind, "source": f"precomputed://{join(base_url, name)}", "name": name}
    if overlay:
        # Probability maps: on demand, so that the first view is the tissue with its instances.
        state |= {"shader": OVERLAY_SHADER, "opacity": 0.5, "visible": False}
    return state
