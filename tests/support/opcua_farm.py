"""Real asyncua servers, each with a security of its own, and a line to them that a man in the middle holds.

::

    with Farm(folder, {"closed": {"policies": ["Basic256Sha256_SignAndEncrypt"], ...}}) as farm:
        farm.url("closed")

One process loads the address space, which takes seconds, and forks into a process for each server. Every server has
``ns=2;s=word``, which says WORD, some folders, and a variable without a type of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.mosquitto import free_port

WORD = "what the press says to nobody else"
URI = "http://edge-agent.example/secure"
MANY = 1050  # children of one folder: more than come in one answer
USER, PASSWORD = "bob", "correct-horse-battery"


class Farm:
    """``servers``: name → {policies, tokens, uri, cert, key, clients (folder), users (certificate)}."""

    def __init__(self, servers: Mapping[str, Mapping[str, Any]]) -> None:
        self._servers = {name: {**server, "port": free_port()} for name, server in servers.items()}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Farm:
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(list(self._servers.values()))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            text=True,
        )
        assert self._process.stdout is not None
        try:
            for _server in self._servers:
                assert self._process.stdout.readline() == "ready\n", "a server did not start: see its traceback"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate()  # the end of its stdin is the end of all of them

    def port(self, name: str) -> int:
        """Where it listens."""
        port: int = self._servers[name]["port"]
        return port

    def url(self, name: str) -> str:
        """As the config writes it."""
        return f"opc.tcp://127.0.0.1:{self.port(name)}"


# --- the man in the middle -----------------------------------------------------------------------------------

Chunk = bytes
Change = Callable[[Chunk], Chunk]


class Middle:
    """All that passes, by direction, and what becomes of each chunk of the server."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}"
        self.up: list[Chunk] = []
        self.down: list[Chunk] = []
        self.change: Change = lambda chunk: chunk
        self.answer: Callable[[Chunk], Chunk | None] = lambda chunk: None  # instead of the server; b"" hangs up
        self._server_port = port

    @property
    def asked(self) -> list[int]:
        """The services that were asked for in clear; those on a secured channel cannot be told."""
        return [number for chunk in self.up if (number := service(chunk)) is not None]

    @property
    def secured(self) -> bool:
        """A channel with a policy was asked for."""
        return any(chunk[:3] == b"OPN" and b"SecurityPolicy#None" not in chunk for chunk in self.up)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.close()
            return
        tasks = [
            asyncio.create_task(self._pass(reader, upstream[1], writer)),
            asyncio.create_task(self._pass(upstream[0], writer, None)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            writer.close()
            upstream[1].close()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter | None
    ) -> None:
        while True:
            try:
                head = await source.readexactly(8)
                chunk = head + await source.readexactly(int.from_bytes(head[4:], "little") - 8)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            (self.down if back is None else self.up).append(chunk)
            if back is not None and (instead := self.answer(chunk)) is not None:
                back.write(instead)
                await back.drain()
                return
            sink.write(self.change(chunk) if back is None else chunk)


@asynccontextmanager
async def middle(port: int) -> AsyncIterator[Middle]:
    """A line to the server at ``port``."""
    line = Middle(port)
    server = await asyncio.start_server(line._serve, "127.0.0.1", line.port)
    try:
        yield line
    finally:
        server.close()


GET_ENDPOINTS, CREATE_SESSION, ACTIVATE_SESSION = 428, 461, 467
GET_ENDPOINTS_ANSWER, CREATE_SESSION_ANSWER = 431, 464


def service(chunk: Chunk) -> int | None:
    """The encoding id of a message in clear; None for the rest. (Ciphertext may look like one: ask for known ones.)"""
    body = chunk[24:]
    if chunk[:3] != b"MSG" or body[:2] != b"\x01\x00":
        return None
    return int.from_bytes(body[2:4], "little")


def altered(chunk: Chunk, response: Any, change: Callable[[Any], None]) -> Chunk:
    """The message in clear with its content changed."""
    from asyncua.common.utils import Buffer
    from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

    answer = struct_from_binary(response, Buffer(chunk[24:]))
    change(answer)
    data = chunk[8:24] + struct_to_binary(answer)
    return chunk[:4] + (len(data) + 8).to_bytes(4, "little") + data


# --- the servers ---------------------------------------------------------------------------------------------


def _main() -> None:
    logging.disable(logging.CRITICAL)
    from asyncua import Server

    servers = json.loads(sys.argv[1])
    server = Server()
    asyncio.run(_loaded(server))
    children = []
    for one in servers:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(_run(server, one))
            finally:
                sys.stderr.write(traceback.format_exc())
                sys.stdout.write("failed\n")
                sys.stdout.flush()
                os._exit(1)
        children.append(child)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


async def _loaded(server: Any) -> None:
    from asyncua import ua

    await server.init()
    index = await server.register_namespace(URI)
    objects = server.nodes.objects
    await objects.add_variable(ua.NodeId("word", index), "word", WORD)
    press = await objects.add_folder(ua.NodeId("press", index), "Press")
    force = await press.add_variable(ua.NodeId("force", index), "Force", 1.5, ua.VariantType.Float)
    await force.set_writable()
    await press.add_variable(ua.NodeId("list", index), "List", [1, 2], ua.VariantType.Int16)
    duration = ua.NodeId(ua.Int32(ua.ObjectIds.Duration))
    await press.add_variable(ua.NodeId("empty", index), "Empty", None, ua.VariantType.Null, datatype=duration)
    await press.add_method(ua.NodeId("reset", index), "Reset", lambda parent: [])
    again = await press.add_folder(ua.NodeId("again", index), "Again")
    await again.add_reference(force, ua.ObjectIds.Organizes)
    back = server.iserver.aspace[again.nodeid].references  # a cycle: asyncua itself would refuse to make one
    to_press = next(one for one in server.iserver.aspace[objects.nodeid].references if one.NodeId == press.nodeid)
    back.append(to_press)
    many = await objects.add_folder(ua.NodeId("many", index), "Many")
    for number in range(MANY):
        await many.add_variable(ua.NodeId(f"many{number}", index), f"V{number}", number)


async def _run(server: Any, one: Mapping[str, Any]) -> None:
    from asyncua import ua
    from asyncua.crypto.permission_rules import User, UserRole
    from asyncua.crypto.truststore import TrustStore
    from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions

    await server.set_application_uri(one.get("uri", "urn:edge-agent.example:press"))
    server.set_endpoint(f"opc.tcp://127.0.0.1:{one['port']}")
    server.set_security_policy([ua.SecurityPolicyType[name] for name in one["policies"]])
    tokens = {"anonymous": ua.AnonymousIdentityToken, "user": ua.UserNameIdentityToken, "cert": ua.X509IdentityToken}
    server.set_identity_tokens([tokens[name] for name in one.get("tokens", ["anonymous"])])
    if "cert" in one:
        await server.load_certificate(one["cert"])
        await server.load_private_key(one["key"])
    if "clients" in one:
        store = TrustStore([Path(one["clients"])], [])
        await store.load()
        options = CertificateValidatorOptions
        server.set_certificate_validator(CertificateValidator(options.TRUSTED_VALIDATION | options.PEER_CLIENT, store))
    known = [path.read_bytes() for path in map(Path, one.get("known", []))]

    class Users:
        def get_user(self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
            if username is not None:
                return User(role=UserRole.User) if (username, password) == (USER, PASSWORD) else None
            if certificate and known and certificate not in known:
                return None
            return User(role=UserRole.User)

    server.iserver.user_manager = Users()
    async with server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    _main()
