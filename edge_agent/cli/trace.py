"""`edge-agent trace SERIAL`: everything that is known of one unit, readable; or where a lot went.

Cycles in their order; in each, which rule bound it on what evidence, what was collected against which limits, what was
found wrong, in which context. Reads the buffer itself, so it works while the agent runs and when it is stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from edge_agent.cli import ExitCode, UsageProblem, lineage
from edge_agent.cli.datadir import DataDir, data_dir_of, open_archive
from edge_agent.cli.output import (
    AsJson,
    add_row,
    console,
    emit_json,
    instants_as_text,
    local_time,
    plain,
    say,
    span,
    table,
)
from edge_agent.i18n import _, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.buffer import Archive
    from edge_agent.buffer.evidence import Evidence
    from edge_agent.buffer.trace import Binding, Cycle, Finding, Unit

Serial = Annotated[str | None, typer.Argument(metavar="SERIAL", help=_("serial or another identifier of the unit"))]
Readings = Annotated[bool, typer.Option("--readings", help=_("print every reading, too"))]

_RESULT_STYLE = {"Passed": "green", "Failed": "red", "Error": "red", "Aborted": "yellow", "Skipped": "yellow"}
_STATE_STYLE = {"bound": "green", "pending": "yellow", "ambiguous": "yellow", "orphan": "yellow"}
_JUDGEMENT_STYLE = {"ok": "green", "low": "red", "high": "red", "missing": "red", "bad": "red"}


def command(
    ctx: typer.Context,
    serial: Serial = None,
    readings: Readings = False,
    tree: Annotated[bool, typer.Option("--tree", help=_("what is in it and what it is in, at any depth"))] = False,
    lot: Annotated[str | None, typer.Option("--lot", metavar="LOT", help=_("which units contain this lot"))] = None,
    package: Annotated[
        str | None,
        typer.Option("--package", metavar="PACKAGE", help=_("which units contain this package, e.g. a reel")),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a unit's whole history: cycles, bindings with their evidence, values, findings."""
    from edge_agent.buffer.evidence import similar_serials

    asked = [(kind, value) for kind, value in (("serial", serial), ("lot", lot), ("package", package)) if value]
    if len(asked) != 1:
        raise UsageProblem("say what to trace", hint="edge-agent trace SERIAL, or --lot LOT, or --package PACKAGE")
    if serial is None:
        with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
            if not lineage.show_forward(None if as_json else console(), archive, *asked[0]):
                raise typer.Exit(ExitCode.PROBLEM)
        return
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        units = archive.trace(serial, readings=readings)
        near = [] if units else similar_serials(archive, serial)
        if as_json:
            shown = [collect(archive, unit) | (_tree(archive, unit) if tree else {}) for unit in units]
            emit_json({"serial": serial, "units": shown, "similar": near})
        elif units:
            out = console()
            for unit in units:
                if tree:
                    lineage.show_tree(out, unit, archive.tree(unit.unit))
                else:
                    _show(out, archive, unit)
        else:
            _unknown(serial, near)
    if not units:
        raise typer.Exit(ExitCode.PROBLEM)


def collect(archive: Archive, unit: Unit) -> dict[str, Any]:
    """One unit as `--json` prints it: the archive's fields, instants as decimal strings, and undecided cycles."""
    from edge_agent.buffer.evidence import undecided_cycles

    names = ("cycle", "station", "position", "opened_at_ns", "binding_state", "reason")
    undecided = [dict(zip(names, row, strict=True)) for row in undecided_cycles(archive, unit.unit)]
    found: dict[str, Any] = instants_as_text(asdict(unit) | {"undecided": undecided})
    return found


def _tree(archive: Archive, unit: Unit) -> dict[str, Any]:
    found: dict[str, Any] = {"tree": instants_as_text(asdict(archive.tree(unit.unit)))}
    return found


def _unknown(serial: str, near: list[str]) -> None:
    typer.echo(_("no unit is known by {serial}").format(serial=repr(serial)), err=True)
    if near:
        typer.echo("  → " + _("did you mean {serials}?").format(serials=", ".join(near)), err=True)
    else:
        typer.echo(
            "  → " + _("a unit is known once it was scanned or named by a PLC at this agent's stations"), err=True
        )


