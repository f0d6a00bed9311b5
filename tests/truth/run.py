"""`make truth`: every strategy under every disturbance, at the rate of a bad day and where nothing works; and the
mutants.

    python tests/truth/run.py --units 50000 --seed 1 [--only handshake,carrier] [--no-mutants]

Half of the units of each strategy come on ordinary bad days, half where nothing works, and there every cell of the
oracle comes at least once. What happens follows from the seed alone, on however many processors. 0: all aims hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from truth.floor import FLOOR  # noqa: E402
from truth.oracle import ABSURD, DISTURBANCES, ORACLE, REALISTIC, cells  # noqa: E402
from truth.score import Tally, total  # noqa: E402
from truth.shift import Shift, play  # noqa: E402

VISITS = 100  # of a station in a shift
ROUNDS = 400  # shifts of one strategy at most
TOLD = 40  # failures that are told in words


@dataclass
class Played:
    """What came of one strategy at one rate."""

    strategy: str
    cells: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    cases: list[str] = field(default_factory=list)
    readings: int = 0


def strategy_at(task: tuple[str, float, int, int]) -> Played:
    """Shifts of ``strategy`` until there were so many units and, where nothing works, every cell."""
    strategy, share, units, seed = task
    played = Played(strategy)
    missing = set(ORACLE[strategy]) if share == ABSURD else set()
    done = 0
    for number in range(ROUNDS):
        left = max(units - done, 2)
        per_station = min(VISITS, max(12, left // FLOOR[strategy][0].abreast // len(FLOOR[strategy])))
        shift = Shift(strategy, f"{seed} {share} {number}", per_station, share, tuple(sorted(missing)))
        score = play(shift)
        for key, tally in score.cells.items():
            played.cells[key].add(tally)
            missing.discard(key[1])
        done += total(score.cells.values()).units
        played.readings += score.all_readings
        played.cases += [f"{case} [shift {number} at {share}]" for case in score.cases]
        if done >= units and not missing:
            break
    return played


def run(units: int, seed: int, strategies: list[str], processes: int) -> list[Played]:
    """All of it."""
    each = max(1, units // len(strategies) // 2)
    tasks = [(strategy, share, each, seed) for strategy in strategies for share in (ABSURD, REALISTIC)]
    if processes == 1:
        return [strategy_at(task) for task in tasks]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(strategy_at, tasks, chunksize=1)


def matrix(found: dict[tuple[str, str], Tally], strategies: list[str]) -> list[str]:
    """Disturbance by strategy: units, and what is wrong with them."""
    width = max(map(len, DISTURBANCES)) + 2
    lines = ["units; m misbound, b not bound, r findings not raised, f false findings, d state differs", ""]
    lines.append(" " * width + " ".join(f"{strategy[:12]:>12}" for strategy in strategies))
    for disturbance in DISTURBANCES:
        row = []
        for strategy in strategies:
            tally = found.get((strategy, disturbance), Tally())
            here = disturbance in ORACLE[strategy]
            row.append(f"{('EMPTY' if not tally.units else _cell(tally)) if here else '.':>12}")
        if any(cell.strip() != "." for cell in row):
            lines.append(f"{disturbance:<{width}}" + " ".join(row))
    return lines


def _cell(tally: Tally) -> str:
    wrong = {
        "m": tally.misbound, "b": tally.bindable - tally.bound, "r": tally.injected - tally.raised, "f": tally.false,
        "d": tally.differs,
    }  # fmt: skip
    return " ".join([str(tally.units), *(f"{sign}{count}" for sign, count in wrong.items() if count)])


def percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def judge(played: list[Played], strategies: list[str]) -> tuple[bool, Tally, int, list[str]]:
    """Whether all aims hold; the sum, readings, and what to print."""
    found: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for one in played:
        for key, tally in one.cells.items():
            found[key].add(tally)
    sum_ = total(found.values())
    empty = [f"{s}/{d}" for s, d in cells() if s in strategies and not found[s, d].units]
    lines = matrix(found, strategies)
    lines += [f"EMPTY CELL: {name}" for name in empty]
    cases = [case for one in played for case in one.cases]
    lines += cases[:TOLD] + ([f"... and {len(cases) - TOLD} more"] if len(cases) > TOLD else [])
    good = (
        sum_.misbound == 0 and sum_.differs == 0 and not empty and percent(sum_.bound, sum_.bindable) >= 99.9
        and sum_.raised == sum_.injected and percent(sum_.false, sum_.units) < 0.1
    )  # fmt: skip
    return good, sum_, sum(one.readings for one in played), lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--units", type=int, default=50_000, help="in all, shared evenly by the strategies")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="strategies, by commas")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--no-mutants", action="store_true")
    given = parser.parse_args()
    strategies = given.only.split(",") if given.only else list(FLOOR)
    print(f"seed={given.seed} units={given.units} strategies={len(strategies)} processes={given.processes}", flush=True)
    begun = time.monotonic()
    good, sum_, readings, lines = judge(run(given.units, given.seed, strategies, given.processes), strategies)
    print("\n".join(lines))
    print(f"took {time.monotonic() - begun:.0f} s", flush=True)
    caught, seeded = 0, 0
    if not given.no_mutants:
        from truth.mutants import MORE, MUTANTS, catch

        begun = time.monotonic()
        caught, seeded = catch(given.seed, given.processes), len(MUTANTS)
        beyond = catch(given.seed, given.processes, MORE)
        good = good and caught == seeded and beyond == len(MORE)
        print(f"beyond the ten: {beyond}/{len(MORE)} caught")
        print(f"mutants took {time.monotonic() - begun:.0f} s")
    print(
        f"truth: units={sum_.units} readings={readings} misbound={sum_.misbound}"
        f" bound_pct={percent(sum_.bound, sum_.bindable):.3f}"
        f" findings_recall_pct={percent(sum_.raised, sum_.injected):.3f}"
        f" false_findings_pct={percent(sum_.false, sum_.units):.3f} mutants_caught={caught}/{seeded}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
