"""`edge-agent listen-serial`: what a serial port (or a TCP port) says, byte for byte, and what it may be.

For the device whose manual is lost: plug it in, listen, make it speak. Bytes are shown as they come, printable and in
hexadecimal, with the pauses between them; then what frames them and which driver and protocol would explain them, and
the section of the config for it. Nothing is sent unless ``--send`` says so. The port must be free: an agent that has
it open keeps it. Ctrl-C ends the listening, not the guessing.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.output import AsJson, console, emit_json, say, say_added
from edge_agent.driver import load_driver, parse_duration
from edge_agent.i18n import _, translate

if TYPE_CHECKING:
    from rich.console import Console

    from edge_agent.bench import Heard, Likeness, Listening, Tried

DRIVER = "scanner"  # listens for all drivers of byte streams
ROW = 16  # bytes on a line
PAUSE_S = 0.05  # what is worth a line of its own
SHOWN = 3  # guesses

_FORMAT = re.compile(r"([78])([NEOneo])([12])")
_PARITIES = {"N": "none", "E": "even", "O": "odd"}
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|([rnt0\\])|(.?))")
_ESCAPED = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


def command(
    ctx: typer.Context,
    port: Annotated[
        str, typer.Argument(metavar="PORT", help=_("/dev/serial/by-id/NAME, usb:VID:PID or tcp://host:port"))
    ],
    baud: Annotated[int | None, typer.Option("--baud", metavar="N", help=_("bits per second; default 9600"))] = None,
    line: Annotated[
        str, typer.Option("--format", metavar="8N1", help=_("of the line: data bits, parity, stop bits"))
    ] = "",
    find_baud: Annotated[bool, typer.Option("--find-baud", help=_("try the usual rates, each for that long"))] = False,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help=_("how long to listen"))] = "10s",
    send: Annotated[
        str, typer.Option("--send", metavar="TEXT", help=_("send this first, e.g. 'S\\r\\n' or '\\x16T\\r'"))
    ] = "",
    add: Annotated[
        str, typer.Option("--add", metavar="NAME", help=_("add the likeliest to the configuration, by this name"))
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show what comes over a serial or TCP port and guess its protocol. Exit 1 if nothing is recognised."""
    spec = load_driver(DRIVER)
    bench = spec.bench and spec.bench().listening
    assert bench is not None
    sent, for_s = _unescaped(send), _seconds(duration)
    try:
        settings: Any = spec.settings().model_validate({"port": port, **_line(baud, line)})
    except ValidationError as error:
        what = "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in error.errors())
        raise UsageProblem(what, hint=_("see what is plugged in: edge-agent devices scan")) from error
    if find_baud and settings.address is not None:
        raise UsageProblem(_("{port} has no baud rate here").format(port=port), hint=_("leave --find-baud out"))
    view = _View(None if as_json else console())
    settings, heard = asyncio.run(_listened(bench, settings, sent, for_s, find_baud, view))
    likely = bench.recognize(settings, sent, heard)
    best = next((one for one in likely if one.section), None)
    added = _added(ctx, add, best) if add else ""
    if as_json:
        emit_json(_document(port, settings.baud, heard, likely))
    else:
        view.conclude(likely, added, add, heard)
    if best is None:
        raise typer.Exit(ExitCode.PROBLEM)


async def _listened(
    bench: Listening, settings: Any, sent: bytes, for_s: float, find_baud: bool, view: _View
) -> tuple[Any, list[Heard]]:
    """What was heard, and with which settings."""
    heard: list[Heard] = []
    best: Tried | None = None

    async def listen() -> None:
        nonlocal best
        if not find_baud:
            view.begin(settings.port, settings.baud, for_s)
            async for one in bench.hear(settings, sent, for_s):
                heard.append(one)
                view.show(one)
            return
        async for tried in bench.try_rates(settings, sent, for_s):
            view.tried(tried)
            best = tried if best is None or tried.score > best.score else best

    listening = asyncio.ensure_future(listen())
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, listening.cancel)
    await asyncio.wait([listening])
    if not listening.cancelled():
        listening.result()
    if best is None:
        return settings, heard
    for one in best.heard:
        view.show(one)
    return settings.model_copy(update={"baud": best.baud}), list(best.heard)


def _added(ctx: typer.Context, name: str, best: Likeness | None) -> str:
    """The lines that were added to the configuration."""
    if best is None:
        raise UsageProblem(_("nothing was recognised that could be added"), hint=_("listen longer, or to more of it"))
    from edge_agent.config.edit import append_device

    return append_device(Globals.of(ctx).config, name, best.section)


