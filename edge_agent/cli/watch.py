"""`edge-agent watch`: what a device says, live: values with their age, what changes, what is scanned, how fast it is.

On a terminal a table is redrawn; in a pipe each change is a line, so that it can be searched and kept. Values come from
the running agent, which reads as the configuration says: watching reads nothing more. What goes by faster than it is
shown is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import deque
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_agent.cli import ExitCode, UsageProblem
from edge_agent.cli.at_device import DeviceName, Look, looking
from edge_agent.cli.datadir import DataDir
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
from edge_agent.driver import parse_duration
from edge_agent.i18n import _, translate

REDRAW_S = 0.25
ONCE_S = 5.0  # so long `--once` waits for a device that it has to open first
RATE_S = 5.0
SCANS_SHOWN = 8
VALUE_SHOWN = 60  # characters
_STATE_STYLE = {"connected": "green", "connecting": "yellow"}

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help=_("groups or tags; default: all"))]
Once = Annotated[bool, typer.Option("--once", help=_("show it once and end"))]
For = Annotated[str | None, typer.Option("--for", metavar="TIME", help=_("end after this time, e.g. 10s"))]


def command(
    ctx: typer.Context,
    device: DeviceName,
    names: Names = None,
    once: Once = False,
    for_: For = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a device says, live: values, changes, scans, rates, errors."""
    try:
        for_s = None if for_ is None else parse_duration(for_)
    except ValueError as error:
        raise UsageProblem(f"--for: {error}", hint="write e.g. --for 10s") from error

    async def watch() -> dict[str, Any]:
        with _ended_by_signals(), contextlib.suppress(asyncio.CancelledError):
            async with looking(ctx, data_dir, device) as look:
                if once:
                    return await _once(look, names or [], ONCE_S if for_s is None else for_s)
                with _view(device, look, as_json=as_json) as view:
                    await _watch(look, names or [], view, for_s)
        return {}

    facts = asyncio.run(watch())
    if once and facts:
        if as_json:
            emit_json(instants_as_text({"device": device} | facts))
        else:
            console().print(_Drawing(device, facts.pop("told")).draw(facts))
        if facts["state"] != "connected":
            raise typer.Exit(ExitCode.PROBLEM)


@contextlib.contextmanager
def _ended_by_signals() -> Any:
    """Ctrl-C and a stop end the watching as if it were over: connections are closed, the terminal is as it was."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _once(look: Look, names: list[str], wait_s: float) -> dict[str, Any]:
    """The first look that shows all that is read by itself, or the last one in time."""
    until = time.monotonic() + wait_s
    while True:
        facts = await look.values(names, 0, 0)
        whole = not facts["unread"] or (facts["values"] and not look.reads_all)
        if (facts["state"] == "connected" and whole) or time.monotonic() >= until:
            return facts | {"told": look.told}
        await asyncio.sleep(0.1)


async def _watch(look: Look, names: list[str], view: _View, for_s: float | None) -> None:
    until = None if for_s is None else time.monotonic() + for_s
    change = scan = 0
    while True:
        facts = await look.values(names, change, scan)
        view.show(facts, change, scan)
        change, scan = facts["change"], facts["scan"]
        if until is not None and time.monotonic() >= until:
            return
        await asyncio.sleep(REDRAW_S)


# --- ways to show it -----------------------------------------------------------------------------------------


class _View(contextlib.AbstractContextManager[Any]):
    """``show`` is called with every look, and the numbers that were seen before it."""

    def show(self, facts: dict[str, Any], change: int, scan: int) -> None: ...
    def __exit__(self, *exc: object) -> None: ...


def _view(device: str, look: Look, *, as_json: bool) -> _View:
    if as_json:
        return _Json(device)
    out = console()
    return _Table(out, device, look.told) if out.is_terminal else _Lines(out, device, look.told)


class _Table(_View):
    """Redrawn in place."""

    def __init__(self, out: Console, device: str, told: str) -> None:
        self._drawing = _Drawing(device, told)
        self._live = Live(console=out, auto_refresh=False, vertical_overflow="ellipsis")

    def __enter__(self) -> _Table:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, facts: dict[str, Any], change: int, scan: int) -> None:
        self._live.update(self._drawing.draw(facts), refresh=True)


class _Lines(_View):
    """A line for every change, scan and change of state."""

    def __init__(self, out: Console, device: str, told: str) -> None:
        self._out, self._device = out, device
        self._state: tuple[str, str] | None = None
        self._first = True
        say(out, f"{device}: {told}")

    def show(self, facts: dict[str, Any], change: int, scan: int) -> None:
        if (state := (facts["state"], facts["error"])) != self._state:
            self._state = state
            say(
                self._out,
                f"{self._device} {_(facts['state'])}" + (f": {translate(facts['error'])}" if state[1] else ""),
            )
        if self._first and facts["values"]:
            for group, tags in facts["values"].items():
                for tag in tags:
                    self._value(group, tag)
        else:
            if facts["missed"]:
                say(self._out, _("{count} changes went by faster than they are shown").format(count=facts["missed"]))
            for one in facts["changes"]:
                self._value(one["group"], one)
        for one in facts["scanned"] if not self._first or scan else []:
            say(self._out, f"{local_time(one['at_ns'])}  {_scan_text(one)}")
        self._first = self._first and not facts["values"] and facts["state"] != "connected"
        sys.stdout.flush()

    def _value(self, group: str, tag: dict[str, Any]) -> None:
        at = local_time(tag.get("source_ns", tag["at_ns"]))
        text = f"{at}  {group}.{tag['tag']} {value_text(tag['value'])} {tag['unit']}".rstrip()
        say(self._out, text + (f"  ({translate(tag['status'])})" if tag["status"] else ""))


class _Json(_View):
    """An object a line: value, scan, device."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._state: tuple[str, str] | None = None
        self._values = False
        self._last: dict[str, Any] = {}

    def show(self, facts: dict[str, Any], change: int, scan: int) -> None:
        about = {key: value for key, value in facts.items() if key not in ("values", "changes", "scanned")}
        self._last = instants_as_text(about)
        if (state := (facts["state"], facts["error"])) != self._state:
            self._state = state
            self._print("device", self._last)
        if not self._values:
            self._values = bool(facts["values"])
            for group, tags in facts["values"].items():
                for tag in tags:
                    self._print("value", {"group": group} | tag)
        else:
            for one in facts["changes"]:
                self._print("value", one)
        for one in facts["scanned"]:
            self._print("scan", one)
        sys.stdout.flush()

    def __exit__(self, *exc: object) -> None:
        self._print("device", self._last)

    def _print(self, event: str, facts: dict[str, Any]) -> None:
        sys.stdout.write(orjson.dumps({"event": event, "device": self._device} | facts).decode() + "\n")


