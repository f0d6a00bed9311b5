"""`edge-agent version`: what is installed, for a report of a fault."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from edge_agent.cli.output import AsJson, emit_json
from edge_agent.driver import driver_names

_LIBRARIES = (
    *("pymodbus", "pyserial", "paho-mqtt", "pydantic", "orjson", "sqlite-utils", "typer", "rich"),
    *("SQLAlchemy", "psycopg", "pymysql", "pyodbc"),  # of the extra "sql"
)


def command(as_json: AsJson = False) -> None:
    """Print the versions of the agent, of Python, SQLite and the libraries, and the installed drivers."""
    facts = collect()
    if as_json:
        emit_json(facts)
        return
    typer.echo(f"edge-agent {facts['edge_agent']}")
    typer.echo(f"python {facts['python']}, sqlite {facts['sqlite']}, {facts['platform']}")
    typer.echo(", ".join(f"{name} {number}" for name, number in facts["libraries"].items()))
    typer.echo("drivers: " + ", ".join(facts["drivers"]))


def collect() -> dict[str, Any]:
    """The versions, as `--json` prints them. Imports no driver."""
    return {
        "edge_agent": _version("edge-agent"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "drivers": driver_names(),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
