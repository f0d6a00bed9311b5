"""`edge-agent unbound`: the cycles of which no rule could say whose they are, for somebody who may know."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edge_agent.cli import ExitCode, UsageProblem
from edge_agent.cli.datadir import DataDir, data_dir_of, open_archive
from edge_agent.cli.instants import instant_ns
from edge_agent.cli.output import AsJson, add_row, console, emit_json, instants_as_text, local_time, say, table
from edge_agent.i18n import _, translate

if TYPE_CHECKING:
    from edge_agent.buffer.found import Unbound

SHOWN = 200

Since = Annotated[str, typer.Option("--since", metavar="WHEN", help=_("from when on: 2h, 06:00, a date and time"))]


def command(
    ctx: typer.Context,
    since: Since = "24h",
    station: Annotated[str | None, typer.Option("--station", metavar="NAME", help=_("only of this station"))] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the cycles that are bound to no unit, why, and who it may have been."""
    since_ns = instant_ns(since, "--since")
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        if station is not None and station not in (known := archive.stations()):
            hint = f"choose from {', '.join(known)}" if known else "no station was ever configured here"
            raise UsageProblem(f"no station is named {station}", hint=hint)  # else a typing error were good news
        found, count = archive.unbound(since_ns=since_ns, station=station, limit=100_000 if as_json else SHOWN)
    if as_json:
        emit_json({"count": count, "cycles": [instants_as_text(asdict(one)) for one in found]})
    else:
        _show(console(), found, count, since_ns)
    if count:
        raise typer.Exit(ExitCode.PROBLEM)


def _show(out: Console, found: list[Unbound], count: int, since_ns: int) -> None:
    if not found:
        say(out, _("every cycle since {when} is bound").format(when=local_time(since_ns)), "green")
        return
    if count > len(found):
        say(out, _("the newest {shown} of {count}:").format(shown=len(found), count=count))
    rows = table(_("CYCLE"), _("STATION"), _("SINCE"), _("STATE"), _("REASON"), _("CANDIDATES"))
    for one in found:
        candidates = ", ".join(str(candidate.get("serial")) for candidate in one.candidates) or "–"
        reason = translate(one.reason) if one.reason else one.rule or ""
        place = f"{one.station}/{one.position}"
        add_row(rows, one.cycle, place, local_time(one.opened_at_ns), _(one.binding_state), reason, candidates)
    out.print(rows, "")
    say(out, "  → " + _("if you know whose one is: edge-agent bind CYCLE SERIAL --reason TEXT"))
