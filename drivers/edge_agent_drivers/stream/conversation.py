"""One device on one port that both speaks by itself and is asked: who gets which of its frames.

``hear()`` waits for what nobody asked for, ``ask()`` sends and waits for the answer; both may wait at the same time.
Neither starts a task: whoever waits first listens for all, hands each frame to the one it is for, and when it leaves
another one takes over. Requests go one after the other, as a line has one master. A frame that completes while no
request waits for it was not asked for; so a late answer is never taken for the next one's, unless it looks like it.

Damaged characters void the message around them: it is heard as garbage with the port's reason. At most INBOX frames
wait; then nobody listens until they are heard, and the kernel holds the device back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edge_agent import clock
from edge_agent.model import Instant
from edge_agent_drivers.stream.frames import ENDLESS, Endless, Frame
from edge_agent_drivers.stream.port import LineError, Port

INBOX = 4096


class Framing(Protocol):
    """What makes frames of bytes: :class:`edge_agent_drivers.stream.frames.Framer`, or a protocol's own."""

    @property
    def pending(self) -> bool: ...

    def reset(self) -> None: ...

    def swallow(self) -> None: ...

    def feed(self, data: bytes) -> list[Frame]: ...

    def gap(self) -> list[Frame]: ...


class Heard(NamedTuple):
    """A frame and when it was complete. ``why``: the port's reason why it is garbage, if it has one."""

    frame: Frame
    at: Instant
    why: str = ""


class Conversation:
    """See the module docstring. ``idle_s``: what is unfinished after this pause is cut off. ``only_answers``: the
    device never speaks by itself, so what is unfinished when it is asked anew is none of the answer."""

    def __init__(self, port: Port, framing: Framing, idle_s: float, only_answers: bool = False) -> None:
        self._port = port
        self._framing = framing
        self._idle_s = idle_s
        self._only_answers = only_answers
        self._inbox: deque[Heard] = deque()
        self._answer: tuple[Callable[[Heard], bool], list[Heard]] | None = None
        self._one_master = asyncio.Lock()
        self._listening = False
        self._news = asyncio.Event()
        self._heard_at_s = 0.0
        self._quiet_until_s = 0.0  # a late answer may still come
        self._endless = Endless()

    async def open(self) -> None:
        """Open the port and forget what is stale. Raises DeviceUnavailable or DeviceRefused."""
        self.close()
        if not await self._port.open():
            self._framing.swallow()

    def close(self) -> None:
        """Close the port and forget what was not heard. Idempotent."""
        self._port.close()
        self._framing.reset()
        self._endless = Endless()
        self._inbox.clear()
        self._tell()

    async def hear(self, timeout_s: float | None = None) -> list[Heard]:
        """What nobody asked for, at least one; [] when ``timeout_s`` passed first. Raises DeviceLost.

        Cancelling it loses no frame.
        """
        deadline_s = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        while not self._inbox:
            if not await self._listen(deadline_s) and not self._inbox:
                return []
        heard = list(self._inbox)
        self._inbox.clear()
        self._tell()
        return heard

    async def ask(self, request: bytes, is_answer: Callable[[Heard], bool], timeout_s: float) -> Heard | None:
        """Send, and the first frame after it that is the answer; None when none came. Raises DeviceLost.

        Nothing is sent if ``request`` is empty: then it is the next such frame that the device sends by itself.
        With ``only_answers``, whoever asks after an answer that was damaged or did not come lets one answer's time pass
        first: what comes late is heard as nobody's, and not taken for the next one's.
        """
        async with self._one_master:
            answers: list[Heard] = []
            if request:
                while await self._listen(self._quiet_until_s):
                    pass
                if self._only_answers:
                    self._framing.reset()
                await self._port.send(request)
            deadline_s = asyncio.get_running_loop().time() + timeout_s
            self._answer = (is_answer, answers)
            try:
                while not answers:
                    if not await self._listen(deadline_s) and not answers:
                        return None
                return answers[0]
            finally:
                self._answer = None
                if self._only_answers and (not answers or answers[0].frame.garbage):
                    self._quiet_until_s = asyncio.get_running_loop().time() + timeout_s

    async def say(self, message: bytes) -> None:
        """Send what has no answer. Raises DeviceLost."""
        async with self._one_master:
            await self._port.send(message)

    # --- listening ---------------------------------------------------------------------------------------------

    async def _listen(self, deadline_s: float | None) -> bool:
        """Wait until something may be new; False when the time has passed."""
        now_s = asyncio.get_running_loop().time()
        left_s = None if deadline_s is None else deadline_s - now_s
        if left_s is not None and left_s <= 0:
            return False
        if self._listening or len(self._inbox) >= INBOX:
            try:
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            except TimeoutError:
                return False
            return True
        self._listening = True
        try:
            await self._take(left_s)
        finally:
            self._listening = False
            self._tell()
        return True

    async def _take(self, left_s: float | None) -> None:
        """One chunk off the port, or the idle gap, and their frames to whom they are for."""
        loop = asyncio.get_running_loop()
        timeout_s = left_s
        if self._framing.pending:
            idle_s = max(0.0, self._heard_at_s + self._idle_s - loop.time())
            timeout_s = idle_s if left_s is None else min(idle_s, left_s)
        why = ""
        try:
            data = await self._port.take(timeout_s)
        except LineError as error:
            self._framing.swallow()
            self._heard_at_s = loop.time()
            frames, why = [Frame(b"", garbage=True)], str(error.args[0])
        else:
            if data:
                frames = self._framing.feed(data)
                self._heard_at_s = loop.time()
                if self._endless.came(len(data), frames):
                    frames, why = [Frame(b"", garbage=True)], f"{self._port.where}: {ENDLESS}"
            elif self._framing.pending and loop.time() >= self._heard_at_s + self._idle_s:
                frames = self._framing.gap()
                self._endless = Endless()
                self._heard_at_s = loop.time()
            else:
                return
        at = clock.now()
        for frame in frames:
            heard = Heard(frame, at, why)
            if self._answer is not None and not self._answer[1] and self._answer[0](heard):
                self._answer[1].append(heard)
            else:
                self._inbox.append(heard)

    def _tell(self) -> None:
        """Wake all that wait, to look anew."""
        self._news.set()
        self._news = asyncio.Event()
