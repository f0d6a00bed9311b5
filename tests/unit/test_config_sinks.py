"""What a route may say of its sink, and how a mistake in it is told: file, line, key, what to type."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import Config, load
from edge_agent.errors import ConfigError
from edge_agent.routes.file_settings import FileRouteSettings
from edge_agent.routes.sql_settings import SqlRouteSettings

HEAD = """
agent: {id: pc1, location: {enterprise: acme, site: suzhou, area: assembly, line: L3}, data_dir: /var/lib/edge-agent}
devices:
  gate: {driver: scanner, port: /dev/ttyS0, baud: 9600, frame: {end: "\\r\\n"}}
routes:
""".lstrip()
SQL = """
  mes:
    sink: sql
    url: "postgresql://127.0.0.1:5432/mes"
    start: now
    send: [scan]
""".lstrip("\n")
FILE = """
  import:
    sink: file
    folder: /mnt/mes/in
    format: csv
    start: now
    send: [scan]
""".lstrip("\n")


def config_of(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "agent.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return load(path)


def test_the_sink_chooses_the_settings(tmp_path: Path) -> None:
    routes = config_of(tmp_path, SQL + FILE).routes
    assert isinstance(routes["mes"], SqlRouteSettings)
    assert (routes["mes"].destination, routes["mes"].delivered_when) == (
        "postgresql://127.0.0.1:5432/mes edge_records",
        "database",
    )
    assert isinstance(routes["import"], FileRouteSettings)
    assert (routes["import"].destination, routes["import"].delivered_when) == ("/mnt/mes/in", "file")


@pytest.mark.parametrize(
    ("text", "old", "new", "key", "words", "hint"),
    [
        (SQL, "sink: sql", "sink: sqk", "mes.sink", "no sink is named 'sqk'", "did you mean sql?"),
        (SQL, "postgresql:", "oracle:", "mes.url", "'oracle' is no database", "postgresql"),
        (SQL, "/mes", "", "mes.url", "names no database", "postgresql://host:5432/database"),
        (SQL, "5432", "x", "mes.url", "names no database", "postgresql://host:5432/database"),
        (SQL, "127.0.0.1", "me:geheim@127.0.0.1", "mes.url", "the login does not belong", "password: {file: /path}"),
        (SQL, '/mes"', '/mes?password=geheim"', "mes.url", "the login does not belong", "password: {file: /path}"),
        (SQL, "start:", "password: geheim\n    start:", "mes.password", "must not stand in the config", "{env: NAME}"),
        (SQL, "start:", "options: {user: me}\n    start:", "mes.options", "user is no option", "beside url:"),
        (SQL, "start:", "table: a-b\n    start:", "mes.table", "cannot be a table", "schema.name"),
        (SQL, "start:", "confirm: broker\n    start:", "mes.confirm", "unknown key", ""),
        (SQL, "start:", "answer_timeout: 0s\n    start:", "mes.answer_timeout", "out of range", "at least 1"),
        (FILE, "/mnt/mes/in", "out", "import.folder", "where the agent is started", "from /"),
        (FILE, "csv", "xls", "import.format", "not allowed here", "xml"),
        (FILE, "start:", "mount: /srv\n    start:", "import", "folder is not below /srv", "mount point"),
        (FILE, "start:", "name: '{kind}-{first}'\n    start:", "import.name", "two files", "{source} and {stream}"),
        (FILE, "start:", "name: '{serial}'\n    start:", "import.name", "no part of a file's name", "{stream}"),
        (
            *(FILE, "start:", "name: 'a/{source}{kind}{stream}{first}'\n    start:", "import.name"),
            *("cannot be a file's name", "no . in front"),
        ),
        (FILE, "csv", "jsonl\n    encoding: gb18030", "import", "JSON is UTF-8", "format: csv"),
    ],
)
def test_a_mistake_is_told_where_it_is(
    tmp_path: Path, text: str, old: str, new: str, key: str, words: str, hint: str
) -> None:
    assert text.count(old) == 1, old
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text.replace(old, new))
    (problem,) = caught.value.problems
    assert problem.key == f"routes.{key}"
    assert words in problem.what
    assert hint in problem.hint
    assert problem.line > 4
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "absent", "what"),
    [
        ("mysql://db/mes", "pymysql", "pip install 'pymysql'"),
        ("mssql://db/mes", "pyodbc", "pip install 'pyodbc'"),
        ("postgresql://db/mes", "psycopg", "pip install 'psycopg[binary]'"),
        ("postgresql://db/mes", "sqlalchemy", "pip install 'edge-agent[sql]'"),
    ],
)
def test_a_package_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, absent: str, what: str
) -> None:
    real = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == absent else real(name, package)

    monkeypatch.setattr("edge_agent.routes.sql_settings.find_spec", without)
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, SQL.replace("postgresql://127.0.0.1:5432/mes", url))
    assert [(problem.key, problem.hint) for problem in caught.value.problems] == [("routes.mes.url", what)]


def test_what_is_risky_is_told(tmp_path: Path) -> None:
    again = FILE.replace("import:", "again:")
    config = config_of(tmp_path, SQL.replace("127.0.0.1", "db.example.com") + FILE + again)
    assert [(warning.key, warning.hint) for warning in config.warnings] == [
        ("routes.mes.url", "add options: {sslmode: verify-full, sslrootcert: /path/ca.pem}"),
        ("routes.again.folder", "give each route a folder of its own"),
    ]
    safe = SQL.replace("127.0.0.1", "db.example.com").replace("start:", "options: {sslmode: verify-full}\n    start:")
    assert not config_of(tmp_path, safe + FILE).warnings
