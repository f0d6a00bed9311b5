"""`make fault`: kill the agent again and again, and count what is lost. See harness.py.

    python tests/fault/run.py [--kills 50] [--seed N] [--keep DIR]

The last line is ``fault: kills=... lost=0 duplicates_after_dedup=0 misbound=0``, and the exit code 0, only if so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from pathlib import Path

from harness import PLC_STEPS, STEPS, Torture, say


def main() -> int:
    """Run it; 0 when nothing was lost, doubled or misbound."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--keep", type=Path, default=None, help="keep truth, buffer, logs and what was received here")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    say(f"seed {seed}; again with: python tests/fault/run.py --seed {seed} --kills {options.kills}")
    with tempfile.TemporaryDirectory(prefix="edge-agent-fault-") as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        verdict = asyncio.run(Torture(directory.resolve(), seed=seed, kills=options.kills).run())
    for detail in verdict.counts.details:
        say(f"  {detail}")
    counts = verdict.counts
    say(
        f"units={counts.units} cycles={counts.cycles} bound={counts.bound} unbound={counts.unbound} "
        f"readings={counts.readings} pending={verdict.pending} outages={verdict.outages} hangs={verdict.hangs}"
    )
    say("hits: " + " ".join(f"{step}={verdict.hits[step]}" for step in (*STEPS, *PLC_STEPS)))
    say(verdict.line())
    return 0 if verdict.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
