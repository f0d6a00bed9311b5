"""`edge-agent hold`: stop a unit, or all that a lot went into, at the next gate; the agent notes who and why."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent
from edge_agent.cli.output import AsJson, console, emit_json, say
from edge_agent.i18n import _

Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help=_("the serial, or what --kind says"))]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help=_("why; it is kept with the record"))]
KindName = Annotated[
    Literal["serial", "lot", "package", "part_number", "carrier"],
    typer.Option("--kind", metavar="KIND", help=_("what SUBJECT names: serial, lot, package, part_number or carrier")),
]
ActionName = Annotated[
    Literal["hold", "scrap", "rework"],
    typer.Option("--as", metavar="WHAT", help=_("what it is from now on: hold, scrap or rework")),
]


def command(
    ctx: typer.Context,
    subject: Subject,
    reason: Reason,
    kind: KindName = "serial",
    action: ActionName = "hold",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Stop a unit, or all that a lot went into, at the next gate."""
    answer = must_ask_agent(
        ctx, data_dir_of(ctx, data_dir), "hold", kind=kind, subject=subject, action=action, reason=reason
    )
    if as_json:
        emit_json(answer)
        return
    out = console()
    say(
        out,
        _("{kind} {subject} is on hold: {hold}").format(kind=_(kind), subject=subject, hold=answer["hold"]),
        "green",
    )
    for serial in answer["in_work"]:
        say(
            out,
            _("{serial} is in work now; its cycle ends, and the next gate stops it").format(serial=serial),
            "yellow",
        )
    say(out, "  → " + _("lift it: edge-agent release {hold} --reason TEXT").format(hold=answer["hold"]))
