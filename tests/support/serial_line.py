"""A serial line between a master and its devices: two pseudo terminals, and what happens between them.

::

    line = SerialLine(tmp_path / "line")   # the master opens this name
    await line.plug()                      # the devices open line.far
    line.mode = "silent"                   # what becomes of the answers from now on

Modes: ``pass``; ``silent``; ``drip`` (one byte at a time); ``half`` (half of it, then nothing); ``cut`` (half of it,
then unplugged); ``garbage``; ``flood``; ``crc`` (one bit wrong); ``stranger`` (another unit's good frame);
``late`` (held until ``release``); ``glitch`` (a stray byte in front); ``echo`` (the request comes back in front);
``slow glitch``, ``slow echo`` (the answer a quarter of a second behind that); ``late echo``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from pathlib import Path

from pymodbus.framer import FramerRTU


class SerialLine:
    """See the module docstring. It lives on the event loop of the test."""

    def __init__(self, port: Path, *, ascii_frames: bool = False) -> None:
        self.port = port
        self.mode = "pass"
        self.far = ""
        self.dead: set[int] = set()  # unit ids that hear nothing
        self.deaf: set[int] = set()  # functions that nobody answers
        self.requests: list[bytes] = []
        self._ascii = ascii_frames
        self._fds: list[int] = []
        self._answer = b""
        self._held: list[bytes] = []
        self._dripping: set[asyncio.Task[None]] = set()

    async def plug(self) -> None:
        """Appear, as new terminals under the old name."""
        for _ in range(2):
            for fd in pty.openpty():
                self._fds.append(fd)
        near, near_slave, far, far_slave = self._fds
        for slave in (near_slave, far_slave):
            tty.setraw(slave)
        for master in (near, far):
            os.set_blocking(master, False)
        self.far = os.ttyname(far_slave)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(near_slave))
        loop = asyncio.get_running_loop()
        loop.add_reader(near, self._on_request, near, far)
        loop.add_reader(far, self._on_answer, far)

    def unplug(self) -> None:
        """Vanish. Harmless when it has."""
        fds, self._fds = self._fds, []
        if fds:
            loop = asyncio.get_running_loop()
            for master in (fds[0], fds[2]):
                loop.remove_reader(master)
            for fd in fds:
                os.close(fd)
            self.port.unlink(missing_ok=True)
        self._answer, self._held = b"", []

    def release(self) -> None:
        """Send what ``late`` holds back."""
        held, self._held = self._held, []
        for answer in held:
            self.send(answer)

    def send(self, data: bytes) -> None:
        """To the master, as if a device had said it. What does not fit the terminal's buffer is lost."""
        if self._fds:
            with contextlib.suppress(BlockingIOError):
                os.write(self._fds[0], data)

    def _on_request(self, near: int, far: int) -> None:
        data = os.read(near, 4096)
        self.requests.append(data)
        if self.mode.endswith("echo"):
            self.send(data)
        if self.mode.endswith("glitch"):
            self.send(b"\x00")
        if data[0] not in self.dead and data[1] not in self.deaf:
            os.write(far, data)

    def _on_answer(self, far: int) -> None:
        self._answer += os.read(far, 4096)
        if (length := self._complete(self._answer)) > 0:
            answer, self._answer = self._answer[:length], b""
            self._pass_on(answer)

    def _complete(self, answer: bytes) -> int:
        if self._ascii:
            return answer.find(b"\r\n") + 2 if b"\r\n" in answer else 0
        if len(answer) < 3:
            return 0
        length = 5 if answer[1] & 0x80 else {5: 8, 6: 8, 15: 8, 16: 8, 22: 10}.get(answer[1], answer[2] + 5)
        return length if len(answer) >= length else 0

    def _pass_on(self, answer: bytes) -> None:
        match self.mode:
            case "silent":
                return
            case "drip":
                task = asyncio.create_task(self._drip(answer))
                self._dripping.add(task)
                task.add_done_callback(self._dripping.discard)
            case "half":
                self.send(answer[: len(answer) // 2])
            case "cut":
                self.send(answer[: len(answer) // 2])
                asyncio.get_running_loop().call_later(0.02, self.unplug)
            case "garbage":
                self.send(b"\xff\x00\xfe" * 20)
            case "flood":
                asyncio.get_running_loop().call_soon(self._flood, 500)
            case "crc":
                self.send(answer[:3] + bytes([answer[3] ^ 1]) + answer[4:])
            case "stranger":
                frame = bytes([answer[0] + 1]) + answer[1:-2]
                self.send(frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big"))
            case "late" | "late echo":
                self._held.append(answer)
            case "slow glitch" | "slow echo":
                asyncio.get_running_loop().call_later(0.25, self.send, answer)
            case _:
                self.send(answer)

    def _flood(self, times: int) -> None:
        if times and self._fds and self.mode == "flood":
            self.send(b"\xff\x00\xfe" * 300)
            asyncio.get_running_loop().call_later(0.001, self._flood, times - 1)

    async def _drip(self, answer: bytes) -> None:
        for byte in answer:
            self.send(bytes([byte]))
            await asyncio.sleep(0.001)
