"""`edge-agent buffer`: verbs about the buffer itself. `stats`: how full, what is pending, how long it lasts.
`verify`: is it what was written, by itself and against what a receiver has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edge_agent.cli import ExitCode, Globals, Unavailable
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
from edge_agent.errors import ConfigError, StorageError
from edge_agent.i18n import _, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.buffer.ledger import Progress, Verdict

SHOWN = 50  # damages that people are shown; `--json` has up to a thousand

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Look at the buffer."))


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


@command.command(help=_("Verify that the buffer is what was written; exit 65 if it is not."))
def verify(
    ctx: typer.Context,
    against: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help=_("a receiver's SQLite file, or JSON Lines of checkpoints or records")),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Structure, density, the chain of hashes, lanes, witness; reads every record, beside a running agent too."""
    from edge_agent.buffer.verify import verify_dir

    path = data_dir_of(ctx, data_dir)
    try:
        with _bar() as progress:
            verdict = verify_dir(path, against, progress)
    except StorageError as error:
        raise Unavailable(str(error.args[0]), hint=error.hint) from error
    if as_json:
        emit_json(_told(path, verdict))
    else:
        _show_verdict(console(), path, verdict)
    if not verdict.intact:
        raise typer.Exit(ExitCode.DAMAGED)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A bar on the terminal, if stderr is one."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    names = {"structure": _("structure"), "ledger": _("ledger"), "against": _("against the receiver")}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    err = Console(stderr=True)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("")

        def tell(part: str, done: int, total: int) -> None:
            bar.update(task, description=names[part], completed=done, total=total or None)

        yield tell


def _told(path: Path, verdict: Verdict) -> dict[str, Any]:
    return {
        "intact": verdict.intact,
        "data_dir": str(path),
        "records": verdict.records,
        "first_seq": verdict.first_seq,
        "head_seq": verdict.head_seq,
        "head_hash": verdict.head_hash.hex(),
        "gaps": {reason: {"ranges": ranges, "seqs": seqs} for reason, (ranges, seqs) in verdict.gaps.items()},
        "unlinked": verdict.unlinked,
        "checkpoints": verdict.checkpoints,
        "counts": dict(verdict.counts),
        "damages": [asdict(damage) for damage in verdict.damages],
        "against": verdict.against,
    }


def _show_verdict(out: Console, path: Path, verdict: Verdict) -> None:
    say(out, f"{_('OK') if verdict.intact else _('DAMAGED')}  ", "bold green" if verdict.intact else "bold red", end="")
    text = ngettext("{count} record ({first} … {last})", "{count} records ({first} … {last})", verdict.records)
    say(out, text.format(count=verdict.records, first=verdict.first_seq, last=verdict.head_seq))
    say(out, _("chain up to {seq}: {hash}").format(seq=verdict.head_seq, hash=verdict.head_hash.hex()))
    for reason, (ranges, seqs) in verdict.gaps.items():
        text = ngettext("{seqs} seqs in {ranges} range are not there any more: {reason}",
                        "{seqs} seqs in {ranges} ranges are not there any more: {reason}", ranges)  # fmt: skip
        say(out, text.format(seqs=seqs, ranges=ranges, reason=_(reason)))
    if verdict.unlinked:
        text = _("{count} of these were lost with their hash: what follows cannot be tied to what was before")
        say(out, text.format(count=verdict.unlinked), "yellow")
    if verdict.against is not None:
        text = _("the receiver: {records} records and {checkpoints} checkpoints agree, {gone} are no longer kept here")
        say(out, text.format(
            records=verdict.against["records"], checkpoints=verdict.against["checkpoints"],
            gone=verdict.against["no_longer_kept"]))  # fmt: skip
    for damage in verdict.damages[:SHOWN]:
        say(out, translate(damage.text), "red")
    if (more := sum(verdict.counts.values()) - SHOWN) > 0:
        say(out, _("and {count} more: --json lists them").format(count=more), "red")
    if not verdict.intact:
        say(out, "\n  → " + _advice(path, verdict))


_DONE_BY_SOMEBODY = {"broken_link", "checkpoint", "edited", "removed", "inserted", "moved", "fork"}


def _advice(path: Path, verdict: Verdict) -> str:
    """What to do about it."""
    if path.name.startswith("damaged-"):
        return _("this one is set aside already; what was readable is in the data_dir above it")
    if verdict.counts.keys() & {"unreadable", "structure"} and not verdict.counts.keys() & _DONE_BY_SOMEBODY:
        text = _("touch {mark}, then restart the agent: it sets the file aside and takes over what is readable")
        return text.format(mark=path / "suspect")
    return _("nobody but the agent may write here: keep a copy of the directory, and see who had access to it")


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
    add_row(rows, _("time left"), "–" if hours is None else f"{hours:.1f} h" if 2 <= hours < 48 else span(hours * 3600))
    out.print(rows, "")
    routes = table(_("ROUTE"), _("PENDING"), _("DEAD LETTERS"), "")
    for name, pending in facts["pending"].items():
        detached = "" if facts["attached"].get(name, True) else _("no longer in the configuration")
        add_row(routes, name, str(pending), str(facts["dead_letters"].get(name, 0)), detached)
    if facts["pending"]:
        out.print(routes)
    else:
        say(out, _("no route has used this buffer yet"))
