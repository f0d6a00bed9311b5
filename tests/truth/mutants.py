"""Deliberate bugs in the binder, one at a time: each must turn the truth red, or the truth test proves nothing.

    python tests/truth/mutants.py [--only NAME ...] [--seed N]

Each is one change of the source in a copy of the package; the working tree is not touched. It names the strategies
that are to see it, so that it takes seconds. A change that no longer fits the source is an error, not a pass. Red
means: misbound, not bound, not found or falsely found, by the count of the truth test itself; a crash of the binder is
no catch.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNITS = 240  # a strategy
LINE = re.compile(r"^truth: units=\d+ .*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: in ``file`` of edge_agent/binding, ``old`` becomes ``new``; ``seen_by`` these strategies."""

    name: str
    file: str
    old: str
    new: str
    seen_by: str


MUTANTS = (
    Mutant(
        "end_after_a_gap_is_believed", "ends.py",
        "        if cycle is None or cycle.suspended:\n            candidates = life.last",
        "        if cycle is None:\n            candidates = life.last",
        "handshake",
    ),
    Mutant(
        "torn_values_are_believed", "handshake.py",
        '"", draft)\n        self._reads += 1',
        '"", draft)\n        return self._finish(result, result_seq, counter, "", draft)',
        "plc_serial,position_map",
    ),
    Mutant(
        "doubles_are_recorded", "ends.py",
        "        if ended.counting is Counting.DOUBLE:",
        "        if ended.counting is None:",
        "handshake,plc_serial",
    ),
    Mutant(
        "one_serial_in_two_places", "ends.py",
        "            disputed = other.name\n",
        '            disputed = ""\n',
        "handshake",
    ),
    Mutant(
        "scan_does_not_wait_for_the_end_before", "station.py",
        "        if trigger is None or (trigger.tag is None and not trigger.lost):\n",
        "        if True:\n",
        "handshake",
    ),
    Mutant(
        "newest_of_several_takes_the_late_scan", "late.py",
        "        elif len(self._awaited) == 1 and not self._muddle and not self._ghosts:\n",
        "        elif True:\n",
        "late_scan",
    ),
    Mutant(
        "one_of_two_spliced_reels_is_named", "materials.py",
        "            certain = len(distinct) == 1 and",
        "            distinct = distinct[-1:]\n            certain = len(distinct) == 1 and",
        "lot_consumption",
    ),
    Mutant(
        "who_never_came_out_is_bound", "station.py",
        "        if self.plan.batch is not None and cycle.state is BindingState.BOUND:\n",
        "        if False:\n",
        "time_window",
    ),
    Mutant(
        "register_is_sure_after_a_gap", "shift.py",
        "        self.slots = [replace(slot, doubt=slot.doubt or reason) for slot in self.slots]\n",
        "",
        "shift_register",
    ),
    Mutant(
        "what_is_on_hold_may_enter", "gate.py",
        '    for hold in sorted(holds_on(floor, unit), key=lambda one: (one.action != "scrap", one.at_ns)):\n',
        "    for hold in ():\n",
        "gate",
    ),
)  # fmt: skip

