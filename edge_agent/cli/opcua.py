"""`edge-agent opcua`: the certificates of both sides of a secure connection.

Ours is made here and nowhere else, and a server is trusted here and nowhere else: the agent makes no certificate and
trusts nobody by itself. ``trust`` fetches the server's certificate over the network, in clear; what makes it safe is
the person who compares its thumbprint with the one that the server's own tool shows.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edge_agent import clock
from edge_agent.cli import ExitCode, Globals, UsageProblem
from edge_agent.cli.browse import Target, target_of
from edge_agent.cli.output import AsJson, console, emit_json, instants_as_text, local_time, say
from edge_agent.driver import load_driver
from edge_agent.errors import EdgeAgentError
from edge_agent.i18n import _, translate

if TYPE_CHECKING:
    from edge_agent.bench import Certificate, Trust

SOON_NS = 60 * 86400 * 10**9
BITS = (2048, 3072, 4096)

command = typer.Typer(add_completion=False, no_args_is_help=True, help=_("Certificates for OPC UA servers."))

Pki = Annotated[
    str, typer.Option("--pki", metavar="DIR", help=_("folder of the certificates; default /var/lib/edge-agent/opcua"))
]
DeviceName = Annotated[str, typer.Option("--device", metavar="NAME", help=_("the folder that this device names"))]


@command.command(help=_("Show this PC's certificate; make it if there is none yet."))
def certificate(
    ctx: typer.Context,
    pki: Pki = "",
    device: DeviceName = "",
    renew: Annotated[
        bool, typer.Option("--renew", help=_("make a new one; servers must then be told to accept it"))
    ] = False,
    bits: Annotated[int, typer.Option("--bits", metavar="N", help=_("length of the key: 2048, 3072 or 4096"))] = 2048,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help=_("a copy for the server: .der, or .pem as text"))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The key stays where it is made."""
    if bits not in BITS:
        raise UsageProblem(_("a key has 2048, 3072 or 4096 bits"), hint="--bits 2048")
    trust = _trust()
    folder = _folder(ctx, trust, pki, device)
    before = trust.own(folder)
    made = before is None or renew
    ours = trust.make(folder, bits) if made or before is None else before
    if export is not None:
        _export(export, ours)
    if as_json:
        emit_json(_described(ours) | {"made": made})
        return
    out = console()
    if made:
        say(out, _("a new certificate was made"), "green")
    _show(out, ours)
    if export is not None:
        say(out, _("exported to {path}").format(path=export))
    if made:
        text = _(
            "give {path} to the server's administrator, or accept it in the server's list of rejected certificates"
        )
        say(out, "  → " + text.format(path=export or ours.path))


@command.command(help=_("Trust a server: fetch its certificate, compare it with a person's eyes, keep it as trusted."))
def trust(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help=_("a device of the configuration, or opc.tcp://192.168.1.20"))
    ],
    thumbprint: Annotated[
        str, typer.Option("--thumbprint", metavar="HEX", help=_("as the server's own tool shows it; asks nothing then"))
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help=_("do not ask"))] = False,
    pki: Annotated[str, typer.Option("--pki", metavar="DIR", help=_("with a URL: folder of the certificates"))] = "",
    as_json: AsJson = False,
) -> None:
    """Exit 1 if it is not trusted afterwards."""
    offered_by = _trust()
    more = {"security": {"pki": pki}} if pki else {}
    asked = target_of(Globals.of(ctx).config, "opcua", target, **more)
    if asked.device and pki:
        raise UsageProblem(_("the configuration says which folder {name} has").format(name=asked.device))
    found = asyncio.run(_fetched(offered_by, asked, target))
    chosen = _chosen(found, thumbprint)
    folder = offered_by.pki_of(asked.settings)
    out = console()
    if not as_json:
        _show_server(out, found)
    if not any(one.trusted for one in chosen):
        if not (thumbprint or yes or _agreed(as_json)):
            say(out, _("nothing was changed"))
            raise typer.Exit(ExitCode.PROBLEM)
        paths = [offered_by.accept(folder, one) for one in chosen]
    else:
        paths = []
    if as_json:
        emit_json({"certificates": [_described(one) for one in found], "trusted": paths})
    else:
        say(out, _("trusted: {path}").format(path=", ".join(paths)) if paths else _("it is trusted already"), "green")
    if any(clock.now().at_ns > one.ends_ns for one in chosen):
        raise typer.Exit(ExitCode.PROBLEM)


