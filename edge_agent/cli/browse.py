"""`edge-agent browse`: a device's own tree of data points with their values, to pick tags from.

The tree is printed as it comes. ``--find`` shows only what fits, ``--pick`` chooses variables, by node id or by a
pattern of names, and shows them as the tags to paste, or writes them with ``--add``. Reads only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.output import AsJson, console, emit_json, plain, say, say_added
from edge_agent.driver import DriverSpec, driver_names, load_driver
from edge_agent.i18n import _, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.bench import Node, Section

DEPTH = 3
SEARCH_DEPTH = 10  # with --find or --pick
WIDTH = 60  # of a value
_BARE_HOST = re.compile(r"[.:]")  # neither stands in a device's name


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask: a device of the configuration (``device``), or an address (``section`` would make it one)."""

    spec: DriverSpec
    settings: Any
    section: Section
    device: str = ""


def command(
    ctx: typer.Context,
    driver: Annotated[str, typer.Argument(metavar="DRIVER", help=_("opcua"))],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help=_("opc.tcp://192.168.1.20, or a device of the configuration"))
    ] = "",
    node: Annotated[str, typer.Argument(metavar="NODE", help=_("where to begin; default: from the top"))] = "",
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="N", min=0, max=20, help=_("how many levels down; default 3"))
    ] = None,
    find: Annotated[str, typer.Option("--find", metavar="TEXT", help=_("only what has it in its name or id"))] = "",
    pick: Annotated[
        list[str] | None,
        typer.Option("--pick", metavar="PATTERN", help=_("choose variables: a node id, or names as Press/*")),
    ] = None,
    add: Annotated[
        str, typer.Option("--add", metavar="DEVICE.GROUP", help=_("write what --pick chose to the configuration"))
    ] = "",
    poll: Annotated[
        str, typer.Option("--poll", metavar="TIME", help=_("with --add: how often a new group is read"))
    ] = "1s",
    as_json: AsJson = False,
) -> None:
    """Show a device's tree of data points with their values, and pick tags from it. Exit 1 if nothing is found."""
    if add and not pick:
        raise UsageProblem(_("--add needs --pick"), hint=_('e.g. --pick "Press/*" --add press.result'))
    if not target:
        hint = _("edge-agent browse {driver} {target}")
        known = driver in driver_names()
        target, driver = ("opc.tcp://192.168.1.20", driver) if known else (driver, "opcua")
        raise UsageProblem(_("a driver and a target are needed"), hint=hint.format(driver=driver, target=target))
    asked = target_of(Globals.of(ctx).config, driver, target)
    if depth is None:
        depth = SEARCH_DEPTH if find or pick else DEPTH
    out = None if as_json else console()
    nodes = asyncio.run(_browsed(asked, node, depth, find, pick or (), out))
    tags = _tags(nodes) if pick else {}
    lines = _add(Globals.of(ctx).config, add, asked, tags, poll) if add and tags else ""
    if as_json:
        emit_json({"nodes": [asdict(one) for one in nodes], "tags": tags, "added": lines})
    elif out is not None:
        _show_end(out, nodes, tags, lines, add.partition(".")[0])
    if not nodes:
        raise typer.Exit(ExitCode.PROBLEM)


def target_of(path: Path, driver: str, text: str, **more: Any) -> Target:
    """The device of this name in the configuration, or the one at this address. Raises UsageProblem."""
    spec = load_driver(driver)
    if driver == "opcua" and _BARE_HOST.search(text) and "://" not in text:
        text = f"opc.tcp://{text}"
    if "://" not in text:
        from edge_agent.cli.at_device import device_section

        device = device_section(path, text)
        if device.spec.name != driver:
            what = _("{name} is a device of the driver {driver}").format(name=text, driver=device.spec.name)
            hint = _("edge-agent watch {name} shows its values").format(name=text)
            raise UsageProblem(what, hint=hint)
        return Target(spec, device.settings, {}, text)
    section = {"driver": driver, "connection": text, **more}
    try:
        return Target(spec, spec.settings().model_validate(section), section)
    except ValidationError as error:
        what = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageProblem(what, hint=_("write opc.tcp://192.168.1.20:4840, or a device's name")) from error


# --- asking --------------------------------------------------------------------------------------------------


