"""What a peer is; see the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from edge_agent.model import Sample, Scan


class Peer:
    """What a driver is connected to. The methods below a line make it bad; ``breakable`` says that they exist."""

    breakable: ClassVar[bool] = True
    tells_level: ClassVar[bool] = False  # an event driver's device that says how it is as soon as it is opened
    settings: dict[str, Any]

    async def start(self) -> None:
        """Be there."""

    async def stop(self) -> None:
        """Be gone, in whatever state; may be started again under the same address."""

    async def speak(self) -> None:
        """Make an event driver's device say something good."""

    def expect(self, answer: Sequence[Sample | Scan]) -> None:
        """The answer is what the device says, whole."""

    # ------------------------------------------------------------------------------------------------------

    async def speak_half_and_vanish(self) -> None:
        """Break off in the middle of the answer that the driver waits for."""

    async def drip(self) -> None:
        """Say something good, one byte at a time."""

    async def rave(self) -> None:
        """Say what is not the protocol's."""

    async def flood(self) -> None:
        """Say far too much of it."""

    async def fall_silent(self) -> None:
        """Be there, and say nothing."""

    async def behave(self) -> None:
        """Be good again."""
