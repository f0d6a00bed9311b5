"""A PLC that was read late after a scan: the end it shows may be the unit's before, or the scanned one's."""

from __future__ import annotations

from edge_agent.model import Kind
from support.binding_rig import Rig


def test_an_end_that_was_read_late_after_a_scan_is_neither_units() -> None:
    rig = Rig().put_in("SN1")
    rig.state(0)
    rig.scan("SN2")
    rig.wait(0.5)
    rig.state(1), rig.result(1), rig.result(1), rig.state(1), rig.state(0)
    (closed,) = rig.closed()
    assert closed["binding"]["state"] == "ambiguous"
    (*_, decided) = [b for b in rig.of(Kind.BINDING) if b["cycle"] == closed["cycle"]]
    assert [candidate["serial"] for candidate in decided["candidates"]] == ["SN1", "SN2"]
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["interrupted"], "SN2 may be done already"


def test_after_a_late_read_the_next_unscanned_unit_is_not_the_scanned_one() -> None:
    rig = Rig()
    rig.state(0)
    rig.scan("SN1")
    rig.wait(0.5)
    rig.state(1), rig.result(1), rig.result(1), rig.state(1), rig.state(0)  # SN1's own end
    rig.finish(2)  # a unit whose scan was missed
    assert [cycle["binding"]["state"] for cycle in rig.closed() if cycle["closed_by"] == "handshake"] == [
        "ambiguous",
        "orphan",
    ]
    owners = [owner for seq, _, _ in rig.records for owner in rig.serial_of(seq, "press.result")]
    assert owners
    assert not [serial for state, serial in owners if state == "bound" or serial]


def test_a_read_soon_after_a_scan_still_tells_the_unit_before() -> None:
    rig = Rig().put_in("SN1")
    rig.state(0)
    rig.scan("SN2")
    rig.wait(0.1)
    rig.state(1), rig.result(1), rig.result(1), rig.state(1), rig.state(0)
    assert rig.closed()[0]["binding"] == rig.closed()[0]["binding"] | {"state": "bound", "serial": "SN1"}
    assert not rig.binder.snapshot()["OP20"]["positions"]["1"]["interrupted"]
