"""What a byte stream may be, from its bytes and pauses alone: the frame, the protocol, the driver. Pure.

Each protocol has a finder that says how many of the bytes it explains by its own rules, checksums among them: chance
does not fit a checksum. What nobody explains and is text is a barcode reader's; what is no text is a wrong baud rate.
A guess is an offer to a technician, shown with its share of the bytes; nothing is ever configured by it alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from edge_agent.bench import Heard, Likeness
from edge_agent_drivers.stream.settings import StreamSettings

PAUSE_S = 0.05  # what a stream is cut into bursts by
SURE = 0.8  # so much explained, and nobody else need be heard
_AS_TEXT = 0.6  # text without further rules: a reader explains it only so well
_TEXT = frozenset([*range(0x20, 0x7F), 0x02, 0x03, 0x04, 0x09, 0x0A, 0x0D, 0x18, 0x1D, 0x1E])

_AIM = re.compile(rb"\][A-Za-z][0-9A-Za-z]")
_EM4100 = re.compile(rb"\x02([0-9A-F]{10})([0-9A-F]{2})(?:\r\n)?\x03")
_SICS = re.compile(rb"(?:S|T|TA|Z) (?:[SDAI+-])(?: +-? *\d+(?:\.\d*)? +\S{1,4})?|E[STL]|I4 A .*")
_TOLEDO = re.compile(rb"\x02[\x20-\x3f][\x20-\x7f]{2}[ 0-9]{6}(?:[ 0-9]{6})?\r")
_MITUTOYO = re.compile(rb"(?:G[NXMW]\d\d,|\d\dA)[+-]\d+\.?\d*")
_SYLVAC = re.compile(rb"[+-] *\d+\.\d+ *[<=>]?")
_NUMBER = re.compile(rb"\s*[+-]? *\d+\.\d+ *[A-Za-z%]{0,4}\s*|\s*[+-] *\d+ *[A-Za-z%]{0,4}\s*")
_PROFILES = {
    "keyence": re.compile(rb"OK,LO(?:N|FF)|ER,LO(?:N|FF),\d\d"),
    "cognex": re.compile(rb"\|\|[01]?(?::\d*)?\[\d+\].*|NO-READ", re.DOTALL),
    "datalogic": re.compile(rb"\x18|<CAN>"),
    "omron": re.compile(rb"E0\d\d"),
}
_FAILED = re.compile(rb"NO ?READ|NR|ERROR")
_NUMBER_PATTERN = r"\s*(?P<value>[+-]?\s*\d+\.?\d*)\s*(?P<unit>[A-Za-z%]*)\s*"


@dataclass(frozen=True, slots=True)
class Stream:
    """What was heard, cut into messages."""

    data: bytes
    bursts: tuple[bytes, ...]  # between pauses
    start: bytes  # what messages begin and end with; b"" where only a pause ends them
    end: bytes
    messages: tuple[bytes, ...]  # without start and end

    @property
    def text_share(self) -> float:
        """How many of the bytes may stand in a text."""
        return sum(byte in _TEXT for byte in self.data) / max(1, len(self.data))


Found = tuple[int, str, dict[str, Any]]
"""Bytes explained, what it is, and keys of the section."""


def recognize(settings: StreamSettings, sent: bytes, heard: Sequence[Heard]) -> list[Likeness]:
    """What this stream may be, the likeliest first; at least one."""
    stream = cut(heard)
    notes = tuple(_notes(stream))
    if damaged := sum(bool(one.error) and not one.data for one in heard):
        notes = (f"characters came damaged, {damaged} times: look at baud, data_bits and parity", *notes)
    if not stream.data:
        return [Likeness(0.0, "nothing was heard", {}, notes)]
    likely = []
    for finder in FINDERS:
        explained, what, keys = finder(stream, sent)
        if explained:
            share = min(1.0, explained / len(stream.data))
            likely.append(Likeness(round(share, 2), what, _section(settings, keys), notes))
    likely.sort(key=lambda one: -one.score)
    return likely or [Likeness(0.0, "no protocol known here; if it is not binary, try another baud rate", {}, notes)]


def cut(heard: Sequence[Heard]) -> Stream:
    """The bytes with what they are framed by."""
    bursts: list[bytearray] = []
    last_s = float("-inf")
    for one in heard:
        if not bursts or one.after_s - last_s > PAUSE_S:
            bursts.append(bytearray())
        bursts[-1] += one.data
        last_s = one.after_s + one.lasted_s
    whole = tuple(bytes(burst) for burst in bursts if burst)
    data = b"".join(whole)
    start, end = _frame(data)
    pieces = data.split(end)[:-1] if end else whole
    messages = [piece.lstrip(b"\r\n").partition(start)[2] if start else piece for piece in pieces]
    return Stream(data, whole, start, end, tuple(message for message in messages if message))


def _frame(data: bytes) -> tuple[bytes, bytes]:
    if re.search(rb"\x02[^\x02\x03]+\x03", data):
        return b"\x02", b"\x03"
    for end in (b"\r\n", b"\r", b"\n", b"\x03"):
        if end in data:
            return b"", end
    return b"", b""


def _section(settings: StreamSettings, keys: dict[str, Any]) -> dict[str, Any]:
    """The keys of the guess with where it was heard; a line's settings where they are not the default."""
    if keys["driver"] == "modbus":
        line = {key: value for key, value in _line(settings).items() if key in ("data_bits", "parity", "stop_bits")}
        serial = {"serial": {"baud": settings.baud, **line}}
        mode = keys.pop("mode")
        if settings.address is not None:
            return {**keys, "connection": settings.port.replace("tcp", f"{mode}+tcp", 1)}
        return {**keys, "connection": f"{mode}://{settings.port}", **serial}
    rest = {key: value for key, value in keys.items() if key != "driver"}
    return {"driver": keys["driver"], "port": settings.port, **_line(settings), **rest}


