"""What is allowed but risky, told by ``check`` and at the start. A warning never stops the agent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from urllib.parse import urlsplit

from edge_agent.binding.plan import Plan, TagRef
from edge_agent.binding.trigger import device_of
from edge_agent.config.devices import Device
from edge_agent.config.estimate import bytes_per_s
from edge_agent.config.report import Path, Problems
from edge_agent.config.settings import StationSettings
from edge_agent.driver import Secret, SecretMissing, Settings
from edge_agent.errors import Problem
from edge_agent.inbound.settings import InboundSettings
from edge_agent.routes.file_settings import FileRouteSettings
from edge_agent.routes.settings import MqttRouteSettings, RouteSettings, TlsSettings
from edge_agent.routes.sql_settings import SqlRouteSettings
from edge_agent.routes.tls import file_notices

# of a database: the options that say how to encrypt, and what to write
_ENCRYPTS = {
    "postgresql": ("ssl", "{sslmode: verify-full, sslrootcert: /path/ca.pem}"),
    "mysql": ("ssl", "{ssl_ca: /path/ca.pem}"),
    "mariadb": ("ssl", "{ssl_ca: /path/ca.pem}"),
    "mssql": ("(?i)encrypt", "{Encrypt: yes}"),
}
MAX_REQUESTS_PER_S = 100.0  # a PLC answers one request in 5 to 20 ms
MAX_NAMED = 5
MAX_PULSE_POLL_S = 0.1  # a register's pulse, polled slower than this, is likely to be missed


def find_risks(
    stations: Mapping[str, StationSettings],
    devices: Mapping[str, Device],
    plan: Plan,
    routes: Mapping[str, RouteSettings],
    inbound: Mapping[str, InboundSettings],
    notes: Problems,
) -> tuple[Problem, ...]:
    """Every warning, in the order of their lines. ``notes`` is an empty collection for this file."""
    steps, heard = {station.step for station in stations.values()}, any(one.status for one in inbound.values())
    for name, station in stations.items():
        _station(name, station, notes)
        _steps_before(name, station, steps, heard, notes)
    _stale_results(plan, notes)
    _pulses(plan, devices, notes)
    _no_part_number(plan, notes)
    for name, device in devices.items():
        _device(name, device, plan, notes)
        _driver(name, device, notes)
    for name, route in routes.items():
        _route(name, route, notes)
        _max_rate(name, route, bytes_per_s(devices, plan, samples="sample" in route.send), notes)
    _client_ids({name: route for name, route in routes.items() if isinstance(route, MqttRouteSettings)}, notes)
    _folders({name: route for name, route in routes.items() if isinstance(route, FileRouteSettings)}, notes)
    if not routes:
        notes.add(("routes",), "nothing is sent anywhere", "add a route, e.g. mes: {sink: mqtt, ...}")
    return tuple(sorted(notes.found, key=lambda note: note.line))


def _station(name: str, station: StationSettings, notes: Problems) -> None:
    if station.gate is not None and station.gate.permit is not None:
        what = "a permit bit says neither for whom nor for how long: it is no interlock"
        notes.add(("stations", name, "gate", "permit"), what, "answer by number: exchange: {request: ..., answer: ...}")
    path = ("stations", name, "cycle")
    handshake = station.cycle.end.handshake
    if handshake is not None and handshake.counter is None:
        what = "without a counter, a result read after a restart may be a double and stays ambiguous"
        notes.add((*path, "end", "handshake"), what, "add counter: <tag that counts finished cycles>")
    if "timeout" not in station.cycle.model_fields_set:
        what = f"no timeout: a cycle without an end stays open for {station.cycle.timeout / 60:.0f} minutes"
        notes.add(path, what, "add timeout: somewhat longer than the longest cycle, e.g. 5min")

    late = station.identity
    if late.when == "after" and late.max_wait >= station.cycle.timeout:
        what = f"waits {late.max_wait:.0f} s for the scan, as long as a whole cycle: two will wait at once, in doubt"
        notes.add(("stations", name, "identity", "max_wait"), what, "write a time shorter than the shortest cycle")


def _steps_before(name: str, station: StationSettings, steps: set[str], heard: bool, notes: Problems) -> None:
    """A step that nobody does is missing at every unit: mostly a spelling mistake."""
    asked: list[tuple[Path, int, str]] = [(("previous",), index, step) for index, step in enumerate(station.previous)]
    gate = station.gate.previous if station.gate is not None else []
    asked += [(("gate", "previous"), index, step) for index, step in enumerate(gate)]
    for at, index, step in asked:
        alike = get_close_matches(step, sorted(steps), n=1, cutoff=0.6)
        if step in steps or (heard and not alike):
            continue
        what = f"no station here does the step {step!r}"
        if not heard:
            what = f"no station here does the step {step!r}, and nobody else is heard"
        hint = f"did you mean {alike[0]}?" if alike else "hear who does it: inbound: {line: {url: ..., status: [...]}}"
        notes.add(("stations", name, *at, index), what, hint)


def _no_part_number(plan: Plan, notes: Problems) -> None:
    """``parts:`` of units whose part number nothing can tell."""
    named = {name for station in plan.stations for name in station.rules}
    given = any("part_number" in plan.labels.rules[name].gives for name in named)
    given |= any("part_number" in one.pattern.groupindex for one in plan.stations if one.pattern is not None)
    for station in plan.stations:
        if station.needs.variants and not given and all(one.name != "part_number" for one in station.context):
            what = "nothing tells the part number: every cycle here is incomplete"
            hint = "add context: {part_number: {scan: ..., pattern: ...}}, or a label of the unit that has it"
            notes.add(("stations", station.name, "parts"), what, hint)


def _stale_results(plan: Plan, notes: Problems) -> None:
    """Values that are polled beside the trigger may be the previous unit's."""
    for station in plan.stations:
        for position in station.positions:
            read = position.end.read if position.end is not None else None
            if read is None:
                continue
            tags: list[tuple[Path, TagRef]] = [(("collect", one.name, "tag"), one.tag) for one in position.collect]
            if position.result is not None:
                tags.append((("result", "tag"), position.result.tag))
            for path, tag in tags:
                if tag.group != read:
                    what = f"{tag.name} is not in {read}, so it may still show the previous unit's value"
                    hint = f"move the tag to {read}"
                    if device_of(tag.group) != device_of(read):
                        hint = f"it is on another device: have the value copied there, into a tag of {read}"
                    notes.add(("stations", station.name, *path), what, hint)


