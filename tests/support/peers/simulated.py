"""The peer of the driver that has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_agent.model import Sample, Scan
from support.peers.peer import Peer


class SimulatedPeer(Peer):
    """Nothing."""

    breakable = False

    def __init__(self, folder: Path) -> None:
        tags = {"level": {"wave": "saw", "low": 1, "high": 2}}
        self.settings = {"groups": {"state": {"poll": "100ms", "tags": tags}}, "tags": {"ack": {"write": True}}}

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        (sample,) = answer
        assert isinstance(sample, Sample)
        (value,) = sample.values
        assert isinstance(value, float)
        assert 1 <= value <= 2
