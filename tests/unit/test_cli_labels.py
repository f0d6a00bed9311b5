"""`labels sheet` is read back by decoders of other makers too; `labels read` says what a technician needs to know."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest
import zxingcpp
from pyzbar import pyzbar

from edge_agent import cli, i18n
from edge_agent.cli import ExitCode
from edge_agent.cli.labels import typed
from edge_agent.cli.sheet import MARGIN_MM, PAGE_MM, sheets
from edge_agent.identify.commands import COMMANDS

CONFIG = r"""
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: DATA}
devices: {gate: {driver: scanner, port: /dev/null}}
labels:
  unit: {format: pattern, pattern: '^(?P<serial>SN\d{8})$'}
  box: {format: gs1}
  codes: {format: command, prefix: "%", defects: {D12: 划伤 <scratch>, D13: dent}}
stations:
  OP10: {step: assemble, identity: {when: before, scan: gate, pattern: '(?P<serial>A\d)'}, cycle: {timeout: 5min}}
"""
DOTS_MM = 8


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.replace("DATA", str(tmp_path)), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(one) for one in arguments])
    return int(ended.value.code or 0)


def picture(svg: str) -> Any:
    """The sheet's symbols as a printer would print them: every rectangle of every path, black on white."""
    root = ElementTree.fromstring(svg)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    page = numpy.full((int(height * DOTS_MM), int(width * DOTS_MM)), 255, numpy.uint8)
    space = "{http://www.w3.org/2000/svg}"
    for group in root.iter(f"{space}g"):
        left, top = (float(part) for part in re.findall(r"[\d.]+", group.attrib["transform"]))
        (path,) = group.iter(f"{space}path")
        x, y, wide, high = (float(part) for part in re.findall(r"[\d.]+", path.attrib["transform"]))
        for column, row, across, down in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-\d+Z", path.attrib["d"]):
            across_mm = [(left + x + wide * at) * DOTS_MM for at in (int(column), int(column) + int(across))]
            down_mm = [(top + y + high * at) * DOTS_MM for at in (int(row), int(row) + int(down))]
            page[round(down_mm[0]) : round(down_mm[1]), round(across_mm[0]) : round(across_mm[1])] = 0
    return page


@pytest.mark.parametrize("symbol", ["code128", "datamatrix", "qr"])
def test_the_sheet_is_read_back(symbol: str, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.svg"
    assert run("labels", "sheet", "--config", config, "--symbol", symbol, "--output", out) == ExitCode.OK
    svg = out.read_text(encoding="utf-8")
    wanted = sorted([f"%{word}" for word in COMMANDS] + ["%DEFECT:D12", "%DEFECT:D13"])
    page = picture(svg)
    assert sorted(one.text for one in zxingcpp.read_barcodes(page)) == wanted
    if symbol != "datamatrix":  # which zbar does not know
        assert sorted(one.data.decode() for one in pyzbar.decode(page)) == wanted
    assert "划伤 &lt;scratch&gt;" in svg


def test_the_sheet_has_what_materials_and_components_need(config: Path, tmp_path: Path) -> None:
    needs = (
        "materials: {solder: {scan: gate, pattern: 'L(?P<lot>\\d)'}},"
        " components: {board: {scan: gate, pattern: 'B(?P<serial>\\d)'}}, cycle: {timeout"
    )
    text = config.read_text(encoding="utf-8").replace("cycle: {timeout", needs)
    config.write_text(re.sub(r"\n  codes:.*", "", text), encoding="utf-8")
    out = tmp_path / "sheet.svg"
    assert run("labels", "sheet", "--config", config, "--output", out) == ExitCode.OK
    read = zxingcpp.read_barcodes(picture(out.read_text(encoding="utf-8")))
    assert sorted(one.text for one in read) == ["EMPTY:solder", "REMOVE"]


def test_texts_of_ones_own_control_characters_and_chinese(tmp_path: Path) -> None:
    out = tmp_path / "sheet.svg"
    assert (
        run("labels", "sheet", "[)><RS>06<GS>S1<RS><EOT>", "零件", "--symbol", "datamatrix", "-o", out) == ExitCode.OK
    )
    read = zxingcpp.read_barcodes(picture(out.read_text(encoding="utf-8")))
    assert {one.text for one in read} == {"[)>␞06␝S1␞␄", "零件"}


def test_many_codes_go_on_on_further_pages_and_stay_on_them() -> None:
    codes = [(f"DEFECT:D{number:03d}", f"defect {number}") for number in range(60)]
    svg = sheets(codes, "code128", "Commands")
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["viewBox"].split()[3])
    assert height % PAGE_MM[1] == 0 and height > PAGE_MM[1]
    assert sorted(one.text for one in zxingcpp.read_barcodes(picture(svg))) == [text for text, _ in codes]
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        assert MARGIN_MM <= float(text.attrib["y"]) % PAGE_MM[1] <= PAGE_MM[1] - MARGIN_MM / 2


