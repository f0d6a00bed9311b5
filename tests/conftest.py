"""What many tests need and takes seconds to make: one PostgreSQL for all of them, emptied for each.

Hundreds of agents and receivers are started; where Python is told to keep no bytecode, each would compile the whole
program anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgres import Postgres

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def one_server() -> Iterator[Postgres]:
    """Started when the first test asks for it."""
    with Postgres() as running:
        yield running


@pytest.fixture
def server(one_server: Postgres) -> Postgres:
    """Running, and with nothing in it."""
    one_server.empty()
    return one_server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database for a receiver is."""
    if request.param == "sqlite":
        return str(tmp_path / "records.db")
    server: Postgres = request.getfixturevalue("server")
    return server.place
