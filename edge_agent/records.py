"""What travels between an agent and its consumers, typed: the one place that the JSON Schema is made of.

A body of each record kind, the message around the records, tombstones, the retained state, and what a consumer says
back. ``edge-agent schema --records`` prints them, docs/schema/records.json is a copy, and the tests hold every record
that they make against it: a field that is not here is a mistake, in the code or in the page. Nothing at run time reads
this: the agent writes bodies as they come, and a receiver believes the envelope only.

Optional fields may be absent or null. Times are decimal strings of UTC nanoseconds: they exceed 2^53.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.json_schema import models_json_schema

from edge_agent.model import BindingState, Kind, Result, ScanStatus, type_names

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Ns = Annotated[str, Field(pattern=r"^-?[0-9]{1,19}$", description="nanoseconds as decimal text")]
Log = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$", description="a run of the agent's writer")]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{12}-[0-9]+$", description="<log>-<seq> of the record that made it")]
Seq = Annotated[int, Field(ge=0, lt=2**63)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]
Evidence = Annotated[list[Seq], Field(description="seq of the records that show it")]
Windows = Annotated[
    dict[str, list[Annotated[list[Seq], Field(min_length=2, max_length=2)]]],
    Field(description="device.group -> ranges of seq of its samples, inclusive"),
]
Value = bool | int | float | str | list[Any] | None
TypeName = Annotated[str, Field(json_schema_extra={"enum": list(type_names)})]
ClosedBy = Literal["handshake", "edge", "next_scan", "timeout", "interrupted"]
Judged = Literal["ok", "low", "high", "missing", "bad", "unjudged"]


class Body(BaseModel):
    """Fields that are named, and no others."""

    model_config = ConfigDict(extra="forbid")


class Previous(Body):
    """The log that this one goes on from, and the record that it goes on after."""

    log: Log
    seq: Seq
    hash: Hash


class LogOpened(Body):
    """The agent's writer started: the first record of a log."""

    log: Log
    agent: str
    boot: str
    host: str
    version: str
    reason: str
    previous: Previous | None = None


class PositionConfig(Body):
    """What one position of a station owns."""

    claims: dict[str, list[str]]
    characteristics: list[str]


class StationConfig(Body):
    """One station of the config."""

    step: str
    identity: Literal["before", "in_data", "after"]
    positions: dict[str, PositionConfig]


class ConfigBody(Body):
    """What the agent's configuration says of the line."""

    config: str
    stations: dict[str, StationConfig]
    devices: dict[str, str] = Field(description="name -> driver")


class TagDescription(Body):
    """One tag of a group, in the place of its value."""

    name: str
    type: TypeName
    unit: str


class TagsetBody(Body):
    """The names, types and units that samples of this tagset do not repeat."""

    tagset: str
    device: str
    group: str
    tags: list[TagDescription]


class SampleBody(Body):
    """What a device said of one group at one instant; values in the order of the tagset."""

    tagset: str
    took_us: int = Field(description="how long the read took")
    values: list[Value]
    status: dict[str, str] | None = Field(default=None, description="index of a value that is not good -> reason")


class ScanBody(Body):
    """One identity read."""

    status: ScanStatus
    text: str | None = None
    encoding: str | None = Field(default=None, description="if not UTF-8")
    raw: str = Field(pattern=r"^([0-9a-f]{2})*$", description="hexadecimal")
    symbology: str | None = Field(default=None, description="AIM identifier, e.g. ]d2")
    stations: list[str] = Field(description="who used it")
    identifiers: dict[str, str] | None = None
    reason: str | None = None


class ContextItem(Body):
    """Work order, part number, operator …: as of when, and who said so."""

    value: Value
    source: str
    since_ns: Ns
    stale: bool | None = Field(default=None, description="known from before a restart or a gap, not confirmed since")


class CycleHead(Body):
    """What the records of a cycle's begin and end have in common."""

    cycle: Id
    config: str
    station: str
    step: str
    position: int = Field(ge=1)


class CycleOpened(CycleHead):
    """A unit came to a position."""

    opened_by: Literal["scan", "ready", "level", "edge"]
    attempt: int | None = Field(default=None, description="how often the unit has been at this step, from 1")
    context: dict[str, ContextItem]
    evidence: Evidence


class Collected(Body):
    """One characteristic as it was judged."""

    name: str
    value: Value
    unit: str
    low: float | None
    high: float | None
    judgement: Judged


