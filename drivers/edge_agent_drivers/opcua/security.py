"""A client's secure channel and login, made exactly as the config says and checked as the specification asks.

:func:`secure` prepares a :class:`SecureClient` before it connects: it asks the server which endpoints it has, takes the
one of the policy and mode that are *written*, believes the server's certificate or refuses, and loads ours. There is
no "best available" and no fallback, so that somebody between us who strips the list of endpoints gains a refusal.

:class:`SecureClient` adds what asyncua 2.1 leaves out: that the endpoints of the session (signed) are those of the
discovery (in clear), that a password is encrypted for a server that we believe, by a policy that hides it, and which
logins there are. All of that is known between CreateSession and ActivateSession, before any secret is sent.

:func:`refusal` is the one place where the security codes of OPC UA become errors of ours: who rejected whom, and
what to do. It looks at codes only; time-outs and lost connections are the driver's to name.
"""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies, uacrypto
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edge_agent import clock
from edge_agent.driver import Secret, SecretMissing
from edge_agent.errors import DeviceRefused, DeviceUnavailable
from edge_agent.threads import addresses
from edge_agent_drivers.opcua.certificates import NotTrusted, Peer, certificates, der_of, thumbprint, verify
from edge_agent_drivers.opcua.pki import Own, Pki, PkiProblem, application_uri, host_name, load_pair
from edge_agent_drivers.opcua.refusals import refusal
from edge_agent_drivers.opcua.security_settings import SecuritySettings

_POLICIES: dict[str, type[security_policies.SecurityPolicy]] = {
    "Aes256Sha256RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
    "Aes128Sha256RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
}
_HIDES = [policy.URI for policy in _POLICIES.values()]  # a password, best first
_PLAIN = security_policies.SecurityPolicyNone.URI
_TCP = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
_LOGINS = {
    ua.UserTokenType.Anonymous: "anonymous",
    ua.UserTokenType.UserName: "user and password",
    ua.UserTokenType.Certificate: "a user's certificate",
    ua.UserTokenType.IssuedToken: "a token (which edge-agent does not have)",
}


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the session must keep to."""

    device: str
    settings: SecuritySettings
    endpoints: Sequence[ua.EndpointDescription] = ()  # as the discovery showed them; () when there was none
    server: bytes = b""  # the certificate that we believe
    ours: str = ""  # thumbprint of the one that we show


class PatientClient(Client):
    """asyncua's client, whose lookup of a host's name holds up nobody else."""

    async def connect_socket(self) -> None:
        """Connect to the first of the host's addresses that takes it. Raises OSError."""
        host, port = self.server_url.hostname or "", self.server_url.port
        async with asyncio.timeout(self.uaclient._timeout):
            failed = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
            for *_, address in await addresses(host, port):
                try:
                    return await self.uaclient.connect_socket(address[0], address[1])
                except OSError as error:
                    failed = error
            raise failed


