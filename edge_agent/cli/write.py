"""`edge-agent write`: one value to one tag, by a person: what it was, a question, the write, what it is then.

Through the running agent, which checks the role, keeps the record and writes between two reads. With no agent running
the device is opened here: the same roles, judged by the groups of who asks, but nothing is recorded, and it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli import Globals, UsageProblem
from edge_agent.cli.at_device import DeviceName, agent_has, quiet
from edge_agent.cli.bind import Reason
from edge_agent.cli.datadir import DataDir, data_dir_of, must_ask_agent
from edge_agent.cli.output import AsJson, console, emit_json, say
from edge_agent.cli.watch import value_text
from edge_agent.i18n import _

if TYPE_CHECKING:
    from edge_agent.config import Config, Device
    from edge_agent.driver import Driver
    from edge_agent.model import Value

OPEN_S = 20.0
SHOWN_S = 3.0  # so long is waited until the agent has read the tag again

# A value may begin with a minus sign, which is no option then.
command = typer.Typer(add_completion=False)


@command.command(
    help=_("Write a tag, once, by hand; the device reads it back."), context_settings={"ignore_unknown_options": True}
)
def write(
    ctx: typer.Context,
    device: DeviceName,
    tag: Annotated[str, typer.Argument(metavar="TAG", help=_("a tag that says write: true"))],
    value: Annotated[str, typer.Argument(metavar="VALUE", help=_("true, 12, 12.5, a text, [1, 2]"))],
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help=_("do not ask"))] = False,
    force: Annotated[bool, typer.Option("--force", help=_("also what a station writes itself; role admin"))] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """See the module's docstring."""
    if agent_has(ctx, data_dir, device):
        path = data_dir_of(ctx, data_dir)
        request = {"device": device, "tag": tag, "value": value, "reason": reason, "force": force}
        planned = must_ask_agent(ctx, path, "device_write", check=True, **request)
        _must_be_meant(planned, yes=yes, as_json=as_json)
        done = must_ask_agent(ctx, path, "device_write", **request) | {"recorded": True}
        done["now"] = asyncio.run(_read_again(ctx, path, device, tag, int(done["at_ns"])))
    else:
        done = _directly(ctx, device, tag, value, force=force, yes=yes, as_json=as_json)
    if as_json:
        emit_json(done)
        return
    say(console(), _("{device}.{tag} is written").format(device=device, tag=tag), "green")
    if done["now"] is not None:
        say(console(), _("it shows {value} now").format(value=_with_unit(done["now"])))
    if not done["recorded"]:
        say(console(), _("no running agent has this device: the write is not recorded"), "yellow")


def _must_be_meant(planned: dict[str, Any], *, yes: bool, as_json: bool) -> None:
    """Show what will be done and ask. Raises Exit when it is not meant."""
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise UsageProblem("nobody can be asked whether this is meant", hint="say so: --yes")
    was = _with_unit(planned["old"]) if planned["old"] else _("not known")
    text = _("{device}.{tag}: {old} → {new}. Write it?")
    new = value_text(planned["new"])
    typer.confirm(text.format(device=planned["device"], tag=planned["tag"], old=was, new=new), abort=True)


def _with_unit(shown: dict[str, Any]) -> str:
    return f"{value_text(shown['value'])} {shown['unit']}".rstrip()


async def _read_again(ctx: typer.Context, data_dir: Path, device: str, tag: str, at_ns: int) -> dict[str, Any] | None:
    """What the agent reads of the tag after the write; None for a tag that is not read, or not so soon."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SHOWN_S):
            while True:
                asked = {"device": device}
                facts = await asyncio.to_thread(must_ask_agent, ctx, data_dir, "device_values", **asked)
                found = [one for tags in facts["values"].values() for one in tags if one["tag"] == tag]
                if not found:
                    return None
                shown: dict[str, Any] = found[0]
                if int(shown["at_ns"]) > at_ns:
                    return shown
                await asyncio.sleep(0.1)
    return None


# --- with no agent -------------------------------------------------------------------------------------------


def _directly(
    ctx: typer.Context, name: str, tag: str, text: str, *, force: bool, yes: bool, as_json: bool
) -> dict[str, Any]:
    from edge_agent.config import load
    from edge_agent.control.devices import not_for_people, owner_of, value_for

    quiet()
    config = load(Globals.of(ctx).config)
    if name not in config.devices:
        raise UsageProblem(f"no device is named {name!r}", hint=f"there are: {', '.join(config.devices)}")
    device = config.devices[name]
    value = value_for(name, device.shape, tag, text)
    owner = owner_of(config.plan.stations, name, tag)
    if owner and not force:
        raise not_for_people(name, tag, owner)
    asyncio.run(_must_have_role(config, admin=owner is not None))
    old = asyncio.run(_at(device, tag))
    _must_be_meant({"device": name, "tag": tag, "old": old, "new": value}, yes=yes, as_json=as_json)
    now = asyncio.run(_at(device, tag, [value]))
    return {"device": name, "tag": tag, "old": old, "new": value, "now": now, "recorded": False}


async def _must_have_role(config: Config, *, admin: bool) -> None:
    """Raises RoleRefused. Who owns data_dir is the agent's user, who may do all."""
    from edge_agent.control import Caller
    from edge_agent.control.roles import Roles

    try:
        agent_uid = config.agent.data_path.stat().st_uid
    except OSError:
        agent_uid = 0
    caller = Caller(os.getuid(), os.getgid(), os.getpid(), frozenset((os.getgid(), *os.getgroups())))
    await Roles(config.agent.roles.model_dump(), agent_uid).require(caller, "admin" if admin else "technician")


async def _at(device: Device, tag: str, write: list[Value] | None = None) -> dict[str, Any] | None:
    """Open the device, write the value if there is one, and read the tag; None for a tag that is not read."""
    driver = device.spec.create(device.name, device.settings)
    try:
        async with asyncio.timeout(OPEN_S):
            await driver.open()
            for value in write or ():
                await driver.write(tag, value)
            return await _read(driver, device, tag)
    except TimeoutError as error:
        raise _silent(device, written=write is not None) from error
    finally:
        await driver.close()


async def _read(driver: Driver, device: Device, tag: str) -> dict[str, Any] | None:
    from edge_agent.model import Sample
    from edge_agent.traffic import tag_value

    for name, group in device.shape.groups.items():
        if tag in group.tags and not group.spoken:
            for item in await driver.read(name):
                if isinstance(item, Sample) and tag in group.tags:
                    return tag_value(item, [one.name for one in item.tagset.tags].index(tag))
    return None


def _silent(device: Device, *, written: bool) -> Exception:
    from edge_agent.errors import DeviceUnavailable

    what = "it may have been written" if written else "nothing was written"
    return DeviceUnavailable(
        device.name, f"no answer within {OPEN_S:.0f} s: {what}", hint="look at it: edge-agent watch"
    )
