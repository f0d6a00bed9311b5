"""Records as JSON Lines, CSV or XML. The columns are those of ``flat``, in that order, whatever the format.

JSON Lines  an object a line; ``body`` is an object in it
CSV         a header and a row a record (RFC 4180: CRLF, quotes doubled); what is null is empty, ``body`` is JSON text
XML         ``<records><record><agent>…``; what is null is left out, ``body`` is JSON text. A control character, which
            XML 1.0 cannot hold, stands as in JSON: the group separator of a label is ``\\u001d``

Times are UTC to the microsecond: ``2026-11-21T20:56:01.123456Z``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import orjson

from edge_agent.routes.flat import COLUMNS, Flat
from edge_agent.routes.message import TOMBSTONE

Row = Mapping[str, Any]
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\r]")


class Numbered(NamedTuple):
    """A row, and the numbers of its stream that it settles."""

    first: int
    last: int
    row: Row


def rows_of(flat: Flat) -> list[Numbered]:
    """A message's rows. A range of numbers that will not come is a row of kind ``tombstone``."""
    rows = [Numbered(row["n"], row["n"], row | {"at": _time(row)}) for row in flat.rows]
    of = dict.fromkeys(COLUMNS) | {"agent": flat.agent, "log": flat.stream.partition(".")[0], "stream": flat.stream}
    of |= {"kind": TOMBSTONE, "source": flat.source}
    for one in flat.missing:
        body = orjson.dumps({"count": one.count, "reason": one.reason}).decode()
        rows.append(Numbered(one.n, one.n + one.count - 1, of | {"n": one.n, "body": body}))
    return rows


def _time(row: Row) -> str:
    text: str = row["at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return text.rjust(27, "0")  # a year before 1000, of a clock that was never set


def json_lines(rows: Iterable[Row], _encoding: str) -> bytes:
    """One object a line."""
    return b"".join(orjson.dumps({**row, "body": orjson.Fragment(row["body"])}) + b"\n" for row in rows)


def csv_table(rows: Iterable[Row], encoding: str) -> bytes:
    """A table with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return text.getvalue().encode(encoding)


def xml_document(rows: Iterable[Row], encoding: str) -> bytes:
    """A document with one element a record."""
    name = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
    parts = [f'<?xml version="1.0" encoding="{name}"?>\n<records>\n']
    for row in rows:
        cells = ((column, _cell(row[column])) for column in COLUMNS if row[column] is not None)
        elements = (f"<{column}>{escape(_NOT_XML.sub(_escaped, cell))}</{column}>" for column, cell in cells)
        parts.append(f"<record>{''.join(elements)}</record>\n")
    parts.append("</records>\n")
    return "".join(parts).encode(encoding)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


FORMATS: Mapping[str, Callable[[Iterable[Row], str], bytes]] = {
    "jsonl": json_lines,
    "csv": csv_table,
    "xml": xml_document,
}
