"""`edge-agent check`: is the configuration right, what does the agent take from it, what will it cost.

Touches no device and no network. Every mistake is told at once; warnings never fail the check. data_dir is looked at
as the user who asks, who may not be the agent's, so what this user may not do there is a warning too.
"""

from __future__ import annotations

import getpass
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from edge_agent.cli import ExitCode, Globals
from edge_agent.cli.output import AsJson, add_row, console, emit_json, say, size, table
from edge_agent.errors import ConfigError, Problem
from edge_agent.i18n import _, explain_problem, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.binding.plan import Position, Station
    from edge_agent.config import Config, Device

Argument = Annotated[Path | None, typer.Argument(metavar="CONFIG", help=_("the file; default: what --config says"))]


def command(ctx: typer.Context, config: Argument = None, as_json: AsJson = False) -> None:
    """Check the configuration: every mistake with its line, what is risky, what is expected, how much data it makes."""
    from edge_agent.config import load

    path = config or Globals.of(ctx).config
    try:
        loaded = load(path)
        _must_be_a_directory(loaded)
    except ConfigError as error:
        _refuse(path, error, as_json)
        raise typer.Exit(ExitCode.CONFIG) from error
    facts = collect(loaded)
    if as_json:
        emit_json(facts)
    else:
        _show(console(), facts, loaded.warnings)


def _refuse(path: Path, error: ConfigError, as_json: bool) -> None:
    if as_json:
        emit_json({"ok": False, "config_path": str(path), "problems": [asdict(problem) for problem in error.problems]})
        return
    for problem in error.problems:
        typer.echo(explain_problem(problem), err=True)
    count = len(error.problems)
    text = ngettext("{path}: {count} mistake; the agent will not start with it",
                    "{path}: {count} mistakes; the agent will not start with it", count)  # fmt: skip
    typer.echo("\n" + text.format(path=path, count=count), err=True)


# --- what is in it -------------------------------------------------------------------------------------------


def collect(config: Config) -> dict[str, Any]:
    """Everything `check` says of a configuration without mistakes, as `--json` prints it."""
    from edge_agent.config.estimate import estimate

    volume = estimate(config)
    return {
        "ok": True,
        "config_path": str(config.path),
        "config": config.id,
        "agent": config.agent.id,
        "problems": [],
        "warnings": [asdict(warning) for warning in config.warnings],
        "devices": {name: _device(device) for name, device in config.devices.items()},
        "stations": {station.name: _station(station) for station in config.plan.stations},
        "routes": {
            name: {
                "sink": route.sink,
                "to": route.destination,
                "delivered_when": route.delivered_when,
                "send": list(route.send),
            }
            for name, route in config.routes.items()
        },
        "unclaimed": _unclaimed(config),
        "data_dir": _data_dir(config),
        "estimate": {
            "samples_per_s": round(volume.samples_per_s, 3),
            "readings_per_s": round(volume.readings_per_s, 3),
            "gb_per_day": round(volume.gb_per_day, 4),
            "tb_per_year": round(volume.tb_per_year, 4),
            "assumptions": list(volume.assumptions),
        },
    }


def _device(device: Device) -> dict[str, Any]:
    groups = device.shape.groups.values()
    return {
        "driver": device.spec.name,
        "scans": device.shape.scans,
        "tags": sum(len(group.tagset.tags) for group in groups),
        "groups": {group.tagset.group: group.poll_s for group in groups},
        "spoken": [group.tagset.group for group in groups if group.spoken],
    }


def _station(station: Station) -> dict[str, Any]:
    return {
        "step": station.step,
        "identity": station.identity,
        "positions": {str(position.number): _position(station, position) for position in station.positions},
    }


def _position(station: Station, position: Position) -> dict[str, Any]:
    ends_with, end_tag = _end(station, position)
    by = position.scanner or (position.serial.name if position.serial else None)
    if station.slot is not None:
        by = f"{station.slot.register.name}.{station.slot.number}"
    elif station.batch is not None:
        by = station.batch.entry.scanner
    return {
        "identified_by": by,
        "ends_with": ends_with,
        "end_tag": end_tag,
        "collects": [one.name for one in position.collect],
        "claims": {group: list(tags) for group, tags in position.claims.items()},
    }


def _end(station: Station, position: Position) -> tuple[str | None, str | None]:
    """What ends a cycle there, and the tag, group or scanner that shows it. None: the next scan."""
    from edge_agent.binding.plan import Edge, Handshake, Message

    match position.end:
        case Handshake(ready=ready):
            return "handshake", ready.name
        case Edge(tag=tag):
            return "edge", tag.name
        case Message(read=group):
            return "message", group
        case _ if station.slot is not None:
            return "step", station.slot.register.index.name
    out = position.out
    if station.batch is not None and station.batch.exit is not None:
        out = station.batch.exit.scanner
    return ("scan_out", out) if out is not None else (None, None)


def _unclaimed(config: Config) -> list[str]:
    claimed = {
        (group, tag)
        for station in config.plan.stations
        for position in station.positions
        for group, tags in position.claims.items()
        for tag in tags
    }
    return [
        f"{name}.{tag.name}"
        for name, device in config.devices.items()
        for group in device.shape.groups.values()
        for tag in group.tagset.tags
        if (group.tagset.source, tag.name) not in claimed
    ]


