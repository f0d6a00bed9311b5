"""`edge-agent probe`: read one address in every way its driver knows, to point at the value that is right.

A technician knows what the display of the machine says, and not the type, the byte order, or whether the manual counts
from 0 or from 1. So the address and its neighbours are shown in every type and order, one table for each address;
``--expect`` marks the ways that give the value, also with the usual scales; ``--add`` writes the one that was chosen
to the configuration. Reads only. The table fits 80 columns, so long numbers are shortened there; --json has all digits.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.output import AsJson, add_row, console, emit_json, say, say_added, table
from edge_agent.driver import DriverSpec, driver_names, load_driver
from edge_agent.i18n import _, translate

if TYPE_CHECKING:
    from edge_agent.bench import Guess, Section

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
SCALES = (1.0, 0.1, 0.01, 0.001, 10.0)
TOLERANCE = 0.005  # of the expected value: it moves while one looks from the display to the screen
MATCHES_SHOWN = 8
EXACT = 1e-9
WIDTH = 15  # of a value in the table
_FORMAT = re.compile(r"([78])([NEOneo])([12])")
_PARITIES = {"N": "none", "E": "even", "O": "odd"}


@dataclass(frozen=True, slots=True)
class _Target:
    """Whom to ask, and about what."""

    spec: DriverSpec
    settings: Any
    address: str
    section: Section  # what makes it a device of the configuration, if it is none yet
    device: str = ""  # its name there, if it is one


@dataclass(frozen=True, slots=True)
class _Match:
    """A way to read that gives the expected value."""

    guess: Guess
    scale: float
    off: float  # how far from it, in parts of it

    @property
    def tag(self) -> dict[str, Any]:
        """What makes it a tag."""
        return {**self.guess.tag, **({"scale": self.scale} if self.scale != 1 else {})}


def command(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help=_("modbus, or a device of the configuration"))],
    first: Annotated[
        str, typer.Argument(metavar="CONNECTION", help=_("tcp://192.168.1.20 or rtu:///dev/ttyUSB0; not with DEVICE"))
    ],
    second: Annotated[
        str, typer.Argument(metavar="ADDRESS", help=_("holding:100, the bare number 100, or 40101 as in a manual"))
    ] = "",
    unit: Annotated[int | None, typer.Option("--unit", metavar="N", help=_("Modbus unit id"), min=0, max=255)] = None,
    baud: Annotated[int | None, typer.Option("--baud", metavar="N", help=_("of a serial line; default 9600"))] = None,
    serial: Annotated[
        str, typer.Option("--format", metavar="8E1", help=_("of a serial line: data bits, parity, stop bits"))
    ] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.05, max=10, help=_("seconds to wait for one answer"))
    ] = 1.0,
    expect: Annotated[
        str, typer.Option("--expect", metavar="VALUE", help=_("what it should be: show which ways give it"))
    ] = "",
    kind: Annotated[str, typer.Option("--type", metavar="TYPE", help=_("only this type: float32"))] = "",
    order: Annotated[str, typer.Option("--order", metavar="ORDER", help=_("only this byte order: CDAB"))] = "",
    add: Annotated[
        str,
        typer.Option(
            "--add", metavar="DEVICE.GROUP.TAG", help=_("write the one way that is left to the configuration")
        ),
    ] = "",
    poll: Annotated[
        str, typer.Option("--poll", metavar="TIME", help=_("with --add: how often a new group is read"))
    ] = "1s",
    as_json: AsJson = False,
) -> None:
    """Read an address in every type and byte order, its neighbours too. Exit 1 if there is no value."""
    if second:
        target_is = _by_driver(target, first, second, _section(target, first, unit, baud, serial, timeout))
    elif (unit, baud, serial) != (None, None, ""):
        raise UsageProblem(_("--unit, --baud and --format stand in the configuration of {name}").format(name=target))
    else:
        target_is = _by_device(Globals.of(ctx).config, target, first)
    expect = re.sub(r"^([-+]?[0-9]+),([0-9]+)$", r"\1.\2", expect)
    probed = asyncio.run(_probed(target_is))
    guesses = [each for each in probed if kind in ("", each.type) and order in ("", each.order)]
    if not guesses:
        ways = " ".join(
            dict.fromkeys([*(each.type for each in probed), *filter(None, (each.order for each in probed))])
        )
        hint = _("leave out --type and --order to see all; there are: {ways}").format(ways=ways)
        raise UsageProblem(_("no way to read it is left"), hint=hint)
    matches = _matches(guesses, expect) if expect else []
    lines = _add(Globals.of(ctx).config, add, target_is, _chosen(guesses, matches, expect), poll) if add else ""
    if as_json:
        found = [asdict(match.guess) | {"tag": match.tag} for match in matches]
        emit_json({"address": guesses[0].address, "guesses": list(map(asdict, guesses)), "matches": found})
    else:
        _show(console(), target_is.address, guesses)
        if expect:
            _show_matches(console(), matches, expect, chosen=bool(lines))
        if lines:
            say_added(console(), lines, add.partition(".")[0])
    if all(guess.value is None for guess in guesses):
        raise typer.Exit(ExitCode.PROBLEM)


# --- what to ask ---------------------------------------------------------------------------------------------------


def _section(driver: str, connection: str, unit: int | None, baud: int | None, form: str, timeout_s: float) -> Section:
    """The device's section of the configuration, as the options give it."""
    if "://" not in connection:
        connection = f"rtu://{connection}" if connection.startswith(("/", "usb:")) else f"tcp://{connection}"
    section: dict[str, Any] = {"driver": driver, "connection": connection}
    if unit is not None:
        section["unit_id"] = unit
    if timeout_s != 1.0:
        section["timeout"] = f"{timeout_s:g}s"
    line: dict[str, Any] = {} if baud is None else {"baud": baud}
    if form:
        match = _FORMAT.fullmatch(form)
        if match is None:
            raise UsageProblem(_("{text!r} is no format of a line").format(text=form), hint=_("write 8E1, 8N1 or 7E1"))
        line |= {"data_bits": int(match[1]), "parity": _PARITIES[match[2].upper()], "stop_bits": int(match[3])}
    return section | ({"serial": line} if line else {})


