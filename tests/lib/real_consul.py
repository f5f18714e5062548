"""A real consul to test against: Debian 11's, fetched by apt and unpacked into a cache."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rpi-image-tests"
# Debian 12 and later have no consul; Debian 11's runs there as it is (a static Go program).
SUITE = "bullseye"
# Consul waits for slow servers and networks; on one machine it elects and misses in a second.
QUICK = """performance { raft_multiplier = 1 }
gossip_lan { gossip_interval = "50ms" probe_interval = "200ms" probe_timeout = "100ms"
suspicion_mult = 2 }"""


def consul_program() -> Path:
    """Return a consul; the test is skipped where Debian's mirror has none, in CI too."""
    need("apt-get", "dpkg-deb")
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / "consul" / "usr" / "bin" / "consul"
    with FileLock(CACHE / "consul.lock"):
        if not program.exists() and not _unpack(program.parents[2]):
            pytest.skip(f"Debian {SUITE} has no consul to give")
    return program


def _unpack(folder: Path) -> bool:
    """Fetch Debian's package through apt, with lists of its own, and unpack it into `folder`."""
    if not (site := _debian_site()):
        return False
    work = folder.with_name("consul.work")
    shutil.rmtree(work, ignore_errors=True)
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb {site} {SUITE} main\n")
    places = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in places.items() for word in ("-o", f"{key}={value}")]
    for command in (["update"], ["download", "consul"]):
        done = subprocess.run(
            ["apt-get", "-q", *options, *command], cwd=work, capture_output=True, check=False,
            timeout=180,
        )  # fmt: skip
        if done.returncode != 0:
            return False
    package = next(work.glob("consul_*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
    (work / "root").rename(folder)
    shutil.rmtree(work)
    return True


def _debian_site() -> str:
    """Return the mirror that this machine uses, or nothing."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    sites = [site for site in done.stdout.split() if site.endswith("/debian")]
    return sites[0] if sites else ""


@contextmanager
def running(*arguments: str | Path, log: Path) -> Iterator[None]:
    """Run a consul agent for the length of the block."""
    words = [consul_program(), "agent", "-hcl", QUICK, *arguments]
    with log.open("wb") as out:
        agent = subprocess.Popen(words, stdout=out, stderr=out)
    try:
        yield
    finally:
        agent.kill()
        agent.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody has just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for taken in sockets:
        taken.close()
    return ports


def wait_for(url: str, text: str, seconds: float = 30) -> None:
    """Wait until an answer holds `text`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if text in answer.read().decode():
                    return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(f"{url} never said {text}")
