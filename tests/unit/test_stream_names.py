"""Names of serial ports, on a folder that looks like /sys and /dev."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edge_agent_drivers.stream.names import plugged, resolve


class Pc:
    """A PC whose devices are files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/class/tty").mkdir(parents=True)
        (root / "dev/serial/by-id").mkdir(parents=True)

    def tty(self, name: str, device: Path | None, kind: str | None = None) -> None:
        folder = self.root / "sys/class/tty" / name
        folder.mkdir()
        (self.root / "dev" / name).touch()
        if device is not None:
            device.mkdir(parents=True, exist_ok=True)
            (folder / "device").symlink_to(device)
        if kind is not None:
            (folder / "type").write_text(kind + "\n")

    def usb(
        self, socket: str, name: str, *, interface: str = "00", by_id: str = "", place: str = "", **about: str
    ) -> None:
        """A USB device in a socket, with its tty two folders below."""
        device = self.root / "sys/devices/pci0/usb1" / socket
        folder = device / f"{socket}:1.{int(interface, 16)}"
        folder.mkdir(parents=True)
        (folder / "bInterfaceNumber").write_text(interface + "\n")
        for file, text in about.items():
            (device / file).write_text(text + "\n")
        self.tty(name, folder / name)
        for link in filter(None, [place, by_id and f"dev/serial/by-id/{by_id}"]):
            (self.root / link).parent.mkdir(parents=True, exist_ok=True)
            (self.root / link).symlink_to(self.root / "dev" / name)


FTDI = {"idVendor": "0403", "idProduct": "6001", "manufacturer": "FTDI", "product": "FT232R USB UART"}


@pytest.fixture
def pc(tmp_path: Path) -> Pc:
    return Pc(tmp_path)


def test_what_is_plugged_in_is_listed_by_the_name_that_stays(pc: Pc) -> None:
    pc.usb("1-1", "ttyUSB0", serial="A50285BI", by_id="usb-FTDI_A50285BI-if00-port0", **FTDI)
    pc.usb(
        "1-2",
        "ttyACM0",
        idVendor="0C2E",
        idProduct="0b6a",
        place="dev/edge-agent/1950-22139B0C1F-00",
        by_id="usb-H-if00",
    )
    (first, second) = plugged(pc.root)
    assert (first.name, first.path) == ("/dev/edge-agent/1950-22139B0C1F-00", "/dev/ttyACM0")
    assert first.names == ("/dev/edge-agent/1950-22139B0C1F-00", "/dev/serial/by-id/usb-H-if00")
    assert first.vendor_id == "0c2e"
    assert (second.name, second.product) == ("/dev/serial/by-id/usb-FTDI_A50285BI-if00-port0", "FT232R USB UART")
    assert second.usb_name == "usb:0403:6001:A50285BI"


def test_only_ports_with_a_chip_behind_them_are_listed(pc: Pc) -> None:
    pc.tty("ttyS0", pc.root / "sys/devices/pnp0/00:01", kind="4")
    pc.tty("ttyS1", pc.root / "sys/devices/platform/serial8250", kind="0")
    pc.tty("tty1", None)
    assert [(port.name, port.is_usb) for port in plugged(pc.root)] == [("/dev/ttyS0", False)]


def test_a_link_to_a_pseudo_terminal_is_listed_and_a_dangling_one_not(pc: Pc) -> None:
    (pc.root / "dev/pts9").touch()
    (pc.root / "dev/serial/by-id/usb-socat").symlink_to(pc.root / "dev/pts9")
    (pc.root / "dev/serial/by-id/usb-gone").symlink_to(pc.root / "dev/ttyUSB7")
    (port,) = plugged(pc.root)
    assert (port.name, port.path) == ("/dev/serial/by-id/usb-socat", str(pc.root / "dev/pts9"))


def test_a_pc_without_any_port_has_none(tmp_path: Path) -> None:
    assert plugged(tmp_path) == []


def test_usb_names_lead_to_the_path_of_now(pc: Pc) -> None:
    pc.usb("1-1", "ttyUSB3", serial="A1", **FTDI)
    assert resolve("usb:0403:6001", pc.root) == "/dev/ttyUSB3"
    assert resolve("usb:0403:6001:A1", pc.root) == "/dev/ttyUSB3"
    assert resolve("/dev/ttyUSB0", pc.root) == "/dev/ttyUSB0"
    for absent in ("usb:0403:6001:A2", "usb:0403:6010", "usb:1a86:7523"):
        with pytest.raises(FileNotFoundError):
            resolve(absent, pc.root)


def test_a_name_that_fits_two_ports_is_refused_and_names_them(pc: Pc) -> None:
    pc.usb("1-1", "ttyUSB0", serial="A1", **FTDI)
    pc.usb("1-2", "ttyUSB1", serial="A2", **FTDI)
    with pytest.raises(OSError, match=r"ttyUSB0.*ttyUSB1") as refused:
        resolve("usb:0403:6001", pc.root)
    assert refused.value.errno == errno.ENOTUNIQ
    assert resolve("usb:0403:6001:A2", pc.root) == "/dev/ttyUSB1"


def test_the_ports_of_one_adapter_are_told_apart_by_their_interface(pc: Pc) -> None:
    pc.usb("1-1", "ttyUSB0", serial="A1", interface="00", **FTDI)
    pc.usb("1-1", "ttyUSB1", serial="A1", interface="01", **FTDI)
    assert resolve("usb:0403:6001:A1:01", pc.root) == "/dev/ttyUSB1"
    assert resolve("usb:0403:6001::00", pc.root) == "/dev/ttyUSB0"
