"""`edge-agent unbind`: withdraw a binding that is wrong, while nobody knows the right one."""

from __future__ import annotations

import typer

from edge_agent.cli.bind import Cycle, Reason
from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent
from edge_agent.cli.output import AsJson, console, emit_json, say
from edge_agent.i18n import _


def command(
    ctx: typer.Context, cycle: Cycle, reason: Reason, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Withdraw the binding of a cycle: its readings belong to no unit until it is bound again."""
    answer = must_ask_agent(ctx, data_dir_of(ctx, data_dir), "unbind", cycle=cycle, reason=reason)
    if as_json:
        emit_json(answer)
    else:
        text = _("{cycle} at {station} is bound to nothing any more")
        say(console(), text.format(cycle=answer["cycle"], station=answer["station"]), "green")