def _must_be_a_directory(config: Config) -> None:
    """Raises ConfigError when data_dir, or what it lies in, is a file: then it can be no user's."""
    from edge_agent.config.tree import parse, read_text

    there = _existing(config.agent.data_path.absolute())
    if not there.is_dir():
        root = parse(read_text(config.path), str(config.path), [])
        line = root.find(("agent", "data_dir")).line if root else 0
        hint = "set agent.data_dir to another path"
        raise ConfigError([Problem(str(config.path), line, "agent.data_dir", f"{there} is not a directory", hint)])


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(parent for parent in (path, *path.parents) if os.path.exists(parent))


def _data_dir(config: Config) -> dict[str, Any]:
    path = config.agent.data_path.absolute()
    there = _existing(path)
    return {
        "path": str(path),
        "exists": there == path,
        "writable": os.access(there, os.W_OK | os.X_OK),
        "free_bytes": shutil.disk_usage(there).free,
        "wanted_bytes": config.buffer.max_size + config.buffer.min_free,
    }


# --- for people ----------------------------------------------------------------------------------------------


def _show(out: Console, facts: dict[str, Any], warnings: tuple[Problem, ...]) -> None:
    head = f"  {_('agent')} {facts['agent']}, {_('config')} {facts['config']}\n"
    say(out, Text.assemble((facts["config_path"], "bold"), head))
    _show_devices(out, facts)
    _show_stations(out, facts)
    _show_routes(out, facts)
    volume, data_dir = facts["estimate"], facts["data_dir"]
    text = _("data    at most {day:.2f} GB/day, {year:.2f} TB/year ({rate:.0f} readings/s)")
    say(out, text.format(day=volume["gb_per_day"], year=volume["tb_per_year"], rate=volume["readings_per_s"]))
    for assumption in volume["assumptions"]:
        say(out, f"        · {translate(assumption)}", "dim")
    say(out, _("keeps   {path}, {free} free there").format(path=data_dir["path"], free=size(data_dir["free_bytes"])))
    notes = [explain_problem(warning) for warning in warnings] + _data_dir_warnings(data_dir)
    for note in notes:
        say(out, f"\n{_('warning')} ", "yellow", end="")
        say(out, note)
    text = ngettext("no mistakes, {count} warning", "no mistakes, {count} warnings", len(notes))
    say(out, f"\n{_('OK')}  ", "green", end="")
    say(out, text.format(count=len(notes)))


def _show_devices(out: Console, facts: dict[str, Any]) -> None:
    rows = table(_("DEVICE"), _("DRIVER"), _("TAGS"), _("GROUPS"))
    for name, device in facts["devices"].items():
        groups = [f"{group} {_poll(poll_s, group in device['spoken'])}" for group, poll_s in device["groups"].items()]
        what = ", ".join(groups) or (_("scans") if device["scans"] else "–")
        add_row(rows, name, device["driver"], str(device["tags"] or "–"), what)
    out.print(rows, "")


def _poll(poll_s: float | None, spoken: bool) -> str:
    if spoken:
        return _("(by itself)")
    return _("(on trigger)") if poll_s is None else f"({poll_s * 1000:.0f} ms)"


def _show_stations(out: Console, facts: dict[str, Any]) -> None:
    rows = table(_("STATION"), _("STEP"), _("IDENTIFIED BY"), _("ENDS WITH"), _("COLLECTS"), _("CLAIMS"))
    ends = {
        "handshake": _("handshake {tag}"), "edge": _("edge of {tag}"), "message": _("message of {tag}"),
        "scan_out": _("a scan of {tag}"), "step": _("the next step of {tag}"),
    }  # fmt: skip
    for name, station in facts["stations"].items():
        several = len(station["positions"]) > 1
        for number, position in station["positions"].items():
            end = ends.get(position["ends_with"])
            claims = "\n".join(f"{group}: {', '.join(tags)}" for group, tags in position["claims"].items())
            add_row(
                rows,
                f"{name}.{number}" if several else name,
                station["step"],
                position["identified_by"] or "–",
                end.format(tag=position["end_tag"]) if end else _("the next scan"),
                ", ".join(position["collects"]) or "–",
                claims or "–",
            )
    if facts["stations"]:
        out.print(rows, "")
    if facts["unclaimed"]:
        say(out, _("claimed by no station: {tags}").format(tags=", ".join(facts["unclaimed"])) + "\n")


def _show_routes(out: Console, facts: dict[str, Any]) -> None:
    rows = table(_("ROUTE"), _("TO"), _("DELIVERED WHEN"), _("SENDS"))
    words = {
        "receiver": _("the receiver confirms"),
        "broker": _("never known: handed over to the broker"),
        "database": _("the database commits"),
        "file": _("never known: handed over as a file"),
    }
    for name, route in facts["routes"].items():
        add_row(rows, name, route["to"], words[route["delivered_when"]], ", ".join(route["send"]))
    if facts["routes"]:
        out.print(rows, "")


def _data_dir_warnings(data_dir: dict[str, Any]) -> list[str]:
    notes = []
    if not data_dir["writable"]:
        text = _("data_dir {path} cannot be written by {user}; the agent's user must be able to")
        notes.append(text.format(path=data_dir["path"], user=getpass.getuser()))
    if data_dir["free_bytes"] < data_dir["wanted_bytes"]:
        text = _("the disk has {free} free, less than buffer.max_size and min_free together ({wanted})")
        notes.append(text.format(free=size(data_dir["free_bytes"]), wanted=size(data_dir["wanted_bytes"])))
    return notes
