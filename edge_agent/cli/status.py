"""`edge-agent status`: one glance. Does it run, what is at each station, who receives it, how long can it last.

The running agent answers over its control socket; of a stopped one the buffer tells what is pending and since when.
DEGRADED is what a technician should look at: a device or route that is not connected, dead letters, a buffer in
trouble. Exit 0 OK, 1 DEGRADED, 69 DOWN.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from edge_agent.cli import ExitCode, Unavailable
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
from edge_agent.errors import EdgeAgentError
from edge_agent.i18n import _, ngettext, translate

HOURS_LEFT_LOW = 4.0  # less than half a shift
_WORD_STYLE = {"OK": "bold green", "DEGRADED": "bold yellow", "DOWN": "bold red"}
_GOOD_STATES = ("connected", "stopped")


def command(ctx: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show at one glance whether the line is traced: devices, stations, routes, buffer."""
    path = data_dir_of(ctx, data_dir)
    status = ask_agent(path, "status")
    facts = collect_stopped(path) if status is None else collect_running(status)
    if as_json:
        emit_json(instants_as_text(facts))
    elif status is None:
        _show_stopped(console(), facts)
    else:
        _show_running(console(), facts)
    code = {"OK": ExitCode.OK, "DEGRADED": ExitCode.PROBLEM}.get(facts["overall"], ExitCode.UNAVAILABLE)
    if code != ExitCode.OK:
        raise typer.Exit(code)


def collect_running(status: dict[str, Any]) -> dict[str, Any]:
    """The agent's own answer, with ``overall`` and the ``troubles`` that it follows from."""
    troubles = [{"about": about, "what": what, "hint": hint} for about, what, hint in _troubles(status)]
    return {"overall": "DEGRADED" if troubles else "OK", "troubles": troubles} | status


def collect_stopped(data_dir: Path) -> dict[str, Any]:
    """What the buffer tells of an agent that does not run. Raises Unavailable when there is no buffer either."""
    from edge_agent.buffer.evidence import last_run

    try:
        with closing(open_archive(data_dir)) as archive:
            run, stats = last_run(archive), archive.stats()
    except EdgeAgentError as error:
        text = f"no agent is running on {data_dir}, and {error.args[0]}"
        raise Unavailable(text, hint=error.hint) from error
    return {
        "overall": "DOWN",
        "state": "stopped",
        "data_dir": str(data_dir),
        "last_run": None if run is None else asdict(run),
        "buffer": stats,
    }