# --- the table -----------------------------------------------------------------------------------------------


class _Drawing:
    """Draws a look; remembers the ones before for how often each tag changes."""

    def __init__(self, device: str, told: str) -> None:
        self._device, self._told = device, told
        self._scans: deque[dict[str, Any]] = deque(maxlen=SCANS_SHOWN)
        self._seen: deque[tuple[float, dict[tuple[str, str], int]]] = deque()

    def draw(self, facts: dict[str, Any]) -> RenderableType:
        self._remember(facts)
        parts: list[RenderableType] = [*self._head(facts), Text()]
        if facts["values"]:
            parts.append(self._values(facts["values"]))
        if facts["unread"]:
            parts.append(Text(_("not read yet: {groups}").format(groups=_(", ").join(facts["unread"])), "dim"))
        if self._scans:
            parts += [Text(), *(Text(f"{local_time(one['at_ns'])}  {_scan_text(one)}") for one in self._scans)]
        return Group(*parts)

    def _remember(self, facts: dict[str, Any]) -> None:
        self._scans.extend(facts["scanned"])
        now = time.monotonic()
        counts = {(group, tag["tag"]): tag["changes"] for group, tags in facts["values"].items() for tag in tags}
        self._seen.append((now, counts))
        while now - self._seen[0][0] > RATE_S:
            self._seen.popleft()

    def _head(self, facts: dict[str, Any]) -> list[Text]:
        state = Text(_(facts["state"]), _STATE_STYLE.get(facts["state"], "red"))
        rates, trip = facts["rates"], facts["round_trip"]
        said = [_("{n}/s samples").format(n=rates["samples_per_s"]), _("{n}/s scans").format(n=rates["scans_per_s"])]
        if trip:
            said.append(_("round trip {mean} ms, {p95} ms in 95 %").format(mean=trip["mean_ms"], p95=trip["p95_ms"]))
        if facts["errors"]:
            counted = _(", ").join(f"{_(kind)} {count}" for kind, count in facts["errors"].items())
            said.append(_("errors: {list}").format(list=counted))
        first = Text.assemble((self._device, "bold"), f" ({facts['driver']})  ", state, f"  {_(', ').join(said)}")
        lines = [first, Text(self._told, "dim")]
        if facts["error"]:
            lines.append(Text(plain(translate(facts["error"])), "red"))
            lines += [Text(f"  → {plain(translate(facts['hint']))}")] if facts["hint"] else []
        return lines

    def _values(self, values: dict[str, list[dict[str, Any]]]) -> Table:
        sourced = any("source_ns" in tag for tags in values.values() for tag in tags)
        more = [_("SOURCE TIME")] if sourced else []
        rows = table(_("TAG"), _("VALUE"), _("STATUS"), _("AGE"), *more, _("CHANGES/S"))
        for group, tags in values.items():
            for tag in tags:
                age = span(max(0.0, time.time() - int(tag["at_ns"]) / 1e9))
                status = Text(plain(translate(tag["status"])), "yellow") if tag["status"] else Text(_("good"), "green")
                value = f"{value_text(tag['value'])} {tag['unit']}".rstrip()
                cells: list[str | Text] = [f"{group}.{tag['tag']}", value, status, age]
                cells += [local_time(tag.get("source_ns"), date=False)] if sourced else []
                add_row(rows, *cells, self._rate((group, tag["tag"])))
        return rows

    def _rate(self, key: tuple[str, str]) -> str:
        first_s, first = self._seen[0]
        last_s, last = self._seen[-1]
        if last_s - first_s < 1.0:
            return "–"
        return f"{(last.get(key, 0) - first.get(key, 0)) / (last_s - first_s):.1f}"


def value_text(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.10g}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_SHOWN else text[: VALUE_SHOWN - 1] + "…"


def _scan_text(scan: dict[str, Any]) -> str:
    if scan["status"] == "no_read":
        return _("no code was read")
    said = f" {scan['symbology']}" if scan["symbology"] else ""
    word = "" if scan["status"] == "read" else f"  ({_(scan['status'])})"
    return plain(f"{scan['text']}{said}{word}")
