"""What a server answers to Publish, Read, Republish and HistoryRead, from bytes to tuples. Pure; see ``binary``.

The hot path is ``_items``: a notification of a scalar with its times is a look-up by (mask, type) and one ``struct``
call. Everything else takes the general way.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from edge_agent_drivers.opcua.binary import (
    FIRST_TICKS,
    FORMATS,
    LAST_TICKS,
    MAX_ELEMENTS,
    UNIX_EPOCH_TICKS,
    DataValue,
    Malformed,
    Reader,
    ticks_to_ns,
)

PUBLISH_RESPONSE, READ_RESPONSE, REPUBLISH_RESPONSE, HISTORY_READ_RESPONSE = 829, 634, 835, 667
_DATA_CHANGE, _STATUS_CHANGE = 811, 820
_HISTORY_DATA = 658

Item = tuple[int, DataValue]
"""A client handle and what is said of it."""


class Notification(NamedTuple):
    """A notification message: ``closed`` is why the server gave the subscription up, None while it has not."""

    sequence: int
    items: list[Item]
    closed: int | None
    is_keep_alive: bool = False  # it has no number of its own then: it says which one comes next


class Published(NamedTuple):
    """The answer to a Publish request."""

    subscription: int
    available: list[int]  # sequence numbers that Republish would still give
    message: Notification


class HistoryPart(NamedTuple):
    """What one node's history gave: its status, where to go on ("" at the end), the values."""

    code: int
    continuation: bytes
    values: list[DataValue]


class Failed(Malformed):
    """An answer of the right type that says the request failed, as some servers do instead of a ServiceFault."""

    def __init__(self, code: int) -> None:
        super().__init__(f"an answer of the right type with the result 0x{code:08X}")
        self.code = code


def _header(reader: Reader, expected: int) -> None:
    """Skip the type and the header of a response. Raises Malformed for another type, Failed for a failure."""
    found = reader.nodeid()
    if (found.namespace, found.identifier) != (0, expected):
        raise Malformed(f"an answer of type {found.identifier!r} where {expected} was asked for")
    reader.take(12)  # when, and to which request
    result = reader.uint32()
    reader.diagnostic_info()
    for _ in range(reader.length()):
        reader.bytestring()
    reader.extension()
    if result & 0x8000_0000:
        raise Failed(result)


def published(data: bytes) -> Published:
    """A PublishResponse. Raises Malformed."""
    reader = Reader(data)
    _header(reader, PUBLISH_RESPONSE)
    subscription = reader.uint32()
    available = [reader.uint32() for _ in range(reader.length())]
    reader.byte()  # more notifications wait: the next request, already on its way, fetches them
    return Published(subscription, available, _message(reader))


def republished(data: bytes) -> Notification:
    """A RepublishResponse. Raises Malformed."""
    reader = Reader(data)
    _header(reader, REPUBLISH_RESPONSE)
    return _message(reader)


def read(data: bytes) -> list[DataValue]:
    """A ReadResponse. Raises Malformed."""
    reader = Reader(data)
    _header(reader, READ_RESPONSE)
    return [reader.datavalue() for _ in range(reader.count())]


def history(data: bytes) -> list[HistoryPart]:
    """A HistoryReadResponse. Raises Malformed."""
    reader = Reader(data)
    _header(reader, HISTORY_READ_RESPONSE)
    return [_history_part(reader) for _ in range(reader.count())]


def _history_part(reader: Reader) -> HistoryPart:
    code, continuation, extension = reader.uint32(), reader.bytestring() or b"", reader.extension()
    values: list[DataValue] = []
    if extension is not None and extension.encoding.namespace == 0 and extension.encoding.identifier == _HISTORY_DATA:
        inner = Reader(extension.body)
        values = [inner.datavalue() for _ in range(inner.count())]
    return HistoryPart(code, continuation, values)


def _message(reader: Reader) -> Notification:
    """A NotificationMessage. One without parts is a keep-alive."""
    sequence = reader.uint32()
    reader.take(8)  # publish time
    parts = max(reader.length(), 0)
    items: list[Item] = []
    closed: int | None = None
    for _ in range(parts):
        extension = reader.extension()
        if extension is None or extension.encoding.namespace != 0:
            continue
        if extension.encoding.identifier == _DATA_CHANGE:
            items += _items(extension.body)
        elif extension.encoding.identifier == _STATUS_CHANGE:
            closed = Reader(extension.body).uint32()
    return Notification(sequence, items, closed, parts == 0)


# --- the hot path --------------------------------------------------------------------------------------------

_HEAD = struct.Struct("<IBB")  # client handle, the DataValue's mask, and what is mostly the Variant's type
_VALUE, _STATUS, _SOURCE, _SERVER = 1, 2, 4, 8
_PLAIN = _VALUE | _SOURCE | _SERVER  # what most servers send

_WHOLE = {
    (mask << 8) | code: struct.Struct(f"<{letter}{'I' * (mask >> 1 & 1)}{'q' * (mask >> 2 & 1)}{'q' * (mask >> 3 & 1)}")
    for mask in range(16)
    if mask & _VALUE
    for code, letter in FORMATS.items()
}
"""The rest of a notification whose value is a scalar of fixed size."""


def _items(data: bytes) -> list[Item]:
    """The items of a DataChangeNotification. Raises Malformed."""
    reader = Reader(data)
    count, at = reader.length(), reader.at
    if count > MAX_ELEMENTS:
        raise Malformed(f"a notification of {count} items")
    found: list[Item] = []
    try:
        for _ in range(count):
            handle, mask, code = _HEAD.unpack_from(data, at)
            shape = _WHOLE.get(mask << 8 | code)
            if shape is None:
                reader.at = at + 4
                found.append((handle, reader.datavalue()))
                at = reader.at
                continue
            fields = shape.unpack_from(data, at + 6)
            at += 6 + shape.size
            if mask == _PLAIN and FIRST_TICKS <= fields[1] <= LAST_TICKS and FIRST_TICKS <= fields[2] <= LAST_TICKS:
                source_ns, server_ns = (fields[1] - UNIX_EPOCH_TICKS) * 100, (fields[2] - UNIX_EPOCH_TICKS) * 100
                found.append((handle, DataValue(code, False, fields[0], 0, source_ns, server_ns)))
            else:
                found.append((handle, _timed(mask, code, fields)))
    except struct.error as error:
        raise Malformed(f"a notification of {count} items is cut short") from error
    return found


def _timed(mask: int, code: int, fields: tuple[int, ...]) -> DataValue:
    """A scalar with whatever of status and times the mask names."""
    rest = list(fields[1:])
    status = rest.pop(0) if mask & _STATUS else 0
    source_ns = ticks_to_ns(rest.pop(0)) if mask & _SOURCE else None
    server_ns = ticks_to_ns(rest.pop(0)) if mask & _SERVER else None
    return DataValue(code, False, fields[0], status, source_ns, server_ns)
