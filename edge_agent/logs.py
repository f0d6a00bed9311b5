"""What the agent logs: one line an event on stderr, readable by a technician and by a machine.

::

    2026-11-21T20:56:01.123Z warning device lost device=press error="connection reset" hint="check the cable"

A line is the time, the level, what happened in words, and fields as ``key=value``; values are quoted where they must
be, never span lines and are cut at 500 characters, since a barcode or a PLC string may say anything. Under the
journal the time is left to the journal, and the line carries its level as ``<3>``. ``as_json`` writes an object a line.

What fails a thousand times is told twice, by :class:`Outage`: the first failure and the recovery.

Lines are formatted by the caller and written by a thread of this module: a terminal stopped with Ctrl-S or a hung
journal must not stop the production line. The thread's queue is bounded; what does not fit is counted, and the count
is logged. Libraries log through the same handler, warnings and worse only; those whose failures we raise as
errors of our own are silent below ``debug``.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import select
import threading
import time
from collections.abc import Mapping

_QUEUE_LINES = 2000
_VALUE_CHARS = 500
_FLUSH_S = 1.0
_STDERR = 2
_PLAIN = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MAPPED_LIBRARIES = ("pymodbus", "asyncua", "paho")  # their failures reach us as exceptions


class Log:
    """A named source of events. Fields are anything that ``str`` makes readable; units last (``after_s=2.5``)."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """For whoever develops a driver; off in production."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Something normal that a technician may want to date."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something is away or degraded and the agent goes on."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something needs a person."""
        self._log(logging.ERROR, event, fields)

    def crashed(self, event: str, error: BaseException, **fields: object) -> None:
        """An error nobody planned for, with its traceback."""
        self._log(logging.ERROR, event, {**fields, "error": error}, error)

    def _log(self, level: int, event: str, fields: Mapping[str, object], crash: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, extra={"fields": fields}, exc_info=crash)


class Outage:
    """One thing that can be away: logs the first failure of each kind and the recovery, counts what is between.

    ``Outage(log, "device", device="press")`` logs ``device failed device=press error=…`` once, then
    ``device recovered device=press failures=812 after_s=8120.4``.
    """

    def __init__(self, log: Log, what: str, **fields: object) -> None:
        self._log, self._what, self._fields = log, what, fields
        self._told: set[type[BaseException]] = set()
        self._began_s = 0.0
        self.failures = 0
        """How often it failed since it last worked."""

    def failed(self, error: BaseException) -> None:
        """It failed (again)."""
        if self.failures == 0:
            self._began_s = time.monotonic()
        self.failures += 1
        if type(error) in self._told:
            self._log.debug(f"{self._what} failed again", **self._fields, error=error, failures=self.failures)
            return
        self._told.add(type(error))
        self._log.warning(f"{self._what} failed", **self._fields, error=error)

    def recovered(self) -> None:
        """It works. Says so only if it had failed."""
        if self.failures == 0:
            return
        after_s = round(time.monotonic() - self._began_s, 1)
        self._log.info(f"{self._what} recovered", **self._fields, failures=self.failures, after_s=after_s)
        self.failures = 0
        self._told.clear()


def configure(level: str = "info", *, as_json: bool = False, fd: int = _STDERR) -> None:
    """Send everything that is logged to ``fd``; called again, it replaces. ``level``: debug, info, warning, error."""
    handler = _Writer(fd)
    handler.setFormatter(_JsonLine() if as_json else _Line(journal=_is_journal(fd)))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Writer)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    chosen = logging.getLevelNamesMapping()[level.upper()]
    for name in ("edge_agent", "edge_agent_drivers"):
        logging.getLogger(name).setLevel(chosen)
    for name in _MAPPED_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING if chosen == logging.DEBUG else logging.CRITICAL + 1)


def _is_journal(fd: int) -> bool:
    """True when it is the stream that systemd connected to the journal (a child may have been redirected)."""
    stat = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The record's fields; an exception becomes its message and, if it has one, its hint."""
    fields: dict[str, object] = {}
    for key, value in getattr(record, "fields", {}).items():
        if not isinstance(value, BaseException):
            fields[key] = value
            continue
        hint = getattr(value, "hint", "")
        text = str(value).removesuffix(f"\n  → {hint}")
        fields[key] = text if hasattr(value, "hint") else f"{type(value).__name__}: {text}".rstrip(": ")
        if hint:
            fields["hint"] = hint
    return fields


def _quoted(value: object) -> str:
    text = str(value)
    if len(text) > _VALUE_CHARS:
        text = f"{text[:_VALUE_CHARS]}…({len(text)} characters)"
    if _PLAIN.fullmatch(text):
        return text
    # json escapes quotes and control characters; these it lets through
    return re.sub(r"[\x7f-\x9f\u2028\u2029]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(text, ensure_ascii=False))


class _Line(logging.Formatter):
    """``[time] level event key=value …``; a traceback follows on lines of its own."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        words = [record.levelname.lower(), " ".join(record.getMessage().split())[: 4 * _VALUE_CHARS]]
        words += [f"{key}={_quoted(value)}" for key, value in _fields(record).items()]
        lines = [" ".join(words)]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        prefix = f"<{_syslog_level(record.levelno)}>" if self._journal else f"{_utc(record.created)} "
        return "\n".join(prefix + line if self._journal or at == 0 else line for at, line in enumerate(lines))


class _JsonLine(logging.Formatter):
    """One JSON object a line: at, level, event, logger, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": _utc(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        line |= {key: value for key, value in _fields(record).items() if key not in line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _utc(seconds: float) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{moment}.{int(seconds % 1 * 1000):03d}Z"


def _syslog_level(level: int) -> int:
    """syslog(3): 2 critical, 3 error, 4 warning, 6 info, 7 debug."""
    return next((code for least, code in ((50, 2), (40, 3), (30, 4), (20, 6)) if level >= least), 7)


class _Writer(logging.Handler):
    """Formats on the caller's thread and writes on its own; see the module's docstring."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(_QUEUE_LINES)
        self._lost = 0
        self._count = threading.Lock()
        self._thread = threading.Thread(target=self._write, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            with self._count:
                self._lost += 1

    def _write(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                with self._count:  # not the handler's own lock: flush() waits for us while it is held
                    lost, self._lost = self._lost, 0
                text = f"{line}\n" if not lost else f"{line}\nwarning log lines lost lines={lost}\n"
                self._put(text.encode(errors="backslashreplace"))
                self._lines.task_done()
        except OSError:
            return  # stderr is closed: there is nobody left to tell

    def _put(self, data: bytes) -> None:
        # not through sys.stderr: its lock, held by a thread that hangs here, would abort the interpreter's exit
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # whoever shares the terminal or pipe made it non-blocking
                select.select([], [self._fd], [])

    def flush(self) -> None:
        """Wait for the thread to write what was logged so far, at most a second; ``logging.shutdown`` calls this."""
        deadline_s = time.monotonic() + _FLUSH_S
        while self._lines.unfinished_tasks and self._thread.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.005)

    def close(self) -> None:
        self.flush()
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass
        else:
            self._thread.join(_FLUSH_S)
        super().close()
