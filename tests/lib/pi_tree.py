"""Root trees of the images as folders, and fake commands that record how they were called."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.plan.overlays import node_overlay
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What stands in rpi-image/ on every card, by name: the joined scripts, and templates.
NODE_FILES = {file.path.removeprefix("rpi-image/"): file.data for file in node_overlay()}
STATE = "var/lib/rpi-image"
SHELLS = ("dash", "busybox")
BUILT = 1700000000
HASH = "5eed" * 16

# Commands that act on the machine, not on files: recorded, never run.
MACHINE = (
    "mount",
    "hostname",
    "systemctl",
    "update-rc.d",
    "ssh-keygen",
    "chown",
    "reboot",
    "timedatectl",
    "ntpdate",
    "apt-get",
    "dpkg",
    "locale-gen",
    "setupcon",
    "docker",
    "ip",
    "curl",
    "wget",
    "getent",
    "nmcli",
    "rfkill",
    "ifup",
    "ifdown",
    "wpa_cli",
    "journalctl",
)
UNRECORDED = ("date", "sync")
DATE = """case " $* " in
    *' -s '*) printf '%s\\n' "date $*" >>"$CALLS" ;;
    *) exec /bin/date "$@" ;;
esac
"""
UNIT = """[Unit]
Description=Docker Application Container Engine
[Service]
Type=notify
{start}
[Install]
WantedBy=multi-user.target
"""
READS_FILE = """EnvironmentFile=-/etc/default/docker
ExecStart=/usr/bin/docker -d -H fd:// $DOCKER_OPTS"""
IGNORES_FILE = "ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock"
STOCK_DOCKER = """# Docker Upstart and SysVinit configuration file

# Use DOCKER_OPTS to modify the daemon startup options.
#DOCKER_OPTS="--dns 8.8.8.8"
DOCKER_OPTS="--storage-driver=overlay -D"

export DOCKER_TMPDIR="/mnt/bigdrive/docker-tmp"
"""
STOCK_INTERFACES = """auto lo
iface lo inet loopback

# the wire
auto eth0
iface eth0 inet dhcp
    metric 10

allow-hotplug wlan0
iface wlan0 inet dhcp
    wpa-conf /etc/wpa_supplicant/wpa_supplicant.conf
"""
PASSWD = """root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
pi:x:1000:1000:,,,:/home/pi:/bin/bash
"""
GROUP = """root:x:0:
daemon:x:1:
sudo:x:27:pi
video:x:44:
docker:x:998:
pi:x:1000:
"""
SETTINGS = {
    "RPI_IMAGE_HASH": HASH,
    "RPI_IMAGE_BUILT": str(BUILT),
    "NODE_HOSTNAME": "pi-03",
    "NODE_ARCH": "armv7",
    "NODE_MACHINES": os.uname().machine,
    "NODE_GENERATION": "occidentalis",
    "DOCKER_OPTS": "--storage-driver=overlay -D -H tcp://0.0.0.0:2375 "
    "-H unix:///var/run/docker.sock --label arch=armv7 --label room=b12 "
    "--insecure-registry 192.168.2.1:5000 --registry-mirror=http://192.168.2.1:5001",
    "DOCKER_TCP": "1",
    "DOCKER_PORT": "2375",
    "DOCKER_TLS": "0",
    "SHACK_ADDRESS": "192.168.2.1",
    "SHACK_HOSTNAME": "shack",
    "SHACK_KIND": "classic",
    "REGISTRY_ADDRESS": "192.168.2.1:5000",
    "CLUSTER": "1",
    "CONSUL_IMAGE": "dduportal/arm-consul:0.5.0",
    "CONSUL_VERSION": "0.5.0",
    "CONSUL_SERVER": "0",
    "CONSUL_BOOTSTRAP_EXPECT": "0",
    "CONSUL_DNS": "0",
    "CONSUL_ENCRYPT": "cg8StVXbQJ0gPvMd9o7yrg==",
    "CONSUL_TOKEN": "",
    "CONSUL_PORT": "8500",
    "WEB_PORT": "8080",
    "SWARM_IMAGE": "dduportal/arm-swarm:0.2.0",
    "SWARM_VERSION": "0.2.0",
    "SWARM_PATH": "swarm",
    "CLUSTER_IMAGES": "",
    "USER_NAME": "ada",
    "USER_PASSWORD_HASH": "$6$rounds=5000$sa/lt.$h'a\"sh`$(x)`",
    "USER_GROUPS": "sudo docker video",
    "KEEP_VENDOR_LOGIN": "0",
    "TIMEZONE": "Europe/Berlin",
    "KEYBOARD": "de",
    "LOCALE": "de_DE.UTF-8",
    "APT_PROXY": "http://192.168.2.1:3142",
    "NTP_SERVER": "192.168.2.1",
    "PACKAGES": "",
    "DOCKER_INSTALL": "never",
    "DOCKER_VERSION": "",
    "UPGRADE": "0",
    "NETWORK_INTERFACE": "eth0",
    "NETWORK_ADDRESS": "192.168.2.103/24",
    "NETWORK_GATEWAY": "192.168.2.1",
    "NETWORK_DNS": "192.168.2.1 9.9.9.9",
    "WIFI_COUNTRY": "DE",
}
WIFI = """ctrl_interface=DIR=/var/run/wpa_supplicant GROUP=netdev
country=DE

network={
\tssid="Caf\u00e9 \U0001f4f6 $(reboot) `x` 'q' \\\\"
\tpsk=db8aa120c2b1a9580d2ff80b80fb971841944c8f035a3e2379c2279a314ecef6
\tpriority=2
}
"""
WIFI_NM = """[connection]
id=wifi 2
type=wifi

[wifi]
ssid=Caf\u00e9

[wifi-security]
psk=db8aa120c2b1a9580d2ff80b80fb971841944c8f035a3e2379c2279a314ecef6
"""
STATIC = """auto eth0
iface eth0 inet static
    address 192.168.2.103
    netmask 255.255.255.0
    gateway 192.168.2.1
"""
CPUINFO = "processor\t: 0\nHardware\t: BCM2709\nRevision\t: a01041\nSerial\t\t: 00000000{serial}\n"
STATIC_DHCPCD = "interface eth0\nstatic ip_address=192.168.2.103/24\n"
STATIC_NM = "[connection]\nid=wired\ntype=ethernet\n\n[ipv4]\naddress1=192.168.2.103/24\n"
KEYS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBuoU ada@shack\nssh-rsa AAAAB3 second key\n"


