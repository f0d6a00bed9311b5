"""TLS to the broker is verified or there is no connection at all; nothing ever goes out in clear instead.

Certificates are really made, and renewed while the agent runs.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent import clock
from edge_agent.routes import tls
from support.certificates import DAY, Authority, secured
from support.delivery import Watcher, buffer, running, scans, settings, settled, until
from support.mosquitto import Mosquitto


def url(broker: Mosquitto) -> str:
    return f"mqtts://127.0.0.1:{broker.port}"


def warnings(route: Any) -> list[str]:
    return [warning["what"] for warning in route.status()["warnings"]]


def jwt(ends_in_s: float, name: str = "l3") -> str:
    """As a token service makes it; what it is signed with does not matter to the agent."""
    claims = {"sub": name, "exp": round(clock.now().at_ns / 1e9 + ends_in_s)}
    parts = [json.dumps({"alg": "HS256"}).encode(), json.dumps(claims).encode(), b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the files all the time, not once a minute."""
    monkeypatch.setattr(tls, "LOOK_S", 0.1)


def test_a_verified_broker_gets_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker, authority = secured(tmp_path)
        given = {"tls": {"ca": str(authority.path)}, "confirm": "broker"}
        with broker:
            async with buffer(tmp_path) as store, running(store, settings(url(broker), **given)) as route:
                for part in range(3):
                    store.append(scans(300, f"s{part}", more="x" * 200))
                    await settled(route, store)
                assert warnings(route) == []
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
        broker, authority = secured(tmp_path, host)
        with broker:
            given = {"tls": {"ca": str(authority.path)}} if with_ca else {}
            where = f"{scheme}://127.0.0.1:{broker.port}"
            async with buffer(tmp_path) as store, running(store, settings(where, confirm="broker", **given)) as route:
                store.append(scans(5))
                await until(lambda: route.status()["last_error"] is not None)
                assert says in route.status()["hint"]
                assert route.status()["connections"] == 0
            assert "connected from" not in (broker.folder / "mosquitto.log").read_text().replace("New connection", "")

    asyncio.run(scenario())


def test_tls_to_a_port_in_clear_never_falls_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        with Mosquitto(tmp_path) as broker:
            async with buffer(tmp_path) as store, running(store, settings(url(broker))) as route:
                await until(lambda: "does the broker speak TLS" in route.status()["hint"], route.status)
                assert route.status()["connections"] == 0

    asyncio.run(scenario())


def test_files_that_cannot_be_used_are_told_by_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, _ = authority.issue("line")
    _, locked = authority.issue("other", password=b"secret")
    wrong: list[tuple[dict[str, str], str]] = [
        ({"ca": str(tmp_path / "nothing.pem")}, "nothing.pem"),
        ({"cert": str(cert), "key": str(locked)}, "must not be encrypted"),
        ({"cert": str(cert), "key": str(authority.issue("third")[1])}, "line.pem"),
    ]

    async def scenario() -> None:
        for files, says in wrong:
            async with (
                buffer(tmp_path) as store,
                running(store, settings("mqtts://127.0.0.1:1", tls=files)) as route,
            ):
                await until(lambda: route.status()["state"] == "refused", route.status)
                assert says in route.status()["last_error"] + route.status()["hint"]

    asyncio.run(scenario())


def test_a_broker_that_asks_for_a_certificate_gets_ours_and_says_when_it_wants_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker, authority = secured(tmp_path, mutual=True)
        with broker:
            cert, key = authority.issue("line")
            ca = {"ca": str(authority.path)}
            good = {**ca, "cert": str(cert), "key": str(key)}
            async with buffer(tmp_path) as store:
                async with running(store, settings(url(broker), confirm="broker", tls=good)) as route:
                    store.append(scans(20))
                    await settled(route, store)
                async with running(store, settings(url(broker), tls=ca), "bare") as route:
                    await until(lambda: route.status()["state"] == "refused", route.status)
                    assert "write `tls: {cert" in route.status()["hint"]
                authority.issue("line", good_for=-DAY)
                async with running(store, settings(url(broker), tls=good), "old") as route:
                    await until(lambda: route.status()["state"] == "refused", route.status)
                    assert "certificate expired" in route.status()["last_error"]
                    assert "line.pem ended on" in warnings(route)[0]

    asyncio.run(scenario())


