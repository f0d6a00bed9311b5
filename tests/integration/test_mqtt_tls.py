"""TLS to the broker is verified or there is no connection at all; nothing ever goes out in clear instead."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.delivery import buffer, running, scans, settings, settled, until
from support.mosquitto import Mosquitto


def certificate(folder: Path, name: str, host: str | None, signer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None):  # type: ignore[no-untyped-def]
    """A certificate in ``<name>.pem`` with its key in ``<name>.key``; without ``host`` it is a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing_key = signer or (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    if host is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(signing_key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return subject, key


def secured(folder: Path, host: str = "127.0.0.1") -> Mosquitto:
    certificate(folder, "server", host, certificate(folder, "ca", None, None))
    options = (f"cafile {folder}/ca.pem", f"certfile {folder}/server.pem", f"keyfile {folder}/server.key")
    return Mosquitto(folder, options=options)


def test_a_verified_broker_gets_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        with secured(tmp_path) as broker:
            tls = {"tls": {"ca": str(tmp_path / "ca.pem")}, "confirm": "broker"}
            url = f"mqtts://127.0.0.1:{broker.port}"
            async with buffer(tmp_path) as store, running(store, settings(url, **tls)) as route:
                for part in range(3):
                    store.append(scans(300, f"s{part}", more="x" * 200))
                    await settled(route, store)
                assert await route.drain(5)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("host", "scheme", "with_ca", "says"),
    [
        ("127.0.0.1", "mqtts", False, "CA that signed"),  # unknown CA
        ("127.0.0.9", "mqtts", True, "name its host"),  # the certificate is of another host
        ("127.0.0.1", "mqtt", False, ""),  # clear to a TLS port
    ],
)
def test_anything_less_is_no_connection(tmp_path: Path, host: str, scheme: str, with_ca: bool, says: str) -> None:
    async def scenario() -> None:
        with secured(tmp_path, host) as broker:
            tls = {"tls": {"ca": str(tmp_path / "ca.pem")}} if with_ca else {}
            url = f"{scheme}://127.0.0.1:{broker.port}"
            async with buffer(tmp_path) as store, running(store, settings(url, confirm="broker", **tls)) as route:
                store.append(scans(5))
                await until(lambda: route.status()["last_error"] is not None)
                assert says in route.status()["hint"]
                assert route.status()["connections"] == 0
            assert "connected from" not in (broker.folder / "mosquitto.log").read_text().replace("New connection", "")

    asyncio.run(scenario())


def test_a_missing_ca_file_is_told_with_its_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        wrong = {"tls": {"ca": str(tmp_path / "nothing.pem")}}
        async with buffer(tmp_path) as store, running(store, settings("mqtts://127.0.0.1:1", **wrong)) as route:
            await until(lambda: route.status()["state"] == "refused")
            assert "nothing.pem" in route.status()["last_error"]

    asyncio.run(scenario())
