"""The command line: `edge-agent VERB`. One file a verb, loaded only when that verb is asked for.

**Adding a verb.** Put its name into ``VERBS`` and write ``edge_agent/cli/<verb>.py`` with one public name::

    def command(ctx: typer.Context, url: Annotated[str, typer.Option(help=_("..."))], as_json: AsJson = False) -> None:
        '''One sentence: what it does. (Shown by --help; translated when the catalogue has it.)'''
        settings = Globals.of(ctx)      # .config: Path, .debug: bool
        ...
        raise typer.Exit(ExitCode.PROBLEM)   # returning is ExitCode.OK

``command`` is a function with typer annotations, or a ``typer.Typer`` when the verb has verbs of its own (`buffer
stats`). Verbs that print take ``AsJson`` from :mod:`edge_agent.cli.output`. Errors are raised as ``EdgeAgentError``
with a hint and reach the terminal from here, with the exit code below. `run` imports neither rich nor another verb,
which keeps the running agent small: a verb imports what is heavy inside its function.

**Global options** (``--config``, ``--lang``, ``--debug``) may stand before or after the verb.

**Exit codes** are :class:`ExitCode`; docs/cli.md lists them for users.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from edge_agent import i18n
from edge_agent.errors import ConfigError, EdgeAgentError, StorageBusy, StorageError
from edge_agent.i18n import _

VERBS = (
    "run", "check", "status", "trace", "unbound", "bind", "rebind", "unbind", "findings", "hold", "release", "holds",
    "gate", "watch", "write", "report", "listen", "demo", "buffer", "route", "deadletter", "labels", "map", "devices",
    "tags", "probe", "camera", "browse", "opcua", "listen-serial", "schema", "version",
)  # fmt: skip
MEANT = {"scan": "devices scan", "export": "tags export", "import": "tags import", "trust": "opcua trust"}
DEFAULT_CONFIG = Path("/etc/edge-agent/config.yaml")


class ExitCode(IntEnum):
    """What a script can conclude, after sysexits.h where it has a word for it."""

    OK = 0
    PROBLEM = 1  # the answer is bad news: degraded, unknown serial, lost records; also an unexpected error
    USAGE = 2  # the command line itself
    DAMAGED = 65  # `buffer verify` found damage
    UNAVAILABLE = 69  # no agent answers, or there is no buffer to read
    CANNOT_CREATE = 73  # data_dir or a file in it cannot be created, read or written
    BUSY = 75  # another agent owns this data_dir
    CONFIG = 78  # the configuration is wrong


class UsageProblem(EdgeAgentError):
    """The command line asks for something that does not exist or does not fit together."""


class Unavailable(EdgeAgentError):
    """What the verb needs is not there: no agent, no buffer."""


@dataclass(frozen=True, slots=True)
class Globals:
    """The options that every verb shares."""

    config: Path
    debug: bool

    @classmethod
    def of(cls, ctx: typer.Context) -> Globals:
        """The global options of this invocation."""
        found = ctx.find_root().obj
        assert isinstance(found, cls)
        return found


class _Verbs(TyperGroup):
    """The verbs, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in VERBS:
            return load(cmd_name)
        if cmd_name.startswith("-"):
            return None
        near = [MEANT[cmd_name]] if cmd_name in MEANT else get_close_matches(cmd_name, VERBS, n=1)
        raise UsageProblem(
            f"no verb named {cmd_name!r}",
            hint=f"did you mean `edge-agent {near[0]}`?" if near else f"choose from {', '.join(VERBS)}",
        )


def load(verb: str) -> Any:
    """The click command of one verb; imports its module."""
    command = importlib.import_module(f"edge_agent.cli.{verb.replace('-', '_')}").command
    if not isinstance(command, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(verb, help=_(inspect.getdoc(command) or ""))(command)
        command = app
    found = typer.main.get_command(command)
    found.name = verb
    return found


def root() -> Any:
    """The click group of all verbs, its texts in the language chosen by :func:`i18n.use`."""
    app = typer.Typer(cls=_Verbs, add_completion=False, no_args_is_help=True)

    @app.callback(help=_("Binds every reading of a production line to its serial, and proves that nothing was lost."))
    def options(
        ctx: typer.Context,
        config: Annotated[
            Path, typer.Option(envvar="EDGE_AGENT_CONFIG", help=_("the configuration file"), metavar="PATH")
        ] = DEFAULT_CONFIG,
        lang: Annotated[Literal["en", "zh"] | None, typer.Option(help=_("language; default: the locale's"))] = None,
        debug: Annotated[bool, typer.Option("--debug", envvar="EDGE_AGENT_DEBUG", help=_("show tracebacks"))] = False,
    ) -> None:
        ctx.obj = Globals(config, debug)

    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one verb, then leave with its exit code (SystemExit)."""
    arguments = _globals_first(list(sys.argv[1:] if argv is None else argv))
    i18n.use(_value_of("--lang", arguments) or i18n.preferred(os.environ))
    debug = "--debug" in arguments or os.environ.get("EDGE_AGENT_DEBUG", "") not in ("", "0")
    try:
        root().main(args=arguments, prog_name="edge-agent")  # leaves with SystemExit unless something is wrong
        code = ExitCode.OK
    except EdgeAgentError as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"{i18n.explain(error)}\n")
        code = exit_code(error)
    except Exception as error:  # noqa: BLE001  the last line: whatever it was, the user gets one line and a way on
        if debug:
            traceback.print_exc()
        what = _("unexpected {error}").format(error=f"{type(error).__name__}: {error}")
        hint = _("this is a fault of edge-agent: run it again with --debug and report what it prints")
        sys.stderr.write(f"edge-agent: {what}\n  → {hint}\n")
        code = ExitCode.PROBLEM
    sys.exit(code)


def exit_code(error: EdgeAgentError) -> ExitCode:
    """Which exit code an error that ends the command has."""
    if isinstance(error, ConfigError):
        return ExitCode.CONFIG
    if isinstance(error, StorageBusy):
        return ExitCode.BUSY
    if isinstance(error, StorageError):
        return ExitCode.CANNOT_CREATE
    if isinstance(error, UsageProblem):
        return ExitCode.USAGE
    if isinstance(error, Unavailable):
        return ExitCode.UNAVAILABLE
    return ExitCode.PROBLEM


def _globals_first(argv: list[str]) -> list[str]:
    """The arguments with the global options moved to the front, where the group expects them."""
    front: list[str] = []
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if argument == "--":
            rest += [argument, *arguments]
        elif argument in ("--lang", "--config"):
            front += [argument, *[value for value in [next(arguments, None)] if value is not None]]
        elif argument == "--debug" or argument.startswith(("--lang=", "--config=")):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def _value_of(option: str, arguments: list[str]) -> str | None:
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option and position + 1 < len(arguments):
            return arguments[position + 1]
    return None
