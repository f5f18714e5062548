"""A Pi as its class sees it: from a machine on its wire, which pings it and logs in over SSH."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.boot import nodes
from tests.boot.pi import PATIENCE, Pi
from tests.device.swarmlab import Machine
from tests.lib.tools import need, need_root, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from imagebuilder.boot.firmware import Firmware

ROUTER, DNS, FIRST_ADDRESS = "10.0.2.2", "10.0.2.3", "10.0.2.15"
REACHED_SECONDS = 180.0
LOGIN = re.compile(r"ssh (?P<user>\S+)@(?P<address>\S+) by (?P<ways>.+)")
# The logins that everyone knows.
VENDORS = {"pi": "raspberry", "pirate": "hypriot", "ubuntu": "ubuntu"}
OPTIONS = {
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": os.devnull,
    "IdentitiesOnly": "yes",
    "ConnectTimeout": "60",
    "NumberOfPasswordPrompts": "1",
    "LogLevel": "ERROR",
}


@dataclass
class WiredPi(Pi):
    """A Pi whose cable ends, with `wire`, at a machine of the test in place of QEMU's router.

    The router would answer what is sent from that machine to the Pi: it takes all for its own.
    """

    wire: Machine | None = None
    _dhcp: subprocess.Popen[bytes] | None = None

    def command(self, firmware: Firmware, witness: int) -> list[str]:
        """Start QEMU in the machine's namespace, where its tap device is."""
        words = super().command(firmware, witness)
        if self.wire is None:
            return words
        self._serve_addresses(self.wire)
        words[words.index("-netdev") + 1] = "tap,id=net,ifname=tap0,script=no,downscript=no"
        return self.wire.command(*words)

    def _serve_addresses(self, wire: Machine) -> None:
        """Let dnsmasq give the address that QEMU's router would give."""
        if self._dhcp is not None:
            wire.stop(self._dhcp)
        (start,) = re.findall("dhcpstart=([0-9.]+)", self.network) or [FIRST_ADDRESS]
        leases = self.folder / f"leases-{self.boots}"
        self._dhcp = wire.start(
            "dnsmasq.log", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0",
            "--interface=tap0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
            f"--dhcp-range={start},{start},255.255.255.0,1h", f"--dhcp-leasefile={leases}",
            f"--dhcp-option=3,{ROUTER}", f"--dhcp-option=6,{DNS}", "--user=root",
        )  # fmt: skip


@contextmanager
def open_wire(folder: Path) -> Iterator[Machine]:
    """Make a namespace with a tap device that has the addresses of QEMU's router."""
    need_root()
    need("dnsmasq", "ip", "nsenter", "ping", "ssh", "ssh-keygen")
    machine = Machine(f"wire{uuid.uuid4().hex[:6]}", "out", folder)
    subprocess.run(["ip", "netns", "add", machine.namespace], check=True)
    try:
        machine.run("ip", "link", "set", "lo", "up")
        machine.run("ip", "tuntap", "add", "tap0", "mode", "tap")
        for address in (ROUTER, DNS):
            machine.run("ip", "address", "add", f"{address}/24", "dev", "tap0")
        machine.run("ip", "link", "set", "tap0", "up")
        yield machine
    finally:
        machine.stop_all()
        subprocess.run(["ip", "netns", "del", machine.namespace], check=False)


def expect_reached(pi: Pi, image: Path, address: str) -> None:
    """Check the plan's sentence on the card of `image` against the Pi that has this address.

    The key is that of the image's folder; whoever has a user of their own has nodes.PASSWORD.
    """
    assert isinstance(pi, WiredPi)
    report = json.loads(_rpi_image("inspect", "--json", image))
    login, *parts = report["reach"].split("; ")
    said = LOGIN.fullmatch(login)
    assert said, login
    assert said["address"] in (address, f"{report['hostname']}.local")
    outside = _Outside(pi, image.parent, report["hostname"], address)
    outside.config.write_text(
        _rpi_image("export", image.parent / "room.yml", "--format", "ssh-config")
    )
    outside.expect("ping", "-c", "1", "-W", "9", address)
    for way in said["ways"].split(" and "):
        password = VENDORS.get(said["user"], "") if "image" in way else nodes.PASSWORD
        said_by_pi = outside.expect_login(said["user"], "" if way == "key" else password)
        assert said_by_pi.split() == [said["user"]]
    for user in pi.tell(f"getent passwd {' '.join(VENDORS)}").splitlines():
        name = user.partition(":")[0]
        if name != said["user"]:
            outside.expect_refused(name, VENDORS[name])
    for part in parts:
        _expect_part(pi, part)


