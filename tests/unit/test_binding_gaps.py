"""Observation gaps: what interrupts, what may resume, and what an end after a gap is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.binding import OpenCycle, Restored
from edge_agent.binding.plan import Edge, Handshake, Resume
from edge_agent.model import Kind, Record
from support.binding_rig import BARE_EDGE, CLAIMS, EDGE, HANDSHAKE, UNCOUNTED, Rig, plan, position, station, tag

NUMBER = Resume(cycle_number=tag("press.number"))
NAMED = Resume(serial=tag("press.sn"))


def rig_with(resume: Resume = NUMBER, **changes: object) -> Rig:
    rig = Rig(plan(station(position(resume=resume, claims=CLAIMS | {"oven.air": ("heat",)}, **changes))))
    rig.state(0, number=7, sn="SN1")
    rig.scan("SN1")
    rig.state(0, number=7, sn="SN1"), rig.state(0, number=7, sn="SN1")
    return rig


def interrupted(rig: Rig) -> bool:
    shown: bool = rig.binder.snapshot()["OP20"]["positions"]["1"]["interrupted"]
    return shown


# --- what interrupts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["press", "gate"])
def test_losing_a_device_that_identifies_or_delimits_interrupts(device: str) -> None:
    rig = rig_with()
    rig.gap(device)
    assert interrupted(rig)
    (finding,) = rig.of(Kind.FINDING)
    assert (finding["code"], finding["serial"], finding["position"]) == ("observation_gap", "SN1", 1)
    assert finding["details"]["cause"] == "lost"
    assert finding["details"]["cycles"] == [rig.registry.open_cycles()[0].cycle]


def test_losing_another_device_interrupts_nothing() -> None:
    rig = rig_with()
    rig.gap("oven")
    assert not interrupted(rig)
    assert rig.of(Kind.FINDING)[0]["details"]["device"] == "oven"


def test_a_gap_said_twice_is_one() -> None:
    rig = rig_with()
    rig.gap("press"), rig.wait().gap("press"), rig.gap("gate")
    assert [one.get("serial") for one in rig.of(Kind.FINDING)] == ["SN1", None, None], "the others name a device only"


def test_every_loss_is_reported_and_stalls_do_not_fill_the_log() -> None:
    rig = Rig()
    for _ in range(5):
        rig.wait(1).gap("press")
    assert len(rig.findings()) == 5
    for _ in range(29):
        rig.wait(2).state(0)
    assert len(rig.findings()) == 6
    rig.wait(10).state(0)
    assert len(rig.findings()) == 7


@pytest.mark.parametrize("ticks", [True, False])
def test_a_silence_of_a_delimiting_group_interrupts(ticks: bool) -> None:
    rig = rig_with()
    for _ in range(6):
        rig.wait(0.2)
        if ticks:
            rig.tick(0)
    if not ticks:
        rig.state(0, number=8)
    assert interrupted(rig)
    details = rig.of(Kind.FINDING)[0]["details"]
    assert (details["cause"], details["device"]) == ("stall", "press")


@pytest.mark.parametrize("serial", ["SN1", "SN2"])
@pytest.mark.parametrize("end", [HANDSHAKE, EDGE])
def test_a_scan_that_may_have_lain_in_its_port_during_a_stall_binds_nothing(serial: str, end: Handshake | Edge) -> None:
    """The agent stood still; what was scanned meanwhile is read at once when it goes on, the unit may be gone."""
    rig = rig_with(Resume(), end=end)
    rig.wait(5).tick(0)
    rig.wait(0.005).scan(serial)
    rig.state(0), rig.state(0)
    assert interrupted(rig)
    rig.finish(2, reads=1 if isinstance(end, Edge) else 2)
    assert [(one["closed_by"], one["binding"]["state"]) for one in rig.closed()[-2:]] == [
        ("interrupted", "bound"), ("handshake" if end is HANDSHAKE else "edge", "orphan")
    ]  # fmt: skip


def test_a_scan_well_after_a_stall_is_believed() -> None:
    rig = rig_with(Resume())
    rig.wait(5).tick(0)
    rig.state(0), rig.state(0), rig.state(0)
    rig.scan("SN2")
    rig.state(0), rig.state(0)
    assert not interrupted(rig)


def test_a_silence_within_the_limit_is_none() -> None:
    rig = rig_with()
    rig.wait(0.7).tick(0)
    rig.state(0, number=7)
    assert rig.findings() == []


@pytest.mark.parametrize("end", [HANDSHAKE, UNCOUNTED, EDGE, BARE_EDGE])
def test_a_delimiting_tag_that_the_device_refuses_is_a_gap_though_the_rest_is_read(end: Handshake | Edge) -> None:
    rig = rig_with(Resume(), end=end)
    for _ in range(20):  # two seconds; meanwhile SN1 is finished, and a unit without a scan put in
        rig.state(None)
    assert interrupted(rig)
    (finding,) = rig.of(Kind.FINDING)
    assert (finding["code"], finding["serial"]) == ("observation_gap", "SN1")
    rig.state(0)
    rig.finish(2, reads=1 if isinstance(end, Edge) else 2)
    assert [cycle["binding"].get("serial") for cycle in rig.closed()] == ["SN1", None]
    assert rig.closed()[0]["result"] == "Aborted"


def test_a_tag_that_is_refused_for_a_moment_is_no_gap() -> None:
    rig = rig_with()
    rig.state(None), rig.state(None), rig.state(0, number=7)
    assert rig.findings() == []


def test_a_nest_whose_tag_is_refused_blinds_that_nest_only() -> None:
    nests = [position(1, end=BARE_EDGE), position(2, scanner="gate2", end=Edge(tag("press.beside"), True, None))]
    rig = Rig(plan(station(*nests)))
    rig.state(0), rig.put_in("SN1"), rig.put_in("SN2", "gate2")
    for _ in range(20):
        rig.state(0, beside=None)
    (finding,) = rig.of(Kind.FINDING)
    assert (finding["serial"], finding["position"]) == ("SN2", 2)
    rig.wait(2).tick()
    assert [one["serial"] for one in rig.of(Kind.FINDING)] == ["SN2", "SN1"], "silence of the other is still noticed"


def test_a_scan_waits_for_a_read_that_shows_the_tag() -> None:
    rig = rig_with()
    rig.scan("SN2")
    rig.state(None)
    assert [one.serial for one in rig.registry.open_cycles()] == ["SN1"], "SN1 may have been finished since"
    rig.finish(1)
    assert [cycle["binding"]["serial"] for cycle in rig.closed()] == ["SN1"]
    assert [one.serial for one in rig.registry.open_cycles()] == ["SN2"]


def test_a_restart_interrupts() -> None:
    rig = rig_with()
    last_ns = rig.records[-1][1].at.at_ns
    rig.wait(30).restart()
    assert interrupted(rig)
    (finding,) = rig.of(Kind.FINDING)
    assert (finding["details"]["cause"], finding["details"]["since_ns"]) == ("restart", str(last_ns))


# --- windows --------------------------------------------------------------------------------------------------------


def test_what_was_read_before_the_gap_stays_and_what_came_in_it_does_not() -> None:
    rig = rig_with()
    rig.wait().sample("oven.air", [1.0])
    before = rig.seq - 1
    rig.wait().sample("oven.air", [2.0])
    unseen = rig.seq - 1
    rig.gap("gate", since_s=0.05)
    rig.wait().sample("oven.air", [3.0])
    within = rig.seq - 1
    rig.wait(1).scan("SN2"), rig.state(0)
    (cycle,) = rig.closed()
    assert (cycle["closed_by"], cycle["result"]) == ("interrupted", "Aborted")
    assert cycle["windows"]["oven.air"] == [[before, before]]
    assert cycle["binding"]["serial"] == "SN1"
    assert rig.serial_of(unseen, "oven.air") == rig.serial_of(within, "oven.air") == []


def test_it_ends_as_of_the_beginning_of_the_gap() -> None:
    rig = rig_with()
    since_ns = rig.now.at_ns - 50_000_000
    rig.gap("gate", since_s=0.05)
    rig.wait(10).scan("SN2"), rig.state(0)
    assert rig.closed()[0]["ended_at_ns"] == str(since_ns)


def test_a_second_death_restores_what_the_first_gap_left() -> None:
    rig = rig_with()
    rig.wait().sample("oven.air", [1.0])
    before = rig.seq - 1
    rig.wait().sample("oven.air", [2.0])
    rig.gap("gate", since_s=0.05)
    rig.wait(5).restart()
    rig.scan("SN2"), rig.state(0)
    assert rig.closed()[0]["windows"]["oven.air"] == [[before, before]]


def test_a_long_memory_of_ends_is_coarse_but_never_too_generous() -> None:
    rig = rig_with(end=None)
    for _ in range(500):
        rig.wait(0.1).sample("oven.air", [1.0])
    rig.gap("gate", since_s=20.0)
    edge_ns = rig.mono_ns - 20_000_000_000
    rig.scan("SN2")
    ((first, last),) = rig.closed()[0]["windows"]["oven.air"]
    ends = {seq: record.at.mono_ns for seq, record, _ in rig.records if record.source == "oven.air"}
    assert ends[last] <= edge_ns
    assert ends[last] > edge_ns - 10_000_000_000
    assert first == min(ends)


# --- what resumes ---------------------------------------------------------------------------------------------------


def test_a_rescan_resumes() -> None:
    rig = rig_with(Resume())
    rig.gap("press", since_s=0.0)
    rig.wait(3).state(0)
    rig.state(0), rig.scan("SN1")
    assert interrupted(rig), "the scan waits for the PLC here too"
    rig.state(0)
    assert not interrupted(rig)
    assert rig.binding()["rule"] == "resume:scan"
    rig.state(0), rig.finish(1)
    (cycle,) = rig.closed()
    assert (cycle["closed_by"], cycle["binding"]["serial"], cycle["attempt"]) == ("handshake", "SN1", 1)
    assert len(cycle["windows"]["press.state"]) == 2


def test_a_rescan_resumes_even_within_the_bounce_time() -> None:
    rig = rig_with(Resume())
    rig.gap("gate", since_s=0.01)
    rig.scan("SN1"), rig.state(0)
    assert not interrupted(rig)


def test_the_same_cycle_number_resumes() -> None:
    rig = rig_with()
    rig.gap("press")
    rig.wait(3).state(0, number=7)
    assert not interrupted(rig)
    assert rig.binding()["rule"] == "resume:cycle_number"
    assert rig.binding()["supersedes"] == rig.of(Kind.BINDING)[0]["binding"]
    rig.state(0, number=7), rig.finish(1, number=7)
    assert rig.closed()[0]["binding"]["serial"] == "SN1"


def test_another_cycle_number_does_not() -> None:
    rig = rig_with()
    rig.gap("press")
    rig.wait(3).state(0, number=8)
    rig.state(0, number=8)
    assert interrupted(rig)


def test_a_cycle_number_read_within_the_gap_is_no_evidence_of_before() -> None:
    rig = rig_with()
    rig.state(0, number=8)
    rig.gap("gate", since_s=0.15)
    rig.state(0, number=8)
    assert interrupted(rig), "8 was first seen when nobody watched the reader any more"
    rig.state(0, number=7)
    assert not interrupted(rig)


def test_a_read_that_began_before_the_end_of_the_gap_is_no_evidence() -> None:
    rig = rig_with()
    rig.gap("press")
    rig.late_sample("press.state", {"number": 7}, 0.01, 0.0)
    assert interrupted(rig)


def test_the_cycle_number_of_the_opening_survives_a_restart() -> None:
    rig = rig_with()
    assert rig.of(Kind.CYCLE_OPENED)[0]["context"]["cycle_number"]["value"] == 7
    rig.wait(5).restart()
    rig.state(0, number=7)
    assert not interrupted(rig)


def test_a_serial_tag_resumes() -> None:
    rig = rig_with(NAMED)
    rig.wait(5).restart()
    rig.state(0, sn="SN2")
    assert interrupted(rig)
    rig.state(0, sn="SN1\0")
    assert not interrupted(rig)
    assert rig.binding()["rule"] == "resume:serial"


def test_what_was_resumed_on_a_tag_is_interrupted_when_the_tag_changes() -> None:
    rig = rig_with(NAMED)
    rig.gap("gate", since_s=0.0)
    rig.state(0, sn="SN1"), rig.state(0, sn="SN1")
    kept = rig.seq - 1
    rig.state(0, sn="SN9")
    assert interrupted(rig)
    rig.wait(1).scan("SN2"), rig.state(0)
    assert rig.closed()[0]["windows"]["press.state"][-1][1] == kept


def test_a_resumed_cycle_takes_the_result_that_stood_there() -> None:
    rig = rig_with()
    rig.wait(5).restart()
    rig.state(1, number=7)
    rig.result(1), rig.result(1)
    assert [(one["closed_by"], one["binding"]["serial"]) for one in rig.closed()] == [("handshake", "SN1")]


# --- an end after a gap ---------------------------------------------------------------------------------------------


def test_an_end_seen_after_the_gap_is_an_orphan_with_a_candidate() -> None:
    rig = rig_with(Resume())
    rig.gap("press")
    rig.state(0), rig.state(0), rig.finish(1)
    first, second = rig.closed()
    assert (first["closed_by"], first["binding"]["serial"]) == ("interrupted", "SN1")
    assert (second["closed_by"], second["binding"]) == ("handshake", {"state": "orphan"})
    assert [one["serial"] for one in rig.binding()["candidates"]] == ["SN1"]
    assert "skipped_scan" not in rig.findings()


def test_an_edge_after_the_gap_is_an_orphan_too() -> None:
    rig = rig_with(Resume(), end=EDGE)
    rig.gap("press")
    rig.state(0), rig.state(0), rig.state(1), rig.result(0)
    assert [one["binding"]["state"] for one in rig.closed()] == ["bound", "orphan"]


def test_the_first_value_after_a_gap_is_a_level() -> None:
    rig = rig_with(Resume(), end=EDGE)
    rig.gap("press")
    rig.state(1), rig.state(1), rig.result(0)
    assert rig.closed() == []


def test_a_hung_read_is_no_level() -> None:
    rig = rig_with(Resume())
    rig.wait(5).tick(0)
    rig.late_sample("press.state", {"ready": 0}, 5.0, 0.0)
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["handshake"] == "unknown"
    rig.state(0), rig.state(0)
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["handshake"] == "idle"


def test_an_interrupted_cycle_times_out_from_the_restart() -> None:
    rig = rig_with()
    rig.tick(50)
    rig.restart()
    rig.tick(50)
    assert rig.closed() == [], "the timer began anew"
    rig.tick(15)
    assert rig.closed()[0]["closed_by"] == "interrupted"
    assert rig.findings()[-1] == "cycle_timeout"


def test_a_power_cut_with_the_unit_swapped_meanwhile() -> None:
    rig = rig_with(Resume())
    mine = rig.registry.open_cycles()[0].windows["press.state"][0]
    rig.wait(10).restart()
    rig.state(1), rig.result(18), rig.result(18)
    first, second = rig.closed()
    assert (first["closed_by"], first["windows"]["press.state"]) == ("interrupted", [list(mine)])
    assert (second["binding"], second["counter"]) == ({"state": "orphan"}, 18)
    assert rig.writes() == [True]


# --- what is restored -----------------------------------------------------------------------------------------------


def left_open(name: str, at_ns: int, **changes: object) -> OpenCycle:
    one = OpenCycle(name, "OP20", 1, at_ns, "scan", 1, {}, {"press.state": ((3, 9),)}, "u-1", "SN1", "b-1")
    return replace(one, **changes)  # type: ignore[arg-type]


def restored(*cycles: OpenCycle, counter: tuple[int, int] | None = None) -> Rig:
    rig = Rig()
    for one in cycles:
        rig.registry.cycles[one.cycle] = {"step": "press-fit", "binding": {"binding": one.binding}, "windows": {}}
    rig.restart(Restored(cycles, {("OP20", 1): counter} if counter else {}))
    return rig


def test_a_position_that_is_gone_from_the_config_has_its_cycle_closed() -> None:
    rig = restored(left_open("c-1", 5, station="OP99"))
    (cycle,) = rig.closed()
    assert (cycle["station"], cycle["closed_by"], cycle["binding"]["serial"]) == ("OP99", "interrupted", "SN1")
    assert cycle["windows"] == {"press.state": [[3, 9]]}


def test_of_two_open_cycles_of_one_position_the_newer_stays() -> None:
    rig = restored(left_open("c-2", 6), left_open("c-1", 5))
    assert [one["cycle"] for one in rig.closed()] == ["c-1"]
    assert rig.binder.snapshot()["OP20"]["positions"]["1"]["cycle"] == "c-2"


def test_an_ambiguous_cycle_stays_ambiguous_over_a_restart() -> None:
    rig = restored(left_open("c-1", 5, unit=None, serial=None, binding_state="ambiguous"))
    rig.scan("SN1"), rig.state(0)
    assert rig.closed()[0]["binding"] == {"state": "ambiguous"}


def test_counters_are_known_from_before() -> None:
    rig = restored(counter=(17, 2))
    rig.state(0)
    rig.put_in("SN1").finish(18)
    assert (rig.closed()[0]["counter"], rig.closed()[0]["epoch"]) == (18, 2)
    assert rig.findings() == []


def test_context_of_an_open_cycle_is_restored_as_stale() -> None:
    from support.binding_rig import badge

    rig = Rig(plan(station(position(), context=(badge(),))))
    rig.state(0)
    rig.scan("OP:anna", "badge"), rig.put_in("SN1")
    rig.restart()
    assert rig.binder.snapshot()["OP20"]["context"]["operator"]["stale"] is True


def test_equal_inputs_make_equal_records() -> None:
    def run() -> list[tuple[int, Record, dict[str, object]]]:
        rig = rig_with()
        rig.gap("press"), rig.state(0, number=7), rig.finish(1, number=7), rig.restart()
        return rig.records

    assert run() == run()
