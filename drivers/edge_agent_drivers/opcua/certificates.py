"""X.509 as OPC UA uses it (OPC 10000-4, 6.1.3 and 10000-6, 6.2): who is believed, and why not. No network, no asyncua.

A server is believed when its very certificate stands in ``trusted/``, or when a CA that does vouches for it. By the
first a person has said "this device": its names are then not looked at, as many devices ship with wrong ones. By the
second *any* device of that CA could stand in for ours, so that application URI, host and purpose must fit. Ended
certificates, short keys and revoked ones are never believed. An application's own certificate vouches for no other,
whatever it says of itself: OPC UA applications sign themselves, and many carry the CA flag.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

KEY_BITS = (2048, 4096)  # what the policies that we speak allow
MAX_CHAIN = 6
MAX_DER = 64 * 1024  # a server's certificate with its chain

E = TypeVar("E", bound=x509.ExtensionType)
Revocations = Sequence[x509.CertificateRevocationList]


class NotTrusted(Exception):
    """Why a certificate is not believed. ``unknown``: nobody we trust vouches for it, so that a person may."""

    def __init__(self, why: str, *, unknown: bool = False) -> None:
        super().__init__(why)
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class Peer:
    """Who the certificate must be made for: what the server says of itself, and where we connect to."""

    application_uri: str
    host: str


def certificates(der: bytes) -> list[x509.Certificate]:
    """The certificate and the chain behind it, as a server sends them in one piece. Raises NotTrusted."""
    if len(der) > MAX_DER:
        raise NotTrusted("the certificate is longer than any that exists")
    found = []
    while der:
        length = _length(der)
        try:
            found.append(_readable(der[:length]))
        except ValueError as error:
            raise NotTrusted(f"what it sends as its certificate is none: {error}") from error
        der = der[length:]
    if not found:
        raise NotTrusted("it has no certificate")
    return found


def _length(der: bytes) -> int:
    """Of the first element, header included; the rest when it says more than there is."""
    if len(der) < 2 or der[1] < 0x80:
        return max(1, 2 + der[1] if len(der) > 1 else 1)
    n_bytes = der[1] & 0x7F
    return 2 + n_bytes + int.from_bytes(der[2 : 2 + n_bytes], "big")


def load(data: bytes) -> list[x509.Certificate]:
    """The certificates of a file, PEM or DER. Raises ValueError."""
    if b"-----BEGIN" not in data:
        return [_readable(data)]
    try:
        return [_readable(der_of(one)) for one in x509.load_pem_x509_certificates(data)]
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from error


def _readable(der: bytes) -> x509.Certificate:
    """The library reads a part when it is asked for: ask for all that matter, now. Raises ValueError."""
    try:
        one = x509.load_der_x509_certificate(der)
        one.public_key()
        one.subject.rfc4514_string()
        _ = one.issuer, one.not_valid_before_utc, one.not_valid_after_utc, one.signature_hash_algorithm
    except (UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError(str(error)) from error
    return one


def thumbprint(certificate: x509.Certificate) -> str:
    """SHA-1 in capital hexadecimal, as the trust lists of OPC UA products show it."""
    return certificate.fingerprint(hashes.SHA1()).hex().upper()


def der_of(certificate: x509.Certificate) -> bytes:
    """The certificate as it is sent."""
    return certificate.public_bytes(serialization.Encoding.DER)


def uris_of(certificate: x509.Certificate) -> list[str]:
    """The application URIs it is made for; mostly one."""
    names = _alternative_names(certificate)
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names else []


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses it is made for."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    return names.get_values_for_type(x509.DNSName) + [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]


def doubts(certificate: x509.Certificate, peer: Peer) -> list[str]:
    """What does not fit, for a person who is asked to trust it."""
    found = []
    uris, hosts = uris_of(certificate), hosts_of(certificate)
    if peer.application_uri not in uris:
        found.append(f"it is made for {', '.join(uris) or 'no application'}, the server calls itself {_of(peer)}")
    if not _names_host(hosts, peer.host):
        found.append(f"it is made for {', '.join(hosts) or 'no host'}, not for {peer.host}")
    return found


def _of(peer: Peer) -> str:
    return peer.application_uri or "nothing"


def verify(
    sent: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
    revoked: Revocations,
    peer: Peer,
    at: datetime.datetime,
) -> None:
    """Believe a server's certificate (the first of ``sent``), or raise NotTrusted with the reason."""
    leaf = sent[0]
    strong(leaf)
    current(leaf, at)
    if leaf in trusted:
        return
    path = _path(leaf, [*trusted, *sent[1:]], trusted, at)
    if path is None:
        raise NotTrusted("nobody in trusted/ vouches for it", unknown=True)
    for one, issuer in zip([leaf, *path], path, strict=False):
        if _is_revoked(one, issuer, revoked):
            raise NotTrusted(f"{_who(issuer)} has revoked {_who(one)}")
    wrong = doubts(leaf, peer)
    if wrong:
        raise NotTrusted("; ".join(wrong), unknown=True)
    usage = _extension(leaf, x509.ExtendedKeyUsage)
    if usage is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise NotTrusted("it is no certificate of a server (extended key usage)", unknown=True)


