"""An instrument: what it sends by itself, and what it is asked, as samples; commands, with their answers judged.

The parts: ``config`` says what may be written in YAML, ``scales``, ``gauges`` and ``lines`` make messages of frames,
``message`` makes values of messages, and the stream's conversation keeps apart what was asked and what was not.

One message is one sample of the group it is for. What no group and no request wants is left out; what is no message of
this protocol is rejected, one rejection for all that stand together. An instrument that is asked and does not answer
within ``timeout`` is lost; one that is only listened to may be silent for ever, unless ``silence`` says otherwise.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_agent.driver import Group
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected
from edge_agent.model import Sample, Value
from edge_agent_drivers.instrument.config import (
    COMMANDS,
    TERMINATORS,
    CommandTag,
    InstrumentSettings,
    compiled,
    describe,
)
from edge_agent_drivers.instrument.gauges import mitutoyo, sylvac
from edge_agent_drivers.instrument.lines import line
from edge_agent_drivers.instrument.message import Message, Want, values_of
from edge_agent_drivers.instrument.scales import ToledoFramer, sics, toledo
from edge_agent_drivers.stream.conversation import Conversation, Framing, Heard
from edge_agent_drivers.stream.frames import ENDLESS, ENDLESS_HINT, Framer
from edge_agent_drivers.stream.port import Port

IDLE_S = 0.5  # what stays unfinished that long is garbage
COMMAND_TIMEOUT_S = 20.0  # a scale waits until it is stable before it tares
SETTLE_PAUSE_S = 0.1
GLANCE_S = 0.005  # so long what waits at the port is listened for, before a silence is believed
MAX_LENGTH = 1024

_READ: dict[str, Callable[[bytes], Message | None]] = {
    "mt-sics": sics,
    "toledo": toledo,
    "mitutoyo": mitutoyo,
    "sylvac": sylvac,
}


@dataclass(frozen=True, slots=True)
class _Listener:
    """One group, ready to be filled."""

    name: str
    group: Group
    wants: tuple[Want, ...]
    request: bytes
    pattern: re.Pattern[str] | None
    address: int
    settle_s: float


class InstrumentDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: InstrumentSettings) -> None:
        self._device = device
        self._settings = settings
        self._port = Port(device, settings)
        self._conversation = Conversation(self._port, _framing(settings), IDLE_S)
        self._listeners = {
            name: _listener(name, group, settings) for name, group in describe(device, settings).groups.items()
        }
        self._due_s: dict[str, float] = {}  # by polled group, when it is asked next, on the loop's clock
        self._heard: deque[Heard] = deque()
        self._heard_at_s = 0.0

    async def open(self) -> None:
        """Open the port; if the instrument is ever asked, see that it answers.

        Raises DeviceUnavailable or DeviceRefused.
        """
        await self.close()
        await self._conversation.open()
        now_s = asyncio.get_running_loop().time()
        self._heard_at_s = now_s
        self._due_s = {name: now_s for name, each in self._listeners.items() if each.group.poll_s is not None}
        asked = [each for each in self._listeners.values() if each.request and not each.group.spoken]
        try:
            if self._settings.start:
                await self._conversation.say(self._settings.start.encode("latin-1"))
            elif asked:
                await self._ask(asked[0])
        except ReadingRejected:
            return  # it answers; read() will say what is wrong with the answer
        except DeviceLost as error:
            await self.close()
            raise DeviceUnavailable(self._device, f"{self._port.where}: {_NO_ANSWER}", hint=_NO_ANSWER_HINT) from error

    async def read(self, group: str | None = None) -> Sequence[Sample]:
        """The next samples, or a fresh one of this group. Raises DeviceLost or ReadingRejected."""
        if group is not None:
            return [await self._settled(self._listeners[group])]
        while True:
            if samples := self._samples():
                return samples
            now_s = asyncio.get_running_loop().time()
            due = min(self._due_s, key=self._due_s.__getitem__, default=None)
            if due is not None and self._due_s[due] <= now_s:
                listener = self._listeners[due]
                period_s = listener.group.poll_s or 0.0
                self._due_s[due] = max(self._due_s[due] + period_s, now_s)  # a missed period is skipped
                return [await self._settled(listener)]
            if heard := await self._conversation.hear(self._patience_s(now_s)):
                self._heard += heard
            else:
                self._expect_word()

    async def write(self, tag: str, value: Value) -> None:
        """Send a command and judge its answer; false sends nothing. Raises DeviceLost or DeviceRefused."""
        settings = self._settings.tags.get(tag)
        if settings is None:
            hint = f"commands stand under tags: of the device, e.g. {tag}: {{command: tare}}"
            raise DeviceRefused(self._device, f"{tag} is not writable", hint=hint)
        if not value:
            return
        if settings.send and not settings.answer:
            await self._conversation.say(settings.send.encode("latin-1"))
            return
        request, is_answer = self._command(settings)
        heard = await self._conversation.ask(request, is_answer, COMMAND_TIMEOUT_S)
        if heard is None:
            hint = "does its load never come to rest? does the instrument know this command?"
            raise DeviceRefused(self._device, f"{tag}: no answer within {COMMAND_TIMEOUT_S:.0f} s", hint=hint)
        message = self._message(heard)
        if message is not None and not message.good:
            hint = "let it come to rest, look at its range, and whether someone is at its menu"
            raise DeviceRefused(self._device, f"{tag}: {message.problem} (it answered {message.text!r:.60})", hint=hint)

    async def close(self) -> None:
        """Close, and forget what was not read. Idempotent."""
        self._heard.clear()
        self._conversation.close()

    # --- what it says by itself --------------------------------------------------------------------------------

    def _patience_s(self, now_s: float) -> float | None:
        """How long to listen before something else is due."""
        ends = list(self._due_s.values())
        if self._settings.silence_s is not None:
            ends.append(self._heard_at_s + self._settings.silence_s)
        return max(GLANCE_S, min(ends) - now_s) if ends else None

    def _expect_word(self) -> None:
        """Nothing waits to be heard: raises DeviceLost after too long a silence."""
        silence_s = self._settings.silence_s
        if silence_s is not None and self._heard_at_s + silence_s <= asyncio.get_running_loop().time():
            what = f"{self._port.where}: silent for {silence_s:g} s"
            raise DeviceLost(self._device, what, hint="is it on, and does it still send by itself?")

    def _samples(self) -> list[Sample]:
        """Of what was heard, up to what is no message. Raises ReadingRejected for that, when it comes first."""
        samples: list[Sample] = []
        while self._heard:
            heard = self._heard[0]
            message = self._message(heard)
            if message is None:
                if samples:
                    break
                raise self._rejection()
            self._heard.popleft()
            self._heard_at_s = asyncio.get_running_loop().time()
            if message.answers == "on" and self._settings.start:
                raise DeviceLost(self._device, f"{self._port.where}: was switched off and on", hint="nothing to do")
            listener = None if message.answers else self._spoken_to(heard, message)
            if listener is not None:
                samples.append(self._sample(listener, heard, message, heard.at.mono_ns))
        return samples

    def _rejection(self) -> ReadingRejected:
        """One for all garbage that stands together."""
        first, count = self._heard[0], 0
        while self._heard and self._message(self._heard[0]) is None:
            self._heard.popleft()
            count += 1
        what = first.why or f"{self._port.where}: not a message of {self._settings.protocol}: {first.frame.raw!r:.80}"
        more = f", and {count - 1} more" if count > 1 else ""
        hint = "look at protocol, baud, parity" + ("" if self._settings.protocol == "toledo" else " and the terminator")
        if ENDLESS in first.why:
            hint = ENDLESS_HINT
        elif self._settings.protocol == "line":
            hint = "look at each group's pattern and at end:"
        elif self._settings.protocol == "toledo":
            hint = "look at checksum, baud, data_bits and parity"
        return ReadingRejected(self._device, what + more, hint=hint)

    def _spoken_to(self, heard: Heard, message: Message) -> _Listener | None:
        for listener in self._listeners.values():
            if listener.group.spoken and self._fits(listener, heard, message):
                return listener
        return None

    # --- what it is asked --------------------------------------------------------------------------------------

    async def _settled(self, listener: _Listener) -> Sample:
        """A fresh sample; asked again while it is not stable, as long as the group's ``settle`` says."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + listener.settle_s
        while True:
            started_mono_ns = time.monotonic_ns()
            heard, message = await self._ask(listener)
            rests = message.stable is not False and message.problem != "busy"
            if rests or loop.time() >= end_s:
                return self._sample(listener, heard, message, started_mono_ns)
            await asyncio.sleep(SETTLE_PAUSE_S)

    async def _ask(self, listener: _Listener) -> tuple[Heard, Message]:
        """One message for this group. Raises DeviceLost, or ReadingRejected for an answer that is none."""

        def is_answer(heard: Heard) -> bool:
            message = self._message(heard)
            return message is None or message.answers == "E" or self._fits(listener, heard, message)

        heard = await self._conversation.ask(listener.request, is_answer, self._settings.timeout)
        if heard is None:
            if not listener.request:
                what = f"{self._port.where}: it sent nothing for {listener.name} within {self._settings.timeout:g} s"
                raise ReadingRejected(
                    self._device, what, hint="it is not asked, only waited for: look at timeout and ask"
                )
            raise DeviceLost(self._device, f"{self._port.where}: {_NO_ANSWER}", hint=_NO_ANSWER_HINT)
        self._heard_at_s = asyncio.get_running_loop().time()
        message = self._message(heard)
        if message is None:
            self._heard.appendleft(heard)
            raise self._rejection()
        if message.answers == "E":
            what = f"{self._port.where}: {message.problem} (it answered {message.text!r:.60})"
            raise ReadingRejected(self._device, what, hint="look at ask: and protocol:")
        return heard, message

    def _command(self, settings: CommandTag) -> tuple[bytes, Callable[[Heard], bool]]:
        """(what is sent, what is its answer)."""
        if settings.send:
            pattern = compiled(settings.answer)

            def matches(heard: Heard) -> bool:
                return pattern.fullmatch(heard.frame.raw.decode("latin-1").strip()) is not None

            return settings.send.encode("latin-1"), matches
        address = min((group.address for group in self._settings.groups.values()), default=1)
        command = COMMANDS[self._settings.protocol][settings.command].format(address=address)
        answers = ("done",) if self._settings.protocol == "mitutoyo" else (command, "E")

        def answered(heard: Heard) -> bool:
            message = self._message(heard)
            return message is not None and message.answers in answers

        return f"{command}\r\n".encode("latin-1"), answered

    # --- messages ----------------------------------------------------------------------------------------------

    def _message(self, heard: Heard) -> Message | None:
        """What a frame says; None for garbage, and for a line that no group's pattern matches."""
        if heard.frame.garbage:
            return None
        if self._settings.protocol != "line":
            return _READ[self._settings.protocol](heard.frame.raw)
        lines = (self._line(listener, heard) for listener in self._listeners.values())
        return next((message for message in lines if message is not None), None)

    def _line(self, listener: _Listener, heard: Heard) -> Message | None:
        if listener.pattern is None or heard.frame.garbage:
            return None
        return line(heard.frame.raw, listener.pattern, self._settings.decimal, self._settings.encoding)

    def _fits(self, listener: _Listener, heard: Heard, message: Message) -> bool:
        """The message is a reading for this group."""
        if self._settings.protocol == "line":
            return self._line(listener, heard) is not None
        return not message.answers and message.address in (None, listener.address)

    def _sample(self, listener: _Listener, heard: Heard, message: Message, started_mono_ns: int) -> Sample:
        if self._settings.protocol == "line":
            message = self._line(listener, heard) or message
        flag = self._settings.unstable == "flag"
        values, status = values_of(message, listener.wants, flag_unstable=flag)
        return Sample(listener.group.tagset, heard.at, started_mono_ns, values, status or None)


_NO_ANSWER = "no answer"
_NO_ANSWER_HINT = (
    "is it on, and the right cable in? look at protocol, baud, data_bits, parity; some need a null-modem cable"
)


def _framing(settings: InstrumentSettings) -> Framing:
    if settings.protocol == "toledo":
        return ToledoFramer(settings.checksum)
    if settings.end is not None:
        return Framer(settings.end.encode("latin-1"), max_length=MAX_LENGTH)
    end = TERMINATORS[settings.protocol]
    return Framer(end.encode("latin-1"), max_length=MAX_LENGTH, skip=b"\n" if end == "\r" else b"")


def _listener(name: str, group: Group, settings: InstrumentSettings) -> _Listener:
    its = settings.groups[name]
    wants = tuple(
        Want(settings.field_of(name, tag), settings.type_of(name, tag), each.unit) for tag, each in its.tags.items()
    )
    pattern = compiled(its.pattern) if its.pattern else None
    return _Listener(name, group, wants, settings.request_of(name), pattern, its.address, its.settle)
