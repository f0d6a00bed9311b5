"""Prepares a client's secure channel and login before it connects."""

from __future__ import annotations

from asyncua import Client

from edge_agent.errors import DeviceRefused
from edge_agent_drivers.opcua.security_settings import SecuritySettings


async def secure(client: Client, device: str, settings: SecuritySettings) -> None:
    """Give the client its policy, certificates and login. Raises DeviceRefused, DeviceUnavailable."""
    if settings.policy != "None":
        raise DeviceRefused(device, "secure channels are not built yet", hint="write policy: None")
