"""`edge-agent demo`: a simulated line, watched from the PLC to the receiver, with an outage and a crash."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_agent.cli import ExitCode
from edge_agent.cli.output import AsJson, emit_json
from edge_agent.i18n import _, language

if TYPE_CHECKING:
    from rich.console import Console

    from edge_agent.demo.play import Outcome

CANCELLED = 130  # what a shell makes of Ctrl-C


def command(
    seconds: Annotated[float, typer.Option(min=15, max=3600, help=_("how long units flow"))] = 34.0,
    seed: Annotated[int, typer.Option(help=_("decides what goes wrong with which unit"))] = 1,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help=_("keep config, buffer, truth, logs and what was received here"))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch a simulated line being traced: a minute, a hold, a broker outage, a crash of the agent, nothing missing."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, stderr=as_json)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, stderr=as_json, width=160)
    with _directory(keep) as directory:
        try:
            outcome = asyncio.run(_play(directory, seconds, seed, console))
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print(_("stopped; everything was ended and removed"))
            raise typer.Exit(CANCELLED) from None
        if as_json:
            emit_json(asdict(outcome) | {"line": outcome.line()})
        else:
            asyncio.run(_tell(outcome, directory, console))
            if keep is not None:
                console.print(_("kept in {directory}").format(directory=directory))
            sys.stdout.write(outcome.line() + "\n")
    if not outcome.good:
        raise typer.Exit(ExitCode.PROBLEM)


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        for old in ("truth.jsonl", "receiver.db"):
            if (keep / old).exists():
                raise typer.BadParameter(_("{directory} holds an earlier demo").format(directory=keep))
        yield keep.resolve()
        return
    directory = Path(tempfile.mkdtemp(prefix="edge-agent-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _play(directory: Path, seconds: float, seed: int, console: Console) -> Outcome:
    from edge_agent.demo.play import Play, new_scene
    from edge_agent.demo.show import LiveStage, PlainStage

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    scene = new_scene()
    stage = LiveStage(scene, console) if console.is_terminal else PlainStage(scene, console)
    with stage:
        return await Play(directory, seed=seed, seconds=seconds, scene=scene, stage=stage).run()


async def _tell(outcome: Outcome, directory: Path, console: Console) -> None:
    """What was counted and shown; then a lot, a unit's parts, and the unit that was swapped out, traced."""
    from edge_agent.demo.processes import run_visibly

    counts = outcome.counts
    console.print()
    console.print(
        _("{bound} cycles are bound to their unit, {unbound} are not, each with its reason; none was guessed.").format(
            bound=counts.bound, unbound=counts.unbound
        )
    )
    for detail in counts.details:
        console.print(f"  {detail}", markup=False)
    for point in outcome.shown:
        console.print(f"  {'✓' if point.ok else '✗'} {point.text}", markup=False)
    trace = ["--config", str(directory / "line.yaml"), "--lang", language(), "trace"]
    shown = [(["--lot", outcome.plot.lot], "")]
    if outcome.plot.serial:
        shown.append(([outcome.plot.serial, "--tree"], ""))
    if outcome.swapped_out:
        text = _("{out} was in the press when the agent was killed, {new} when it came back. The history of {out}:")
        shown.append(([outcome.swapped_out], text.format(out=outcome.swapped_out, new=outcome.swapped_in)))
    for arguments, text in shown:
        console.print()
        if text:
            console.print(text)
        console.print(f"$ edge-agent trace {' '.join(arguments)}", markup=False, style="bold")
        await run_visibly([*trace, *arguments])
    console.print()
