"""From the picture to the trace: the code opens the unit's cycle, and the photo is one of the values of its cycle."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.mjpeg_camera import Camera
from support.pictures import Label, jpeg_of, scene

CONFIG = """\
agent: {{id: test, location: {{enterprise: acme, site: here, area: hall, line: L1}}, data_dir: {folder}/data}}
buffer: {{min_free: 10MiB, ballast: 1MiB}}
devices:
  press:
    driver: simulated
    groups: {{state: {{poll: 50ms, tags: {{done: {{wave: square, period: 2s}}}}}}}}
  camera:
    driver: camera
    source: {url}
    formats: [datamatrix]
    photos: {{folder: {folder}/photos, min_free: 0B}}
    groups:
      inspection: {{on_trigger: true, tags: {{photo: {{}}, code: {{}}, sharpness: {{}}}}}}
stations:
  OP10:
    step: inspect
    identity: {{when: before, scan: camera, pattern: '^(?P<serial>SN[0-9]{{8}})$'}}
    cycle: {{end: {{tag: press.done, edge: rising, read: camera.inspection}}, timeout: 1min}}
    collect:
      photo: {{tag: camera.photo, required: true}}
      focus: {{tag: camera.sharpness, limits: [1, null]}}
routes: {{}}
"""
SERIAL = "SN00000042"


def edge_agent(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", "--config", str(folder / "config.yaml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def closed_cycles(folder: Path) -> Sequence[dict[str, Any]]:
    done = edge_agent(folder, "trace", SERIAL, "--json")
    if done.returncode:
        return []
    units = json.loads(done.stdout)["units"]
    return [cycle for unit in units for cycle in unit["cycles"] if cycle["state"] == "closed"]


def test_the_photo_of_a_unit_is_found_from_its_serial(tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    camera = Camera(tmp_path / "camera")
    camera.show(jpeg_of(scene(Label(SERIAL))))
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path, url=camera.start()))
    checked = edge_agent(tmp_path, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "edge_agent", "--config", str(tmp_path / "config.yaml"), "run"]
        agent = subprocess.Popen(command, stderr=log)
    try:
        deadline_s = time.monotonic() + 30
        while not (cycles := closed_cycles(tmp_path)) and time.monotonic() < deadline_s:
            time.sleep(0.5)
    finally:
        agent.terminate()
        agent.wait(20)
        camera.stop()
    said = (tmp_path / "log").read_text()
    assert cycles, said
    collected = {each["name"]: each for each in cycles[0]["collected"]}
    photo = str(collected["photo"]["value"])
    file = tmp_path / "photos" / photo[:2] / f"{photo}.jpg"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == photo
    assert collected["focus"]["judgement"] == "ok"
    assert cycles[0]["complete"]
    assert agent.returncode == 0, said
