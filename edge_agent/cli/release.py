"""`edge-agent release`: lift a hold, or let what it stops pass in spite of it; the agent notes who and why."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent
from edge_agent.cli.hold import Reason
from edge_agent.cli.output import AsJson, console, emit_json, say
from edge_agent.i18n import _

HoldId = Annotated[str, typer.Argument(metavar="HOLD", help=_("as `edge-agent holds` shows it"))]
Concession = Annotated[bool, typer.Option("--concession", help=_("keep it on record, and let the units pass"))]


def command(
    ctx: typer.Context,
    hold: HoldId,
    reason: Reason,
    concession: Concession = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Lift one hold; others on the same unit stand."""
    answer = must_ask_agent(ctx, data_dir_of(ctx, data_dir), "release", hold=hold, reason=reason, concession=concession)
    if as_json:
        emit_json(answer)
        return
    for subject in answer["subjects"]:
        text = _("hold {hold} no longer stops {kind} {subject}")
        say(console(), text.format(hold=hold, kind=_(subject["kind"]), subject=subject["value"]), "green")
