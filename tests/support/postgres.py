"""A real PostgreSQL on a free loopback port, for tests: start, kill, hang, wake, stop; nothing of it is left behind.

Its files stand in a folder of their own below /tmp, as PostgreSQL refuses to run as root, and whoever it runs as then
(``postgres``, from the Debian package) cannot see into pytest's folders. ``fsync`` is off: a killed process loses no
page of the kernel's, and only a power cut would show the difference.

::

    with Postgres() as server:
        server.sql("create table t (n int)")     # as superuser, in database "mes"
        ...                                      # server.port, server.user, server.password, server.dsn, server.url
        server.kill(); server.start()
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from support.mosquitto import free_port

_FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
_ACCOUNT = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
_SETTINGS = (
    *("fsync=off", "full_page_writes=off", "max_connections=30", "shared_buffers=16MB", "logging_collector=off"),
    *("autovacuum=off", "dynamic_shared_memory_type=mmap", "lc_messages=C", "log_statement=none"),
)


class Postgres:
    """One server with the database ``mes``. ``options`` are further settings, e.g. ``statement_timeout=5s``.

    Over TCP the password is asked for (scram-sha-256). ``ssl`` gives it a certificate of its own making.
    """

    def __init__(self, *, options: tuple[str, ...] = (), ssl: bool = False) -> None:
        assert _FOUND, "PostgreSQL is not installed: .ci/need postgresql"
        self._bin = _FOUND[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="edge-agent-postgres-", dir="/tmp"))
        self.port = free_port()
        self.host, self.database, self.user = "127.0.0.1", "mes", "agent"
        self.password = secrets.token_hex(8)
        self._options = (*_SETTINGS, *options, *(("ssl=on",) if ssl else ()))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._init(ssl)
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    @property
    def dsn(self) -> str:
        """What libpq and psycopg take, the password in it."""
        return (
            f"host={self.host} port={self.port} dbname={self.database} user={self.user} password={self.password}"
            " connect_timeout=5"
        )

    @property
    def url(self) -> str:
        """Without login: that is given beside it."""
        return f"postgresql://{self.host}:{self.port}/{self.database}"

    @property
    def place(self) -> str:
        """What a receiver takes, the password in it."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"

    @property
    def certificate(self) -> Path:
        """The server's own, which is its CA too; only with ``ssl``."""
        return self.folder / "data" / "server.crt"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run it over a connection of its own, committed; the rows, if it gives any."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        """Start it if a test left it killed, and take out whatever was put into it."""
        if self._process is None:
            self.start()
        for (schema,) in self.sql("select nspname from pg_namespace where nspname !~ '^(pg_|information_schema)'"):
            self.sql(f'drop schema "{schema}" cascade')
        self.sql("create schema public; grant usage on schema public to public")

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        data = self.folder / "data"
        command = [str(self._bin / "postgres"), "-D", str(data), "-p", str(self.port), "-k", str(self.folder)]
        command += ["-c", f"listen_addresses={self.host}", *(part for one in self._options for part in ("-c", one))]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **_AS_ACCOUNT)
        for _ in range(1000):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(psycopg.OperationalError):
                self._as_postgres().close()
                return
            time.sleep(0.01)
        raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-4000:]}")

    def kill(self) -> None:
        """kill -9 of the server and of every process it made: open transactions are gone, sockets are reset."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait(10)
        self._process = None
        self._forget_memory()

    def stop(self) -> None:
        """An orderly end; who is connected is thrown out."""
        self._end(signal.SIGINT)

    def hang(self) -> None:
        """SIGSTOP to all of it: sockets stay open, the kernel still accepts, nobody answers."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Postgres:
        try:
            self.start()
            self._make_database()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end(signal.SIGQUIT)  # at once, and unlike a kill the server collects its own processes
        shutil.rmtree(self.folder)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        self.wake()
        self._process.wait(20)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        for pid in [self.pid, *_children(self.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _init(self, ssl: bool) -> None:
        shutil.chown(self.folder, _ACCOUNT.pw_uid, _ACCOUNT.pw_gid)
        command = [str(self._bin / "initdb"), "--no-sync", "-D", str(self.folder / "data"), "-U", "postgres"]
        command += ["--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8", "--locale=C"]
        done = subprocess.run(command, capture_output=True, text=True, **_AS_ACCOUNT)
        assert done.returncode == 0, done.stderr
        if ssl:
            key, certificate = self.folder / "data" / "server.key", self.certificate
            command = [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ]
            command += ["-addext", f"subjectAltName=IP:{self.host}", "-keyout", str(key), "-out", str(certificate)]
            subprocess.run(command, capture_output=True, check=True, **_AS_ACCOUNT)
            key.chmod(0o600)

    def _make_database(self) -> None:
        with self._as_postgres() as connection:
            for what in (f"role {self.user} superuser login password '{self.password}'", f"database {self.database}"):
                connection.execute(f"create {what}")

    def _as_postgres(self) -> psycopg.Connection:
        socket = {"host": str(self.folder), "port": self.port, "dbname": "postgres", "user": "postgres"}
        return psycopg.connect(**socket, autocommit=True)  # type: ignore[arg-type]

    def _forget_memory(self) -> None:
        """A killed server leaves a small segment of System V memory, named in the 7th line of its pid file."""
        pid_file = self.folder / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        if len(lines) > 6 and lines[6].split():
            subprocess.run(["ipcrm", "-m", lines[6].split()[-1]], capture_output=True, check=False)


_AS_ACCOUNT: dict[str, Any] = {"cwd": "/"}
if os.getuid() == 0:
    _AS_ACCOUNT |= {"user": _ACCOUNT.pw_uid, "group": _ACCOUNT.pw_gid, "extra_groups": []}


def _children(pid: int) -> list[int]:
    """Those that a server forked; each is a process group of its own."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += map(int, task.read_text().split())
    return children
