"""`edge-agent devices`: find what is plugged in, and what answers where it was told to look.

Every installed driver that can scan is asked, one after the other, since two of them on one serial port would hear each
other. Nothing is asked that was not named: without --subnet, --host or --port only what is plugged into this PC. Public
addresses are refused unless --anywhere says that they are meant: a wrong digit must not probe a stranger.

A driver whose library is missing, or whose scan fails, is a line among the others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import shlex
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.output import AsJson, console, emit_json, say
from edge_agent.errors import DriverError, EdgeAgentError
from edge_agent.i18n import _, explain, ngettext, translate

if TYPE_CHECKING:
    from edge_agent.bench import Found, Section, Where

MAX_ADDRESSES = 1024
MAX_UNIT = 255
_RANGE = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Find devices."))


@command.callback()
def _group() -> None:
    """So that `scan` is a verb of its own."""


@dataclass(slots=True)
class _Result:
    """What all scans gave so far."""

    found: list[Found] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)  # name → lines
    sections: dict[str, Section] = field(default_factory=dict)  # name → what was added


@command.command(
    help=_("Find what is plugged into this PC, and what answers on hosts and serial ports that are named.")
)
def scan(
    ctx: typer.Context,
    subnet: Annotated[
        list[str] | None, typer.Option("--subnet", metavar="NET", help=_("ask every address of it: 192.168.1.0/24"))
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="HOST", help=_("ask this host; HOST:PORT for an unusual port"))
    ] = None,
    port: Annotated[
        list[str] | None, typer.Option("--port", metavar="PORT", help=_("speak to this serial port: /dev/ttyUSB0"))
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option("--unit", metavar="IDS", help=_("Modbus unit ids to ask: 1-10,17"))
    ] = None,
    driver: Annotated[
        list[str] | None, typer.Option("--driver", metavar="NAME", help=_("only this driver's devices"))
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.05, max=10, help=_("seconds to wait for one answer"))
    ] = 0.5,
    anywhere: Annotated[bool, typer.Option("--anywhere", help=_("also addresses that are not private"))] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add", metavar="WHERE=NAME", help=_("write what is found at WHERE to the configuration, as NAME")
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Exit 1 if nothing was found."""
    from edge_agent.bench import Where
    from edge_agent.config.edit import append_device
    from edge_agent.config.tree import read_text

    wanted = dict(_wanted(text) for text in add or ())
    hosts = (*_expanded(subnet or (), anywhere), *_judged(host or (), anywhere))
    places = [Where(hosts=hosts)] if hosts else []
    places += [Where(ports=(_port(one),)) for one in port or ()]
    units = _units(unit or ())
    places = [replace(place, units=units, timeout_s=timeout) for place in places or [Where()]]
    if wanted:
        read_text(Globals.of(ctx).config)  # without the file nothing can be added: told before a long scan
    result = _Result()
    asyncio.run(_scan(places, driver or (), result, None if as_json else wanted))
    for text in _silent(subnet or (), host or (), result.found):
        _note(result, "", text, _("nothing answered there"), not as_json)
    for name, found in [(name, _chosen(result.found, which, name)) for which, name in wanted.items()]:
        result.added[name] = append_device(Globals.of(ctx).config, name, found.section)
        result.sections[name] = found.section
    if as_json:
        emit_json(_described(result))
    else:
        _show_end(result)
    if not result.found:
        raise typer.Exit(ExitCode.PROBLEM)


# --- where to look -------------------------------------------------------------------------------------------------


def _expanded(subnets: Sequence[str], anywhere: bool) -> list[str]:
    """The addresses of subnets. Raises UsageProblem for what is none, is too large, or is not ours."""
    hosts: list[str] = []
    for text in subnets:
        try:
            net = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            hint = _("write 192.168.1.0/24, or one address with --host")
            raise UsageProblem(_("{net!r} is no subnet").format(net=text), hint=hint) from error
        if len(hosts) + net.num_addresses > MAX_ADDRESSES + 2:
            what = _("{net} has more than {limit} addresses").format(net=text, limit=MAX_ADDRESSES)
            raise UsageProblem(what, hint=_("scan it in parts of /22 or smaller"))
        _refuse_public(text, [net.network_address, net.broadcast_address], anywhere)
        hosts += map(str, net.hosts())
    return hosts


