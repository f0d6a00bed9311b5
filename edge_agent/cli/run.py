"""`edge-agent run`: the agent itself, in the foreground, as systemd starts it."""

from __future__ import annotations

import asyncio

import typer

from edge_agent import logs
from edge_agent.cli import Globals


def command(ctx: typer.Context) -> None:
    """Run the agent until SIGTERM or Ctrl-C. A second one skips the draining of routes."""
    from edge_agent.agent import Agent
    from edge_agent.config import load

    logs.configure()
    agent = Agent(load(Globals.of(ctx).config))
    asyncio.run(agent.run())
