"""Pictures from a camera that is open: a device of this PC, or a stream.

A thread of its own takes every picture the camera sends and throws away those nobody waits for: only so the newest one
is there when it is asked for, and the lag never grows however long decoding takes. Throwing away costs little, as only
a picture that is wanted is converted (``retrieve``).

A stream that is dead makes ``open`` hang inside ffmpeg, a broken device inside its driver, where no thread can be
stopped from outside. ffmpeg is given ``timeout`` as its bound. What still hangs is left behind: its thread is a daemon
and holds up nothing; but as long as it hangs the same source is not opened again, so there is one such thread at most.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from urllib.parse import quote, urlsplit, urlunsplit

import cv2
import numpy as np

from edge_agent import clock
from edge_agent.driver import SecretMissing
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, DriverError
from edge_agent.model import Instant
from edge_agent_drivers.camera.config import CameraSettings
from edge_agent_drivers.camera.devices import present
from edge_agent_drivers.camera.frame import Frame
from edge_agent_drivers.camera.opencv import Image
from edge_agent_drivers.camera.properties import Properties

CLOSE_S = 1.0
_grabbing: dict[str, threading.Thread] = {}  # by source: who has it open, or hangs in it


class Live:
    """See :class:`edge_agent_drivers.camera.frame.Source`."""

    def __init__(self, device: str, settings: CameraSettings) -> None:
        self._device = device
        self._settings = settings
        self._news = threading.Condition()  # guards all below
        self._stopped = False
        self._opened = False
        self._failure: DriverError | None = None
        self._crash: BaseException | None = None
        self._wanted_mono_ns: int | None = None
        self._frame: Frame | None = None
        self._thread: threading.Thread | None = None
        self.properties = Properties(device, settings)

    def open(self) -> None:
        source = self._settings.source
        before = _grabbing.get(source)
        if before is not None and before.is_alive():
            before.join(CLOSE_S)
            if before.is_alive():
                hint = "the camera or its driver hangs: cut its power, then plug it in again"
                raise DeviceUnavailable(self._device, f"{source}: still hangs in the last try", hint=hint)
        self._thread = threading.Thread(target=self._grab, name=f"camera-{self._device}", daemon=True)
        _grabbing[source] = self._thread
        self._thread.start()
        with self._news:
            self._news.wait_for(lambda: self._settled() or self._opened, self._settings.timeout + CLOSE_S)
            self._raise_failure()
            if not self._opened:
                hint = "is it switched on and connected? `edge-agent camera snap` tries it by itself"
                raise DeviceUnavailable(self._device, f"{source}: does not open", hint=hint)

    def next(self, since_mono_ns: int, timeout_s: float) -> Frame | None:
        with self._news:
            self._frame, self._wanted_mono_ns = None, since_mono_ns
            self._news.wait_for(lambda: self._settled() or self._frame is not None, timeout_s)
            frame, self._frame, self._wanted_mono_ns = self._frame, None, None
            if frame is None:
                self._raise_failure()
            return frame

    def done(self, frame: Frame) -> None:
        """A camera's pictures are gone by themselves."""

    def stop(self) -> None:
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def close(self) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _settled(self) -> bool:
        return self._stopped or self._failure is not None or self._crash is not None

    def _raise_failure(self) -> None:
        if self._crash is not None:
            raise self._crash
        if self._failure is not None:
            raise self._failure

    # --- in the thread ------------------------------------------------------------------------------------------

    def _grab(self) -> None:
        """Open, take pictures until told to stop or the camera is lost, release."""
        capture: cv2.VideoCapture | None = None
        failure: DriverError | None = None
        crash: BaseException | None = None
        try:
            capture = capture_of(self._device, self._settings)
            self.properties.begin(capture)
            with self._news:
                self._opened = True
                self._news.notify_all()
            self._follow(capture)
        except DriverError as error:
            failure = error
        except cv2.error as error:
            failure = DeviceLost(self._device, f"{self._settings.source}: {error.err}", hint=_lost_hint(self._settings))
            failure.__cause__ = error
        except BaseException as error:
            crash = error
            raise
        finally:
            if capture is not None:
                capture.release()
            self._end(failure, crash)

    def _end(self, failure: DriverError | None, crash: BaseException | None) -> None:
        with self._news:
            self._failure, self._crash = failure, crash
            self._news.notify_all()

    def _follow(self, capture: cv2.VideoCapture) -> None:
        lag_ns = int(self._settings.lag * 1e9)
        while not self._stopped:
            if not capture.grab():
                raise DeviceLost(self._device, f"{self._settings.source}: lost", hint=_lost_hint(self._settings))
            now = clock.now()
            at = Instant(now.at_ns - lag_ns, now.mono_ns - lag_ns)
            self.properties.carry_out(capture)
            wanted_mono_ns = self._wanted_mono_ns
            if wanted_mono_ns is None or at.mono_ns < wanted_mono_ns or self._frame is not None:
                continue
            good, image = capture.retrieve()
            if good and image is not None:
                self._give(image.astype(np.uint8, copy=False), at)

    def _give(self, image: Image, at: Instant) -> None:
        with self._news:
            if self._wanted_mono_ns is not None:
                self._frame = Frame(image, at)
                self._news.notify_all()


