"""Finding Modbus devices: on hosts of a network, and on a serial line whose settings nobody knows.

**Hosts.** At most CONNECTS at a time. On each that takes the connection the unit ids are asked for one register; an
exception is an answer too. A unit id that nobody has is asked as well: a device that answers to that one answers to
all, and is one device. A host that says nothing may be a serial server, and is asked in RTU frames. One that sends what
is no Modbus is told, and left.

**A line.** Settings are tried in order of likelihood until one good frame answers; from then on the other unit ids are
asked with these. Nothing is ever written, and a try waits until the line is quiet.

Of those that answer: what they say of themselves (function 43/14) and which tables they have. All bounded: a host costs
at most some dozen time-outs, a line as many as there are tries, which the error counts when nobody answers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

from edge_agent.bench import Bench, Found, Where
from edge_agent.errors import DeviceRefused, DeviceUnavailable, DriverError
from edge_agent_drivers.modbus.asking import Asker
from edge_agent_drivers.modbus.config import Table
from edge_agent_drivers.modbus.connection import SerialSettings
from edge_agent_drivers.modbus.frames import FRAMINGS, Mbap, Request, identify_request, read_request
from edge_agent_drivers.modbus.guesses import probe
from edge_agent_drivers.stream.port import Port
from edge_agent_drivers.stream.settings import StreamSettings

CONNECTS = 64
DEFAULT_PORT = 502
NOBODYS_UNITS = range(248, 255)  # reserved by the standard
LINE_UNITS = (1, 2, 3)  # asked with every setting
SCHEMES = {"tcp": (1, 255, 0, 2), "rtu+tcp": LINE_UNITS}
"""How a host may speak, and the unit ids asked: a device is 1 or ignores it; 255 and 0 mean the host itself."""
LINE_UNITS_MORE = tuple(range(1, 11))  # asked once the setting is known
BAUDS = (9600, 19200, 115200, 38400, 57600, 4800, 2400)
FORMATS: dict[str, tuple[tuple[str, ...], ...]] = {
    "rtu": (("8E1", "8N1"), ("8O1", "8N2")),
    "ascii": (("7E1", "8N1"), ("7O1", "7N2")),
}  # one tuple at all rates, then the next
TABLES: tuple[Table, ...] = ("holding", "input", "coil", "discrete")
GATEWAY = (10, 11)
ABOUT_ADDRESS = (1, 2, 3)  # exceptions that only a device gives
NO_SUCH_FUNCTION = 1
_NOBODY_BEHIND = "a gateway: no device answers behind it with the unit ids asked; ask others with --unit 1-247"
_PARITIES = {"N": "none", "E": "even", "O": "odd"}


def bench() -> Bench:
    """What this driver offers at the bench."""
    return Bench(scan=scan, looks_at=("hosts", "ports"), probe=probe)


async def scan(where: Where) -> AsyncIterator[Found]:
    """Who answers Modbus there, as they are found.

    Raises DeviceUnavailable or DeviceRefused for a line on which nobody answers, and for a host that is the only one.
    """
    silent: list[DriverError] = []
    async for found in _on_hosts(where, silent):
        yield found
    if len(where.hosts) == 1 and silent:
        raise silent[0]
    for port in where.ports:
        async for found in _on_line(port, where):
            yield found


# --- hosts ---------------------------------------------------------------------------------------------------------


async def _on_hosts(where: Where, silent: list[DriverError]) -> AsyncIterator[Found]:
    """The devices on all hosts, in the order of these, so that a list is the same again; ``silent`` gets why the others
    did not answer."""
    turn = asyncio.Semaphore(CONNECTS)

    async def look(host: str, port: int) -> list[Found]:
        async with turn:
            return await _on_host(host, port, where, silent)

    tasks = [asyncio.create_task(look(host, port)) for host, port in where.addresses(DEFAULT_PORT)]
    try:
        for task in tasks:
            for found in await task:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _on_host(host: str, port: int, where: Where, silent: list[DriverError]) -> list[Found]:
    """The devices on one host: those that speak Modbus TCP; if it says nothing, those behind a serial server."""
    at = f"{f'[{host}]' if ':' in host else host}:{port}"
    tcp, what = f"tcp://{at}", ""
    for scheme, units in SCHEMES.items():
        framing = Mbap(lenient=True) if scheme == "tcp" else FRAMINGS[scheme.partition("+")[0]]()
        asker = Asker(Port("modbus", StreamSettings(port=tcp)), framing, where.timeout_s)
        try:
            await asker.open()
            found, beside = await _with_framing(asker, f"{scheme}://{at}", where.units, units)
        except TimeoutError:
            hint = f"ping {host}; is it on, and in this network?"
            silent.append(DeviceUnavailable("modbus", f"{tcp}: no answer", hint=hint))
            return []
        except DriverError as error:
            silent.append(error)
            return []
        finally:
            asker.close()
        if found:
            return found
        what = what or beside or ("something listens there that does not speak Modbus" if asker.noise else "")
        if what:
            break
    what = what or "takes the connection and answers nothing; ask other unit ids with --unit 1-247"
    return [Found("modbus", tcp, what, {})]


async def _with_framing(
    asker: Asker, connection: str, asked: Sequence[int], units: Sequence[int]
) -> tuple[list[Found], str]:
    devices, beside = await _present(asker, asked or units, not asked)
    found = []
    for unit_id in devices:
        section = {"driver": "modbus", "connection": connection, "unit_id": unit_id}
        found.append(await _described(asker, connection, unit_id, section, beside))
    return found, beside


# --- a serial line -------------------------------------------------------------------------------------------------


class _Try(NamedTuple):
    """One way to set a line."""

    framing: str
    serial: SerialSettings

    def asker(self, port: str, timeout_s: float) -> Asker:
        its = self.serial
        try:
            settings = StreamSettings(port=port, **its.model_dump())
        except ValueError as error:
            what = f"{port}: is no serial port"
            raise DeviceRefused("modbus", what, hint="write /dev/serial/by-id/usb-… or usb:VID:PID:SERIAL") from error
        return Asker(Port("modbus", settings), FRAMINGS[self.framing](), timeout_s, its.character_s)

    def __str__(self) -> str:
        return f"{self.framing.upper()} {self.serial.terms}"


def tries() -> Iterator[_Try]:
    """The settings of lines, the likeliest first."""
    for framing, likely in FORMATS.items():
        for formats in likely:
            for baud in BAUDS:
                for text in formats:
                    bits = {"data_bits": int(text[0]), "parity": _PARITIES[text[1]], "stop_bits": int(text[2])}
                    yield _Try(framing, SerialSettings.model_validate({"baud": baud, **bits}))


async def _on_line(port: str, where: Where) -> AsyncIterator[Found]:
    """The devices on one line. Raises DeviceUnavailable when nobody answers, DeviceRefused when it cannot be opened."""
    units = where.units or LINE_UNITS
    noisy: list[str] = []
    echo = False
    for one in tries():
        asker = one.asker(port, where.timeout_s)
        try:
            if await _answers_at_all(asker, units):
                async for found in _on_known_line(asker, one, port, where.units):
                    yield found
                return
        finally:
            asker.close()
        echo = echo or asker.echo
        noisy += [str(one)] if asker.noise else []
    raise _nobody(port, units, noisy, echo)


async def _answers_at_all(asker: Asker, units: Sequence[int]) -> bool:
    for unit_id in units:
        if unit_id and await asker.ask(_one(unit_id)) is not None:  # 0 is the broadcast: nobody answers it
            return True
    return False


async def _on_known_line(asker: Asker, at: _Try, port: str, units: Sequence[int]) -> AsyncIterator[Found]:
    """All that answer with these settings."""
    connection = f"{at.framing}://{port}"
    devices, beside = await _present(asker, [unit_id for unit_id in units if unit_id] or LINE_UNITS_MORE, not units)
    for unit_id in devices:
        serial = at.serial.model_dump()
        section = {"driver": "modbus", "connection": connection, "unit_id": unit_id, "serial": serial}
        yield await _described(asker, connection, unit_id, section, "; ".join(filter(None, (str(at), beside))))
    if not devices:
        yield Found("modbus", connection, f"{_NOBODY_BEHIND}; {at}", {})


def _nobody(port: str, units: Sequence[int], noisy: Sequence[str], echo: bool) -> DeviceUnavailable:
    every = list(tries())
    bauds, asked = "/".join(map(str, BAUDS)), ", ".join(map(str, units))
    tried = "; ".join(
        f"{framing.upper()} {'/'.join(text for formats in FORMATS[framing] for text in formats)}" for framing in FORMATS
    )
    what = f"{port}: no answer in {len(every) * len(units)} tries: unit ids {asked}; {bauds} baud; {tried}"
    if noisy:
        hint = (
            f"characters came that are no Modbus ({', '.join(noisy[:3])}): another device or master talks on this line"
        )
    elif echo:
        hint = "the adapter hears itself, so it sends: are A and B swapped, is the device on, is its unit id another?"
    else:
        hint = "are A and B swapped, is the device on? Give its unit id with --unit, and a slow one --timeout 2"
    return DeviceUnavailable("modbus", what, hint=hint)


# --- who is there, and who it is -----------------------------------------------------------------------------------


async def _present(asker: Asker, units: Sequence[int], once: bool) -> tuple[list[int], str]:
    """The unit ids that are somebody's, and what is to be said beside. ``once``: of a device that answers to all of
    them one is enough.

    A device may answer as one unit, whichever is asked: then that one is asked.
    What a unit id that is nobody's by the standard is answered tells a device that ignores unit ids, or how a server or
    gateway says that it has no such unit.
    """
    answers: dict[int, bytes] = {}
    for unit_id in units:
        answer = await asker.ask(_one(unit_id))
        if answer is not None:
            answers[unit_id] = answer
        elif asker.other_unit is not None:
            other = asker.other_unit
            return ([other], f"answers as unit {other} to every unit id") if await asker.ask(_one(other)) else ([], "")
        elif asker.noise:
            break
    there = [unit_id for unit_id, answer in answers.items() if _exception(answer) not in GATEWAY]
    if not there:
        return [], _NOBODY_BEHIND if answers else ""
    nobody = await asker.ask(_one(next((each for each in NOBODYS_UNITS if each not in units), NOBODYS_UNITS[0])))
    if nobody is None or _exception(nobody) in GATEWAY:
        return there, ""
    if _exception(nobody):
        others = [unit_id for unit_id in there if answers[unit_id] != nobody]
        if others or _exception(nobody) not in ABOUT_ADDRESS:
            return others, "" if others else _NOBODY_BEHIND
    return there[:1] if once else there, "answers to every unit id"


def _one(unit_id: int) -> Request:
    """The gentlest question there is."""
    return read_request("holding", 0, 1, unit_id)


def _exception(answer: bytes) -> int:
    """The exception's code; 0 for a good answer."""
    return answer[1] if answer[0] & 0x80 else 0


