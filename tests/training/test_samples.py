from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
import zarr
from pydantic import ValidationError

from pipeline.errors import BadInput
from pipeline.training import augment
from pipeline.training.augment import Augmentation
from pipeline.training.optimiser import Optimiser
from pipeline.training.prepare import prepare
from pipeline.training.segmentation.config import PhantomSource, TrainConfig, TrainStage, VolumeSource, read_config
from pipeline.training.segmentation.samples import Samples, mirrored
from pipeline.training.segmentation.volumes import block_mode, load_volume, mean_grey
from pipeline.training.task import read_task


def config(*volumes: dict[str, Any], **changes: Any) -> TrainConfig:
    shape = {name: changes.pop(name) for name in ("crop", "batch", "steps") if name in changes}
    fields: dict[str, Any] = {
        "name": "tiny",
        "output": "out",
        "volumes": tuple(VolumeSource(**volume) for volume in volumes),
        "voxel_size_nm": (10.0, 10.0, 10.0),
        "stages": (TrainStage(**({"crop": (2, 16, 16), "batch": 2, "steps": 5} | shape)),),
        "optimiser": Optimiser(warmup_steps=0),
    }
    return TrainConfig(**(fields | changes))


def store(path: Path, raw: Any, instances: Any) -> str:
    np.savez_compressed(path, raw=raw, instances=instances, voxel_size_nm=np.array([30.0, 8.0, 8.0]))
    return str(path)


def tissue(shape: tuple[int, int, int] = (5, 40, 40)) -> tuple[Any, Any]:
    """Grey levels that tell the labels: object 1 is 200, object 2 is 150, the background 50 to 59."""
    instances = np.zeros(shape, np.uint16)
    instances[:, 5:15, 5:15] = 1
    instances[:, 22:34, 20:35] = 2
    noise = np.random.default_rng(0).integers(50, 60, shape)
    return np.select([instances == 1, instances == 2], [200, 150], noise).astype(np.uint8), instances


@pytest.fixture
def npz(tmp_path: Path) -> str:
    return store(tmp_path / "v.npz", *tissue())


def test_a_crop_and_its_targets_have_the_shape_of_the_configuration(npz: str) -> None:
    c = config({"raw": npz}, crop=(3, 32, 32))
    inputs, labels = Samples([load_volume(c.volumes[0], c)], c).batch(0)
    assert inputs.shape == (2, 1, 3, 32, 32)
    assert labels.shape == (2, 2, 3, 32, 32)
    assert inputs.dtype == labels.dtype == torch.float32


def test_a_step_has_the_same_crops_each_time_and_other_steps_and_shards_have_others(npz: str) -> None:
    c = config({"raw": npz}, batch=4, shards=2)
    samples = Samples([load_volume(c.volumes[0], c)], c, shards=2)
    first = samples.batch(3, shard=1)[0]
    assert torch.equal(first, samples.batch(3, shard=1)[0])
    assert not torch.equal(first, samples.batch(4, shard=1)[0])
    assert not torch.equal(first, samples.batch(3, shard=0)[0])


def test_crops_asked_to_hold_foreground_hold_it(tmp_path: Path) -> None:
    raw, instances = tissue((4, 80, 80))
    instances[:, 20:] = 0
    instances[:, :, 20:] = 0
    path = store(tmp_path / "rare.npz", raw, instances)
    c = config({"raw": path}, foreground=1.0, batch=8, augmentation=Augmentation.none())
    labels = Samples([load_volume(c.volumes[0], c)], c).batch(0)[1]
    assert (labels[:, 0].sum(dim=(1, 2, 3)) > 0).all()