async def _browsed(
    target: Target, start: str, depth: int, find: str, pick: Sequence[str], out: Console | None
) -> list[Node]:
    """What fits, printed as it comes if there is a console."""
    browse = target.spec.bench().browse if target.spec.bench is not None else None
    if browse is None:
        hint = _("edge-agent probe {name} …, or edge-agent watch DEVICE").format(name=target.spec.name)
        raise UsageProblem(_("the driver {name} has no browse").format(name=target.spec.name), hint=hint)
    nodes: list[Node] = []
    found: AsyncIterator[Node] = browse(target.settings, start, depth)
    async with aclosing(found) as each:  # type: ignore[type-var]
        async for node in each:
            if (find and not _has(node, find)) or (pick and not _picked(node, pick)):
                continue
            nodes.append(node)
            if out is not None:
                say(out, _line(node, flat=bool(find or pick)))
    return nodes


def _has(node: Node, text: str) -> bool:
    return text.casefold() in f"{'/'.join(node.path)} {node.id} {node.tag.get('node', '')}".casefold()


def _picked(node: Node, wanted: Sequence[str]) -> bool:
    """A variable that one of them names: by its id in either form, or by a pattern of its names from any level on."""
    if not node.tag:
        return False
    tails = ["/".join(node.path[begin:]) for begin in range(len(node.path))]
    return any(
        one in (node.id, node.tag.get("node")) or any(fnmatchcase(tail, one) for tail in tails) for one in wanted
    )


# --- what is picked ------------------------------------------------------------------------------------------


def _tags(nodes: Sequence[Node]) -> dict[str, Section]:
    """By a name for each: the last of its path, with as many above it as make it the only one.

    Names in the file are ASCII: a node that is named in Chinese gets a number, to be renamed by who knows it.
    """
    named: dict[str, Section] = {}
    for node in nodes:
        names = [re.sub(r"\W+", "_", part).strip("_").lower() if part.isascii() else "" for part in node.path]
        names = names if names[-1] else []
        tries = ["_".join(filter(None, names[-count:])) for count in range(1, len(names) + 1)]
        free = [one for one in tries if one and one not in named]
        named[free[0] if free else f"tag_{len(named) + 1}"] = node.tag
    return named


def _add(path: Path, add: str, target: Target, tags: dict[str, Section], poll: str) -> str:
    """Write the tags to the configuration, with their device if that is new there; the lines added."""
    from edge_agent.config.edit import append_device, append_tags

    device, dot, group = add.partition(".")
    if not (device and dot and group) or "." in group:
        hint = _("write DEVICE.GROUP: --add press.result")
        raise UsageProblem(_("--add {text}: is not understood").format(text=add), hint=hint)
    if target.device and device != target.device:
        what = _("the tags were read from {name}, not from {other}")
        raise UsageProblem(what.format(name=target.device, other=device))
    if target.device or _is_there(path, device):
        return append_tags(path, device, group, tags, poll)
    return append_device(path, device, {**target.section, "groups": {group: {"poll": poll, "tags": tags}}})


def _is_there(path: Path, device: str) -> bool:
    from edge_agent.config.tree import parse, read_text

    root = parse(read_text(path), str(path), [])
    devices = root.children.get("devices") if root is not None else None
    return devices is not None and device in devices.children


# --- for people ----------------------------------------------------------------------------------------------


def _line(node: Node, *, flat: bool) -> Text:
    name = "/".join(node.path) if flat else node.path[-1]
    line = Text("" if flat else "  " * (len(node.path) - 1))
    line.append(plain(name), "" if node.kind == "variable" else "bold")
    if node.kind == "variable":
        line.append(f"  {_short(node.value)}", "green")
        line.append(f"  {node.type or '?'}{' ' + _('writable') if node.writable else ''}", "dim")
    elif node.kind == "method":
        line.append(f"  {_('method')}", "dim")
    if node.status:
        line.append(f"  {plain(translate(node.status))}", "yellow")
    line.append(f"  {plain(node.id)}", "dim")
    return line


def _short(value: Any) -> str:
    text = "–" if value is None else plain(value if isinstance(value, str) else orjson.dumps(value).decode())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def _show_end(out: Console, nodes: Sequence[Node], tags: dict[str, Section], lines: str, device: str) -> None:
    from edge_agent.config.render import as_yaml

    if not nodes:
        say(out, _("nothing here fits"), "yellow")
        say(out, "  → " + _("leave out --find and --pick, look deeper with --depth, or begin at another node"))
        return
    variables = sum(node.kind == "variable" for node in nodes)
    text = ngettext("{count} variable", "{count} variables", variables)
    say(out, "\n" + text.format(count=variables), "dim")
    if lines:
        say_added(out, lines, device)
    elif tags:
        say(out, _("tags, to paste into a group or to write with --add DEVICE.GROUP:"))
        say(out, as_yaml({"tags": tags}))
