"""Named places where a kill hurts most, so that the fault tests can kill exactly there.

Nothing happens unless the environment says ``EDGE_AGENT_KILL_AT=<name>[:<hit>]``: then the process kills itself with
SIGKILL the ``hit``-th time (default: the first) it reaches that step.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    *("before_begin", "after_insert", "after_projection", "before_commit", "after_commit", "before_notify"),
    *("progress_before", "progress_after", "witness_before_replace", "witness_after_replace"),
    *("retention_before_delete", "retention_after_delete", "log_open_before", "log_open_after"),
    *("salvage_before_move", "salvage_after_move", "salvage_before_begin", "salvage_after_begin"),
    *("salvage_slice_before", "salvage_slice_after", "salvage_before_end", "salvage_after_end"),
    *("migration_before_commit", "migration_after_commit"),
)

_wish = os.environ.get("EDGE_AGENT_KILL_AT")
_name, _, _hit = (_wish or "").partition(":")
_left = int(_hit or 1)


def step(name: str) -> None:
    """Mark a place worth killing at. Costs one comparison in production."""
    global _left
    if _wish is None or name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
