"""What must come out of a station, whatever happens to it: strategy × disturbance → :class:`Cell`.

Written from the binding rules that people on the floor use, before the binder and without it: this module imports
nothing of the agent. The simulator injects the disturbances and knows the truth; the score holds the records against
both. Nothing here is bent to what the binder happens to do.

**What counts as the truth.** A unit is the label that it carries, since nothing else of it is ever seen.

- *Swapped labels*: two units whose labels were exchanged are, from then on, what their labels say. Binding to the
  label as read is right, and without a second witness no finding is possible. Where a second witness names the unit
  (a serial in the PLC's data, a carrier's content, a key in a message) strategies that use it believe that one
  witness alone: one way of identification a station, not a mixture.
- *Two independent misses of one unit* leave no trace: neither scanned in nor out, or taken from its pallet unseen
  while another is put there unseen. No rule can see that; each visit here suffers one disturbance, and the next visit
  another.
- *A scan without work before work without a scan* looks like one unit that was scanned and worked on: one is taken
  away, the next is not read, and its result is the first one's. A station whose data names no unit cannot tell. It is
  not played (``BLIND`` after ``LEAVES_OPEN``), and docs/binding.md says so.
- *A counter that begins anew twice, with one result between*, shows the same number again: the same result, as far as
  anybody can tell. Here a second result comes before.
- *A guess is wrong even when it hits*: where the table says ambiguous or orphan, a bound reading counts as misbound.
- *A reading of nobody* (an empty place) in a unit's window is no wrong reading; one of another unit is. In an oven, a
  reading taken after a unit left is not its own.

**What must be known of it** (``work``): the reading that matters, i.e. the result where the station has one, else
the readings while it was worked on.

bound      its readings are its label's; all that lie in the time the rule covers count for ``bound_pct``
ambiguous  a cycle holds them; it has candidates or a reason, and no unit
orphan     a cycle holds them; nobody can be believed
unbound    no cycle holds them (only scans delimit, and none came)
none       there is no such reading (the unit was taken away before its result; the gate stopped it)

``findings``: these codes must be raised for each injection. ``also``: may be raised with it, as a consequence that a
person at the line would agree to. Everything else is a false finding.

Decisions where the rules of the trade are silent, as a quality engineer would want them:

- A scan that should have been and was not is ``skipped_scan``: in or out, carrier or unit, before or after the work.
- A unit that is scanned and worked on by nobody (taken away) is closed as Aborted by the next scan, without a finding
  where the next scan is the ordinary way to leave; where an out-reader is the way to leave, the missing exit is
  ``skipped_scan``.
- Several units share an oven, so one that never came out leaves a window whose end nobody knows: ambiguous,
  ``cycle_timeout``. In a place for one, the next scan ends it: what lies between is nobody's.
- A pending late scan does not survive a restart as a binding: the scan may have been made in the dark, so what is
  read next may be another unit's.
- A value that is missing makes a cycle incomplete; it casts no doubt on whose it is.
- At a register one unit may be scanned while another stands at the entry. So of what is scanned between a gap and the
  next step nobody can be sure; one finding lasts until every slot was filled anew.
- A carrier that stands where it is loaded while nobody watches may be loaded otherwise; one on its way may not.
- A material that may be of either reel is consumed from both, uncertain; naming one alone as certain is misbound.
- A gate that permits what it must block is misbound, and one that blocks what it must permit is not bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Work = Literal["bound", "ambiguous", "orphan", "unbound", "none"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What must come of one unit's visit."""

    work: Work
    findings: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    note: str = ""


