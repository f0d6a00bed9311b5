"""`edge-agent listen`: the reference receiver at a terminal. Stores and confirms with --db, only watches without.

Gaps are told as they are noticed, asked for and closed, findings (forks, changed records) as they are made.

A terminal gets one line that is rewritten; a pipe gets a line a second while something comes, so that no log is
flooded. With --json every line is an object: ``{"event": "counts" | "gap" | "finding" | "record"}``. Ends with Ctrl-C:
exit 0, or 1 when numbers are still missing or something was found.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer

from edge_agent.cli import ExitCode, Unavailable, UsageProblem
from edge_agent.cli.output import AsJson
from edge_agent.i18n import _

if TYPE_CHECKING:
    from edge_agent.receiver import Finding, Gap, Receiver
    from edge_agent.receiver.message import Message

_TELL_S = 1.0
_REDRAW_S = 0.1


def command(
    url: Annotated[str, typer.Argument(help=_("the broker: mqtt://host:1883 or mqtts://host:8883"))],
    topic: Annotated[list[str] | None, typer.Option("--topic", help=_("topic filter, repeatable"))] = None,
    db: Annotated[
        str | None, typer.Option("--db", help=_("SQLite file or postgresql:// address to store in; then confirm"))
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", help=_("share the load with the receivers of this group and database"))
    ] = None,
    ask_after: Annotated[
        float, typer.Option("--ask-after", min=1, help=_("seconds until missing numbers are asked for again"))
    ] = 60.0,
    no_confirm: Annotated[bool, typer.Option("--no-confirm", help=_("store, but do not confirm"))] = False,
    records: Annotated[bool, typer.Option("--records", help=_("print every record but samples"))] = False,
    username: Annotated[str | None, typer.Option(help=_("login at the broker"))] = None,
    password_file: Annotated[Path | None, typer.Option(help=_("file that holds the password, one line"))] = None,
    ca: Annotated[Path | None, typer.Option(help=_("CA certificates that the broker's is signed by"))] = None,
    old_mqtt: Annotated[
        bool, typer.Option("--old-mqtt", help=_("speak MQTT 3.1.1, to a broker that knows no 5"))
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Receive records from a broker, store them in SQLite or PostgreSQL and confirm them."""
    from edge_agent import logs
    from edge_agent.receiver import Receiver
    from edge_agent.receiver.receiver import ReceiverRefused

    _must_name_a_broker(url)
    _must_be_a_group(group, db, old_mqtt)
    _must_be_filters(topic or [])
    password = _password(password_file) if password_file else None
    if ca:
        _bytes_of(ca)
    logs.configure("info")
    view = _View(as_json=as_json, records=records)
    receiver = Receiver(
        url,
        topic or ["#"],
        db,
        group=group,
        username=username,
        password=password,
        ca=str(ca) if ca else None,
        version="3.1.1" if old_mqtt else "5",
        confirm=not no_confirm,
        on_gap=view.gap,
        on_finding=view.finding,
        ask_after_s=ask_after,
        on_batch=view.batch,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: receiver.stop())
    try:
        receiver.run()
    except ReceiverRefused as error:
        raise Unavailable(str(error.args[0]), hint=error.hint) from error
    view.end(receiver)
    if view.is_bad:
        raise typer.Exit(ExitCode.PROBLEM)


def _must_name_a_broker(url: str) -> None:
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("mqtt", "mqtts") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise UsageProblem(f"{url!r} names no broker", hint="write mqtt://host:1883 or mqtts://host:8883")


def _must_be_filters(topics: Sequence[str]) -> None:
    """As MQTT has them: # alone and last, + alone in its level."""
    for topic in topics:
        levels = topic.split("/")
        misplaced = "#" in "".join(levels[:-1]) or any(sign in level != sign for level in levels for sign in "+#")
        if not topic or misplaced or "\0" in topic or len(topic.encode()) > 65535:
            raise UsageProblem(f"{topic!r} is no topic filter", hint="write e.g. --topic 'acme/#' or 'acme/+/+/L3/#'")


