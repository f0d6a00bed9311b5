"""`hold`, `release` and `holds` as a quality engineer types them, against a running agent; and who may not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.binding import Binder
from edge_agent.control import AgentNotRunning, Caller, Handler, ask
from edge_agent.control.holding import Holding
from edge_agent.control.roles import Roles
from edge_agent.errors import EdgeAgentError
from edge_agent.line import Line
from support.binding_rig import plan
from support.delivery import buffer, scenario
from support.mosquitto import free_port

CONFIG = """\
agent: {{id: test, location: {{enterprise: acme, site: here, area: hall, line: L1}}, data_dir: {data}}}
buffer: {{min_free: 10MiB, ballast: 1MiB}}
devices: {{wave: {{driver: simulated, groups: {{all: {{poll: 50ms, tags: {{a: {{store: always}}}}}}}}}}}}
inbound: {{qms: {{url: "mqtt://127.0.0.1:{port}", verdicts: acme/qms/verdicts}}}}
"""
ENVIRONMENT = os.environ | {"LANGUAGE": "en", "COLUMNS": "160"}


class Desk:
    """An agent, and the keyboard in front of it."""

    def __init__(self, folder: Path) -> None:
        self.data, self.config = folder / "data", folder / "config.yaml"
        self.config.write_text(CONFIG.format(data=self.data, port=free_port()))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)])
        for _ in range(300):
            try:
                ask(self.data, "status")
                return
            except AgentNotRunning:
                assert self.process.poll() is None
                time.sleep(0.05)
        raise AssertionError("the agent does not answer")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def type(self, *arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "edge_agent", *arguments, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=30)
        return done.returncode, done.stdout, done.stderr

    def holds(self) -> dict[str, Any]:
        code, out, error = self.type("holds", "--json")
        assert code == 0, error
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.start()
    yield desk
    desk.kill()


@pytest.mark.long
def test_a_hold_survives_a_kill_and_is_lifted_by_name(desk: Desk) -> None:
    code, out, _ = desk.type("hold", "L7", "--kind", "lot", "--reason", "viscosity")
    assert code == 0 and "lot L7 is on hold" in out
    desk.kill()
    desk.start()
    listed = desk.holds()
    (hold,) = listed["holds"]
    assert (hold["subject_kind"], hold["subject"], hold["source"], hold["text"]) == ("lot", "L7", "local", "viscosity")
    assert (listed["known"], listed["basis"]) == (True, "stale"), "the QMS has not been heard"
    code, out, _ = desk.type("status")
    assert code == 1 and "inbound qms" in out and "listening" in out
    code, out, _ = desk.type("release", hold["hold"], "--reason", "measured again")
    assert code == 0 and "no longer stops lot L7" in out
    assert desk.holds()["holds"] == []
    code, _, error = desk.type("release", hold["hold"], "--reason", "again")
    assert code == 1 and "no hold" in error and "→" in error
    code, _, error = desk.type("holds", "--confirm", "--reason", "x")
    assert code == 1 and "nothing is in doubt" in error


def test_what_cannot_be_is_refused(desk: Desk) -> None:
    refused = [
        ("hold", "SN1", "--reason", " "),
        ("hold", "\x07", "--reason", "x"),
        ("release", "H1", "--reason", "x" * 501),
    ]
    for arguments in refused:
        code, _, error = desk.type(*arguments)
        assert code != 0 and "→" in error and "Traceback" not in error
    assert desk.holds()["holds"] == []


@scenario
async def test_without_the_role_nothing_is_changed(tmp_path: Path) -> None:
    async with buffer(tmp_path) as store:
        line = Line(Binder(plan(), store.log, "cfg", store.lookup, store.restored()), store)
        holding = Holding(line, Roles({"technician": ["nogroup"]}))
        somebody = Caller(65534, 65534, 1, frozenset((65534,)))
        before = store.next_seq
        requests: list[tuple[Handler, dict[str, Any]]] = [
            (holding.hold, {"kind": "serial", "subject": "SN1", "action": "hold", "reason": "x"}),
            (holding.release, {"hold": "H1", "reason": "x"}),
            (holding.confirm, {"reason": "x"}),
        ]
        for handler, request in requests:
            with pytest.raises(EdgeAgentError, match="role quality"):
                await handler(somebody, request)
        assert store.next_seq == before
        answer = await holding.holds(somebody, {})
        assert answer["holds"] == [], "looking is everybody's"