class Whose(Body):
    """Which unit: known in state ``bound`` only."""

    state: BindingState
    unit: Id | None = None
    serial: str | None = None


class CycleClosed(CycleHead):
    """A unit's visit ended: all that is known of it."""

    opened_at_ns: Ns
    ended_at_ns: Ns
    closed_by: ClosedBy
    result: Result
    complete: bool
    missing: list[str]
    collected: list[Collected]
    context: dict[str, ContextItem]
    counter: int | None = None
    epoch: int | None = None
    attempt: int | None = None
    windows: Windows
    binding: Whose


class Candidate(Body):
    """A unit that it may have been."""

    unit: Id
    serial: str


class BindingBody(Body):
    """Cycle → unit, by a named rule on evidence."""

    binding: Id
    cycle: Id
    state: BindingState
    unit: Id | None = None
    serial: str | None = None
    rule: str
    reason: str | None = None
    candidates: list[Candidate]
    evidence: Evidence
    supersedes: Id | None = None
    by: str


class IdentifierBody(Body):
    """A unit got, changed or lost an identifier."""

    unit: Id
    op: Literal["add", "replace", "remove"]
    kind: str
    value: str
    evidence: Evidence


class Planned(BaseModel):
    """Not sent yet; what it will hold is not fixed."""

    model_config = ConfigDict(extra="allow")


class GateBody(Planned):
    """Planned: may this unit enter."""

    request: str
    unit: Id
    verdict: Literal["permit", "block"]
    reason: str
    basis: Literal["live", "cached", "policy", "override"]


class HoldAck(Planned):
    """Planned: a hold or release of the QMS arrived."""

    verdict_id: str
    subject: str
    state: str


class FindingBody(Body):
    """Something the data says is wrong."""

    finding: Id
    code: str
    severity: Literal["info", "warning", "error"]
    text: str = Field(description="one plain sentence for the person at the line")
    evidence: Evidence
    cycle: Id | None = None
    position: int | None = None
    serial: str | None = None
    details: dict[str, Any] | None = Field(default=None, description="the same facts for programs")


class AuditBody(Body):
    """A person, or a rule in his name, changed something."""

    who: str
    action: str
    reason: str
    old: Any = None
    new: Any = None


class DropBody(Body):
    """Records that were given up."""

    reason: str
    first_seq: Seq
    last_seq: Seq
    kinds: dict[str, int] = Field(description="kind -> how many")
    route: str | None = None


class CheckpointBody(Body):
    """The log's head: everything up to it is evident if it changes."""

    upto: Seq
    hash: Hash


class ClockOffset(Body):
    """The clock was stepped."""

    step_ns: Ns
    synced: bool


BODIES: dict[Kind, type[BaseModel]] = {
    Kind.LOG_OPENED: LogOpened,
    Kind.TAGSET: TagsetBody,
    Kind.CONFIG: ConfigBody,
    Kind.SAMPLE: SampleBody,
    Kind.SCAN: ScanBody,
    Kind.CYCLE_OPENED: CycleOpened,
    Kind.CYCLE_CLOSED: CycleClosed,
    Kind.BINDING: BindingBody,
    Kind.IDENTIFIER: IdentifierBody,
    Kind.MATERIAL: Planned,
    Kind.GENEALOGY: Planned,
    Kind.GATE: GateBody,
    Kind.HOLD_ACK: HoldAck,
    Kind.FINDING: FindingBody,
    Kind.AUDIT: AuditBody,
    Kind.DROP: DropBody,
    Kind.CHECKPOINT: CheckpointBody,
    Kind.CLOCK_OFFSET: ClockOffset,
}
"""The body of each kind."""


class Numbered(BaseModel):
    """What stands before the body's fields in a message. ``clock_offset`` has a ``synced`` of its own; they agree."""

    n: Annotated[int, Field(ge=1, lt=2**63, description="number in the stream")]
    seq: Annotated[int, Field(ge=1, lt=2**63, description="number in the log")]
    at_ns: Ns
    mono_ns: Ns
    synced: bool | None = Field(default=None, description="false: the clock was not synchronised")


class Tombstone(Body):
    """``count`` numbers from ``n`` on will not come."""

    n: Annotated[int, Field(ge=1, lt=2**63)]
    count: Annotated[int, Field(ge=1)]
    reason: str