class SecureClient(PatientClient):
    """asyncua's client that only logs in where :func:`secure` allowed it to."""

    def __init__(self, url: str, timeout_s: float) -> None:
        super().__init__(url, timeout=timeout_s)
        self.timeout_s = timeout_s
        self.agreed: Agreed | None = None

    async def open_secure_channel(self, renew: bool = False) -> None:
        """Raises DeviceRefused, also when the server hangs up on our certificate, which many do without a word."""
        assert self.agreed is not None
        try:
            await super().open_secure_channel(renew)
        except UaStatusCodeError as error:
            self._raise_refusal(error)
            raise
        except ConnectionError as error:
            if renew or self.agreed.settings.policy == "None":
                raise
            raise _hung_up(self.agreed) from error

    async def create_session(self) -> ua.CreateSessionResult:
        """Raises DeviceRefused when the session is not what was agreed; nothing secret has been sent then."""
        agreed = self.agreed
        assert agreed is not None
        try:
            result = await super().create_session()
        except UaStatusCodeError as error:
            self._raise_refusal(error)
            raise
        except (InvalidSignature, uacrypto.InvalidSignature) as error:  # type: ignore[attr-defined]
            what = "the server does not have the key of the certificate that it shows: it is not who it says"
            raise DeviceRefused(agreed.device, what, hint="find out what answers at this address") from error
        except UaError as error:
            if not agreed.endpoints:  # it was not asked for its list before: connections in clear need none
                what = f"the server has no endpoint without security: {error}"
                hint = f"edge-agent opcua trust {agreed.device} shows what it offers; write that policy: and mode:"
                raise DeviceRefused(agreed.device, what, hint=hint) from error
            what = f"the session is not what the server's list of endpoints promised: {error}"
            raise DeviceRefused(agreed.device, what, hint=_BETWEEN) from error
        if agreed.server and _first(result.ServerCertificate) != agreed.server:
            what = "the session has another certificate than the server's list of endpoints"
            raise DeviceRefused(agreed.device, what, hint=_BETWEEN)
        hidden = _offers(result.ServerEndpoints) - _offers(agreed.endpoints) if agreed.endpoints else set()
        if hidden:
            names = ", ".join(sorted({_named(mode, uri) for mode, uri, _logins in hidden}))
            what = f"the server's list of endpoints was changed on its way: it hid or altered {names}"
            raise DeviceRefused(agreed.device, what, hint=_BETWEEN)
        return result

    async def activate_session(self, *login: Any, **named: Any) -> ua.ActivateSessionResult:
        """Raises DeviceRefused when the server does not let this user in."""
        try:
            return await super().activate_session(*login, **named)
        except UaStatusCodeError as error:
            self._raise_refusal(error)
            raise

    def _raise_refusal(self, error: UaStatusCodeError) -> None:
        """Raises DeviceRefused for a code of security; others are the driver's to name."""
        assert self.agreed is not None
        refused = refusal(self.agreed.device, error, self.agreed.ours)
        if refused is not None:
            raise refused from error

    def server_policy(self, token_type: ua.UserTokenType) -> ua.UserTokenPolicy:
        """How to log in. Raises DeviceRefused when the server has no such login, or would see the password in clear."""
        assert self.agreed is not None
        device, settings = self.agreed.device, self.agreed.settings
        channel = self.security_policy.URI
        offered = [replace(one, SecurityPolicyUri=one.SecurityPolicyUri or channel) for one in self._policy_ids]
        fitting = [one for one in offered if one.TokenType == token_type]
        if not fitting:
            logins = ", ".join(sorted({_LOGINS.get(one.TokenType, "?") for one in offered})) or "nothing"
            what = f"the server has no login by {_LOGINS[token_type]} here; it offers {logins}"
            raise DeviceRefused(device, what, hint=_login_hint(offered))
        hiding = sorted(
            (one for one in fitting if one.SecurityPolicyUri in _HIDES),
            key=lambda one: _HIDES.index(one.SecurityPolicyUri),
        )
        if hiding:
            if not self.security_policy.peer_certificate:
                raise DeviceRefused(device, "the server wants the password encrypted, and shows no certificate")
            return hiding[0]
        if token_type == ua.UserTokenType.Certificate:
            raise DeviceRefused(device, "the server offers no policy to prove a user's certificate by that we speak")
        if token_type == ua.UserTokenType.UserName and not (settings.encrypts or settings.password_in_clear):
            what = "the server wants the password in clear: everybody on the network could read it"
            hint = "write policy: Basic256Sha256 (mode: SignAndEncrypt), or, knowing that, password_in_clear: true"
            raise DeviceRefused(device, what, hint=hint)
        return fitting[0]


_BETWEEN = (
    "somebody may stand between this PC and the server, or the server was just set up anew: try again; "
    "if it stays, look at what is in the network between them"
)


async def secure(client: SecureClient, device: str, settings: SecuritySettings) -> None:
    """Give the client its policy, certificates and login. Raises DeviceRefused, DeviceUnavailable."""
    client.name = client.description = "edge-agent"
    client.product_uri = "urn:edge-agent"
    pki = Pki(settings.pki)
    try:
        own = await asyncio.to_thread(pki.own) if settings.policy != "None" else None
        await _log_in(client, settings)
    except (PkiProblem, SecretMissing) as error:
        raise DeviceRefused(device, error.args[0], hint=error.hint) from error
    client.application_uri = own.uri if own else application_uri(host_name())
    if not settings.needs_trust:
        client.agreed = Agreed(device, settings)
        return
    url = client.server_url.geturl()
    offered = await endpoints(url, device, client.timeout_s)
    endpoint = choose(offered, device, settings)
    host = client.server_url.hostname or ""
    server = await asyncio.to_thread(believe, endpoint, host, pki, device)
    ours = thumbprint(own.certificate) if own else ""
    client.agreed = Agreed(device, settings, tuple(offered), der_of(server), ours)
    if own is not None:
        _set_channel(client, settings, own, server)


