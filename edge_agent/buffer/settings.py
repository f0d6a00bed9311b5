"""What the ``buffer:`` section of the config may say. Bounds that nobody needs to turn are constants in the code."""

from __future__ import annotations

from pydantic import Field

from edge_agent.driver import Duration, Settings, Size


class BufferSettings(Settings):
    """How much is kept, for how long, and what the disk must have left."""

    keep: Duration = Field(
        default=72 * 3600.0,
        ge=3600.0,
        description="delivered records stay this long for a replay; undelivered ones are never removed by age",
    )
    keep_units: Duration = Field(
        default=365 * 86400.0,
        ge=86400.0,
        description="units, cycles, bindings and findings stay this long for `trace`",
    )
    max_size: Size = Field(
        default=20 * 10**9,
        ge=64 * 2**20,
        description="the buffer never grows beyond this; delivered records go first",
    )
    min_free: Size = Field(
        default=10**9,
        description="the buffer leaves this much of the disk free for everybody else",
    )
    ballast: Size = Field(
        default=64 * 2**20,
        description="a file that is given up when the disk is full, since cleaning up needs room as well",
    )
