"""Boot partitions as the vendors ship them, and nodes to plan onto them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from imagebuilder.model import (
    Cluster,
    Docker,
    DockerTls,
    HostKey,
    ImageSource,
    Network,
    NodePlan,
    NodeSettings,
    OverlayFile,
    Secret,
    Shack,
    User,
    Wifi,
    WifiNetwork,
)
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.generations import detect
from imagebuilder.plan.node import plan_node
from imagebuilder.plan.overlays import load_generations, node_overlay
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from imagebuilder.plan.generations import Generation

BUILD_TIME = 1_429_212_937  # the evening on which the workshop's base image was made

APRIL_CMDLINE = (
    b"+dwc_otg.lpm_enable=0 console=tty1 root=/dev/mmcblk0p2 rootfstype=ext4 "
    b"cgroup-enable=memory swapaccount=1 elevator=deadline rootwait "
    b"console=ttyAMA0,115200 kgdboc=ttyAMA0,115200\n"
)
OCCIDENTALIS = b"""
# hostname for your Hypriot Raspberry Pi:
hostname=black-pearl

# basic wireless networking options:
# wifi_ssid=your-ssid
# wifi_password=your-presharedkey

"""
DEVICE_INIT = b"""hostname: black-pearl
# wifi:
#   interfaces:
#     wlan0:
#       ssid: "MyNetwork"
#       password: "secret_password"
docker:
  images:
    - "/var/local/first.tar.gz"
"""
PIRATE = b"""#cloud-config
# vim: syntax=yaml
hostname: black-pearl
manage_etc_hosts: true

users:
  - name: pirate
    gecos: "Hypriot Pirate"
    sudo: ALL=(ALL) NOPASSWD:ALL
    shell: /bin/bash
    groups: users,docker,video,input
    plain_text_passwd: hypriot
    lock_passwd: false
    ssh_pwauth: true
    chpasswd: { expire: false }

package_upgrade: false

runcmd:
  - 'systemctl restart avahi-daemon'