class Envelope(Body):
    """A message: records of one stream, one source and one kind."""

    v: Literal[1]
    agent: str
    stream: str = Field(description="<log>.<route>.<lane>")
    log: Log
    boot: str
    source: str
    n: Annotated[int, Field(ge=1, description="of the first record")]
    after: Annotated[int, Field(ge=0, description="everything up to it is settled and will not come again")]
    confirm: str = Field(description="topic to confirm on; empty: nobody waits for that")
    replayed: Literal[True] | None = Field(default=None, description="history, of a backlog or a replay")
    replay: str | None = Field(default=None, description="id of the request that it answers")


class State(Body):
    """Retained: what an agent last said of itself; ``lost`` is its last will."""

    v: Literal[1]
    agent: str
    state: Literal["online", "offline", "lost"]
    log: Log
    boot: str
    host: str | None = None
    version: str
    at_ns: Ns
    seq: Seq


class Nack(Body):
    """One record that the consumer refuses for good."""

    n: Annotated[int, Field(ge=1)]
    reason: str = Field(max_length=500)


class Confirmation(Body):
    """From the consumer, after its own commit: everything up to ``upto`` is here, refused, or a tombstone."""

    v: Literal[1]
    agent: str
    stream: str
    upto: Annotated[int, Field(ge=0)]
    nack: list[Nack] = Field(default=[], max_length=10_000)


class Resume(Body):
    """From the consumer, when it is (back) there: send again what is not confirmed."""

    v: Literal[1]
    agent: str
    resume: Literal[True]


class Range(Body):
    """A range of a log, wanted once more."""

    id: str = Field(max_length=200, description="the answer's messages carry it as ``replay``")
    route: str
    log: Log
    first_seq: Annotated[int, Field(ge=1)]
    last_seq: Annotated[int, Field(ge=1)]


class ReplayRequest(Body):
    """From the consumer: records that it misses."""

    v: Literal[1]
    agent: str
    replay: Range


_SOME = Field(min_length=1)


def message_models() -> dict[str, type[BaseModel]]:
    """Kind's label, or ``tombstone`` → the whole message."""
    records: dict[str, type[BaseModel]] = {
        kind.label: create_model(f"{kind.label}_record", __base__=(Numbered, body), __doc__=body.__doc__)
        for kind, body in BODIES.items()
    }
    records["tombstone"] = Tombstone
    messages: dict[str, type[BaseModel]] = {}
    for label, record in records.items():
        fields: dict[str, Any] = {"kind": (Literal[label], ...), "records": (Annotated[list[record], _SOME], ...)}  # type: ignore[valid-type]
        about = f"Records of kind {label}."
        messages[label] = create_model(f"{label}_message", __base__=Envelope, __doc__=about, **fields)
    return messages


def json_schema() -> dict[str, Any]:
    """The schema of every message there is, and of what is in it, by name under ``$defs``."""
    messages = message_models()
    said: dict[str, type[BaseModel]] = {
        "state": State,
        "confirmation": Confirmation,
        "resume": Resume,
        "replay_request": ReplayRequest,
    }
    bodies = {f"{kind.label}_body": body for kind, body in BODIES.items()}
    models: list[type[BaseModel]] = [*messages.values(), *said.values(), *dict.fromkeys(bodies.values())]
    refs, defs = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Any] = defs["$defs"]
    at = {model: refs[(model, "validation")] for model in models}
    for name, model in (bodies | said).items():
        definitions[name] = dict(at[model])
    definitions["message"] = {
        "description": "what an agent publishes; ``kind`` says which",
        "oneOf": [at[model] for model in messages.values()],
    }
    return {
        "$schema": DIALECT,
        "title": "edge-agent records",
        "description": "Whatever travels between an agent and its consumers: docs/contracts.md, sections 5 and 6",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("message", *said)],
        "$defs": _plain(dict(sorted(definitions.items())), names=True),
    }


def _plain(node: Any, *, names: bool = False) -> Any:
    """Without what pydantic adds for itself: a title for each field, and null as the default of what may be absent."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names:  # of fields or definitions, of which one may well be called "title"
        return {name: _plain(value) for name, value in node.items()}
    kept = {key: value for key, value in node.items() if key != "title" and (key, value) != ("default", None)}
    return {key: _plain(value, names=key in ("properties", "$defs")) for key, value in kept.items()}
