"""The control socket over real sockets: who asks, what is refused, and that a stuck caller blocks nobody."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edge_agent.control import AgentNotRunning, Caller, Control, ControlError, ask, server
from edge_agent.errors import StorageError


class _Refused(StorageError):
    """What a handler raises on purpose."""


def _whoami(caller: Caller, request: dict[str, Any]) -> Mapping[str, Any]:
    return {"uid": caller.uid, "gid": caller.gid, "pid": caller.pid, "user": caller.user, "asked": request}


def _refuse(caller: Caller, request: dict[str, Any]) -> Mapping[str, Any]:
    raise _Refused("not today", hint="try tomorrow")


def _broken(caller: Caller, request: dict[str, Any]) -> Mapping[str, Any]:
    raise ZeroDivisionError


def _large(caller: Caller, request: dict[str, Any]) -> Mapping[str, Any]:
    return {"text": "x" * 2_000_000}


def _listening(path: Path) -> bool:
    return path.exists() and stat.S_IMODE(path.stat().st_mode) == 0o660


@asynccontextmanager
async def _serving(data_dir: Path) -> AsyncIterator[Path]:
    path = data_dir / "control.sock"
    handlers = {"whoami": _whoami, "refuse": _refuse, "broken": _broken, "large": _large}
    task = asyncio.create_task(Control(path, handlers).serve())
    try:
        while not _listening(path) and not task.done():  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(0.005)
        yield path
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _ask(data_dir: Path, verb: str, **arguments: Any) -> dict[str, Any]:
    """Serve in this process and ask from a thread, as another process would."""

    async def both() -> dict[str, Any]:
        async with _serving(data_dir):
            return await asyncio.to_thread(ask, data_dir, verb, **arguments)

    return asyncio.run(both())


def _raw(data_dir: Path, request: bytes) -> bytes:
    async def both() -> bytes:
        async with _serving(data_dir) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request)
            reply = await reader.readline()
            writer.close()
            return reply

    return asyncio.run(both())


def test_the_kernel_says_who_asks_whatever_the_request_claims(tmp_path: Path) -> None:
    answer = _ask(tmp_path, "whoami", uid=0, serial="SN1")
    assert (answer["uid"], answer["gid"], answer["pid"]) == (os.getuid(), os.getgid(), os.getpid())
    assert answer["user"]
    assert answer["asked"] == {"verb": "whoami", "uid": 0, "serial": "SN1"}


def test_a_refusal_arrives_with_its_hint(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="not today") as caught:
        _ask(tmp_path, "refuse")
    assert caught.value.hint == "try tomorrow"


def test_an_unknown_verb_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no verb named 'stauts'") as caught:
        _ask(tmp_path, "stauts")
    assert "whoami" in caught.value.hint


def test_a_long_answer_arrives_whole(tmp_path: Path) -> None:
    assert len(_ask(tmp_path, "large")["text"]) == 2_000_000


def test_a_fault_in_a_handler_closes_that_connection_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def both() -> dict[str, Any]:
        async with _serving(tmp_path):
            with pytest.raises(ControlError, match="without an answer"):
                await asyncio.to_thread(ask, tmp_path, "broken")
            return await asyncio.to_thread(ask, tmp_path, "whoami")

    assert asyncio.run(both())["uid"] == os.getuid()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "request_line", [b"not json\n", b"[1]\n", b'{"verb": 7}\n', b'{"verb": "' + b"x" * 70_000 + b'"}\n']
)
def test_what_is_no_request_is_answered_with_an_error(tmp_path: Path, request_line: bytes) -> None:
    assert b'"error":"the request must be' in _raw(tmp_path, request_line)


def test_callers_that_say_nothing_are_dropped_and_block_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTION_TIMEOUT_S", 0.3)

    async def both() -> dict[str, Any]:
        async with _serving(tmp_path) as path:
            silent = [await asyncio.open_unix_connection(path) for _ in range(server.CONNECTIONS_MAX)]
            with pytest.raises(ControlError, match="too many callers"):
                await asyncio.to_thread(ask, tmp_path, "whoami")
            for reader, _writer in silent:
                assert await reader.read() == b""  # dropped after the time-out
            answer = await asyncio.to_thread(ask, tmp_path, "whoami")
            for _reader, writer in silent:
                writer.close()
            return answer

    assert asyncio.run(both())["uid"] == os.getuid()


def test_the_socket_is_for_user_and_group_and_gone_afterwards(tmp_path: Path) -> None:
    async def mode() -> int:
        async with _serving(tmp_path) as path:
            return stat.S_IMODE(path.stat().st_mode)

    assert asyncio.run(mode()) == 0o660
    assert not (tmp_path / "control.sock").exists()


def test_a_socket_file_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    with pytest.raises(AgentNotRunning):
        ask(tmp_path, "whoami")
    assert _ask(tmp_path, "whoami")["uid"] == os.getuid()


def test_a_data_dir_with_a_very_long_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    assert _ask(deep, "whoami")["uid"] == os.getuid()


@pytest.mark.parametrize("where", [".", "nothing-here"])
def test_nobody_there_says_how_to_start(tmp_path: Path, where: str) -> None:
    with pytest.raises(AgentNotRunning, match="no agent is running on") as caught:
        ask(tmp_path / where, "status")
    assert "systemctl start" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_who_may_not_ask_is_told_what_to_do(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(ControlError, match="you may not ask the agent") as caught:
            ask(data_dir, "status")
    finally:
        os.seteuid(0)
    assert not isinstance(caught.value, AgentNotRunning)
    assert "usermod -aG edge-agent" in caught.value.hint


def test_an_agent_that_hangs_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / "control.sock"))
        hung.listen(1)
        with pytest.raises(ControlError, match="does not answer") as caught:
            ask(tmp_path, "status", timeout_s=0.1)
    assert not isinstance(caught.value, AgentNotRunning)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot create .*control\.sock"):
        asyncio.run(Control(tmp_path / "missing" / "control.sock", {}).serve())
