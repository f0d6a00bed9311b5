"""Tags from tables, as spreadsheets of all countries write them, and back."""

from __future__ import annotations

import codecs
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.cli.at_device import device_section
from edge_agent.config import load
from edge_agent.config.tables import read, table
from edge_agent.errors import ConfigError

CONFIG = """\
agent: {{id: a, location: {{enterprise: e, site: s, area: a, line: l}}, data_dir: {folder}}}
devices:
  press:   # the old one
    driver: modbus
    connection: tcp://127.0.0.1:502
    groups:
      state:
        poll: 100ms
        tags: {tags}
"""
ROWS = "name,address,type,order,unit\nforce,holding:100,float32,CDAB,千牛\ntemp,input:5,int16,,°C\n"


def config(folder: Path, raw: bytes, tags: str = "{from: press.csv}") -> Path:
    (folder / "press.csv").write_bytes(raw)
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(folder=folder, tags=tags))
    return path


def wrong(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(path)
    return [str(problem) for problem in refused.value.problems]


def test_a_table_is_the_same_as_its_rows_written_out(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    written = '{force: {address: "holding:100", type: float32, order: CDAB, unit: 千牛}, '
    written += 'temp: {address: "input:5", type: int16, unit: °C}}'
    by_hand = load(config(tmp_path / "b", b"", written))
    from_table = load(config(tmp_path, ROWS.encode()))
    assert from_table.devices["press"].settings == by_hand.devices["press"].settings
    assert from_table.devices["press"].shape == by_hand.devices["press"].shape


def test_a_change_in_the_table_is_another_configuration(tmp_path: Path) -> None:
    before = load(config(tmp_path, ROWS.encode())).id
    assert load(config(tmp_path, ROWS.replace("千牛", "N").encode())).id != before


@pytest.mark.parametrize(
    ("raw", "tags"),
    [
        (codecs.BOM_UTF8 + ROWS.encode(), "{from: press.csv}"),
        (ROWS.replace("\n", "\r\n").encode("utf-16"), "{from: press.csv}"),  # Excel: Unicode text
        (ROWS.replace(",", "\t").encode("utf-16"), "{from: press.csv}"),
        (ROWS.replace(",", ";").encode("gb18030"), "{from: press.csv, encoding: gb18030}"),
        (b"sep=;\r\n" + ROWS.replace(",", ";").encode("gb18030"), "{from: press.csv, encoding: gb18030}"),
        ("# 说明\n,,,,\n".encode() + ROWS.encode() + b",,,,\n", "{from: press.csv}"),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, raw: bytes, tags: str) -> None:
    tagset = load(config(tmp_path, raw, tags)).devices["press"].shape.groups["state"].tagset
    assert [(tag.name, tag.type, tag.unit) for tag in tagset.tags] == [
        ("force", "float32", "千牛"),
        ("temp", "int16", "°C"),
    ]


def test_what_is_no_utf_8_is_not_guessed(tmp_path: Path) -> None:
    # the same bytes are °C in a western table and a Chinese character in a Chinese one
    western = ROWS.replace("千牛", "kN").encode("cp1252")
    assert "gb18030 (Chinese Excel) or cp1252 (western): encoding: or --encoding" in wrong(config(tmp_path, western))[0]
    told = load(config(tmp_path, western, "{from: press.csv, encoding: cp1252}"))
    assert told.devices["press"].shape.groups["state"].tagset.tags[1].unit == "°C"


def test_a_decimal_comma_is_one_where_cells_are_separated_by_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("name;scale;unit\nx;0,5;a,b\n")
    ((_, name, cells),) = read(path)
    assert (name, cells["scale"].value, cells["unit"].value) == ("x", 0.5, "a,b")


@pytest.mark.parametrize(
    ("raw", "place", "message"),
    [
        (b"", "press.csv:1", "is empty"),
        (b"name,address\n", "press.csv:1", "has no rows"),
        (b"tag,address\nx,coil:1\n", "press.csv:1", "has no column name"),
        (b"name,address,address\nx,coil:1,\n", "press.csv:1", "two columns address"),
        (b"name,address\nx,coil:1\nx,coil:2\n", "press.csv:3", "stands in line 2 already"),
        (b"name,address\n,coil:1\n", "press.csv:2", "is empty"),
        (b"name,address\nx,coil:1,coil:2\n", "press.csv:2", "more cells than columns"),
        (b'name,address\nx,"coil:1\n', "press.csv", "is no table"),
        (b"name,address,enum\nx,coil:1,{0: a\n", "press.csv:2", "is no section"),
        (b'name,address,enum\nx,coil:1,"{0: a, 0: b}"\n', "press.csv:2", "enum.0: the key stands here twice"),
        (b"PK\x03\x04rest", "press.csv", "is a workbook"),
        (b"name,address\nx,inptu:5\n", "press.csv:2", "is no address"),
        (b"name,address,oder\n1x,coil:1,ABCD\n", "press.csv:2", "did you mean order?"),
        (b"name,address\na b,coil:1\n", "press.csv:2", "cannot be"),
    ],
)
def test_a_mistake_is_told_with_the_tables_line(tmp_path: Path, raw: bytes, place: str, message: str) -> None:
    problems = wrong(config(tmp_path, raw))
    assert any(f"{tmp_path}/{place}" in problem and message in problem for problem in problems), problems


def test_a_column_that_is_wrong_in_every_row_is_told_a_few_times(tmp_path: Path) -> None:
    rows = "name,address,oder\n" + "".join(f"t{number},coil:{number},x\n" for number in range(500))
    problems = wrong(config(tmp_path, rows.encode()))
    assert len(problems) == 11
    assert problems[-1].endswith("490 more mistakes")


def test_a_device_that_is_looked_at_alone_has_the_tags_of_its_table(tmp_path: Path) -> None:
    path = config(tmp_path, ROWS.encode())
    with path.open("a") as file:
        file.write("  other: {driver: modbus, connection: tcp://127.0.0.1, tags: {from: not-there.csv}}\n")
    assert device_section(path, "press").shape.groups["state"].tags.keys() == {"force", "temp"}
    with pytest.raises(ConfigError, match="No such file"):
        device_section(path, "other")


def test_a_table_stands_alone(tmp_path: Path) -> None:
    (problem,) = wrong(config(tmp_path, ROWS.encode(), '{from: press.csv, x: {address: "coil:1"}}'))
    assert "config.yaml:9" in problem
    assert "stands alone" in problem
    (missing,) = wrong(config(tmp_path, b"", "{from: other.csv}"))
    assert "No such file" in missing
    (unnameable,) = wrong(config(tmp_path, b"", r'{from: "a\0b.csv"}'))
    assert "null byte" in unnameable


CELLS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12).map(str.strip)
CELLS = CELLS.filter(lambda cell: not cell.startswith(("{", "[")))  # those are sections
ROW_SETS = st.dictionaries(st.from_regex(r"[a-z]\w{0,8}", fullmatch=True), CELLS, min_size=1, max_size=8)


@given(rows=ROW_SETS)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str]) -> None:
    path = tmp_path_factory.getbasetemp() / "round.csv"
    path.write_text(table({name: {"unit": unit} for name, unit in rows.items()}, ["unit"]), newline="")
    assert {name: cells["unit"].text if "unit" in cells else "" for _, name, cells in read(path)} == rows