def strong(certificate: x509.Certificate) -> None:
    """Raises NotTrusted for a key that the policies do not take."""
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise NotTrusted("its key is not RSA, which these policies ask for")
    if not KEY_BITS[0] <= key.key_size <= KEY_BITS[1]:
        raise NotTrusted(f"its key has {key.key_size} bits; the policies take {KEY_BITS[0]} to {KEY_BITS[1]}")


def current(certificate: x509.Certificate, at: datetime.datetime) -> None:
    """Raises NotTrusted for one that has ended or does not begin yet, by this PC's clock."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if at > ends:
        raise NotTrusted(f"it ended on {ends:%Y-%m-%d} (this PC's clock says {at:%Y-%m-%d %H:%M} UTC)")
    if at < begins:
        raise NotTrusted(f"it begins on {begins:%Y-%m-%d %H:%M} (this PC's clock says {at:%Y-%m-%d %H:%M} UTC)")


def _path(
    leaf: x509.Certificate,
    known: Sequence[x509.Certificate],
    trusted: Sequence[x509.Certificate],
    at: datetime.datetime,
) -> list[x509.Certificate] | None:
    """The issuers from the leaf's up to one that is trusted; None when there is no such way."""
    path: list[x509.Certificate] = []
    one = leaf
    while len(path) < MAX_CHAIN:
        issuer = next((other for other in known if other != one and _issued(one, other, len(path), at)), None)
        if issuer is None:
            return None
        path.append(issuer)
        if issuer in trusted:
            return path
        one = issuer
    return None


def _issued(one: x509.Certificate, issuer: x509.Certificate, below: int, at: datetime.datetime) -> bool:
    """``issuer`` is a CA that may have, and has, signed ``one``; ``below`` counts the CAs under it."""
    basic = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    if basic is None or not basic.ca or (basic.path_length is not None and below > basic.path_length):
        return False
    if (usage is not None and not usage.key_cert_sign) or uris_of(issuer):
        return False
    if isinstance(one.signature_hash_algorithm, hashes.SHA1 | hashes.MD5):
        return False  # can be forged
    try:
        current(issuer, at)
        one.verify_directly_issued_by(issuer)
    except (NotTrusted, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_revoked(one: x509.Certificate, issuer: x509.Certificate, revoked: Revocations) -> bool:
    """By a list that its issuer has signed. A list that is out of date still counts; none at all revokes nothing."""
    for crl in revoked:
        if crl.issuer == issuer.subject and crl.get_revoked_certificate_by_serial_number(one.serial_number) is not None:
            key = issuer.public_key()
            if crl.is_signature_valid(key):  # type: ignore[arg-type]  # the keys that sign certificates sign lists
                return True
    return False


def _names_host(names: Sequence[str], host: str) -> bool:
    """A host of the certificate is the one we connect to. The loopback's names are one host."""
    wanted = host.lower().rstrip(".")
    if wanted in {name.lower().rstrip(".") for name in names}:
        return True
    try:
        address = ipaddress.ip_address(wanted)
    except ValueError:
        return False
    return str(address) in names


def _who(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or thumbprint(certificate)


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    return _extension(certificate, x509.SubjectAlternativeName)


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    """None also for extensions that cannot be read: some devices write odd ones."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        return None