@pytest.mark.parametrize(
    "arguments", [["零件"], [""], ["x" * 400], ["ok", "--symbol", "pdf"], ["ok", "-o", "/nowhere/x.svg"], ["x"] * 501]
)
def test_what_cannot_be_printed_is_refused(arguments: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("labels", "sheet", *arguments) in (ExitCode.PROBLEM, ExitCode.USAGE)
    assert "Traceback" not in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_typed_label() -> None:
    assert typed(r"[)><RS>06␝S1\x04") == b"[)>\x1e06\x1dS1\x04"
    assert typed("SN<1>") == b"SN<1>"


def test_read_shows_every_rules_answer(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("labels", "read", "--config", config, "010703206980498810032915210526") == ExitCode.PROBLEM
    said = capsys.readouterr().out
    assert "doubtful" in said and "lost_gs: the reader lost a separator" in said
    assert "the pattern does not match" in said and "it does not begin with %" in said
    assert run("labels", "read", "--config", config, "]d2100329<GS>15210526") == ExitCode.OK
    assert run("labels", "read", "--config", config, "A7") == ExitCode.OK
    assert "OP10.identity.pattern" in capsys.readouterr().out


def test_read_as_json_and_from_the_hex_of_a_scan_record(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("labels", "read", "--config", config, "--hex", b"SN00000001".hex(), "--json") == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["rules"]["unit"] == {
        "reads": True, "identifiers": {"serial": "SN00000001"}, "flags": [], "doubtful": False,
    }  # fmt: skip
    assert told["rules"]["box"]["reads"] is False and told["stations"] == {"OP10.identity": None}
    assert run("labels", "read", "--config", config, "--hex", "zz") == ExitCode.USAGE
    assert run("labels", "read", "--config", config, "x", "--aim", "d2") == ExitCode.USAGE


def test_read_knows_every_pattern_of_a_station(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        r"""
agent: {id: l3-pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /nowhere}
devices:
  gate: {driver: scanner, port: /dev/null}
  desk: {driver: scanner, port: /dev/zero}
stations:
  MIXER:
    step: mix
    identity: {when: before, of: lot, scan: gate, pattern: '(?P<lot>L\d+)'}
    cycle: {timeout: 24h}
    context: {part_number: {scan: desk, pattern: 'PN:(?P<part_number>\w+)'}, shift: {scan: desk, pattern: 'SHIFT\d'}}
    materials: {flux: {scan: desk, pattern: 'F:(?P<lot>\w+)', required: false}}
""".lstrip(),
        encoding="utf-8",
    )
    read = {}
    for label in ("L7", "PN:X1", "SHIFT2", "F:9"):
        assert run("labels", "read", "--config", path, label, "--json") == ExitCode.OK, label
        told = json.loads(capsys.readouterr().out)["stations"]
        read |= {where: found for where, found in told.items() if found is not None}
    assert read == {
        "MIXER.identity": {"lot": "L7"}, "MIXER.context.part_number": {"part_number": "X1"},
        "MIXER.context.shift": {"shift": "SHIFT2"}, "MIXER.materials.flux": {"lot": "9"},
    }  # fmt: skip


def test_read_speaks_chinese(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert run("--lang", "zh", "labels", "read", "--config", config, "]C1") == ExitCode.PROBLEM
    finally:
        i18n.use("en")
    assert "AIM 标识符之后没有内容" in capsys.readouterr().out