def capture_of(device: str, settings: CameraSettings) -> cv2.VideoCapture:
    """The camera, open and giving pictures. Blocks. Raises DeviceUnavailable or DeviceRefused."""
    if settings.kind == "device":
        _must_be_ours(device, settings.source)
        capture = cv2.VideoCapture(os.path.realpath(settings.source), cv2.CAP_V4L2)
    else:
        capture = cv2.VideoCapture(_address(device, settings), cv2.CAP_FFMPEG, _ffmpeg(settings))
    if capture.isOpened():
        return capture
    capture.release()
    if settings.kind == "device":
        hint = f"another program has it open (sudo fuser -v {settings.source}), or it is no camera: {present()}"
        raise DeviceUnavailable(device, f"{settings.source}: opens, and gives no pictures", hint=hint)
    hint = "try the address in a player (vlc, ffplay); look at host, port, path, user and password"
    raise DeviceUnavailable(device, f"{settings.source}: no stream comes from there", hint=hint)


def _ffmpeg(settings: CameraSettings) -> Sequence[int]:
    bound_ms = max(1, int(settings.timeout * 1000))
    return [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, bound_ms),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, bound_ms),
        *(cv2.CAP_PROP_N_THREADS, 1),
    ]


def _address(device: str, settings: CameraSettings) -> str:
    """The source with its user and password; never shown to anybody."""
    if not settings.user and settings.password is None:
        return settings.source
    try:
        password = settings.password.reveal() if settings.password else ""
    except SecretMissing as error:
        raise DeviceRefused(device, f"the password is not there: {error.args[0]}", hint=error.hint) from error
    parts = urlsplit(settings.source)
    login = f"{quote(settings.user, safe='')}:{quote(password, safe='')}@"
    return urlunsplit(parts._replace(netloc=login + parts.netloc))


def _must_be_ours(device: str, source: str) -> None:
    """What OpenCV does not say of a device that does not open. Raises DeviceUnavailable or DeviceRefused."""
    if not os.path.exists(source):
        raise DeviceUnavailable(device, f"{source}: does not exist", hint=present())
    if not os.access(source, os.R_OK | os.W_OK):
        hint = "sudo usermod -aG video USER (the user that the agent runs as), then restart the agent"
        raise DeviceRefused(device, f"{source}: permission denied", hint=hint)


def _lost_hint(settings: CameraSettings) -> str:
    if settings.kind == "device":
        return "plug it in again; look at the cable, and at what else is on this USB controller"
    return "look at the camera's power and network; the stream ended, or nothing came for the time-out"
