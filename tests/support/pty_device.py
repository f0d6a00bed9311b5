"""A device on a pseudo terminal that answers what it is asked, on the running loop.

::

    device = PtyDevice(tmp_path / "scale", {b"SI\r\n": b"S S 1.0 g\r\n"})
    device.answers[b"SI\r\n"] = lambda request: ...; device.send(b"..."); device.unplug()
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from support.pty_reader import PtyReader

Answer = bytes | Callable[[bytes], bytes]


class PtyDevice(PtyReader):
    """``requests`` are all that were understood; whatever begins none of them is dropped."""

    def __init__(self, port: Path, answers: Mapping[bytes, Answer] | None = None) -> None:
        self.answers: dict[bytes, Answer] = dict(answers or {})
        self.requests: list[bytes] = []
        self.silent = False
        self._asked = b""
        super().__init__(port)
        assert self._master is not None
        asyncio.get_running_loop().add_reader(self._master, self._listen, self._master)

    def unplug(self) -> None:
        if self._master is not None:
            asyncio.get_running_loop().remove_reader(self._master)
        super().unplug()

    def _listen(self, master: int) -> None:
        try:
            self._asked += os.read(master, 4096)
        except BlockingIOError:
            return  # a close has flushed it away meanwhile
        except OSError:  # nobody has the other end open
            asyncio.get_running_loop().remove_reader(master)
            asyncio.get_running_loop().call_later(0.005, self._again, master)
            return
        self._understand()

    def _understand(self) -> None:
        """Answer every whole request that has arrived."""
        while self._asked:
            request = next((each for each in self.answers if self._asked.startswith(each)), None)
            if request is None:
                if not any(each.startswith(self._asked) for each in self.answers):
                    self._asked = self._asked[1:]
                    continue
                return
            self._asked = self._asked[len(request) :]
            self.requests.append(request)
            answer = self.answers[request]
            if not self.silent:
                self.send(answer if isinstance(answer, bytes) else answer(request))

    def _again(self, master: int) -> None:
        if self._master == master:
            asyncio.get_running_loop().add_reader(master, self._listen, master)