def _document(port: str, baud: int, heard: Sequence[Heard], likely: Sequence[Likeness]) -> dict[str, Any]:
    return {
        "port": port,
        "baud": baud,
        "heard": [
            {"after_s": round(one.after_s, 6), "hex": one.data.hex(), "text": _printable(one.data), "error": one.error}
            for one in heard
        ],
        "guesses": [
            {"score": one.score, "what": one.what, "section": dict(one.section), "notes": list(one.notes)}
            for one in likely
        ],
    }


class _View:
    """What is printed; nothing without a console."""

    def __init__(self, out: Console | None) -> None:
        self._out = out
        self._last_s: float | None = None

    def begin(self, port: str, baud: int, for_s: float) -> None:
        """Say that it is the device's turn."""
        text = _("{port}: listening for {seconds} s; make the device speak")
        if not port.startswith("tcp:"):
            text = _("{port}, {baud} baud: listening for {seconds} s; make the device speak")
        self._say(text.format(port=port, baud=baud, seconds=f"{for_s:g}"), "dim")

    def tried(self, tried: Tried) -> None:
        """One baud rate was tried."""
        count = sum(len(one.data) for one in tried.heard)
        text = _("{baud} baud: {count} bytes, {share} % clear")
        self._say(text.format(baud=tried.baud, count=count, share=round(tried.score * 100)))

    def show(self, one: Heard) -> None:
        """Rows of bytes, and the pause before them."""
        if self._last_s is not None and one.after_s - self._last_s > PAUSE_S:
            self._say(f"{'':10}· · · {one.after_s - self._last_s:.3f} s", "dim")
        self._last_s = one.after_s + one.lasted_s
        if one.error:
            self._say(f"{one.after_s:8.3f}  {translate(one.error)}", "bold")
        for at in range(0, len(one.data), ROW):
            row = one.data[at : at + ROW]
            when = f"{one.after_s:8.3f}" if at == 0 else ""
            self._say(f"{when:8}  {_printable(row):{ROW}}  {row.hex(' ').upper()}")

    def conclude(self, likely: Sequence[Likeness], added: str, name: str, heard: Sequence[Heard]) -> None:
        """What it may be, and the lines for the configuration."""
        from edge_agent.config.render import as_yaml

        self._say()
        for note in likely[0].notes:
            self._say(f"  {translate(note)}")
        for one in likely[:SHOWN]:
            share = f"{one.score * 100:3.0f} %  " if one.section else ""
            self._say(f"{share}{translate(one.what)}")
        if added and self._out is not None:
            say_added(self._out, added, name)
        elif likely[0].section:
            sections: Mapping[str, Any] = {"devices": {"device": likely[0].section}}
            self._say(f"\n{as_yaml(sections)}", "dim")
            self._say("  → " + _("put it under devices:, or run this again with --add NAME"))
        elif not heard:
            self._say("  → " + _("is it on, are TX and RX crossed? A scanner must scan; a scale may have to be asked:"))
            self._say(r"    --send 'S\r\n' " + _("(in quotes); another baud rate: --find-baud"))

    def _say(self, text: str = "", style: str = "") -> None:
        if self._out is not None:
            say(self._out, text, style)


def _printable(data: bytes) -> str:
    """One sign a byte: control characters as their pictures, · for what is above ASCII."""
    return "".join(chr(0x2400 + byte) if byte < 0x20 else chr(byte) if byte < 0x7F else "·" for byte in data)


def _line(baud: int | None, text: str) -> dict[str, Any]:
    keys: dict[str, Any] = {} if baud is None else {"baud": baud}
    if text:
        match = _FORMAT.fullmatch(text)
        if match is None:
            raise UsageProblem(_("{text} is no line format").format(text=text), hint=_("write 8N1, 8E1 or 7E1"))
        keys |= {"data_bits": int(match[1]), "parity": _PARITIES[match[2].upper()], "stop_bits": int(match[3])}
    return keys


def _seconds(text: str) -> float:
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise UsageProblem(str(error), hint=_("write e.g. --for 30s")) from error
    if not 0 < found <= 3600:
        raise UsageProblem(_("--for {text} is too long or too short").format(text=text), hint=_("write e.g. --for 30s"))
    return found


def _unescaped(text: str) -> bytes:
    """What ``--send`` means: \\r, \\n, \\t, \\0, \\\\ and \\x02 are one byte each."""

    def byte(match: re.Match[str]) -> str:
        if match[3] is not None:
            hint = _("write \\r, \\n, \\t, \\0, \\\\ or two hexadecimal digits: \\x02")
            raise UsageProblem(_("--send: {text} is not understood").format(text=match[0]), hint=hint)
        return chr(int(match[1], 16)) if match[1] else _ESCAPED[match[2]]

    try:
        return _ESCAPE.sub(byte, text).encode("latin-1")
    except UnicodeEncodeError as error:
        hint = _("write \\r, \\n, \\t, \\0, \\\\ or two hexadecimal digits: \\x02")
        raise UsageProblem(_("--send: {text} is not understood").format(text=text), hint=hint) from error
