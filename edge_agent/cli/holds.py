"""`edge-agent holds`: what is on hold here, since when, by whom, and whether that is all there is to know."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent
from edge_agent.cli.output import AsJson, add_row, console, emit_json, local_time, say, table
from edge_agent.i18n import _, ngettext

Confirm = Annotated[bool, typer.Option("--confirm", help=_("after damage: say that what is listed is all there is"))]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help=_("why, with --confirm; it is kept with the record"))
]


def command(
    ctx: typer.Context, confirm: Confirm = False, reason: Reason = "", data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show what is on hold, and how sure that is."""
    if confirm:
        must_ask_agent(ctx, data_dir_of(ctx, data_dir), "holds_confirm", reason=reason)
    answer = must_ask_agent(ctx, data_dir_of(ctx, data_dir), "holds")
    if as_json:
        emit_json(answer)
    else:
        _show(console(), answer)


def _show(out: Console, answer: dict[str, Any]) -> None:
    rows = table(_("HOLD"), _("ACTION"), _("SUBJECT"), _("HELD SINCE"), _("BY"), _("WHY"))
    for hold in answer["holds"]:
        subject = f"{_(hold['subject_kind'])} {hold['subject']}"
        row = (hold["hold"], _(hold["action"]), subject, local_time(hold["at_ns"]), hold["source"], hold["text"] or "–")
        add_row(rows, *row)
    if answer["holds"]:
        out.print(rows, "")
    else:
        say(out, _("nothing is on hold"))
    if more := answer["more"]:
        say(out, ngettext("{count} more is not shown", "{count} more are not shown", more).format(count=more))
    if not answer["known"]:
        say(out, _("not all holds are known here: every gate blocks until they are"), "red")
        say(out, "  → " + _('put on hold what is missing, then: edge-agent holds --confirm --reason "…"'))
    elif answer["basis"] == "stale":
        say(out, _("a source may have decided something that has not arrived; a snapshot is asked for"), "yellow")
    elif answer["basis"] == "cached":
        say(out, _("a source has been silent: this is what it said last"), "yellow")