def _line(settings: StreamSettings) -> dict[str, Any]:
    default = StreamSettings(port=settings.port)
    keys = ("baud", "data_bits", "parity", "stop_bits", "flow")
    return {key: getattr(settings, key) for key in keys if getattr(settings, key) != getattr(default, key)}


# --- finders ---------------------------------------------------------------------------------------------------------


def _em4100(stream: Stream, sent: bytes) -> Found:
    explained = 0
    for match in _EM4100.finditer(stream.data):
        if reduce(int.__xor__, bytes.fromhex(match[1].decode())) == int(match[2], 16):
            explained += len(match[0])
    data = stream.data
    for at in range(len(data) - 9):  # the binary form: 02 0A type, 5 bytes, XOR, 03
        frame = data[at : at + 10]
        if frame[:2] == b"\x02\x0a" and frame[9] == 3 and reduce(int.__xor__, frame[1:8]) == frame[8]:
            explained += 10
    group: dict[str, Any] = {"tags": {"transponder": {}, "present": {}}}
    return explained, "EM4100 transponders (RDM6300)", {
        "driver": "rfid", "protocol": "em4100", "groups": {"field": group}
    }  # fmt: skip


def _feig(stream: Stream, sent: bytes) -> Found:
    explained = 0
    for burst in stream.bursts:
        while len(burst) >= 5 and 5 <= burst[0] <= len(burst):
            frame, burst = burst[: burst[0]], burst[burst[0] :]
            if _crc(frame[:-2], 0x8408) != int.from_bytes(frame[-2:], "little"):
                break
            explained += len(frame)
    group: dict[str, Any] = {"tags": {"transponder": {}, "present": {}}}
    keys = {"driver": "rfid", "protocol": "feig", "poll": "100ms", "groups": {"field": group}}
    return explained, "Feig reader (ISO 15693 transponders)", keys


def _instrument(protocol: str, what: str, pattern: re.Pattern[bytes]) -> Callable[[Stream, bytes], Found]:
    def finder(stream: Stream, sent: bytes) -> Found:
        explained = sum(len(message) + len(stream.end) for message in stream.messages if pattern.fullmatch(message))
        return explained, what, _gauge(protocol, sent)

    return finder


def _toledo(stream: Stream, sent: bytes) -> Found:
    frames = list(_TOLEDO.finditer(stream.data))
    checked = 0
    for match in frames:
        check = -sum(byte & 0x7F for byte in match[0]) & 0x7F
        checked += stream.data[match.end() : match.end() + 1] == bytes([check])
    keys = _gauge("toledo", b"")
    if checked > len(frames) / 2:  # the last frame may be cut off
        keys["checksum"] = True
    return sum(len(match[0]) for match in frames) + checked, "scale, Toledo continuous", keys


def _gauge(protocol: str, sent: bytes) -> dict[str, Any]:
    value: dict[str, Any] = {"tags": {"value": {}}}
    if protocol in ("mt-sics", "toledo"):
        value["tags"]["stable"] = {}
    if protocol == "line":
        value = {"pattern": _NUMBER_PATTERN, **value}
        if sent:
            value["ask"] = sent.decode("latin-1")
    if sent:
        value = {"poll": "1s", **value}
    return {"driver": "instrument", "protocol": protocol, "groups": {"measured": value}}


def _rtu(stream: Stream, sent: bytes) -> Found:
    explained, unit = 0, 0
    for burst in stream.bursts:  # a frame, or a request and its answer without the pause between them
        at = 0
        while at + 4 <= len(burst):
            ends = range(at + 4, min(len(burst), at + 256) + 1)
            end = next((end for end in ends if burst[at] <= 247 and _rtu_whole(burst[at:end])), None)
            if end is not None:
                explained, unit = explained + end - at, unit or burst[at]
            at = end or at + 1
    return explained, f"Modbus RTU, unit id {unit}; who is heard here already has a master", _modbus("rtu", unit)


