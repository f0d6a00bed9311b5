"""A shift register mirrored from its index: whose slot it is, and when nobody can know."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edge_agent.binding.manual import Rebind
from edge_agent.binding.places import Register, Slot
from edge_agent.binding.plan import Station
from edge_agent.binding.seen import Reads
from edge_agent.model import Kind, Scan, ScanStatus
from support.binding_rig import HANDSHAKE, Rig, plan, position, station, tag

SN = re.compile(r"(?P<serial>SN\d+)")
CLAIMS = {"press.result": ("force",), "press.state": ("temp",)}


def register(bits: int = 0, slots: int = 4) -> Register:
    return Register(
        "dial", tag("press.number"), bits, slots, Reads("entry", SN, frozenset()), Reads("remove", SN, frozenset())
    )


def at_slot(number: int, name: str, one: Register, end: Any = None, resync: str | None = None) -> Station:
    slot = Slot(one, number, Reads(resync, SN, frozenset()) if resync else None)
    here = position(1, scanner=None, end=end, collect=(), result=None, claims=CLAIMS)
    return station(here, name=name, slot=slot)


class Dial:
    """A dial whose index is a signal (or a counter), polled; units are scanned at its entry."""

    def __init__(self, *stations: Station, counter: bool = False, start: int = 0) -> None:
        self.rig = Rig(plan(*stations))
        self.counter, self.count, self.done = counter, start, 0
        self.poll(3)

    def poll(self, times: int = 1, index: int = 0, ready: int = 0) -> None:
        for _ in range(times):
            self.rig.wait(0.1).state(ready, number=self.count % 256 if self.counter else index, temp=self.count)

    def step(self) -> None:
        self.count += 1
        self.poll(1, index=1)
        self.poll(3)

    def enter(self, serial: str) -> None:
        """Scan a unit at the entry; some polls later the dial steps."""
        if serial:
            self.rig.wait(0.5).scan(serial, "entry")
        self.poll(3)
        self.step()

    def work(self) -> tuple[str, str]:
        """The press beside the dial finishes; whose is it?"""
        self.done += 1
        number = self.count if self.counter else 0
        self.rig.wait(0.1).state(1, number=number)
        for _ in range(2):
            self.rig.result(self.done)
        self.rig.wait(0.1).state(1, number=number)
        self.poll(2)
        ended = [one for one in self.rig.closed() if one["closed_by"] == "handshake"][-1]
        return ended["binding"]["state"], ended["binding"].get("serial", "")

    def fill(self, *serials: str) -> None:
        """Enough steps for what was in doubt to be out."""
        for serial in serials:
            self.enter(serial)

    def open(self, name: str = "OP1") -> tuple[str | None, str | None]:
        shown = self.rig.binder.snapshot()[name]["positions"]["1"]
        return shown["binding_state"], shown["serial"]


def filled(*, end: Any = None, bits: int = 0, resync: str | None = None, slot: int = 1) -> Dial:
    """Slots 1 to 4 hold SN4, SN3, SN2, SN1."""
    dial = Dial(at_slot(slot, "OP1", register(bits), end, resync), counter=bits > 0)
    dial.fill("", "SN1", "SN2", "SN3", "SN4")
    return dial


@pytest.mark.parametrize("bits", [0, 8])
def test_the_unit_of_the_slot_is_bound_step_by_step(bits: int) -> None:
    one = register(bits)
    dial = Dial(at_slot(1, "OP1", one), at_slot(3, "OP3", one), counter=bits > 0)
    dial.fill("", "SN1", "SN2", "SN3", "SN4")
    assert dial.open("OP1") == ("bound", "SN4") and dial.open("OP3") == ("bound", "SN2")
    dial.enter("SN5")
    assert dial.open("OP1") == ("bound", "SN5") and dial.open("OP3") == ("bound", "SN3")
    closed = [one["closed_by"] for one in dial.rig.closed() if one["binding"].get("serial") == "SN4"]
    assert closed == ["index"]
    assert dial.rig.of(Kind.CYCLE_OPENED)[-1]["opened_by"] == "index"
    scan = next(seq for seq, record, body in dial.rig.records if record.kind is Kind.SCAN and body["text"] == "SN3")
    binding = [body for body in dial.rig.of(Kind.BINDING) if body.get("serial") == "SN3"][-1]
    assert binding["rule"] == "register" and scan in binding["evidence"]


def test_a_counter_wraps() -> None:
    dial = Dial(at_slot(1, "OP1", register(8)), counter=True, start=253)
    dial.enter("SN0")
    for serial in ("SN1", "SN2", "SN3", "SN4"):
        dial.enter(serial)
        assert dial.open() == ("bound", serial)
    assert dial.rig.findings() == ["register_unsure"], "of the start"


def test_readings_between_two_steps_are_the_units_in_the_slot() -> None:
    dial = filled()
    dial.enter("SN5")
    dial.enter("SN6")
    for seq, record, body in dial.rig.records:
        if record.kind is Kind.SAMPLE:
            whose = [serial for state, serial in dial.rig.serial_of(seq, "press.state") if state == "bound"]
            assert whose in ([], [f"SN{body['values'][1] - 1}"]), f"temp tells that it is step {body['values'][1]}"


def test_work_that_a_plc_ends_is_of_the_unit_in_the_slot() -> None:
    dial = filled(end=HANDSHAKE)
    assert dial.work() == ("bound", "SN4")
    dial.enter("SN5")
    assert dial.work() == ("bound", "SN5")


def test_no_scan_between_two_steps_is_an_orphan() -> None:
    dial = filled(end=HANDSHAKE)
    dial.enter("")
    assert dial.work() == ("orphan", "")
    assert dial.rig.findings()[-1] == "skipped_scan"
    dial.enter("SN6")
    assert dial.work() == ("bound", "SN6")


def test_two_units_between_two_steps_are_both_in_doubt() -> None:
    dial = filled(end=HANDSHAKE)
    dial.rig.wait(0.5).scan("SN5", "entry")
    dial.poll(3)
    dial.enter("SN6")
    assert dial.work() == ("ambiguous", "")
    assert [one["serial"] for one in dial.rig.binding()["candidates"]] == ["SN5", "SN6"]
    dial.enter("SN6")
    assert dial.work() == ("ambiguous", ""), "SN6 may be in the slot before"


def test_the_same_label_twice_is_one_unit_before_and_after_the_step() -> None:
    dial = filled(end=HANDSHAKE)
    dial.rig.wait(0.5).scan("SN5", "entry")
    dial.poll(30)
    dial.enter("SN5")
    assert dial.work() == ("bound", "SN5")
    dial.poll(30)
    dial.rig.scan("SN5", "entry")
    dial.enter("SN6")
    assert dial.work() == ("bound", "SN6")


def test_a_scan_in_the_step_is_in_doubt_on_both_sides() -> None:
    dial = filled(end=HANDSHAKE)
    dial.rig.scan("SN5", "entry")  # within the poll that shows the step
    dial.step()
    assert dial.work() == ("ambiguous", "")
    dial.enter("")
    assert dial.work() == ("ambiguous", "")
    dial.enter("SN7")
    assert dial.work() == ("bound", "SN7")


def test_a_scan_that_is_heard_after_the_step_is_in_doubt_too() -> None:
    dial = filled(end=HANDSHAKE)
    dial.poll(3)
    at = dial.rig.now
    dial.rig.wait(0.05)
    dial.step()
    dial.rig._take(dial.rig.binder.on_scan(Scan("entry", at, b"SN5", ScanStatus.READ), dial.rig.seq))
    dial.enter("SN6")
    assert dial.work() == ("ambiguous", "")


def test_the_end_of_the_unit_before_is_not_the_next_ones() -> None:
    dial = filled(end=HANDSHAKE)
    dial.rig.scan("SN5", "entry")
    dial.poll(3)
    dial.rig.wait(0.1).state(1, number=1)  # SN4 was finished, and the dial stepped, between two polls
    for _ in range(2):
        dial.rig.result(1)
    dial.poll(3)
    ended = [one for one in dial.rig.closed() if one["closed_by"] == "handshake"][-1]
    assert ended["binding"] == {"state": "bound", "unit": ended["binding"]["unit"], "serial": "SN4"}
    assert dial.open() == ("bound", "SN5")


# --- nobody watched ---------------------------------------------------------------------------------------------


def swap(dial: Dial, how: str) -> None:
    if how == "restart":
        dial.rig.wait(2).restart()
    elif how == "lost":
        dial.rig.wait(0.5).gap("press", 0.4)
    elif how == "silent":
        dial.rig.wait(5).tick()
    else:
        dial.count += 3
    dial.poll(3)


@pytest.mark.parametrize("how", ["restart", "lost", "silent", "jump"])
@pytest.mark.parametrize("end", [None, HANDSHAKE])
def test_every_slot_is_in_doubt_until_it_is_filled_anew(how: str, end: Any) -> None:
    dial = filled(end=end, bits=8)
    told = dial.rig.findings().count("register_unsure")
    swap(dial, how)
    seen = []
    for number in range(11, 17):
        dial.enter(f"SN{number}")
        seen.append(dial.open())
    first = ("bound", "SN11") if how == "jump" else ("ambiguous", None)
    assert seen[0] == first, "who stood at the entry is not known; who is scanned after a jump is"
    assert seen[1:] == [("bound", f"SN{number}") for number in range(12, 17)]
    assert dial.rig.findings().count("register_unsure") == told + 1
    serials = {one["binding"].get("serial") for one in dial.rig.closed() if one["opened_at_ns"] > "0"}
    assert serials <= {None, "SN1", "SN2", "SN3", "SN4", *(f"SN{number}" for number in range(11, 17))}


def test_units_in_doubt_for_their_scans_do_not_hide_that_nobody_watched_again() -> None:
    dial = Dial(at_slot(1, "OP1", register(8)), counter=True)
    for number in range(1, 8):  # the doubt of the start is out; two units of a muddled scan are in
        if number == 4:
            dial.rig.wait(0.5).scan("SN40", "entry")
            dial.poll(3)
        dial.enter(f"SN{number}")
    told = dial.rig.findings().count("register_unsure")
    swap(dial, "lost")
    assert dial.rig.findings().count("register_unsure") == told + 1


@pytest.mark.parametrize("how", ["restart", "lost", "silent", "jump"])
def test_further_slots_stay_in_doubt_for_longer(how: str) -> None:
    dial = filled(bits=8, slot=3)
    swap(dial, how)
    seen = []
    for number in range(11, 16):
        dial.enter(f"SN{number}")
        seen.append(dial.open())
    assert [state for state, _ in seen[:2]] == ["ambiguous"] * 2
    assert seen[2] == (("bound", "SN11") if how == "jump" else ("ambiguous", None))
    assert seen[3:] == [("bound", "SN12"), ("bound", "SN13")]


def test_a_unit_that_was_scanned_between_missed_steps_leaves_the_entry_in_doubt() -> None:
    dial = filled(end=HANDSHAKE, bits=8)
    dial.rig.wait(0.5).scan("SN5", "entry")
    dial.poll(3)
    dial.count += 1
    dial.step()
    assert dial.work() == ("ambiguous", "")
    dial.enter("SN6")
    assert dial.work() == ("ambiguous", ""), "SN5 may stand there still"


@pytest.mark.parametrize("how", ["restart", "lost", "silent"])
def test_work_after_a_gap_is_in_doubt(how: str) -> None:
    dial = filled(end=HANDSHAKE)
    swap(dial, how)
    dial.poll(5)
    assert dial.work() == ("ambiguous", "")


def test_the_entrys_reader_lost_leaves_who_stands_there_in_doubt() -> None:
    dial = filled(end=HANDSHAKE)
    dial.rig.scan("SN5", "entry")
    dial.poll(3)
    dial.rig.gap("entry", 0.1)
    dial.step()
    assert dial.work() == ("ambiguous", "")
    dial.enter("SN6")
    assert dial.work() == ("bound", "SN6")


# --- people ----------------------------------------------------------------------------------------------------


def test_a_unit_that_was_taken_out_is_in_no_slot() -> None:
    dial = filled(slot=2)
    assert dial.open() == ("bound", "SN3")
    dial.rig.scan("SN4", "remove")
    dial.enter("SN5")
    assert dial.open() == (None, None)
    dial.enter("SN6")
    assert dial.open() == ("bound", "SN5")
    dial.rig.scan("SN5", "remove")
    assert dial.open() == (None, None)
    assert dial.rig.closed()[-1]["closed_by"] == "cancelled"


@pytest.mark.parametrize("how", ["restart", "lost"])
def test_a_reader_at_the_slot_makes_that_slot_sure_and_no_other(how: str) -> None:
    dial = filled(resync="here", slot=2)
    swap(dial, how)
    dial.rig.scan("SN77", "here")
    dial.poll(2)
    assert dial.open() == ("bound", "SN77")
    dial.enter("SN11")
    assert dial.open()[0] == "ambiguous"


def test_a_reader_that_contradicts_the_register_wins_and_unsettles_the_rest() -> None:
    dial = filled(resync="here", slot=2)
    dial.rig.scan("SN77", "here")
    dial.poll(2)
    assert dial.open() == ("bound", "SN77")
    told = [one["binding"] for one in dial.rig.closed()][-1]
    assert told["state"] == "ambiguous", "what was read as SN3's until now is nobody's"
    assert dial.rig.findings()[-1] == "register_unsure"
    dial.enter("SN5")
    assert dial.open()[0] == "ambiguous"


def test_a_reader_that_agrees_changes_nothing() -> None:
    dial = filled(resync="here", slot=2)
    before = len(dial.rig.closed())
    dial.rig.scan("SN3", "here")
    dial.poll(2)
    assert dial.open() == ("bound", "SN3") and len(dial.rig.closed()) == before


def test_a_reader_at_the_slot_in_the_step_names_nobody() -> None:
    dial = filled(resync="here", slot=2)
    dial.rig.scan("SN77", "here")
    dial.step()
    assert dial.rig.findings()[-1] == "unmatched_scan"
    assert dial.open() == ("bound", "SN4")


@pytest.mark.parametrize("when", ["open", "closed"])
def test_a_unit_that_a_person_says_was_another_is_not_believed_in_the_slots_that_follow(when: str) -> None:
    one = register()
    dial = Dial(at_slot(1, "OP1", one), at_slot(3, "OP3", one))
    dial.fill("", "SN1", "SN2", "SN3", "SN4")
    cycle = next(body["cycle"] for body in dial.rig.of(Kind.BINDING) if body.get("serial") == "SN4")
    if when == "closed":
        dial.enter("SN5")
    outcome, _ = dial.rig.binder.act(Rebind(cycle, "SN9", True, True, "q", "x"), dial.rig.now, dial.rig.seq)
    dial.rig._take(outcome)
    dial.fill(*("SN5", "SN6") if when == "open" else ("SN6",))
    assert dial.open("OP3") == ("ambiguous", None)
    dial.enter("SN7")
    assert dial.open("OP3") == ("bound", "SN5")
