"""`edge-agent labels`: print the sheet of command barcodes; see what the rules make of a label.

`read` is for the question at the line: why does this label not work? It shows every rule's answer, also of those
that do not know the label, and the patterns of stations. Control characters are typed as the standards name them
(``<GS>``), as their pictures (␝) or as ``\\x1d``. Neither verb touches a device or a running agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from edge_agent import clock
from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.output import AsJson, add_row, console, emit_json, say, table
from edge_agent.errors import EdgeAgentError
from edge_agent.i18n import _, ngettext, translate
from edge_agent.identify.label import Label, Unread
from edge_agent.identify.patterns import identify, readable, text_of
from edge_agent.model import Scan

if TYPE_CHECKING:
    from edge_agent.binding.plan import Plan
    from edge_agent.config import Config

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Print command barcodes, try label rules."))

SYMBOLS = ("code128", "datamatrix", "qr")
_CONTROL = {"NUL": 0, "STX": 2, "ETX": 3, "EOT": 4, "CR": 13, "LF": 10, "FS": 28, "GS": 29, "RS": 30, "US": 31}
_TYPED = re.compile(rf"<({'|'.join(_CONTROL)})>|\\x([0-9a-fA-F]{{2}})|([\u2400-\u241f])")
_AIM = re.compile(r"\][A-Za-z][0-9A-Za-z]")


@command.command(
    help=_("Write a sheet of barcodes as SVG: the configuration's commands and defects, or the texts given.")
)
def sheet(
    ctx: typer.Context,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help=_("what to print; default: the command rules"))
    ] = None,
    symbol: Annotated[
        str, typer.Option("--symbol", help=_("code128 for laser readers; datamatrix or qr for cameras"))
    ] = "code128",
    output: Annotated[Path, typer.Option("--output", "-o", help=_("the file to write"))] = Path("labels.svg"),
) -> None:
    """One SVG of A4 pages, to be printed in its true size."""
    from edge_agent.cli.sheet import MAX_CODES, sheets

    if symbol not in SYMBOLS:
        hint = _("choose from {names}").format(names=", ".join(SYMBOLS))
        raise UsageProblem(_("no symbol is named {symbol!r}").format(symbol=symbol), hint=hint)
    codes = [(typed(text).decode("utf-8", "replace"), "") for text in texts or ()] or _commands(ctx)
    if len(codes) > MAX_CODES:
        raise UsageProblem(_("more than {limit} codes are too many for a sheet").format(limit=MAX_CODES))
    drawn = sheets(codes, symbol, _("Commands") if not texts else "")  # type: ignore[arg-type]
    try:
        output.write_text(drawn, encoding="utf-8")
    except OSError as error:
        what = _("{path} cannot be written: {why}").format(path=output, why=error.strerror)
        raise EdgeAgentError(what, hint=_("write it elsewhere with --output")) from error
    text = ngettext("{count} barcode in {path}", "{count} barcodes in {path}", len(codes))
    out = console()
    say(out, text.format(count=len(codes), path=output))
    say(out, _("print it at 100 %, not fitted to the page, and try each with your reader"), "dim")


def _commands(ctx: typer.Context) -> list[tuple[str, str]]:
    from edge_agent.binding.genealogy import REMOVE
    from edge_agent.binding.materials import EMPTY
    from edge_agent.identify.commands import CommandRule

    path = Globals.of(ctx).config
    plan = _loaded(ctx).plan
    codes = [code for rule in plan.labels.rules.values() if isinstance(rule, CommandRule) for code in rule.sheet()]
    materials = dict.fromkeys(one.name for station in plan.stations for one in station.needs.materials)
    codes += [(EMPTY + name, f"EMPTY  {name}") for name in materials]
    if any(station.needs.components for station in plan.stations):
        codes.append((REMOVE, REMOVE))
    if not codes:
        hint = _("add to the section labels: codes: {format: command}")
        raise EdgeAgentError(_("{path} has no rule with format: command").format(path=path), hint=hint)
    return codes


@command.command(help=_("Show what every label rule of the configuration makes of a label, and why not."))
def read(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="LABEL", help=_("what stands on it; <GS>, <RS>, <EOT> as such"))],
    hexadecimal: Annotated[bool, typer.Option("--hex", help=_("LABEL is in hexadecimal, as in a scan record"))] = False,
    aim: Annotated[str, typer.Option("--aim", help=_("the AIM identifier the reader sent, e.g. ]d2"))] = "",
    as_json: AsJson = False,
) -> None:
    """Exit code 1 when no rule reads the label, or none that is believed."""
    if aim and not _AIM.fullmatch(aim):
        raise UsageProblem(_("{aim!r} is no AIM identifier").format(aim=aim), hint=_("it looks like ]C1 or ]d2"))
    config = _loaded(ctx)
    scan = Scan("", clock.now(), _raw(text, hexadecimal), symbology=aim)
    answers = config.plan.labels.explain(scan)
    content, encoding = text_of(scan.raw)
    own: dict[str, dict[str, str] | None] = {}
    for where, found in _own(config.plan, content):
        own[where] = own.get(where) or found
    if as_json:
        told = {name: _json(answer) for name, answer in answers.items()}
        emit_json({"raw": scan.raw.hex(), "text": content, "encoding": encoding, "rules": told, "stations": own})
    else:
        _show(scan, content, encoding, answers, own)
    believed = any(isinstance(one, Label) and not one.doubtful for one in answers.values())
    if not believed and not any(own.values()):
        raise typer.Exit(ExitCode.PROBLEM)


def _own(plan: Plan, content: str | None) -> Iterator[tuple[str, dict[str, str] | None]]:
    """What each pattern that stands at a station or a register reads, and where it stands."""
    registers = {one.slot.register.name: one.slot.register for one in plan.stations if one.slot is not None}
    reads = [(f"registers.{name}", one.entry) for name, one in registers.items()]
    for station in plan.stations:
        name, needs = station.name, station.needs
        if station.pattern is not None:
            yield f"{name}.identity", identify(content, station.pattern, station.of)
        for context in station.context:
            if context.pattern is not None:
                match = context.pattern.fullmatch(content) if content is not None and readable(content) else None
                value = match and (match.groupdict().get(context.name) or match[0])
                yield f"{name}.context.{context.name}", {context.name: value} if value else None
        if station.carrying is not None and station.carrying.reads is not None:
            reads.append((f"{name}.carrier", station.carrying.reads))
        reads += [(f"{name}.materials.{one.name}", read) for one in needs.materials for read in one.reads]
        reads += [(f"{name}.components.{one.name}", read) for one in needs.components for read in one.reads.values()]
        reads += [(f"{name}.remove", needs.remove)] if needs.remove is not None else []
    for where, read in reads:
        if read.pattern is not None:
            yield where, identify(content, read.pattern, read.kind)


def typed(text: str) -> bytes:
    """A label as a person types it, to its bytes."""

    def one(match: re.Match[str]) -> str:
        name, digits, picture = match.groups()
        return chr(_CONTROL[name] if name else int(digits, 16) if digits else ord(picture) - 0x2400)

    return _TYPED.sub(one, text).encode("utf-8", "surrogateescape")


def _raw(text: str, hexadecimal: bool) -> bytes:
    if not hexadecimal:
        return typed(text)
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        hint = _("take --hex away, or copy raw from the scan record")
        raise UsageProblem(_("{text!r} is not hexadecimal").format(text=text[:40]), hint=hint) from error


def _loaded(ctx: typer.Context) -> Config:
    from edge_agent.config import load

    return load(Globals.of(ctx).config)


def _json(answer: Label | Unread) -> dict[str, Any]:
    if isinstance(answer, Unread):
        return {"reads": False, "why": answer.why}
    return {
        "reads": True, "identifiers": dict(answer.identifiers), "flags": answer.flags, "doubtful": answer.doubtful,
    }  # fmt: skip


# --- for people ----------------------------------------------------------------------------------------------


def flag_text(flag: str) -> str:
    """What a flag says, for a technician."""
    words = {
        "lost_gs": _("the reader lost a separator: the end of a value looks like another field"),
        "check_digit": _("the check digit is wrong"),
        "bad_date": _("a date is none"),
        "two_values": _("one identifier stands there twice, with different values"),
        "rules_disagree": _("two rules read it differently"),
        "redundant_gs": _("separators too many, or empty fields"),
        "stray_head": _("characters before [)>"),
        "lost_rs": _("a record separator (RS) is lost"),
        "missing_trailer": _("the end (RS EOT) is missing: it may be cut off"),
        "letters_eot": _("the letters EOT in place of the character"),
        "empty_value": _("an identifier without a value"),
        "no_identifier": _("a field does not begin with a data identifier"),
        "control_character": _("a control character in a value"),
    }
    return words.get(flag, flag)


def _show(
    scan: Scan,
    content: str | None,
    encoding: str,
    answers: dict[str, Label | Unread],
    own: dict[str, dict[str, str] | None],
) -> None:
    out = console()
    say(out, f"{scan.raw[:64].hex(' ')}{' …' if len(scan.raw) > 64 else ''}", "dim")
    if content is not None and encoding != "utf-8":
        say(out, _("its encoding: {encoding}").format(encoding=encoding))
    rows = table(_("RULE"), "", _("IDENTIFIERS, OR WHY NOT"))
    for name, answer in answers.items():
        if isinstance(answer, Unread):
            add_row(rows, name, Text("–", "dim"), Text(translate(answer.why), "dim"))
            continue
        state = Text(_("doubtful"), "red") if answer.doubtful else Text(_("reads it"), "green")
        lines = [f"{kind} = {value}" for kind, value in answer.identifiers.items()]
        lines += [f"{flag}: {flag_text(flag)}" for flag in answer.flags]
        add_row(rows, name, state, "\n".join(lines))
    for where, found in own.items():
        if found:
            lines = [f"{kind} = {value}" for kind, value in found.items()]
            add_row(rows, f"{where}.pattern", Text(_("reads it"), "green"), "\n".join(lines))
        else:
            why = Text(_("the pattern does not match the whole label"), "dim")
            add_row(rows, f"{where}.pattern", Text("–", "dim"), why)
    if not answers and not own:
        say(out, _("the configuration has no label rules and no patterns"))
    out.print(rows)
