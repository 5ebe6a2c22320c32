"""The web server of ``teramito view``."""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from running import ended, exported_run, teramito

import flows.view
from flows.view import Shown, exported, serving, state_of
from pipeline.engine.directory import RunDirectory
from pipeline.errors import BadInput


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run directory with two exported layers of 20 x 40 x 50 voxels at 30 x 8 x 8 nm."""
    return RunDirectory(exported_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(params=["with Neuroglancer", "without Neuroglancer"])
def shown(run: RunDirectory, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    """The run served in both ways."""
    if request.param == "without Neuroglancer":
        monkeypatch.setattr(flows.view, "find_spec", lambda _name: None)
    else:
        pytest.importorskip("neuroglancer")
    with serving(run) as served:
        yield served


def _get(url: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request(method, parts.path)  # the path exactly as given, dots and all
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def _base(shown: Shown) -> str:
    return shown.layers["raw"].removeprefix("precomputed://").removesuffix("/raw")


def test_only_loopback_is_served(shown: Shown) -> None:
    assert _base(shown).startswith("http://127.0.0.1:")


def test_a_zipped_chunk_is_served_under_its_plain_name_to_any_origin(shown: Shown, run: RunDirectory) -> None:
    stored = next((run.precomputed / "raw" / "8_8_30").glob("*.gz"))
    status, headers, body = _get(f"{_base(shown)}/raw/8_8_30/{stored.name.removesuffix('.gz')}")
    assert status == 200
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Content-Type"] == "application/octet-stream"
    assert len(gzip.decompress(body)) == 20 * 40 * 50


def test_the_info_is_served_as_it_is(shown: Shown, run: RunDirectory) -> None:
    status, headers, body = _get(f"{_base(shown)}/segmentation/info")
    assert (status, headers["Content-Encoding"]) == (200, None)
    assert body == (run.precomputed / "segmentation" / "info").read_bytes()


def test_a_missing_chunk_is_404_and_says_so_to_any_origin(shown: Shown) -> None:
    status, headers, _ = _get(f"{_base(shown)}/raw/8_8_30/900-901_0-1_0-1")
    assert (status, headers["Access-Control-Allow-Origin"]) == (404, "*")


@pytest.mark.parametrize("path", ["../run.json", "raw/../../run.json", "..%2frun.json", "/etc/passwd", "%2fetc/passwd"])
def test_nothing_outside_of_the_export_is_served(shown: Shown, path: str) -> None:
    status, _, body = _get(f"{_base(shown)}/{path}")
    assert status in (403, 404)
    assert b"root:" not in body


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_nothing_can_be_written(shown: Shown, method: str) -> None:
    assert _get(f"{_base(shown)}/raw/info", method)[0] == 405


def test_another_site_may_ask_a_loopback_server(shown: Shown) -> None:
    status, headers, _ = _get(f"{_base(shown)}/raw/info", "OPTIONS")
    assert (status, headers["Access-Control-Allow-Private-Network"]) == (204, "true")


def test_without_the_token_nothing_is_there(shown: Shown) -> None:
    base = _base(shown)
    assert _get(f"{base.rpartition('/')[0]}/guess/raw/info")[0] == 404


def test_the_page_is_there_or_the_link_holds_the_layers(shown: Shown) -> None:
    if shown.offline:
        with urllib.request.urlopen(shown.page, timeout=30) as page:
            assert b"<title>" in page.read()
    else:
        state = json.loads(unquote(shown.page.partition("#!")[2]))
        assert [layer["source"] for layer in state["layers"]] == list(shown.layers.values())


def test_the_whole_volume_is_in_view_and_maps_are_switched_off(run: RunDirectory) -> None:
    state = state_of(exported(run), "http://h")
    assert state["position"] == [25.0, 20.0, 10.0]
    assert state["dimensions"]["z"] == [pytest.approx(3e-8), "m"]
    assert state["crossSectionScale"] == pytest.approx(600 / 340 / 8)  # 600 nm along z, in voxels of 8 nm
    assert [layer["name"] for layer in state["layers"]] == ["raw", "segmentation"]


def test_a_taken_port_is_one_message(run: RunDirectory, shown: Shown) -> None:
    port = urlsplit(_base(shown)).port
    with (
        pytest.raises(BadInput, match="the port must be free"),
        flows.view._files_only(run.precomputed, exported(run), port or 0),
    ):
        pass


def test_a_run_without_an_export_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInput, match="nothing of this run is exported yet"), serving(RunDirectory(tmp_path)):
        pass


def test_the_command_refuses_a_directory_that_is_no_run(tmp_path: Path) -> None:
    code, errors = ended(teramito("view", str(tmp_path), api=None))
    assert code == 1
    assert "this is no run directory" in errors


def test_the_command_prints_the_address_and_ctrl_c_ends_it(run: RunDirectory) -> None:
    process = teramito("view", str(run.root), api=None)
    assert next(line for line in process.stdout if line.startswith("open http"))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