def _pulses(plan: Plan, devices: Mapping[str, Device], notes: Problems) -> None:
    """A step that was not seen moves every unit of its register one slot off, and nothing in the data tells."""
    poll_s = {
        group.tagset.source: group.poll_s for device in devices.values() for group in device.shape.groups.values()
    }
    for register in {one.slot.register.name: one.slot.register for one in plan.stations if one.slot}.values():
        every_s = poll_s.get(register.index.group) or 0.0
        if not register.bits and every_s > MAX_PULSE_POLL_S:
            what = f"{register.index.name} is read every {every_s:g} s: a pulse that is shorter is a step nobody saw"
            hint = "poll its group every 50ms, or let index be a counter of steps"
            notes.add(("registers", register.name, "index"), what, hint)


def _device(name: str, device: Device, plan: Plan, notes: Problems) -> None:
    claimed: dict[str, set[str]] = {}
    for station in plan.stations:
        for position in station.positions:
            for source, tags in position.claims.items():
                claimed.setdefault(source, set()).update(tags)
    if not (device.shape.groups or device.shape.writable or device.shape.scans):
        notes.add(("devices", name), "nothing is read of it and nothing written", _how_to_read(name, device))
    rate = 0.0
    unclaimed: list[str] = []
    for group in device.shape.groups.values():
        names = [tag.name for tag in group.tagset.tags]
        unclaimed += [tag for tag in names if tag not in claimed.get(group.tagset.source, ())]
        if group.poll_s:
            rate += (1 + len(names) // 125) / group.poll_s
    if unclaimed:
        more = f" and {len(unclaimed) - MAX_NAMED} more" if len(unclaimed) > MAX_NAMED else ""
        what = f"no station claims {', '.join(unclaimed[:MAX_NAMED])}{more}: their readings get no serial"
        notes.add(("devices", name), what, f'name them in a station, e.g. tags: ["{name}.{unclaimed[0]}"]')
    if rate > MAX_REQUESTS_PER_S:
        what = f"is asked at least {rate:.0f} times a second; most PLCs cannot answer that often"
        notes.add(("devices", name), what, "poll slower, or put more tags into one group")


def _how_to_read(name: str, device: Device) -> str:
    """What to type to have tags, with the means that the driver has."""
    try:
        bench = device.spec.bench() if device.spec.bench is not None else None
    except ImportError:
        bench = None
    if bench is not None and bench.probe is not None:
        return f"look at an address and add it: edge-agent probe {name} ADDRESS --add {name}.GROUP.TAG"
    if bench is not None and bench.browse is not None:
        driver = device.spec.name
        return f"look what it has: edge-agent browse {driver} {name}, then again with --pick and --add {name}.GROUP"
    return "write what is read of it under groups:, see edge-agent schema --devices"


def _driver(name: str, device: Device, notes: Problems) -> None:
    """What only the driver can know, and the secrets that its settings name."""
    _secrets(("devices", name), device.settings, notes)
    for risk in device.spec.risks(name, device.settings) if device.spec.risks is not None else ():
        notes.add(("devices", name, *risk.key.split(".")), risk.what, risk.hint)


def _secrets(path: Path, settings: Settings, notes: Problems) -> None:
    for key, value in settings:
        if isinstance(value, Secret):
            _secret(path, value, notes, key)
        elif isinstance(value, Settings):
            _secrets((*path, key), value, notes)


def _route(name: str, route: RouteSettings, notes: Problems) -> None:
    path = ("routes", name)
    match route:
        case MqttRouteSettings():
            _mqtt(path, route, notes)
            _secret(path, route.password, notes)
        case SqlRouteSettings():
            _sql(path, route, notes)
            _secret(path, route.password, notes)


def _max_rate(name: str, route: RouteSettings, makes: float, notes: Problems) -> None:
    """A route that is slower than the line is behind for ever, and fills the buffer."""
    if route.max_rate is not None and route.max_rate < makes:
        what = f"the line may make {makes / 1000:.0f} KB a second for this route, more than max_rate: its backlog grows"
        notes.add(("routes", name, "max_rate"), what, "raise max_rate, or send fewer kinds")


def _mqtt(path: Path, route: MqttRouteSettings, notes: Problems) -> None:
    if route.confirm == "broker":
        what = "confirm: broker only shows that the broker has it, not that anybody received it"
        notes.add((*path, "confirm"), what, "let the consumer confirm, then write confirm: receiver")
    if route.version == "3.1.1":
        what = "MQTT 3.1.1 does not tell when the broker refuses a message: it then looks delivered to the broker"
        notes.add((*path, "version"), what, "use version 5 if the broker can")
        if not route.plain_topics:
            what = "some brokers that speak 3.1.1 end the connection over a dot or a blank in a topic (NATS does)"
            notes.add(path, what, "add plain_topics: true, unless the broker is known to take them")
    if route.url.startswith("mqtt://") and not _is_loopback(route.url):
        hint = "write mqtts://host:8883, and tls: {ca: file} for an own CA"
        notes.add((*path, "url"), "mqtt:// is not encrypted: everyone on the network can read and forge", hint)
    if route.username is None and not _is_loopback(route.url) and route.tls.cert is None:
        notes.add(path, "the broker is used without a login", "add username: and password: {file: ...}")
    if route.username is None and route.password is not None:
        notes.add((*path, "password"), "the password is not sent without a username", "add username:")
    if route.broker[0]:
        for notice in file_notices(route.tls):
            notes.add((*path, "tls"), notice.what, notice.hint)
    elif route.tls != TlsSettings():
        notes.add((*path, "tls"), "tls: is not used, as the url is mqtt://", "write mqtts://host:8883")


def _sql(path: Path, route: SqlRouteSettings, notes: Problems) -> None:
    needed = _ENCRYPTS.get(route.dialect)
    if needed and not _is_loopback(route.url) and not any(re.match(needed[0], key) for key in route.options):
        what = "nothing says that the connection is encrypted: the records, and the login, may be read on the network"
        notes.add((*path, "url"), what, f"add options: {needed[1]}")


def _secret(path: Path, secret: Secret | None, notes: Problems, key: str = "password") -> None:
    if secret is not None:
        try:
            secret.reveal()
        except SecretMissing as error:  # a warning: `check` may be run by another user than the agent's
            notes.add((*path, key), str(error.args[0]), error.hint)


def _client_ids(routes: Mapping[str, MqttRouteSettings], notes: Problems) -> None:
    """Two clients of one id throw each other out, for ever."""
    first: dict[tuple[str, str], str] = {}
    for name, route in routes.items():
        if route.client_id is not None and first.setdefault((route.url, route.client_id), name) != name:
            other = first[route.url, route.client_id]
            what = f"route {other} has this client_id at the same broker: they will throw each other out"
            notes.add(("routes", name, "client_id"), what, "take client_id away, or choose another")


def _folders(routes: Mapping[str, FileRouteSettings], notes: Problems) -> None:
    """Whoever imports from a folder must tell by the name alone which route wrote a file."""
    first: dict[str, str] = {}
    for name, route in routes.items():
        if (other := first.setdefault(route.folder, name)) != name:
            what = f"route {other} writes into this folder too"
            notes.add(("routes", name, "folder"), what, "give each route a folder of its own")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
