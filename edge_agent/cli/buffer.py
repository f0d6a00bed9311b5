"""`edge-agent buffer`: verbs about the buffer itself. `stats`: how full, what is pending, how long it lasts."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import typer
from rich.console import Console

from edge_agent.cli import Globals
from edge_agent.cli.datadir import DataDir, ask_agent, data_dir_of, open_archive
from edge_agent.cli.output import (
    AsJson,
    add_row,
    console,
    emit_json,
    instants_as_text,
    local_time,
    say,
    size,
    span,
    table,
)
from edge_agent.errors import ConfigError
from edge_agent.i18n import _

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Look at the buffer."))


@command.callback()
def _verbs() -> None:
    """Makes `stats` a verb of its own, although it is the only one yet."""


@command.command(help=_("Show rows, bytes, what is pending by route, and the hours left at the present rate."))
def stats(ctx: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """The figures come from the running agent, which knows the rate, or from the stopped one's buffer."""
    path = data_dir_of(ctx, data_dir)
    status = ask_agent(path, "status")
    facts: dict[str, Any]
    if status is not None:
        facts = {"agent_running": True} | status["buffer"]
    else:
        with closing(open_archive(path)) as archive:
            facts = {"agent_running": False} | archive.stats(_settings(ctx))
    if as_json:
        emit_json(instants_as_text(facts))
    else:
        _show(console(), facts)


def _settings(ctx: typer.Context) -> Any:
    """The config's buffer section, for the limit; None while the config has mistakes."""
    from edge_agent.config import load

    try:
        return load(Globals.of(ctx).config).buffer
    except ConfigError:
        return None


def _show(out: Console, facts: dict[str, Any]) -> None:
    rows = table("", "")
    rows.show_header = False
    add_row(rows, _("records"), f"{facts['rows']} ({facts['first_seq']} … {facts['last_seq']})")
    if facts["rows"]:
        add_row(rows, _("from"), local_time(facts["oldest_at_ns"]))
        add_row(rows, _("to"), local_time(facts["newest_at_ns"]))
    add_row(rows, _("size"), _("{bytes} on disk, {used} in use").format(
        bytes=size(facts["bytes"]), used=size(facts["used_bytes"])))  # fmt: skip
    add_row(rows, _("limit"), _("{limit}, {free} free on the disk").format(
        limit=size(facts["limit_bytes"]), free=size(facts["free_disk_bytes"])))  # fmt: skip
    rate = facts["bytes_per_hour"]
    add_row(rows, _("rate"), _("unknown while the agent is stopped") if rate is None else f"{size(rate)}/h")
    hours = facts["hours_left"]
    add_row(rows, _("time left"), "–" if hours is None else f"{hours:.1f} h" if hours < 48 else span(hours * 3600))
    out.print(rows, "")
    routes = table(_("ROUTE"), _("PENDING"), _("DEAD LETTERS"), "")
    for name, pending in facts["pending"].items():
        detached = "" if facts["attached"].get(name, True) else _("no longer in the configuration")
        add_row(routes, name, str(pending), str(facts["dead_letters"].get(name, 0)), detached)
    if facts["pending"]:
        out.print(routes)
    else:
        say(out, _("no route has used this buffer yet"))
