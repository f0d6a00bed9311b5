"""`edge-agent map`: see what a dictionary makes of records, before a destination does.

It reads the configuration, and the newest records of the buffer or a record in a file; it changes and sends nothing.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console

from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.datadir import DataDir, data_dir_of, open_archive
from edge_agent.cli.output import AsJson, console, emit_json, say
from edge_agent.i18n import _

if TYPE_CHECKING:
    from edge_agent.routes.dictionary import Dictionary

NEWEST = 3  # of each kind, unless told
FILE_MAX_BYTES = 2**20

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("See what a dictionary makes of records."))


@command.callback()
def _group() -> None:
    """So that `test` is a verb of its own."""


@command.command(help=_("Show records before and after a route's dictionary, and what it has no word for."))
def test(
    ctx: typer.Context,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help=_("the route, as the configuration names it"))],
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help=_("a record's body as JSON, instead of the buffer's"))
    ] = None,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help=_("only records of this kind"))] = "",
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=1, max=1000, help=_("how many of each kind"))
    ] = NEWEST,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Exit 1 if something has no word."""
    dictionary, sent = _dictionary(ctx, route)
    kinds = [kind] if kind else sent
    bodies = [("", 0, _body(file))] if file is not None else _newest(ctx, data_dir, kinds, last)
    shown = []
    for label, seq, body in bodies:
        translated = dictionary.translate(body)
        unmapped = [one._asdict() for one in translated.unmapped]
        shown.append({"kind": label, "seq": seq, "before": body, "after": translated.body, "unmapped": unmapped})
    if as_json:
        emit_json({"dictionary": dictionary.name, "records": shown})
    else:
        _show(console(), dictionary, shown)
    if any(one["unmapped"] for one in shown):
        raise typer.Exit(ExitCode.PROBLEM)


def _dictionary(ctx: typer.Context, route: str) -> tuple[Dictionary, list[str]]:
    """The route's dictionary, and the kinds of record that the route sends in its words."""
    from edge_agent.config import load
    from edge_agent.routes.dictionary import KINDS, Dictionary

    config = load(Globals.of(ctx).config)
    if route not in config.routes:
        raise UsageProblem(f"no route is named {route}", hint=f"choose from {', '.join(config.routes)}")
    name = config.routes[route].dictionary
    if name is None:
        raise UsageProblem(f"route {route} has no dictionary", hint="write dictionary: NAME into its section")
    sent = [kind.label for kind in sorted(KINDS) if kind.label in config.routes[route].send]
    return Dictionary(name, config.dictionaries[name]), sent


def _body(path: Path) -> dict[str, Any]:
    hint = 'a JSON object: the "before" of `edge-agent map test --json`, for instance'
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise UsageProblem(f"{path} is larger than a record can be", hint=hint)
        body = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UsageProblem(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise UsageProblem(f"{path} holds no JSON", hint=hint) from error
    if not isinstance(body, dict):
        raise UsageProblem(f"{path} holds no record", hint=hint)
    return body


def _newest(
    ctx: typer.Context, data_dir: DataDir, kinds: list[str], last: int
) -> list[tuple[str, int, dict[str, Any]]]:
    from edge_agent.routes.dictionary import KINDS

    labels = {one.label: one for one in KINDS}
    for kind in kinds:
        if kind not in labels:
            hint = f"choose from {', '.join(sorted(labels))}"
            raise UsageProblem(f"records of kind {kind!r} are not translated", hint=hint)
    wanted = [labels[kind] for kind in kinds]
    with closing(open_archive(data_dir_of(ctx, data_dir))) as archive:
        return [(one.label, seq, orjson.loads(body)) for one in wanted for seq, body in archive.newest(int(one), last)]


def _show(out: Console, dictionary: Dictionary, shown: list[dict[str, Any]]) -> None:
    if not shown:
        say(out, _("the buffer holds no such record yet"))
    for one in shown:
        say(out, f"{_(one['kind'])} {one['seq']}" if one["kind"] else _("record"), "bold")
        before, after = one["before"], one["after"]
        for key in [*after, *(key for key in before if key not in after)]:
            was, becomes = before.get(key), after.get(key)
            if was != becomes:
                text = f"{key}: {_json(was)} → {_json(becomes)}"
                say(out, f"  {text}")
        for missing in one["unmapped"]:
            text = _("no word for {field} {value}").format(field=missing["field"], value=repr(missing["value"]))
            say(out, f"  {text}", "red")
            hint = _("add it to dictionaries.{name}").format(name=dictionary.name)
            say(out, f"    → {hint}")


def _json(value: Any) -> str:
    return "–" if value is None else orjson.dumps(value).decode()