DISTURBANCES = {
    "none": "nothing happens",
    "missed_scan": "the reader that identifies did not see the label, and said nothing",
    "missed_out": "the reader at the exit did not see the label",
    "missed_out_and_in": "one unit's exit and the next one's entry are not read",
    "restart_pending": "the agent restarts between what belongs together: result and late scan, load and work",
    "double_scan": "the label is read again: at once, or seconds later",
    "late_scan": "the scan that announces the unit comes only after its work",
    "early_next_scan": "an indexing machine: the next label is read before this unit's end was seen",
    "swapped_scan": "two units carry each other's label",
    "unreadable_scan": "the reader says that it saw no label",
    "foreign_label": "the label that is read is none of a unit",
    "same_label": "two units carry the same label at the same time",
    "unit_removed": "the unit is taken away before its end",
    "swapped_in_downtime": "nobody watches, and another unit takes the place",
    "restart": "the agent restarts in mid-cycle; the unit stays",
    "restart_rescan": "the same, and the operator scans the unit again",
    "plc_lost": "the PLC's connection is lost in mid-cycle; the unit stays",
    "long_silence": "the PLC answers nothing for longer than the gap limit",
    "short_silence": "the PLC answers late, within the limit",
    "clock_step": "the wall clock jumps, forwards or back",
    "retest": "the same unit comes again",
    "duplicate_message": "the same result is presented again",
    "counter_jump": "results went by that nobody saw",
    "counter_reset": "the PLC's counter begins anew",
    "torn_read": "the result's counter changes in every read",
    "value_missing": "a required value is refused",
    "empty_nest": "a position has no unit",
    "garbled_serial": "the serial in the data is none",
    "refused_serial": "the serial in the data could not be read",
    "pallet_reused": "a carrier is loaded again, never unloaded",
    "pallet_refilled": "a carrier is emptied by hand where it is loaded, and loaded anew",
    "unknown_carrier": "a carrier that nobody loaded",
    "index_lost": "index pulses went by unseen",
    "two_candidates": "two finished units wait for one late scan",
    "scan_too_late": "the late scan comes after max_wait",
    "no_exit": "the unit left, and no exit was seen until the time-out",
    "exit_without_entry": "an exit is seen of a unit that never came in",
    "mixed_lots": "at a changeover two lots are active",
    "component_missing": "the unit is finished without its component",
    "component_reused": "the component is in another parent already",
    "wrong_component": "a component of another part number",
    "component_removed": "at rework the component is taken out and goes into another unit",
    "splice_unresolved": "a reel was spliced on and nobody knows which one the unit got",
    "copied_lot": "one package is loaded at two places, or a lot is another part's",
    "wrong_material": "a package of another part number is loaded",
    "material_expired": "the package is past its date",
    "no_material": "nothing is loaded",
    "too_many_attempts": "the unit comes once more than it may",
    "held": "the unit is on hold",
    "missing_step": "the step before has not passed",
    "reader_lost": "the reader that identifies is away for a moment in mid-cycle",
    "request_stands": "the PLC leaves its request standing when the unit has left",
    "other_label": "the label of the unit before is read once more in place of this one's",
    "two_scans": "two units are scanned at the entry between two steps",
    "scan_in_step": "a label is read while the register steps",
    "package_elsewhere": "a package that is loaded here is read at another station",
    "changed_in_cycle": "another package is loaded while a unit is at work",
    "negative_balance": "more units are made of a package than it holds",
    "identical_entries": "the same value is entered for one unit after the other",
    "late_permit": "the hold is lifted while the unit stands at the gate",
}

BOUND = Cell("bound")
_RESTART = ("observation_gap",)

_CLEAN = {  # what touches nobody's identity anywhere
    "none": BOUND,
    "short_silence": BOUND,
    "clock_step": Cell("bound", also=("clock_step",), note="the agent's own clock watch reports it"),
    "retest": Cell("bound", note="attempt 2"),
}
_COUNTED = {  # where a PLC counts its results
    "duplicate_message": Cell("bound", also=_RESTART, note="the agent died before the acknowledge; recorded once"),
    "counter_reset": Cell("bound", ("counter_reset",)),
    "torn_read": Cell("ambiguous", ("torn_read",), also=("sequence_gap",)),
    "value_missing": Cell("bound", ("missing_field",)),
}
_SCANNED = {  # where a scan before the work identifies, and a PLC ends it
    "missed_scan": Cell("orphan", ("skipped_scan",)),
    "double_scan": BOUND,
    "late_scan": Cell("orphan", ("skipped_scan",), note="the scan then opens a cycle that no work follows"),
    "swapped_scan": BOUND,
    "unreadable_scan": Cell("orphan", ("no_read", "skipped_scan")),
    "foreign_label": Cell("orphan", ("unmatched_scan", "skipped_scan")),
    "unit_removed": Cell("none", note="Aborted with the next scan"),
    "swapped_in_downtime": Cell("orphan", ("observation_gap",), note="the other unit's result; the first is candidate"),
    "restart": Cell("orphan", ("observation_gap",), note="no evidence that it stayed"),
    "restart_rescan": Cell("bound", ("observation_gap",)),
    "plc_lost": Cell("orphan", ("observation_gap",)),
    "reader_lost": Cell("orphan", ("observation_gap",), note="another unit's scan may have been lost"),
    "long_silence": Cell("orphan", ("observation_gap",), also=_RESTART, note="noticed when missed, and when it comes"),
}
_IN_DATA = {  # where the result names its unit
    "swapped_scan": BOUND,
    "garbled_serial": Cell("orphan", ("unmatched_scan",)),
    "refused_serial": Cell("orphan", ("missing_field",)),
    "empty_nest": Cell("none"),
    "swapped_in_downtime": Cell("bound", also=("observation_gap",), note="to the unit that the data names"),
    "restart": Cell("bound", also=("observation_gap",)),
    "plc_lost": Cell("bound", ("observation_gap",)),
    "long_silence": Cell("bound", also=("observation_gap",), note="stalls of a device are reported once a minute"),
    "counter_jump": Cell("bound", ("sequence_gap",)),
}

