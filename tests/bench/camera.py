"""Decoded 1080p pictures a second a core, beside the bare zxing-cpp loop in the same process and minute.

Run by itself it measures and prints JSON; ``camera`` is the benchmark that run.py calls. The bare loop is given the
grey picture, the format's name and zxing-cpp's own defaults but one: light on dark is not looked for, as in the driver.
The driver's decoder is given the picture in colour, as a camera gives it. Pairs alternate; rates are per CPU second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import zxingcpp

from edge_agent.driver import load_driver
from edge_agent_drivers.camera.config import CameraSettings
from edge_agent_drivers.camera.decode import Decoder
from support.pictures import FORMATS, Label, Picture, jpeg_of, scene

SIZE = (1920, 1080)
REGION = ["20%", "25%", "30%", "30%"]  # 9 percent of the picture
MODULE = {"datamatrix": 6, "qr": 6, "code128": 3}
PAIRS, FULL, PART, FILES = 5, 12, 120, 60


def measured(format_: str) -> dict[str, float]:
    """full, bare, region and region_bare, pictures a second; ratios are medians of the pairs."""
    picture = scene(Label("SN00000017", format_, at=(480, 350), module=MODULE[format_]), size=SIZE)
    colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    whole, part = _settings(format_), _settings(format_, region=REGION)
    left, top, right, bottom = part.within(*SIZE)
    cut = picture[top:bottom, left:right].copy()
    look, look_there = Decoder(whole), Decoder(part)
    full = _pairs(lambda: look.codes(colour), _bare(picture, format_), FULL)
    region = _pairs(lambda: look_there.codes(colour), _bare(cut, format_), PART)
    names = ("full", "bare", "ratio"), ("region", "region_bare", "region_ratio")
    return dict(zip(names[0] + names[1], full + region, strict=True))


def _settings(format_: str, **more: Any) -> CameraSettings:
    return CameraSettings.model_validate({"source": "/dev/video0", "formats": [format_], **more})


def _bare(picture: Picture, format_: str) -> Callable[[], Any]:
    return lambda: zxingcpp.read_barcodes(picture, formats=FORMATS[format_], try_invert=False)


def _pairs(ours: Callable[[], Any], bare: Callable[[], Any], count: int) -> tuple[float, float, float]:
    pairs = [(_rate(ours, count), _rate(bare, count)) for _ in range(PAIRS)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return mine, theirs, statistics.median(one / other for one, other in pairs)


def _rate(look: Callable[[], Any], count: int) -> float:
    began_s = time.process_time()
    for _ in range(count):
        assert len(look()) == 1
    return count / (time.process_time() - began_s)


async def through_the_driver(folder: Path) -> float:
    """Pictures of a folder a CPU second: read, JPEG decoded, codes found, scans given, file deleted."""
    picture = jpeg_of(scene(Label("SN00000017", at=(480, 350), module=6), size=SIZE))
    for number in range(FILES):
        (folder / f"{number:04}.jpg").write_bytes(picture)
    spec = load_driver("camera")
    keys = {"source": str(folder), "formats": ["datamatrix"], "folder": {"existing": "read", "after": "delete"}}
    driver = spec.create("camera", spec.settings().model_validate(keys))
    began_s, seen = time.process_time(), 0
    await driver.open()
    while seen < FILES:
        seen += len(await driver.read())
    took_s = time.process_time() - began_s
    await driver.close()
    return FILES / took_s


def resident_mb() -> float:
    """Of this process, now."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def main() -> None:
    """Measure, and print it as JSON."""
    found: dict[str, Any] = {format_: measured(format_) for format_ in MODULE}
    with tempfile.TemporaryDirectory() as folder:
        found["folder"] = asyncio.run(through_the_driver(Path(folder)))
    found["rss_mb"] = resident_mb()
    print(json.dumps(found))


def camera(report: Any, folder: Path, options: argparse.Namespace) -> None:
    """(o) 1080p pictures decoded a second a core, formats named, whole and on a region, beside bare zxing-cpp."""
    from rig import AGENT_CORE, output

    found = json.loads(output(__file__, core=AGENT_CORE))
    for name in MODULE:
        its = found[name]
        report.say(
            f"camera_{name}", its["full"], f"1080p a second; bare zxing-cpp {its['bare']:.0f}, {its['ratio']:.2f}"
        )
        text = f"on a region; bare {its['region_bare']:.0f}, {its['region_ratio']:.2f}"
        report.say(f"camera_{name}_region", its["region"], text, 0)
    report.say("camera_folder", found["folder"], "1080p JPEG files a second through the driver", 1)


if __name__ == "__main__":
    main()
