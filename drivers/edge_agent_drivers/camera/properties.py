"""Resolution, exposure and the like of a USB camera: set, read back, compared.

A camera that does not take a setting says nothing: OpenCV's ``set`` often returns true. So each one is read back, and
what differs ends ``open`` with what the camera has instead. All of it runs in the thread that owns the camera; a tag
that is written meanwhile waits here for the next picture.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

import cv2

from edge_agent.errors import DeviceRefused, ValueNotKept
from edge_agent_drivers.camera.config import CameraSettings, PictureSettings

TOLERANCE = 0.05
ASKED_MAX = 16
_MANUAL_EXPOSURE = 1  # V4L2_EXPOSURE_MANUAL
_TAGS = {"exposure": cv2.CAP_PROP_EXPOSURE, "gain": cv2.CAP_PROP_GAIN}
_FOURCC = {"mjpg": "MJPG", "yuyv": "YUYV"}


class Properties:
    """The settings of one open camera."""

    def __init__(self, device: str, settings: CameraSettings) -> None:
        self._device = device
        self._settings = settings
        self._lock = threading.Lock()
        self._asked: deque[tuple[str, float, Future[None]]] = deque()
        self._values: dict[str, float] = {}

    def value(self, name: str) -> float | None:
        """Exposure or gain, as it was last read from the camera; None when it has none."""
        return self._values.get(name)

    def ask(self, name: str, value: float) -> Future[None]:
        """Set exposure or gain with the next picture. The future raises DeviceRefused or ValueNotKept."""
        future: Future[None] = Future()
        with self._lock:
            if len(self._asked) >= ASKED_MAX:
                raise DeviceRefused(self._device, f"{name}: too many writes wait", hint="the camera gives no pictures")
            self._asked.append((name, value, future))
        return future

    def begin(self, capture: cv2.VideoCapture) -> None:
        """Set what the config says. Raises DeviceRefused."""
        if self._settings.kind != "device":
            return
        wrong = []
        for name, number, value in _wanted(self._settings.picture):
            taken = capture.set(number, value)
            found = capture.get(number)
            if not _same(found, value) and not (name in ("auto exposure", "auto focus") and taken):
                wrong.append(f"{name} {_shown(name, value)} (it has {_shown(name, found)})")
        if wrong:
            hint = "see what it can: v4l2-ctl --list-formats-ext --list-ctrls; write that, or take the key away"
            raise DeviceRefused(self._device, f"the camera does not take {', '.join(wrong)}", hint=hint)
        self._look(capture)

    def carry_out(self, capture: cv2.VideoCapture) -> None:
        """The writes that wait, if any."""
        while self._asked:
            with self._lock:
                name, value, future = self._asked.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            if name == "exposure":
                capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL_EXPOSURE)
            taken = capture.set(_TAGS[name], value)
            found = capture.get(_TAGS[name])
            self._look(capture)
            if not taken:
                what, hint = f"{name}: the camera does not take {value}", "see what it has: v4l2-ctl --list-ctrls"
                future.set_exception(DeviceRefused(self._device, what, hint=hint))
            elif not _same(found, value):
                hint = "see its range and steps: v4l2-ctl --list-ctrls"
                future.set_exception(ValueNotKept(self._device, f"{name}: {value} became {found}", hint=hint))
            else:
                future.set_result(None)

    def _look(self, capture: cv2.VideoCapture) -> None:
        self._values = {name: capture.get(number) for name, number in _TAGS.items()}


def _wanted(picture: PictureSettings) -> Iterator[tuple[str, int, float]]:
    """(name, property, value) in the order in which cameras take them: the encoding decides what sizes there are."""
    if picture.encoding is not None:
        yield "encoding", cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*_FOURCC[picture.encoding])
    if picture.width is not None and picture.height is not None:
        yield "width", cv2.CAP_PROP_FRAME_WIDTH, picture.width
        yield "height", cv2.CAP_PROP_FRAME_HEIGHT, picture.height
    if picture.fps is not None:
        yield "fps", cv2.CAP_PROP_FPS, picture.fps
    if picture.exposure is not None:
        yield "auto exposure", cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL_EXPOSURE
        yield "exposure", cv2.CAP_PROP_EXPOSURE, picture.exposure
    if picture.gain is not None:
        yield "gain", cv2.CAP_PROP_GAIN, picture.gain
    if picture.focus is not None:
        yield "auto focus", cv2.CAP_PROP_AUTOFOCUS, 0
        yield "focus", cv2.CAP_PROP_FOCUS, picture.focus


def _same(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= max(TOLERANCE * abs(wanted), 0.5)


def _shown(name: str, value: float) -> str:
    if name != "encoding":
        return f"{value:g}"
    return int(value).to_bytes(4, "little", signed=value < 0).decode("ascii", "replace").lower()