def test_the_weights_decide_which_volume_is_drawn_and_from_step_when(tmp_path: Path) -> None:
    raw, instances = tissue()
    dark, bright = store(tmp_path / "a.npz", raw // 2, instances), store(tmp_path / "b.npz", raw, instances)
    c = config({"raw": dark, "weight": 0.01}, {"raw": bright, "weight": 100.0, "from_step": 3})
    samples = Samples([load_volume(source, c) for source in c.volumes], c)
    rng = np.random.default_rng(0)
    assert samples._chosen(rng, 2).name.endswith("/a")
    assert [samples._chosen(rng, 3).name[-1] for _ in range(20)].count("b") >= 19


def test_raw_and_labels_of_different_shape_are_refused(tmp_path: Path) -> None:
    raw, instances = tissue()
    c = config({"raw": store(tmp_path / "v.npz", raw[:3], instances)})
    with pytest.raises(BadInput, match=r"raw \(3, 40, 40\), instances \(5, 40, 40\): both are 3-D and of the same"):
        load_volume(c.volumes[0], c)


def test_labels_without_an_object_are_refused(tmp_path: Path) -> None:
    raw, instances = tissue()
    c = config({"raw": store(tmp_path / "v.npz", raw, instances * 0)})
    with pytest.raises(BadInput, match="the instances hold at least one object"):
        load_volume(c.volumes[0], c)


def test_a_phantom_is_made_from_its_seed_with_ids_that_fit() -> None:
    c = config({"raw": "unused"}).model_copy(
        update={"volumes": (PhantomSource(phantom_seed=1001, shape=(4, 128, 128)),)}
    )
    one, two = load_volume(c.volumes[0], c), load_volume(c.volumes[0], c)
    np.testing.assert_array_equal(one.raw, two.raw)
    assert one.voxel_size_nm == (10.0, 10.0, 10.0)
    assert one.instances.min() == 0
    assert 0 < one.instances.max() < 2**24


def test_a_phantom_without_mitochondria_is_refused() -> None:
    c = config({"raw": "unused"})
    with pytest.raises(BadInput, match="phantom/1001: the instances hold at least one object"):
        load_volume(PhantomSource(phantom_seed=1001, shape=(1, 1, 1)), c)


def test_a_volume_smaller_than_the_crop_is_refused(npz: str) -> None:
    c = config({"raw": npz}, crop=(8, 48, 48))
    with pytest.raises(BadInput, match=r"the crop fits into every volume.*largest that fits is \(5, 32, 32\)"):
        Samples([load_volume(c.volumes[0], c)], c)


def test_grey_levels_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    raw, instances = tissue()
    c = config({"raw": store(tmp_path / "v.npz", raw.astype(np.uint16), instances)})
    with pytest.raises(BadInput, match=r"uint16: grey levels in an \.npz are uint8"):
        load_volume(c.volumes[0], c)


def test_a_file_that_is_not_there_is_refused_naming_the_variable() -> None:
    c = config({"raw": "${NO_SUCH_PLACE}/v.npz"})
    with pytest.raises(BadInput, match=r"\$\{NO_SUCH_PLACE\}/v.npz: the file exists.*TERAMITO_DATA"):
        load_volume(c.volumes[0], c)


def test_an_image_without_labels_or_voxel_size_is_refused(tmp_path: Path) -> None:
    raw = str(tmp_path / "raw.tif")
    tifffile.imwrite(raw, tissue()[0])
    with pytest.raises(BadInput, match=r"that is no \.npz also names its `instances`"):
        load_volume(VolumeSource(raw=raw), config({"raw": raw}))
    with pytest.raises(BadInput, match=r"the voxel size must be known.*Give `voxel_size_nm`"):
        load_volume(VolumeSource(raw=raw, instances=raw), config({"raw": raw}))


def test_a_crop_of_a_zarr_of_sixteen_bits_trains_like_its_eight_bit_tiff(tmp_path: Path) -> None:
    raw, instances = tissue((6, 80, 80))
    zarr.save_array(tmp_path / "raw.zarr", raw.astype(np.uint16) * 100)
    zarr.save_array(tmp_path / "labels.zarr", instances)
    crop = "[1:5,0:64,8:72]"
    source = VolumeSource(
        raw=f"{tmp_path}/raw.zarr{crop}", instances=f"{tmp_path}/labels.zarr{crop}", voxel_size_nm=(30.0, 8.0, 8.0)
    )
    c = config({"raw": "unused"})
    volume = load_volume(source, c)
    np.testing.assert_array_equal(volume.instances, instances[1:5, 0:64, 8:72])
    assert volume.raw.dtype == np.uint8
    seen = volume.table[volume.raw]
    wanted = raw[1:5, 0:64, 8:72].astype(float)
    assert np.corrcoef(seen.ravel(), wanted.ravel())[0, 1] > 0.999


def test_labels_that_are_a_mask_are_refused_unless_their_components_are_asked_for(tmp_path: Path) -> None:
    raw, instances = tissue()
    path = store(tmp_path / "v.npz", raw, (instances > 0).astype(np.uint8))
    c = config({"raw": path})
    with pytest.raises(BadInput, match=r"a single id in 2 separate pieces.*mask_connectivity: 26"):
        load_volume(c.volumes[0], c)
    parted = load_volume(VolumeSource(raw=path, mask_connectivity=26), c)
    np.testing.assert_array_equal(parted.instances, instances)


def test_one_class_of_several_can_be_what_is_learnt(tmp_path: Path) -> None:
    raw, instances = tissue()
    classes = np.select([instances == 1, instances == 2], [191, 191], 64).astype(np.uint8)
    path = store(tmp_path / "v.npz", raw, classes)
    volume = load_volume(VolumeSource(raw=path, mask_class=191, mask_connectivity=6), config({"raw": path}))
    np.testing.assert_array_equal(volume.instances, instances)
    with pytest.raises(ValidationError, match="give mask_connectivity too"):
        VolumeSource(raw=path, mask_class=191)


def test_a_volume_of_another_voxel_size_than_the_model_is_warned_of(npz: str, caplog: pytest.LogCaptureFixture) -> None:
    c = config({"raw": npz})  # 30x8x8 nm, near enough to 10 in the plane
    load_volume(c.volumes[0], c)
    assert caplog.text == ""
    load_volume(VolumeSource(raw=npz, downsample=(1, 2, 2)), c)
    assert "has voxels of 30x16x16 nm, and the model is made for 10x10x10 nm" in caplog.text


def test_labels_of_a_single_class_are_refused(tmp_path: Path) -> None:
    raw, instances = tissue()
    c = config({"raw": store(tmp_path / "v.npz", raw, instances * 0 + 3)})
    with pytest.raises(BadInput, match="a network cannot learn from a single class"):
        load_volume(c.volumes[0], c)


def test_ids_beyond_int32_are_renumbered_keeping_objects_and_background(tmp_path: Path) -> None:
    raw, instances = tissue()
    large = np.where(instances > 0, instances.astype(np.uint64) + 2**40, 0)
    c = config({"raw": store(tmp_path / "v.npz", raw, large)})
    np.testing.assert_array_equal(load_volume(c.volumes[0], c).instances, instances)


def test_a_window_beyond_the_border_is_mirrored() -> None:
    array = np.arange(3 * 5 * 7).reshape(3, 5, 7)
    starts, size = (-2, -3, 2), (6, 12, 9)
    expected = np.pad(array, [(4, 4), (8, 8), (8, 8)], mode="reflect")[2:8, 5:17, 10:19]
    np.testing.assert_array_equal(mirrored(array, starts, size), expected)
    np.testing.assert_array_equal(mirrored(array, (1, 1, 1), (2, 3, 4)), array[1:3, 1:4, 1:5])
    assert mirrored(array[:1], (-4, 0, 0), (9, 5, 7)).shape == (9, 5, 7)


def test_a_yaml_configuration_equals_its_json_and_all_faults_are_told_at_once(tmp_path: Path) -> None:
    c = config({"raw": "v.npz"})
    as_json, as_yaml = tmp_path / "c.json", tmp_path / "c.yaml"
    as_json.write_text(c.model_dump_json())
    as_yaml.write_text(yaml.safe_dump(json.loads(c.model_dump_json())))
    assert read_config(as_yaml) == read_config(as_json) == c
    as_yaml.write_text("name: x\ncolour: red\nvolumes: []\n")
    with pytest.raises(BadInput, match=r"(?s)volumes: .*colour: Extra inputs"):
        read_config(as_yaml)
    with pytest.raises(BadInput, match="there is none"):
        read_config(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": (2, 16, 32)},
        {"crop": (2, 20, 20)},
        {"batch": 3, "shards": 2},
        {"steps": 5, "optimiser": Optimiser(warmup_steps=0, decay_steps=6)},
        {"stages": (TrainStage(steps=2, start="best"),)},
        {"stages": (TrainStage(steps=2), TrainStage(steps=2, start="best"))},
        {"volumes": ()},
        {"colour": "red"},
        {"architecture": 3},
        {"patch": (4, 32, 32), "overlap": (1, 8, 32)},
        {"patch": (0, 32, 32)},
        {"voxel_size_nm": (0.0, 8.0, 8.0)},
        {"volumes": ({"raw": "v.npz", "downsample": (0, 1, 1)},)},
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config({"raw": "v.npz"}, **wrong)


def test_a_configuration_survives_a_json_round_trip() -> None:
    c = config({"raw": "v.npz", "z_range": (1, 3)}, {"raw": "w.npz", "from_step": 2})
    assert TrainConfig.model_validate_json(c.model_dump_json()) == c


CONFIGS = sorted((Path(augment.__file__).parents[1] / "configs").iterdir())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_configuration_is_valid(path: Path) -> None:
    assert read_task(path).steps >= 100


def test_the_published_configuration_is_the_published_training() -> None:
    c = read_config(next(path for path in CONFIGS if path.stem == "published"))
    assert c.optimiser == Optimiser.published()
    assert c.augmentation == Augmentation.published()
    assert [(one.steps, one.crop) for one in c.stages] == [(20_000, (32, 256, 256)), (10_000, (36, 320, 320))]
    assert (c.precision, c.loss.fraction_clip, c.options["norm"]) == ("float32", (0.05, 0.99), "none")


def test_the_mean_of_a_block_is_rounded_to_the_nearest_grey_level() -> None:
    raw = np.array([[[1, 2], [2, 2]], [[2, 2], [2, 2]]], np.uint8)
    assert mean_grey(raw, (2, 2, 2)).tolist() == [[[2]]]
    assert mean_grey(raw, (1, 2, 1)).tolist() == [[[2, 2]], [[2, 2]]]


def test_a_block_takes_its_most_frequent_label_and_on_a_tie_the_object() -> None:
    labels = np.array([[[0, 0, 5, 5, 9], [0, 3, 0, 0, 9]]], np.int32)
    assert block_mode(labels, (1, 2, 2)).tolist() == [[[0, 5]]]


def test_prepared_volumes_give_the_same_crops_as_the_tiff_stacks(tmp_path: Path) -> None:
    raw, instances = tissue((6, 80, 80))
    tifffile.imwrite(tmp_path / "raw.tif", raw)
    tifffile.imwrite(tmp_path / "instances.tif", instances)
    source = {
        "raw": str(tmp_path / "raw.tif"), "instances": str(tmp_path / "instances.tif"), "z_range": (1, 5),
        "downsample": (1, 2, 2), "voxel_size_nm": (30.0, 4.0, 4.0), "weight": 0.5,
    }  # fmt: skip
    direct = config(source)
    stored = prepare(direct, tmp_path / "prepared")
    one, two = load_volume(direct.volumes[0], direct), load_volume(stored.volumes[0], stored)
    assert one.voxel_size_nm == two.voxel_size_nm == (30.0, 8.0, 8.0)
    np.testing.assert_array_equal(one.table, two.table)
    np.testing.assert_array_equal(one.raw, two.raw)
    np.testing.assert_array_equal(one.instances, two.instances)


@pytest.mark.parametrize(
    ("labels", "found"), [(lambda ids: ids.astype(np.float32), "dtype float32"), (lambda ids: -ids, "the id -2")]
)
def test_labels_that_are_no_ids_are_refused(tmp_path: Path, labels: Any, found: str) -> None:
    raw, instances = tissue()
    c = config({"raw": store(tmp_path / "v.npz", raw, labels(instances.astype(np.int32)))})
    with pytest.raises(BadInput, match=f"labels with {found}: instance ids are integers of 0 and above"):
        load_volume(c.volumes[0], c)


def test_slices_that_the_volume_does_not_have_are_refused(npz: str) -> None:
    for wrong, nearest in (((0, 900), r"\[0, "), ((-3, 2), r"\[0, 2\]"), ((3, 3), r"\[3, 4\]")):
        source = VolumeSource(raw=npz, z_range=wrong)
        with pytest.raises(BadInput, match=f"The nearest legal z_range is {nearest}"):
            load_volume(source, config({"raw": npz}))
