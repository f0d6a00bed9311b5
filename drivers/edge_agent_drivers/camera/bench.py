"""At the bench: which cameras there are, and one picture of one of them with all that can be read in it.

Listing opens no camera. A snapshot looks for every format, light on dark too, and with both decoders, which is slow;
what it found then says which formats and which region the config needs, and how long decoding takes with those.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from edge_agent import clock
from edge_agent.bench import Bench, Found, SnapCode, Snapshot, Where
from edge_agent.errors import DeviceRefused, DeviceUnavailable
from edge_agent_drivers.camera.config import CameraSettings
from edge_agent_drivers.camera.decode import Code, Decoder, OutsidePicture
from edge_agent_drivers.camera.devices import Plugged, plugged
from edge_agent_drivers.camera.frame import Frame
from edge_agent_drivers.camera.live import Live
from edge_agent_drivers.camera.opencv import SUFFIXES, Image, brightness_of, file_of, picture_of, sharpness_of

WARM_UP = 5  # pictures until a camera has found its exposure
MARGIN = 0.5  # of the codes' extent, on each side: parts do not always lie in the same place
STEP = 5  # percent: a region in round numbers
_GREEN, _BLUE = (0, 200, 0), (255, 120, 0)


def bench() -> Bench:
    """What this driver offers at the bench."""
    return Bench(scan=scan, looks_at=("plugged",), snap=snap)


async def scan(where: Where) -> AsyncIterator[Found]:
    """The cameras that are plugged into this PC. Those of the network say nothing of themselves without their login."""
    for camera in await asyncio.to_thread(plugged):
        yield found_in(camera)


def found_in(camera: Plugged) -> Found:
    """A camera as ``devices scan`` shows it."""
    section = {"driver": "camera", "source": camera.path, "formats": ["datamatrix"]}
    name = re.sub(r"\W+", "_", camera.name.lower()).strip("_")[:30]
    what = f"camera: {camera.name}; edge-agent camera snap {camera.path} shows what it sees"
    return Found("camera", camera.path, what, section, name or "camera")


async def snap(settings: CameraSettings) -> Snapshot:
    """A picture and its codes. Raises DeviceUnavailable, DeviceLost or DeviceRefused."""
    began_s = time.monotonic()
    if settings.kind == "folder":
        frame = await asyncio.to_thread(_file, Path(settings.source))
    else:
        frame = await _picture(settings)
    took_ms = (time.monotonic() - began_s) * 1000
    return await asyncio.to_thread(_judged, settings, frame, took_ms)


async def _picture(settings: CameraSettings) -> Frame:
    """The camera's picture once its exposure is right. Cancelled, it leaves the camera closed."""
    live = Live("camera", settings)
    try:
        await asyncio.to_thread(live.open)
        frame: Frame | None = None
        for _ in range(WARM_UP):
            frame = await asyncio.to_thread(live.next, time.monotonic_ns(), settings.timeout)
        if frame is None:
            what = f"{settings.source}: no picture within {settings.timeout:g} s"
            raise DeviceUnavailable("camera", what, hint="does the camera wait for a trigger of its own?")
        return frame
    finally:
        live.stop()


def _file(path: Path) -> Frame:
    """A picture's file, or the newest one in a folder."""
    try:
        if path.is_dir():
            inside = [one for one in path.iterdir() if one.suffix.lower() in SUFFIXES]
            if not inside:
                raise DeviceUnavailable("camera", f"{path}: no picture is there", hint=f"look at it: ls -l {path}")
            path = max(inside, key=lambda one: one.stat().st_mtime_ns)
        data = path.read_bytes()
    except OSError as error:
        raise DeviceUnavailable("camera", f"{path}: {error.strerror}", hint="name a camera or a picture") from error
    image = picture_of(data)
    if image is None:
        raise DeviceRefused("camera", f"{path}: is no picture that can be read", hint="JPEG, PNG, BMP or TIFF")
    return Frame(image, clock.now(), data, path.suffix.lower(), path.name)


