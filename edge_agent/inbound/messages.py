"""What may come in, typed: the contract of docs/verdicts.md, and the JSON Schema that is made of it.

Types are taken as they stand (``"5"`` is no number). What a QMS sends may hold nothing but what stands here: a
misspelt ``expires_at_ns`` that were ignored would be a release for ever. Records of other agents are of any version
that says ``v: 1``: fields that are not needed here are not looked at. The topic says which of them a message may be.

Bounds: ``MAX_BYTES`` a message, ``SNAPSHOT_PART`` holds a part, ``SNAPSHOT_PARTS`` parts, ``RECORDS_MAX`` records.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_BYTES = 2**20
SNAPSHOT_PART = 1000
SNAPSHOT_PARTS = 100
RECORDS_MAX = 20_000
SERIAL_MAX = 256

M = TypeVar("M", bound=BaseModel)


class BadMessage(ValueError):
    """This is nothing that may come here; the text says why."""


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("holds control characters, or blanks at an end")
    return text


def _readable(text: str) -> str:
    if not text.replace("\n", " ").replace("\t", " ").isprintable():
        raise ValueError("holds control characters")
    return text


Ns = Annotated[str, Field(pattern=r"^[0-9]{1,19}$", description="UTC nanoseconds since 1970 as decimal text")]
Number = Annotated[int, Field(ge=1, lt=2**63)]
Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
Value = Annotated[str, Field(min_length=1, max_length=SERIAL_MAX), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=500), AfterValidator(_readable)]
Who = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
ResultName = Literal["Passed", "Failed", "Error", "Aborted", "Skipped"]
StateName = Literal["pending", "bound", "ambiguous", "orphan", "superseded", "voided"]


class Said(BaseModel):
    """From a QMS or MES: these fields and no others."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class About(Said):
    """What a decision is about."""

    kind: Literal["serial", "lot", "package", "part_number", "carrier"]
    value: Value


class OpenHold(Said):
    """One entry of a snapshot: what stands on a subject now."""

    verdict_id: Id
    decision_seq: Number
    action: Literal["hold", "scrap", "rework", "concession"]
    hold: Id
    subject: About
    text: Text | None = None
    by: Who


class VerdictMessage(Said):
    """A decision of the QMS."""

    v: Literal[1]
    verdict_id: Id = Field(description="of this decision, for ever; repeating the message repeats the id")
    decision_seq: Number = Field(description="1, 2, 3 … over all decisions of this QMS, without a hole")
    at_ns: Ns = Field(description="when it was decided")
    action: Literal["hold", "release", "scrap", "rework", "concession"]
    hold: Id = Field(description="which hold it opens, changes or lifts; several may stand on one subject")
    subject: About
    text: Text | None = Field(default=None, description="why, for the person at the line")
    expires_at_ns: Ns | None = Field(default=None, description="not to be applied when it comes later than this")
    by: Who = Field(description="who decided")


class HeartbeatMessage(Said):
    """The QMS lives; this was its last decision."""

    v: Literal[1]
    heartbeat: Literal[True]
    last_decision_seq: Annotated[int, Field(ge=0, lt=2**63)]
    at_ns: Ns


class SnapshotMessage(Said):
    """One part of all open holds, as the answer to a request."""

    v: Literal[1]
    snapshot: Id = Field(description="the request's id")
    last_decision_seq: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        description="the last decision that it contains; the same in every part"
    )
    part: Annotated[int, Field(ge=1, le=SNAPSHOT_PARTS)]
    parts: Annotated[int, Field(ge=1, le=SNAPSHOT_PARTS)]
    holds: Annotated[list[OpenHold], Field(max_length=SNAPSHOT_PART)]


class SnapshotRequest(Said):
    """From the agent: tell me all open holds, on my own topic."""

    v: Literal[1]
    agent: str
    snapshot: str = Field(description="id of this request; the answer carries it")
    topic: str = Field(description="where the answer is expected")
    last_decision_seq: int | None = Field(default=None, description="the last decision that the agent is sure of")


class StatusMessage(Said):
    """From the MES: what came of a serial at a step."""

    v: Literal[1]
    serial: Value
    step: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
    result: ResultName
    complete: bool | None = None
    attempt: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    at_ns: Ns | None = Field(default=None, description="when the step ended")
    by: Who | None = Field(default=None, description="who says so; default: the name of the entry in inbound:")


class Heard(BaseModel):
    """Of another agent's message: what is needed here."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class HeardWhose(Heard):
    """Whose a cycle was when it closed."""

    state: StateName
    serial: Value | None = None


class HeardCycle(Heard):
    """A ``cycle_closed`` record."""

    seq: Number
    cycle: Id
    station: Id
    step: Annotated[str, Field(max_length=64)]
    result: ResultName
    complete: bool
    attempt: int | None = None
    ended_at_ns: Ns
    closed_by: Annotated[str, Field(max_length=64)] | None = None
    binding: HeardWhose


class HeardBinding(Heard):
    """A ``binding`` record."""

    seq: Number
    cycle: Id
    state: StateName
    serial: Value | None = None


class CyclesMessage(Heard):
    """Another agent's cycles."""

    v: Literal[1]
    agent: Id
    kind: Literal["cycle_closed"]
    records: Annotated[list[HeardCycle], Field(min_length=1, max_length=RECORDS_MAX)]


class BindingsMessage(Heard):
    """Another agent's bindings."""

    v: Literal[1]
    agent: Id
    kind: Literal["binding"]
    records: Annotated[list[HeardBinding], Field(min_length=1, max_length=RECORDS_MAX)]


Decision = VerdictMessage | HeartbeatMessage
Status = StatusMessage | CyclesMessage | BindingsMessage | None

_OTHER_KINDS = TypeAdapter(Annotated[str, Field(pattern="^[a-z_]{1,32}$")])


def decision(payload: bytes) -> Decision:
    """What came on the topic of verdicts. Raises BadMessage."""
    body = _object(payload)
    return _read(HeartbeatMessage, body) if "heartbeat" in body else _read(VerdictMessage, body)


def snapshot(payload: bytes) -> SnapshotMessage:
    """What came on our own topic. Raises BadMessage."""
    part = _read(SnapshotMessage, _object(payload))
    if part.part > part.parts:
        raise BadMessage(f"part {part.part} of {part.parts}")
    return part


def status(payload: bytes) -> Status:
    """What came on a topic of status; None: another agent's records of a kind that says nothing of a unit's steps."""
    body = _object(payload)
    if "kind" not in body:
        return _read(StatusMessage, body)
    if body["kind"] == "cycle_closed":
        return _read(CyclesMessage, body)
    if body["kind"] == "binding":
        return _read(BindingsMessage, body)
    try:
        _OTHER_KINDS.validate_python(body["kind"])
    except ValidationError as error:
        raise BadMessage("kind is none of a record") from error
    return None


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_BYTES:
        raise BadMessage(f"{len(payload)} bytes, more than {MAX_BYTES}")
    try:
        body = orjson.loads(payload)  # refuses what is nested deeper than 1024, lone surrogates, NaN
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"no JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadMessage("no JSON object")
    version = body.get("v")
    if type(version) is not int or version != 1:
        raise BadMessage(f"v is {str(version)[:20]!r}; this agent knows 1")
    return body


def _read(model: type[M], body: dict[str, Any]) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:6])
        raise BadMessage(f"{where or 'message'}: {first['msg']}"[:300]) from error
