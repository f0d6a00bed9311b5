"""`edge-agent bind`: say whose a cycle is that no rule could decide; the running agent notes who and why."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent
from edge_agent.cli.output import AsJson, console, emit_json, say
from edge_agent.i18n import _

Cycle = Annotated[str, typer.Argument(metavar="CYCLE", help=_("as `unbound` and `trace` print it: log-seq"))]
Serial = Annotated[str, typer.Argument(metavar="SERIAL", help=_("the unit that it was"))]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help=_("why; it is kept with the record"))]
New = Annotated[bool, typer.Option("--new", help=_("the serial was never seen before"))]


def command(
    ctx: typer.Context,
    cycle: Cycle,
    serial: Serial,
    reason: Reason,
    new: New = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say whose a cycle is that no rule could decide."""
    correct(ctx, cycle, serial, reason, again=False, new=new, data_dir=data_dir, as_json=as_json)


def correct(
    ctx: typer.Context, cycle: str, serial: str, reason: str, *, again: bool, new: bool, data_dir: DataDir,
    as_json: bool,
) -> None:  # fmt: skip
    """Ask the agent for the new binding. AgentRefused says why not."""
    answer = must_ask_agent(
        ctx, data_dir_of(ctx, data_dir), "bind", cycle=cycle, serial=serial, reason=reason, again=again, new=new
    )
    if as_json:
        emit_json(answer)
    else:
        text = _("{cycle} at {station} is now bound to {serial}")
        say(console(), text.format(cycle=answer["cycle"], station=answer["station"], serial=answer["serial"]), "green")
