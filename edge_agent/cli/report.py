"""`edge-agent report shift`: what each station did in a shift, from the registry; running or stopped.

The same times give the same figures, so a report can be printed again. `time to trace` is measured: how long it takes
to trace the newest unit, on this machine, now.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edge_agent.cli import UsageProblem
from edge_agent.cli.datadir import DataDir, data_dir_of, open_archive
from edge_agent.cli.instants import instant_ns
from edge_agent.cli.output import AsJson, add_row, console, emit_json, instants_as_text, local_time, say, span, table
from edge_agent.i18n import _

if TYPE_CHECKING:
    from edge_agent.buffer.shift import Shift, StationShift

HOURS = 8.0
_OF_OTHERS = ("gaps", "gap_s", "findings", "unacknowledged")

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Sum up what the line did."))


@command.callback()
def verbs() -> None:
    """Typer makes a group of a single verb only with this."""


@command.command(help=_("Sum up a shift: units, first-pass yield, gaps, findings, time to trace."))
def shift(
    ctx: typer.Context,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help=_("from when: 8h, 06:00, or a date and time"))
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help=_("until when; default: now"))] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", min=0.01, help=_("how long before --until, instead of --since"))
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Figures by station."""
    if since is not None and hours is not None:
        raise UsageProblem("--since and --hours say the same thing", hint="give one of them")
    until_ns = time.time_ns() if until is None else instant_ns(until, "--until")
    since_ns = until_ns - round((hours or HOURS) * 3600e9) if since is None else instant_ns(since, "--since")
    if since_ns >= until_ns:
        raise UsageProblem("--since is not before --until", hint="edge-agent report shift --since 06:00 --until 14:00")
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        found = archive.shift(since_ns, until_ns)
        began_s = time.perf_counter()
        if found.newest is not None:
            archive.trace(found.newest)
        traced_s = None if found.newest is None else time.perf_counter() - began_s
    if as_json:
        emit_json(_as_json(found, traced_s))
    else:
        _show(console(), found, traced_s)


def _as_json(found: Shift, traced_s: float | None) -> dict[str, Any]:
    stations = [asdict(one) | {"first_pass_yield_pct": one.first_pass_yield} for one in found.stations]
    traced_ms = None if traced_s is None else round(traced_s * 1000, 3)
    others = [{"source": one.station} | {key: getattr(one, key) for key in _OF_OTHERS} for one in found.others]
    told = {"since_ns": found.since_ns, "until_ns": found.until_ns, "stations": stations, "others": others}
    shown: dict[str, Any] = instants_as_text(told | {"time_to_trace_ms": traced_ms, "traced": found.newest})
    return shown


def _show(out: Console, found: Shift, traced_s: float | None) -> None:
    text = _("shift from {since} to {until}")
    say(out, text.format(since=local_time(found.since_ns), until=local_time(found.until_ns)), "bold")
    if not found.stations and not found.others:
        say(out, _("nothing was recorded in this time"))
    else:
        if found.stations:
            _show_work(out, found)
        _show_trouble(out, found)
    if traced_s is not None:
        say(out, "\n" + _("time to trace {serial}: {time}").format(serial=found.newest, time=span(traced_s)))


def _show_work(out: Console, found: Shift) -> None:
    rows = table(
        _("STATION"), _("UNITS"), _("CYCLES"), _("FIRST PASS"), _("RESULTS"), _("INCOMPLETE"), _("SUSPECT"),
        _("UNDECIDED"), _("BLOCKED"), _("OVERRIDDEN"),
    )  # fmt: skip
    for one in found.stations:
        first = (
            "–" if one.first_pass_yield is None else f"{one.first_pass_yield:.1f} % ({one.first_passed}/{one.first})"
        )
        add_row(
            rows, one.station, str(one.units), str(one.cycles), first, _counts(one.results), _some(one.incomplete),
            _some(one.suspect), _counts(one.undecided), _some(one.blocked), _some(one.overridden),
        )  # fmt: skip
    out.print(rows)


def _show_trouble(out: Console, found: Shift) -> None:
    troubled = [one for one in (*found.stations, *found.others) if one.findings]
    if not troubled:
        say(out, "\n" + _("no findings"), "green")
        return
    say(out, "\n" + _("findings (not acknowledged):"))
    rows = table(_("STATION, DEVICE"), _("FINDINGS"), _("NOT OBSERVED"))
    for one in troubled:
        add_row(rows, one.station, _findings(one), f"{one.gaps} × {span(one.gap_s)}" if one.gaps else "")
    out.print(rows)


def _findings(one: StationShift) -> str:
    return ", ".join(f"{code} {count} ({one.unacknowledged.get(code, 0)})" for code, count in one.findings.items())


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{_(name)} {count}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def _some(count: int) -> str:
    return str(count) if count else ""
