"""`edge-agent rebind`: a cycle was another unit's. The old binding stays on record; the new one supersedes it."""

from __future__ import annotations

import typer

from edge_agent.cli.bind import Cycle, New, Reason, Serial, correct
from edge_agent.cli.datadir import DataDir
from edge_agent.cli.output import AsJson


def command(
    ctx: typer.Context,
    cycle: Cycle,
    serial: Serial,
    reason: Reason,
    new: New = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bind a cycle to another unit than it was bound to."""
    correct(ctx, cycle, serial, reason, again=True, new=new, data_dir=data_dir, as_json=as_json)
