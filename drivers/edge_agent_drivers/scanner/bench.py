"""At the bench: which serial ports there are and what is plugged in; what comes over one of them, and what it may be.

A USB device says who made it. Makers of readers and gauges are known by their vendor number or name; the chips of
adapters say nothing of what is behind them, which only listening tells. Listing opens no port and disturbs nobody.
Listening opens one, alone, and sends nothing unless told to.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

from edge_agent.bench import Bench, Found, Heard, Listening, Tried, Where
from edge_agent.errors import DeviceLost, ReadingRejected
from edge_agent_drivers.scanner.guess import PAUSE_S, SURE, cut, recognize
from edge_agent_drivers.stream.names import Plugged, plugged
from edge_agent_drivers.stream.port import Port
from edge_agent_drivers.stream.settings import StreamSettings

RATES = (9600, 115200, 19200, 38400, 57600, 4800, 2400, 1200)
MAX_HEARD = 1_000_000  # bytes: a flood ends the listening
ENOUGH = 64  # bytes that judge a baud rate
SHOWN = 256  # bytes: what has no pause is told in pieces of this size

_READERS = {
    "0c2e": "honeywell", "05f9": "datalogic", "05e0": "zebra", "0720": "keyence", "0590": "omron",
}  # fmt: skip
_READER_NAMES = ("honeywell", "datalogic", "zebra", "keyence", "cognex", "omron", "microscan", "symbol")
_SAME = {"microscan": "omron", "symbol": "zebra"}
_GAUGES = {"0eb8": ("mt-sics", "Mettler-Toledo"), "0fe7": ("mitutoyo", "Mitutoyo")}
_ADAPTERS = {"0403": "FTDI", "1a86": "CH340", "067b": "Prolific", "10c4": "CP210x", "04d8": "Microchip", "110a": "Moxa"}


def bench() -> Bench:
    """What this driver offers at the bench."""
    return Bench(scan=scan, looks_at=("plugged",), listening=Listening(hear, try_rates, recognize))


async def scan(where: Where) -> AsyncIterator[Found]:
    """The serial ports of this PC, USB first, with what is plugged into each."""
    for port in await asyncio.to_thread(plugged):
        yield found_in(port)


def found_in(port: Plugged) -> Found:
    """What a port's names say of the device in it."""
    maker = " ".join(filter(None, (port.vendor, port.product))) or f"USB {port.vendor_id}:{port.product_id}"
    if not port.is_usb:
        what = "serial port of this PC" if port.path.startswith("/dev/tty") else f"link to {port.path}"
        return Found("serial", port.name, f"{what}; edge-agent listen-serial {port.name} tells what is behind it", {})
    name = re.sub(r"\W+", "_", port.product.lower()).strip("_")[:30]
    if profile := _profile(port):
        section = {"driver": "scanner", "port": port.name, "profile": profile}
        return Found("scanner", port.name, f"barcode reader: {maker}", section, name or profile)
    if gauge := _GAUGES.get(port.vendor_id):
        section = {"driver": "instrument", "port": port.name, "protocol": gauge[0]}
        return Found("instrument", port.name, f"instrument: {maker}", section, name or "gauge")
    kind = "adapter" if port.vendor_id in _ADAPTERS else "serial device"
    what = f"{kind}: {maker}; edge-agent listen-serial {port.name} tells what is behind it"
    return Found("serial", port.name, what, {}, name)


def _profile(port: Plugged) -> str:
    said = f"{port.vendor} {port.product}".lower()
    by_name = next((name for name in _READER_NAMES if name in said), "")
    return _READERS.get(port.vendor_id, "") or _SAME.get(by_name, by_name)


async def hear(settings: StreamSettings, sent: bytes, for_s: float) -> AsyncIterator[Heard]:
    """What comes within ``for_s``, told at each pause; a loss of the port is the last. Raises as ``Port.open`` does."""
    loop = asyncio.get_running_loop()
    port = Port("port", settings)
    await port.open()
    try:
        began_s, total = loop.time(), 0
        if sent:
            await port.send(sent)
        burst, first_s, last_s = b"", 0.0, 0.0
        while (left_s := began_s + for_s - loop.time()) > 0 and total < MAX_HEARD:
            data, failed = b"", None
            try:
                data = await port.take(min(left_s, PAUSE_S) if burst else left_s)
            except (ReadingRejected, DeviceLost) as error:
                failed = error
            now_s = loop.time() - began_s
            if data:
                first_s, last_s = (first_s if burst else now_s), now_s
                burst += data
            if burst and (not data or len(burst) >= SHOWN):
                yield Heard(first_s, burst, last_s - first_s)
                total, burst = total + len(burst), b""
            if failed is not None:
                yield Heard(now_s, b"", error=str(failed.args[0]).removeprefix("port: "))
            if isinstance(failed, DeviceLost):
                return
        if burst:
            yield Heard(first_s, burst, last_s - first_s)
    finally:
        port.close()


async def try_rates(settings: StreamSettings, sent: bytes, each_s: float) -> AsyncIterator[Tried]:
    """The usual baud rates one after the other, ``each_s`` each, until one is clear."""
    for baud in RATES:
        at = settings.model_copy(update={"baud": baud})
        heard: list[Heard] = []
        async for one in hear(at, sent, each_s):
            heard.append(one)
            if sum(len(each.data) for each in heard) >= ENOUGH and score(at, heard) >= SURE:
                break
        tried = Tried(baud, score(at, heard), tuple(heard))
        yield tried
        if tried.score >= SURE:
            return


def score(settings: StreamSettings, heard: Sequence[Heard]) -> float:
    """How clear it was: text, or a protocol that explains it; damaged characters and few bytes speak against it."""
    stream = cut(heard)
    damaged = sum(bool(one.error) for one in heard)
    share = max(stream.text_share if stream.end else 0.0, recognize(settings, b"", heard)[0].score)
    return round(share * len(stream.data) / max(4, len(stream.data) + damaged), 2)
