"""What the server said of a tag → the tag's value and its status. Pure but for the status codes' names.

The config says each tag's type; a server that sends another one is not believed: no value, and both types in the
status. Only what fits without loss is taken: an Int16 is an ``int32`` and a ``float64``, a Float is a ``float64``, a
Double is no ``float32``. What a value may be is said in edge_agent.model.Value:

- NaN and infinity are None with status "not a number"; in an array, that element is;
- a Float is the double with the fewest digits that give it back; integers beyond 2**53 are decimal strings;
- DateTime is ISO 8601 with all of its 100 ns; ByteString is base64;
- ``string`` takes String, LocalizedText (its text), Guid, XmlElement, NodeId, QualifiedName and StatusCode (in words),
  and the name of an enumeration's value, for a node whose enumeration the server describes;
- ``object`` takes structures as their fields, LocalizedText with its locale, QualifiedName with its namespace, and in
  ``object[]`` the mixed elements of a Variant array.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from edge_agent.model import Value
from edge_agent_drivers.opcua import binary as b
from edge_agent_drivers.opcua.codes import is_bad, words
from edge_agent_drivers.opcua.nodeid import node_text
from edge_agent_drivers.opcua.structures import Structures, Undescribed, as_bytes

EXACT = 2**53  # integers up to here are exact in every JSON reader
MOST_NESTED = 16  # ExtensionObjects in ExtensionObjects: each holds its bytes once more
NO_VALUE_YET = "no value yet"
NULL = "null"
NOT_A_NUMBER = "not a number"
NOT_TEXT = "not text"
NO_TIME = "no time"
NO_SUCH_NAME = "the enumeration has no name for"

_FLOAT = struct.Struct("<f")
_LEAST_NORMAL = 2.0**-126
_DIGITS = ("%.6g", "%.7g", "%.8g", "%.9g")
_MAX_TICKS = 2_650_467_743_990_000_000  # 9999-12-31T23:59:59, which stands for "no end" too
_EPOCH = datetime(1601, 1, 1)


class NoValue(Exception):
    """There is no value, and this is why. ``instead``: what can be kept of it."""

    def __init__(self, reason: str, instead: Value = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead


# --- one raw value -------------------------------------------------------------------------------------------


def finite(raw: float) -> float:
    """A Double that is a number."""
    if math.isfinite(raw):
        return raw
    raise NoValue(NOT_A_NUMBER)


def shortest(raw: float) -> float:
    """The double with the fewest digits that is the same Float. Six name it if any fewer do, but for subnormals."""
    if not math.isfinite(raw):
        raise NoValue(NOT_A_NUMBER)
    for digits in (
        _DIGITS if raw == 0 or abs(raw) >= _LEAST_NORMAL else ("%.1g", "%.2g", "%.3g", "%.4g", "%.5g", *_DIGITS)
    ):
        short = float(digits % raw)
        try:
            if _FLOAT.unpack(_FLOAT.pack(short)) == (raw,):
                return short
        except (OverflowError, struct.error):
            continue  # rounded up beyond the largest Float
    return raw


def exact(raw: int) -> int | str:
    """An integer that every JSON reader reads alike."""
    return raw if -EXACT <= raw <= EXACT else str(raw)


def _text(raw: str | bytes | None) -> str:
    if isinstance(raw, str):
        return raw
    raise NoValue(NULL if raw is None else NOT_TEXT)


def _time(ticks: int) -> str:
    if not 0 < ticks < _MAX_TICKS:
        raise NoValue(NO_TIME)  # both ends of the range mean that no time is given
    whole, fraction = divmod(ticks, 10_000_000)
    return f"{(_EPOCH + timedelta(seconds=whole)).isoformat()}.{fraction:07d}Z"


def _base64(raw: bytes | None) -> str:
    if raw is None:
        raise NoValue(NULL)
    return base64.b64encode(raw).decode()


def _node(raw: b.NodeIdValue) -> str:
    text = node_text(0 if raw.uri else raw.namespace, raw.identifier)
    text = f"nsu={raw.uri.replace('%', '%25').replace(';', '%3B')};{text}" if raw.uri else text
    return f"svr={raw.server};{text}" if raw.server else text


def _name(raw: b.QualifiedName) -> str:
    if raw.name is None:
        raise NoValue(NULL)
    return f"{raw.namespace}:{raw.name}" if raw.namespace else raw.name


def _code(raw: int) -> str:
    return words(raw) or "Good"


Convert = Callable[[Any], Any]
_SMALL = (b.SBYTE, b.BYTE, b.INT16, b.UINT16)
_INTEGERS = {"int8": (b.SBYTE,), "uint8": (b.BYTE,), "int16": (b.SBYTE, b.BYTE, b.INT16)} | {
    "uint16": (b.BYTE, b.UINT16), "int32": (*_SMALL, b.INT32), "uint32": (b.BYTE, b.UINT16, b.UINT32),
    "int64": (*_SMALL, b.INT32, b.UINT32, b.INT64), "uint64": (b.BYTE, b.UINT16, b.UINT32, b.UINT64),
}  # fmt: skip

CONVERT: dict[str, dict[int, Convert]] = {
    **{name: dict.fromkeys(codes, exact if name.endswith("64") else int) for name, codes in _INTEGERS.items()},
    "bool": {b.BOOLEAN: bool},
    "float32": {b.FLOAT: shortest, **dict.fromkeys(_SMALL, float)},
    "float64": {b.DOUBLE: finite, b.FLOAT: shortest, **dict.fromkeys((*_SMALL, b.INT32, b.UINT32), float)},
    "string": {
        b.STRING: _text, b.XML: _text, b.GUID: str, b.NODEID: _node, b.EXPANDED_NODEID: _node, b.STATUSCODE: _code,
        b.QUALIFIED_NAME: _name, b.LOCALIZED_TEXT: lambda raw: _text(raw.text),
    },
    "datetime": {b.DATETIME: _time},
    "bytes": {b.BYTESTRING: _base64},
}  # fmt: skip
"""By the tag's type and the built-in type on the wire; what is missing does not fit."""


