"""A CA and certificates of it, really made, good for as long as a test wants."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.mosquitto import Mosquitto

DAY = datetime.timedelta(days=1)
YEAR = 365 * DAY


class Authority:
    """A CA whose certificate is ``folder/<name>.pem``."""

    def __init__(self, folder: Path, name: str = "ca", good_for: datetime.timedelta = YEAR) -> None:
        self.folder = folder
        self.path = folder / f"{name}.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        made = self._begin(self._name, self._key, good_for).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, host: str | None = None, good_for: datetime.timedelta = YEAR, password: bytes | None = None
    ) -> tuple[Path, Path]:
        """A certificate and its key, in ``<name>.pem`` and ``<name>.key``; replaced at once if they were there."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._begin(_named(name), key, good_for).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        if host is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
            made = made.add_extension(names, critical=False)
        locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem = serialization.Encoding.PEM
        self._replace(f"{name}.pem", made.sign(self._key, hashes.SHA256()).public_bytes(pem))
        self._replace(f"{name}.key", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, locked))
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _begin(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, good_for: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        begins = min(now - DAY, now + good_for - DAY)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(now + good_for)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _replace(self, name: str, data: bytes) -> None:
        new = self.folder / f"{name}.new"
        new.write_bytes(data)
        os.replace(new, self.folder / name)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def secured(
    folder: Path,
    host: str = "127.0.0.1",
    *,
    good_for: datetime.timedelta = YEAR,
    mutual: bool = False,
    users: dict[str, str] | None = None,
) -> tuple[Mosquitto, Authority]:
    """A broker with a certificate of a fresh CA; ``mutual`` asks everybody for one of that CA."""
    authority = Authority(folder)
    cert, key = authority.issue("server", host, good_for)
    options = [f"cafile {authority.path}", f"certfile {cert}", f"keyfile {key}"]
    if mutual:
        options.append("require_certificate true")
    broker = Mosquitto(folder, options=tuple(options), users=users)
    return broker, authority
