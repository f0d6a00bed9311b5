"""Where `watch` and `write` find a device: in the running agent, else by opening it themselves.

With no agent running, or for a device that the running one does not have (it was added to the file since), the device
is opened here, by its driver and a collector that records nothing. Its section of the config is all that must be right
for that. Groups that a station's trigger would read are then read once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from edge_agent.cli import Globals, UsageProblem
from edge_agent.cli.datadir import ask_agent, data_dir_of, must_ask_agent
from edge_agent.errors import ConfigError, Problem
from edge_agent.i18n import _

if TYPE_CHECKING:
    from edge_agent.config import Device

ON_TRIGGER_S = 1.0
_SILENT = logging.NullHandler()

DeviceName = Annotated[str, typer.Argument(metavar="DEVICE", help=_("its name in the configuration"))]


class Look(Protocol):
    """One device, looked at: ``told`` says how, for people; ``reads_all``: also what is read on a trigger only."""

    told: str
    reads_all: bool

    async def values(self, names: Sequence[str], change: int, scan: int) -> dict[str, Any]: ...


def agent_has(ctx: typer.Context, data_dir: Path | None, device: str) -> bool:
    """Whether an agent runs that has this device. Raises Unavailable when it cannot be asked."""
    status = ask_agent(data_dir_of(ctx, data_dir), "status")
    return status is not None and device in status["devices"]


@contextlib.asynccontextmanager
async def looking(ctx: typer.Context, data_dir: Path | None, device: str) -> AsyncIterator[Look]:
    """A look at the device, for as long as the block lasts."""
    if await asyncio.to_thread(agent_has, ctx, data_dir, device):
        yield _ThroughAgent(ctx, data_dir_of(ctx, data_dir), device)
        return
    async with _directly(device_section(Globals.of(ctx).config, device)) as look:
        yield look


def device_section(path: Path, name: str) -> Device:
    """The device as the config describes it. Raises ConfigError for what is wrong in its section, nothing else's."""
    from edge_agent.config.devices import load_device
    from edge_agent.config.report import Problems, nearest
    from edge_agent.config.tables import expand
    from edge_agent.config.tree import parse, read_text

    found: list[Problem] = []
    root = parse(read_text(path), str(path), found)
    if root is None:
        raise ConfigError(found)
    devices = root.children.get("devices")
    if devices is None or name not in devices.children:
        names = [str(one) for one in devices.children] if devices is not None else []
        hint = nearest(name, names) or "add it: edge-agent devices scan"
        raise UsageProblem(f"no device is named {name!r} in {path}", hint=hint)
    expand(root, path, only=name)
    problems = Problems(str(path), root)
    device, _known = load_device(name, devices.children[name], problems, {})
    if device is None:
        raise ConfigError(problems.found)
    return device


class _ThroughAgent:
    reads_all = False

    def __init__(self, ctx: typer.Context, data_dir: Path, device: str) -> None:
        self.told = _("through the running agent")
        self._ctx, self._data_dir, self._device = ctx, data_dir, device

    async def values(self, names: Sequence[str], change: int, scan: int) -> dict[str, Any]:
        asked = {"device": self._device, "names": list(names), "change": change, "scan": scan}
        return await asyncio.to_thread(must_ask_agent, self._ctx, self._data_dir, "device_values", **asked)


class _Direct:
    reads_all = True

    def __init__(self, device: Device) -> None:
        from edge_agent.collector import Collector
        from edge_agent.taker import Nobody

        self.told = _("no running agent has it: it is read directly, and nothing is recorded")
        self.nobody = Nobody()
        self.collector = Collector(device.name, device.spec, device.settings, device.shape, self.nobody)
        groups = device.shape.groups.values()
        self._on_trigger = [group.tagset.source for group in groups if group.poll_s is None and not group.spoken]

    async def values(self, names: Sequence[str], change: int, scan: int) -> dict[str, Any]:
        from edge_agent.control.devices import must_know

        must_know(self.collector.name, self.collector.shape, names)
        return self.collector.watched(names, change, scan)

    async def ask(self) -> None:
        """Ask for the groups that nothing else asks for."""
        from edge_agent.binding import ReadGroup

        while True:
            if self.collector.status()["state"] == "connected":
                for source in self._on_trigger:
                    self.nobody.request(ReadGroup(source))
            await asyncio.sleep(ON_TRIGGER_S)


@contextlib.asynccontextmanager
async def _directly(device: Device) -> AsyncIterator[_Direct]:
    quiet()
    look = _Direct(device)
    tasks = [asyncio.create_task(look.collector.run()), asyncio.create_task(look.ask())]
    try:
        yield look
    finally:
        look.collector.stop()
        await asyncio.wait(tasks[:1], timeout=1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def quiet() -> None:
    """What the collector and the libraries log is shown by the verb itself."""
    logging.getLogger().addHandler(_SILENT)