def _by_driver(driver: str, connection: str, address: str, section: Section) -> _Target:
    from edge_agent.config.render import as_yaml
    from edge_agent.config.report import Problems, validate
    from edge_agent.config.tree import Node, parse

    spec = load_driver(driver)
    problems = Problems("", parse(as_yaml(section), "", []) or Node({}, 1))
    settings, _cut = validate(spec.settings(), (), section, problems)
    for problem in problems.found:
        what = f"{problem.key}: {translate(problem.what)}"
        raise UsageProblem(what, hint=_("write tcp://192.168.1.20:502 or rtu:///dev/ttyUSB0"))
    return _Target(spec, settings, address, section)


def _by_device(path: Path, name: str, address: str) -> _Target:
    from edge_agent.config import load

    if name in driver_names():
        hint = _("edge-agent probe {driver} tcp://192.168.1.20 100").format(driver=name)
        raise UsageProblem(_("a driver needs a connection and an address"), hint=hint)
    config = load(path)
    if name not in config.devices:
        hint = _("choose from {names}").format(names=", ".join(config.devices))
        raise UsageProblem(_("{path} has no device {name!r}").format(path=path, name=name), hint=hint)
    device = config.devices[name]
    return _Target(device.spec, device.settings, address, {}, name)


async def _probed(target: _Target) -> Sequence[Guess]:
    probe = target.spec.bench().probe if target.spec.bench is not None else None
    if probe is None:
        hint = _("edge-agent browse {name} …, or edge-agent watch DEVICE").format(name=target.spec.name)
        raise UsageProblem(_("the driver {name} has no probe").format(name=target.spec.name), hint=hint)
    return await probe(target.settings, target.address)


# --- what was expected, and what is chosen -------------------------------------------------------------------------


def _matches(guesses: Sequence[Guess], expect: str) -> list[_Match]:
    """The ways that give the expected value, the simplest first."""
    asked = guesses[0].address
    found = [match for guess in guesses if (match := _match(guess, expect)) is not None]
    return sorted(found, key=lambda match: (match.scale != 1, match.guess.address != asked, match.off > EXACT))


def _match(guess: Guess, expect: str) -> _Match | None:
    try:
        wanted = float(expect)
    except ValueError:
        same = guess.value is not None and expect.casefold() == str(guess.value).casefold()
        return _Match(guess, 1.0, 0.0) if same else None
    number = _number(guess)
    if number is None or not math.isfinite(wanted):
        return None
    digits = len(expect.partition(".")[2]) if "e" not in expect.lower() else 0
    bound = max(TOLERANCE * abs(wanted), 0.5 * 10**-digits if digits else 0.0)
    for scale in SCALES:
        off = abs(number * scale - wanted)
        if off <= bound:
            return _Match(guess, scale, off)
    return None


def _number(guess: Guess) -> float | None:
    """The value as a number, if it is one; wide integers are texts."""
    if guess.type in ("bool", "string") or guess.value is None:
        return None
    return float(guess.value)


def _chosen(guesses: Sequence[Guess], matches: Sequence[_Match], expect: str) -> Section:
    """The one way at the asked address that is left. Raises UsageProblem for none or several."""
    asked = guesses[0].address
    ways = matches if expect else [_Match(guess, 1.0, 0.0) for guess in guesses]
    ways = [way for way in ways if way.guess.address == asked and way.guess.value is not None]
    if {way.guess.order for way in ways} == {"ABCD", "BADC"} and len({way.guess.type for way in ways}) == 1:
        ways = [way for way in ways if way.guess.order == "ABCD"]  # of one word: as Modbus means it, not swapped
    ways = [way for way in ways if way.scale == 1] or ways
    if len(ways) == 1:
        return ways[0].tag
    left = ", ".join(f"{way.guess.type} {way.guess.order}".strip() for way in ways[:MATCHES_SHOWN])
    what = _("--add needs one way to read {address}; left are: {ways}").format(address=asked, ways=left or "–")
    raise UsageProblem(what, hint=_("choose with --type and --order, e.g. --type float32 --order CDAB"))


