"""From a source to its file, and from a file's text to a value. Blocking: the driver calls it in its thread.

Numbers of chips (hwmon3, iio:device0) depend on the order in which the kernel found them, so a chip is looked up by
its name, and by its address where several have one name. A value that the kernel or the sensor doubts is no value:
a 1-wire checksum that failed, the 85 °C that a DS18B20 shows before its first conversion, a channel with its fault bit.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from edge_agent.model import Value
from edge_agent_drivers.sensors.config import SensorTag, Source, parse_source

MAX_BYTES = 4096
POWER_ON_MILLI_C = 85_000
_FOLDERS = {"hwmon": "sys/class/hwmon", "iio": "sys/bus/iio/devices"}
_W1 = "sys/bus/w1/devices"


class NotThere(Exception):
    """A source that leads to no file; the text says why, and what there is."""


class NoScale(Exception):
    """The kernel shows what the converter counted, and not what a count is."""


def chips(root: Path, kind: str) -> Iterator[tuple[str, str, Path]]:
    """(name, address, folder) of every chip of this kind."""
    for folder in sorted((root / _FOLDERS[kind]).glob("*")):
        try:
            name = (folder / "name").read_text().strip()
        except OSError:
            continue
        parent = (folder / "device") if kind == "hwmon" else folder
        place = parent.resolve().name if kind == "hwmon" else folder.resolve().parent.name
        yield name, place, folder


def thermometers(root: Path) -> list[str]:
    """The ids of what is on the 1-wire bus and shows a temperature."""
    return sorted(path.parent.name for path in (root / _W1).glob("*-*/w1_slave"))


def folder_of(root: Path, source: Source) -> Path:
    """The chip's folder, for ``hwmon`` and ``iio``. Raises NotThere."""
    every = list(chips(root, source.kind))
    found = [(at, path) for name, at, path in every if name == source.chip and source.at in ("", at)]
    if not found:
        there = ", ".join(sorted({name for name, _, _ in every})) or "none"
        raise NotThere(f"no {source.kind} chip {source.chip}{source.at and '@' + source.at}; there are: {there}")
    if len(found) > 1:
        names = ", ".join(f"{source.chip}@{at}" for at, _ in found)
        raise NotThere(f"{len(found)} {source.kind} chips are named {source.chip}: write one of {names}")
    return found[0][1]


def text_of(path: Path) -> str:
    """The file's text, at most MAX_BYTES. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe under this name must not hang us
    try:
        return os.read(descriptor, MAX_BYTES).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)


def read_tag(root: Path, tag: SensorTag) -> tuple[Value, str]:
    """The tag's value, and why there is none ("" if there is)."""
    source = parse_source(tag.source)
    try:
        if tag.type in ("string", "bool"):
            text = text_of(root / source.chip.lstrip("/"))
            return _plain(text, tag.type)
        number = _number(root, source)
        if number is None:
            return None, "power-on value" if source.kind == "w1" else "sensor fault"
        number = number.scaleb(source.exponent) * Decimal(repr(tag.scale)) + Decimal(repr(tag.offset))
        if tag.type == "int64":
            return _whole(number)
        value = float(number)
        return (value, "") if abs(value) < float("inf") else (None, "not a number")
    except NotThere:
        return None, "not there"
    except NoScale:
        return None, "the kernel gives no scale"
    except (InvalidOperation, ValueError):
        return None, "not a number"
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO)
        return None, "not there" if gone else f"cannot be read: {os.strerror(error.errno or 0)}"


def _plain(text: str, kind: str) -> tuple[Value, str]:
    if kind == "string":
        return (text, "") if text.isprintable() and "\ufffd" not in text else (None, "not text")
    return _finite(text) != 0, ""


def _whole(number: Decimal) -> tuple[Value, str]:
    if number != number.to_integral_value() or abs(number) > 2**63:
        return None, "not a whole number"
    value = int(number)
    return (value if abs(value) <= 2**53 else str(value)), ""


def _number(root: Path, source: Source) -> Decimal | None:
    """In the kernel's unit; None when the sensor itself doubts it."""
    if source.kind == "file":
        return _finite(text_of(root / source.chip.lstrip("/")))
    if source.kind == "w1":
        return _one_wire(text_of(root / _W1 / source.chip / "w1_slave"))
    folder = folder_of(root, source)
    if source.kind == "hwmon":
        if (folder / f"{source.channel}_fault").exists() and text_of(folder / f"{source.channel}_fault") == "1":
            return None
        name = f"{source.channel}_input"
        if not (folder / name).exists() and source.channel.startswith("power"):
            name = f"{source.channel}_average"
        return _finite(text_of(folder / name))
    if (folder / f"{source.channel}_input").exists():
        return _finite(text_of(folder / f"{source.channel}_input"))
    raw = _finite(text_of(folder / f"{source.channel}_raw"))
    scale = _part(folder, source.channel, "scale")
    if scale is None:
        raise NoScale  # counts in no unit: never shown as °C, V or m
    return (raw + (_part(folder, source.channel, "offset") or 0)) * scale


def _part(folder: Path, channel: str, what: str) -> Decimal | None:
    """The scale or offset of a channel: its own (in_voltage0_scale, in_temp_object_scale), else what all channels of
    its kind share (in_voltage_scale, in_temp_scale), or all inputs, or all channels. None when there is none."""
    way, _, rest = channel.partition("_")
    kind = rest.partition("_")[0].rstrip("0123456789")
    for name in (f"{channel}_", f"{way}_{kind}_", f"{way}_", ""):
        path = folder / f"{name}{what}"
        if path.exists():
            return _finite(text_of(path))
    return None


def _one_wire(text: str) -> Decimal | None:
    """Milli-degrees of the two lines of w1_slave: "... crc=6e YES" and "... t=23125"."""
    first, _, second = text.partition("\n")
    if not first.endswith("YES"):
        raise OSError(errno.EBADMSG, "checksum")
    number = _finite(second.rpartition("t=")[2])
    return None if number == POWER_ON_MILLI_C else number


def _finite(text: str) -> Decimal:
    number = Decimal(text if text.isascii() else "")
    if not number.is_finite():
        raise ValueError("not a number")
    return number