ORACLE: dict[str, dict[str, Cell]] = {
    # a reader at the entry and one at the exit; nothing else delimits
    "scan_in_out": _CLEAN
    | {
        "missed_scan": Cell("unbound", ("skipped_scan",)),
        "missed_out": Cell("bound", ("skipped_scan",), note="the next entry ends it"),
        "missed_out_and_in": Cell("ambiguous", ("skipped_scan",), note="in came one, out went another"),
        "double_scan": BOUND,
        "late_scan": Cell("unbound", note="nobody can see that it was there before; the exit fits"),
        "swapped_scan": BOUND,
        "unreadable_scan": Cell("unbound", ("no_read", "skipped_scan")),
        "foreign_label": Cell("unbound", ("unmatched_scan", "skipped_scan")),
        "unit_removed": Cell("bound", ("skipped_scan",), note="for the agent the same as missed_out"),
        "swapped_in_downtime": Cell("unbound", ("observation_gap", "skipped_scan"), note="the other unit's exit"),
        "restart": Cell("unbound", ("observation_gap",), note="what was read before stays bound"),
        "restart_rescan": Cell("bound", ("observation_gap",)),
        "plc_lost": Cell("bound", ("observation_gap",), note="what delimits is the readers, not the PLC"),
        "reader_lost": Cell("bound", ("observation_gap",), note="the exit shows that it stayed"),
    },
    # a scan opens, a done bit or a handshake with a counter ends
    "handshake": _CLEAN
    | _COUNTED
    | _SCANNED
    | {
        "early_next_scan": BOUND,
        "same_label": Cell("ambiguous", ("duplicate_serial",), note="the first PLC still works on that serial"),
        "counter_jump": Cell("ambiguous", ("sequence_gap",)),
    },
    # a scan opens, the edge of a bit ends; no counter, no acknowledge
    "bare_edge": _CLEAN
    | {name: _SCANNED[name] for name in ("missed_scan", "double_scan", "swapped_scan", "unreadable_scan")}
    | {name: _SCANNED[name] for name in ("swapped_in_downtime", "restart", "restart_rescan", "plc_lost", "reader_lost")}
    | {
        "duplicate_message": Cell("bound", also=_RESTART, note="the bit stands after a restart: a level, no result"),
        "value_missing": Cell("bound", ("missing_field",)),
    },
    # scanned, ended by a handshake; a number that the PLC gives each unit says after a gap whether it is the same
    "resume": _CLEAN
    | {
        "swapped_in_downtime": _SCANNED["swapped_in_downtime"],
        "restart": Cell("bound", ("observation_gap",), note="the same number"),
        "restart_rescan": _SCANNED["restart_rescan"],
        "plc_lost": Cell("bound", ("observation_gap",), note="the same number"),
    },
    # the serial stands in the result
    "plc_serial": _CLEAN | _COUNTED | _IN_DATA,
    # four nests, one result, a serial each
    "position_map": _CLEAN
    | _COUNTED
    | _IN_DATA
    | {"same_label": Cell("ambiguous", ("duplicate_serial",), note="one serial in two nests of one result")},
    # an RFID pallet: units are loaded by position, worked on by position, unloaded
    "carrier": _CLEAN
    | {
        "missed_scan": Cell("orphan", ("skipped_scan",), note="the pallet's transponder was not read"),
        "double_scan": BOUND,
        "unreadable_scan": Cell("orphan", ("no_read", "skipped_scan")),
        "unknown_carrier": Cell("orphan", ("skipped_scan",), note="its content was never scanned, or was unloaded"),
        "pallet_reused": Cell("bound", ("carrier_not_cleared",), note="to the new unit, which was scanned there"),
        "pallet_refilled": Cell("ambiguous", ("skipped_scan",), note="one finding a place"),
        "empty_nest": Cell("none"),
        "swapped_in_downtime": Cell("orphan", ("observation_gap",)),
        "restart": Cell("orphan", ("observation_gap",)),
        "restart_rescan": Cell("bound", ("observation_gap",), note="ambiguous if longer than a reload takes"),
        "restart_pending": Cell(
            "bound",
            also=_RESTART,
            note="what is loaded is kept; ambiguous: the pallet at the bench, all if longer than a reload takes",
        ),
    },
    # slots that advance on an index pulse, mirrored
    "shift_register": _CLEAN
    | {
        "missed_scan": Cell("orphan", ("skipped_scan",)),
        "double_scan": BOUND,
        "swapped_scan": BOUND,
        "unreadable_scan": Cell("orphan", ("no_read", "skipped_scan")),
        "unit_removed": Cell("none", note="an empty slot gives no result"),
        "two_scans": Cell("ambiguous", note="whichever was scanned last: nobody saw which one stood there"),
        "scan_in_step": Cell("ambiguous", note="both: the one in the slot, and the one that was read"),
        "index_lost": Cell("ambiguous", ("register_unsure",), note="every unit in the slots, until scanned anew"),
        "restart": Cell("ambiguous", ("register_unsure",), also=("observation_gap",)),
        "plc_lost": Cell("ambiguous", ("register_unsure",), also=("observation_gap",)),
    },
    # the work first, anonymous; then one scan within max_wait
    "late_scan": _CLEAN
    | {
        "missed_scan": Cell("orphan", ("skipped_scan",), note="when max_wait is over"),
        "double_scan": BOUND,
        "swapped_scan": BOUND,
        "unreadable_scan": Cell("orphan", ("no_read", "skipped_scan")),
        "foreign_label": Cell("orphan", ("unmatched_scan", "skipped_scan")),
        "two_candidates": Cell("ambiguous", also=("skipped_scan", "unmatched_scan"), note="both"),
        "other_label": Cell(
            "ambiguous", ("duplicate_serial",), also=("skipped_scan",), note="a second look, or a retest"
        ),
        "plc_lost": Cell("orphan", ("observation_gap",), also=("skipped_scan", "unmatched_scan")),
        "swapped_in_downtime": Cell(
            "ambiguous", ("observation_gap", "sequence_gap"), note="the label of who was finished unseen is due still"
        ),
        "scan_too_late": Cell("orphan", ("skipped_scan", "unmatched_scan"), note="the scan finds no candidate"),
        "restart": Cell(
            "ambiguous", ("observation_gap",), note="whoever is scanned may have taken the place meanwhile"
        ),
        "restart_pending": Cell("orphan", ("observation_gap",), also=("skipped_scan", "unmatched_scan")),
        "retest": Cell("bound", ("retest_limit",), note="once more than it may: counted, though named afterwards"),
        "value_missing": Cell("bound", ("missing_field",)),
    },
    # a tester's message names the serial
    "message_key": {name: cell for name, cell in _CLEAN.items() if name != "short_silence"}
    | {
        "swapped_scan": BOUND,
        "duplicate_message": Cell("bound", note="the same bytes again: counted, not recorded twice"),
        "garbled_serial": Cell("orphan", ("unmatched_scan",)),
        "refused_serial": Cell("orphan", ("missing_field",)),
        "value_missing": Cell("bound", ("missing_field",)),
        "identical_entries": Cell("bound", ("identical_entries",)),
        "restart": Cell("bound", also=("observation_gap",)),
        "swapped_in_downtime": Cell("bound", also=("observation_gap",)),
    },
    # an oven: units in and out by scan, several at once; a reading is everybody's who is inside
    "time_window": {name: cell for name, cell in _CLEAN.items() if name != "retest"}
    | {
        "double_scan": BOUND,
        "swapped_scan": BOUND,
        "exit_without_entry": Cell("unbound", ("skipped_scan",)),
        "unreadable_scan": Cell("unbound", ("no_read", "skipped_scan")),
        "no_exit": Cell("ambiguous", ("cycle_timeout",), also=_RESTART, note="nobody knows when it left"),
        "restart": Cell("unbound", ("observation_gap",), note="what was read before stays bound"),
        "plc_lost": Cell("bound", ("observation_gap",)),
    },
    # readings belong to the lot that is active
    "lot_window": {name: cell for name, cell in _CLEAN.items() if name != "retest"}
    | {
        "double_scan": BOUND,
        "foreign_label": Cell("bound", ("unmatched_scan",), note="the active lot goes on"),
        "mixed_lots": Cell("ambiguous", note="three lots may be in it; when the changeover is over, the third is"),
        "restart": Cell("unbound", ("observation_gap",), note="until the lot is scanned again"),
        "restart_rescan": Cell("bound", ("observation_gap",)),
    },
    # components into parents: work is the genealogy
    "marriage": {
        "none": BOUND,
        "component_missing": Cell("none", ("missing_field",), note="the parent is incomplete"),
        "component_reused": Cell("none", ("component_reused",), also=("missing_field",)),
        "wrong_component": Cell("none", ("wrong_material",), also=("missing_field",)),
        "component_removed": BOUND,
        "missed_scan": Cell("none", ("skipped_scan", "unmatched_scan"), also=("missing_field",)),
        "early_next_scan": BOUND,
        "swapped_in_downtime": Cell("none", ("observation_gap", "unmatched_scan"), also=("missing_field",)),
        "double_scan": BOUND,
        "restart": Cell(
            "bound",
            ("observation_gap",),
            also=("missing_field",),
            note="what was installed stays; the result is orphan",
        ),
    },
    # lots into units: work is the consumption
    "lot_consumption": {
        "none": BOUND,
        "splice_unresolved": Cell("ambiguous", note="both lots, uncertain"),
        "copied_lot": Cell("bound", ("copied_lot",)),
        "wrong_material": Cell("bound", ("wrong_material",), note="it is in the unit all the same"),
        "material_expired": Cell("bound", ("material_expired",)),
        "no_material": Cell("none", ("missing_field",)),
        "missed_scan": Cell("orphan", ("skipped_scan",)),
        "changed_in_cycle": Cell("ambiguous", note="both packages, uncertain"),
        "package_elsewhere": Cell("ambiguous", ("copied_lot",), note="it is loaded, uncertain"),
        "negative_balance": Cell("bound", ("negative_balance",), note="once"),
        "restart": Cell("bound", also=("observation_gap",), note="what is loaded is kept"),
    },
    # the same serial again: attempts are numbered, the latest result governs
    "rework": {
        "none": BOUND,
        "retest": Cell("bound", note="attempt 2"),
        "restart": Cell("bound", note="between two attempts: the next is still attempt 2"),
        "too_many_attempts": Cell("bound", ("retest_limit",), note="every attempt is kept"),
    },
    # may it enter? work is the answer
    "gate": {
        "none": BOUND,
        "held": Cell("none", ("gate_blocked",)),
        "missing_step": Cell("none", ("gate_blocked",), also=("missing_step",)),
        "too_many_attempts": Cell("none", ("gate_blocked",)),
        "late_permit": Cell("bound", ("gate_blocked",), note="blocked, released, asked again, permitted: attempt 1"),
        "missed_scan": Cell("none", ("gate_blocked",), note="nobody knows who it is"),
        "unit_removed": Cell("none", ("gate_blocked",), note="one scan is not two units' permit"),
        "request_stands": Cell("bound", note="the permit is taken back as the unit leaves"),
        "reader_lost": Cell("none", ("observation_gap",), also=("gate_blocked",), note="the permit is taken back"),
        "restart": Cell("bound", also=_RESTART, note="a unit that was turned away stood at the place"),
    },
}

REALISTIC = 0.03
"""Share of visits that are disturbed on an ordinary bad day; each kind alike."""
ABSURD = 0.6
"""Share of visits that are disturbed where nothing works."""


def cells() -> list[tuple[str, str]]:
    """Every (strategy, disturbance) that has an answer."""
    return [(strategy, disturbance) for strategy, row in ORACLE.items() for disturbance in row]
