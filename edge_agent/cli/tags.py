"""`edge-agent tags`: a device's tags as a table for a spreadsheet, and a table's tags into the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli import Globals, UsageProblem
from edge_agent.cli.output import console, say
from edge_agent.i18n import _

if TYPE_CHECKING:
    from edge_agent.errors import Problem

command = typer.Typer(help=_("A device's tags as a table for a spreadsheet, and back."), no_args_is_help=True)

DeviceName = Annotated[str, typer.Argument(metavar="DEVICE", help=_("a device of the configuration"))]
Encoding = Annotated[
    str,
    typer.Option(
        metavar="ENCODING", help=_("utf-8; gb18030 for a Chinese Excel's plain CSV, cp1252 for a western one's")
    ),
]


@command.command("export", help=_("Print the tags of a device, or of one group, as CSV that a spreadsheet opens."))
def export(
    ctx: typer.Context,
    device: DeviceName,
    group: Annotated[str, typer.Option("--group", metavar="GROUP", help=_("only this group's tags"))] = "",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help=_("write to this file instead"))] = None,
    encoding: Encoding = "utf-8",
) -> None:
    """Print the tags of a device, or of one group, as CSV."""
    from edge_agent.config.tables import ENCODINGS, table

    if encoding not in ENCODINGS:
        what = _("no encoding is named {encoding} here").format(encoding=repr(encoding))
        raise UsageProblem(what, hint=_("choose from {names}").format(names=", ".join(ENCODINGS)))
    tags = _tags(Globals.of(ctx).config, device, group)
    keys = dict.fromkeys(key for tag in tags.values() for key in tag)
    text = table(tags, keys)
    if encoding != "utf-8":
        text = text.removeprefix("\ufeff")
    try:
        raw = text.encode(encoding)
    except UnicodeEncodeError as error:
        sign = error.object[error.start]
        raise UsageProblem(
            _("{sign} cannot be written in {encoding}").format(sign=repr(sign), encoding=encoding),
            hint=_("leave --encoding out: the file is then UTF-8, which spreadsheets know by its first bytes"),
        ) from error
    if out is None:
        typer.get_binary_stream("stdout").write(raw)
        return
    try:
        out.write_bytes(raw)
    except OSError as error:
        raise UsageProblem(
            _("{path} cannot be written: {why}").format(path=out, why=error.strerror), hint=_("choose another --out")
        ) from error
    say(console(), _("{count} tags are in {path}").format(count=len(tags), path=out), "green")


@command.command("import", help=_("Add the tags of a table to a group of the configuration; comments stay."))
def import_(
    ctx: typer.Context,
    device: DeviceName,
    group: Annotated[str, typer.Argument(metavar="GROUP", help=_("the group they come into; made if it is new"))],
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("CSV with one row a tag: name, address, type, unit"))],
    poll: Annotated[str, typer.Option(metavar="TIME", help=_("how often a new group is read"))] = "1s",
    encoding: Encoding = "utf-8",
) -> None:
    """Add the tags of a table to a group of the configuration."""
    from edge_agent.config.edit import append_tags
    from edge_agent.config.tables import bounded, read
    from edge_agent.errors import ConfigError

    config = Globals.of(ctx).config
    table = read(file, encoding)
    rows = {name: {key: cell.value for key, cell in cells.items()} for _line, name, cells in table}
    try:
        added = append_tags(config, device, group, rows, poll)
    except ConfigError as error:
        lines = {name: line for line, name, _cells in table}
        told = [_in_table(problem, f"devices.{device}", file, lines) for problem in error.problems]
        raise ConfigError(bounded(told, str(config))) from error
    out = console()
    say(out, added, end="")
    say(out, _("{count} tags were added to {path}").format(count=len(rows), path=config), "green")
    say(out, "  → " + _("restart the agent: systemctl restart edge-agent"))


def _in_table(problem: Problem, device: str, file: Path, lines: Mapping[str, int]) -> Problem:
    """A mistake in what a row says, with the row's line: the configuration has no such line."""
    from edge_agent.config.edit import TAKEN

    _before, tags, key = problem.key.partition(".tags.")
    line = lines.get(key.partition(".")[0])
    if not (tags and problem.key.startswith(f"{device}.")) or line is None or problem.what == TAKEN:
        return problem
    return replace(problem, file=str(file), line=line, key=key)


def _tags(config: Path, device: str, group: str) -> dict[str, dict[str, Any]]:
    """The tags as the file writes them, tables read in. Raises UsageProblem or ConfigError."""
    from edge_agent.config.tables import expand
    from edge_agent.config.tree import parse, read_text
    from edge_agent.errors import ConfigError

    found: list[Problem] = []
    root = parse(read_text(config), str(config), found)
    if root is None:
        raise ConfigError(found)
    expand(root, config)
    devices = root.value.get("devices") if isinstance(root.value, dict) else None
    if not isinstance(devices, dict) or not isinstance(devices.get(device), dict):
        names = ", ".join(devices) if isinstance(devices, dict) else ""
        raise UsageProblem(
            _("no device is named {device}").format(device=device), hint=_("choose from {names}").format(names=names)
        )
    section = devices[device]
    groups = {name: one for name, one in (section.get("groups") or {}).items() if isinstance(one, dict)}
    if group and group not in groups:
        raise UsageProblem(
            _("{device} has no group {group}").format(device=device, group=group),
            hint=_("choose from {names}").format(names=", ".join(groups)),
        )
    holders = [groups[group]] if group else [*groups.values(), section]
    tags: dict[str, dict[str, Any]] = {}
    for holder in holders:
        tags |= {name: tag for name, tag in (holder.get("tags") or {}).items() if isinstance(tag, dict)}
    return tags
