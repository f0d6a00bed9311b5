"""A barcode reader on a pseudo terminal whose name survives a replug, as a by-id link does.

::

    reader = PtyReader(tmp_path / "gate")     # plugged in
    reader.send(b"SN1\r\n"); reader.unplug(); reader.plug()
"""

from __future__ import annotations

import os
import pty
import select
import time
from pathlib import Path


class PtyReader:
    """``port`` is a link to the slave side; we hold the master's."""

    def __init__(self, port: Path) -> None:
        self.port = port
        self._master: int | None = None
        self.plug()

    def plug(self) -> None:
        """Appear, as a new terminal under the old name."""
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)  # what was readable may be flushed away before it is read
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(slave))
        os.close(slave)

    def unplug(self) -> None:
        """Vanish. Harmless when it has."""
        if self._master is not None:
            os.close(self._master)
            self.port.unlink()
            self._master = None

    def send(self, data: bytes) -> None:
        """Write all of it; waits while the terminal's buffer is full."""
        assert self._master is not None
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                select.select([], [self._master], [], 1)

    def received(self) -> bytes:
        """What was sent to it, up to now; waits for the first of it, also while nobody has the port open yet."""
        assert self._master is not None
        deadline_s = time.monotonic() + 10
        while True:
            try:
                return os.read(self._master, 4096)
            except OSError:  # EIO: no slave; or nothing is there
                assert time.monotonic() < deadline_s, "nobody opened the port"
                time.sleep(0.005)
