"""An RFID reader: a scan when a transponder arrives, and samples of what is in the field when that changes.

The parts: ``em4100``, ``feig`` and ``generic`` make frames of bytes, ``field`` knows what is present, ``feig_reader``
asks a reader that must be asked, ``memory`` makes values of blocks.

A transponder that stays gives one scan. It has left when it was not heard for ``absent_after``; of a reader that is
asked only good answers count for that, so damaged ones make nothing leave. What is no good telegram is a garbage scan.
A reconnect forgets what was there: who is still there arrives anew, and an empty field is told as empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from edge_agent import clock
from edge_agent.driver import Group
from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected, ValueNotKept
from edge_agent.model import Instant, Sample, Scan, ScanStatus, Value
from edge_agent_drivers.rfid import em4100
from edge_agent_drivers.rfid.config import MemorySettings, RfidSettings, RfidTag, describe, field_of
from edge_agent_drivers.rfid.feig import FeigFramer
from edge_agent_drivers.rfid.feig_reader import Damaged, FeigReader
from edge_agent_drivers.rfid.field import ReaderField
from edge_agent_drivers.rfid.generic import GenericFramer
from edge_agent_drivers.rfid.memory import decode, encode, turned
from edge_agent_drivers.stream.conversation import Conversation, Framing, Heard
from edge_agent_drivers.stream.port import Port

IDLE_S = 0.2  # what stays unfinished that long is garbage
GLANCE_S = 0.005  # so long what waits at the port is listened for, before a departure is believed
_ALONE = "keep one transponder in the field while its memory is read or written"


class RfidDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: RfidSettings) -> None:
        self._device = device
        self._settings = settings
        self._port = Port(device, settings)
        self._conversation = Conversation(
            self._port, _framing(settings), IDLE_S, only_answers=settings.protocol == "feig"
        )
        self._feig: FeigReader | None = None
        if settings.protocol == "feig":
            where, timeout_s = self._port.where, settings.timeout
            self._feig = FeigReader(device, where, self._conversation, settings.bus_address, timeout_s)
        self._groups = describe(device, settings).groups
        self._memory = {
            name: tag.memory for group in settings.groups.values() for name, tag in group.tags.items() if tag.memory
        }
        self._writable = frozenset(
            name for group in settings.groups.values() for name, tag in group.tags.items() if tag.write
        )
        self._field = ReaderField(settings.absent_after)
        self._untold: list[Sample | Scan] = []  # what a read of one group noticed, for read() to tell
        self._due_s = 0.0

    async def open(self) -> None:
        """Open the port; a reader that is asked must answer. Raises DeviceUnavailable or DeviceRefused."""
        await self.close()
        await self._conversation.open()
        self._due_s = asyncio.get_running_loop().time()
        self._field.begin(self._due_s)
        if self._feig is None:
            return
        try:
            await self._feig.inventory(self._settings.reset_field)
        except (ReadingRejected, Damaged):
            return  # it answers; read() will say what is wrong with the answer
        except DeviceLost as error:
            await self.close()
            raise DeviceUnavailable(self._device, f"{self._port.where}: no answer", hint=error.hint) from error
        except DeviceRefused:
            await self.close()
            raise

    async def read(self, group: str | None = None) -> Sequence[Sample | Scan]:
        """What arrived, left or was garbage; or a fresh sample of this group. Raises DeviceLost or ReadingRejected."""
        if group is not None:
            return [await self._fresh(self._groups[group])]
        while True:
            told = await (self._listened() if self._feig is None else self._watched(self._feig))
            if told:
                return told

    async def write(self, tag: str, value: Value) -> None:
        """Write blocks of the one transponder in the field, read back and compare."""
        settings = self._memory.get(tag)
        if self._feig is None or settings is None or tag not in self._writable:
            raise DeviceRefused(self._device, f"{tag} is not writable", hint=f"mark it with write: true, under {tag}:")
        try:
            await self._write(self._feig, tag, settings, value)
        except (ReadingRejected, Damaged) as error:
            what = str(error.args[0]).removeprefix(f"{self._device}: ")
            raise DeviceRefused(self._device, f"{tag}: {what}", hint=_ALONE) from error

    async def close(self) -> None:
        """Close, and forget what was in the field. Idempotent."""
        self._untold.clear()
        self._conversation.close()

    # --- readers that send by themselves -----------------------------------------------------------------------

    async def _listened(self) -> list[Sample | Scan]:
        loop = asyncio.get_running_loop()
        next_s = self._field.next_s()
        heard = await self._conversation.hear(None if next_s is None else max(GLANCE_S, next_s - loop.time()))
        told: list[Sample | Scan] = []
        changed = False
        for each in heard:
            if each.frame.garbage:
                told.append(self._garbage(each))
                continue
            known = self._field.known
            raw, transponder = self._number(each.frame.raw)
            if self._field.hear(transponder, loop.time()):
                told.append(Scan(self._device, each.at, raw))
                changed = True
            changed = changed or not known
        changed = self._field.miss(loop.time()) or changed
        return [*told, *self._told(heard[-1].at if heard else clock.now())] if changed else told

    def _number(self, raw: bytes) -> tuple[bytes, str]:
        """(what the scan carries, how the tags spell it)."""
        if self._settings.protocol == "em4100":
            return raw, em4100.number_of(raw)
        if self._settings.frame is not None and self._settings.frame.id_as == "hex":
            raw = raw.hex().upper().encode("ascii")
        return raw, raw.decode("latin-1").strip()

    # --- a reader that is asked --------------------------------------------------------------------------------

    async def _watched(self, reader: FeigReader) -> list[Sample | Scan]:
        loop = asyncio.get_running_loop()
        if self._untold:
            told, self._untold = self._untold, []
            return told
        if (left_s := self._due_s - loop.time()) > 0:
            return [self._garbage(each) for each in await self._conversation.hear(left_s) if each.frame.garbage]
        self._due_s = max(self._due_s + self._settings.poll, loop.time())  # a missed poll is skipped
        try:
            uids = await reader.inventory(self._settings.reset_field)
        except Damaged as damaged:
            return [self._garbage(damaged.heard)]
        return self._seen(uids, clock.now())

    def _seen(self, uids: Sequence[bytes], at: Instant) -> list[Sample | Scan]:
        """What an inventory changes."""
        now_s = asyncio.get_running_loop().time()
        scans = []
        for uid in uids:
            number = uid.hex().upper()
            if self._field.hear(number, now_s):
                scans.append(Scan(self._device, at, number.encode("ascii")))
        changed = self._field.miss(now_s)
        changed = (not uids and self._field.empty()) or changed or bool(scans)
        return [*scans, *self._told(at)] if changed else []

    async def _fresh(self, group: Group) -> Sample:
        """A sample of this group: of what is in the field now, and of the memory of the one transponder there."""
        started_mono_ns = time.monotonic_ns()
        if self._feig is None:
            return self._sample(group, clock.now(), started_mono_ns, self._now_present(), {})
        try:
            uids = await self._feig.inventory(self._settings.reset_field)
            self._untold += self._seen(uids, clock.now())
            read: dict[str, tuple[Value, str]] = {}
            for name in group.tags:
                if name in self._memory:
                    read[name] = await self._recall(self._feig, uids, self._memory[name])
        except Damaged as error:
            what = f"{self._port.where}: a damaged answer"
            raise ReadingRejected(self._device, what, hint="look at the cable, its shield and ground") from error
        return self._sample(group, clock.now(), started_mono_ns, tuple(uid.hex().upper() for uid in uids), read)

    def _now_present(self) -> tuple[str, ...] | None:
        return self._field.present if self._field.known else None

    async def _recall(self, reader: FeigReader, uids: Sequence[bytes], its: MemorySettings) -> tuple[Value, str]:
        """(value, why there is none) of a part of the memory."""
        if len(uids) != 1:
            return None, _not_one(len(uids))
        answer = await reader.read(uids[0], its.block, its.count)
        if isinstance(answer, str):
            return None, answer
        size, data = answer
        try:
            return decode(turned(data, size) if its.turned else data, its.type, its.order), ""
        except ValueError as error:
            return None, str(error)

    async def _write(self, reader: FeigReader, tag: str, its: MemorySettings, value: Value) -> None:
        uids = await reader.inventory(self._settings.reset_field)
        if len(uids) != 1:
            raise DeviceRefused(self._device, f"{tag}: {_not_one(len(uids))} in the field", hint=_ALONE)
        before = await reader.read(uids[0], its.block, its.count)
        if isinstance(before, str):
            raise DeviceRefused(self._device, f"{tag}: {before}", hint="look at block: and count:")
        size = before[0]
        try:
            data = encode(value, its.type, its.order, size * its.count)
        except ValueError as error:
            raise DeviceRefused(self._device, f"{tag}: {error}", hint="look at the tag's type and count") from error
        if its.turned:
            data = turned(data, size)
        if why := await reader.write(uids[0], its.block, size, data):
            raise DeviceRefused(self._device, f"{tag}: {why}", hint="hold it nearer; are its blocks locked?")
        after = await reader.read(uids[0], its.block, its.count)
        if after != (size, data):
            hint = "hold it nearer and write again; are its blocks locked?"
            raise ValueNotKept(self._device, f"{tag}: the transponder did not keep the value written", hint=hint)

    # --- what is told ------------------------------------------------------------------------------------------

    def _told(self, at: Instant) -> list[Sample]:
        present = self._now_present()
        return [self._sample(group, at, at.mono_ns, present, {}) for group in self._groups.values() if group.spoken]

    def _sample(
        self,
        group: Group,
        at: Instant,
        started_mono_ns: int,
        present: tuple[str, ...] | None,
        memory: dict[str, tuple[Value, str]],
    ) -> Sample:
        values: list[Value] = []
        status: dict[int, str] = {}
        for index, (name, tag) in enumerate(group.tags.items()):
            assert isinstance(tag, RfidTag)
            field = field_of(name, tag)
            value, why = _of_field(field, present) if field else memory[name]
            values.append(value)
            if why:
                status[index] = why
        return Sample(group.tagset, at, started_mono_ns, tuple(values), status or None)

    def _garbage(self, heard: Heard) -> Scan:
        return Scan(self._device, heard.at, heard.frame.raw, ScanStatus.GARBAGE)


def _of_field(field: str, present: tuple[str, ...] | None) -> tuple[Value, str]:
    """(value, why there is none) of what is in the field."""
    if present is None:
        return None, "not known yet"
    if field == "present":
        return bool(present), ""
    if field == "count":
        return len(present), ""
    if field == "transponders":
        return list(present), ""
    return (present[0], "") if len(present) == 1 else (None, _not_one(len(present)))


def _not_one(count: int) -> str:
    return f"{count} transponders" if count else "no transponder"


def _framing(settings: RfidSettings) -> Framing:
    if settings.protocol == "feig":
        return FeigFramer()
    if settings.frame is not None:
        return GenericFramer(settings.frame.form())
    return em4100.Em4100Framer()
