"""What `check` warns of before the server does: certificates that are missing, end soon, or that nobody accepted.

Looks at the folder of certificates only, at no network; run by another user than the agent's it may see less.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from cryptography import x509

from edge_agent import clock
from edge_agent.driver import Risk
from edge_agent_drivers.opcua.config import OpcuaSettings
from edge_agent_drivers.opcua.pki import Pki, PkiProblem

SOON = datetime.timedelta(days=60)


def risks(device: str, settings: OpcuaSettings) -> list[Risk]:
    """Of one device."""
    security = settings.security
    found: list[Risk] = []
    if security.password_in_clear:
        what = "the password may be read on the network, or be given to whoever answers at this address"
        found.append(Risk("security.password_in_clear", what, "policy: Basic256Sha256 hides it"))
    if not security.needs_trust:
        return found
    pki = Pki(security.pki)
    try:
        if security.policy != "None":
            found += _ours(pki, device)
        found += _theirs(pki, device)
    except (PkiProblem, ValueError) as error:
        hint = error.hint if isinstance(error, PkiProblem) else "look at the files in it"
        found.append(Risk("security.pki", str(error.args[0]), hint))
    return found


def _ours(pki: Pki, device: str) -> Iterator[Risk]:
    own = pki.own_certificate()
    if own is None:
        what = f"there is no certificate of this PC in {pki.folder}"
        yield Risk("security.pki", what, f"edge-agent opcua certificate --device {device}")
    elif (ends := _ends_soon(own)) is not None:
        hint = f"edge-agent opcua certificate --device {device} --renew; then accept it on every server"
        yield Risk("security.pki", f"the certificate of this PC ends on {ends}: servers refuse it then", hint)


def _theirs(pki: Pki, device: str) -> Iterator[Risk]:
    trusted = pki.trusted().certificates
    if not trusted:
        what = f"no server is trusted in {pki.trusted_path}"
        yield Risk("security.pki", what, f"edge-agent opcua trust {device}")
    for one in trusted:
        if (ends := _ends_soon(one)) is not None:
            what = f"the trusted certificate {one.subject.rfc4514_string()} ends on {ends}: it is refused then"
            yield Risk("security.pki", what, f"renew it on the server, then: edge-agent opcua trust {device}")


def _ends_soon(certificate: x509.Certificate) -> str | None:
    ends = certificate.not_valid_after_utc
    now = datetime.datetime.fromtimestamp(clock.now().at_ns / 1e9, datetime.UTC)
    return f"{ends:%Y-%m-%d}" if ends < now + SOON else None
