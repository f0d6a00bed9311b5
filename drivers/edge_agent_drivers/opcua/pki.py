"""The folder of certificates: who we are, whom we trust, whom we turned away.

::

    <pki>/own/certificate.der, own/key.pem    made by `edge-agent opcua certificate`, never by the agent
    <pki>/trusted/                            certificates of servers or CAs, and revocation lists; DER or PEM
    <pki>/rejected/                           servers that were not trusted, kept for `edge-agent opcua trust`

The agent only reads, but for what it puts into ``rejected/``, which is bounded. What root makes belongs to the owner of
the folder it is made in: the service, which is to read its key, and not the technician with sudo.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_agent.errors import EdgeAgentError
from edge_agent_drivers.opcua.certificates import der_of, load, thumbprint, uris_of

GOOD_FOR = datetime.timedelta(days=3652)  # ten years: a trust list is changed by hand, on every server
BUILT = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)  # a clock before this was never set
MAX_REJECTED = 100
MAX_FILES = 1000
MAX_FILE = 1024 * 1024


class PkiProblem(EdgeAgentError):
    """The folder of certificates lacks something, or cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Own:
    """Our certificate and its key. ``uri`` is what we must call ourselves: servers compare the two."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    uri: str


@dataclass(frozen=True, slots=True)
class Listed:
    """What is in ``trusted/``."""

    certificates: list[x509.Certificate]
    revoked: list[x509.CertificateRevocationList]


class Pki:
    """See the module docstring. Every method may wait for the disk."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.certificate_path = self.folder / "own" / "certificate.der"
        self.key_path = self.folder / "own" / "key.pem"
        self.trusted_path = self.folder / "trusted"
        self.rejected_path = self.folder / "rejected"

    def own(self) -> Own:
        """Our certificate and key. Raises PkiProblem."""
        certificate, key = load_pair(self.certificate_path, self.key_path, f"{self._command()} makes them")
        uris = uris_of(certificate)
        if len(uris) != 1:
            what = f"{self.certificate_path} names {len(uris)} application URIs; a certificate of OPC UA has one"
            raise PkiProblem(what, hint=f"make a fitting one: {self._command()} --renew")
        return Own(certificate, key, uris[0])

    def own_certificate(self) -> x509.Certificate | None:
        """Our certificate without its key, which others may not read; None when there is none yet."""
        return load(_read(self.certificate_path))[0] if _exists(self.certificate_path) else None

    def trusted(self) -> Listed:
        """Whom we trust. Raises PkiProblem for a file that is neither certificate nor revocation list."""
        listed = Listed([], [])
        for path in _files(self.trusted_path):
            data = _read(path)
            try:
                if b"X509 CRL" in data[:200] or path.suffix.lower() == ".crl":
                    pem = b"-----BEGIN" in data
                    listed.revoked.append(x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data))
                else:
                    listed.certificates.extend(load(data))
            except ValueError as error:
                what = f"{path} is no certificate and no revocation list: {error}"
                raise PkiProblem(what, hint="take the file away, or replace it by one in DER or PEM") from error
        return listed

    def rejected(self) -> list[x509.Certificate]:
        """The servers that were turned away."""
        found: list[x509.Certificate] = []
        for path in _files(self.rejected_path):
            with contextlib.suppress(ValueError):
                found += load(_read(path))
        return found

    def reject(self, certificate: x509.Certificate) -> bool:
        """Keep a server's certificate for a person to look at. False: it could not be, or there are too many."""
        path = self.rejected_path / _file_name(certificate)
        try:
            if path.exists():
                return True
            self.rejected_path.mkdir(parents=True, exist_ok=True)
            if len(os.listdir(self.rejected_path)) >= MAX_REJECTED:
                return False
            path.write_bytes(der_of(certificate))
        except OSError:
            return False
        return True

    def trust(self, certificate: x509.Certificate) -> Path:
        """Put a certificate into trusted/ and take it out of rejected/. Raises PkiProblem."""
        name = _file_name(certificate)
        _write(self.trusted_path / name, der_of(certificate), 0o644)
        with contextlib.suppress(OSError):
            (self.rejected_path / name).unlink(missing_ok=True)
        return self.trusted_path / name

    def make_own(self, host: str, at: datetime.datetime, bits: int) -> x509.Certificate:
        """A new key and a certificate of it that we sign ourselves; older ones stay beside them as ``.old``.

        Raises PkiProblem.
        """
        if at < BUILT:
            what = f"this PC's clock says {at:%Y-%m-%d}: a certificate made now would be good at the wrong time"
            raise PkiProblem(what, hint="set the clock first: timedatectl")
        key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        made = _self_signed(key, host, at)
        pem = serialization.Encoding.PEM
        no_password = serialization.NoEncryption()
        for path in (self.key_path, self.certificate_path):
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, path.with_name(f"{path.name}.old"))
        _write(self.key_path, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password), 0o600)
        _write(self.certificate_path, der_of(made), 0o644)
        return made

    def _command(self) -> str:
        return f"edge-agent opcua certificate --pki {self.folder}"


