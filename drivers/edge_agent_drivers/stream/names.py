"""The names of serial ports: what is plugged in, and which path a name of the configuration leads to now.

All from sysfs and the links that udev makes: nothing is opened, no device is spoken to, nobody needs rights. Names by
what stays: our udev rule's ``/dev/edge-agent/…``, then ``/dev/serial/by-id/…``, ``/dev/serial/by-path/…`` (for what
has no serial number), and at last ``/dev/ttyUSB0``, which is whoever was first. ``usb:VID:PID[:SERIAL[:INTERFACE]]``
needs no udev at all. A name that fits two ports is refused, never guessed.

``root`` is where ``/dev`` and ``/sys`` stand; tests bring their own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent_drivers.stream.settings import USB_NAME

ROOT = Path("/")
LINKS = ("dev/edge-agent", "dev/serial/by-id", "dev/serial/by-path")
_ABOVE = 6  # levels from a tty's device folder up to its USB device


@dataclass(frozen=True, slots=True)
class Plugged:
    """One serial port of this PC and what is known of the device in it."""

    name: str  # the one that stays longest
    path: str  # /dev/ttyUSB0
    names: tuple[str, ...] = ()  # all of them, the most stable first, without the path
    vendor_id: str = ""  # four hexadecimal digits, as in usb:VID:PID
    product_id: str = ""
    serial: str = ""  # the USB device's serial number
    interface: str = ""  # two hexadecimal digits; a converter with four ports has four
    vendor: str = ""  # texts, as the device gives them
    product: str = ""

    @property
    def is_usb(self) -> bool:
        """It hangs on USB, so it says what it is."""
        return bool(self.vendor_id)

    @property
    def usb_name(self) -> str:
        """``usb:VID:PID:SERIAL``, or "" for a port that is not on USB."""
        return ":".join(filter(None, ("usb", self.vendor_id, self.product_id, self.serial))) if self.is_usb else ""


def plugged(root: Path = ROOT) -> list[Plugged]:
    """The serial ports there are, USB first."""
    links = _links(root)
    found = []
    for tty in sorted(_entries(root / "sys/class/tty"), key=lambda path: (len(path.name), path.name)):
        if (tty / "device").exists() and _text(tty / "type") != "0":  # type 0: a ttyS without a chip behind it
            names = links.pop(os.path.realpath(root / "dev" / tty.name), [])
            found.append(_described(tty, names))
    for target, names in links.items():  # links that lead to no tty of sysfs: pseudo terminals
        if os.path.exists(target):
            found.append(Plugged(names[0], target, tuple(names)))
    return sorted(found, key=lambda port: not port.is_usb)


def resolve(port: str, root: Path = ROOT) -> str:
    """The path of a port named in the configuration. Raises OSError: ENOENT when ``usb:…`` is not plugged in,
    ENOTUNIQ when it fits several. Any other name is its own path; opening it will tell."""
    match = USB_NAME.fullmatch(port)
    if match is None:
        return port
    vendor_id, product_id, serial, interface = match.groups(default="")
    fitting = [
        one
        for one in plugged(root)
        if (one.vendor_id, one.product_id) == (vendor_id.lower(), product_id.lower())
        and serial in ("", one.serial)
        and interface.lower() in ("", one.interface)
    ]
    if not fitting:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), port)
    if len(fitting) > 1:
        names = ", ".join(one.name for one in fitting)
        raise OSError(errno.ENOTUNIQ, f"fits several ports: {names}", port)
    return fitting[0].path


def _described(tty: Path, names: list[str]) -> Plugged:
    path = f"/dev/{tty.name}"
    usb, interface = _usb_of(tty / "device")
    return Plugged(
        name=names[0] if names else path,
        path=path,
        names=tuple(names),
        vendor_id=_text(usb / "idVendor").lower() if usb else "",
        product_id=_text(usb / "idProduct").lower() if usb else "",
        serial=_text(usb / "serial") if usb else "",
        interface=interface,
        vendor=_text(usb / "manufacturer") if usb else "",
        product=_text(usb / "product") if usb else "",
    )


def _usb_of(device: Path) -> tuple[Path | None, str]:
    """The USB device's folder above a tty, and the number of the interface passed on the way."""
    folder, interface = Path(os.path.realpath(device)), ""
    for _ in range(_ABOVE):
        interface = interface or _text(folder / "bInterfaceNumber").lower()
        if (folder / "idVendor").exists():
            return folder, interface
        folder = folder.parent
    return None, ""


def _links(root: Path) -> dict[str, list[str]]:
    """Target → the links to it, the most stable first, as they are named from the root."""
    found: dict[str, list[str]] = {}
    for place in LINKS:
        for link in sorted(_entries(root / place)):
            found.setdefault(os.path.realpath(link), []).append(f"/{place}/{link.name}")
    return found


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError:  # no such folder: nothing of the kind is plugged in
        return


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace").strip()
    except OSError:  # unplugged while we look, or the device does not say
        return ""
