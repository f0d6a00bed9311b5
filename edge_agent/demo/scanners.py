"""Barcode readers of the simulated line: each a pseudo-terminal whose slave end stands where the config looks for it.

The line holds the master end only. While nobody has the slave open the kernel says "hang up" on the master, so the
line knows whether anybody can hear a scan; one into the void is not written at all, as with a serial port that
nobody has open, and is noted as unheard.
"""

from __future__ import annotations

import errno
import os
import pty
import select
import termios
import tty
from pathlib import Path


class PtyScanner:
    """One reader. ``path`` is a symbolic link to the slave, as /dev/serial/by-id has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._master, slave = pty.openpty()
        tty.setraw(slave, termios.TCSANOW)
        path.symlink_to(os.ttyname(slave))
        os.close(slave)
        os.set_blocking(self._master, False)

    def listened(self) -> bool:
        """True while some process has the port open."""
        poll = select.poll()
        poll.register(self._master, select.POLLOUT)
        return not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    def emit(self, text: str) -> bool:
        """Send one frame, CR LF at its end. False when nobody listens or nobody has taken the last 4 KiB."""
        if not self.listened():
            return False
        frame = text.encode() + b"\r\n"
        try:
            return os.write(self._master, frame) == len(frame)
        except OSError as error:
            if error.errno in (errno.EIO, errno.EAGAIN):
                return False
            raise

    def close(self) -> None:
        """Unplug it."""
        self.path.unlink(missing_ok=True)
        os.close(self._master)
