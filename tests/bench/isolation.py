"""What a bad device costs the good ones: rates before and beside each kind of it, measured from outside the agent.

::

    PYTHONPATH=tests python tests/bench/isolation.py [--seconds 5] [--poll 50ms]

Two good PLCs (real pymodbus servers in processes of their own) and a good reader on a pty. First all is well, then one
device turns bad, in a line of its own each time, at last all of them in one line. A poll of ``0s`` reads without a
pause: then the good PLCs show every microsecond of the loop that a bad device takes. The last line says the smallest
share of its rate that any good device kept.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from support.bad_neighbours import BAD, Neighbours

SETTLE_S = 1.0


def cpu_s(pid: int) -> float:
    """User and system seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def beside(kinds: tuple[str, ...], options: argparse.Namespace) -> float:
    """The smallest share of its rate that a good device keeps beside these."""
    with tempfile.TemporaryDirectory() as folder, Neighbours(Path(folder), poll=options.poll) as line:
        shares, texts = [], []
        before = line.rates(options.seconds)
        for kind in kinds:
            line.turn_bad(kind)
        began = cpu_s(line.agent.pid)
        at_once = line.rates(options.seconds)
        cost = (cpu_s(line.agent.pid) - began) / options.seconds
        during = line.rates(options.seconds)
        for name, rate in before.items():
            shares.append(min(at_once[name], during[name]) / rate)
            texts.append(f"{name} {rate:7.1f} {at_once[name]:7.1f} {during[name]:7.1f}")
        states = ", ".join(f"{kind} {line.devices()[kind]['state']}" for kind in kinds) if len(kinds) == 1 else ""
        name = kinds[0] if len(kinds) == 1 else "all of them"
        print(f"  {name:12} {'   '.join(texts)}   agent {cost:4.0%} of a core  {states}", flush=True)
        return min(shares)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--poll", default="50ms")
    options = parser.parse_args()
    print(
        f"rates a second before, right after and later, {options.seconds:.0f} s each; good PLCs polled: {options.poll}"
    )
    shares = [beside((kind,), options) for kind in BAD]
    shares.append(beside(BAD, options))
    print(f"isolation: kept={min(shares):.2f} of the rate, at worst")


if __name__ == "__main__":
    main()
