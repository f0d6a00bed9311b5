"""Certificates as OPC UA applications have them, made at once: the keys, which take long, are made once a process."""

from __future__ import annotations

import datetime
import ipaddress
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)
PRESS = "urn:edge-agent.example:press"


@cache
def key_of(who: str) -> rsa.RSAPrivateKey:
    """One for each name; "weak" has a short one."""
    bits = 1024 if who == "weak" else 2048
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def certificate(
    name: str,
    *,
    issuer: str = "",
    uri: str | None = PRESS,
    host: str = "127.0.0.1",
    ca: bool = False,
    path_length: int | None = None,
    good_for: datetime.timedelta = 365 * DAY,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
) -> x509.Certificate:
    """Signed by ``issuer`` (a name whose key signs), by itself by default."""
    signer = issuer or name
    public = key_of(name).public_key()
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(signer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(NOW, NOW + good_for) - DAY)
        .not_valid_after(NOW + good_for)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)] if uri else []
    if host and uri:
        alternatives.append(_host(host))
    if alternatives:
        made = made.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    if usage is not None and not ca:
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return made.sign(key_of(signer), hashes.SHA256())


def revocations(issuer: str, *revoked: x509.Certificate) -> x509.CertificateRevocationList:
    """A list of the issuer."""
    made = x509.CertificateRevocationListBuilder().issuer_name(_named(issuer)).last_update(NOW).next_update(NOW + DAY)
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(NOW).build()
        made = made.add_revoked_certificate(entry)
    return made.sign(key_of(issuer), hashes.SHA256())


def write(folder: Path, name: str, made: x509.Certificate) -> dict[str, str]:
    """``name.der`` and ``name.pem`` with the key of the certificate's subject; their paths as a server wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    subject = str(made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    key = key_of(subject).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.der").write_bytes(der(made))
    (folder / f"{name}.pem").write_bytes(key)
    return {"cert": str(folder / f"{name}.der"), "key": str(folder / f"{name}.pem")}


def der(made: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """As it is sent."""
    return made.public_bytes(serialization.Encoding.DER)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
