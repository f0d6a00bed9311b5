"""What a bad device costs the good ones: rates before and beside each kind of it, measured from outside the agent.

::

    PYTHONPATH=tests python tests/bench/isolation.py [--seconds 5] [--poll 50ms]

``isolation`` is the benchmark that run.py calls: the same with the agent on its core.

Two good PLCs (real pymodbus servers in processes of their own) and a good reader on a pty. First all is well, then one
device turns bad, in a line of its own each time, at last all of them in one line. A poll of ``0s`` reads without a
pause: then the good PLCs show every microsecond of the loop that a bad device takes. The last line says the smallest
share of its rate that any good device kept.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rig import AGENT_CORE, Process

from support.bad_neighbours import BAD, Neighbours


def beside(kinds: tuple[str, ...], seconds: float, poll: str) -> float:
    """The smallest share of its rate that a good device keeps beside these."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Neighbours(Path(folder), poll=poll, agent_core=AGENT_CORE) as line,
    ):
        process = Process(line.agent)
        shares, texts = [], []
        before = line.rates(seconds)
        for kind in kinds:
            line.turn_bad(kind)
        began = process.cpu_s
        at_once = line.rates(seconds)
        cost = (process.cpu_s - began) / seconds
        during = line.rates(seconds)
        for name, rate in before.items():
            shares.append(min(at_once[name], during[name]) / rate)
            texts.append(f"{name} {rate:7.1f} {at_once[name]:7.1f} {during[name]:7.1f}")
        states = ", ".join(f"{kind} {line.devices()[kind]['state']}" for kind in kinds) if len(kinds) == 1 else ""
        name = kinds[0] if len(kinds) == 1 else "all of them"
        print(f"  {name:12} {'   '.join(texts)}   agent {cost:4.0%} of a core  {states}", flush=True)
        return min(shares)


def kept(seconds: float, poll: str) -> float:
    """Each kind by itself, then all of them: the smallest share of its rate that a good device kept."""
    return min(beside(kinds, seconds, poll) for kinds in (*((kind,) for kind in BAD), BAD))


def isolation(report: Any, folder: Path, options: argparse.Namespace) -> None:
    """(n) Two good PLCs and a good reader, rates a second before, right after a device turns bad, and later."""
    report.say("isolation_kept", kept(options.seconds / 2, "50ms"), "of its rate, the good device that kept least")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--poll", default="50ms")
    options = parser.parse_args()
    print(
        f"rates a second before, right after and later, {options.seconds:.0f} s each; good PLCs polled: {options.poll}"
    )
    print(f"isolation: kept={kept(options.seconds, options.poll):.2f} of the rate, at worst")


if __name__ == "__main__":
    main()