def _set_channel(client: SecureClient, settings: SecuritySettings, own: Own, server: x509.Certificate) -> None:
    mode = ua.MessageSecurityMode.SignAndEncrypt if settings.encrypts else ua.MessageSecurityMode.Sign
    policy = _POLICIES[settings.policy](server, own.certificate, own.key, mode)
    client.security_policy = policy  # type: ignore[assignment]  # asyncua says None's where it means any
    client.uaclient.set_security(policy)


async def _log_in(client: SecureClient, settings: SecuritySettings) -> None:
    """The user of the session. Raises PkiProblem, SecretMissing."""
    if settings.user is not None:
        secret = settings.password or Secret()
        client.set_user(settings.user)
        client.set_password(await asyncio.to_thread(secret.reveal))
    elif settings.user_certificate is not None:
        paths = Path(settings.user_certificate), Path(settings.user_key or "")
        hint = "name the files of the user's certificate and of its key, which the agent's user can read"
        pair = await asyncio.to_thread(load_pair, *paths, hint)
        client.user_certificate, client.user_private_key = pair


# --- the server ----------------------------------------------------------------------------------------------


async def endpoints(url: str, device: str, timeout_s: float) -> list[ua.EndpointDescription]:
    """What the server offers, asked in clear as discovery is. Raises DeviceUnavailable, DeviceRefused."""
    try:
        async with asyncio.timeout(3 * timeout_s):
            found: list[ua.EndpointDescription] = await PatientClient(url, timeout_s).connect_and_get_server_endpoints()
    except UaStatusCodeError as error:
        refused = refusal(device, error)
        if refused is not None:
            raise refused from error
        raise DeviceUnavailable(device, f"the server's list of endpoints: {error}") from error
    except (OSError, TimeoutError, UaError, ValueError) as error:
        what = str(error) or type(error).__name__
        hint = "is the server switched on, the address right, and TCP port 4840 (or its own) open between them?"
        raise DeviceUnavailable(device, f"{url} does not say which endpoints it has: {what}", hint=hint) from error
    return [one for one in found if one.TransportProfileUri in (_TCP, None, "")]


def choose(
    offered: Iterable[ua.EndpointDescription], device: str, settings: SecuritySettings
) -> ua.EndpointDescription:
    """The endpoint of the policy and mode that the config says. Raises DeviceRefused with what there is instead."""
    offered = list(offered)
    uri = _POLICIES[settings.policy].URI if settings.policy != "None" else _PLAIN
    mode = {"None": ua.MessageSecurityMode.None_}.get(
        settings.policy,
        ua.MessageSecurityMode.SignAndEncrypt if settings.encrypts else ua.MessageSecurityMode.Sign,
    )
    for one in offered:
        if one.SecurityMode == mode and one.SecurityPolicyUri == uri:
            return one
    what = f"the server does not offer {_named(mode, uri)}; it offers {', '.join(offer_names(offered)) or 'nothing'}"
    raise DeviceRefused(device, what, hint=_choice_hint(offered))


def believe(endpoint: ua.EndpointDescription, host: str, pki: Pki, device: str) -> x509.Certificate:
    """The server's certificate if we trust it, else it goes into rejected/. Raises DeviceRefused."""
    sent: list[x509.Certificate] = []
    try:
        sent = certificates(endpoint.ServerCertificate or b"")
        listed = pki.trusted()
        verify(sent, listed.certificates, listed.revoked, Peer(endpoint.Server.ApplicationUri or "", host), now())
    except PkiProblem as error:
        raise DeviceRefused(device, error.args[0], hint=error.hint) from error
    except NotTrusted as error:
        if not sent:
            hint = "set up a certificate on the server, or, knowing what it means, write policy: None"
            raise DeviceRefused(device, f"the server cannot be trusted: {error}", hint=hint) from error
        pki.reject(sent[0])
        who = sent[0].subject.rfc4514_string()
        what = f"we do not trust the server's certificate {who}, thumbprint {thumbprint(sent[0])}: {error}"
        hint = f"give the server a good certificate; then: edge-agent opcua trust {device}"
        if error.unknown:
            hint = f"if it is the server's (compare the thumbprint there): edge-agent opcua trust {device}"
        raise DeviceRefused(device, what, hint=hint) from error
    return sent[0]


