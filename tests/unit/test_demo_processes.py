"""The processes of the demo: what a user reads when one of them does not do its part."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge_agent import i18n
from edge_agent.demo.processes import PORTS, AgentProcess, DemoError, LineProcess, free_port, write_config
from support.delivery import until


def agent_of(directory: Path) -> AgentProcess:
    config = write_config(directory, plc_port=free_port(), broker_port=free_port())
    return AgentProcess(config, directory / "agent.log", directory / "data")


async def _started(agent: AgentProcess, timeout_s: float) -> None:
    await agent.start()
    try:
        await until(lambda: agent.log.read_text().endswith("\n"))  # its last words are told: let it say some
        await agent.connected(timeout_s)
    finally:
        await agent.kill()


def test_an_agent_that_is_not_ready_is_told_with_its_log_and_what_to_type(tmp_path: Path) -> None:
    agent = agent_of(tmp_path)  # of a line that is not there
    with pytest.raises(DemoError) as caught:
        asyncio.run(_started(agent, 0.5))
    told = i18n.explain(caught.value)
    assert "the demo's agent was not connected to every device within 0.5 s; its last words:\n" in told
    assert agent.log.read_text().splitlines()[0].split()[0][:4] in told
    assert told.endswith("→ run it again with --keep DIR and look at DIR/agent.log")


def test_an_agent_that_ends_is_told_at_once(tmp_path: Path) -> None:
    agent = agent_of(tmp_path)
    (tmp_path / "line.yaml").write_text("agent: {idd: 1}\n")
    with pytest.raises(DemoError, match=r"agent ended with 78; (?s:.)*idd"):
        asyncio.run(_started(agent, 30))


def test_a_line_whose_port_is_taken_is_told_with_the_reason(tmp_path: Path) -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", free_port())
        line = LineProcess(tmp_path, port=server.sockets[0].getsockname()[1], seed=1)
        try:
            await line.begin()
        finally:
            await line.kill()
            server.close()

    with pytest.raises(DemoError, match=r"the demo's line answered \{\} to 'start'; its last words:\n"):
        asyncio.run(run())


def test_a_port_is_not_one_that_the_kernel_gives_to_clients() -> None:
    assert {free_port() for _ in range(50)} <= set(PORTS)
