"""docs/brokers.md: the configuration and the ACL there are enough for an agent and a receiver, and for no more."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

from edge_agent.receiver import Receiver
from edge_agent.routes import AgentIdentity, Route
from support.certificates import Authority
from support.delivery import Watcher, buffer, scans, settings, settled, threaded, until
from support.mosquitto import Mosquitto

PAGE = (Path(__file__).parents[2] / "docs" / "brokers.md").read_text(encoding="utf-8")
CONF, ACL = re.findall(r"```conf\n(.*?)```", PAGE, re.DOTALL)
IDENTITY = AgentIdentity("l3-pc1", "acme", "suzhou", "assembly", "L3", "0.1.0")
CONFIRM = "acme/suzhou/assembly/L3/_agent/l3-pc1/confirm"
USERS = {"l3-pc1": "one", "mes": "two"}


class Documented(Mosquitto):
    """A broker with the page's files; only paths and the port are ours."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, users=USERS, acl=ACL)
        authority = Authority(self.folder)
        authority.issue("server", "127.0.0.1")
        conf = CONF.replace("/etc/mosquitto/", f"{self.folder}/").replace("/var/lib/mosquitto/", f"{self.folder}/")
        conf = conf.replace("listener 8883", f"listener {self.port} 127.0.0.1") + "user root\n"
        (self.folder / "mosquitto.conf").write_text(conf)


def test_the_files_on_the_page_serve_an_agent_and_a_receiver(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(USERS["l3-pc1"])

    async def scenario() -> dict[str, Any]:
        with Documented(tmp_path) as broker:
            url, ca = f"mqtts://127.0.0.1:{broker.port}", str(broker.folder / "ca.pem")
            login = {"username": "l3-pc1", "password": {"file": str(secret)}, "tls": {"ca": ca}}
            receiver = Receiver(url, "acme/#", tmp_path / "records.db", username="mes", password=USERS["mes"], ca=ca)
            with threaded(receiver.run, receiver.stop):
                async with buffer(tmp_path) as store:
                    route = Route("mes", settings(url, **login), IDENTITY, store)
                    task = asyncio.create_task(route.run())
                    try:
                        store.append(scans(20, "OP20"))
                        await settled(route, store)
                        await until(lambda: receiver.counts["records"] >= 20)
                        said = route.status()
                    finally:
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)
            log = (broker.folder / "mosquitto.log").read_text()
            assert "Denied" not in log
            return said

    said = asyncio.run(scenario())
    assert (said["dead"], said["warnings"], said["state"]) == (0, [], "connected")


def test_the_acl_lets_nobody_confirm_for_the_receiver(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path, users=USERS, acl=ACL) as broker,
        Watcher(broker.url, username="mes", password="two") as mes,
    ):
        for topic in (CONFIRM, "acme/suzhou/assembly/L4/OP20/scan", "acme/suzhou/assembly/L3/OP20/scan"):
            line = Watcher(broker.url, username="l3-pc1", password="one")
            with contextlib.closing(line), contextlib.suppress(RuntimeError):  # a denied publish ends the connection
                line.publish(topic, {"v": 1})
        asyncio.run(until(lambda: len(mes.messages) == 1))
        mes.publish(CONFIRM, {"v": 1})
        asyncio.run(until(lambda: len(mes.messages) == 2))
        assert [topic for topic, _ in mes.messages] == ["acme/suzhou/assembly/L3/OP20/scan", CONFIRM]
