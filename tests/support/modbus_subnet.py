"""Three Modbus hosts in a subnet of a network namespace, and a command that runs in another one beside it.

``python modbus_subnet.py COMMAND...``: needs what support.namespaces needs, and leaves nothing behind.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUBNET = "10.231.2.0/28"
HOSTS = ("10.231.2.1", "10.231.2.5", "10.231.2.9")


def _main(command: list[str]) -> int:
    from support.namespaces import Cable, die_with_parent, enter

    enter()
    with Cable() as cable:
        for host in HOSTS[1:]:
            subprocess.run([*cable.prefix, "ip", "address", "add", f"{host}/24", "dev", "there0"], check=True)
        serving = [*cable.prefix, sys.executable, str(Path(__file__).with_name("modbus_named.py")), "502", *HOSTS]
        servers = subprocess.Popen(
            serving, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent, start_new_session=True
        )
        with servers:
            assert servers.stdout is not None
            assert servers.stdout.readline() == b"ready\n"
            done = subprocess.run(command, check=False, timeout=60)
            servers.kill()
    return done.returncode


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(_main(sys.argv[1:]))
