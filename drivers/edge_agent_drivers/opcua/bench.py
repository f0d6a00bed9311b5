"""OPC UA at the bench: servers found by discovery, and a server's address space as a tree of nodes with their values.

A scan asks port 4840 of the hosts named, in clear as discovery is, and other ports of the same host that the answers
name; never another host. Browsing is in :mod:`tree`, certificates are in :mod:`trusting`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.ua.uaerrors import UaError

from edge_agent.bench import Bench, Found, Where
from edge_agent.errors import DriverError
from edge_agent_drivers.opcua.config import DEFAULT_PORT
from edge_agent_drivers.opcua.security import PatientClient, endpoints, login_names, offer_names, strongest
from edge_agent_drivers.opcua.tree import browse
from edge_agent_drivers.opcua.trusting import TRUST

HOSTS_AT_ONCE = 32
MAX_SERVERS = 8  # of one host


async def _scan(where: Where) -> AsyncIterator[Found]:
    """Servers of the hosts named, as they answer."""
    gate = asyncio.Semaphore(HOSTS_AT_ONCE)

    async def ask(host: str, port: int) -> list[Found]:
        async with gate:
            return await _servers_of(f"[{host}]" if ":" in host else host, port, where.timeout_s)

    addresses = dict.fromkeys(where.addresses(DEFAULT_PORT))
    tasks = [asyncio.create_task(ask(*address), name=f"scan {address}") for address in addresses]
    try:
        for done in asyncio.as_completed(tasks):
            for found in await done:
                yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _servers_of(host: str, port: int, timeout_s: float) -> list[Found]:
    first = f"opc.tcp://{host}:{port}"
    found = await _server(first, timeout_s)
    if found is None:
        return []
    others = [url for url in await _others(first, host, timeout_s) if url != first][: MAX_SERVERS - 1]
    more = [await _server(url, timeout_s) for url in others]
    return [found, *filter(None, more)]


async def _server(url: str, timeout_s: float) -> Found | None:
    """What answers at this address; None when nothing does that speaks OPC UA."""
    try:
        offered = await endpoints(url, url, timeout_s)
    except DriverError:
        return None
    description = offered[0].Server if offered else ua.ApplicationDescription()
    name = description.ApplicationName.Text or description.ApplicationUri or "OPC UA server"
    offers, logins = ", ".join(offer_names(offered)) or "no endpoint", ", ".join(login_names(offered))
    section: dict[str, object] = {"driver": "opcua", "connection": url}
    best = strongest(offered)
    if best is not None:
        section["security"] = {"policy": best[0]} | ({"mode": best[1]} if best[1] != "SignAndEncrypt" else {})
    return Found("opcua", url, f"{name}: {offers}; login: {logins or 'none'}", section, _proposed(name))


async def _others(url: str, host: str, timeout_s: float) -> list[str]:
    """What a discovery server knows of its own host, under the address that we were given for it."""
    try:
        async with asyncio.timeout(3 * timeout_s):
            known = await PatientClient(url, timeout_s).connect_and_find_servers()
    except (UaError, OSError, TimeoutError, ValueError):
        return []
    urls = [str(one) for server in known for one in server.DiscoveryUrls or ()]
    # a server names itself as it knows itself: often a name that only its own network resolves
    named = {f"opc.tcp://{host}:{port}" for port in map(_port, urls) if port is not None}
    return sorted(named)


def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return (parts.port or DEFAULT_PORT) if parts.scheme == "opc.tcp" else None
    except ValueError:
        return None


def _proposed(name: str) -> str:
    """A device's name out of an application's."""
    return re.sub(r"\W+", "_", name.rpartition(":")[2] or name, flags=re.ASCII).strip("_").lower()[:40] or "opcua"


BENCH = Bench(scan=_scan, looks_at=("hosts",), browse=browse, trust=TRUST)