@given(raw=st.binary(max_size=200))
def test_no_file_raises_anything_but_a_config_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(raw)
    for encoding in ("utf-8", "gb18030", "cp1252", "utf-7"):
        try:
            read(path, encoding)
        except ConfigError as refused:
            assert refused.problems


def agent(path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edge_agent", "--config", str(path), "--lang", "en", "tags", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def test_tags_go_to_a_spreadsheet_and_come_back(tmp_path: Path) -> None:
    path = config(tmp_path, ROWS.encode())
    exported = agent(path, "export", "press", "--group", "state").stdout
    assert exported.startswith(codecs.BOM_UTF8)
    table_path = tmp_path / "edited.csv"
    table_path.write_bytes(exported.replace(b"force", b"power").replace(b"temp", b"heat"))
    assert agent(path, "import", "press", "fast", str(table_path), "--poll", "50ms").returncode == 0
    assert "# the old one" in path.read_text()
    tags: Any = load(path).devices["press"].shape.groups["fast"].tagset.tags
    assert [(tag.name, tag.type, tag.unit) for tag in tags] == [("power", "float32", "千牛"), ("heat", "int16", "°C")]
    chinese = agent(path, "export", "press", "--encoding", "gb18030").stdout
    assert "千牛" in chinese.decode("gb18030")
    again = agent(path, "import", "press", "fast", str(table_path))
    assert again.returncode == 78
    assert re.search(rb"power|heat", again.stderr)


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    path = config(tmp_path, ROWS.encode())
    unknown = agent(path, "export", "pres")
    assert unknown.returncode == 2
    assert b"choose from press" in unknown.stderr
    assert agent(path, "export", "press", "--group", "x").returncode == 2
    assert agent(path, "export", "press", "--encoding", "cp1252").returncode == 2  # there is no 千 in it


def test_a_cell_that_begins_with_an_apostrophe_is_a_text(tmp_path: Path) -> None:
    rows = "name,address,type,unit\na,holding:1,int16,{}\n"
    (told,) = wrong(config(tmp_path, rows.format("2").encode()))
    assert "2 is a number, and a text is due" in told
    assert "begin the cell with an apostrophe: '2" in told
    made = load(config(tmp_path, rows.format("'2").encode()))
    assert made.devices["press"].settings.groups["state"].tags["a"].unit == "2"  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["2", "-0.5", "0,5", "true", "null", "'", "'2", "{a}", "[1]", "", "1e5", "kN", "5 '"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_text_comes_back_from_its_table_as_a_text(text: str, separator: str, tmp_path: Path) -> None:
    (tmp_path / "back.csv").write_text(
        table({"a": {"address": "holding:1", "unit": text}}, ["address", "unit"], separator)
    )
    ((_line, _name, cells),) = read(tmp_path / "back.csv")
    assert {key: cell.value for key, cell in cells.items()} == {"address": "holding:1", "unit": text}
