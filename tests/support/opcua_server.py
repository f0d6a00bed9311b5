"""A real asyncua server in a process of its own, told what to do over a socket.

::

    with OpcuaServer() as server:                  # opc.tcp://127.0.0.1:server.port/plant
        server.set("force", 12.5)                  # answers when the server has done it
        server.pause(); server.resume()            # SIGSTOP, SIGCONT
        server.kill(); server.start()              # on the same port; what was written is forgotten

Namespace 2 is ``http://edge-agent.example/press``. ``ns=2;s=NAME`` are the nodes of ``NODES`` below, the object
``mode`` an enumeration, ``recipe`` a structure, ``n0`` … ``n{COUNT-1}`` Doubles that change together.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import IO, Any

from support.mosquitto import free_port

URI = "http://edge-agent.example/press"

NODES: dict[str, tuple[str, Any]] = {
    "bool": ("Boolean", True),
    "sbyte": ("SByte", -5),
    "byte": ("Byte", 200),
    "int16": ("Int16", -300),
    "uint16": ("UInt16", 60000),
    "int32": ("Int32", -70000),
    "uint32": ("UInt32", 4_000_000_000),
    "int64": ("Int64", -(2**60)),
    "uint64": ("UInt64", 2**63),
    "float": ("Float", 0.1),
    "double": ("Double", 0.1),
    "nan": ("Double", float("nan")),
    "string": ("String", "Gehäuse 5"),
    "null_string": ("String", None),
    "datetime": ("DateTime", datetime(2026, 11, 22, 5, 41, 4, 123456, tzinfo=UTC)),
    "guid": ("Guid", uuid.UUID("12345678-1234-5678-1234-567812345678")),
    "bytes": ("ByteString", b"\x00\xff\x10"),
    "xml": ("XmlElement", "<a/>"),
    "nodeid": ("NodeId", "ns=2;s=force"),
    "qualified": ("QualifiedName", "2:Press"),
    "localized": ("LocalizedText", "Presse"),
    "status": ("StatusCode", 0x80340000),
    "doubles": ("Double", [1.5, 2.5]),
    "matrix": ("Int32", [[1, 2], [3, 4]]),
    "strings": ("String", ["a", "b"]),
    "range": ("ExtensionObject", "range"),
    "force": ("Double", 1.0),
    "count": ("Int32", 0),
    "ack": ("Boolean", False),
    "name": ("String", ""),
    "small": ("Float", 0.0),
    "big": ("UInt64", 0),
    "list": ("Int16", [1, 2, 3]),
    "label": ("LocalizedText", "Presse"),
}


class Nursery:
    """A process that has built the address space once, and forks a server of it for who asks: 20 ms instead of 2 s."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        atexit.register(self._end)

    def born(self, *words: str) -> int:
        """The process id of a new server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


@cache
def nursery() -> Nursery:
    """The one of this test run."""
    return Nursery()


class OpcuaServer:
    """A server process. ``options``: --count N, --history."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"opc.tcp://127.0.0.1:{self.port}/plant"
        self.pid = 0
        self._options = options
        self._control: socket.socket | None = None
        self._answers: IO[str] | None = None

    def __enter__(self) -> OpcuaServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start and wait until it listens."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = str(Path(folder) / "control")
            listener.bind(path)
            listener.listen()
            self.pid = nursery().born(path, str(self.port), *self._options)
            self._control, _ = listener.accept()
        self._answers = self._control.makefile()
        assert self._answer() == "ready"

    def kill(self) -> None:
        """SIGKILL; harmless when it is dead."""
        control, self._control = self._control, None
        if control is not None:
            os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                while control.recv(4096):
                    pass  # until it is gone, and its port with it
            control.close()

    def pause(self) -> None:
        """SIGSTOP: the sockets stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def set(self, name: str, value: Any, **how: Any) -> None:
        """Write a node's value; how: code=…, source="2026-…" or None, type="Float"."""
        self._tell({"do": "set", "name": name, "value": value, **how})

    def delete(self, name: str) -> None:
        """Take a node away."""
        self._tell({"do": "delete", "name": name})

    def add(self, name: str, kind: str, value: Any) -> None:
        """Make a node."""
        self._tell({"do": "add", "name": name, "kind": kind, "value": value})

    def get(self, name: str) -> Any:
        """The value that the server has."""
        return self._tell({"do": "get", "name": name})

    def run(self, times: int, period_s: float) -> None:
        """Change n0 … together so often; each becomes 1.0, 2.0 …"""
        self._tell({"do": "run", "times": times, "period_s": period_s})

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _tell(self, what: dict[str, Any]) -> Any:
        assert self._control is not None
        self._control.sendall(json.dumps(what).encode() + b"\n")
        answer = self._answer()
        assert answer.startswith("done "), answer
        return json.loads(answer.removeprefix("done "))

    def _answer(self) -> str:
        assert self._answers is not None
        return self._answers.readline().strip()


# --- the process ---------------------------------------------------------------------------------------------


