"""The body of each record kind, typed: the one place that docs/contracts.md §5 and the JSON Schema are held against.

``wire`` puts them into messages. Nothing at run time reads this: the agent writes bodies as they come, and a receiver
believes the envelope only. The tests hold every record that they make against it: a field that is not here is a
mistake, in the code or in the page.

Optional fields may be absent or null. Times are decimal strings of UTC nanoseconds: they exceed 2^53.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.model import BindingState, Kind, Result, ScanStatus, type_names

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
Value = bool | int | float | str | list[Any] | dict[str, Any] | None
TypeName = Annotated[str, Field(json_schema_extra={"enum": list(type_names)})]
OpenedBy = Literal["scan", "ready", "level", "edge", "start", "message", "index", "carrier"]
ClosedBy = Literal[
    "handshake", "edge", "next_scan", "timeout", "interrupted", "scan_out", "message", "command", "cancelled", "index",
    "start", "blocked",
]  # fmt: skip
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


class Counted(Body):
    """The PLC's counter of a result whose places were all empty: it has no cycle that could say it."""

    station: str
    position: int
    counter: int
    epoch: int


class SampleBody(Body):
    """What a device said of one group at one instant; values in the order of the tagset."""

    tagset: str
    took_us: int = Field(description="how long the read took")
    values: list[Value]
    status: dict[str, str] | None = Field(default=None, description="index of a value that is not good -> reason")
    counted: list[Counted] | None = Field(default=None, description="results without a cycle that it showed")
    source_ns: dict[str, Ns] | None = Field(default=None, description="index -> when the device says it was so")
    server_ns: dict[str, Ns] | None = Field(default=None, description="index -> when its server saw it, if not then")
    history: bool | None = Field(default=None, description="read from the device's memory after a gap; of no cycle")


class ScanBody(Body):
    """One identity read."""

    status: ScanStatus
    text: str | None = None
    encoding: str | None = Field(default=None, description="if not UTF-8")
    raw: str = Field(pattern=r"^([0-9a-f]{2})*$", description="hexadecimal")
    symbology: str | None = Field(default=None, description="AIM identifier, e.g. ]d2")
    photo: str | None = Field(default=None, description="SHA-256 of its picture; the file is on the PC")
    stations: list[str] = Field(description="who used it")
    identifiers: dict[str, str] | None = None
    label: str | None = Field(default=None, description="the label rule of the configuration that read it")
    flags: list[str] | None = Field(default=None, description="what was repaired, or is doubtful")
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

    opened_by: OpenedBy
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
    limits_from: str | None = Field(
        default=None, description="part number that the limits are of, if they depend on it"
    )
    judgement: Judged


class Whose(Body):
    """Which unit: known in state ``bound`` only."""

    state: BindingState
    unit: Id | None = None
    serial: str | None = None


class Consumed(Body):
    """A lot that was active at the station while the cycle ran: it is in the cycle's unit."""

    name: str = Field(description="what is loaded there, e.g. solder")
    lot: str | None = None
    package: str | None = None
    part_number: str | None = None
    certain: bool = Field(description="false: one of several, nobody knows which (an unresolved splice)")


class MessageKey(Body):
    """The tester's message that ended a cycle, to know it when it is presented again."""

    key: str
    hash: str = Field(pattern=r"^[0-9a-f]{16}$", description="of its values, as the agent read them")


class CycleClosed(CycleHead):
    """A unit's visit ended: all that is known of it."""

    opened_at_ns: Ns
    ended_at_ns: Ns
    closed_by: ClosedBy
    result: Result
    complete: bool
    missing: list[str]
    completeness: Literal["complete", "incomplete", "suspect"] | None = None
    suspect: list[str] | None = Field(default=None, description="why what was collected may not be this unit's")
    defects: list[str] | None = Field(default=None, description="defect codes")
    materials: list[Consumed] | None = None
    collected: list[Collected]
    context: dict[str, ContextItem]
    counter: int | None = None
    epoch: int | None = None
    message: MessageKey | None = None
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
    attempt: int | None = Field(default=None, description="of a closed cycle, instead of what cycle_closed says")
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
    position: int | None = Field(default=None, description="on a carrier: the place")
    evidence: Evidence


class MaterialBody(Body):
    """A lot or package was loaded at a station, spliced to the one before, used up, or taken away."""

    material: Id
    op: Literal["load", "splice", "deplete", "unload"]
    name: str = Field(description="what is loaded there, e.g. solder")
    lot: str | None = None
    package: str | None = None
    part_number: str | None = None
    supplier: str | None = None
    quantity: float | None = None
    expiry: str | None = Field(default=None, description="YYYY-MM-DD, the last day it may be used")
    evidence: Evidence
    by: str


class GenealogyBody(Body):
    """A component was installed in a unit, or taken out of it."""

    genealogy: Id
    op: Literal["install", "uninstall"]
    parent: Id
    parent_serial: str
    child: Id
    child_serial: str
    name: str = Field(description="what the component is, e.g. pcb")
    cycle: Id | None = None
    reason: str | None = None
    evidence: Evidence
    by: str


class GateReason(Body):
    """One thing that the gate found."""

    code: str
    text: str


class GateBody(Body):
    """May this unit enter: decided before work, on what was known."""

    gate: Id
    request: int | str | None = Field(default=None, description="the PLC's request id, answered with the same")
    station: str
    position: int
    cycle: Id | None = None
    unit: Id | None = None
    serial: str | None = None
    verdict: Literal["permit", "block"]
    code: int = Field(description="the reason as written to the PLC; 0: permitted")
    reasons: list[GateReason]
    basis: Literal["live", "cached", "stale", "policy", "override"]
    as_of_ns: Ns | None = Field(default=None, description="how old the oldest fact is that it rests on")
    by: str | None = Field(default=None, description="who overrode it")


class Subject(Body):
    """What a verdict is about."""

    kind: Literal["serial", "lot", "package", "part_number", "carrier"]
    value: str


class HoldAck(Body):
    """A verdict of the QMS (or of a person here) arrived, and what became of it."""

    verdict_id: str
    decision_seq: int | None = None
    action: Literal["hold", "release", "scrap", "rework", "concession"]
    hold: str | None = None
    subject: Subject
    state: Literal["applied", "duplicate", "stale", "refused", "expired"]
    text: str | None = Field(default=None, description="why it was held or released, as the QMS says")
    reason: str | None = Field(default=None, description="why it was not applied")
    source: str
    by: str
    expires_at_ns: Ns | None = None


class UnitStatus(Body):
    """What another agent or the MES says of a unit at a step."""

    serial: str
    step: str
    result: Result
    complete: bool | None = None
    attempt: int | None = None
    status_at_ns: Ns | None = None
    said_by: str = Field(description="an agent, or the MES")
    station: str | None = None
    cycle: str | None = None
    state: BindingState | None = None


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
    clock_synced: bool


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
    Kind.MATERIAL: MaterialBody,
    Kind.GENEALOGY: GenealogyBody,
    Kind.GATE: GateBody,
    Kind.HOLD_ACK: HoldAck,
    Kind.FINDING: FindingBody,
    Kind.AUDIT: AuditBody,
    Kind.DROP: DropBody,
    Kind.CHECKPOINT: CheckpointBody,
    Kind.CLOCK_OFFSET: ClockOffset,
    Kind.UNIT_STATUS: UnitStatus,
}
"""The body of each kind."""
