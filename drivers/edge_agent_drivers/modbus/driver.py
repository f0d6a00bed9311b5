"""A Modbus TCP device: groups read with as few requests as possible, tags written with read-back.

The parts: ``config`` says what may be written in YAML, ``plan`` makes requests of tags, ``codec`` values of bytes,
``link`` owns the connection and its failures, ``group`` reads one group around what the device refuses.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected, ValueNotKept
from edge_agent.model import Sample, Value
from edge_agent_drivers.modbus.codec import Field, encode, field_of
from edge_agent_drivers.modbus.config import ModbusSettings, describe
from edge_agent_drivers.modbus.group import GroupReader
from edge_agent_drivers.modbus.link import Link, NotModbus, exception_text, read_request, refused_hint


class ModbusDriver:
    """See :class:`edge_agent.driver.Driver`."""

    def __init__(self, device: str, settings: ModbusSettings) -> None:
        self._device = device
        self._settings = settings
        self._link = Link(device, settings)
        self._groups: dict[str, GroupReader] = {}
        self._polled: list[str] = []
        shape = describe(device, settings)
        for name, group in shape.groups.items():
            fields = [field_of(index, tag) for index, tag in enumerate(settings.groups[name].tags.values())]
            self._groups[name] = GroupReader(group, fields, settings)
            if group.poll_s is not None:
                self._polled.append(name)
        every = {
            **settings.tags,
            **{name: tag for group in settings.groups.values() for name, tag in group.tags.items()},
        }
        self._writable: dict[str, Field] = {name: field_of(0, tag) for name, tag in every.items() if tag.write}

    async def open(self) -> None:
        """Connect, and see that this unit answers something of what the config asks of it.

        Raises DeviceUnavailable, or DeviceRefused when it answers nothing but exceptions.
        """
        await self._link.open()
        refused: dict[int, int] = {}
        try:
            for group in self._groups.values():
                found = await group.refusals(self._link)
                if not found:
                    return
                refused = found | refused
        except ReadingRejected:
            return  # it answers; read() will say what is wrong with the answer
        except NotModbus as error:
            what = f"{self._link.where}: what answers does not speak Modbus TCP"
            raise DeviceUnavailable(self._device, what, hint=self._link.other_hint) from error
        except DeviceLost as error:
            what = f"{self._link.where}: connected, but then no usable answer came"
            raise DeviceUnavailable(self._device, what, hint=error.hint) from error
        if refused:
            await self.close()
            what = ", ".join(exception_text(code) for code in sorted(refused))
            hint = refused_hint(refused, self._settings.unit_id)
            raise DeviceRefused(self._device, f"{self._link.where}: answers everything with {what}", hint=hint)

    async def read(self, group: str | None = None) -> Sequence[Sample]:
        """A fresh sample of this group, or of every polled one. Raises DeviceLost or ReadingRejected."""
        if group is not None:
            return [await self._groups[group].read(self._link)]
        return [await self._groups[name].read(self._link) for name in self._polled]

    async def write(self, tag: str, value: Value) -> None:
        """Write, read back and compare. Raises DeviceLost, or DeviceRefused when the value did not stay."""
        field = self._writable.get(tag)
        if field is None:
            raise DeviceRefused(self._device, f"{tag} is not writable", hint=f"mark it with write: true, under {tag}:")
        try:
            registers = encode(field, value)
        except ValueError as error:
            hint = "look at the tag's type, length and scale"
            raise DeviceRefused(self._device, f"{tag}: {error}", hint=hint) from error
        code = await self._link.write(field.table, field.start, registers)
        if code:
            hint = refused_hint({code: field.start}, self._settings.unit_id)
            raise DeviceRefused(self._device, f"{tag}: writing answered with {exception_text(code)}", hint=hint)
        await self._read_back(tag, field, registers)

    async def _read_back(self, tag: str, field: Field, registers: Sequence[int]) -> None:
        count = len(registers)
        wanted = bytes(registers) if field.is_bit else b"".join(word.to_bytes(2, "big") for word in registers)
        request = read_request(field.table, field.start, count, self._settings.unit_id)
        try:
            answer = await self._link.fetch(request, len(wanted))
        except ReadingRejected as error:
            raise DeviceRefused(self._device, f"{tag}: reading it back gave too little", hint=error.hint) from error
        if isinstance(answer, int):
            what = f"{tag}: reading it back answered with {exception_text(answer)}"
            raise DeviceRefused(self._device, what, hint="the tag must be readable where it is written")
        if (bytes([answer[0] & 1]) if field.is_bit else answer) != wanted:
            hint = "does the PLC's program write this address too, or is it write-protected?"
            raise ValueNotKept(self._device, f"{tag}: the device did not keep the value written", hint=hint)

    async def close(self) -> None:
        """Close at once. Idempotent."""
        self._link.drop()