class Plant:
    """The address space and what is done to it."""

    def __init__(self) -> None:
        from asyncua.server.server import Server

        self.server = Server()
        self.many: list[Any] = []

    async def build(self) -> None:
        """What all servers have; starts no task and opens nothing, so that it survives a fork."""
        from asyncua import ua

        server = self.server
        await server.init()
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        index = await server.register_namespace(URI)
        assert index == 2
        self.folder = await server.nodes.objects.add_folder(ua.NodeId("press", 2), ua.QualifiedName("press", 2))
        for name, (kind, value) in NODES.items():
            await self.add(name, kind, value)
        await self._own_types()

    async def more(self, count: int, history: bool) -> None:
        """What only this server has. Not before it was started: its history is a task."""
        from asyncua import ua

        for number in range(count):
            self.many.append(await self.add(f"n{number}", "Double", 0.0))
        for name in ("force", "count") if history else ():
            await self.server.historize_node_data_change(self.server.get_node(ua.NodeId(name, 2)), count=10_000)

    async def _own_types(self) -> None:
        from asyncua import ua
        from asyncua.common.structures104 import new_enum, new_struct, new_struct_field

        mode = await new_enum(self.server, 2, "Mode", ["Off", "Auto", "Manual"])
        await new_struct(
            self.server,
            2,
            "Step",
            [new_struct_field("Name", ua.VariantType.String), new_struct_field("Seconds", ua.VariantType.Float)],
        )
        await self.server.load_data_type_definitions()
        step = next(cls for cls in ua.extension_objects_by_datatype.values() if cls.__name__ == "Step")
        fields = [
            new_struct_field("Number", ua.VariantType.Int64),
            new_struct_field("Steps", ua.VariantType.ExtensionObject, array=True),
        ]
        data_type = next(node for node, cls in ua.extension_objects_by_datatype.items() if cls is step)
        fields[1].DataType = data_type
        await new_struct(self.server, 2, "Recipe", fields)
        await self.server.load_data_type_definitions()
        recipe = ua.Recipe(Number=2**60, Steps=[ua.Step(Name="press", Seconds=0.1), ua.Step(Name="hold", Seconds=2.5)])
        await self.folder.add_variable(ua.NodeId("recipe", 2), "recipe", recipe)
        await self.folder.add_variable(ua.NodeId("mode", 2), "mode", ua.Mode.Auto)
        valve = await self.folder.add_variable(ua.NodeId("valve", 2), "valve", ua.Mode.Auto, datatype=mode.nodeid)
        await valve.set_writable()

    async def add(self, name: str, kind: str, value: Any) -> Any:
        from asyncua import ua

        made = self._made(kind, value)
        node = await self.folder.add_variable(ua.NodeId(name, 2), ua.QualifiedName(name, 2), made)
        await node.set_writable()
        return node

    @staticmethod
    def _made(kind: str, value: Any) -> Any:
        from asyncua import ua

        makers = {
            "NodeId": ua.NodeId.from_string,
            "QualifiedName": ua.QualifiedName.from_string,
            "LocalizedText": lambda text: ua.LocalizedText(text, "de"),
            "StatusCode": ua.StatusCode,
            "XmlElement": ua.XmlElement,
            "ExtensionObject": lambda _: ua.Range(Low=-1.0, High=5.5),
        }
        if value is not None and kind in makers:
            value = makers[kind](value)
        return ua.Variant(value, ua.VariantType[kind])

    async def obey(self, what: dict[str, Any]) -> Any:
        from asyncua import ua

        match what["do"]:
            case "add":
                await self.add(what["name"], what["kind"], what["value"])
            case "run":
                await self._run(what["times"], what["period_s"])
            case doing:
                node = self.server.get_node(ua.NodeId(what["name"], 2))
                if doing == "delete":
                    await self.server.delete_nodes([node])
                elif doing == "get":
                    return await node.read_value()
                else:
                    await self._set(node, what)
        return None

    async def _run(self, times: int, period_s: float) -> None:
        from asyncua import ua

        loop = asyncio.get_running_loop()
        due = loop.time()
        for turn in range(1, times + 1):
            at = datetime.now(UTC)
            said = ua.DataValue(ua.Variant(float(turn), ua.VariantType.Double), ua.StatusCode(0), at, at)
            for node in self.many:
                await self.server.write_attribute_value(node.nodeid, said)
            due += period_s
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _set(self, node: Any, what: dict[str, Any]) -> None:
        from asyncua import ua

        kind = what.get("type") or (await node.read_data_type_as_variant_type()).name
        source = what.get("source", "now")
        at = None if source is None else datetime.now(UTC) if source == "now" else datetime.fromisoformat(source)
        code = ua.StatusCode(what.get("code", 0))
        await node.write_value(ua.DataValue(self._made(kind, what["value"]), code, at))


async def _serve(plant: Plant, path: str, port: int, options: list[str]) -> None:
    count = int(options[options.index("--count") + 1]) if "--count" in options else 0
    plant.server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/plant")
    async with plant.server:
        await plant.more(count, "--history" in options)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"ready\n")
        while line := await reader.readline():  # ends with the test, however that ends
            answer = await plant.obey(json.loads(line))
            writer.write(f"done {json.dumps(answer, default=str)}\n".encode())


def _nurse() -> None:
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who dies leaves nothing behind
    plant = Plant()
    asyncio.run(plant.build())
    while line := sys.stdin.readline():
        path, port, *options = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(0)
            os.close(1)
            asyncio.run(_serve(plant, path, int(port), options))
            os._exit(0)
        print(child, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _nurse()
