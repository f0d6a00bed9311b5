"""`edge-agent gate`: what the gates say, and letting one unit in against a gate; the agent notes who and why."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from edge_agent.cli import ExitCode
from edge_agent.cli.bind import Reason
from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent
from edge_agent.cli.output import AsJson, add_row, console, emit_json, local_time, say, table
from edge_agent.i18n import _, translate

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("See the gates, let one unit in."))

Serial = Annotated[str, typer.Argument(metavar="SERIAL", help=_("the unit to let in"))]
Station = Annotated[str, typer.Option("--station", metavar="STATION", help=_("at whose gate"))]
Minutes = Annotated[
    float, typer.Option("--minutes", min=0.1, max=480, metavar="N", help=_("so long it can be used; once"))
]


@command.command("list", help=_("Show each gate's last answer, and why it was so."))
def list_(ctx: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Of the running agent; older decisions are in the log."""
    status = must_ask_agent(ctx, data_dir_of(ctx, data_dir), "status")
    gates = {name: one["gate"] for name, one in status["stations"].items() if "gate" in one}
    if as_json:
        emit_json({"gates": gates})
    elif gates:
        _show(console(), gates)
    else:
        say(console(), _("no station has a gate"))
    if any(one["verdict"] == "block" for gate in gates.values() for one in gate["last"].values()):
        raise typer.Exit(ExitCode.PROBLEM)


@command.command(help=_("Let one unit in, once, against what the gate finds; it takes effect with the next scan."))
def override(
    ctx: typer.Context,
    serial: Serial,
    station: Station,
    reason: Reason,
    minutes: Minutes = 10.0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Needs the role quality. AgentRefused says why not."""
    answer = must_ask_agent(
        ctx, data_dir_of(ctx, data_dir), "gate_override", serial=serial, station=station, reason=reason, minutes=minutes
    )
    if as_json:
        emit_json(answer)
    else:
        text = _("{serial} may enter {station} once, until {time}; scan it there now")
        until = local_time(answer["until_ns"], date=False)
        say(console(), text.format(serial=serial, station=station, time=until), "green")


def _show(out: Console, gates: dict[str, Any]) -> None:
    rows = table(_("STATION"), _("AT"), _("UNIT"), _("VERDICT"), _("CODE"), _("BASIS"), _("WHY"))
    for name, gate in gates.items():
        for number, one in gate["last"].items():
            where = f"{name}.{number}" if len(gate["last"]) > 1 else name
            verdict = Text(_(one["verdict"]), "green" if one["verdict"] == "permit" else "red")
            why = translate(one["text"]) if one["text"] else "–"
            at = local_time(one["at_ns"])
            add_row(rows, where, at, one["serial"] or "–", verdict, str(one["code"]), _(one["basis"]), why)
        if not gate["last"]:
            add_row(rows, name, "–", "–", _("nothing asked yet"), "–", "–", "–")
    out.print(rows)
    for name, gate in gates.items():
        for serial in gate["overrides"]:
            say(out, _("{serial} has an override at {station}").format(serial=serial, station=name), "yellow")