@dataclass(frozen=True)
class Pi:
    """A Pi as a folder: `root` is its /, `card` the rpi-image folder of its boot partition."""

    folder: Path
    card: Path

    @property
    def root(self) -> Path:
        """The Pi's /."""
        return self.folder / "root"

    @property
    def boot(self) -> Path:
        """The Pi's boot partition."""
        return self.card.parent

    def path(self, name: str) -> Path:
        """Return a path inside the root."""
        return self.root / name.lstrip("/")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the root."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def read(self, name: str) -> str:
        """Read a file of the root."""
        return self.path(name).read_text()

    def configure(self, **settings: str) -> None:
        """Write node.env as the plan does; the rest of the card is left alone."""
        head = "# Settings of this node, read by the scripts beside it\n"
        (self.card / "node.env").write_text(head + _env(settings))

    def become(self, other: Pi) -> None:
        """Replace the root, boot partition included, by a copy of another Pi's."""
        shutil.rmtree(self.root)
        run("cp", "-a", str(other.root), str(self.root))

    def calls(self) -> list[str]:
        """List the recorded calls of fake commands."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def fake(self, command: str, script: str) -> None:
        """Let a command do this; `$CALLS` is the file of recorded calls."""
        path = self.folder / "fakes" / command
        record = (
            f'printf \'%s\\n\' "{command} $*" >>"$CALLS"\n' if command not in UNRECORDED else ""
        )
        path.write_text(f"#!/bin/sh\nCALLS={self.folder}/calls\n{record}{script}\n")
        path.chmod(0o755)

    def run(
        self, script: str = "install", *words: str, shell: str = "dash", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of the card (or of the root) with the fakes in place."""
        path = self.path(script) if script.startswith("/") else self.card / script
        return subprocess.run(
            [*self._shell(shell, path), *words],
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            start_new_session=True,
        )

    @contextlib.contextmanager
    def running(self, script: str, **environment: str) -> Iterator[None]:
        """Run a script of the root as a service runs, with the fakes in place; end it on exit."""
        service = subprocess.Popen(
            ["dash", str(self.path(script))],
            env=self._environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with service:
            try:
                yield
            finally:
                os.killpg(service.pid, signal.SIGKILL)

    def _environment(self, environment: dict[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.folder}/fakes:{os.environ['PATH']}:/usr/sbin:/sbin",
            "RPI_IMAGE_ROOT": str(self.root),
            "RPI_IMAGE_FAKES": "1",
            **environment,
        }

    def _shell(self, shell: str, path: Path) -> list[str]:
        """Name the shell; busybox prefers its applets to PATH, but functions to its applets.

        A script that starts another is for dash only: busybox would give that one its applets,
        which act on this machine.
        """
        if shell != "busybox":
            return [shell, str(path)]
        functions = "\n".join(
            f'{name}() {{ "{self.folder}/fakes/{name}" "$@"; }}'
            for name in (*MACHINE, "date", "sync")
            if "." not in name and "-" not in name
        )
        return ["busybox", "sh", "-c", f'{functions}\n. "$0"', str(path)]

    def status(self) -> dict[str, object]:
        """Read status.json on the boot partition."""
        return dict(json.loads((self.card / "status.json").read_bytes()))

    def snapshot(self) -> dict[str, tuple[int, int, bytes]]:
        """Return inode, mode and content of every file of the root and the boot partition."""
        return {
            str(path.relative_to(self.root)): (
                path.lstat().st_ino,
                path.lstat().st_mode,
                str(path.readlink()).encode() if path.is_symlink() else path.read_bytes(),
            )
            for path in sorted(self.root.rglob("*"))
            if path.is_symlink() or path.is_file()
        }

    def leftovers(self) -> list[str]:
        """List unfinished files."""
        names = (path.name for path in self.root.rglob("*"))
        return [name for name in names if name.endswith((".rpi-image", ".new", ".rpi-image.try"))]


def _env(settings: dict[str, str]) -> str:
    values = SETTINGS | settings
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def give(pi: Pi, name: str, hostname: str, digest: str) -> None:
    """Lay a node's own files into the image as `batch --one-image` does."""
    folder = pi.card / "identities" / name
    (folder / "rpi-image").mkdir(parents=True)
    settings = {"NODE_HOSTNAME": hostname, "RPI_IMAGE_HASH": digest}
    (folder / "rpi-image" / "node.env").write_text(_env(settings))
    (folder / "occidentalis.txt").write_text(f"hostname={hostname}\n")
    (folder / "rpi-image" / "own file.txt").write_text(f"of {hostname}\n")


def board(pi: Pi, serial: str, mac: str | None = "b8:27:eb:99:99:99") -> None:
    """Return the Pi its serial number, and its network card where that has its driver by now."""
    pi.write("proc/cpuinfo", CPUINFO.format(serial=serial))
    if mac:
        pi.write("sys/class/net/eth0/address", f"{mac}\n")


def make_pi(folder: Path, kind: str) -> Pi:
    """Lay out the root and card of one kind of image, with a full configuration on the card."""
    need("dash", "busybox")
    boot = "boot/firmware" if kind in {"bookworm", "trixie"} else "boot"
    pi = Pi(folder, folder / "root" / boot / "rpi-image")
    _common_root(pi)
    _ROOTS[kind](pi)
    _card(pi, kind)
    (folder / "fakes").mkdir()
    for command in MACHINE:
        pi.fake(command, "")
    pi.fake("date", DATE)
    pi.fake("sync", "")
    pi.fake("ip", 'printf "%s dev eth0 src 192.168.2.103 uid 0\\n    cache\\n" "$3"')
    return pi


def _common_root(pi: Pi) -> None:
    pi.write("etc/passwd", PASSWD)
    shadow = "".join(f"{line.split(':')[0]}:*:16000:0:99999:7:::\n" for line in PASSWD.split())
    pi.write("etc/shadow", shadow, 0o640)
    pi.write("etc/group", GROUP)
    gshadow = "".join(
        "{}:*::{}\n".format(line.split(":")[0], line.split(":")[3]) for line in GROUP.split()
    )
    pi.write("etc/gshadow", gshadow, 0o640)
    pi.write("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\tblack-pearl\n")
    pi.write("etc/hostname", "black-pearl\n")
    pi.write("etc/default/docker", STOCK_DOCKER)
    pi.write("etc/default/keyboard", 'XKBMODEL="pc105"\nXKBLAYOUT="gb"\nXKBVARIANT=""\n')
    pi.write("etc/locale.gen", "# de_DE.UTF-8 UTF-8\nen_GB.UTF-8 UTF-8\n")
    pi.write("etc/skel/.profile", "# profile\n")
    pi.write("etc/timezone", "Etc/UTC\n")
    pi.path("etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    pi.write("usr/share/zoneinfo/Europe/Berlin", "TZif2")
    pi.write("bin/bash", "", 0o755)
    pi.write("proc/sys/kernel/random/uuid", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n")
    pi.write("proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n")
    pi.write("proc/mounts", "rootfs / rootfs rw 0 0\n/dev/root / ext4 ro,relatime 0 0\n")
    pi.write("proc/cmdline", "console=tty1 root=/dev/mmcblk0p2 rootwait\n")
    for folder in ("home/pi", "etc/ssh", "etc/apt/apt.conf.d", "sbin", "var/log", "run"):
        pi.path(folder).mkdir(parents=True)


def _wheezy(pi: Pi) -> None:
    """Hypriot 0.4: sysvinit, ifupdown, a machine-id that only dbus knows."""
    pi.write("etc/network/interfaces", STOCK_INTERFACES)
    pi.write("var/lib/dbus/machine-id", "11112222333344445555666677778888\n")
    pi.write("etc/init.d/.depend.start", "TARGETS = rsyslog docker ssh rc.local\nssh: rsyslog\n")
    pi.write("sbin/init", "ELF", 0o755)
    for level in "2345":
        pi.path(f"etc/rc{level}.d").mkdir()


def _systemd(pi: Pi, start: str) -> None:
    pi.path("sbin/init").symlink_to("/lib/systemd/systemd")
    pi.write("lib/systemd/system/docker.service", UNIT.format(start=start))
    pi.write("etc/machine-id", "11112222333344445555666677778888\n")
    for level in "2345":
        pi.path(f"etc/rc{level}.d").mkdir()


def _jessie(pi: Pi) -> None:
    """Hypriot 0.5: systemd, the unit reads /etc/default/docker."""
    _systemd(pi, READS_FILE)
    pi.write("etc/network/interfaces", STOCK_INTERFACES)


def _device_init(pi: Pi) -> None:
    """HypriotOS 1.4: a running systemd calls the installer, interfaces.d, overlay drop-in."""
    _systemd(pi, IGNORES_FILE)
    pi.write(
        "etc/systemd/system/docker.service.d/overlay.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd --storage-driver overlay -H fd://\n",
    )
    pi.path("run/systemd/system").mkdir(parents=True)
    pi.write("proc/mounts", "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n")
    pi.write("etc/network/interfaces", "source-directory /etc/network/interfaces.d\n")
    pi.write("etc/network/interfaces.d/eth0", "allow-hotplug eth0\niface eth0 inet dhcp\n")


def _cloud_init(pi: Pi) -> None:
    """HypriotOS 1.12: cloud-init has the wire, wifi is ours."""
    _device_init(pi)
    (pi.root / "etc/systemd/system/docker.service.d/overlay.conf").unlink()
    pi.write("etc/dhcpcd.conf", "hostname\n")
    pi.write("sbin/dhcpcd", "", 0o755)
    pi.path("etc/systemd/system/dhcpcd.service").symlink_to("/dev/null")


def _bullseye(pi: Pi) -> None:
    """Raspberry Pi OS with dhcpcd; Docker is not on it."""
    _systemd(pi, IGNORES_FILE)
    (pi.root / "lib/systemd/system/docker.service").unlink()
    (pi.root / "etc/default/docker").unlink()
    pi.write("proc/cmdline", "root=/dev/mmcblk0p2 systemd.run=/boot/firstrun.sh\n")
    pi.path("run/systemd/system").mkdir(parents=True)
    pi.write("etc/network/interfaces", "source /etc/network/interfaces.d/*\n")
    pi.write("etc/dhcpcd.conf", "hostname\nclientid\n")
    pi.write("usr/sbin/dhcpcd", "", 0o755)
    pi.write("lib/systemd/system/ssh.service", "[Service]\nExecStart=/usr/sbin/sshd -D\n")
    pi.write("var/lib/systemd/rfkill/platform-fe300000.mmcnr:wlan", "1\n")
    pi.write("etc/default/crda", "REGDOMAIN=\n")


def _bookworm(pi: Pi) -> None:
    """Raspberry Pi OS with NetworkManager; the boot partition is /boot/firmware."""
    _bullseye(pi)
    (pi.root / "etc/dhcpcd.conf").unlink()
    pi.write("usr/sbin/NetworkManager", "", 0o755)
    pi.path("etc/NetworkManager/system-connections").mkdir(parents=True)


def _trixie(pi: Pi) -> None:
    """Raspberry Pi OS with cloud-init, which calls the installer; its wifi is switched off."""
    _bookworm(pi)
    pi.write("proc/cmdline", "root=/dev/mmcblk0p2 ds=nocloud;i=x\n")
    state = "[main]\nNetworkingEnabled=true\nWirelessEnabled=false\nWWANEnabled=true\n"
    pi.write("var/lib/NetworkManager/NetworkManager.state", state)


_ROOTS = {
    "wheezy": _wheezy,
    "jessie": _jessie,
    "device-init": _device_init,
    "cloud-init": _cloud_init,
    "bullseye": _bullseye,
    "bookworm": _bookworm,
    "trixie": _trixie,
}
KINDS = tuple(_ROOTS)
WITHOUT_DOCKER = ("bullseye", "bookworm", "trixie")
GENERATIONS = {
    "wheezy": "occidentalis",
    "jessie": "occidentalis",
    "bullseye": "firstrun",
    "bookworm": "firstrun",
    "trixie": "cloud-init",
}


def _card(pi: Pi, kind: str) -> None:
    for folder in ("wifi", "network"):
        (pi.card / folder).mkdir(parents=True)
    for name in ("install", "node"):
        (pi.card / name).write_bytes(NODE_FILES[name])
    generation = GENERATIONS.get(kind, kind)
    pi.configure(NODE_GENERATION=generation)
    (pi.card / "authorized_keys").write_text(KEYS)
    (pi.card / "wifi" / "wpa_supplicant.conf").write_text(WIFI)
    if generation != "cloud-init":
        (pi.card / "network" / "interfaces").write_text(STATIC)
    (pi.card / "network" / "dhcpcd.conf").write_text(STATIC_DHCPCD)
    if generation == "firstrun":
        (pi.card / "wifi" / "2.nmconnection").write_text(WIFI_NM)
        (pi.card / "network" / "wired.nmconnection").write_text(STATIC_NM)
    _BOOT_FILES.get(kind, lambda _: None)(pi)


def _boot_occidentalis(pi: Pi) -> None:
    text = "# hostname for your Pi:\nhostname=pi-03\nwifi_ssid=Caf\u00e9\nwifi_password=hunter22\n"
    (pi.boot / "occidentalis.txt").write_text(text)


def _boot_device_init(pi: Pi) -> None:
    text = """\
        hostname: "pi-03"
        wifi:
          interfaces:
            wlan0:
              ssid: "Café"
              password: "hunter22"
        runcmd:
          - "sh /boot/rpi-image/install"
        """
    (pi.boot / "device-init.yaml").write_text(textwrap.dedent(text))


def _boot_cloud_init(pi: Pi) -> None:
    text = """\
        version: 1
        config:
          - type: physical
            name: "eth0"
            subnets:
              - type: static
                address: "192.168.2.103/24"
        """
    (pi.boot / "network-config").write_text(textwrap.dedent(text))


def _boot_trixie(pi: Pi) -> None:
    text = """\
        network:
          version: 2
          ethernets:
            eth0: {addresses: ["192.168.2.103/24"]}
          wifis:
            wlan0: {dhcp4: true}
        """
    (pi.boot / "network-config").write_text(textwrap.dedent(text))


_BOOT_FILES = {
    "wheezy": _boot_occidentalis,
    "jessie": _boot_occidentalis,
    "device-init": _boot_device_init,
    "cloud-init": _boot_cloud_init,
    "trixie": _boot_trixie,
}


def install(pi: Pi, shell: str = "dash") -> str:
    """Run the installer and return what it said; it must always end with 0."""
    done = pi.run(shell=shell)
    assert done.returncode == 0
    assert pi.leftovers() == []
    return done.stderr


def docker_opts(pi: Pi) -> str:
    """Read DOCKER_OPTS as an init script does."""
    file = pi.path("etc/default/docker")
    return run("dash", "-c", f'. "{file}"; printf %s "$DOCKER_OPTS"')
