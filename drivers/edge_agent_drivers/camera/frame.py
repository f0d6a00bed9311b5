"""A picture on its way to the decoder, and what a source of pictures promises. Everything here blocks: threads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edge_agent.model import Instant
from edge_agent_drivers.camera.opencv import Image


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, and when it was taken."""

    image: Image
    at: Instant
    file: bytes = b""  # the file it was read from, as it is; empty for what comes from a camera
    suffix: str = ""
    name: str = ""


class Source(Protocol):
    """Where pictures come from. ``stop`` may be called from any thread, all else from the frame loop's alone."""

    def open(self) -> None:
        """Raises DeviceUnavailable or DeviceRefused."""

    def next(self, since_mono_ns: int, timeout_s: float) -> Frame | None:
        """A picture taken after ``since_mono_ns``; None when none came in this time, or ``stop`` was called. Raises
        DeviceLost, or ReadingRejected for a picture that cannot be read."""

    def done(self, frame: Frame) -> None:
        """This picture's result is given away. Raises DeviceLost."""

    def stop(self) -> None:
        """Make ``open`` and ``next`` return soon, whatever they wait for."""

    def close(self) -> None:
        """Give back what ``open`` took."""