def _judged(hosts: Sequence[str], anywhere: bool) -> list[str]:
    """Hosts as they were named, if they lie in a network of ours."""
    from edge_agent.bench import Where

    try:
        parts = Where(hosts=tuple(hosts)).addresses(1)
    except ValueError as error:
        raise UsageProblem(_("{host!r} is no host").format(host=" ".join(hosts)), hint=_host_hint()) from error
    for text, (name, _port_number) in zip(hosts, parts, strict=True):
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            raise UsageProblem(_("no such host: {host}").format(host=text), hint=_host_hint()) from error
        _refuse_public(text, [ipaddress.ip_address(str(one).partition("%")[0]) for one in found], anywhere)
    return list(hosts)


def _host_hint() -> str:
    return _("write an IP address, a name that is known, or HOST:PORT")


def _refuse_public(
    text: str, addresses: Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address], anywhere: bool
) -> None:
    ours = all(one.is_private or one.is_loopback or one.is_link_local for one in addresses)
    if not ours and not anywhere:
        what = _("{net} is not in a private network").format(net=text)
        raise UsageProblem(what, hint=_("is it right? If these are your own devices, add --anywhere"))


def _units(texts: Sequence[str]) -> tuple[int, ...]:
    """The unit ids of ``1-10,17``, each once."""
    units: dict[int, None] = {}
    for part in ",".join(texts).split(",") if texts else ():
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= MAX_UNIT:
            what = _("{text!r} are no unit ids").format(text=part)
            raise UsageProblem(what, hint=_("write numbers from 0 to 255: --unit 1-10,17"))
        units |= dict.fromkeys(range(first, last + 1))
    return tuple(units)


def _port(text: str) -> str:
    if not text.startswith(("/", "usb:")):
        hint = _("write /dev/serial/by-id/…, /dev/ttyUSB0 or usb:VID:PID; a serial server is a --host")
        raise UsageProblem(_("{port!r} is no serial port").format(port=text), hint=hint)
    return text


# --- asking --------------------------------------------------------------------------------------------------------


async def _scan(places: Sequence[Where], only: Sequence[str], result: _Result, shown: dict[str, str] | None) -> None:
    """Ask every driver about every place where it looks. With ``shown`` each device is printed when it is found."""
    from edge_agent.driver import driver_names, load_driver

    seen = set()
    for name in only or driver_names():
        try:
            make = load_driver(name).bench
            bench = make() if make is not None else None
        except ImportError as error:
            _note(result, name, "", _("cannot be loaded: {why}").format(why=error), shown is not None)
            continue
        if bench is None or bench.scan is None:
            if only:
                _note(result, name, "", _("this driver has no scan"), shown is not None)
            continue
        for place in places:
            if _kind(place) not in bench.looks_at:
                if only:
                    _note(result, name, "", _("this driver finds nothing there"), shown is not None)
                continue
            _progress(name, place)
            async for found in _devices(name, bench.scan(place), place, result, shown is not None):
                key = (found.driver, found.where, repr(found.section))
                if key not in seen:
                    seen.add(key)
                    result.found.append(found)
                    if shown is not None:
                        number = len(result.found)
                        _show(number, found, shown.get(found.where) or shown.get(str(number), ""))


def _kind(place: Where) -> str:
    return "ports" if place.ports else "hosts" if place.hosts else "plugged"


async def _devices(
    name: str, scan: AsyncIterator[Found], place: Where, result: _Result, show: bool
) -> AsyncIterator[Found]:
    """What one scan finds; its failure is a note."""
    where = " ".join(place.ports) or (place.hosts[0] if len(place.hosts) == 1 else "")
    try:
        async with aclosing(scan) as each:  # type: ignore[type-var]  # a driver's scan is an async generator
            async for found in each:
                yield found
    except DriverError as error:
        _note(result, name, where, explain(error), show)
    except (EdgeAgentError, ImportError, OSError, ValueError) as error:
        what = explain(error) if isinstance(error, EdgeAgentError) else f"{type(error).__name__}: {error}"
        _note(result, name, where, what, show)


def _note(result: _Result, driver: str, where: str, what: str, show: bool) -> None:
    result.problems.append({"driver": driver, "where": where, "what": what})
    if show:
        typer.echo(what if what.startswith(f"{driver}: ") else f"{driver or where}: {what}", err=True)


def _silent(subnets: Sequence[str], hosts: Sequence[str], found: Sequence[Found]) -> list[str]:
    """Those that were named and where nothing was found."""
    from edge_agent.bench import Where

    there = [urlsplit(one.where) for one in found if "://" in one.where]
    names = {one.hostname or "" for one in there}
    silent = [text for text in subnets if not any(_lies_in(name, text) for name in names)]
    for text, (name, port) in zip(hosts, Where(hosts=tuple(hosts)).addresses(0), strict=True):
        if not any(one.hostname == name.lower() and port in (0, one.port) for one in there):
            silent.append(text)
    return silent


