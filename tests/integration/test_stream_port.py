"""One byte stream, whatever it comes over: pseudo terminals, sockets, and names that move."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import socket
import termios
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.errors import DeviceLost, DeviceRefused, DeviceUnavailable
from edge_agent_drivers.stream import failure, port
from edge_agent_drivers.stream.marks import Marks
from edge_agent_drivers.stream.port import LineError, Port
from edge_agent_drivers.stream.settings import StreamSettings
from support.pty_reader import PtyReader

SOON_S = 5.0


def port_at(where: str | Path, **keys: Any) -> Port:
    return Port("gate", StreamSettings.model_validate({"port": str(where), **keys}))


async def taken(stream: Port, count: int) -> bytes:
    """So many bytes, however many pieces they come in."""
    data = b""
    while len(data) < count:
        piece = await stream.take(SOON_S)
        assert piece, f"only {data!r} came"
        data += piece
    return data


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(main())


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"port": "ttyUSB0"}, "is no port"),
        ({"port": "COM3"}, "is no port"),
        ({"port": "usb:403:6001"}, "is no port"),
        ({"port": "tcp://10.0.0.5"}, "is no port"),
        ({"port": "tcp://10.0.0.5:0"}, "is no port"),
        ({"port": "tcp://10.0.0.5:99999"}, "is no port"),
        ({"port": "tcp://10.0.0.5:23/path"}, "is no port"),
        ({"port": "tcp://10.0.0.5:23", "baud": 9600}, "serial server"),
        ({"port": "/dev/ttyS0", "flow": "rtscts", "rts": False}, "leave rts out"),
        ({"port": "/dev/ttyS0", "flow": "hardware"}, "flow"),
    ],
)
def test_what_cannot_be_is_told_why(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        StreamSettings.model_validate(keys)


def test_an_address_may_be_a_name_or_ipv6() -> None:
    assert StreamSettings(port="tcp://reader7:23").address == ("reader7", 23)
    assert StreamSettings(port="tcp://[::1]:4001").address == ("::1", 4001)
    assert StreamSettings(port="usb:0403:6001:A1").address is None


# --- serial ---------------------------------------------------------------------------------------------------


def test_every_byte_comes_through_both_ways(tmp_path: Path) -> None:
    everything = bytes(range(256)) + b"\xff\xff\x00\xff"

    async def test() -> None:
        reader, stream = PtyReader(tmp_path / "gate"), port_at(tmp_path / "gate", baud=115200)
        assert await stream.open()
        reader.send(everything)
        assert await taken(stream, len(everything)) == everything
        await stream.send(everything)
        assert reader.received() == everything
        assert await stream.take(0.01) == b""
        stream.close()
        stream.close()
        with pytest.raises(DeviceLost, match="not open"):
            await stream.take()
        with pytest.raises(DeviceLost, match="not open"):
            await stream.send(b"x")
        reader.unplug()

    run(test())


def test_the_terminal_is_raw_and_marks_damaged_characters(tmp_path: Path) -> None:
    async def test() -> None:
        reader, stream = PtyReader(tmp_path / "gate"), port_at(tmp_path / "gate", flow="xonxoff", parity="even")
        await stream.open()
        iflag, oflag, _, lflag, *_ = termios.tcgetattr(stream._fd)
        assert iflag & termios.PARMRK
        assert iflag & termios.INPCK
        assert not iflag & (termios.IGNPAR | termios.ISTRIP | termios.ICRNL | termios.BRKINT)
        assert iflag & termios.IXON
        assert not oflag & termios.OPOST
        assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG)
        stream.close()
        reader.unplug()

    run(test())


def test_a_damaged_character_is_an_error_at_its_place(tmp_path: Path) -> None:
    """A pseudo terminal has no parity, so the mark is put where the kernel would."""

    class Damaging(Marks):
        def feed(self, data: bytes) -> list[bytes | None]:
            return super().feed(data.replace(b"#", b"\xff\x00#"))

    async def test() -> None:
        reader, stream = PtyReader(tmp_path / "gate"), port_at(tmp_path / "gate")
        await stream.open()
        stream._marks = Damaging()
        reader.send(b"SN1\rSN#2\r##SN3\r")
        assert await stream.take() == b"SN1\rSN"
        with pytest.raises(LineError, match="parity"):
            await stream.take()
        assert await stream.take() == b"2\r"
        with pytest.raises(LineError) as damaged:
            await stream.take()
        assert damaged.value.hint
        assert await stream.take() == b"SN3\r"
        stream.close()
        reader.unplug()

    run(test())


def test_an_overrun_voids_the_chunk_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter([5, 5, 6, 6])
    monkeypatch.setattr(port, "_overruns", lambda fd: next(counted))

    async def test() -> None:
        reader, stream = PtyReader(tmp_path / "gate"), port_at(tmp_path / "gate")
        await stream.open()
        reader.send(b"good\r")
        assert await taken(stream, 5) == b"good\r"
        reader.send(b"ho e\r")
        with pytest.raises(LineError, match="overrun"):
            await stream.take()
        reader.send(b"good again\r")
        assert await taken(stream, 11) == b"good again\r"
        stream.close()
        reader.unplug()

    run(test())


def test_closing_a_port_ends_who_waits_there_and_leaves_the_next_one_alone(tmp_path: Path) -> None:
    async def test() -> None:
        reader, other = PtyReader(tmp_path / "gate"), PtyReader(tmp_path / "other")
        port = Port("gate", StreamSettings(port=str(reader.port)))
        neighbour = Port("other", StreamSettings(port=str(other.port)))
        await port.open()
        waiting = asyncio.ensure_future(port.take(0.5))
        await asyncio.sleep(0.05)
        port.close()
        await neighbour.open()  # the system gives it the number that is free again
        taking = asyncio.ensure_future(neighbour.take(5))
        with pytest.raises(DeviceLost, match="closed"):
            await waiting
        other.send(b"SN1\r\n")
        assert await taking == b"SN1\r\n"
        neighbour.close()
        reader.unplug(), other.unplug()

    run(test())


def test_a_device_that_takes_no_data_is_lost_in_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "SEND_TIMEOUT_S", 0.2)

    async def test() -> None:
        reader, stream = PtyReader(tmp_path / "gate"), port_at(tmp_path / "gate")
        await stream.open()
        with pytest.raises(DeviceLost, match="takes no data") as lost:
            await stream.send(b"x" * 1_000_000)
        assert lost.value.hint
        stream.close()
        reader.unplug()

    run(test())


def test_a_device_comes_back_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """usb:VID:PID is looked up at each opening."""
    there: dict[str, str] = {}

    def resolve(name: str) -> str:
        if name not in there:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return there[name]

    monkeypatch.setattr(port, "resolve", resolve)

    async def test() -> None:
        stream = port_at("usb:0c2e:0b6a:22139B0C1F")
        with pytest.raises(DeviceUnavailable, match="is not plugged in"):
            await stream.open()
        for number in range(3):
            reader = PtyReader(tmp_path / f"ttyACM{number}")
            there[stream.where] = str(reader.port)
            await stream.open()
            reader.send(b"SN1\r")
            assert await taken(stream, 4) == b"SN1\r"
            reader.unplug()
            with pytest.raises(DeviceLost, match="unplugged"):
                await stream.take()

    run(test())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
def test_what_is_denied_just_after_a_plug_in_is_tried_again_soon(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """udev has not set the rights yet, or somebody has a first look at the new port."""
    node = tmp_path / "ttyACM0"
    node.touch()
    denied = OSError(number, os.strerror(number), str(node))
    assert isinstance(failure.failure("gate", str(node), denied), DeviceUnavailable)
    monkeypatch.setattr(failure, "UDEV_S", 0.0)
    refused = failure.failure("gate", str(node), denied)
    assert isinstance(refused, DeviceRefused)
    assert refused.hint.startswith("its group may not use it: sudo chgrp dialout") or "fuser" in refused.hint


def test_nobody_is_told_to_join_roots_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "_age_s", lambda path: 60.0)
    node = tmp_path / "ttyS0"
    node.touch()

    def hint(gid: int, mode: int) -> str:
        found = os.stat_result((0o020000 | mode, 1, 1, 1, 0, gid, 0, 0, 0, 0))
        with monkeypatch.context() as patch:
            patch.setattr(failure.os, "stat", lambda path: found)
            return failure.failure("gate", str(node), OSError(errno.EACCES, "denied", str(node))).hint

    assert hint(20, 0o660).startswith(f"sudo usermod -aG {grp.getgrgid(20).gr_name} ")
    for gid, mode in ((0, 0o600), (0, 0o660), (20, 0o600)):
        assert hint(gid, mode).startswith(f"its group may not use it: sudo chgrp dialout {node}")


def test_a_name_that_fits_several_ports_is_refused() -> None:
    several = OSError(errno.ENOTUNIQ, "fits several ports: /dev/ttyUSB0, /dev/ttyUSB1", "usb:0403:6001")
    refused = failure.failure("gate", "usb:0403:6001", several)
    assert isinstance(refused, DeviceRefused)
    assert "/dev/ttyUSB1" in str(refused)


# --- TCP ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(greeting: bytes = b"") -> AsyncIterator[tuple[int, list[asyncio.StreamWriter], asyncio.Server]]:
    """A serial server with whoever is connected."""
    clients: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        clients.append(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], clients, server
    finally:
        server.close()
        for client in clients:
            client.transport.abort()


def test_tcp_is_read_and_written_and_what_is_stale_is_discarded() -> None:
    async def test() -> None:
        async with served(b"STALE\r") as (number, clients, _):
            stream = port_at(f"tcp://127.0.0.1:{number}")
            assert await stream.open()
            clients[0].write(b"\xff\x00SN1\r")
            assert await taken(stream, 6) == b"\xff\x00SN1\r"  # no marks on a socket
            await stream.send(b"LON\r" * 1000)
            line = stream._line
            assert isinstance(line, socket.socket)
            assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == port.KEEP_ALIVE[socket.TCP_KEEPIDLE]
            clients[0].close()
            with pytest.raises(DeviceLost, match="closed by the other end") as lost:
                await stream.take()
            assert lost.value.hint
            stream.close()

    run(test())


def test_a_reset_is_a_loss_too() -> None:
    async def test() -> None:
        async with served() as (number, clients, _):
            stream = port_at(f"tcp://127.0.0.1:{number}")
            await stream.open()
            taking = asyncio.ensure_future(stream.take())
            await asyncio.sleep(0)
            clients[0].transport.abort()
            with pytest.raises(DeviceLost):
                await taking
            stream.close()

    run(test())


def test_nobody_listening_is_unavailable_with_a_hint() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            number = free.getsockname()[1]
        with pytest.raises(DeviceUnavailable, match="refuses") as unavailable:
            await port_at(f"tcp://127.0.0.1:{number}").open()
        assert unavailable.value.hint

    run(test())


def test_an_unknown_host_is_unavailable_and_the_hint_says_what_always_works() -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    unavailable = failure.failure("gate", "tcp://reader7:23", unknown)
    assert isinstance(unavailable, DeviceUnavailable)
    assert "IP address" in unavailable.hint


def test_a_host_that_does_not_answer_is_given_up_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "CONNECT_TIMEOUT_S", 0.2)

    async def test() -> None:
        with socket.socket() as deaf, contextlib.ExitStack() as waiting:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for _ in range(4):  # its queue is full: what comes now is not answered
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(deaf.getsockname())
            with pytest.raises(DeviceUnavailable, match="no answer"):
                await port_at(f"tcp://127.0.0.1:{deaf.getsockname()[1]}").open()

    run(test())
