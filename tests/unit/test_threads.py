"""Lookups that hang: they hold up neither the loop's thread pool nor the end of the process, in any driver."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.driver import load_driver
from edge_agent.errors import DeviceUnavailable
from edge_agent.threads import addresses, in_thread

MANY = 40  # more than the loop's pool has threads
DEVICES: dict[str, dict[str, Any]] = {
    "modbus": {"connection": "tcp://plc-7", "timeout": "200ms"},
    "scanner": {"port": "tcp://reader-7:23"},
    "opcua": {"connection": "opc.tcp://server-7:4840", "timeout": "1s", "security": {"policy": "None"}},
}


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Name servers that answer when the test is over; the names they were asked for."""
    asked: list[str] = []
    over = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        try:
            return real(host, port, family, type, proto, socket.AI_NUMERICHOST)
        except socket.gaierror:
            if flags & socket.AI_NUMERICHOST:
                raise
        asked.append(host)
        over.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    over.set()


@pytest.mark.parametrize("name", DEVICES)
def test_a_lookup_that_hangs_holds_up_nobody(name: str, hanging: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent_drivers.stream.port.CONNECT_TIMEOUT_S", 0.2)
    spec = load_driver(name)
    settings = spec.settings().model_validate(DEVICES[name])

    async def test() -> None:
        opening = [asyncio.ensure_future(spec.create(f"d{n}", settings).open()) for n in range(MANY)]
        while len(hanging) < MANY:  # noqa: ASYNC110  the lookups are in threads
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 5) == 7
        for error in await asyncio.gather(*opening, return_exceptions=True):
            assert isinstance(error, DeviceUnavailable), error

    began_s = time.monotonic()
    asyncio.run(asyncio.wait_for(test(), 15))
    assert time.monotonic() - began_s < 15, "the end waits for no lookup"


def test_a_literal_address_needs_no_thread(hanging: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)

    async def test() -> None:
        assert [found[4][:2] for found in await addresses("127.0.0.1", 502)] == [("127.0.0.1", 502)]
        assert [found[4][:2] for found in await addresses("::1", 502)] == [("::1", 502)]

    asyncio.run(test())
    assert not hanging


def test_a_name_that_cannot_be_one_is_an_unknown_host() -> None:
    with pytest.raises(socket.gaierror, match="not known"):
        asyncio.run(addresses("a..b", 502))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_nobody_foresaw_is_an_error_where_it_is_waited_for() -> None:
    with pytest.raises(RuntimeError, match="odd broke off"):
        asyncio.run(in_thread(lambda: {}["x"], "odd"))


def test_what_the_work_gives_or_raises_arrives() -> None:
    def fail() -> None:
        raise FileNotFoundError("x")

    assert asyncio.run(in_thread(lambda: 7, "seven")) == 7
    with pytest.raises(FileNotFoundError):
        asyncio.run(in_thread(fail, "fail"))
