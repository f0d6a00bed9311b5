"""The cameras that are plugged into this PC, by names that survive a replug. Opens none of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEV, SYS = Path("/dev"), Path("/sys/class/video4linux")


@dataclass(frozen=True, slots=True)
class Plugged:
    """A camera of this PC."""

    path: str  # /dev/v4l/by-id/…, or /dev/videoN for one without a name of its own
    name: str  # what it calls itself


def plugged(dev: Path = DEV, sys: Path = SYS) -> list[Plugged]:
    """All that give pictures. A UVC camera has a second node, for metadata only: its ``index`` is not 0."""
    stable = {}
    for folder in ("by-path", "by-id"):  # the latter is the better name, and wins
        for link in _listed(dev / "v4l" / folder):
            stable[os.path.basename(os.path.realpath(link))] = str(link)
    found = []
    for node in _listed(sys):
        if _text(node / "index") in ("", "0"):
            name = _text(node / "name") or node.name
            found.append(Plugged(stable.get(node.name, str(dev / node.name)), name))
    return found


def present() -> str:
    """A hint that says what could have been meant."""
    found = plugged()[:8]
    if not found:
        return "no camera is plugged in: ls -l /dev/v4l/by-id"
    return "plug it in, or write one of these: " + ", ".join(camera.path for camera in found)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
