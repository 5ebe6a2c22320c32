from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import BadInput
from pipeline.instances.ops.whole import whole_instances
from pipeline.instances.plan import InstancePlan

Map = NDArray[np.uint8]


def maps(shape: tuple[int, int, int] = (12, 20, 24)) -> tuple[Map, Map]:
    return np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)


def test_ids_are_numbered_by_the_first_voxels_after_growth() -> None:
    semantic, boundary = maps((1, 6, 9))
    semantic[0, 2, 1:3] = semantic[0, 3, 6:8] = 255
    semantic[0, 1:3, 7] = 100  # grows upwards past the other one's first voxel
    ids = whole_instances(semantic, boundary, InstancePlan(200, 200, grow="mask", mask_above=50, grow_nm=9.0))
    assert ids.dtype == np.uint64
    assert (ids[0, 1, 7], ids[0, 2, 1]) == (1, 2)
    assert np.count_nonzero(ids) == 6


def test_every_setting_has_its_part() -> None:
    semantic, boundary = maps()
    semantic[2:5, 4:9, 4:9] = 255
    semantic[3, 6, 6] = 0  # a hole
    semantic[6:9, 4:9, 4:9] = 255  # the same mitochondrion after a bad slice
    semantic[2:5, 12:14, 0:5] = 255  # at the border
    semantic[10, 17, 17] = 255  # a single voxel
    semantic[2:5, 14:18, 14:20] = 255
    base = InstancePlan(200, 200)
    counts = {
        "as they are": (base, 5),
        "seeds of two voxels and more": (InstancePlan(200, 200, minimum_seed_voxels=2), 4),
        "a size that only the joined one has": (InstancePlan(200, 200, join_gap=1, minimum_voxels=80), 1),
        "the same with its hole": (InstancePlan(200, 200, join_gap=1, minimum_voxels=150), 0),
        "and filled": (InstancePlan(200, 200, join_gap=1, fill_holes=(1, 1, 1), minimum_voxels=150), 1),
        "no border": (InstancePlan(200, 200, drop_border=True), 4),
    }
    for name, (plan, n) in counts.items():
        assert len(np.unique(whole_instances(semantic, boundary, plan))) - 1 == n, name
    tissue = np.zeros(semantic.shape, np.bool_)
    tissue[:, :, :6] = True  # holds 2 of 5 columns of the joined one, all of that at the border
    half, less = InstancePlan(200, 200, tissue_fraction=0.5), InstancePlan(200, 200, tissue_fraction=0.4)
    assert whole_instances(semantic, boundary, half, tissue).max() == 1
    assert whole_instances(semantic, boundary, less, tissue).max() == 3


def test_an_id_that_a_dilation_overwrites_wholly_leaves_no_gap() -> None:
    semantic, boundary = maps((1, 8, 12))
    semantic[0, 2, 2] = semantic[0, 4:, 4:] = 255
    ids = whole_instances(semantic, boundary, InstancePlan(200, 200, grow="dilate"))
    assert set(np.unique(ids)) <= {0, 1, 2}
    semantic[0, 0, :6] = 255
    semantic[0, 3:, 3:] = 255
    ids = whole_instances(semantic, boundary, InstancePlan(200, 200, grow="dilate"))
    assert np.unique(ids[ids > 0]).tolist() == list(range(1, int(ids.max()) + 1))


@pytest.mark.parametrize("grow", ["mask", "dilate", "watershed", "none"])
def test_empty_and_full_maps_give_none_and_one(grow: str) -> None:
    semantic, boundary = maps((4, 5, 6))
    plan = InstancePlan(200, 200, grow=grow, grow_nm=3.0, fill_holes=(2, 2, 2), join_gap=1, minimum_seed_voxels=2)
    assert not whole_instances(semantic, boundary, plan).any()
    assert (whole_instances(semantic + 255, boundary, plan) == 1).all()


def test_float_maps_are_taken_and_values_beyond_one_refused() -> None:
    semantic, boundary = maps((3, 4, 5))
    semantic[1, 1, 1:4] = 255
    plan = InstancePlan(200, 200)
    as_float = whole_instances(semantic / 255.0, boundary / 255.0, plan)
    assert np.array_equal(as_float, whole_instances(semantic, boundary, plan))
    with pytest.raises(BadInput, match=r"must lie in 0\.\.1"):
        whole_instances(semantic.astype(np.float32), boundary, plan)


def test_it_is_imported_without_what_a_machine_for_training_lacks() -> None:
    code = "import sys, pipeline.instances.ops.whole, pipeline.instances.presets; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"cc3d", "zarr", "scipy", "fastremap", "pyarrow", "skimage", "torch"} & set(loaded)