def _ascii(stream: Stream, sent: bytes) -> Found:
    explained, unit = 0, 0
    for match in re.finditer(rb":((?:[0-9A-F]{2}){3,})\r\n", stream.data):
        frame = bytes.fromhex(match[1].decode())
        if not sum(frame) & 0xFF:
            explained, unit = explained + len(match[0]), unit or frame[0]
    return explained, f"Modbus ASCII, unit id {unit}", _modbus("ascii", unit)


def _modbus(mode: str, unit: int) -> dict[str, Any]:
    return {"driver": "modbus", "mode": mode, "unit_id": unit}


def _rtu_whole(frame: bytes) -> bool:
    return frame[1] & 0x7F in (1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 16, 17, 20, 21, 22, 23, 24, 43) and (
        _crc(frame[:-2], 0xA001) == int.from_bytes(frame[-2:], "little")
    )


def _scanner(stream: Stream, sent: bytes) -> Found:
    readable = [message for message in stream.messages if all(byte in _TEXT for byte in message)]
    if not readable:
        return 0, "", {}
    keys: dict[str, Any] = {"driver": "scanner"}
    what = "barcode reader"
    profile = next((name for name, said in _PROFILES.items() if any(map(said.fullmatch, readable))), "")
    if profile:
        keys["profile"], what = profile, f"barcode reader, {profile}"
    codes = [
        text for text in readable if not (_FAILED.fullmatch(text) or (profile and _PROFILES[profile].fullmatch(text)))
    ]
    if not stream.end:
        keys["frame"] = {"idle": "100ms"}
    elif stream.start or (stream.end != b"\r\n" and not (profile and stream.end == b"\r")):
        start = {"start": stream.start.decode("latin-1")} if stream.start else {}
        keys["frame"] = {**start, "end": stream.end.decode("latin-1")}
    if codes and all(map(_AIM.match, codes)):
        keys["aim"] = True
    share = 1.0 if profile or "aim" in keys else _AS_TEXT
    explained = sum(len(message) + len(stream.start) + len(stream.end) for message in readable)
    return max(1, int(explained * share)), what, keys


FINDERS: Sequence[Callable[[Stream, bytes], Found]] = (
    _em4100,
    _instrument("mt-sics", "scale, MT-SICS", _SICS),
    _toledo,
    _instrument("mitutoyo", "gauge, Mitutoyo", _MITUTOYO),
    _instrument("sylvac", "gauge, Sylvac", _SYLVAC),
    _rtu,
    _ascii,
    _feig,
    _instrument("line", "instrument that sends lines with a number", _NUMBER),
    _scanner,
)
"""Of two that explain as much, the earlier is shown first."""


# --- what else is seen -----------------------------------------------------------------------------------------------


def _notes(stream: Stream) -> Iterator[str]:
    if stream.end:
        yield f"messages end with {_shown(stream.end)}"
    elif len(stream.bursts) > 1:
        yield "no terminator: a pause ends each message"
    if stream.start:
        yield f"messages begin with {_shown(stream.start)}"
    if stream.data and stream.text_share < SURE:
        if _seven_bits(stream.data):
            yield "seven bits and even parity: try data_bits: 7, parity: even"
        else:
            yield f"{stream.text_share:.0%} of it is text"
    if check := _check(stream.messages):
        yield f"the last characters look like a checksum: {check}"


def _seven_bits(data: bytes) -> bool:
    """Text whose eighth bit is always the even parity of the rest."""
    return all(byte.bit_count() % 2 == 0 and byte & 0x7F in _TEXT for byte in data)


def _check(messages: Sequence[bytes]) -> str:
    """What sum the ends of all messages are, of at least two different ones."""
    different = set(messages)
    if len(different) < 2 or min(map(len, different)) < 4:
        return ""
    sums: dict[str, Callable[[bytes], int]] = {
        "XOR": lambda data: reduce(int.__xor__, data),
        "sum": lambda data: sum(data) & 0xFF,
        "sum, negated": lambda data: -sum(data) & 0xFF,
    }
    for name, of in sums.items():
        if all(message[-2:] == b"%02X" % of(message[:-2]) for message in different):
            return f"{name}, two hexadecimal digits"
        if all(message[-1] == of(message[:-1]) for message in different):
            return f"{name}, one byte"
    return ""


def _shown(data: bytes) -> str:
    names = {2: "STX", 3: "ETX", 10: "LF", 13: "CR"}
    return " ".join(names[byte] for byte in data)


def _crc(data: bytes, polynomial: int) -> int:
    """CRC-16, reflected, from FFFF: Modbus with A001, ISO 13239 without its last inversion with 8408."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
    return crc