MORE = (
    Mutant(
        "a_lost_plc_ends_no_waiting_for_a_scan",
        "late.py",
        "        for one in awaited:\n            if one.cycle.state is BindingState.PENDING:\n                self._say_nobody",  # noqa: E501
        "        self._awaited = awaited\n        for one in ():\n            if one.cycle.state is BindingState.PENDING:\n                self._say_nobody",  # noqa: E501
        "late_scan",
    ),
    Mutant(
        "second_look_at_a_label_takes_the_next_result",
        "late.py",
        "        elif just:\n",
        "        elif False:\n",
        "late_scan",
    ),
    Mutant(
        "who_is_named_late_is_no_attempt",
        "late.py",
        "unit, unit.attempt(step)\n",
        "unit, unit.attempts.get(step, 0) + 1\n",
        "late_scan,rework",
    ),
    Mutant(
        "pallet_stays_full_when_it_is_unloaded",
        "carrying.py",
        "        for _, one in carrier.loaded:\n            self._carriers.take(draft, self._station.name, carrier.name, one.unit, [scan.seq])\n\n    def opened",  # noqa: E501
        "        for _, one in ():\n            self._carriers.take(draft, self._station.name, carrier.name, one.unit, [scan.seq])\n\n    def opened",  # noqa: E501
        "carrier",
    ),
    Mutant(
        "pallets_are_believed_however_long_nobody_watched",
        "carrying.py",
        "        if for_ns > self._plan.reload_s * 1e9:",
        "        if False:",
        "carrier",
    ),
    Mutant(
        "newest_scan_at_the_entry_is_believed",
        "shift.py",
        "        elif len(units) > 1:\n",
        "        elif False:\n",
        "shift_register",
    ),
    Mutant(
        "scan_in_a_step_is_believed",
        "shift.py",
        "        if undecided:\n            doubt = doubt",
        "        if False:\n            doubt = doubt",
        "shift_register",
    ),
    Mutant(
        "whoever_comes_out_is_the_first_one",
        "batch.py",
        '            waiting = any(scan.identifiers.get("serial") == serial for scan in life.waiting)\n            if waiting or (life.cycle is not None and life.cycle.serial == serial):',  # noqa: E501
        '            waiting = any(scan.identifiers.get("serial") == serial for scan in life.waiting)\n            if waiting or life.cycle is not None:',  # noqa: E501
        "time_window",
    ),
    Mutant(
        "component_goes_into_whoever_was_there_last",
        "genealogy.py",
        " and cycle.state is BindingState.BOUND and not cycle.suspended\n",
        "\n",
        "marriage",
    ),
    Mutant(
        "component_goes_into_the_unit_before",
        "genealogy.py",
        "        if len(awaited) == 1 and all(life.cycle is None for life in lives if life is not awaited[0]):",
        "        if False:",
        "marriage",
    ),
    Mutant(
        "package_that_came_in_mid_cycle_is_forgotten",
        "materials.py",
        "        for during in self._during.values():\n            during.setdefault(load.name, []).append(load)\n",
        "",
        "lot_consumption",
    ),
    Mutant(
        "package_in_two_places_is_certain",
        "materials.py",
        "            if other is not load and other.package == load.package and not other.disputed:",
        "            if False:",
        "lot_consumption",
    ),
    Mutant(
        "one_scan_lets_two_units_in",
        "gatekeeper.py",
        "        self._identified.pop(life.plan.number, None)\n        decision = self._decide(life, entrant, desk.waiting, draft)",  # noqa: E501
        "        decision = self._decide(life, entrant, desk.waiting, draft)",
        "gate",
    ),
    Mutant(
        "permit_stands_when_its_unit_has_left",
        "gatekeeper.py",
        "        self._identified.pop(life.plan.number, None)\n        self._take_back(life.plan.number, draft)",
        "        self._identified.pop(life.plan.number, None)",
        "gate",
    ),
    Mutant(
        "permit_stands_when_the_reader_was_lost",
        "gatekeeper.py",
        "    def interrupted(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:\n        self._doubt(life, draft)",  # noqa: E501
        "    def interrupted(self, life: PositionLife, cycle: Cycle, draft: Draft) -> None:\n        pass",
        "gate",
    ),
    Mutant(
        "to_be_turned_away_is_an_attempt",
        "gatekeeper.py",
        "            cycle.let_in = decision.permit or bool(cycle.let_in)",
        "            cycle.let_in = True",
        "gate",
    ),
    Mutant(
        "who_failed_the_step_before_may_enter",
        "gate.py",
        "    elif newest.result != Result.PASSED:",
        "    elif False:",
        "gate",
    ),
    Mutant(
        "attempts_are_forgotten_over_a_restart",
        "units.py",
        "            known.unit, serial, kind, dict(known.attempts),",
        "            known.unit, serial, kind, {},",
        "rework",
    ),
)
"""Beyond the ten: bugs that an earlier truth test did not see."""


def catch(seed: int, processes: int, mutants: tuple[Mutant, ...] = MUTANTS) -> int:
    """How many of the mutants turn the truth red."""
    with ThreadPoolExecutor(processes) as pool:
        return sum(pool.map(lambda mutant: caught(mutant, seed), mutants))


def caught(mutant: Mutant, seed: int) -> bool:
    """Seed it and run its strategies."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-mutant-") as temporary:
        copy = Path(temporary)
        shutil.copytree(ROOT / "edge_agent", copy / "edge_agent", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(
            ROOT / "tests" / "truth", copy / "tests" / "truth", ignore=shutil.ignore_patterns("__pycache__")
        )
        path = copy / "edge_agent" / "binding" / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
        path.write_text(text.replace(mutant.old, mutant.new))
        units = str(UNITS * len(mutant.seen_by.split(",")))
        command = [
            sys.executable, str(copy / "tests/truth/run.py"), "--units", units, "--seed", str(seed), "--processes", "1",
            "--only", mutant.seen_by, "--no-mutants",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT / 'drivers'}"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    said = LINE.search(done.stdout)
    red = done.returncode == 1 and said is not None
    print(
        f"{mutant.name:<40} {'caught' if red else 'NOT CAUGHT'}: {said[0] if said else done.stderr[-600:]}", flush=True
    )
    return red


def main() -> int:
    """0 when every mutant was caught."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS + MORE if not given.only or mutant.name in given.only]
    return 0 if sum(caught(mutant, given.seed) for mutant in chosen) == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
