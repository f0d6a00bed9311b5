"""Files that any importer can read, whatever a label or a PLC says; numbers remembered as ranges."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.buffer import Row
from edge_agent.model import Kind
from edge_agent.routes.file_folder import MAX_NAME_BYTES, Numbers, file_name
from edge_agent.routes.file_formats import FORMATS, Numbered, rows_of
from edge_agent.routes.flat import COLUMNS, flatten
from edge_agent.routes.message import Stream, build, tombstone

STREAM = Stream("pc1", "9f2c41d07ab3.mes.1", "9f2c41d07ab3", "boot", "")
NASTY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def rows(body: dict[str, object], kind: Kind = Kind.CYCLE_CLOSED, source: str = "OP20") -> list[Numbered]:
    row = Row(90211, kind, source, 1795293977820854877, 773254142335, 0, orjson.dumps(body))
    (message,) = build([row], 117, 90211, 131072, 1000).messages
    return rows_of(flatten(message.payload(STREAM, 90)))


def test_a_closed_cycle_has_its_serial_in_a_column() -> None:
    body = {"cycle": "9f2c41d07ab3-7", "station": "OP20", "position": 2, "result": "Passed",
            "binding": {"state": "bound", "unit": "9f2c41d07ab3-3", "serial": "SN1"}}  # fmt: skip
    (one,) = rows(body)
    assert tuple(one.row) == COLUMNS
    assert [one.row[name] for name in COLUMNS[:-1]] == [
        *("pc1", "9f2c41d07ab3", 90211, "9f2c41d07ab3.mes.1", 118, "cycle_closed", "OP20", "OP20", 2, "9f2c41d07ab3-7"),
        *("SN1", "9f2c41d07ab3-3", "Passed", "2026-11-21T20:46:17.820854Z", 1795293977820854877, 773254142335, False),
    ]
    assert json.loads(one.row["body"]) == body


def test_numbers_that_will_not_come_are_a_row_too() -> None:
    payload = tombstone([(5, 3, "dropped: full"), (9, 1, "refused")]).payload(STREAM, 0)
    found = [(one.first, one.last, one.row["n"], one.row["kind"], json.loads(one.row["body"])) for one in rows_of(flatten(payload))]  # fmt: skip  # noqa: E501
    assert found == [
        (5, 7, 5, "tombstone", {"count": 3, "reason": "dropped: full"}),
        (9, 9, 9, "tombstone", {"count": 1, "reason": "refused"}),
    ]


@given(NASTY, NASTY)
def test_any_text_comes_through_any_format(serial: str, source: str) -> None:
    made = [one.row for one in rows({"serial": serial, "text": serial}, Kind.FINDING, source)]
    (line,) = FORMATS["jsonl"](made, "utf-8").splitlines()
    assert json.loads(line)["serial"] == serial
    assert json.loads(line)["body"]["text"] == serial
    for encoding in ("utf-8", "utf-8-sig", "gb18030"):
        text = FORMATS["csv"](made, encoding).decode(encoding)
        (record,) = csv.DictReader(io.StringIO(text, newline=""))
        assert (record["serial"], record["source"]) == (serial, source)
        assert json.loads(record["body"])["text"] == serial
    for encoding in ("utf-8", "utf-8-sig"):
        (element,) = ET.fromstring(FORMATS["xml"](made, encoding))
        assert json.loads(element.findtext("body") or "")["text"] == serial
        shown = element.findtext("serial") or ""
        if serial.isprintable():
            assert shown == serial


def test_the_group_separator_of_a_label_stands_in_xml_as_it_does_in_json() -> None:
    made = [one.row for one in rows({"serial": "01\x1d21<&>"}, Kind.FINDING)]
    (element,) = ET.fromstring(FORMATS["xml"](made, "gb18030").decode("gb18030").partition("?>")[2])
    assert element.findtext("serial") == "01\\u001d21<&>"


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5))))
def test_numbers_are_remembered_as_few_ranges(added: list[tuple[int, int]]) -> None:
    numbers, expected = Numbers(), set[int]()
    for first, more in added:
        numbers.add([(first, first + more)])
        expected |= set(range(first, first + more + 1))
    assert {n for n in range(70) if n in numbers} == expected
    assert all(later[0] > earlier[1] + 1 for earlier, later in zip(numbers.ranges, numbers.ranges[1:], strict=False))


@pytest.mark.parametrize("source", ["OP20", "../../etc/passwd", "a\\b:c*", "站" * 200, ".hidden", "x" * 200])
def test_a_file_stays_in_its_folder_whatever_its_source_is_called(source: str) -> None:
    parts = {"source": source, "kind": "scan", "stream": STREAM.name, "agent": "pc1"}
    names = {file_name("{source}-{kind}-{stream}-{first}-{last}", "csv", **parts, first=n, last=9) for n in (1, 2)}
    assert len(names) == 2
    for name in names:
        assert "/" not in name and "\\" not in name and name.endswith(".csv")
        assert len(name.encode()) <= MAX_NAME_BYTES + 4