# --- a tag's value -------------------------------------------------------------------------------------------


class Taker:
    """Makes values of what the server says of one tag."""

    def __init__(self, type_name: str, structures: Structures, names: Mapping[int, str] | None = None) -> None:
        self.is_array = type_name.endswith("[]")
        self._wanted = type_name
        scalar = type_name.removesuffix("[]")
        self._structures = structures
        self._convert = dict(CONVERT.get(scalar, {}))
        if scalar == "object":
            kept = (b.EXTENSION_OBJECT, b.LOCALIZED_TEXT, b.QUALIFIED_NAME, b.VARIANT, b.DATAVALUE)
            self._convert = {code: self._plainly(code) for code in kept}
        if scalar == "string" and names is not None:
            self._convert[b.INT32] = lambda raw: _named(names, raw)

    def take(self, said: b.DataValue) -> tuple[Value, str]:
        """The value, and why it is not good: "" when it is."""
        code = said.code
        if code:
            reason = words(code)
            if is_bad(code):
                return None, reason
        else:
            reason = ""
        convert = self._convert.get(said.type)
        if convert is None or said.is_array is not self.is_array or said.raw is None:
            return self._unfit(said, reason)
        try:
            if not said.is_array:
                return convert(said.raw), reason
            doubts: list[str] = []
            return _each(said.raw, convert, doubts), "; ".join(filter(None, [reason, *doubts[:1]]))
        except NoValue as none:
            return none.instead, none.reason
        except b.Malformed as error:
            return None, f"undecodable: {error}"
        except RecursionError:
            return None, "undecodable: nested too deep"

    def _unfit(self, said: b.DataValue, reason: str) -> tuple[None, str]:
        if said.type == b.NULL or (said.raw is None and said.is_array is self.is_array and said.type in self._convert):
            return None, reason or NULL
        name = b.BUILTIN_NAMES[said.type] if said.type < len(b.BUILTIN_NAMES) else f"built-in type {said.type}"
        return None, f"the server has {name}{'[]' if said.is_array else ''}, the config says {self._wanted}"

    def _plainly(self, code: int) -> Convert:
        return lambda raw: self._object(code, raw)

    def _object(self, code: int, raw: Any) -> Any:
        """A structure's fields. What is no value inside it makes the rest doubtful, not absent."""
        doubts: list[str] = []
        plain = self._plain(code, raw, doubts)
        if doubts:
            raise NoValue(doubts[0], plain)
        return plain

    def _plain(self, code: int, raw: Any, doubts: list[str], depth: int = 0) -> Any:
        """Any raw value as JSON knows it; what cannot be so is None, with a doubt. ``depth``: of structures in them."""
        try:
            match code:
                case b.VARIANT if raw is not None:
                    inner = raw.raw
                    if raw.is_array and inner is not None:
                        return _mapped(inner, lambda each: self._plain(raw.type, each, doubts, depth))
                    return self._plain(raw.type, inner, doubts, depth)
                case b.DATAVALUE if raw is not None:
                    value = self._plain(b.VARIANT, b.VariantValue(*raw[:3]), doubts, depth)
                    return {"value": None if is_bad(raw.code) else value, "status": _code(raw.code)}
                case b.EXTENSION_OBJECT if raw is not None:
                    return self._structure(raw, doubts, depth + 1)
                case b.LOCALIZED_TEXT:
                    return raw._asdict()
                case b.QUALIFIED_NAME:
                    return raw._asdict()
                case _:
                    return None if raw is None else _NATURAL[code](raw)
        except NoValue as none:
            if none.reason not in (NULL, NO_TIME):
                doubts.append(none.reason)
            return none.instead

    def _structure(self, extension: b.Extension, doubts: list[str], depth: int) -> dict[str, Any]:
        if depth > MOST_NESTED:
            raise b.Malformed("structures nested too deep")
        try:
            return self._structures.fields_of(extension, lambda code, raw: self._plain(code, raw, doubts, depth))
        except Undescribed as error:
            raise NoValue(str(error), as_bytes(extension)) from error
        except b.Malformed as error:
            raise NoValue(f"undecodable: {error}", as_bytes(extension)) from error