# --- for people ----------------------------------------------------------------------------------------------


def _show(out: Console, archive: Archive, unit: Unit) -> None:
    from edge_agent.buffer.evidence import undecided_cycles

    say(out, Text.assemble((plain(unit.serial or "?"), "bold"), f"  {_('unit')} {unit.unit}"))
    say(out, _("first seen {when}").format(when=local_time(unit.seen_at_ns)))
    others = [one for one in unit.identifiers if one.value != unit.serial]
    for identifier in others:
        gone = f" ({_('until replaced')})" if identifier.removed else ""
        place = "" if identifier.position is None else f", {_('position')} {identifier.position}"
        say(out, f"{_(identifier.kind)}: {identifier.value}{place}{gone}")
    lineage.show_around(out, unit)
    for cycle in unit.cycles:
        say(out)
        _show_cycle(out, archive, cycle)
    if unit.findings:
        say(out, "\n" + _("findings that name it, of no cycle of it:"))
        _show_findings(out, unit.findings)
    for cycle_id, station, position, opened_at_ns, state, reason in undecided_cycles(archive, unit.unit):
        text = _("perhaps also: {place} at {when}, {state}: {reason} (cycle {cycle})")
        place, when = f"{station}.{position}", local_time(opened_at_ns)
        told = text.format(place=place, when=when, state=_(state), reason=translate(reason) or "–", cycle=cycle_id)
        say(out, f"\n{told}", "yellow")
    say(out)


def _show_cycle(out: Console, archive: Archive, cycle: Cycle) -> None:
    head = Text.assemble((f"{cycle.station}.{cycle.position}", "bold"), f"  {cycle.step}")
    if cycle.attempt is not None and cycle.attempt > 1:
        head.append("  " + _("attempt {number}").format(number=cycle.attempt))
    if cycle.result:
        head.append("  ").append(_(cycle.result), _RESULT_STYLE.get(cycle.result, ""))
    if cycle.complete is False:
        head.append("  ").append(_("incomplete"), "red")
    if not cycle.current:
        head.append("  ").append(_("no longer this unit's"), "yellow")
    say(out, head)
    _line(out, _("time"), Text(_times(cycle)))
    for binding in cycle.bindings:
        _line(out, _("binding"), _binding(archive, binding))
    if cycle.context:
        _line(out, _("context"), Text(plain(", ".join(_context(cycle.context)))))
    if cycle.materials:
        _line(out, _("materials"), Text(plain(lineage.material_line(cycle.materials))))
    if cycle.defects:
        _line(out, _("defects"), Text(plain(", ".join(str(code) for code in cycle.defects)), "red"))
    if cycle.suspect:
        _line(out, _("suspect"), Text(plain("; ".join(translate(str(why)) for why in cycle.suspect)), "yellow"))
    if cycle.missing:
        _line(out, _("missing"), Text(", ".join(str(name) for name in cycle.missing), "red"))
    _show_collected(out, cycle)
    _show_findings(out, cycle.findings)
    count = sum(tag.count for tag in cycle.tags)
    text = ngettext("{count} reading of {tags} tags", "{count} readings of {tags} tags", count)
    _line(out, _("readings"), Text(text.format(count=count, tags=len(cycle.tags))))
    _show_readings(out, cycle)


def _line(out: Console, label: str, text: Text) -> None:
    """A labelled line below a cycle's head; what does not fit goes on below itself."""
    rows = table("", "")
    rows.show_header = False
    rows.columns[0].min_width = 10
    rows.columns[0].no_wrap = True
    rows.columns[0].style = "dim"
    add_row(rows, label, text)
    out.print(Padding(rows, (0, 0, 0, 2), expand=False))


