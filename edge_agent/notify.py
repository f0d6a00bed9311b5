"""What the agent tells systemd: ready, stopping, alive, and one line of status.

The sd_notify protocol is one datagram to the socket that ``NOTIFY_SOCKET`` names, so it needs no library. Without
that variable (a terminal, a container, a test) every call does nothing and returns False. A send never blocks and
never raises: a service that stops because its supervisor was slow to listen has things the wrong way round.
"""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> bool:
    """Send assignments such as ``"READY=1"``; True when the datagram was handed over."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):  # nobody listens, or over a transport (vsock) that we do not speak
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux's abstract namespace
    message = "\n".join(assignment.replace("\n", " ") for assignment in assignments)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), address)
    except OSError:
        return False
    return True


def ready(status: str = "") -> bool:
    """The agent works: systemd ends ``start`` and starts what comes after us."""
    return notify("READY=1", *([f"STATUS={status}"] if status else []))


def stopping() -> bool:
    """The agent has begun its stop."""
    return notify("STOPPING=1")


def alive() -> bool:
    """Feed the watchdog; call it at least once every ``watchdog_interval_s()``."""
    return notify("WATCHDOG=1")


def status(text: str) -> bool:
    """One line for ``systemctl status``."""
    return notify(f"STATUS={text}")


def watchdog_interval_s() -> float | None:
    """How often to call ``alive()``: half of what the unit's WatchdogSec allows; None when nobody watches us."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2 / 1_000_000
