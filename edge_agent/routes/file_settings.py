"""What a route with ``sink: file`` may say."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from edge_agent.driver import Duration, Size
from edge_agent.routes.settings import RouteSettings

NAME_PARTS = ("agent", "stream", "source", "kind", "first", "last")
DEFAULT_NAME = "{source}-{kind}-{stream}-{first}-{last}"


def _folder(folder: str) -> str:
    if not PurePath(folder).is_absolute():
        raise ValueError(f"{folder!r} depends on where the agent is started; write the whole path, from /")
    return folder


def _name(template: str) -> str:
    named = re.findall(r"\{([^{}]*)\}", template)
    rest = re.sub(r"\{[^{}]*\}", "", template)
    unknown = [name for name in named if name not in NAME_PARTS]
    if unknown or "{" in rest or "}" in rest:
        wrong = f"{{{unknown[0]}}}" if unknown else template
        raise ValueError(f"{wrong!r} is no part of a file's name; use {' '.join(f'{{{part}}}' for part in NAME_PARTS)}")
    if missing := {"stream", "first", "source", "kind"} - set(named):
        absent = " and ".join(f"{{{one}}}" for one in sorted(missing))
        raise ValueError(f"two files would have one name; put {absent} into it")
    if re.search(r'[/\\:*?"<>|\x00-\x1f]', rest) or template.startswith(".") or len(rest) > 60:
        raise ValueError("this cannot be a file's name everywhere; letters, digits, - _ and . only, and no . in front")
    return template


class FileRouteSettings(RouteSettings):
    """A route into a folder, from which another system takes the files."""

    sink: Literal["file"] = Field(description="where to: file")
    folder: Annotated[str, AfterValidator(_folder)] = Field(description="where the files appear; it must exist")
    mount: Annotated[str, AfterValidator(_folder)] | None = Field(
        default=None, description="nothing is written while no file system is mounted here, e.g. a network share"
    )
    format: Literal["jsonl", "csv", "xml"] = Field(description="one record a line, a row or an element")
    encoding: Literal["utf-8", "utf-8-sig", "gb18030"] = Field(
        default="utf-8", description="utf-8-sig: with the mark by which Excel knows UTF-8"
    )
    name: Annotated[str, AfterValidator(_name)] = Field(
        default=DEFAULT_NAME, description="of a file, without its ending; must hold {source} {kind} {stream} {first}"
    )
    every: Duration = Field(default=10.0, ge=0.1, le=600, description="a file holds what came within this time")
    max_size: Size = Field(default=2**20, ge=128 * 1024, le=4 * 2**20, description="or this much, if that is sooner")
    answer_timeout: Duration = Field(
        default=30.0, ge=1, le=600, description="no answer of the file system for this long: try again"
    )

    @model_validator(mode="after")
    def _mounted(self) -> FileRouteSettings:
        if self.mount is not None and not PurePath(self.folder).is_relative_to(self.mount):
            raise ValueError(f"folder is not below {self.mount}; name the mount point that the folder stands on")
        if self.format == "jsonl" and self.encoding != "utf-8":
            raise ValueError("JSON is UTF-8 without a mark; take encoding: away, or choose format: csv")
        return self

    @property
    def destination(self) -> str:
        return self.folder

    @property
    def delivered_when(self) -> Literal["file"]:
        return "file"