@pytest.mark.usefixtures("often")
def test_a_renewed_certificate_is_taken_up_without_a_restart_and_a_broken_one_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker, authority = secured(tmp_path, mutual=True)
        with broker:
            cert, key = authority.issue("line", good_for=5 * DAY)
            files = {"ca": str(authority.path), "cert": str(cert), "key": str(key)}
            async with buffer(tmp_path) as store, running(store, settings(url(broker), tls=files)) as route:
                await until(lambda: route.status()["connections"] == 1, route.status)
                await until(lambda: bool(warnings(route)), route.status)
                assert "line.pem ends on" in warnings(route)[0]
                kept = key.read_bytes()
                authority.issue("line")
                new = key.read_bytes()
                key.write_bytes(kept)  # the certificate is there already, its key is not
                await until(lambda: any("next connection will fail" in what for what in warnings(route)))
                assert route.status()["connections"] == 1, "what works is not thrown away for what does not"
                key.write_bytes(new)
                await until(lambda: route.status()["connections"] == 2 and not warnings(route), route.status)
                store.append(scans(10))
                await until(lambda: route.status()["state"] == "connected")

    asyncio.run(scenario())


@pytest.mark.usefixtures("often")
def test_a_brokers_certificate_that_ends_soon_is_told_while_it_still_works(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker, authority = secured(tmp_path, good_for=datetime.timedelta(days=9, hours=1))
        with broker:
            given = {"tls": {"ca": str(authority.path)}}
            async with buffer(tmp_path) as store, running(store, settings(url(broker), **given)) as route:
                await until(lambda: route.status()["state"] == "connected", route.status)
                (what,) = warnings(route)
                assert what.startswith("the certificate of the broker mqtts://127.0.0.1:")
                assert what.endswith("in 9 days")

    asyncio.run(scenario())


def test_a_brokers_certificate_that_has_ended_is_no_connection_and_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker, authority = secured(tmp_path, good_for=-DAY)
        with broker:
            given = {"tls": {"ca": str(authority.path)}}
            async with buffer(tmp_path) as store, running(store, settings(url(broker), **given)) as route:
                await until(lambda: route.status()["state"] == "refused", route.status)
                assert "renew the broker's certificate" in route.status()["hint"]
                assert "clock says" in route.status()["hint"]

    asyncio.run(scenario())


def test_a_ca_file_is_as_good_as_its_newest_certificate(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old", 3 * DAY), Authority(tmp_path, "new")
    (ending,) = tls.file_notices(settings("mqtts://b", tls={"ca": str(old.path)}).tls)
    assert ending.what.startswith("the newest CA certificate in")
    old.path.write_bytes(old.path.read_bytes() + new.path.read_bytes())
    assert tls.file_notices(settings("mqtts://b", tls={"ca": str(old.path)}).tls) == []
    old.path.write_text("no certificate")
    (broken,) = tls.file_notices(settings("mqtts://b", tls={"ca": str(old.path)}).tls)
    assert str(old.path) in broken.what


# --- tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("often")
def test_a_token_is_taken_up_before_the_one_in_use_ends(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    first, second, third = jwt(3600), jwt(30), jwt(7200)

    async def scenario() -> None:
        with Mosquitto(tmp_path, users={"line": first}) as broker:
            login = {"username": "line", "password": {"file": str(secret)}}
            secret.write_text(first)
            async with buffer(tmp_path) as store, running(store, settings(broker.url, **login)) as route:
                await until(lambda: route.status()["state"] == "connected", route.status)
                secret.write_text(second)
                await asyncio.sleep(0.5)
                assert route.status()["connections"] == 1, "the token in use is good for an hour: nothing to do"
        with Mosquitto(tmp_path, users={"line": second}) as broker:
            async with buffer(tmp_path) as store, running(store, settings(broker.url, **login)) as route:
                await until(lambda: any("was not renewed" in what for what in warnings(route)), route.status)
                assert str(secret) in warnings(route)[0]
                assert second not in str(route.status())
                broker.admit({"line": third})
                secret.write_text(third)
                await until(lambda: route.status()["connections"] == 2 and not warnings(route), route.status)

    asyncio.run(scenario())


def test_a_password_is_read_anew_at_each_connect(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old")

    async def scenario() -> None:
        login = {"username": "line", "password": {"file": str(secret)}}
        with Mosquitto(tmp_path, users={"line": "old"}) as broker:
            port = broker.port
            async with buffer(tmp_path) as store, running(store, settings(broker.url, **login)) as route:
                await until(lambda: route.status()["state"] == "connected", route.status)
                broker.kill()
                broker.admit({"line": "new"})
                secret.write_text("new")
                broker.start()
                assert broker.port == port
                await until(lambda: route.status()["connections"] == 2, route.status)
                with Watcher(broker.url, username="line", password="new"):
                    pass

    asyncio.run(scenario())