def _rpi_image(*words: str | Path) -> str:
    return run(sys.executable, "-m", "imagebuilder", *words, cwd=nodes.ROOT)


def _expect_part(pi: Pi, part: str) -> None:
    """Check one of the statements after the login; wifi is looked at by the callers."""
    (check,) = (check for pattern, check in _PARTS.items() if re.fullmatch(pattern, part))
    check(pi)


def _expect_docker(pi: Pi) -> None:
    assert re.search(r"[0-9.]+", pi.tell("docker version --format '{{.Server.Version}}'"))


def _expect_joined(pi: Pi) -> None:
    assert '"consul": "joined' in pi.tell("cat /var/lib/rpi-image/status.json")


def _expect_nothing(_: Pi) -> None:
    return


_PARTS: Mapping[str, Callable[[Pi], None]] = {
    "wifi `.*": _expect_nothing,
    "Docker in the image": _expect_docker,
    "joins (the swarm|consul) at .*": _expect_joined,
}


@dataclass
class _Outside:
    """What is tried from the other end of a Pi's wire, while the Pi goes on."""

    pi: WiredPi
    folder: Path
    hostname: str
    address: str

    @property
    def config(self) -> Path:
        """The ssh_config that `export` wrote."""
        return self.folder / "ssh_config"

    def expect(self, *words: str, **environment: str) -> str:
        """Run a command there until it succeeds; return what it printed."""
        until = time.monotonic() + REACHED_SECONDS * PATIENCE
        code, text = self._run(*words, **environment)
        while code != 0:
            assert time.monotonic() < until, (words, text, self.pi.console[-2000:])
            self.pi.let_run(1)
            code, text = self._run(*words, **environment)
        return text

    def expect_login(self, user: str, password: str) -> str:
        """Log in by the password, by the key without one; return whom the Pi takes us for.

        The name is given only where the image alone tells it, and so the export does not.
        """
        name = () if "User " in self.config.read_text() else ("-l", user)
        return self.expect(*self._ssh(password, *name), **self._asked(password))

    def expect_refused(self, user: str, password: str) -> None:
        """Check that the password does not open that login."""
        code, text = self._run(*self._ssh(password, "-l", user), **self._asked(password))
        assert code == 255, text
        assert "Permission denied" in text, text

    def _ssh(self, password: str, *more: str) -> list[str]:
        """Return the class page's `ssh -F ssh_config NODE`, with what a test needs."""
        methods = "password,keyboard-interactive" if password else "publickey"
        # There is no mDNS here: the name of a node without a fixed address finds nobody.
        options = OPTIONS | {"PreferredAuthentications": methods, "HostName": self.address}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        key = ("-i", str(self.folder / "key"))
        return ["ssh", "-F", str(self.config), *key, *words, *more, self.hostname, "id -un"]

    def _asked(self, password: str) -> dict[str, str]:
        """Return the environment in which ssh asks a program for the password (ssh(1))."""
        program = self.folder / "askpass"
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$ASKED"\n')
        program.chmod(0o755)
        return {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force", "ASKED": password}

    def _run(self, *words: str, **environment: str) -> tuple[int, str]:
        assert self.pi.wire is not None
        job = subprocess.Popen(
            self.pi.wire.command(*words),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while job.poll() is None:
            self.pi.let_run(0.1)
        return job.returncode, job.communicate()[0]
