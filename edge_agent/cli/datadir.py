"""Where the verbs that look at an agent find it: its data_dir, its control socket, its buffer.

The config is read for data_dir alone and may have mistakes: `status` must work while somebody edits it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli import Globals, Unavailable
from edge_agent.control import AgentNotRunning, AgentRefused, ControlError, ask
from edge_agent.errors import ConfigError, Problem, StorageError
from edge_agent.i18n import _

if TYPE_CHECKING:
    from edge_agent.buffer import Archive

VERB_TIMEOUT_S = 130.0  # a little more than the agent gives a verb

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="PATH", help=_("the agent's data_dir; default: the configuration's")),
]


def data_dir_of(ctx: typer.Context, given: Path | None) -> Path:
    """The data_dir to look at: as given, else what the config says. Raises ConfigError when it says nothing."""
    if given is not None:
        return given
    from edge_agent.config.tree import parse, read_text

    path = Globals.of(ctx).config
    problems: list[Problem] = []
    root = parse(read_text(path), str(path), problems)
    node = root.find(("agent", "data_dir")) if root is not None else None
    if node is not None and isinstance(node.value, str):
        return Path(node.value)
    missing = Problem(
        str(path), node.line if node else 0, "agent.data_dir", "is missing", "write it, or give --data-dir"
    )
    raise ConfigError([missing] if root is not None else problems)


def ask_agent(data_dir: Path, verb: str) -> dict[str, Any] | None:
    """The running agent's answer; None when no agent runs there. Raises Unavailable when it cannot be asked."""
    try:
        return ask(data_dir, verb)
    except AgentNotRunning:
        return None
    except ControlError as error:
        raise Unavailable(str(error.args[0]), hint=error.hint) from error


def must_ask_agent(ctx: typer.Context, data_dir: Path, verb: str, **arguments: Any) -> dict[str, Any]:
    """The running agent's answer to a verb that only it can do; AgentRefused passes through.

    Raises Unavailable, saying how to start it, when it does not run.
    """
    try:
        return ask(data_dir, verb, timeout_s=VERB_TIMEOUT_S, **arguments)
    except AgentNotRunning as error:
        hint = f"start it: systemctl start edge-agent, or edge-agent --config {Globals.of(ctx).config} run"
        what = f"no agent is running on {data_dir}; only the running agent can do this"
        raise Unavailable(what, hint=hint) from error
    except AgentRefused:
        raise
    except ControlError as error:
        raise Unavailable(str(error.args[0]), hint=error.hint) from error


def open_archive(data_dir: Path) -> Archive:
    """The buffer of ``data_dir``, for reading, whether or not an agent runs. Raises Unavailable."""
    from edge_agent.buffer import open_readonly

    try:
        return open_readonly(data_dir)
    except StorageError as error:
        raise Unavailable(str(error.args[0]), hint=error.hint) from error
