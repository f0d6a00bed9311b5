"""Cut the power many times, with the controls: ``python tests/fault/power/run.py [--cuts 300] [--seed N]``."""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
from pathlib import Path

from cuts import cut_power


def main() -> int:
    """0 when FULL lost nothing and both controls were seen to lose."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}")
    logging.disable(logging.CRITICAL)
    good = True
    for synchronous in ("FULL", "NORMAL", "OFF"):
        with tempfile.TemporaryDirectory(prefix="edge-agent-power-") as directory:
            result = cut_power(Path(directory), synchronous, cuts=options.cuts, seed=seed)
        print(
            f"{synchronous}: cuts={result.cuts} accepted={result.accepted} lost={result.lost} "
            f"cuts_with_loss={result.cuts_with_loss} refused={result.refused} invented={result.invented} "
            f"broken_ledgers={result.broken_ledgers} false_alarms={result.false_alarms} {result.first_bad}",
            flush=True,
        )
        if synchronous == "FULL":
            good &= not (result.lost or result.refused or result.invented or result.broken_ledgers)
        else:
            good &= result.cuts_with_loss > 0
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
