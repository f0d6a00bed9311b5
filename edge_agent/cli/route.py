"""`edge-agent route`: how each route stands; give it a range once more; give up what it has pending.

`list` works always: the running agent answers, or a stopped one's buffer. The others change something, so the running
agent does them, and notes in the log who asked.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.datadir import DataDir, ask_agent, data_dir_of, must_ask_agent, open_archive
from edge_agent.cli.instants import instant_ns
from edge_agent.cli.output import AsJson, add_row, console, emit_json, local_time, say, table
from edge_agent.errors import ConfigError
from edge_agent.i18n import _, ngettext, translate

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Look at routes, repeat or give up records."))

Name = Annotated[str, typer.Argument(metavar="NAME", help=_("the route, as the configuration names it"))]
_STYLE = {"connected": "green", "stopped": "", "connecting": "yellow", "starting": "yellow"}


@command.command("list", help=_("Show every route: sink, order, state, what is pending and in which lanes."))
def list_(ctx: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """The running agent's routes, or those of a stopped one's buffer and configuration."""
    path = data_dir_of(ctx, data_dir)
    answer = ask_agent(path, "route_list")
    routes = _stopped(ctx, path) if answer is None else answer["routes"]
    if as_json:
        emit_json({"agent_running": answer is not None, "routes": routes})
    else:
        _show(console(), routes)


@command.command(help=_("Send once more what was recorded in a time, beside what is new."))
def replay(
    ctx: typer.Context,
    name: Name,
    since: Annotated[
        str, typer.Option("--since", "--from", metavar="WHEN", help=_("from when on: 2h, 06:00, a date and time"))
    ],
    until: Annotated[str, typer.Option("--until", "--to", metavar="WHEN", help=_("up to when; default: now"))] = "0s",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the agent for a lane over that part of the log; the receiver knows what it has by its key."""
    since_ns, until_ns = instant_ns(since, "--since"), instant_ns(until, "--until")
    if since_ns >= until_ns:
        raise UsageProblem(f"--since {since} is not before --until {until}", hint="swap the two")
    typed = f"--since {since} --until {until}"
    answer = must_ask_agent(
        ctx, data_dir_of(ctx, data_dir), "route_replay",
        route=name, since_ns=str(since_ns), until_ns=str(until_ns), typed=typed,
    )  # fmt: skip
    if as_json:
        emit_json(answer)
        return
    out = console()
    text = _("{route} gets records {first} to {last} once more ({since} … {until})")
    told = text.format(
        route=name, first=answer["first_seq"], last=answer["last_seq"],
        since=local_time(since_ns), until=local_time(until_ns),
    )  # fmt: skip
    say(out, told)
    _show_streams(out, answer["lanes"])
    say(out, "  → " + _("watch it: edge-agent route list"))


@command.command(help=_("Give up what a route has pending, for good; remove a detached route."))
def drop(
    ctx: typer.Context,
    name: Name,
    reason: Annotated[str, typer.Option(metavar="TEXT", help=_("why; it is recorded with your name"))],
    yes: Annotated[bool, typer.Option("--yes", help=_("do not ask"))] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask first, then let the agent record the drop and free the records."""
    path = data_dir_of(ctx, data_dir)
    routes = {route["route"]: route for route in must_ask_agent(ctx, path, "route_list")["routes"]}
    if name not in routes:
        raise UsageProblem(f"no route is named {name}", hint="see which there are: edge-agent route list")
    if not yes:
        _confirm(routes[name])
    answer = must_ask_agent(ctx, path, "route_drop", route=name, reason=reason)
    if as_json:
        emit_json(answer)
        return
    text = ngettext("{count} record was given up for {route}", "{count} records were given up for {route}",
                    answer["dropped"])  # fmt: skip
    say(console(), text.format(count=answer["dropped"], route=name))
    if answer["removed"]:
        say(console(), _("{route} is removed").format(route=name))


def _confirm(route: dict[str, Any]) -> None:
    """Go on only if a person says so; a program has to say --yes."""
    if not sys.stdin.isatty():
        raise UsageProblem("nobody is there to be asked", hint="add --yes")
    text = ngettext(
        "{route} will never send its {count} pending record. Go on?",
        "{route} will never send its {count} pending records. Go on?",
        route["pending"],
    )
    if not typer.confirm(text.format(route=route["route"], count=route["pending"])):
        raise typer.Exit(ExitCode.PROBLEM)


def _stopped(ctx: typer.Context, data_dir: Path) -> list[dict[str, Any]]:
    from edge_agent.control.verbs import routes_told

    with closing(open_archive(data_dir)) as archive:
        standings = archive.routes()
    return routes_told(standings, _settings(ctx), {})


def _settings(ctx: typer.Context) -> dict[str, Any]:
    """The routes of the configuration; none while it has mistakes."""
    from edge_agent.config import load

    try:
        return dict(load(Globals.of(ctx).config).routes)
    except ConfigError:
        return {}


def _show(out: Console, routes: list[dict[str, Any]]) -> None:
    if not routes:
        say(out, _("no route has used this buffer yet"))
        return
    rows = table(_("ROUTE"), _("SINK"), _("ORDER"), _("STATE"), _("PENDING"), _("DEAD LETTERS"))
    for route in routes:
        state = Text(_(route["state"]), _STYLE.get(route["state"], "red"))
        numbers = [str(route["pending"]), str(route["dead_letters"])]
        add_row(rows, route["route"], route["sink"] or "–", route["order"] or "–", state, *numbers)
    out.print(rows, "")
    _show_lanes(out, routes)
    for route in routes:
        _show_advice(out, route)


def _show_lanes(out: Console, routes: list[dict[str, Any]]) -> None:
    rows = table(_("STREAM"), _("FOR"), _("RECORDS"), _("DONE TO"), _("PENDING"))
    for route in routes:
        for lane in route["lanes"]:
            upto = _("new ones") if lane["last_seq"] is None else str(lane["last_seq"])
            numbers = [f"{lane['first_seq']} … {upto}", str(lane["done_seq"]), str(lane["pending"])]
            add_row(rows, lane["stream"], _purpose(lane), *numbers)
    if rows.row_count:
        out.print(rows, "")


def _purpose(lane: dict[str, Any]) -> str:
    if lane["purpose"] == "retry":
        return _("dead letters once more")
    if lane["purpose"] == "replay":
        asked = f" ({lane['request']})" if lane["request"] else ""
        return _("a range once more") + asked
    return _("what is new") if lane["last_seq"] is None else _("backlog")


def _show_advice(out: Console, route: dict[str, Any]) -> None:
    name = route["route"]
    if route["last_error"]:
        say(out, f"{name}: {translate(route['last_error'])}", "yellow")
        if route["hint"]:
            say(out, f"  → {translate(route['hint'])}")
    if not route["attached"]:
        say(out, _("{route} is no longer in the configuration; what it has pending is kept").format(route=name))
        text = _('put it back, or give it up: edge-agent route drop {route} --reason "…"')
        say(out, "  → " + text.format(route=name))
    if route["dead_letters"]:
        text = ngettext("{route} has {count} dead letter", "{route} has {count} dead letters", route["dead_letters"])
        say(out, text.format(route=name, count=route["dead_letters"]))
        say(out, f"  → edge-agent deadletter list {name}")


def _show_streams(out: Console, lanes: list[dict[str, Any]]) -> None:
    for lane in lanes:
        text = _("  in stream {stream}: records {first} to {last}")
        say(out, text.format(stream=lane["stream"], first=lane["first_seq"], last=lane["last_seq"]))