def _add(path: Path, add: str, target: _Target, tag: Section, poll: str) -> str:
    """Write the tag to the configuration, with its device if that is new there; the lines added."""
    from edge_agent.config.edit import append_device, append_tags
    from edge_agent.config.tree import parse, read_text

    device, group, name = (*add.split("."), "", "")[:3]
    if add.count(".") != 2 or not (device and group and name):
        hint = _("write DEVICE.GROUP.TAG: --add press.result.force")
        raise UsageProblem(_("--add {text}: is not understood").format(text=add), hint=hint)
    if target.device and device != target.device:
        raise UsageProblem(
            _("the address was read from {name}, not from {other}").format(name=target.device, other=device)
        )
    root = parse(read_text(path), str(path), [])
    known = (root.value or {}).get("devices") if root is not None and isinstance(root.value, dict) else None
    if isinstance(known, dict) and device in known:
        return append_tags(path, device, group, {name: tag}, poll)
    return append_device(path, device, {**target.section, "groups": {group: {"poll": poll, "tags": {name: tag}}}})


# --- for people ----------------------------------------------------------------------------------------------------


def _show(out: Console, asked: str, guesses: Sequence[Guess]) -> None:
    address = guesses[0].address
    if address not in (asked, f"holding:{asked}"):
        text = _("{text} is {address} here, counted from 0; if another is meant, write its table: holding:{text}")
        say(out, text.format(text=asked, address=address))
    places: dict[str, list[Guess]] = {}
    for guess in guesses:
        places.setdefault(guess.address.partition(".")[0], []).append(guess)
    for place, ways in places.items():
        _show_place(out, place, ways, place == address)


def _show_place(out: Console, place: str, ways: Sequence[Guess], asked: bool) -> None:
    """One address: a table of types and orders, then the bytes, bits and texts."""
    whys = list(dict.fromkeys(way.why for way in ways if way.value is None))
    if len(whys) == 1 and all(way.value is None for way in ways):
        say(out, f"\n{place}  {translate(whys[0])}", "bold" if asked else "")
        return
    say(out, f"\n{place}", "bold" if asked else "")
    cells: dict[str, dict[str, Guess]] = {}
    for way in ways:
        if way.order and way.type != "string":
            cells.setdefault(way.type, {})[way.order] = way
    if cells:
        rows = table(_("TYPE"), *ORDERS)
        for kind, by_order in cells.items():
            add_row(rows, kind, *(_cell(by_order.get(order)) for order in ORDERS))
        out.print(rows)
    for way in ways:
        if way.type == "string" and way.value:
            say(out, f"string   {way.order}  {way.value!r}")
    for line in _small(place, ways):
        say(out, line)
    for why in whys:
        if why.startswith("exception"):
            kinds = dict.fromkeys(way.type for way in ways if way.why == why)
            say(out, f"–  {translate(why)}: {', '.join(kinds)}", "dim")


def _small(place: str, ways: Sequence[Guess]) -> list[str]:
    """The bytes and bits of a register on two lines; a coil on one."""
    lines = []
    if halves := [way for way in ways if not way.order and way.type != "bool" and way.value is not None]:
        lines.append("   ".join(f"{way.address.rpartition('.')[2]} {way.type} {way.value}" for way in halves))
    bits = [way for way in ways if way.type == "bool" and way.value is not None]
    if [way.address for way in bits] == [place]:
        lines.append(f"bool  {_short(bits[0].value)}")
    elif bits:
        on = " ".join(way.address.rpartition(".")[2] for way in bits if way.value)
        lines.append(_("bits that are on: {bits}").format(bits=on or "–"))
    return lines


def _cell(guess: Guess | None) -> Text:
    if guess is None:
        return Text("")
    if guess.value is None:
        return Text("–", "dim")
    number = _number(guess) or 0.0
    odd = guess.type.startswith("float") and number != 0 and not 1e-4 <= abs(number) < 1e8
    return Text(_short(guess.value), "dim" if odd else "")


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:.7g}" if isinstance(value, float) else str(value)
    return text if len(text) < WIDTH else f"{float(value):.5e}"


def _show_matches(out: Console, matches: Sequence[_Match], expect: str, *, chosen: bool) -> None:
    if not matches:
        say(out, "\n" + _("nothing here reads as {value}").format(value=expect), "yellow")
        say(out, "  → " + _("is it the right table (input, holding) and unit id? Look some addresses further"))
        return
    say(out, "\n" + _("reads as {value}:").format(value=expect), "bold")
    rows = table(_("ADDRESS"), _("TYPE"), _("ORDER"), _("SCALE"), _("VALUE"))
    for match in matches[:MATCHES_SHOWN]:
        guess = match.guess
        scale = "" if match.scale == 1 else f"{match.scale:g}"
        add_row(rows, guess.address, guess.type, guess.order, scale, _short(guess.value))
    out.print(rows)
    if not chosen:
        say(out, "  → " + _("choose with --type and --order, and write it down with --add DEVICE.GROUP.TAG"))
