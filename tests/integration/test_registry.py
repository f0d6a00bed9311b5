"""The registry of a real buffer: what it answers of genealogy, lots, carriers, holds and corrections, written or not.

Every question is asked twice: right after the append, when nothing can be durable, and again from the file alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from edge_agent.buffer import open_readonly
from edge_agent.model import Kind
from support.buffer_rig import asynchronous, opened
from support.registry_line import Line, lot


def lots(serial: str) -> Callable[[Any], Any]:
    return lambda lookup: (set(lookup.unit("serial", serial).lots), set(lookup.unit("serial", serial).packages))


@asynchronous
async def test_a_rebind_of_a_closed_cycle_moves_attempts_results_and_lots(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        first = line.cycle("SN1", lot("L1", "R1"), result="Failed")
        line.cycle("SN2", lot("L2"))
        second = line.cycle("SN1", lot("L3"))

        def told(serial: str) -> Callable[[Any], Any]:
            def ask(lookup: Any) -> Any:
                unit = lookup.unit("serial", serial)
                return unit.attempts, {step: (one.result, one.cycle) for step, one in unit.results.items()}

            return ask

        await line.agrees(told("SN1"), ({"press-fit": 2}, {"press-fit": ("Passed", second)}))
        await line.agrees(lots("SN1"), ({"L1", "L3"}, {"R1"}))
        line.rebind(second, "SN2")
        await line.agrees(told("SN1"), ({"press-fit": 1}, {"press-fit": ("Failed", first)}))
        await line.agrees(told("SN2"), ({"press-fit": 2}, {"press-fit": ("Passed", second)}))
        await line.agrees(lots("SN2"), ({"L2", "L3"}, set()))
        line.rebind(first, None, state="voided")
        await line.agrees(told("SN1"), ({}, {}))
        await line.agrees(lots("SN1"), (set(), set()))
        await line.agrees(
            lambda lookup: (lookup.cycle(first).binding_state, lookup.cycle(first).unit), ("voided", None)
        )
        with closing(open_readonly(tmp_path)) as archive:
            assert [unit.serial for unit in archive.forward("lot", "L3", 10).units] == ["SN2"]
            found = archive.forward("lot", "L1", 10)
            assert (found.units, found.unbound) == ((), (first,))


@asynchronous
async def test_a_visit_that_the_gate_blocked_is_no_attempt_and_no_result(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)

        def told(lookup: Any) -> Any:
            unit = lookup.unit("serial", "SN1")
            return unit.attempts, {step: (one.result, one.cycle) for step, one in unit.results.items()}

        blocked = {"result": "Skipped", "closed_by": "blocked", "complete": False}
        line.cycle("SN1", **blocked)
        await line.agrees(told, ({}, {}))
        worked = line.cycle("SN1")
        line.cycle("SN1", **blocked)
        await line.agrees(told, ({"press-fit": 1}, {"press-fit": ("Passed", worked)}))
        line.rebind(line.cycle("SN2", **blocked), "SN1")
        await line.agrees(told, ({"press-fit": 1}, {"press-fit": ("Passed", worked)}))


@asynchronous
async def test_components_at_any_depth_bring_their_lots_and_take_them_along(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        for serial in ("CAR", "ENGINE", "PISTON"):
            line.cycle(serial, lot(f"L-{serial}", certain=serial != "PISTON"))
        line.build_in("ENGINE", "PISTON", "piston")
        line.build_in("CAR", "ENGINE", "engine")
        await line.agrees(lots("CAR"), ({"L-CAR", "L-ENGINE", "L-PISTON"}, set()))
        await line.agrees(lambda lookup: lookup.unit("serial", "CAR").own_lots, {"L-CAR"})
        await line.agrees(lambda lookup: lookup.unit("serial", "PISTON").parent.parent_serial, "ENGINE")
        await line.agrees(
            lambda lookup: [(one.name, one.child_serial) for one in lookup.children_of(line.units["CAR"])],
            [("engine", "ENGINE")],
        )
        with closing(open_readonly(tmp_path)) as archive:
            found = archive.forward("lot", "L-PISTON", 10)
            told = [(unit.serial, unit.depth, unit.via, unit.certain) for unit in found.units]
            assert told == [("PISTON", 0, None, False), ("ENGINE", 1, "PISTON", False), ("CAR", 2, "ENGINE", False)]
            tree = archive.tree(line.units["CAR"])
            assert [(one.child_serial, one.depth) for one in tree.inside] == [("ENGINE", 1), ("PISTON", 2)]
            assert {one.lot for one in tree.materials} == {"L-CAR", "L-ENGINE", "L-PISTON"}
            around = archive.tree(line.units["PISTON"]).around
            assert [(one.parent_serial, one.depth) for one in around] == [("ENGINE", 1), ("CAR", 2)]
        line.build_in("CAR", "ENGINE", "engine", op="uninstall")
        await line.agrees(lambda lookup: lookup.parent_of(line.units["ENGINE"]), None)
        await line.agrees(lots("CAR"), ({"L-CAR"}, set()))
        line.build_in("CAR", "ENGINE", "engine")
        await line.agrees(lambda lookup: len(lookup.children_of(line.units["CAR"])), 1)


@asynchronous
async def test_a_unit_surely_has_a_lot_that_a_part_of_its_parts_surely_has(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        for serial, certain in (("CAR", False), ("SEAT", False), ("FRAME", None), ("WELD", True)):
            line.cycle(serial, *([] if certain is None else [lot("L-1", certain=certain)]))
        for parent, child in (("CAR", "SEAT"), ("SEAT", "FRAME"), ("FRAME", "WELD")):
            line.build_in(parent, child)
        await buffer.committed(buffer.next_seq - 1)
        with closing(open_readonly(tmp_path)) as archive:
            found = archive.forward("lot", "L-1", 10)
            told = [(unit.serial, unit.depth, unit.via, unit.certain) for unit in found.units]
            assert told == [
                ("CAR", 0, None, True), ("SEAT", 0, None, True), ("WELD", 0, None, True), ("FRAME", 1, "WELD", True),
            ]  # fmt: skip
            found = archive.forward("lot", "L-1", 2)
            assert ([unit.serial for unit in found.units], found.total) == (["CAR", "SEAT"], 4)


@asynchronous
async def test_a_circle_in_the_genealogy_ends_every_walk(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        for serial in ("A", "B", "C"):
            line.cycle(serial, lot(f"L-{serial}"))
        for parent, child in (("A", "B"), ("B", "C"), ("C", "A"), ("A", "A")):
            line.build_in(parent, child)
        await line.agrees(lots("A"), ({"L-A", "L-B", "L-C"}, set()))
        with closing(open_readonly(tmp_path)) as archive:
            assert {unit.serial for unit in archive.forward("lot", "L-A", 10).units} == {"A", "B", "C"}
            assert {one.child_serial for one in archive.tree(line.units["A"]).inside} == {"A", "B", "C"}
            assert archive.trace("A")[0].components


@asynchronous
async def test_a_carrier_holds_units_by_position_until_each_is_taken_off(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        for serial in ("SN1", "SN2", "SN3"):
            line.cycle(serial)
        for position, serial in ((2, "SN1"), (1, "SN2")):
            line.add(Kind.IDENTIFIER, "OP10", unit=line.units[serial], op="add", kind="carrier", value="P17",
                     position=position, evidence=[])  # fmt: skip

        def on(lookup: Any) -> Any:
            return [(one.position, one.serial) for one in lookup.on_carrier("P17")]

        await line.agrees(on, [(1, "SN2"), (2, "SN1")])
        await line.agrees(lambda lookup: lookup.unit("serial", "SN1").identifiers, {"serial": "SN1", "carrier": "P17"})
        line.add(Kind.IDENTIFIER, "OP90", unit=line.units["SN1"], op="remove", kind="carrier", value="P17", evidence=[])
        await line.agrees(on, [(1, "SN2")])
        await line.agrees(lambda lookup: lookup.unit("serial", "SN1").identifiers, {"serial": "SN1"})


@asynchronous
async def test_a_lot_is_known_as_last_loaded_and_active_until_it_ends(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        line.load("load", "L1", "R1", part_number="PN1", supplier="ACME", expiry="2026-01-31", quantity=2.0)

        def known(lookup: Any) -> Any:
            one = lookup.lot("L1")
            return one.part_number, one.supplier, one.expiry, one.active

        await line.agrees(known, ("PN1", "ACME", "2026-01-31", (("OP20", "solder", "R1"),)))
        line.cycle("SN1", lot("L1", "R1"))
        line.load("splice", "L2", "R2", quantity=5.0)
        await line.agrees(lambda lookup: lookup.lot("R2").active, (("OP20", "solder", "R2"),))
        loads = [(one.lot, one.state, one.used) for one in buffer.restored().materials]
        assert loads == [("L1", "spliced", 1), ("L2", "active", 0)], "both may be in use"
        line.load("deplete", "L1", "R1")
        await line.agrees(lambda lookup: lookup.lot("L1").active, ())
        assert [one.lot for one in buffer.restored().materials] == ["L2"]
        line.load("unload", None)  # all that is there
        await line.agrees(lambda lookup: lookup.lot("L2").active, ())
        assert buffer.lookup.lot("L9") is None


@asynchronous
async def test_a_release_closes_its_own_hold_and_no_other(tmp_path: Path) -> None:
    about = ("serial", "SN1")
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        line.cycle("SN1")
        line.verdict("hold", "H1", about, 1)
        line.verdict("hold", "H2", about, 2)
        line.verdict("hold", "H1", ("serial", "SN2"), 3)
        line.verdict("hold", "H3", about, 9, state="refused")
        line.verdict("release", "H1", about, 4)
        line.verdict("hold", "H2", about, 2, state="duplicate")
        await line.agrees(lambda lookup: lookup.decision_seq("serial", "SN1", "H1", "qms"), 4)
        await line.agrees(lambda lookup: lookup.last_decision("qms"), 9)
        await line.agrees(lambda lookup: [lookup.verdict(one).state for one in ("v2", "v9")], ["applied", "refused"])
        assert buffer.lookup.verdict("v77") is None
        held = [(one.hold, one.subject, one.action) for one in buffer.restored().holds]
        assert held == [("H2", "SN1", "hold"), ("H1", "SN2", "hold")]
        line.verdict("scrap", "H2", about, 5)
        await buffer.committed(buffer.next_seq - 1)
        assert [(one.hold, one.action) for one in buffer.restored().holds] == [("H1", "hold"), ("H2", "scrap")]
        with closing(open_readonly(tmp_path)) as archive:
            (unit,) = archive.trace("SN1")
            assert sorted((one.hold, one.action, one.state) for one in unit.holds) == [
                ("H1", "hold", "released"), ("H2", "scrap", "open"),
            ]  # fmt: skip


@asynchronous
async def test_others_status_is_the_newest_of_each_source(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        for said_by, result, at in (
            ("pc2", "Failed", 20),
            ("mes", "Passed", None),
            ("pc2", "Passed", 30),
            ("pc2", "Failed", 25),
        ):
            line.add(Kind.UNIT_STATUS, "agent", serial="SN1", step="weld", result=result, said_by=said_by,
                     status_at_ns=None if at is None else str(at), cycle="x-1")  # fmt: skip

        def said(lookup: Any) -> Any:
            return {(one.source, one.result, one.at_ns) for one in lookup.status("SN1")}

        await line.agrees(said, {("pc2", "Passed", 30), ("mes", "Passed", None)})
        await line.agrees(lambda lookup: lookup.status_of_cycle("pc2", "x-1")[0], "SN1")


@asynchronous
async def test_pending_cycles_and_acknowledged_findings_survive(tmp_path: Path) -> None:
    async with opened(tmp_path) as buffer:
        line = Line(buffer)
        cycle = line.cycle("SN1")
        line.rebind(cycle, None, state="pending")
        finding = line.add(Kind.FINDING, "OP20", finding=line.id(), code="missing_step", severity="error", text="t",
                           evidence=[], cycle=cycle)  # fmt: skip
        line.add(Kind.AUDIT, "agent", who="li", action="finding_ack", reason="seen", new={"finding": finding})
        await line.agrees(lambda lookup: lookup.finding(finding), "missing_step")
    async with opened(tmp_path) as buffer:
        (waiting,) = buffer.restored().pending
        assert (waiting.cycle, waiting.result, waiting.complete) == (cycle, "Passed", True)
    with closing(open_readonly(tmp_path)) as archive:
        (found,) = [one for unit in archive.trace("SN1") for one in unit.cycles for one in one.findings]
        assert (found.acknowledged_by, found.acknowledged_reason) == ("li", "seen")
