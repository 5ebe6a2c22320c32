"""Every configuration survives JSON and YAML; every wrong one is refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.run.config import InstancesConfig, RunConfig, parse_config
from pipeline.settings import parse_settings, with_override

SIDE = st.integers(1, 4096)
SIDES = st.tuples(SIDE, SIDE, SIDE)
SHARE = st.floats(0, 1)
LENGTH = st.floats(min_value=1e-3, max_value=1e6)
TEXT = st.text(min_size=1, max_size=30)
WITHOUT_MINIMUM: dict[str, st.SearchStrategy[Any]] = {
    "preset": st.sampled_from(["default", "published", "bc_watershed"]),
    "seed_above": SHARE,
    "boundary_below": SHARE,
    "mask_above": SHARE,
    "connectivity": st.sampled_from([6, 18, 26]),
    "grow": st.sampled_from(["mask", "dilate", "watershed", "none"]),
    "grow_nm": st.floats(0, 1e6),
    "watershed_halo_nm": st.floats(0, 1e6),
    "fill_holes_nm": st.floats(0, 1e6),
    "minimum_seed_voxels": st.integers(0, 10**12),
    "drop_border": st.booleans(),
    "tissue_mask": st.sampled_from(["mask.tif", "s3://bucket/mask.zarr[0:4,:,:]"]),
    "tissue_fraction": SHARE,
    "join_gap": st.integers(0, 99),
    "join_overlap": SHARE,
}
INSTANCES = st.one_of(
    st.fixed_dictionaries({}, optional={**WITHOUT_MINIMUM, "minimum_voxels": st.integers(0, 10**12)}),
    st.fixed_dictionaries({}, optional={**WITHOUT_MINIMUM, "minimum_um3": st.floats(0, 1e6)}),
)
PREDICT = st.fixed_dictionaries(
    {},
    optional={
        "scale": SIDES,
        "patch": SIDES,
        "overlap": st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)),
        "weights": st.sampled_from(["bump", "gaussian", "crop"]),
        "batch": st.integers(1, 64),
        "tta": st.sampled_from([0, 4, 8, 16]),
        "device": st.sampled_from(["auto", "cpu", "cuda"]),
    },
)
DENOISE = st.one_of(
    st.sampled_from(["auto", "off", False]),
    st.fixed_dictionaries(
        {"mode": st.just("auto")},
        optional={
            "model": TEXT,
            "mask": st.sampled_from(["mask.tif", "s3://bucket/mask.zarr[0:4,:,:]"]),
            "sensitivity": LENGTH,
            "max_gap": st.integers(1, 16),
            "feather_nm": st.floats(0, 1e6),
            "normalise_slices": st.booleans(),
        },
    ),
)
LAYERS = st.lists(st.sampled_from(["raw", "restored", "replaced", "semantic", "boundary", "segmentation"]), unique=True)
EXPORT = st.fixed_dictionaries({}, optional={"chunk": SIDES, "layers": LAYERS})
CLUSTER = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("local")},
        optional={"workers": st.integers(1, 99), "memory_limit": st.just("8 GiB"), "worker_wait_s": LENGTH},
    ),
    st.fixed_dictionaries({"kind": st.just("address"), "address": st.just("tcp://10.0.0.5:8786")}),
    st.fixed_dictionaries({"kind": st.just("none")}, optional={"threads_per_worker": st.integers(1, 9)}),
)
COMMON: dict[str, Any] = {
    "voxel_size_nm": st.tuples(LENGTH, LENGTH, LENGTH),
    "block": st.fixed_dictionaries({}, optional={"shape": SIDES}),
    "instances": INSTANCES,
    "export": EXPORT,
    "cluster": CLUSTER,
}
MODELS = st.one_of(TEXT, st.lists(TEXT, min_size=1, max_size=4))
RUNS = st.fixed_dictionaries(
    {"input": TEXT, "output": TEXT}, optional={**COMMON, "model": MODELS, "denoise": DENOISE, "predict": PREDICT}
)
MAPS = st.fixed_dictionaries({"semantic": TEXT, "boundary": TEXT, "output": TEXT}, optional=COMMON)


@given(RUNS)
def test_a_run_survives_json_and_yaml(values: dict[str, Any]) -> None:
    config = parse_config(values)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    plain = json.loads(json.dumps(config.model_dump(mode="json")))
    assert parse_config(plain) == config
    assert parse_config(yaml.safe_load(yaml.safe_dump(plain))) == config


@given(MAPS)
def test_instances_from_maps_survive_json(values: dict[str, Any]) -> None:
    config = parse_settings(InstancesConfig, values)
    assert InstancesConfig.model_validate_json(config.model_dump_json()) == config


@given(INSTANCES)
def test_every_setting_can_be_given_on_the_command_line(instances: dict[str, Any]) -> None:
    values: dict[str, Any] = {"input": "v", "output": "o"}
    for name, value in instances.items():
        values = with_override(values, f"instances.{name}={json.dumps(value)}")
    assert parse_config(values) == parse_config({"input": "v", "output": "o", "instances": instances})


def test_an_override_leaves_the_given_values_alone() -> None:
    values = {"input": "v", "block": {"shape": [1, 2, 3]}}
    changed = with_override(values, "block.shape=[4,5,6]")
    assert changed["block"] == {"shape": [4, 5, 6]}
    assert values["block"] == {"shape": [1, 2, 3]}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("voxel_size_nm", [0.0, 8.0, 8.0], "voxel_size_nm.0=0.0"),
        ("voxel_size_nm", [float("inf"), 8.0, 8.0], "voxel_size_nm.0=inf"),
        ("voxel_size_nm", [float("nan"), 8.0, 8.0], "voxel_size_nm.0=nan"),
        ("instances", {"grow_nm": float("inf")}, "instances.grow_nm=inf"),
        ("instances", {"seed_above": 1.1}, "instances.seed_above=1.1"),
        ("instances", {"connectivity": 8}, "instances.connectivity=8"),
        ("cluster", {"kind": "address"}, "address belongs to kind address"),
        ("cluster", {"kind": "none", "workers": 2}, "workers cannot be set with kind none"),
        ("cluster", {"memory_limit": "much"}, "cluster.memory_limit='much'"),
        ("export", {"layers": ["raw", "all"]}, "export.layers.1='all'"),
        ("predict", {"tta": 5}, "predict.tta=5: Input should be 0, 4, 8 or 16"),
        ("denoise", "on", "denoise.mode='on': Input should be 'off' or 'auto'"),
        ("denoise", {"mask": "mask.tif"}, "a mask belongs to mode auto: give denoise.mode=auto with it"),
        ("denoise", {"mode": "auto", "max_gap": 0}, "denoise.max_gap=0"),
        ("denoise", {"mode": "auto", "kinds": ["dirt"]}, "denoise.kinds.0='dirt'"),
        ("denoise", {"mode": "auto", "kinds": ["blur"], "mask": "m.tif"}, "leave kinds out"),
        ("model", [], "model=[]: Value error, a model is a name or a path, or a list of them"),
        ("model", 3, "model=3: Value error, a model is a name or a path, or a list of them"),
        ("model", ["a", 3], "model=['a', 3]: Value error, a model is a name or a path, or a list of them"),
        ("inptu", "v", "inptu: there is no such setting. Did you mean input?"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_config({"input": "v", "output": "o", key: value})
    assert message in str(refused.value)


def test_denoising_is_one_word_or_a_section_and_the_word_survives_overrides() -> None:
    given = {"input": "v", "output": "o"}
    assert parse_config(given).denoise.mode == "off"
    assert parse_config({**given, "denoise": yaml.safe_load("off")}).denoise.mode == "off"
    both = with_override(with_override(given, "denoise=auto"), "denoise.max_gap=2")
    assert parse_config(both) == parse_config({**given, "denoise": {"mode": "auto", "max_gap": 2}})
    assert parse_config(with_override(with_override(given, "denoise.max_gap=2"), "denoise=auto")) == parse_config(both)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(BadInput) as refused:
        parse_config({"inpt": "v", "block": {"shape": [0, 1]}, "model": 3})
    for part in (
        "inpt: there is no such setting",
        "input: it must be given",
        "output: it must be given",
        "block.shape",
    ):
        assert part in str(refused.value)


def test_one_model_is_a_string_and_several_are_a_list_whatever_they_were_given_as() -> None:
    given = {"input": "v", "output": "o"}
    assert parse_config({**given, "model": ["a"]}) == parse_config({**given, "model": "a"})
    assert parse_config({**given, "model": "a"}).models == ("a",)
    assert parse_config({**given, "model": ["a"]}).model_dump(mode="json")["model"] == "a"
    assert parse_config({**given, "model": ["a", "b"]}).model_dump(mode="json")["model"] == ["a", "b"]
    assert parse_config(with_override(given, "model=[a, b]")).models == ("a", "b")


def test_the_form_of_a_run_offers_one_model_or_a_list_of_them() -> None:
    form = RunConfig.model_json_schema()
    one, several = form["properties"]["model"]["anyOf"]
    assert one == {"type": "string"}
    assert several == {"type": "array", "items": {"type": "string"}, "minItems": 1}
    assert form["properties"]["model"]["default"] == "mito-v1"
    assert form["$defs"]["PredictSettings"]["properties"]["tta"]["enum"] == [0, 4, 8, 16]


def test_the_form_of_a_run_offers_denoising_as_a_section_or_the_word_alone() -> None:
    section, word = RunConfig.model_json_schema()["properties"]["denoise"]["anyOf"]
    assert section == {"$ref": "#/$defs/DenoiseSettings"}
    assert word == {"type": "string", "enum": ["off", "auto"]}
