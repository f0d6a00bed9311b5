"""`edge-agent deadletter`: records that a sink or a receiver refused. See them, see why, send them once more, export.

`list`, `show` and `export` read the buffer itself, whether the agent runs or not; `retry` is done by the running agent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console

from edge_agent.cli import ExitCode, UsageProblem
from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent, open_archive
from edge_agent.cli.output import AsJson, add_row, console, emit_json, instants_as_text, local_time, say, table
from edge_agent.errors import StorageError
from edge_agent.i18n import _, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.buffer.letters import DeadLetter
    from edge_agent.buffer.trace import Archive

SHOWN = 200  # rows of the table for people; `--json` and `export` have all

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Look at refused records, retry, export."))

Route = Annotated[str, typer.Argument(metavar="ROUTE", help=_("the route, as the configuration names it"))]
AnyRoute = Annotated[str | None, typer.Argument(metavar="ROUTE", help=_("only of this route"))]
All = Annotated[bool, typer.Option("--all", help=_("those that were retried, too"))]


@command.command("list", help=_("Show the records that were refused, by whom, when and why."))
def list_(
    ctx: typer.Context,
    route: AnyRoute = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help=_("only those whose reason contains this"))] = "",
    all_: All = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Oldest first; of many, the newest for people."""
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        found = archive.dead_letters(route, reason=reason, retried=all_)
        if not found:
            _must_be_known(archive, route)
    if as_json:
        emit_json({"dead_letters": [_told(letter) for letter in found]})
    else:
        _show_list(console(), found)


@command.command(help=_("Show one refused record: its body, why it was refused and when, and what to do."))
def show(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help=_("as `deadletter list` prints it: log-seq"))],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Every refusal of that record, retried ones too."""
    _log, _dash, seq = id_.partition("-")
    if not seq.isdecimal():
        raise UsageProblem(f"{id_!r} is no id of a dead letter", hint="see which there are: edge-agent deadletter list")
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        found = [letter for letter in archive.dead_letters(seq=int(seq), retried=True) if letter.id == id_]
    if as_json:
        emit_json({"dead_letters": [_told(letter) for letter in found]})
    elif found:
        _show_one(console(), found)
    else:
        typer.echo(_("no dead letter is {id}").format(id=id_), err=True)
        typer.echo("  → " + _("see which there are: edge-agent deadletter list --all"), err=True)
    if not found:
        raise typer.Exit(ExitCode.PROBLEM)


@command.command(help=_("Send refused records once more; refused again, a new dead letter stands."))
def retry(
    ctx: typer.Context,
    route: Route,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help=_("which; see `deadletter list`"))] = None,
    all_: Annotated[bool, typer.Option("--all", help=_("all that stand"))] = False,
    reason_contains: Annotated[str, typer.Option(metavar="TEXT", help=_("only those whose reason contains this"))] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Ask the agent for a lane of just these records."""
    if ids and (all_ or reason_contains):
        raise UsageProblem("name dead letters, or say which with an option; not both", hint="leave one of them out")
    if bool(ids) == (all_ or bool(reason_contains)):
        hint = f"edge-agent deadletter retry {route} ID, or {route} --all, or {route} --reason-contains TEXT"
        raise UsageProblem("say which dead letters", hint=hint)
    typed = " ".join(ids or []) or f"--all --reason-contains {reason_contains!r}"
    answer = must_ask_agent(
        ctx, data_dir_of(ctx, data_dir), "deadletter_retry",
        route=route, ids=ids or None, reason_contains=reason_contains, typed=typed[:500],
    )  # fmt: skip
    if as_json:
        emit_json(answer)
    else:
        _show_retry(console(), route, answer)


