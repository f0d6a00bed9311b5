"""`edge-agent camera snap`: one picture of a camera, what can be read in it, and the configuration that reads it.

Without --formats every format is looked for, which shows what is on the part; what was found then is the proposal. The
picture that is written has the codes framed in green and the proposed region in blue.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.output import AsJson, add_row, console, emit_json, say, say_added, table
from edge_agent.i18n import _, translate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edge_agent.bench import Snapshot

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Look through a camera."))


@command.callback()
def _group() -> None:
    """So that `snap` is a verb of its own."""


@command.command(help=_("Take a picture and show which codes are in it, and the configuration that reads them."))
def snap(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help=_("a camera, a stream, a picture, a folder, or a device of the configuration")
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help=_("write the picture, codes marked: seen.jpg")),
    ] = None,
    formats: Annotated[
        str, typer.Option("--formats", metavar="LIST", help=_("look only for these: datamatrix,code128; default: all"))
    ] = "",
    region: Annotated[
        str,
        typer.Option("--region", metavar="X,Y,W,H", help=_("look only there: 10%,0%,50%,100%, or pixels")),
    ] = "",
    user: Annotated[str, typer.Option("--user", metavar="NAME", help=_("of a network camera"))] = "",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", metavar="FILE", help=_("file that holds its password"))
    ] = None,
    add: Annotated[
        str, typer.Option("--add", metavar="NAME", help=_("write the device to the configuration under this name"))
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Exit 1 if no code was found."""
    from edge_agent.config.edit import append_device
    from edge_agent.driver import load_driver

    spec = load_driver("camera")
    look = spec.bench().snap if spec.bench is not None else None
    if look is None:
        raise UsageProblem(_("the driver {name} takes no pictures").format(name=spec.name))
    asked = {
        **({"formats": [one.strip() for one in formats.split(",")]} if formats else {}),
        **({"region": [_edge(one) for one in region.split(",")]} if region else {}),
        **({"user": user} if user else {}),
        **({"password": {"file": str(password_file.absolute())}} if password_file else {}),
    }
    if _is_source(source):
        place = source if "://" in source else str(Path(source).absolute())
        section = {"source": place, "formats": ["all"], **asked}
    else:
        section = {**_section_of(Globals.of(ctx).config, source), **asked}
    try:
        settings = spec.settings().model_validate(section)
    except ValidationError as error:
        raise UsageProblem(_first(error), hint=_("edge-agent camera snap --help")) from error
    seen = asyncio.run(_taken(look, settings))
    if out is not None:
        _write(out, seen.jpeg)
    lines = append_device(Globals.of(ctx).config, add, seen.section) if add else ""
    if as_json:
        emit_json(_described(seen, out))
    else:
        _show(seen, out, lines, add)
    if not seen.codes:
        raise typer.Exit(ExitCode.PROBLEM)


async def _taken(look: Callable[[Any], Awaitable[Snapshot]], settings: Any) -> Snapshot:
    return await look(settings)


def _is_source(text: str) -> bool:
    return "://" in text or "/" in text or Path(text).exists()


def _section_of(config: Path, name: str) -> dict[str, Any]:
    """The settings of a camera of the configuration. Raises UsageProblem or ConfigError."""
    from edge_agent.cli.at_device import device_section

    device = device_section(config, name)
    if device.spec.name != "camera":
        what = _("{name} is no camera, its driver is {driver}").format(name=name, driver=device.spec.name)
        raise UsageProblem(what, hint=_("name a camera's device, or its source, e.g. /dev/video0"))
    section: dict[str, Any] = device.settings.model_dump(exclude_unset=True, include=_SEEING)
    return section


_SEEING = {"source", "user", "password", "formats", "region"}  # the rest decides what is done with a picture


def _edge(text: str) -> int | str:
    text = text.strip()
    return int(text) if text.isdecimal() else text


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    text = str(first["msg"]).removeprefix("Value error, ")
    return ": ".join(filter(None, (".".join(map(str, first["loc"][:1])), text)))


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        what = _("{path} cannot be written: {why}").format(path=path, why=error.strerror)
        raise UsageProblem(what, hint=_("name another file")) from error


def _described(seen: Snapshot, out: Path | None) -> dict[str, Any]:
    codes = [
        asdict(code) | {"raw": code.raw.hex(), "text": code.raw.decode("utf-8", "backslashreplace")}
        for code in seen.codes
    ]
    shown = asdict(seen) | {"codes": codes, "file": str(out) if out else None}
    del shown["jpeg"]
    return shown


def _show(seen: Snapshot, out: Path | None, added: str, name: str) -> None:
    from edge_agent.config.render import as_yaml

    to = console()
    text = _("{width} × {height} pixels after {took:.0f} ms, brightness {brightness:.0f} %, sharpness {sharpness:.0f}")
    say(to, text.format(width=seen.width, height=seen.height, took=seen.took_ms, brightness=seen.brightness,
                        sharpness=seen.sharpness))  # fmt: skip
    rows = table(_("code"), _("format"), "AIM", _("decoder"), _("at"))
    for code in seen.codes:
        x, y = code.corners[0] if code.corners else (0, 0)
        shown = code.raw.decode("utf-8", "backslashreplace")
        add_row(rows, shown, code.format, code.symbology or "–", code.decoder, f"{x},{y}")
    if seen.codes:
        to.print(rows)
    else:
        say(to, _("no code was found"), "bold")
        say(to, f"  → {_hint(seen)}")
    for how, took_ms in seen.tries.items():
        say(to, _("{how}: {took:.0f} ms").format(how=translate(how), took=took_ms), "dim")
    if out is not None:
        say(to, _("the picture is in {path}").format(path=out))
    if added:
        say_added(to, added, name)
    elif seen.codes:
        text = _("this reads it in {took:.0f} ms; put it under devices:, or run this again with --add NAME")
        say(to, text.format(took=seen.section_ms))
        say(to, as_yaml({"camera": seen.section}, 2))


def _hint(seen: Snapshot) -> str:
    if seen.brightness < 15:
        return _("the picture is dark: more light, or a longer exposure")
    if seen.brightness > 90:
        return _("the picture is too bright: less light, or a shorter exposure")
    return _("look at the picture (--out): is the code in it, sharp, at least 3 pixels a module, with white around it?")