def _troubles(status: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(about, what, hint) of everything that a technician should look at; English, as `--json` prints it."""
    for name, device in status.get("devices", {}).items():
        if device.get("state") not in _GOOD_STATES:
            error = str(device.get("error") or device.get("state"))
            yield f"device {name}", error.removeprefix(f"{name}: "), str(device.get("hint") or "")
    if any(device.get("no_value") for device in status.get("devices", {}).values()):
        for name, station in status.get("stations", {}).items():
            if any(position.get("handshake") == "unknown" for position in station["positions"].values()):
                hint = "compare its address with the PLC's program; units that end meanwhile are not traced"
                what = "the tag that ends its cycles has no value"
                yield f"station {name}", what, hint
    for name, route in status.get("routes", {}).items():
        if route.get("state") not in _GOOD_STATES:
            yield f"route {name}", str(route.get("last_error") or route.get("state")), str(route.get("hint") or "")
        elif route.get("receiver_silent"):
            hint = "see that the receiver runs and is subscribed; nothing is lost meanwhile"
            yield f"route {name}", "the broker takes the records, but the receiver does not confirm them", hint
        if dead := route.get("dead"):
            hint = f"see why: edge-agent deadletter list {name}"
            what = f"dead letters: {dead}"
            if route.get("state") == "connected" and route.get("last_error"):
                yield f"route {name}", f"{what}; {route['last_error']}", str(route.get("hint") or hint)
            else:
                yield f"route {name}", what, hint
        for warning in route.get("warnings", ()):
            yield f"route {name}", str(warning["what"]), str(warning["hint"])
    yield from _inbound_troubles(status.get("inbound", {}))
    buffer = status.get("buffer", {})
    if trouble := buffer.get("trouble"):
        yield "buffer", str(trouble.get("error")), str(trouble.get("hint") or "")
    for text in buffer.get("damage") or ():
        hint = "see what stands now: edge-agent buffer verify; this line goes with the next restart"
        yield "buffer", f"found at this start: {text}", hint
    if buffer.get("shedding"):
        yield "buffer", "full: samples outside cycles are not stored", "free disk space, or see why a route is behind"
    hours = buffer.get("hours_left")
    if hours is not None and hours < HOURS_LEFT_LOW and not trouble:
        by_disk = buffer.get("limited_by") == "disk"
        hint = (
            "free disk space, or see why a route is behind"
            if by_disk
            else "see why a route is behind, or raise max_size"
        )
        yield "buffer", f"full in {span(hours * 3600)} at the present rate", hint


def _inbound_troubles(sources: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, source in sources.items():
        if source.get("state") not in _GOOD_STATES:
            yield f"inbound {name}", str(source.get("last_error") or source.get("state")), str(source.get("hint") or "")
        elif source.get("stale"):
            hint = "see that the QMS answers requests for a snapshot (docs/verdicts.md)"
            yield f"inbound {name}", "it is not known what is on hold: decisions may be missing", hint
        elif source.get("silent"):
            yield f"inbound {name}", "no heartbeat comes", "see that the QMS runs and publishes its heartbeat"
        if source.get("known") is False:
            yield f"inbound {name}", "not all holds could be kept: every gate blocks", "release what is settled"


# --- for people ----------------------------------------------------------------------------------------------


def _show_running(out: Console, facts: dict[str, Any]) -> None:
    since_s = time.time() - int(facts["started_at_ns"]) / 1e9
    text = _("{agent}  {state} for {time}, edge-agent {version}, config {config}").format(
        agent=facts["agent"],
        state=_(str(facts["state"])),
        time=span(since_s),
        version=facts["version"],
        config=facts["config"],
    )
    _headline(out, facts, text)
    _show_devices(out, facts["devices"])
    _show_stations(out, facts["stations"])
    _show_routes(out, facts["routes"])
    _show_inbound(out, facts.get("inbound", {}))
    _show_buffer(out, facts["buffer"])
    if not facts.get("clock", {}).get("synced", True):
        say(out, _("clock    not synchronised; records say so"), "yellow")
    if facts.get("findings"):
        counted = _(", ").join(f"{code} {count}" for code, count in sorted(facts["findings"].items()))
        say(out, _("findings since the start: {list}").format(list=counted))
    for trouble in facts["troubles"]:
        say(out, f"\n{_word_for(trouble['about'])} ", "yellow", end="")
        say(out, translate(trouble["what"]))
        if trouble["hint"]:
            say(out, f"  → {translate(trouble['hint'])}")


def _headline(out: Console, facts: dict[str, Any], text: str) -> None:
    word = facts["overall"]
    say(out, f"{_(word)}  ", _WORD_STYLE[word], end="")
    say(out, text + "\n")


def _word_for(about: str) -> str:
    noun, _space, name = about.partition(" ")
    return f"{_(noun)} {name}".strip()


def _show_devices(out: Console, devices: dict[str, Any]) -> None:
    rows = table(
        _("DEVICE"), _("DRIVER"), _("STATE"), _("SINCE"), _("SAMPLES"), _("PER SECOND"), _("SCANS"), _("ROUND TRIP"),
        _("ERRORS"),
    )  # fmt: skip
    for name, device in devices.items():
        rate, trip = device.get("rates", {}).get("samples_per_s", 0), device.get("round_trip")
        numbers = [str(device.get("samples", 0)), f"{rate:.1f}" if rate else "–", str(device.get("scans", 0))]
        times = f"{trip['mean_ms']:.1f} / {trip['p95_ms']:.1f} ms" if trip else "–"
        errors = _(", ").join(f"{_(kind)} {count}" for kind, count in device.get("errors", {}).items()) or "–"
        state = _state(device["state"])
        add_row(rows, name, device["driver"], state, _ago(device["since_ns"]), *numbers, times, errors)
    out.print(rows)
    for name, device in devices.items():
        if device.get("no_value"):
            tags = _(", ").join(f"{tag} ({translate(reason)})" for tag, reason in device["no_value"].items())
            say(out, _("no value of {device}: {tags}").format(device=name, tags=tags), "yellow")
    out.print()


def _show_stations(out: Console, stations: dict[str, Any]) -> None:
    rows = table(_("STATION"), _("UNIT"), _("BINDING"), _("HANDSHAKE"), _("COUNTS"))
    for name, station in stations.items():
        positions = station["positions"]
        for number, position in positions.items():
            unit = position.get("serial") or (_("unknown unit") if position.get("cycle") else _("empty"))
            state = _(position["binding_state"]) if position.get("binding_state") else "–"
            binding = Text(_("interrupted"), "yellow") if position.get("interrupted") else Text(state)
            handshake = _(position["handshake"]) if position.get("handshake") else "–"
            counts = _(", ").join(f"{_(key)} {value}" for key, value in (position.get("counts") or {}).items() if value)
            add_row(rows, f"{name}.{number}" if len(positions) > 1 else name, unit, binding, handshake, counts or "–")
    if stations:
        out.print(rows, "")


def _show_routes(out: Console, routes: dict[str, Any]) -> None:
    rows = table(_("ROUTE"), _("STATE"), _("BACKLOG"), _("IN FLIGHT"), _("DONE"), _("DEAD LETTERS"))
    for name, route in routes.items():
        done = f"{_(route.get('confirm', 'delivered'))} {route.get('confirmed_n', 0)}"
        numbers = [str(route.get("pending", 0)), str(route.get("in_flight", 0)), done, str(route.get("dead", 0))]
        add_row(rows, name, _state(str(route["state"])), *numbers)
    if routes:
        out.print(rows, "")
    for name, route in routes.items():
        if count := route.get("unheard"):
            text = ngettext(
                "{route}: {count} message was handed to the broker while nobody subscribed to it",
                "{route}: {count} messages were handed to the broker while nobody subscribed to them",
                count,
            )
            say(out, text.format(route=name, count=count) + "\n", "yellow")


def _show_inbound(out: Console, sources: dict[str, Any]) -> None:
    rows = table(_("INBOUND"), _("STATE"), _("LAST DECISION"), _("HEARD"), _("OPEN HOLDS"), _("NOT BELIEVED"))
    for name, source in sources.items():
        age_s = source.get("heartbeat_age_s")
        heard = "–" if age_s is None else _("{time} ago").format(time=span(max(0.0, age_s)))
        decision = "–" if source.get("last_decision_seq") is None else str(source["last_decision_seq"])
        counts = source.get("counts", {})
        numbers = [decision, heard, str(source.get("open_holds", "–")), str(counts.get("refused", 0))]
        add_row(rows, name, _state(str(source["state"])), *numbers)
    if sources:
        out.print(rows, "")


def _state(state: str) -> Text:
    style = "green" if state in _GOOD_STATES else "yellow" if state == "connecting" else "red"
    return Text(_(state), style)


def _ago(at_ns: int | str) -> str:
    return span(max(0.0, time.time() - int(at_ns) / 1e9))


def _show_buffer(out: Console, buffer: dict[str, Any]) -> None:
    text = ngettext("buffer   {rows} record, {size}", "buffer   {rows} records, {size}", buffer["rows"])
    line = text.format(rows=buffer["rows"], size=size(buffer["bytes"]))
    if buffer.get("hours_left") is not None:
        line += _(", ") + _("{time} left at the present rate").format(time=span(buffer["hours_left"] * 3600))
    say(out, line)


def _show_stopped(out: Console, facts: dict[str, Any]) -> None:
    run = facts["last_run"]
    if run is None:
        _headline(out, facts, _("no agent is running on {path}, and none has run").format(path=facts["data_dir"]))
        return
    when, ago = local_time(run["last_at_ns"]), _ago(run["last_at_ns"])
    text = _("{agent}  stopped since {when} ({ago} ago)") if run["orderly"] else _(
        "{agent}  ended without a stop (power cut, crash?) after {when} ({ago} ago)"
    )  # fmt: skip
    _headline(out, facts, text.format(agent=run["agent"], when=when, ago=ago))
    rows = table(_("ROUTE"), _("BACKLOG"), _("DEAD LETTERS"))
    for name, pending in facts["buffer"]["pending"].items():
        add_row(rows, name, str(pending), str(facts["buffer"]["dead_letters"].get(name, 0)))
    if facts["buffer"]["pending"]:
        out.print(rows, "")
    if run["open_cycles"]:
        text = ngettext(
            "{count} cycle was open; it is interrupted at the next start",
            "{count} cycles were open; they are interrupted at the next start",
            run["open_cycles"],
        )
        say(out, text.format(count=run["open_cycles"]))
    _show_buffer(out, facts["buffer"])
    say(out, "\n  → " + _("start it: systemctl start edge-agent"))