def _lies_in(name: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(subnet, strict=False)
    except ValueError:
        return False


def _progress(driver: str, place: Where) -> None:
    """On stderr, so that neither a pipe nor JSON sees it."""
    if place.ports:
        text = _("{driver}: asking on {port} …").format(driver=driver, port=place.ports[0])
    elif place.hosts:
        count = len(place.hosts)
        text = ngettext("{driver}: asking {count} address …", "{driver}: asking {count} addresses …", count)
        text = text.format(driver=driver, count=count)
    else:
        text = _("{driver}: looking at what is plugged in …").format(driver=driver)
    typer.echo(text, err=True)


# --- the configuration, and people ---------------------------------------------------------------------------------


def _wanted(text: str) -> tuple[str, str]:
    """Which device, and the name it gets."""
    which, _equals, name = text.rpartition("=")
    if not which or not name:
        hint = _("write the address as the list shows it, and a name: --add tcp://192.168.1.20:502=press")
        raise UsageProblem(_("--add {text}: is not understood").format(text=text), hint=hint)
    return which, name


def _chosen(found: Sequence[Found], which: str, name: str) -> Found:
    """The device at this address, or with this number. Raises UsageProblem for none and for several."""
    fit = [one for number, one in enumerate(found, 1) if which in (one.where, str(number)) and one.section]
    if not fit:
        what = _("--add {which}={name}: no device that could be added has this address or number")
        hint = _("run the scan without --add and look at its list")
        raise UsageProblem(what.format(which=which, name=name), hint=hint)
    if len(fit) > 1:
        what = _("--add {which}={name}: {count} devices have this address")
        hint = _("write the number of the list, or ask for one unit id with --unit")
        raise UsageProblem(what.format(which=which, name=name, count=len(fit)), hint=hint)
    return fit[0]


def _described(result: _Result) -> dict[str, Any]:
    found = [{"number": number, **asdict(one)} for number, one in enumerate(result.found, 1)]
    return {"found": found, "problems": result.problems, "added": result.added}


def _show(number: int, found: Found, name: str) -> None:
    from edge_agent.config.render import as_yaml

    out = console()
    say(out, f"{number:>3}  ", "bold", end="")
    say(out, f"{found.driver}  {found.where}")
    say(out, f"     {translate(found.what)}")
    if found.section:
        title = name or found.name or f"{found.driver}_{number}"
        say(out, as_yaml({title: found.section}, 7), "dim")


def _show_end(result: _Result) -> None:
    out = console()
    count = len(result.found)
    say(out, ngettext("{count} device found", "{count} devices found", count).format(count=count), "bold")
    for name, lines in result.added.items():
        say(out, _("added to the configuration as {name}:").format(name=name))
        say(out, lines)
        say(out, f"  → {_next(result, name)}")
    if result.problems and any(place.get("where", "").startswith(("/", "usb:")) for place in result.problems):
        say(out, "  → " + _("what speaks by itself (scanner, scale, RFID) is found by: edge-agent listen-serial PORT"))
    ready = [(number, one) for number, one in enumerate(result.found, 1) if one.section]
    if ready and not result.added:
        places = [one.where for _number, one in ready]
        which = next((where for where in places if places.count(where) == 1), str(ready[0][0]))
        hint = _("put a section under devices:, or run this again with --add {which}=NAME")
        say(out, "  → " + hint.format(which=shlex.quote(which)))


def _next(result: _Result, name: str) -> str:
    """What to type once a device stands in the file: choose what is read of it, or see what it says."""
    from edge_agent.driver import load_driver

    section = result.sections[name]
    spec = load_driver(section["driver"])
    bench = spec.bench() if spec.bench is not None else None
    if "security" in section and bench is not None and bench.trust is not None:
        return _("trust it: sudo edge-agent opcua trust {device}").format(device=name)
    if "groups" not in section and bench is not None and bench.probe is not None:
        return _("find its values: edge-agent probe {device} ADDRESS").format(device=name)
    if "groups" not in section and bench is not None and bench.browse is not None:
        text = _("choose its values: edge-agent browse {driver} {device}")
        return text.format(driver=section["driver"], device=name)
    return _("see its values: edge-agent watch {device}; a running agent takes it up when restarted").format(
        device=name
    )
