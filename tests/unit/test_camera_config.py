"""What a camera's section may say, and what it is told otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.model import Tag
from edge_agent_drivers.camera.bench import found_in
from edge_agent_drivers.camera.config import CameraSettings, describe
from edge_agent_drivers.camera.devices import Plugged, plugged

USB = {"source": "/dev/v4l/by-id/usb-x", "formats": ["datamatrix"]}
FOLDER = {"source": "/srv/pictures", "formats": ["datamatrix"]}
STREAM = {"source": "rtsp://10.0.0.8/live", "formats": ["datamatrix"]}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({**USB, "source": "video0"}, "is no source"),
    ({**USB, "source": "ftp://host/x"}, "no stream can be had"),
    ({**USB, "source": "rtsp://joe:secret@host/x"}, "do not belong into source"),
    ({**USB, "user": "joe"}, "are for rtsp"),
    ({**STREAM, "picture": {"gain": 1.0}}, "is for USB cameras"),
    ({**USB, "picture": {"width": 640}}, "together"),
    ({**USB, "folder": {}}, "a source that is a folder"),
    ({**FOLDER, "mode": "triggered"}, "take mode: away"),
    ({**FOLDER, "folder": {"existing": "read"}}, "after: move or delete"),
    ({**USB, "formats": []}, "at least 1"),
    ({**USB, "formats": ["all", "qr"]}, "all alone"),
    ({**USB, "formats": ["datametrix"]}, "datamatrix"),
    ({**USB, "region": [1, 2, 3]}, "four numbers"),
    ({**USB, "region": ["1%", 2, 3, 4]}, "all in percent"),
    ({**USB, "region": [1, 2, 0, 4]}, "is empty"),
    ({**USB, "region": ["60%", "0%", "50%", "10%"]}, "at most 100%"),
    ({**USB, "groups": {"g": {"tags": {"photo": {}}}}}, "write photos"),
    ({**USB, "groups": {"g": {"tags": {"colour": {}}}}}, "does not say what it is"),
    ({**STREAM, "groups": {"g": {"tags": {"exposure": {}}}}}, "USB cameras only"),
    ({**USB, "groups": {"g": {"tags": {"code": {"write": True}}}}}, "cannot be written"),
    ({**USB, "groups": {"g": {"tags": {"code": {}}}, "h": {"tags": {"code": {}}}}}, "named twice"),
    ({**USB, "tags": {"trigger": {"write": True}}}, "needs mode: triggered"),
    ({**USB, "tags": {"gain": {}}}, "not writable"),
    ({**USB, "tags": {"lamp": {"write": True}}}, "cannot be written"),
    ({**STREAM, "tags": {"gain": {"write": True}}}, "only USB cameras"),
]


@pytest.mark.parametrize(("keys", "said"), WRONG)
def test_a_contradiction_is_told(keys: dict[str, Any], said: str) -> None:
    with pytest.raises((ValidationError, ValueError)) as wrong:
        describe("camera", CameraSettings.model_validate(keys))
    assert said in str(wrong.value)
    assert "secret" not in str(wrong.value).split("input_value")[0]


def test_the_shape_says_what_the_camera_offers() -> None:
    keys = {
        **USB, "mode": "triggered", "photos": {"folder": "/photos"},
        "groups": {
            "asked": {"on_trigger": True, "tags": {"picture": {"value": "photo"}, "gain": {"write": True}}},
            "said": {"tags": {"codes": {}}},
        },
        "tags": {"shoot": {"value": "trigger", "write": True}},
    }  # fmt: skip
    shape = describe("camera", CameraSettings.model_validate(keys))
    assert shape.scans
    assert shape.writable == {"gain", "shoot"}
    assert (shape.tag("shoot"), shape.tag("gain")) == (Tag("shoot", "bool"), Tag("gain", "float64"))
    assert shape.port == (USB["source"], "")
    assert (shape.groups["asked"].spoken, shape.groups["said"].spoken) == (False, True)
    assert [tag.type for tag in shape.groups["asked"].tagset.tags] == ["string", "float64"]
    assert shape.groups["said"].tagset.tags[0].type == "string[]"


def test_a_region_is_cut_to_the_picture() -> None:
    settings = CameraSettings.model_validate({**USB, "region": ["25%", "50%", "50%", "50%"]})
    assert settings.within(1920, 1080) == (480, 540, 1440, 1080)
    settings = CameraSettings.model_validate({**USB, "region": [1800, 0, 400, 100]})
    assert settings.within(1920, 1080) == (1800, 0, 1920, 100)


def test_the_cameras_of_a_pc_are_listed_by_names_that_stay(tmp_path: Path) -> None:
    dev, sys = tmp_path / "dev", tmp_path / "sys"
    for number, index, name in ((0, 0, "HD Camera"), (1, 1, "HD Camera"), (2, 0, "Microscope")):
        (dev / f"video{number}").parent.mkdir(parents=True, exist_ok=True)
        (dev / f"video{number}").touch()
        (sys / f"video{number}").mkdir(parents=True)
        (sys / f"video{number}" / "index").write_text(f"{index}\n")
        (sys / f"video{number}" / "name").write_text(f"{name}\n")
    for folder, link in (("by-id", "usb-HD-video-index0"), ("by-path", "pci-0-video-index0")):
        (dev / "v4l" / folder).mkdir(parents=True)
        (dev / "v4l" / folder / link).symlink_to("../../video0")
    found = plugged(dev, sys)
    by_id = str(dev / "v4l" / "by-id" / "usb-HD-video-index0")
    assert [(one.path, one.name) for one in found] == [(by_id, "HD Camera"), (str(dev / "video2"), "Microscope")]
    assert plugged(tmp_path / "none", tmp_path / "none") == []


def test_what_is_found_is_a_section_that_loads() -> None:
    found = found_in(Plugged("/dev/video0", "HD Camera"))
    assert (found.name, found.where) == ("hd_camera", "/dev/video0")
    CameraSettings.model_validate(dict(found.section))