def load_pair(certificate_path: Path, key_path: Path, hint: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """A certificate and its RSA key, which fit. Raises PkiProblem."""
    try:
        certificate = load(_read(certificate_path, hint))[0]
    except (ValueError, IndexError) as error:
        raise PkiProblem(f"{certificate_path} is no certificate: {error}", hint=hint) from error
    data = _read(key_path, hint)
    try:
        if b"-----BEGIN" in data:
            key = serialization.load_pem_private_key(data, password=None)
        else:
            key = serialization.load_der_private_key(data, password=None)
    except TypeError as error:
        plain = f"openssl pkey -in {key_path} -out {key_path}.plain; then chmod 600 it and name it in the config"
        raise PkiProblem(f"{key_path} is locked with a password, which the agent does not have", hint=plain) from error
    except ValueError as error:
        raise PkiProblem(f"{key_path} is no private key: {error}", hint=hint) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise PkiProblem(f"{key_path} is no RSA key, which OPC UA asks for", hint=hint)
    if key.public_key() != certificate.public_key():
        raise PkiProblem(f"{key_path} is not the key of {certificate_path}", hint=hint)
    return certificate, key


def _self_signed(key: rsa.RSAPrivateKey, host: str, at: datetime.datetime) -> x509.Certificate:
    """OPC 10000-6, 6.2.2: one application URI, our hosts, what the key is for, and keyCertSign as we sign ourselves."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"edge-agent@{host}"[:64]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "edge-agent"),
        ]
    )
    public = key.public_key()
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(application_uri(host)), x509.DNSName(host)]
    alternatives += [x509.IPAddress(address) for address in _addresses(host)]
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - datetime.timedelta(days=1))  # a server's clock may be behind ours
        .not_valid_after(at + GOOD_FOR)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def application_uri(host: str) -> str:
    """What we call ourselves: once per PC, so that a server tells the agents of two lines apart."""
    return f"urn:{re.sub(r'[^A-Za-z0-9.-]', '-', host)}:edge-agent"


def host_name() -> str:
    """This PC's name, as a certificate may hold it."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Of this PC, as far as its name leads to them; no server looks at a client's, but people do."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    addresses = {ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found}
    return sorted((one for one in addresses if not (one.is_loopback or one.is_link_local)), key=str)


# --- files ---------------------------------------------------------------------------------------------------


def _file_name(certificate: x509.Certificate) -> str:
    """Legible, and no other certificate's."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(names[0].value))[:60].strip("-.") if names else ""
    return f"{name or 'server'}-{thumbprint(certificate)}.der"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise _problem(path, error) from error


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))[:MAX_FILES]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _problem(folder, error) from error


def _read(path: Path, missing: str = "") -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE)
    except FileNotFoundError as error:
        raise PkiProblem(f"there is no {path}", hint=missing) from error
    except OSError as error:
        raise _problem(path, error) from error


def _write(path: Path, data: bytes, mode: int) -> None:
    """A file of this mode, whole or not at all, owned like the folder above when root writes it. Raises PkiProblem."""
    new = path.with_name(f".{path.name}.new")
    try:
        _make_folder(path.parent)
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        _owned_like(new, path.parent)
        os.replace(new, path)
    except OSError as error:
        raise _problem(path, error) from error


def _make_folder(folder: Path) -> None:
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o755)
        _owned_like(one, one.parent)


def _owned_like(path: Path, folder: Path) -> None:
    if os.geteuid() == 0:
        there = folder.stat()
        os.chown(path, there.st_uid, there.st_gid)


def _problem(path: Path, error: OSError) -> PkiProblem:
    who = "the agent's user and yours must be able to reach it"
    return PkiProblem(f"{path}: {error.strerror}", hint=f"{who}: ls -ld {path.parent}; or run it with sudo")
