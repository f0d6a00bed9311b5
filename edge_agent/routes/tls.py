"""Certificates, keys and tokens of a route: read anew at each connect, watched while connected.

Another program renews them (an ACME client, the plant's PKI, a token service); the agent only notices. Once in
``LOOK_S`` the sink compares the files with what the connection in use was made of:

- the client certificate or its key was replaced, and the new pair loads: reconnect in an orderly way, so that a
  mistake shows while somebody is there who has just made it. A pair that does not load (half written, wrong key) is
  told, and the connection stays;
- the token in use, a JWT, ends soon and another one is there: reconnect. A token that lives an hour so costs one
  reconnect an hour, whatever the renewal's pace. A plain password only matters at the next connect;
- a CA file or a broker's certificate never ends a connection that lives.

What ends within ``WARN_DAYS`` is told in ``status``, and what lies in files by ``check`` too. TLS is verified, always.
"""

from __future__ import annotations

import base64
import datetime
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import orjson

from edge_agent import clock
from edge_agent.driver import Secret
from edge_agent.errors import BrokerUnavailable
from edge_agent.routes.settings import BrokerSettings, TlsSettings
from edge_agent.routes.sink import Notice, SinkRefused

LOOK_S = 60.0
WARN_DAYS = 30
TOKEN_LEFT_S = 2 * LOOK_S
_DAY_NS = 86_400 * 10**9
_ALERT = re.compile(r"SSL: \w*?ALERT_(\w+)\]")
_OURS = ("the client certificate {} ended on {}", "the client certificate {} ends on {}, in {} days")
_THEIRS = ("the certificate of the broker {} ended on {}", "the certificate of the broker {} ends on {}, in {} days")
_CA = ("the newest CA certificate in {} ended on {}", "the newest CA certificate in {} ends on {}, in {} days")
_FILE_HINT = "check the route's `tls:` section"


def context(tls: TlsSettings) -> ssl.SSLContext:
    """What verifies the broker and shows our certificate, of the files as they are now. Raises SinkRefused."""
    try:
        made = ssl.create_default_context(cafile=tls.ca)
        if tls.cert is not None:
            made.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except (OSError, ValueError) as error:
        where = ", ".join(path for path in (tls.ca, tls.cert, tls.key) if path)
        hint = "the key must not be encrypted" if isinstance(error, _Encrypted) else _FILE_HINT
        raise SinkRefused(f"TLS files ({where}): {error}", hint=hint) from error
    return made


class _Encrypted(ValueError):
    """Nobody is there to type a password."""


def _no_password() -> str:
    raise _Encrypted("the key is encrypted")


