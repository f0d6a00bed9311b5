"""`edge-agent findings`: what the data says is wrong, and who has looked at it.

`list` reads the buffer itself, whether the agent runs or not; `ack` is done by the running agent, with who and why.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from edge_agent.cli import UsageProblem
from edge_agent.cli.bind import Reason
from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent, open_archive
from edge_agent.cli.instants import instant_ns
from edge_agent.cli.output import AsJson, add_row, console, emit_json, instants_as_text, local_time, say, table
from edge_agent.cli.unbound import Since
from edge_agent.i18n import _, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.buffer.found import Found

SHOWN = 200
AT_ONCE = 200
_STYLE = {"error": "red", "warning": "yellow", "info": ""}

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("See what is wrong, say who looked at it."))

Code = Annotated[str | None, typer.Option("--code", metavar="CODE", help=_("only of this code, e.g. skipped_scan"))]


@command.command("list", help=_("Show the findings that nobody acknowledged, newest first."))
def list_(
    ctx: typer.Context,
    since: Since = "24h",
    code: Code = None,
    all_: Annotated[bool, typer.Option("--all", help=_("acknowledged ones, too"))] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Of many, the newest for people."""
    _must_be_known(code)
    since_ns = instant_ns(since, "--since")
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        found, count = archive.findings(since_ns=since_ns, code=code, all_=all_, limit=100_000 if as_json else SHOWN)
    if as_json:
        emit_json({"count": count, "findings": [instants_as_text(asdict(one)) for one in found]})
    else:
        _show(console(), found, count)


@command.command(help=_("Say that findings were looked at, and what came of it."))
def ack(
    ctx: typer.Context,
    reason: Reason,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help=_("which; see `findings list`"))] = None,
    code: Code = None,
    since: Since = "24h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the agent to record it, one by one."""
    if bool(ids) == bool(code):
        raise UsageProblem("say which findings", hint="edge-agent findings ack ID --reason TEXT, or --code CODE")
    _must_be_known(code)
    path = data_dir_of(ctx, data_dir)
    chosen = ids or []
    if code:
        with closing(open_archive(path)) as archive:
            found, _count = archive.findings(
                since_ns=instant_ns(since, "--since"), code=code, all_=False, limit=100_000
            )
        chosen = [one.id for one in found]
        if not chosen:
            raise UsageProblem(f"no finding {code} stands", hint="see which there are: edge-agent findings list")
    done = 0
    for begin in range(0, len(chosen), AT_ONCE):
        part = chosen[begin : begin + AT_ONCE]
        done += must_ask_agent(ctx, path, "findings_ack", findings=part, reason=reason)["acknowledged"]
    if as_json:
        emit_json({"acknowledged": done})
    else:
        text = ngettext("{count} finding acknowledged", "{count} findings acknowledged", done)
        say(console(), text.format(count=done), "green")


def _must_be_known(code: str | None) -> None:
    """A misspelt code finds nothing, which would look like good news."""
    from edge_agent.binding.findings import SEVERITY
    from edge_agent.config.report import nearest

    if code is not None and code not in SEVERITY:
        raise UsageProblem(f"no finding has the code {code!r}", hint=nearest(code, SEVERITY))


def _show(out: Console, found: list[Found], count: int) -> None:
    if not found:
        say(out, _("no findings"), "green")
        return
    if count > len(found):
        say(out, _("the newest {shown} of {count}:").format(shown=len(found), count=count))
    rows = table("ID", _("WHEN"), _("CODE"), _("ABOUT"), _("FINDING"))
    for one in found:
        text = translate(one.text)
        if one.acknowledged_at_ns is not None:
            text += f" ({one.acknowledged_by}: {one.acknowledged_reason})"
        about = one.serial or one.source
        add_row(rows, one.id, local_time(one.at_ns), one.code, about, text)
    out.print(rows, "")
    say(out, "  → " + _("once somebody has looked: edge-agent findings ack ID --reason TEXT"))