def _must_be_a_group(group: str | None, db: str | None, old_mqtt: bool) -> None:
    if group is None:
        return
    if not group or any(sign in group for sign in "/+#"):
        raise UsageProblem(f"{group!r} names no group", hint="write a name without / + and #")
    if old_mqtt:
        raise UsageProblem(
            "a group needs MQTT 5", hint="leave --old-mqtt out, or let one receiver do it, without --group"
        )
    if db is None:
        raise UsageProblem("a group shares one database", hint="name it: --db postgresql://user@host/database")


def _password(path: Path) -> str:
    try:
        return _bytes_of(path).decode().strip()
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path} holds no text", hint="name another file") from error


def _bytes_of(path: Path) -> bytes:
    """What is in a file that the command line names. Raises UsageProblem."""
    try:
        return path.read_bytes()
    except OSError as error:
        hint = f"look at it: ls -l {path}"
        raise UsageProblem(f"{path} cannot be read: {error.strerror}", hint=hint) from error


class _View:
    """What is printed of a run."""

    def __init__(self, *, as_json: bool, records: bool) -> None:
        self._json, self._records = as_json, records
        self._terminal = sys.stdout.isatty() and not as_json
        self._told_s = 0.0
        self._last = ""
        self._missing: set[tuple[str, str, int]] = set()
        self._found = False

    @property
    def is_bad(self) -> bool:
        """Numbers are missing still, or records are not what they were."""
        return self._found or bool(self._missing)

    def batch(self, receiver: Receiver, messages: Sequence[Message]) -> None:
        """A batch is committed."""
        if messages:
            last = messages[-1]
            self._last = f"{last.agent} {last.source}/{last.kind}"
        if self._records:
            for message in messages:
                if message.kind != "sample":
                    self._print_records(message)
        interval_s = _REDRAW_S if self._terminal else _TELL_S
        if time.monotonic() - self._told_s >= interval_s:
            self._tell(receiver)

    def gap(self, gap: Gap) -> None:
        """Numbers are missing, were asked for, have come, or will not."""
        key = (gap.agent, gap.stream, gap.first_n)
        self._missing.add(key)
        if gap.state == "filled":
            self._missing.remove(key)
        if self._json:
            _print_json({"event": "gap"} | asdict(gap))
            return
        text = {
            "open": _("settled without this receiver") if gap.lost else _("missing"),
            "asked": _("asked for again"),
            "filled": _("have come"),
            "given_up": _("will not come: {reason}").format(reason=gap.reason),
        }[gap.state]
        self._line(f"{gap.stream}: {gap.first_n}-{gap.last_n} {text}")

    def finding(self, finding: Finding) -> None:
        """A fork, or records that were changed."""
        self._found = True
        if self._json:
            _print_json({"event": "finding"} | asdict(finding))
        else:
            self._line(f"{finding.agent}: {finding.code}: {finding.text}")

    def end(self, receiver: Receiver) -> None:
        """The last word."""
        self._tell(receiver)
        if self._terminal:
            typer.echo()

    def _tell(self, receiver: Receiver) -> None:
        self._told_s = time.monotonic()
        counts = receiver.counts
        if self._json:
            _print_json({"event": "counts", **dict(counts)})
            return
        text = _("{records} records, {duplicates} duplicates removed, {gaps} gaps, {bad} refused; last: {last}").format(
            records=counts["records"],
            duplicates=counts["duplicates"],
            gaps=counts["gaps"],
            bad=counts["refused"] + counts["bad_messages"],
            last=self._last or "–",
        )
        if self._terminal:
            typer.echo(f"\r\x1b[K{text[:150]}", nl=False)
        else:
            typer.echo(text)

    def _print_records(self, message: Message) -> None:
        for record in message.records:
            if self._json:
                _print_json({"event": "record", "agent": message.agent, "source": message.source,
                             "kind": message.kind, "body": record})  # fmt: skip
            else:
                body = orjson.dumps(record).decode()
                self._line(f"{message.agent} {message.source} {message.kind} {body[:200]}")

    def _line(self, text: str) -> None:
        typer.echo(f"\r\x1b[K{text}" if self._terminal else text)


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()