def _nothing(raw: Any) -> None:
    return None


_NATURAL: dict[int, Convert] = {
    **{code: convert for kind in ("int64", "uint64") for code, convert in CONVERT[kind].items()},
    **{code: CONVERT["string"][code] for code in (b.STRING, b.XML, b.GUID, b.NODEID, b.EXPANDED_NODEID, b.STATUSCODE)},
    b.BOOLEAN: bool,
    b.FLOAT: shortest,
    b.DOUBLE: finite,
    b.DATETIME: _time,
    **dict.fromkeys((b.BYTESTRING, *range(26, 32)), _base64),
    b.NULL: _nothing,
    b.DIAGNOSTIC_INFO: _nothing,
}


def _named(names: Mapping[int, str], raw: int) -> str:
    try:
        return names[raw]
    except KeyError as error:
        raise NoValue(f"{NO_SUCH_NAME} {raw}") from error


def _mapped(raw: list[Any], convert: Convert) -> list[Any]:
    return [_mapped(each, convert) if isinstance(each, list) else convert(each) for each in raw]


def _each(raw: list[Any], convert: Convert, doubts: list[str]) -> list[Any]:
    """An array's values; an element that is none is None, and a doubt."""

    def one(each: Any) -> Any:
        try:
            return None if each is None else convert(each)
        except NoValue as none:
            doubts.append(none.reason)
            return none.instead

    return _mapped(raw, one)