async def _described(asker: Asker, at: str, unit_id: int, section: dict[str, Any], beside: str) -> Found:
    """The row of a unit that answers: what it says of itself, and which tables it has."""
    who = _identity(await asker.ask(identify_request(unit_id)))
    tables = []
    for table in TABLES:
        answer = await asker.ask(read_request(table, 0, 1, unit_id))
        code = 0 if answer is None else _exception(answer)
        if answer is not None and code != NO_SUCH_FUNCTION:
            tables.append(f"{table} (exception {code} at 0)" if code else table)
    parts = [f"unit {unit_id}", " ".join(who), ", ".join(tables), beside]
    name = re.sub(r"\W+", "_", " ".join(who[1:2] or who), flags=re.ASCII).strip("_").lower()
    return Found("modbus", at, "; ".join(filter(None, parts)), section, name or f"modbus_{unit_id}")


def _identity(answer: bytes | None) -> list[str]:
    """Vendor, product and revision, as far as it has them; what is not printable is left out."""
    if answer is None or _exception(answer):
        return []
    texts, at = [], 7
    for _ in range(answer[6]):
        length = answer[at + 1]
        raw = answer[at + 2 : at + 2 + length].decode("utf-8", "replace")
        texts.append("".join(sign for sign in raw if sign.isprintable()).strip())
        at += 2 + length
    return [text for text in texts if text]
