"""From the serial line to the trace: a tester names its unit, a pallet carries one, a scale weighs one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.pty_device import PtyDevice
from support.pty_reader import PtyReader

CONFIG = """\
agent: {{id: test, location: {{enterprise: acme, site: here, area: hall, line: L1}}, data_dir: {folder}/data}}
buffer: {{min_free: 10MiB, ballast: 1MiB}}
devices:
  press:
    driver: simulated
    groups: {{state: {{poll: 50ms, tags: {{done: {{wave: square, period: 2s}}}}}}}}
  tester:
    driver: instrument
    port: {folder}/tester
    protocol: line
    groups:
      result:
        pattern: 'ID=(?P<id>\\d+);SN=(?P<serial>\\w+);F=(?P<force>[-+.\\d]+) ?(?P<unit>\\w+);(?P<ok>PASS|FAIL)'
        tags: {{id: {{type: string}}, serial: {{type: string}}, force: {{unit: N}}, ok: {{type: bool}}}}
  scale:
    driver: instrument
    port: {folder}/scale
    protocol: mt-sics
    groups: {{weighing: {{on_trigger: true, settle: 3s, tags: {{weight: {{field: value, unit: g}}}}}}}}
  gate: {{driver: scanner, port: {folder}/gate}}
  pallet_in: {{driver: rfid, protocol: em4100, port: {folder}/pallet_in}}
  pallet_here: {{driver: rfid, protocol: em4100, port: {folder}/pallet_here}}
labels:
  unit: {{format: pattern, pattern: '^(?P<serial>SN[0-9]{{8}})$'}}
  pallet: {{format: em4100, is: carrier}}
stations:
  OP50:
    step: test
    identity: {{when: in_data, tag: tester.serial, pattern: '^(?P<serial>SN[0-9]{{8}})$'}}
    cycle: {{end: {{message: tester.result, key: tester.id}}, timeout: 1min}}
    collect: {{force: {{tag: tester.force, required: true, limits: [12, 18]}}}}
    result: {{tag: tester.ok}}
  LOAD:
    step: load
    identity: {{when: before, scan: gate, labels: [unit]}}
    carrier: {{op: load, scan: pallet_in, labels: [pallet]}}
    cycle: {{timeout: 1min}}
  OP40:
    step: weigh
    identity: {{when: before, of: carrier, scan: pallet_here, labels: [pallet]}}
    cycle: {{end: {{tag: press.done, edge: rising, read: scale.weighing}}, timeout: 1min}}
    collect: {{weight: {{tag: scale.weight, required: true}}}}
routes: {{}}
"""
TAG, TAG_BINARY = b"\x02010063E9AE25\x03", b"\x02\x0a\x02\x01\x00\x63\xe9\xae\x2d\x03"


def edge_agent(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", "--config", str(folder / "config.yaml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


async def closed(folder: Path, serial: str, step: str) -> list[dict[str, Any]]:
    """The unit's closed cycles of this step, once there is one."""
    async with asyncio.timeout(30):
        while True:
            done = await asyncio.to_thread(edge_agent, folder, "trace", serial, "--json")
            units = json.loads(done.stdout)["units"] if not done.returncode else []
            cycles = [each for unit in units for each in unit["cycles"]]
            if found := [each for each in cycles if each["state"] == "closed" and each["step"] == step]:
                return found
            await asyncio.sleep(0.3)


def collected(cycle: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each["value"] for each in cycle["collected"]}


async def devices_are_connected(folder: Path) -> None:
    async with asyncio.timeout(30):
        while True:
            done = await asyncio.to_thread(edge_agent, folder, "status", "--json")
            devices = json.loads(done.stdout)["devices"].values() if done.stdout.startswith("{") else []
            if devices and all(device["state"] == "connected" for device in devices):
                return
            await asyncio.sleep(0.2)


async def play(folder: Path) -> None:
    tester, gate = PtyReader(folder / "tester"), PtyReader(folder / "gate")
    pallet_in, pallet_here = PtyReader(folder / "pallet_in"), PtyReader(folder / "pallet_here")
    weights = [b"S D      98.20 g\r\n", b"S S     100.05 g\r\n"]
    moving = [weights[1]]  # asked once at its opening
    scale = PtyDevice(folder / "scale", {b"SI\r\n": lambda _: moving.pop(0) if moving else weights[1]})
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "edge_agent", "--config", str(folder / "config.yaml"), "run"]
        agent = await asyncio.to_thread(subprocess.Popen, command, stderr=log)
    try:
        await devices_are_connected(folder)
        result = b"ID=17;SN=SN00000017;F=14.5 N;PASS\r\n"
        tester.send(result + result + b"garbage\r\nID=18;SN=SN00000018;F=13 lbf;PASS\r\n")
        (first,) = await closed(folder, "SN00000017", "test")
        assert (first["binding_state"], first["result"], collected(first)) == ("bound", "Passed", {"force": 14.5})
        (second,) = await closed(folder, "SN00000018", "test")
        assert (second["missing"], collected(second)) == (["force"], {"force": None}), "in another unit: no value"
        moving[:] = weights
        pallet_in.send(TAG * 3)
        await asyncio.sleep(0.3)
        gate.send(b"SN00000077\r\n")
        await asyncio.sleep(0.3)
        pallet_here.send(TAG_BINARY)
        (weighed,) = await closed(folder, "SN00000077", "weigh")
        assert (weighed["binding_state"], weighed["bindings"][0]["rule"]) == ("bound", "carrier")
        assert collected(weighed) == {"weight": 100.05}, "once it was stable"
    finally:
        agent.terminate()
        await asyncio.to_thread(agent.wait, 20)
        scale.unplug()
        for reader in (tester, gate, pallet_in, pallet_here):
            reader.unplug()
    assert agent.returncode == 0


def test_what_comes_over_a_serial_line_is_found_at_its_unit(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(folder=tmp_path))
    checked = edge_agent(tmp_path, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    try:
        asyncio.run(play(tmp_path))
    except (AssertionError, TimeoutError) as error:
        pytest.fail(f"{error!r}\n{(tmp_path / 'log').read_text()}")
