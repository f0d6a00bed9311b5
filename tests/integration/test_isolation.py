"""A device that dies, hangs, floods or answers nonsense costs the others nothing: seen from outside a running agent.

Counts with bounds that hold on a slow and shared machine; ``tests/bench/isolation.py`` measures.
"""

from __future__ import annotations

import time
from pathlib import Path

from support.bad_neighbours import BAD, GOOD_READER, Neighbours

WINDOW_S = 1.5


def test_bad_devices_of_every_kind_cost_the_good_ones_nothing(tmp_path: Path) -> None:
    with Neighbours(tmp_path) as line:
        before = line.rates(WINDOW_S)
        assert all(before.values())
        for name in BAD:
            line.turn_bad(name)
        flooded = {name: line.wait_for(name, "faulted") for name in ("garbage", "babbling")}
        for name in ("killed", "stopped", "hanging", "nonsense"):
            line.wait_for(name, "connecting")
        during = line.rates(WINDOW_S)
        devices = line.devices()
        assert not any(devices[name]["errors"] for name in before)
        for name, device in flooded.items():
            assert device["errors"] == {"flood": 1}, name
            assert device["hint"], name
        for name, rate in before.items():
            assert during[name] > rate / 2, f"{name}: {rate:.1f}/s before, {during[name]:.1f}/s beside the bad ones"
        line.stop_scanning()
        until = time.monotonic() + 20
        while line.counts()[GOOD_READER] < line.scanned:
            assert time.monotonic() < until, "a scan of the good reader is lost"
            time.sleep(0.05)
