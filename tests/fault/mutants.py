"""Deliberate bugs, seeded one at a time: each must turn `make fault` red, or the torture proves nothing.

    python tests/fault/mutants.py [--only NAME ...] [--list]

Each mutant is one change of the source, in a copy of the package that the scenarios then run; the working tree is not
touched. It names the scenarios that are to see it, so that it takes seconds, not the whole torture. A change that no
longer fits the source is an error, not a pass.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: in ``file`` of the package, ``old`` becomes ``new``; ``seen_by`` these scenarios."""

    name: str
    file: str
    old: str
    new: str
    seen_by: str


MUTANTS = (
    Mutant(
        "commit_skipped", "buffer/writer.py",
        '            self._connection.execute("COMMIT")\n        step("after_commit")',
        '            self._connection.execute("ROLLBACK" if self.counts.commits % 50 == 49 else "COMMIT")\n'
        '        step("after_commit")',
        "broker_stopped",
    ),
    Mutant(
        "accepted_before_the_commit", "buffer/writer.py",
        '        step("before_commit")\n        return rows, digest',
        '        if batch:\n            self.durable_seq = batch[-1][0]\n            self.on_commit(self.durable_seq)\n'
        '            time.sleep(0.002)\n        step("before_commit")\n        return rows, digest',
        "kill_steps",
    ),
    Mutant(
        "synced_less", "buffer/writer.py", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL", "power_cut"
    ),
    Mutant(
        "batch_lost_when_full", "buffer/writer.py",
        "                time.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])",
        "                batch = []\n                time.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])",
        "file_limit",
    ),
    Mutant(
        "progress_off_by_one", "buffer/writer.py",
        "UPDATE lane SET seq = max(seq, ?), n = max(n, ?) WHERE id = ?",
        "UPDATE lane SET seq = max(seq, ? + 1), n = max(n, ?) WHERE id = ?",
        "old_backlog",
    ),
    Mutant(
        "progress_early", "routes/delivery.py",
        "        progress = self.window.progress()\n        if progress == self.reported:",
        "        progress = (self.window.read_seq, self.window.last_n)\n        if progress == self.reported:",
        "broker_without_subscriber,broker_discards,receiver_dead",
    ),
    Mutant(
        "confirmed_by_the_broker", "routes/route.py",
        "        self._by_receiver = bool(self._sink.confirm_topic)",
        "        self._by_receiver = False",
        "broker_discards,broker_without_subscriber",
    ),
    Mutant(
        "dead_letter_not_kept", "routes/delivery.py",
        "            self.dead[n] = reason\n            self._buffer.dead_letter(self.lane, n, seq, reason)",
        "            self.dead[n] = reason",
        "receiver_rejects_one",
    ),
    Mutant(
        "retention_takes_undelivered", "buffer/holes.py",
        "        lowest = min(lowest, done(db, lane, seq))",
        "        lowest = max(lowest, done(db, lane, seq))",
        "old_backlog",
    ),
    Mutant(
        "retention_off_by_one", "buffer/holes.py",
        "    return int(lowest)\n",
        "    return int(lowest) + 1\n",
        "old_backlog",
    ),
    Mutant(
        "drop_says_less", "buffer/route_drops.py",
        '"first_seq": first, "last_seq": last,',
        '"first_seq": first, "last_seq": last - 1,',
        "max_backlog",
    ),
    Mutant(
        "next_lane_begins_late", "buffer/lanes.py",
        "        insert(connection, route, log, boot, first_seq, None, (kinds, stations))",
        "        insert(connection, route, log, boot, first_seq + 30, None, (kinds, stations))",
        "network_starts_offline,old_backlog",
    ),
    Mutant(
        "numbers_given_again", "buffer/opening.py", "    head_seq = max(there, known_seq)\n", "    head_seq = there\n",
        "database_gone",
    ),
)  # fmt: skip


def main() -> int:
    """0 when every mutant was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", default=[], help="these mutants; repeatable")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not given.only or mutant.name in given.only]
    if given.list:
        print("\n".join(f"{mutant.name:<30} {mutant.file:<22} seen by {mutant.seen_by}" for mutant in chosen))
        return 0
    unseen = [mutant.name for mutant in chosen if not seen(mutant, given.seed)]
    print(f"mutants: seeded={len(chosen)} seen={len(chosen) - len(unseen)} {' '.join(unseen)}")
    return 1 if unseen else 0


def seen(mutant: Mutant, seed: int) -> bool:
    """Seed it and run its scenarios; whether they turn red for what they count or check."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-mutant-") as temporary:
        copy = Path(temporary) / "tree"
        for name in ("edge_agent", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / "edge_agent" / mutant.file
        text = path.read_text()
        if text.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
        path.write_text(text.replace(mutant.old, mutant.new))
        command = [sys.executable, str(copy / "tests/fault/run.py"), "--only", mutant.seen_by, "--seed", str(seed)]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
    why = next((line.strip() for line in done.stdout.splitlines() if line.startswith("    ")), "")
    red = done.returncode == 1 and "\nred: " in done.stdout
    print(f"{mutant.name:<30} {'seen' if red else 'NOT SEEN'}: {why[:110]}", flush=True)
    if not red:
        print(done.stdout[-1500:] + done.stderr[-1500:])
    return red


if __name__ == "__main__":
    raise SystemExit(main())