"""
RASPIOS_CMDLINE = b"console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4"


def _os_release(version: str) -> bytes:
    return f'NAME="Raspbian GNU/Linux"\nHYPRIOT_IMAGE_VERSION="{version}"\n'.encode()


STOCK: dict[str, dict[str, bytes]] = {
    "occidentalis": {"cmdline.txt": APRIL_CMDLINE, "occidentalis.txt": OCCIDENTALIS},
    "device-init-1.0": {
        "cmdline.txt": b"dwc_otg.lpm_enable=0 console=tty1 root=/dev/mmcblk0p2 rootwait\n",
        "config.txt": b"enable_uart=1\n",
        "device-init.yaml": DEVICE_INIT,
        "os-release": _os_release("v1.0.0"),
    },
    "device-init-1.6": {
        "cmdline.txt": b"dwc_otg.lpm_enable=0 console=tty1 root=/dev/mmcblk0p2 rootwait\n",
        "device-init.yaml": DEVICE_INIT + b"runcmd:\n  - touch /tmp/vendor\n",
        "os-release": _os_release("v1.6.0"),
    },
    "cloud-init-hypriot": {
        "cmdline.txt": b"console=tty1 root=PARTUUID=1f3a9e2c-02 rootfstype=ext4 rootwait "
        b"init=/usr/lib/raspi-config/init_resize.sh\n",
        "user-data": PIRATE,
        "meta-data": b"instance-id: pirate001\n",
        "network-config": b"version: 1\nconfig:\n  - type: physical\n    name: eth0\n"
        b"    subnets:\n      - type: dhcp\n",
        "fake-hwclock.data": b"2020-06-17 10:00:00\n",
        "os-release": _os_release("v1.12.3"),
    },
    "cloud-init-trixie": {
        "cmdline.txt": RASPIOS_CMDLINE + b" fsck.repair=yes rootwait resize\n",
        "user-data": b"#cloud-config\n\n#hostname: raspberrypi\n#users: []\n",
        "meta-data": b"instance-id: rpios-image\n",
        "network-config": b"#network:\n#  version: 2\n",
        "issue.txt": b"Raspberry Pi reference 2025-10-01\nGenerated using pi-gen\n",
        "config.txt": b"dtparam=audio=on\n\n[cm4]\notg_mode=1\n",
    },
    "firstrun-bookworm": {
        "cmdline.txt": RASPIOS_CMDLINE + b" fsck.repair=yes rootwait quiet "
        b"init=/usr/lib/raspberrypi-sys-mods/firstboot\n",
        "issue.txt": b"Raspberry Pi reference 2023-12-05\nGenerated using pi-gen\n",
    },
}

GENERATION_OF = {name: "-".join(name.split("-")[:2]) for name in STOCK} | {
    "occidentalis": "occidentalis",
    "cloud-init-hypriot": "cloud-init",
    "cloud-init-trixie": "cloud-init",
    "firstrun-bookworm": "firstrun",
}

# What breaks a quoting that is nearly right.
HOSTILE = (
    "it's",
    'a "quoted" word',
    "$HOME ${PATH} $(reboot) `reboot`",
    "back\\slash \\n \\\\",
    "a/b&c;d|e>f<g",
    "Café-📶",
    "no",
    "0123",
    "2024-01-01",
    "#comment: {not} [a, list]",
    "%s %d {{ jinja }} {% raw %}",
    "-n",
    "* ? [a-z] ~",
    "'\"'\"'",
    "$6$salt$abc.DEF/ghi",
    "パスワード123",
)


def plain_node() -> NodeSettings:
    """Return the workshop's node: one network, the shack's registry, nothing else."""
    return NodeSettings(
        hostname="pi-03",
        profile="armv7",
        arch="armv7",
        machines=("armv7l",),
        image=ImageSource("hypriot-2015-04"),
        shack=Shack("192.168.2.1"),
        docker=Docker(
            insecure_registries=("192.168.2.1:5000",),
            registry_mirrors=("http://192.168.2.1:5000",),
        ),
        wifi=Wifi("FR", (WifiNetwork("Shack", Secret("correct horse battery")),)),
        allow=("no-login",),
    )


def full_node() -> NodeSettings:
    """Return a node that uses everything there is."""
    return replace(
        plain_node(),
        network=Network(
            address="192.168.2.103/24", gateway="192.168.2.1", dns=("192.168.2.1", "9.9.9.9")
        ),
        wifi=Wifi(
            "FR",
            (
                WifiNetwork("Café-📶", Secret("パスワード123")),
                WifiNetwork("back room", psk=Secret("A" * 64), hidden=True, priority=5),
                WifiNetwork("guests"),
            ),
        ),
        packages=("git", "python3-pip"),
        docker=Docker(
            install="always",
            version="20.10",
            labels=(("seat", "3"),),
            insecure_registries=("192.168.2.1:5000",),
            registry_mirrors=("192.168.2.1:5001",),
            tls=True,
        ),
        docker_tls=DockerTls("CA-PEM\n", "CERT-PEM\n", Secret("KEY-PEM\n")),
        cluster=Cluster(consul_encrypt=Secret("cg8StVXbQJ0gPvMd9o7yrg==")),
        user=User("teacher", Secret("$6$salt$abc.DEF/ghi"), ("docker", "sudo")),
        ssh_keys=("ssh-ed25519 AAAAC3Nz teacher@shack",),
        host_keys=(HostKey("ed25519", Secret("PRIVATE\n"), "ssh-ed25519 AAAA root@pi-03\n"),),
        timezone="Europe/Paris",
        keyboard="fr",
        locale="fr_FR.UTF-8",
        apt_proxy="http://192.168.2.1:3142",
        ntp_server="192.168.2.1",
        upgrade=True,
    )


SECRETS = ("パスワード123", "correct horse", "KEY-PEM", "PRIVATE", "cg8StVXb", "$6$salt")


@cache
def generations() -> tuple[Generation, ...]:
    """Return the generations that come with the program."""
    return load_generations((shipped_folder("overlays"),))


@cache
def node_files() -> tuple[OverlayFile, ...]:
    """Return what every node gets."""
    return node_overlay()


def boot_of(name: str, **more: bytes) -> MemoryBootFiles:
    """Return a stock boot partition, with further files (`_` in a name standing for a dot)."""
    return MemoryBootFiles(
        STOCK[name] | {path.replace("_", "."): data for path, data in more.items()}
    )


def plan(
    settings: NodeSettings,
    boot: MemoryBootFiles,
    *extra: OverlayFile,
    build_time: int = BUILD_TIME,
) -> NodePlan:
    """Plan a node as build does."""
    generation = detect(generations(), boot)
    return plan_node(settings, generation, (*node_files(), *extra), boot, build_time)


def after(boot: MemoryBootFiles, planned: NodePlan) -> MemoryBootFiles:
    """Return the boot partition once a plan is carried out."""
    files = dict(boot.files)
    for edit in planned.edits:
        files.pop(edit.path, None)
        if edit.data is not None:
            files[edit.path] = edit.data
    return MemoryBootFiles(files)