def now() -> datetime.datetime:
    """This PC's clock, for certificates."""
    return datetime.datetime.fromtimestamp(clock.now().at_ns / 1e9, datetime.UTC)


def policy_name(uri: str) -> str:
    """As the config writes it: Basic256Sha256, None; other policies by the end of their URI."""
    return next((name for name, policy in _POLICIES.items() if uri == policy.URI), (uri or "").rpartition("#")[2])


def offer_names(offered: Iterable[ua.EndpointDescription]) -> list[str]:
    """Every policy and mode in it, as the config writes them."""
    return sorted({_named(one.SecurityMode, one.SecurityPolicyUri) for one in offered})


def login_names(offered: Iterable[ua.EndpointDescription]) -> list[str]:
    """Every kind of login in it."""
    types = {token.TokenType for one in offered for token in one.UserIdentityTokens or ()}
    return sorted(_LOGINS.get(one, "?") for one in types)


def strongest(offered: Iterable[ua.EndpointDescription]) -> tuple[str, str] | None:
    """Policy and mode to propose, of those that we speak; None when there is no secure one."""
    ours = [one for one in offered if one.SecurityPolicyUri in _HIDES]
    if not ours:
        return None
    best = max(ours, key=lambda one: (one.SecurityMode.value, -_HIDES.index(one.SecurityPolicyUri)))
    return policy_name(best.SecurityPolicyUri), best.SecurityMode.name


def _named(mode: ua.MessageSecurityMode, uri: str) -> str:
    name = policy_name(uri)
    return name if mode == ua.MessageSecurityMode.None_ else f"{name} {mode.name}"


def _choice_hint(offered: Sequence[ua.EndpointDescription]) -> str:
    """What to write for the strongest that it offers and we speak."""
    ours = [one for one in offered if one.SecurityPolicyUri in _HIDES]
    if not ours:
        return "switch on Basic256Sha256 at the server; only if nobody else is in the network write policy: None"
    best = max(ours, key=lambda one: (one.SecurityMode.value, -_HIDES.index(one.SecurityPolicyUri)))
    return (
        f"write policy: {policy_name(best.SecurityPolicyUri)} and mode: {best.SecurityMode.name}, or switch it on there"
    )


def _login_hint(offered: Sequence[ua.UserTokenPolicy]) -> str:
    types = {one.TokenType for one in offered}
    if ua.UserTokenType.UserName in types:
        return "write user: and password: {file: /path} under security:"
    if ua.UserTokenType.Certificate in types:
        return "write user_certificate: and user_key: under security:"
    return "take user: away, or switch on the login at the server"


def _offers(listed: Iterable[ua.EndpointDescription]) -> set[tuple[ua.MessageSecurityMode, str, frozenset[object]]]:
    """What must be the same in both lists: nobody can weaken a channel or a login without changing it."""
    return {
        (
            one.SecurityMode,
            one.SecurityPolicyUri,
            frozenset((token.TokenType, token.SecurityPolicyUri or "") for token in one.UserIdentityTokens or ()),
        )
        for one in listed
        if one.TransportProfileUri in (_TCP, None, "")
    }


def _first(der: bytes | None) -> bytes:
    """The server's own certificate out of its chain; b"" for none."""
    try:
        return der_of(certificates(der or b"")[0])
    except NotTrusted:
        return b""


def _hung_up(agreed: Agreed) -> DeviceRefused:
    what = "the server hung up when we showed our certificate; most likely it does not trust it"
    hint = (
        f"in the server's list of rejected certificates accept the one with thumbprint {agreed.ours}; "
        "`edge-agent opcua certificate` shows and exports it"
    )
    return DeviceRefused(agreed.device, what, hint=hint)
