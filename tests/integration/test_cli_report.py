"""`trace --tree`, `trace --lot` and `report shift` on a stopped agent's data_dir, as people and programs see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import i18n
from edge_agent.cli import main
from edge_agent.model import Kind
from support.buffer_rig import opened
from support.registry_line import Line, lot


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")

    async def work() -> None:
        async with opened(folder) as buffer:
            line = Line(buffer)
            line.add(Kind.CONFIG, "agent", config="c0ffee", stations={"OP20": {}, "OP90": {}}, devices={"press": "x"})
            line.add(Kind.FINDING, "OP90", finding=line.id(), code="unmatched_scan", severity="warning", text="who",
                     evidence=[])  # fmt: skip
            line.cycle("PCB1", lot("L-77", certain=False))
            line.cycle("SN1", lot("L-1", "R-4"), result="Failed", defects=["D12"])
            cycle = line.cycle("SN1", completeness="suspect", suspect=["nobody watched"], complete=False)
            orphan = line.cycle("SN9", lot("L-77"))
            line.rebind(orphan, None, state="orphan")
            line.build_in("SN1", "PCB1")
            line.verdict("hold", "H1", ("lot", "L-77"), 1)
            line.add(Kind.GATE, "OP20", gate=line.id(), station="OP20", position=1, unit=line.units["SN1"],
                     serial="SN1", verdict="block", code=3, reasons=[{"code": "on_hold", "text": "H1"}],
                     basis="live")  # fmt: skip
            for _ in range(2):
                finding = line.add(Kind.FINDING, "OP20", finding=line.id(), code="missing_field", severity="error",
                                   text="peak is missing", evidence=[], cycle=cycle, serial="SN1")  # fmt: skip
            line.add(Kind.AUDIT, "agent", who="li", action="finding_ack", reason="sensor", new={"finding": finding})
            gap = {"cause": "lost", "device": "press", "since_ns": str(line.now_ns() - 3 * 10**9)}
            line.add(Kind.FINDING, "press", finding=line.id(), code="observation_gap", severity="warning", text="gap",
                     evidence=[], details=gap)  # fmt: skip
            await buffer.committed(buffer.next_seq - 1)

    asyncio.run(work())
    return folder


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    i18n.use("en")
    yield
    i18n.use("en")


def edge_agent(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    return int(end.value.code or 0), capsys.readouterr().out


def program(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code, out = edge_agent(capsys, *arguments, "--json")
    assert code == 0, out
    return json.loads(out)


def test_a_lot_is_found_in_what_was_built_of_it(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    found = program(capsys, "trace", "--lot", "L-77", "--data-dir", str(data_dir))
    assert [(unit["serial"], unit["depth"], unit["certain"]) for unit in found["units"]] == [
        ("PCB1", 0, False), ("SN1", 1, False),
    ]  # fmt: skip
    assert found["total"] == 2 and len(found["unbound"]) == 1
    code, out = edge_agent(capsys, "trace", "--lot", "L-77", "--data-dir", str(data_dir))
    assert code == 0 and "lot L-77 is in 2 units" in out and "perhaps: one of several lots" in out
    assert "1 cycle used it of which nobody knows whose it is" in out
    assert program(capsys, "trace", "--package", "R-4", "--data-dir", str(data_dir))["units"][0]["serial"] == "SN1"
    assert edge_agent(capsys, "trace", "--lot", "L-99", "--data-dir", str(data_dir))[0] == 1
    assert edge_agent(capsys, "trace", "SN1", "--lot", "L-99", "--data-dir", str(data_dir))[0] == 2


def test_a_unit_shows_what_is_in_it_and_what_holds_it(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    code, out = edge_agent(capsys, "trace", "SN1", "--tree", "--data-dir", str(data_dir))
    assert code == 0 and "├─ solder: lot L-1, package R-4" in out and "└─ board: PCB1" in out
    assert "   └─ solder: lot L-77 (perhaps: one of several lots)" in out
    assert "SN1  board" in edge_agent(capsys, "trace", "PCB1", "--tree", "--data-dir", str(data_dir))[1]
    code, out = edge_agent(capsys, "trace", "SN1", "--data-dir", str(data_dir))
    for text in ("component board: PCB1", "hold H1: lot L-77", "gate OP20.1: block", "acknowledged by li: sensor",
                 "D12", "nobody watched", "solder: lot L-1, package R-4"):  # fmt: skip
        assert text in out, text
    (unit,) = program(capsys, "trace", "SN1", "--tree", "--data-dir", str(data_dir))["units"]
    assert unit["tree"]["inside"][0]["child_serial"] == "PCB1" and unit["holds"][0]["state"] == "open"


def test_a_shift_is_the_same_however_often_it_is_asked_for(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    until = str(Line.now_ns())
    arguments = ("report", "shift", "--hours", "1", "--until", until, "--data-dir", str(data_dir))
    found = program(capsys, *arguments)
    stations = {one["station"]: one for one in found["stations"]}
    line = stations["OP20"]
    assert (line["units"], line["cycles"], line["first"], line["first_passed"]) == (2, 4, 2, 1)
    assert line["first_pass_yield_pct"] == 50.0 and line["results"] == {"Passed": 3, "Failed": 1}
    assert (line["incomplete"], line["suspect"], line["blocked"], line["undecided"]) == (1, 1, 1, {"orphan": 1})
    assert line["findings"] == {"missing_field": 2} and line["unacknowledged"] == {"missing_field": 1}
    assert list(stations) == ["OP20", "OP90"], "the press is a device, and OP90 did nothing but tell a finding"
    (press,) = found["others"]
    assert (press["source"], press["gaps"], press["findings"]) == ("press", 1, {"observation_gap": 1})
    assert 2.9 < press["gap_s"] < 3.5 and "units" not in press
    assert found["traced"] == "SN1" and found["time_to_trace_ms"] > 0
    again = program(capsys, *arguments)
    assert again["stations"] == found["stations"]
    code, out = edge_agent(capsys, *arguments)
    assert code == 0 and "50.0 % (1/2)" in out and "missing_field 2 (1)" in out and "1 × 3 s" in out
    assert [row.split()[0] for row in out.splitlines() if "press" in row] == ["press"], "once, with its findings"
    code, out = edge_agent(capsys, "--lang", "zh", *arguments)
    assert code == 0 and "一次合格" in out
    assert edge_agent(capsys, "report", "shift", "--since", "06:00", "--hours", "2")[0] == 2
    earlier = program(capsys, "report", "shift", "--since", "1" * 18, "--until", "2" * 18, "--data-dir", str(data_dir))
    assert earlier["stations"] == [] and earlier["others"] == []
