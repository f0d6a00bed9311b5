"""A whole installation from an offline bundle below a temporary root: `make test-install`, about two minutes.

Not part of `make test` (its name is not test_*): it installs every package three times. Nothing of this machine is
changed: with --root, the installer touches and starts nothing outside.
"""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    newest = max((ROOT / "dist").glob("edge-agent-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    with tarfile.open(newest) as archive:
        archive.extractall(tmp_path, filter="data")
    return next(path for path in tmp_path.iterdir() if path.name.startswith("edge-agent-"))


def test_install_again_upgrade_refuse_roll_back_remove(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    opt = root / "opt" / "edge-agent"
    config = root / "etc" / "edge-agent" / "config.yaml"
    lock = bundle / "deploy" / "requirements.lock"

    def install(*options: str, code: int = 0) -> str:
        return run(bundle / "deploy" / "install.sh", "--root", root, *options, code=code)

    def agent(*arguments: str | Path) -> str:
        return run(opt / "current" / "bin" / "python", "-m", "edge_agent", *arguments)

    install()
    first = (opt / "current").readlink()
    assert str(first).startswith("0.")
    versions = agent("version")
    assert "edge-agent 0." in versions and "SQLAlchemy 2." in versions
    assert "not installed" not in versions, "the bundle holds the databases' packages too"
    agent("--config", config, "check")  # the sample that lies there is a valid configuration
    for name in ("etc/systemd/system/edge-agent.service", "etc/udev/rules.d/70-edge-agent.rules"):
        assert (root / name).is_file()
    assert config.stat().st_mode & 0o007 == 0
    script = (opt / "current" / "bin" / "edge-agent").read_text()
    assert script.startswith("#!/opt/edge-agent/"), "an image's scripts do not name the folder it was built in"

    made_ns = (opt / first / ".complete").stat().st_mtime_ns
    config.write_text(config.read_text().replace("id: l3-pc1", "id: l3-pc7"))
    install()
    assert (opt / "current").readlink() == first
    assert (opt / first / ".complete").stat().st_mtime_ns == made_ns, "nothing is made twice"
    assert "l3-pc7" in config.read_text(), "a configuration is never overwritten"

    lock.write_text(lock.read_text() + "# another release\n")
    install()
    second = (opt / "current").readlink()
    assert second != first
    assert (opt / "previous").readlink() == first

    install("--rollback")
    assert (opt / "current").readlink() == first
    agent("version")

    config.write_text("agent: {}\n")
    lock.write_text(lock.read_text() + "# a third\n")
    assert "does not accept" in install(code=1)
    assert (opt / "current").readlink() == first

    (opt / "broken").mkdir()  # half of an installation that was interrupted
    config.write_text((bundle / "deploy" / "sample.yaml").read_text())
    install()
    assert not (opt / "broken").exists()
    assert len([path for path in opt.iterdir() if not path.is_symlink()]) == 2, "this one and the one before"

    install("--remove")
    assert config.exists()
    assert not opt.exists()
    install("--remove", "--purge")
    assert not [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]