def _times(cycle: Cycle) -> str:
    opened = local_time(cycle.opened_at_ns)
    how = {"scan": _("by a scan"), "ready": _("by ready"), "edge": _("by an edge"), "level": _("by a level")}
    start = f"{opened} ({how.get(cycle.opened_by, cycle.opened_by)})"
    if cycle.ended_at_ns is None:
        return f"{start} … {_(cycle.state)}"
    took = span((cycle.ended_at_ns - cycle.opened_at_ns) / 1e9)
    return f"{start} … {local_time(cycle.ended_at_ns)} ({_(cycle.closed_by or '')}), {took}"


def _binding(archive: Archive, binding: Binding) -> Text:
    from edge_agent.buffer.evidence import records

    text = Text.assemble((_(binding.state), _STATE_STYLE.get(binding.state, "dim")))
    if binding.serial and binding.state in ("bound", "superseded"):
        text.append(plain(f" → {binding.serial}"))
    if binding.rule:
        text.append("  " + _("rule {rule}").format(rule=binding.rule))
    if binding.reason:
        text.append(plain(f"  ({translate(binding.reason)})"))
    if binding.by:
        text.append("  " + _("by {who}").format(who=binding.by))
    shown = [_evidence(one) for one in records(archive, (seq for seq in binding.evidence if isinstance(seq, int)))]
    if shown:
        text.append("\n" + _("evidence: {list}").format(list="; ".join(shown)), "dim")
    candidates = [
        str(one.get("serial") or one.get("unit")) if isinstance(one, Mapping) else str(one)
        for one in binding.candidates
    ]
    if candidates:
        text.append("\n" + _("candidates: {list}").format(list=plain(", ".join(candidates))), "dim")
    return text


def _evidence(record: Evidence) -> str:
    if record.kind is None:
        return _("record {seq} (no longer kept)").format(seq=record.seq)
    what = f"{_(record.kind)} {record.source}" + (f" {record.text!r}" if record.text else "")
    return f"{what} {local_time(record.at_ns, date=False)} [{record.seq}]"


def _context(context: Mapping[str, Any]) -> Iterable[str]:
    for name, item in context.items():
        stale = f" ({_('stale')})" if item.get("stale") else ""
        yield f"{name} {item.get('value')}{stale}"


def _show_collected(out: Console, cycle: Cycle) -> None:
    if not cycle.collected:
        return
    rows = table(_("VALUE"), "", "", _("LIMITS"), "")
    rows.columns[1].justify = "right"
    for item in cycle.collected:
        judgement = str(item.get("judgement", ""))
        value = item.get("value")
        add_row(
            rows,
            str(item.get("name")),
            "–" if value is None else _number(value),
            str(item.get("unit") or ""),
            _limits(item.get("low"), item.get("high")),
            Text(_(judgement), _JUDGEMENT_STYLE.get(judgement, "dim")),
        )
    out.print(Padding(rows, (0, 0, 0, 4), expand=False))


def _limits(low: Any, high: Any) -> str:
    if low is None and high is None:
        return "–"
    return f"{'…' if low is None else _number(low)} – {'…' if high is None else _number(high)}"


def _number(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _show_findings(out: Console, findings: Iterable[Finding]) -> None:
    for finding in findings:
        text = Text.assemble((finding.code, "red" if finding.severity == "error" else "yellow"))
        text.append(plain(f"  {translate(finding.text)}  {local_time(finding.at_ns, date=False)}"))
        if finding.acknowledged_at_ns is not None:
            told = _("acknowledged by {who}: {reason}")
            who, why = finding.acknowledged_by, finding.acknowledged_reason
            text.append(plain(f"  ({told.format(who=who, reason=why)})"), "dim")
        _line(out, _("finding"), text)


def _show_readings(out: Console, cycle: Cycle) -> None:
    if not cycle.readings:
        return
    rows = table(_("TIME"), _("TAG"), _("VALUE"), "", _("STATUS"), "seq")
    for reading in cycle.readings:
        value = "–" if reading.value is None else _number(reading.value)
        when = local_time(reading.at_ns, date=False)
        add_row(rows, when, reading.tag, value, reading.unit, reading.status or "", str(reading.seq))
    out.print(Padding(rows, (0, 0, 0, 4), expand=False))
