"""What a route with ``sink: sql`` may say. Looks whether the packages are there, and imports none of them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field

from edge_agent.driver import Duration, Secret, Size
from edge_agent.routes.settings import RouteSettings

# the name in the url -> (the driver that SQLAlchemy is told to use, the module it imports, what pip calls it)
DIALECTS = {
    "postgresql": ("postgresql+psycopg", "psycopg", "psycopg[binary]"),
    "mysql": ("mysql+pymysql", "pymysql", "pymysql"),
    "mariadb": ("mariadb+pymysql", "pymysql", "pymysql"),
    "mssql": ("mssql+pyodbc", "pyodbc", "pyodbc"),
    "sqlite": ("sqlite+pysqlite", "sqlite3", "sqlite3"),
}
EXTRA = "pip install 'edge-agent[sql]'"
_EXAMPLE = "write postgresql://host:5432/database, mysql://…, mssql://… or sqlite:////folder/file"
_LOGIN = re.compile(r"user(name|id)?|uid|pass(word|wd)?|pwd", re.I)
_TABLE = re.compile(r"(?:(?P<schema>[A-Za-z_]\w*)\.)?(?P<name>[A-Za-z_]\w{0,50})", re.ASCII)


def _url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme not in DIALECTS:
        raise ValueError(f"{scheme!r} is no database this agent knows; choose from {', '.join(sorted(DIALECTS))}")
    try:
        parts = urlsplit(url)
        usable = bool(parts.path.strip("/")) and (scheme == "sqlite" or (bool(parts.hostname) and parts.port != 0))
    except ValueError:
        usable = False
    if not usable or (scheme == "sqlite" and not rest.startswith("//")):
        raise ValueError(f"{url!r} names no database; {_EXAMPLE}")
    if "@" in parts.netloc or any(_LOGIN.fullmatch(key) for key, _value in parse_qsl(parts.query)):
        raise ValueError("the login does not belong into the url; write username: and password: {file: /path}")
    _installed(scheme)
    return url


def _installed(scheme: str) -> None:
    """Raise ValueError if a package is missing that a route to this database needs."""
    if find_spec("sqlalchemy") is None:
        raise ValueError(f"the package SQLAlchemy is not installed here; {EXTRA}")
    _, module, package = DIALECTS[scheme]
    if find_spec(module) is None:
        raise ValueError(f"the package {package} is not installed here; pip install '{package}'")


def _table(name: str) -> str:
    if not _TABLE.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a table; write name or schema.name: letters, digits and _, at most 50")
    return name


def _options(options: dict[str, str | int]) -> dict[str, str | int]:
    if login := [key for key in options if _LOGIN.fullmatch(key)]:
        raise ValueError(f"{login[0]} is no option; write username: and password: {{file: /path}} beside url:")
    return options


class SqlRouteSettings(RouteSettings):
    """A route into a table of a database: each message one transaction, its commit the confirmation."""

    sink: Literal["sql"] = Field(description="where to: sql")
    url: Annotated[str, AfterValidator(_url)] = Field(
        description="postgresql://host:5432/database; also mysql, mariadb, mssql, sqlite"
    )
    username: str | None = Field(default=None, description="login at the database")
    password: Secret | None = Field(default=None, description="{file: /path} or {env: NAME}; never the secret itself")
    options: Annotated[dict[str, str | int], AfterValidator(_options)] = Field(
        default={}, description="handed to the database's driver as they are, e.g. {sslmode: verify-full}"
    )
    table: Annotated[str, AfterValidator(_table)] = Field(
        default="edge_records", description="the staging table, name or schema.name"
    )
    create: bool = Field(default=False, description="create the tables if they are not there")
    answer_timeout: Duration = Field(
        default=10.0, ge=1, le=300, description="no answer of the database for this long: reconnect"
    )
    message_size: Size = Field(default=128 * 1024, ge=4096, le=16 * 2**20, description="largest transaction, bytes")

    @property
    def destination(self) -> str:
        return f"{self.url} {self.table}"

    @property
    def delivered_when(self) -> Literal["database"]:
        return "database"

    @property
    def dialect(self) -> str:
        """The first part of the url."""
        return self.url.partition("://")[0]

    @property
    def schema_and_name(self) -> tuple[str | None, str]:
        """``table`` in its two parts."""
        schema, _, name = self.table.rpartition(".")
        return schema or None, name