@command.command(help=_("Write a route's refused records into a file, a JSON object a line."))
def export(
    ctx: typer.Context,
    route: Route,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help=_("a new file; nothing is overwritten"))],
    all_: All = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The file is complete and on the disk when this returns."""
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        _must_be_known(archive, route)
        count = _write(to, archive.each_dead_letter(route, retried=all_))
    if as_json:
        emit_json({"route": route, "to": str(to), "records": count})
        return
    text = ngettext("{count} record written to {file}", "{count} records written to {file}", count)
    say(console(), text.format(count=count, file=to))


def _must_be_known(archive: Archive, route: str | None) -> None:
    """Raises UsageProblem: a misspelled route has no dead letters either, but that is no good news."""
    if route is not None and route not in {known.route for known in archive.routes()}:
        raise UsageProblem(f"no route is named {route}", hint="see which there are: edge-agent route list")


def _write(path: Path, letters: Iterator[DeadLetter]) -> int:
    """Raises UsageProblem if the file is there, StorageError if it cannot be written."""
    count = 0
    try:
        with path.open("xb") as file:
            for letter in letters:
                file.write(orjson.dumps(_told(letter)) + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UsageProblem(f"{path} is there already", hint="name another file: --to FILE") from error
    except OSError as error:
        hint = f"see ls -ld {path.parent} and df -h {path.parent}, then name another file"
        raise StorageError(f"{path} cannot be written: {error.strerror}", hint=hint) from error
    return count


def _told(letter: DeadLetter) -> dict[str, Any]:
    told: dict[str, Any] = instants_as_text({key: value for key, value in asdict(letter).items() if key != "body"})
    return told | {"body": letter.body}  # as it was sent


def _show_list(out: Console, found: list[DeadLetter]) -> None:
    if not found:
        say(out, _("no dead letters"), "green")
        return
    if len(found) > SHOWN:
        say(out, _("the newest {shown} of {count}:").format(shown=SHOWN, count=len(found)))
    rows = table("ID", _("ROUTE"), _("KIND"), _("ABOUT"), _("REFUSED"), _("REASON"))
    for letter in found[-SHOWN:]:
        reason = translate(letter.reason)
        if letter.retried_at_ns is not None:
            reason += f" ({_('retried {when}').format(when=local_time(letter.retried_at_ns))})"
        kind, source = _(letter.kind) if letter.kind else _("no longer kept"), letter.source or "–"
        add_row(rows, letter.id, letter.route, kind, source, local_time(letter.refused_at_ns), reason)
    out.print(rows, "")
    say(out, "  → " + _("one of them: edge-agent deadletter show ID"))
    standing = next((letter for letter in found if letter.retried_at_ns is None), None)
    if standing is not None:
        say(out, "  → " + _("once the cause is mended: edge-agent deadletter retry {route} --all").format(
            route=standing.route))  # fmt: skip


def _show_one(out: Console, found: list[DeadLetter]) -> None:
    first = found[0]
    rows = table("", "")
    rows.show_header = False
    add_row(rows, _("record"), f"{first.id}  {_(first.kind) if first.kind else _('no longer kept')}")
    add_row(rows, _("about"), first.source or "–")
    add_row(rows, _("recorded"), local_time(first.at_ns))
    for letter in found:
        add_row(rows, _("refused"), f"{local_time(letter.refused_at_ns)}  {letter.route}: {translate(letter.reason)}")
        if letter.retried_at_ns is not None:
            add_row(rows, _("retried"), local_time(letter.retried_at_ns))
    out.print(rows, "")
    if first.body is not None:
        say(out, orjson.dumps(first.body, option=orjson.OPT_INDENT_2).decode() + "\n")
    for letter in found:
        if letter.retried_at_ns is None and letter.kind is not None:
            text = _("once the cause is mended: edge-agent deadletter retry {route} {id}")
            say(out, "  → " + text.format(route=letter.route, id=letter.id))


def _show_retry(out: Console, route: str, answer: dict[str, Any]) -> None:
    text = ngettext("{count} record goes to {route} once more", "{count} records go to {route} once more",
                    answer["records"])  # fmt: skip
    say(out, text.format(count=answer["records"], route=route))
    if answer["no_longer_kept"]:
        text = ngettext("{count} is no longer kept", "{count} are no longer kept", answer["no_longer_kept"])
        say(out, text.format(count=answer["no_longer_kept"]), "yellow")
    if answer["left"]:
        text = _("{count} more stand: type the same again when these are through").format(count=answer["left"])
        say(out, f"  → {text}")
    say(out, "  → " + _("see what became of them: edge-agent deadletter list {route}").format(route=route))
