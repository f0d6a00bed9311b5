"""A Modbus device: groups read with as few requests as possible, tags written with read-back.

The parts, from the outside in::

    config, connection   what may be written in YAML
    driver               this: open, read, write, close
    group                reads one group, around what the device refuses
    plan                 requests of tags
    codec, values        bytes → values          encode, writing   a value → a request, and what it must read back
    link                 one device's place on its bus; every failure one of our errors
    bus, patience        one master for all devices of a connection; the dead ones do not starve the rest
    frames               requests, and the frames around them: Modbus TCP, RTU, ASCII
    wire                 TCP, TLS, a serial port

Nothing here starts a task.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable, ReadingRejected, ValueNotKept
from edge_agent.model import Sample, Value
from edge_agent_drivers.modbus.bus import NotModbus
from edge_agent_drivers.modbus.codec import Field, field_of
from edge_agent_drivers.modbus.config import ModbusSettings, describe
from edge_agent_drivers.modbus.group import GroupReader
from edge_agent_drivers.modbus.link import GATEWAY, Link, exception_text, refused_hint
from edge_agent_drivers.modbus.wire import Garbled
from edge_agent_drivers.modbus.writing import Write, refused_write_hint, unanswered_write_hint, write_of


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
        self._unread = frozenset(name for name, tag in every.items() if not tag.read_back)

    async def open(self) -> None:
        """Connect, and see that this unit answers something of what the config asks of it.

        Raises DeviceUnavailable, also for a unit that its gateway does not reach, or DeviceRefused when it answers
        nothing but other exceptions.
        """
        await self._link.open()
        refused: dict[int, int] = {}
        try:
            for group in self._groups.values():
                found = await group.refusals(self._link)
                if not found:
                    return
                refused = found | refused
        except Garbled as error:
            await self.close()
            raise DeviceUnavailable(
                self._device, f"{self._link.where}: what comes is no answer", hint=error.hint
            ) from error
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
            absent = refused.keys() <= GATEWAY  # it is off or still starting: nobody need act, it comes by itself
            kind = DeviceUnavailable if absent else DeviceRefused
            raise kind(self._device, f"{self._link.where}: answers everything with {what}", hint=hint)

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
            write = write_of(field, value, self._settings.unit_id, multiple=self._settings.quirks.write_multiple)
        except ValueError as error:
            hint = "look at the tag's type, length, count, enum and scale"
            raise DeviceRefused(self._device, f"{tag}: {error}", hint=hint) from error
        try:
            await self._carry_out(tag, field, write)
        except ReadingRejected as error:
            self._link.drop()  # nobody knows whether it was done
            raise DeviceLost(self._device, f"{tag}: {_said(error, self._device)}", hint=error.hint) from error
        except DeviceLost as error:
            hint = " ".join(filter(None, (unanswered_write_hint(write.request), error.hint)))
            raise DeviceLost(self._device, f"{tag}: {_said(error, self._device)}", hint=hint) from error

    async def _carry_out(self, tag: str, field: Field, write: Write) -> None:
        unit_id = self._settings.unit_id
        code = await self._link.send(write.request)
        if code:
            hint = refused_write_hint(code, write.request) or refused_hint({code: field.start}, unit_id)
            raise DeviceRefused(self._device, f"{tag}: writing answered with {exception_text(code)}", hint=hint)
        if tag in self._unread:
            return
        answer = await self._link.fetch(write.back, write.size)
        if isinstance(answer, int):
            what = f"{tag}: reading it back answered with {exception_text(answer)}"
            hint = "an address that can only be written is marked with read_back: false"
            raise DeviceRefused(self._device, what, hint=hint)
        if not write.kept(answer):
            hint = (
                "does the PLC's program write this address too, or is it write-protected? Where that is meant: "
                "read_back: false"
            )
            raise ValueNotKept(self._device, f"{tag}: the device did not keep the value written", hint=hint)

    async def close(self) -> None:
        """Close at once. Idempotent."""
        self._link.drop()


def _said(error: ReadingRejected | DeviceLost, device: str) -> str:
    return str(error.args[0]).removeprefix(f"{device}: ")