def handshake_hint(error: ssl.SSLError) -> str:
    """What to do about a TLS handshake that failed on our side."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "does the broker speak TLS on this port? mqtts:// is usually port 8883"
    if "expired" in error.verify_message:
        return f"renew the broker's certificate, or its CA's; this PC's clock says {_today()}"
    if "not yet valid" in error.verify_message:
        return f"set the clock: this PC's clock says {_today()}"
    return "put the CA that signed the broker's certificate into `tls: {ca: /path}`; the url must name its host"


def not_let_in(settings: BrokerSettings, said: str) -> BrokerUnavailable:
    """What it means when the broker ends a connection before it has answered to our CONNECT."""
    alert = _ALERT.search(said)
    if settings.broker[0] and alert:
        what = f"the broker refuses our client certificate: {alert[1].lower().replace('_', ' ')}"
        where = settings.tls.cert
        if where is None:
            return SinkRefused(what, hint="the broker wants one: write `tls: {cert: …, key: …}` in the route")
        return SinkRefused(what, hint=f"see with openssl x509 -in {where} -noout -dates -issuer, and the broker's log")
    hint = "see the broker's log"
    if settings.version == "5":
        hint = "see the broker's log; if it knows no MQTT 5, set `version: 3.1.1` in the route"
    return BrokerUnavailable("the broker closed the connection before it answered to us", hint=hint)


@dataclass(frozen=True, slots=True)
class InUse:
    """What a connection was made of: which files, and until when they and the token are good."""

    pair: tuple[tuple[int, int, int], ...]
    token_ends_s: float | None
    token: str | None
    peer_ends_ns: int | None = None

    @classmethod
    def of(cls, settings: BrokerSettings, token: str | None) -> InUse:
        """As of now. Never raises: what cannot be read is found when it is used."""
        return cls(_pair(settings.tls), _jwt_ends_s(token), token)


def replaced(settings: BrokerSettings, used: InUse) -> str:
    """Why the connection should be made anew, or "". Raises SinkRefused or SecretMissing of what is there now."""
    tls = settings.tls
    if settings.broker[0]:
        context(tls)
        if tls.cert is not None and _pair(tls) != used.pair:
            return "the client certificate was renewed"
    ending = used.token_ends_s is not None and used.token_ends_s - clock.now().at_ns / 1e9 < TOKEN_LEFT_S
    if ending and settings.password is not None and settings.password.reveal() != used.token:
        return "the token was renewed"
    return ""


# --- what ends soon ----------------------------------------------------------------------------------------------


def file_notices(tls: TlsSettings) -> list[Notice]:
    """Of the CA file and the client certificate: what has ended or ends soon, and what cannot be read."""
    notices: list[Notice] = []
    if tls.ca is not None:
        hint = f"put the new CA certificate beside the old one into {tls.ca} before the broker gets a certificate of it"
        notices += _file(tls.ca, _CA, hint, newest=True)
    if tls.cert is not None:
        hint = f"renew it and replace {tls.cert}; the agent takes it up within a minute, without a restart"
        notices += _file(tls.cert, _OURS, hint, newest=False)
    return notices


def connection_notices(settings: BrokerSettings, used: InUse) -> list[Notice]:
    """Of the connection in use: the broker's certificate and our token."""
    notices: list[Notice] = []
    if used.peer_ends_ns is not None:
        hint = "renew it on the broker before that day: after it no line can connect"
        notices += _ending(_THEIRS, settings.url, used.peer_ends_ns, hint)
    secret = settings.password
    if used.token_ends_s is not None and used.token_ends_s - clock.now().at_ns / 1e9 < TOKEN_LEFT_S / 2:
        where = _where(secret)
        when = datetime.datetime.fromtimestamp(used.token_ends_s, datetime.UTC)
        what = f"the token in {where} ends at {when:%Y-%m-%d %H:%M:%S} UTC and was not renewed"
        notices.append(Notice(what, f"see that the program that renews {where} runs"))
    return notices


def peer_ends_ns(connection: object) -> int | None:
    """Until when the broker's certificate is good."""
    found = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    ends = found.get("notAfter") if found else None
    return ssl.cert_time_to_seconds(ends) * 10**9 if isinstance(ends, str) else None


def _file(path: str, texts: tuple[str, str], hint: str, *, newest: bool) -> list[Notice]:
    from cryptography import x509  # a tenth of a second that only routes with own certificates pay

    try:
        found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return [Notice(f"{path} cannot be read: {why}", _FILE_HINT)]
    ends = [int(one.not_valid_after_utc.timestamp()) * 10**9 for one in found]
    return _ending(texts, path, max(ends) if newest else ends[0], hint)


def _ending(texts: tuple[str, str], where: str, ends_ns: int, hint: str) -> list[Notice]:
    ended, ends = texts
    left_ns = ends_ns - clock.now().at_ns
    day = datetime.datetime.fromtimestamp(ends_ns / 1e9, datetime.UTC)
    if left_ns <= 0:
        return [Notice(ended.format(where, f"{day:%Y-%m-%d}"), hint)]
    if left_ns < WARN_DAYS * _DAY_NS:
        return [Notice(ends.format(where, f"{day:%Y-%m-%d}", left_ns // _DAY_NS), hint)]
    return []


def _pair(tls: TlsSettings) -> tuple[tuple[int, int, int], ...]:
    found = []
    for path in (tls.cert, tls.key):
        try:
            stat = os.stat(path or "")
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _jwt_ends_s(token: str | None) -> float | None:
    """When a JSON Web Token ends; None of anything else. Its signature is the broker's to judge."""
    parts = (token or "").split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    ends = claims.get("exp") if isinstance(claims, dict) else None
    return float(ends) if isinstance(ends, int | float) and 0 < ends < 1e11 else None


def _where(secret: Secret | None) -> str:
    return "" if secret is None else secret.file or f"${secret.env}"


def _today() -> str:
    return f"{datetime.datetime.fromtimestamp(clock.now().at_ns / 1e9, datetime.UTC):%Y-%m-%d %H:%M} UTC"
