"""Certificates for the command line: ours shown and made, a server's fetched, shown and accepted, what is kept listed.

A server's certificate is fetched in clear, as discovery is: who compares its thumbprint with what the server's own
engineering tool shows trusts the server; who does not trusts whoever answered this once.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from cryptography import x509

from edge_agent.bench import Certificate, Trust
from edge_agent.errors import DeviceRefused
from edge_agent_drivers.opcua.certificates import (
    NotTrusted,
    Peer,
    certificates,
    current,
    der_of,
    doubts,
    hosts_of,
    load,
    strong,
    thumbprint,
    uris_of,
    verify,
)
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.pki import Pki, host_name
from edge_agent_drivers.opcua.security import endpoints, now, offer_names
from edge_agent_drivers.opcua.security_settings import DEFAULT_PKI


def _described(one: x509.Certificate, path: str = "", **more: object) -> Certificate:
    begins, ends = one.not_valid_before_utc, one.not_valid_after_utc
    return Certificate(
        subject=one.subject.rfc4514_string(),
        thumbprint=thumbprint(one),
        uris=tuple(uris_of(one)),
        hosts=tuple(hosts_of(one)),
        begins_ns=int(begins.timestamp()) * 10**9,
        ends_ns=int(ends.timestamp()) * 10**9,
        der=der_of(one),
        path=path,
        **more,  # type: ignore[arg-type]
    )


def _own(pki: str) -> Certificate | None:
    folder = Pki(pki)
    one = folder.own_certificate()
    return _described(one, str(folder.certificate_path), doubts=_ended(one)) if one is not None else None


def _make(pki: str, bits: int) -> Certificate:
    folder = Pki(pki)
    return _described(folder.make_own(host_name(), now(), bits), str(folder.certificate_path))


async def _shown(settings: OpcuaSettings, name: str) -> Sequence[Certificate]:
    """Mostly one; a server may show another for each policy."""
    offered = await endpoints(settings.url, name, settings.timeout)
    host = urlsplit(settings.url).hostname or ""
    pki = Pki(settings.security.pki)
    listed = pki.trusted()
    offers = tuple(offer_names(offered))
    found: dict[bytes, Certificate] = {}
    for endpoint in offered:
        try:
            sent = certificates(endpoint.ServerCertificate or b"")
        except NotTrusted:
            continue  # an endpoint without security needs none
        peer = Peer(endpoint.Server.ApplicationUri or "", host)
        try:
            verify(sent, listed.certificates, listed.revoked, peer, now())
            trusted = True
        except NotTrusted:
            trusted = False
        wrong = (*_ended(sent[0]), *doubts(sent[0], peer))
        found[der_of(sent[0])] = _described(sent[0], doubts=wrong, trusted=trusted, offers=offers)
    if not found:
        what = f"the server shows no certificate; it offers {', '.join(offers) or 'nothing'}"
        raise DeviceRefused(name, what, hint="set up a certificate on the server, with Basic256Sha256")
    return list(found.values())


def _ended(one: x509.Certificate) -> tuple[str, ...]:
    """Why it will not be believed whoever trusts it."""
    try:
        strong(one)
        current(one, now())
    except NotTrusted as error:
        return (str(error),)
    return ()


def _accept(pki: str, certificate: Certificate) -> str:
    return str(Pki(pki).trust(load(certificate.der)[0]))


def _listed(pki: str) -> tuple[Sequence[Certificate], Sequence[Certificate]]:
    folder = Pki(pki)
    trusted = [
        _described(one, str(folder.trusted_path), trusted=True, doubts=_ended(one))
        for one in folder.trusted().certificates
    ]
    rejected = [_described(one, str(folder.rejected_path), doubts=_ended(one)) for one in folder.rejected()]
    return trusted, rejected


def _pki_of(settings: OpcuaSettings) -> str:
    return settings.security.pki


TRUST = Trust(DEFAULT_PKI, _pki_of, _own, _make, _shown, _accept, _listed)
