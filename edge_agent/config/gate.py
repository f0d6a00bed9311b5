"""The section ``gate:`` of a station: what a unit needs to enter, and how the PLC asks and is told.

Judged here: the tags that are written can be, belong to one device with the request and to nobody else, and who
is asked about is known before the work.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from edge_agent.binding.plan import Exchange, Gate
from edge_agent.binding.trigger import device_of
from edge_agent.config.by_position import ByPosition
from edge_agent.config.report import Path, Problems, together
from edge_agent.driver import Duration, Settings
from edge_agent.model import integer_names

if TYPE_CHECKING:
    from edge_agent.config.references import References

_UNKNOWN = "the gate decides before the work, and this identity names the unit only later: the PLC must name it"
Step = Annotated[str, Field(min_length=1, max_length=64)]


class ExchangeSettings(Settings):
    """The PLC writes a request number, the agent answers verdict and reason, and last the same number."""

    request: ByPosition = Field(description="tag with the number of the PLC's request; 0: none")
    answer: ByPosition = Field(description="writable tag for the number that is answered, written last")
    verdict: ByPosition | None = Field(default=None, description="writable tag: 1 permit, 0 block")
    reason: ByPosition | None = Field(default=None, description="writable tag for the reason's code; 0: permit")
    serial: ByPosition | None = Field(
        default=None, description="tag beside the request that names the unit; without it, who was scanned"
    )
    wait: Duration = Field(default=5.0, gt=0, description="a request waits so long for the scan, then it is blocked")
    heartbeat: str | None = Field(default=None, description="writable tag that counts up while the agent answers")
    every: Duration = Field(default=1.0, ge=0.25, description="the heartbeat's interval")

    @model_validator(mode="after")
    def _says_something(self) -> ExchangeSettings:
        if self.verdict is None and self.reason is None:
            raise ValueError("says nothing to the PLC; write verdict: <device.tag>, reason: <device.tag>, or both")
        return self


class GateSettings(Settings):
    """May this unit enter? Decided here, before the work, also without a network."""

    previous: list[Step] = Field(default=[], max_length=16, description="steps that the unit must have passed")
    max_attempts: int | None = Field(default=None, ge=1, description="how often a unit may be at this step")
    holds: bool = Field(default=True, description="what is on hold does not enter")
    materials: bool = Field(default=True, description="nothing enters while a material is missing, wrong or expired")
    components: bool = Field(default=True, description="what is built into another unit does not enter")
    max_age: Duration = Field(default=600.0, gt=0, description="what others said is stale beyond this")
    beyond: Literal["fail_closed", "fail_open"] = Field(
        default="fail_closed", description="on what is stale: block, or permit and raise a finding"
    )
    exchange: ExchangeSettings | None = Field(default=None, description="how the PLC asks and is answered")
    permit: ByPosition | None = Field(
        default=None, description="without an exchange: a bit that is set for a moment with a permit; no interlock"
    )
    pulse: Duration = Field(default=0.5, gt=0, le=10, description="how long the permit bit is set")

    @model_validator(mode="after")
    def _one_way(self) -> GateSettings:
        if self.exchange is not None and self.permit is not None:
            raise ValueError("tells the PLC in two ways; take permit out, or the exchange")
        return self


class GateBuilder:
    """The gate of one station as the binder needs it. ``answers``: what it writes, and where the config says so."""

    def __init__(self, refs: References, positions: Collection[int], path: Path, problems: Problems) -> None:
        self.answers: dict[str, Path] = {}
        self._refs = refs
        self._positions = positions
        self._path = path
        self._problems = problems

    def build(self, settings: GateSettings, *, scanned: bool) -> Gate:
        """Only to be used if nothing was reported. ``scanned``: units are identified by a reader before the work."""
        exchange = settings.exchange
        exchanges = {} if exchange is None else self._exchanges(exchange, scanned)
        permits = {
            number: self._written(settings.permit, number, (*self._path, "permit")) for number in self._positions
        }
        if exchange is None and not scanned:
            hint = "write exchange: {serial: <device.tag>, ...}, or identity: {when: before, ...}"
            self._problems.add(self._path, _UNKNOWN, hint)
        return Gate(
            previous=tuple(settings.previous),
            max_attempts=settings.max_attempts,
            holds=settings.holds,
            materials=settings.materials,
            components=settings.components,
            max_age_s=settings.max_age,
            fail_open=settings.beyond == "fail_open",
            exchanges=exchanges,
            wait_s=exchange.wait if exchange else 0.0,
            heartbeat=self._write(exchange.heartbeat, (*self._path, "exchange", "heartbeat")) if exchange else None,
            beat_s=exchange.every if exchange else 0.0,
            permits={number: tag for number, tag in permits.items() if tag is not None},
            pulse_s=settings.pulse,
        )

    def _exchanges(self, settings: ExchangeSettings, scanned: bool) -> dict[int, Exchange]:
        path = (*self._path, "exchange")
        if scanned and settings.serial is not None:
            self._problems.add((*path, "serial"), "the unit is known by its scan", "take serial: out")
        if not scanned and settings.serial is None:
            hint = "name the tag beside the request that holds the serial: serial: <device.tag>"
            self._problems.add(path, _UNKNOWN, hint)
        found = {number: self._exchange(settings, number, path) for number in self._positions}
        return {number: one for number, one in found.items() if one is not None}

    def _exchange(self, settings: ExchangeSettings, number: int, path: Path) -> Exchange | None:
        refs = self._refs
        name, where = refs.at(settings.request, number, (*path, "request"))
        request = refs.tag(name, where, polled=True, types=integer_names)
        name, at = refs.at(settings.serial, number, (*path, "serial"))
        serial = refs.tag(name, at)
        if serial is not None and request is not None and serial.group != request.group:
            what = f"{name} is in {serial.group}, but must be read together with the request"
            self._problems.add(at, what, together(serial.group, request.group))
        answer = self._written(settings.answer, number, (*path, "answer"))
        verdict = self._written(settings.verdict, number, (*path, "verdict"))
        reason = self._written(settings.reason, number, (*path, "reason"))
        if request is None or answer is None:
            return None
        for key, tag in (("answer", answer), ("verdict", verdict), ("reason", reason)):
            if tag is not None and device_of(tag) != device_of(request.group):
                what = f"{tag} is on another device than the request"
                self._problems.add((*path, key), what, f"name a tag of {device_of(request.group)}")
        return Exchange(request, answer, verdict, reason, serial)

    def _written(self, value: str | dict[int, str] | None, number: int, path: Path) -> str | None:
        if value is None:
            return None
        return self._write(*self._refs.at(value, number, path))

    def _write(self, name: str | None, path: Path) -> str | None:
        """A tag that the gate writes; each has one meaning."""
        tag = self._refs.writable(name or "", path)
        if tag is not None and tag in self.answers:
            other = ".".join(str(part) for part in self.answers[tag])
            self._problems.add(path, f"{tag} is written for {other} too", "give each its own tag")
        if tag is not None:
            self.answers.setdefault(tag, path)
        return tag
