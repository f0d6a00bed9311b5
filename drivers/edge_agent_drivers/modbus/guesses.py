"""What stands at an address, read in every way: for the technician who knows the value and not its type.

The driver itself reads it, through a configuration of its own making: each way to read is a tag, and the value is what
that tag would have. Tags that need the same registers are one group, so one request; a device that refuses one of them
(a neighbour that does not exist, half of a pair) refuses no other.

Around the address: one below and one above, as manuals count from 1 or from 0 and nobody says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_agent.bench import Guess
from edge_agent.driver import GroupSettings
from edge_agent.errors import DeviceLost, DeviceRefused, ReadingRejected
from edge_agent.model import Sample
from edge_agent_drivers.modbus.config import (
    MAX_ADDRESS,
    WORDS,
    Address,
    ModbusSettings,
    ModbusTag,
    Table,
    parse_address,
)
from edge_agent_drivers.modbus.driver import ModbusDriver
from edge_agent_drivers.modbus.link import EXCEPTIONS

TEXT_WORDS = 8
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
ORDERS_OF_WORD = ("ABCD", "BADC")
TYPES = ("int16", "uint16", "bcd16", "int32", "uint32", "bcd32", "float32", "int64", "uint64", "float64")
_MANUAL: Mapping[str, Table] = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}
_NUMBERED = re.compile(r"([0134])x?(\d{4,5})|([0134])x(\d{1,5})", re.ASCII)


async def probe(settings: ModbusSettings, address: str) -> Sequence[Guess]:
    """Every way to read what stands at ``address`` and its two neighbours. Raises what the driver's open() raises,
    DeviceLost, and DeviceRefused for what is no address."""
    at = understood(address)
    tags = [*_ways(at.table, at.number, settings), *_neighbours(at, settings)]
    groups: dict[str, dict[str, ModbusTag]] = {}
    for index, tag in enumerate(tags):
        groups.setdefault(f"at_{tag.place.number}_{tag.words}", {})[f"way_{index}"] = tag
    sections = {name: GroupSettings[ModbusTag](on_trigger=True, tags=group) for name, group in groups.items()}
    driver = ModbusDriver("modbus", settings.model_copy(update={"groups": sections, "tags": {}}))
    read: dict[str, tuple[Any, str]] = {}
    try:
        await driver.open()
        for name, section in sections.items():
            try:
                read |= await _values(driver, name)
            except DeviceLost:  # some hang up on a register that they do not have; not on the address itself
                if not read:
                    raise
                read |= dict.fromkeys(section.tags, (None, "it hangs up"))
                await driver.open()
    finally:
        await driver.close()
    return [_guess(tag, *read[f"way_{index}"]) for index, tag in enumerate(tags)]


def understood(text: str) -> Address:
    """The address meant: ``holding:100``, the number 100, or 40101 and 4x101 as in manuals. Raises DeviceRefused."""
    spelled = text.strip()
    if match := _NUMBERED.fullmatch(spelled):
        digit, number = match[1] or match[3], int(match[2] or match[4])
        if number:
            spelled = f"{_MANUAL[digit]}:{number - 1}"
    try:
        at = parse_address(f"holding:{spelled}" if spelled.isascii() and spelled.isdecimal() else spelled)
    except ValueError as error:
        what, _, hint = str(error).partition("; ")
        raise DeviceRefused(text, what, hint=hint or "write holding:100, or 40101 as in a manual") from error
    return Address(at.table, at.number, None)


async def _values(driver: ModbusDriver, group: str) -> dict[str, tuple[Any, str]]:
    """Tag → value and why there is none."""
    try:
        (sample,) = await driver.read(group)
    except ReadingRejected as error:
        raise DeviceLost(error.device, str(error.args[0]).removeprefix(f"{error.device}: "), hint=error.hint) from error
    assert isinstance(sample, Sample)
    status = sample.status or {}
    return {
        tag.name: (value, _spelled(status.get(index, "")))
        for index, (tag, value) in enumerate(zip(sample.tagset.tags, sample.values, strict=True))
    }


def _spelled(status: str) -> str:
    word, _, code = status.partition(" ")
    if word == "exception" and code.isdecimal() and int(code) in EXCEPTIONS:
        return f"{status} ({EXCEPTIONS[int(code)]})"
    return status


def _neighbours(at: Address, settings: ModbusSettings) -> Iterator[ModbusTag]:
    for number in (at.number - 1, at.number + 1):
        if 0 <= number <= MAX_ADDRESS:
            yield from _ways(at.table, number, settings)


def _ways(table: Table, number: int, settings: ModbusSettings) -> Iterator[ModbusTag]:
    """The tags that this place may be."""
    here = f"{table}:{number}"
    if table in ("coil", "discrete"):
        yield ModbusTag(address=here)
        return
    for kind in TYPES:
        if number + WORDS[kind] - 1 <= MAX_ADDRESS:
            for order in ORDERS if WORDS[kind] > 1 else ORDERS_OF_WORD:
                yield ModbusTag.model_validate({"address": here, "type": kind, "order": order})
    words = min(TEXT_WORDS, MAX_ADDRESS + 1 - number, settings.quirks.max_registers)
    for order in ORDERS_OF_WORD:
        yield ModbusTag.model_validate({"address": here, "type": "string", "order": order, "length": 2 * words})
    for half in ("high", "low"):
        for kind in ("int8", "uint8"):
            yield ModbusTag.model_validate({"address": f"{here}.{half}", "type": kind})
    for bit in range(16):
        yield ModbusTag(address=f"{here}.{bit}")


def _guess(tag: ModbusTag, value: Any, why: str) -> Guess:
    kind = tag.value_type
    ordered = kind in (*TYPES, "string") and not tag.place.half
    section: dict[str, Any] = {"address": tag.address, "type": kind}
    if tag.order != "ABCD":
        section["order"] = tag.order
    if tag.length:
        section["length"] = tag.length
    return Guess(tag.address, kind, tag.order if ordered else "", value, why, section)
