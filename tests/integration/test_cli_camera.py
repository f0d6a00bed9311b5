"""`edge-agent camera snap`, as the program runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from edge_agent import cli
from edge_agent.driver import load_driver
from edge_agent_drivers.camera.config import CameraSettings
from edge_agent_drivers.camera.decode import Decoder
from edge_agent_drivers.camera.opencv import picture_of
from support.mjpeg_camera import Camera
from support.pictures import Label, jpeg_of, scene

CONFIG = """\
agent: {{id: test, location: {{enterprise: acme, site: here, area: hall, line: L1}}, data_dir: {folder}/data}}
devices:
  wave: {{driver: simulated, groups: {{all: {{poll: 50ms, tags: {{a: {{}}}}}}}}}}
  # the camera over the press
  eye: {{driver: camera, source: {folder}, formats: [datamatrix]}}
stations: {{}}
routes: {{}}
"""


class Done(NamedTuple):
    """How the program ended."""

    returncode: int
    stdout: str
    stderr: str


Snap = Callable[..., Done]


@pytest.fixture
def snap(capfd: pytest.CaptureFixture[str]) -> Snap:
    def run(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as ended:
            cli.main(["--lang", "en", "camera", "snap", *map(str, arguments)])
        said = capfd.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "p.jpg"
    path.write_bytes(jpeg_of(scene(Label("SN1", at=(600, 300)), Label("LOT-7", "code128", (560, 500), module=3))))
    return path


def test_it_shows_every_code_and_a_section_that_reads_them(snap: Snap, picture: Path) -> None:
    done = snap(picture, "--out", picture.with_name("seen.jpg"), "--json")
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert {(code["text"], code["format"], code["symbology"]) for code in seen["codes"]} == {
        ("SN1", "datamatrix", "]d1"), ("LOT-7", "code128", "]C0"),
    }  # fmt: skip
    assert (seen["width"], seen["height"]) == (1280, 720)
    section = seen["section"]
    assert section["formats"] == ["code128", "datamatrix"]
    assert section["source"] == str(picture.parent)
    settings = CameraSettings.model_validate(section)
    assert settings.region
    image = picture_of(picture.read_bytes())
    assert image is not None
    assert {code.raw for code in Decoder(settings).codes(image)} == {b"SN1", b"LOT-7"}
    marked = picture_of(picture.with_name("seen.jpg").read_bytes())
    assert marked is not None
    assert marked.shape == image.shape
    corner = next(code["corners"][0] for code in seen["codes"] if code["text"] == "SN1")
    x, y = corner
    assert abs(int(marked[y, x]) - int(image[y, x])) > 10  # something is drawn there


def test_people_get_a_table_and_a_section_to_paste(snap: Snap, picture: Path) -> None:
    done = snap(picture)
    assert done.returncode == 0, done.stderr
    assert "datamatrix" in done.stdout
    pasted = YAML(typ="safe").load(done.stdout[done.stdout.index("  camera:") :])
    CameraSettings.model_validate(pasted["camera"])


def test_a_light_code_on_dark_proposes_inverted(snap: Snap, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(jpeg_of(scene(Label("SN1", inverted=True))))
    seen = json.loads(snap(tmp_path / "p.jpg", "--json").stdout)
    assert seen["section"]["inverted"] is True


def test_without_a_code_it_says_what_to_change_and_ends_with_1(snap: Snap, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(jpeg_of(scene(light=0.1)))
    done = snap(tmp_path / "p.jpg")
    assert done.returncode == 1
    assert "more light" in done.stdout


def test_a_stream_is_looked_through(snap: Snap, tmp_path: Path) -> None:
    camera = Camera(tmp_path, login="joe:pass")
    camera.show(jpeg_of(scene(Label("SN1"))))
    (tmp_path / "password").write_text("pass\n")
    try:
        done = snap(camera.start(), "--user", "joe", "--password-file", tmp_path / "password", "--json")
    finally:
        camera.stop()
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert [code["text"] for code in seen["codes"]] == ["SN1"]
    assert seen["section"]["password"] == {"file": str(tmp_path / "password")}


def test_a_device_of_the_configuration_is_found_and_a_new_one_added(snap: Snap, tmp_path: Path, picture: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    done = snap("eye", "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert [code["text"] for code in json.loads(done.stdout)["codes"]] == ["SN1"]
    done = snap(picture, "--config", config, "--add", "camera2")
    assert done.returncode == 0, done.stderr
    text = config.read_text()
    assert "# the camera over the press" in text
    load_driver("camera").settings().model_validate(YAML(typ="safe").load(text)["devices"]["camera2"])
    assert snap("wave", "--config", config).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["/dev/video99"], 1, "does not exist"),
        (["/dev/null"], 1, "gives no pictures"),
        (["/nowhere/p.jpg"], 1, "No such file"),
        (["rtsp://joe:pass@127.0.0.1/x"], 2, "do not belong into source"),
        (["/tmp", "--formats", "datametrix"], 2, "datamatrix"),
        (["/tmp", "--region", "1,2,3"], 2, "four numbers"),
    ],
)
def test_what_cannot_be_is_told(snap: Snap, arguments: list[str], code: int, said: str) -> None:
    done = snap(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "→" in done.stderr
    assert "Traceback" not in done.stderr