@command.command("list", help=_("Show whom we trust, and which servers were turned away."))
def listed(ctx: typer.Context, pki: Pki = "", device: DeviceName = "", as_json: AsJson = False) -> None:
    """Of one folder of certificates."""
    offered_by = _trust()
    trusted, rejected = offered_by.listed(_folder(ctx, offered_by, pki, device))
    if as_json:
        emit_json({"trusted": list(map(_described, trusted)), "rejected": list(map(_described, rejected))})
        return
    out = console()
    for heading, found in ((_("trusted"), trusted), (_("turned away"), rejected)):
        say(out, heading, "bold")
        for one in found:
            _show(out, one)
        if not found:
            say(out, f"  {_('none')}\n", "dim")


def _trust() -> Trust:
    spec = load_driver("opcua")
    found = spec.bench().trust if spec.bench is not None else None
    assert found is not None
    return found


def _folder(ctx: typer.Context, trust: Trust, pki: str, device: str) -> str:
    if device and pki:
        raise UsageProblem(_("--pki and --device mean the same"), hint=_("write one of them"))
    return (
        trust.pki_of(target_of(Globals.of(ctx).config, "opcua", device).settings)
        if device
        else pki or trust.default_pki
    )


async def _fetched(trust: Trust, target: Target, name: str) -> Sequence[Certificate]:
    return await trust.shown(target.settings, name)


def _chosen(found: Sequence[Certificate], thumbprint: str) -> Sequence[Certificate]:
    """Those to trust. Raises EdgeAgentError when the server shows another than the one that was expected."""
    wanted = "".join(sign for sign in thumbprint.upper() if sign.isalnum())
    if not wanted:
        return found
    chosen = [one for one in found if one.thumbprint == wanted]
    if not chosen:
        what = _("the server shows another certificate: {thumbprints}")
        hint = _("is it the right server? Somebody may stand between; look at the thumbprint in the server's own tool")
        raise EdgeAgentError(what.format(thumbprints=", ".join(one.thumbprint for one in found)), hint=hint)
    return chosen


def _agreed(as_json: bool) -> bool:
    """A person says so. Raises UsageProblem where nobody can be asked."""
    if as_json or not sys.stdin.isatty():
        hint = _("write --thumbprint HEX as the server's own tool shows it, or --yes")
        raise UsageProblem(_("nobody is here to compare the certificate"), hint=hint)
    return typer.confirm(_("Is this the thumbprint that the server's own tool shows? Trust it?"))


def _export(path: Path, ours: Certificate) -> None:
    as_text = path.suffix.lower() in (".pem", ".crt")
    data = ssl.DER_cert_to_PEM_cert(ours.der).encode() if as_text else ours.der
    try:
        path.write_bytes(data)
    except OSError as error:
        what = _("{path} cannot be written: {why}").format(path=path, why=error.strerror)
        raise EdgeAgentError(what, hint=_("write it elsewhere with --export")) from error


# --- for people ----------------------------------------------------------------------------------------------


def _show_server(out: Console, found: Sequence[Certificate]) -> None:
    for one in found:
        _show(out, one)
    if found[0].offers:
        say(out, _("the server offers: {offers}").format(offers=", ".join(found[0].offers)))


def _show(out: Console, one: Certificate) -> None:
    say(out, f"  {one.subject}", "bold")
    rows = [
        (_("thumbprint"), " ".join(one.thumbprint[at : at + 4] for at in range(0, 40, 4))),
        (_("application"), ", ".join(one.uris)),
        (_("hosts"), ", ".join(one.hosts)),
        (_("valid"), f"{local_time(one.begins_ns)[:10]} – {local_time(one.ends_ns)[:10]}"),
        (_("file"), one.path),
    ]
    for heading, text in rows:
        if text:
            say(out, f"  {heading}: {text}")
    for doubt in one.doubts:
        say(out, f"  {translate(doubt)}", "yellow")
    if not one.doubts and one.ends_ns - clock.now().at_ns < SOON_NS:
        say(out, "  " + _("it ends soon"), "yellow")
    say(out)


def _described(one: Certificate) -> dict[str, Any]:
    described = instants_as_text(asdict(one) | {"der": None})
    assert isinstance(described, dict)
    del described["der"]
    return described