def _judged(settings: CameraSettings, frame: Frame, took_ms: float) -> Snapshot:
    image, tries, codes = frame.image, {}, dict[tuple[bytes, str], Code]()
    high, wide = image.shape[:2]
    for how, changes in _ways(settings):
        decoder = Decoder(settings.model_copy(update=changes))
        try:
            found, tries[how] = _timed(decoder, image)
        except OutsidePicture as error:
            raise DeviceRefused("camera", str(error), hint="look at --region") from error
        for code in found:
            codes.setdefault(code.key, code)
    seen = list(codes.values())
    section = _section(settings, seen, wide, high)
    if _only_inverted(settings, image, seen):
        section["inverted"] = True
    proposed = CameraSettings.model_validate({**section, "password": None, "user": ""})
    part, _origin = Decoder(settings).region(image)
    return Snapshot(
        file_of(_marked(image, seen, proposed), ".jpg", 90), wide, high, brightness_of(part), sharpness_of(part),
        [SnapCode(code.raw, code.format, code.symbology, code.decoder, code.corners) for code in seen],
        round(took_ms, 1), tries, section, _timed(Decoder(proposed), image)[1],
    )  # fmt: skip


def _ways(settings: CameraSettings) -> Sequence[tuple[str, Mapping[str, Any]]]:
    return [
        ("zxing-cpp", {"second_try": False, "inverted": False}),
        ("zxing-cpp, light on dark too", {"second_try": False, "inverted": True}),
        ("both decoders", {"second_try": True, "expect": 100}),  # pyzbar, whatever zxing-cpp has found
    ]


def _timed(decoder: Decoder, image: Image) -> tuple[Sequence[Code], float]:
    began_s = time.perf_counter()
    codes = decoder.codes(image)
    return codes, round((time.perf_counter() - began_s) * 1000, 1)


def _only_inverted(settings: CameraSettings, image: Image, codes: Sequence[Code]) -> bool:
    plain = Decoder(settings.model_copy(update={"second_try": True, "expect": 100, "inverted": False}))
    found = {code.key for code in plain.codes(image)}
    return any(code.key not in found for code in codes)


def _section(settings: CameraSettings, codes: Sequence[Code], wide: int, high: int) -> dict[str, Any]:
    """The device's section with what was found; without codes, as it was asked for."""
    source = settings.source
    if settings.kind == "folder" and source.lower().endswith(SUFFIXES):
        source = str(Path(source).parent)  # one picture was shown: others will come into its folder
    section: dict[str, Any] = {"driver": "camera", "source": source}
    if settings.user:
        section["user"] = settings.user
    if settings.password is not None:
        section["password"] = settings.password.model_dump(exclude_none=True)
    known = sorted({code.format for code in codes}) if codes else list(settings.formats)
    section["formats"] = known
    region = _around(codes, wide, high) if codes else list(settings.region)
    if region:
        section["region"] = region
    if settings.kind != "folder" and any(code.decoder == "pyzbar" for code in codes):
        section["second_try"] = True
    return section


def _around(codes: Sequence[Code], wide: int, high: int) -> list[str]:
    """A region that holds all codes with a margin, in round percents; [] when it would be most of the picture."""
    edges = []
    for axis, size in ((0, wide), (1, high)):
        places = [corner[axis] for code in codes for corner in code.corners]
        margin = max(MARGIN * (max(places) - min(places)), 0.05 * size)
        low = int(max(0, min(places) - margin) * 100 / size) // STEP * STEP
        top = -(-int(min(size, max(places) + margin) * 100 / size + 1) // STEP) * STEP
        edges.append((low, min(100, top) - low))
    (x, width), (y, height) = edges
    return [] if width * height > 6000 else [f"{edge}%" for edge in (x, y, width, height)]


def _marked(image: Image, codes: Sequence[Code], proposed: CameraSettings) -> Image:
    """The picture in colour with each code framed and the proposed region around them."""
    shown = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image.copy()
    stroke = max(1, shown.shape[1] // 500)
    for code in codes:
        for start, end in zip(code.corners, (*code.corners[1:], *code.corners[:1]), strict=True):
            cv2.line(shown, start, end, _GREEN, stroke)
    left, top, right, bottom = proposed.within(shown.shape[1], shown.shape[0])
    cv2.rectangle(shown, (left, top), (right - 1, bottom - 1), _BLUE, stroke)
    return shown  # type: ignore[return-value]
