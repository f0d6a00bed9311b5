"""What a port that did not open says, as one of our errors: the one place where the system's errors become ours.

Who must act decides which: ``DeviceUnavailable`` passes by itself (not plugged in, the host is down), and is tried
again within seconds; ``DeviceRefused`` needs a person (rights, another program, a wrong setting).
"""

from __future__ import annotations

import errno
import getpass
import grp
import os
import socket
import termios

from edge_agent import clock
from edge_agent.errors import DeviceRefused, DeviceUnavailable, DriverError
from edge_agent_drivers.stream.names import plugged, resolve

UDEV_S = 5.0  # so long after a plug-in rights may still change, and ModemManager have its look at the port
_SHOWN = 8

_DENIED = (errno.EACCES, errno.EPERM)
_BUSY = (errno.EBUSY, errno.EAGAIN)


def failure(device: str, where: str, error: Exception) -> DriverError:
    """``where`` as the configuration names it: a path, ``usb:…`` or ``tcp://…``."""
    if where.startswith("tcp://"):
        return _unreachable(device, where, error)
    number = _errno_of(error)
    if number in (*_DENIED, *_BUSY):
        return _closed_to_us(device, where, number)
    if number == errno.ENOTUNIQ:
        hint = "write usb:VID:PID:SERIAL, or the name of one of them"
        return DeviceRefused(device, f"{where}: {error.args[1]}", hint=hint)
    if number in (errno.ENOTTY, errno.EISDIR):
        return DeviceRefused(device, f"{where}: is no serial port", hint=present())
    if isinstance(error, ValueError) or number == errno.EINVAL:
        what = os.strerror(number) if number else str(error)
        hint = "this port cannot be set so: look at baud, data_bits, parity, stop_bits, flow"
        return DeviceRefused(device, f"{where}: {what}", hint=hint)
    if number == errno.ENOENT:
        absent = f"{where}: is not plugged in" if where.startswith("usb:") else f"{where}: does not exist"
        return DeviceUnavailable(device, absent, hint=present())
    return DeviceUnavailable(device, f"{where}: {os.strerror(number) if number else error}", hint=present())


def present() -> str:
    """The hint that names the ports there are."""
    names = [port.name for port in plugged() if port.is_usb or port.names][:_SHOWN]
    if not names:
        return "no USB device with a serial port is plugged in: ls -l /dev/serial/by-id"
    return "plug it in, or write one of these: " + ", ".join(names)


def _closed_to_us(device: str, where: str, number: int) -> DriverError:
    """Denied or in use. Just after a plug-in both may pass by themselves: udev has not set the rights yet."""
    path = _path_of(where)
    what = f"{where}: permission denied" if number in _DENIED else f"{where}: in use"
    if _age_s(path) < UDEV_S:
        hint = "it was plugged in just now: the system may not be done with it; it is tried again"
        return DeviceUnavailable(device, what, hint=hint)
    if number in _DENIED:
        hint = _admission(path)
    else:
        hint = f"another device of this agent (edge-agent status) or another program has it: sudo fuser -v {path}"
    return DeviceRefused(device, what, hint=hint)


def _unreachable(device: str, where: str, error: Exception) -> DriverError:
    """A TCP port that did not take the connection. All of it passes when the other end is switched on or set right."""
    if isinstance(error, socket.gaierror):
        return DeviceUnavailable(
            device, f"{where}: no such host", hint="write its IP address, e.g. tcp://192.168.1.30:23"
        )
    if isinstance(error, ConnectionRefusedError):
        hint = "the host is there, but nothing listens: look at the port number, and whether another client has it"
        return DeviceUnavailable(device, f"{where}: refuses the connection", hint=hint)
    number = 0 if isinstance(error, TimeoutError) else _errno_of(error)
    what = os.strerror(number) if number else "no answer"
    return DeviceUnavailable(
        device, f"{where}: {what}", hint=f"is it on, and in this network? ping {where[6:].rpartition(':')[0]}"
    )


def _errno_of(error: BaseException | None) -> int:
    """The errno of the first error in the chain that has one; pyserial hides termios' in its text."""
    while error is not None:
        number = error.args[0] if isinstance(error, termios.error) and error.args else getattr(error, "errno", None)
        if isinstance(number, int):
            return number
        error = error.__context__
    return 0


def _path_of(where: str) -> str:
    try:
        return resolve(where)
    except OSError:
        return where


def _age_s(path: str) -> float:
    """How long ago the port appeared or its rights were last changed."""
    try:
        return abs(clock.now().at_ns - os.stat(path).st_ctime_ns) / 1e9
    except OSError:
        return float("inf")


def _admission(path: str) -> str:
    """How this user gets rights: by joining the port's group, unless that may not use it either, or is root's."""
    group, user = "dialout", getpass.getuser()
    try:
        found = os.stat(path)
        if not found.st_gid or found.st_mode & 0o060 != 0o060:
            return (
                f"its group may not use it: sudo chgrp {group} {path} && sudo chmod 660 {path}; for good: a udev rule"
            )
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        pass
    return f"sudo usermod -aG {group} {user}, then restart the agent"
