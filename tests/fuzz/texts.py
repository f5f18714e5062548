"""Texts: classroom files, tables, files of a boot partition, checksum files, what cards hold."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING
from unittest import mock

import yaml

from imagebuilder.build.inspect import parse_node_env, parse_wpa_supplicant
from imagebuilder.errors import InputError, RpiImageError
from imagebuilder.flash.records.ledger import parse_ledger
from imagebuilder.images.checksum_lines import decode_text
from imagebuilder.images.checksums import parse_checksums
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.settings import references
from imagebuilder.settings.catalog import load_catalogue, load_profiles
from imagebuilder.settings.load import check_classroom, load_classroom
from imagebuilder.settings.starter import StarterAnswers, render_starter
from imagebuilder.shack.exports import EXPORTS
from imagebuilder.shack.sheets.label_content import link_of
from tests.fuzz.bytewise import reworded
from tests.fuzz.target import Target
from tests.lib.nasty import NASTY
from tests.lib.plan_samples import STOCK, full_node, plain_node, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from random import Random

NASTY_BYTES = tuple(text.encode() for text in NASTY)
BREAKS = (b"\n", b"\r\n", b"\t", b" ", b"\0", b"\xff", b"\xef\xbb\xbf", "\u2028".encode())


def rewording(words: tuple[bytes, ...], marks: bytes) -> Callable[[bytes, Random], bytes]:
    return partial(_reworded, words=(*words, *words, *NASTY_BYTES, *BREAKS), marks=marks)


def _reworded(data: bytes, rng: Random, words: tuple[bytes, ...], marks: bytes) -> bytes:
    return reworded(data, rng, words, marks)


# ---- YAML

# The profiles and images that come with the program are the same each time.
_profiles, _catalogue = cache(load_profiles), cache(load_catalogue)


@contextmanager
def shipped() -> Iterator[None]:
    """Load the profiles and images that come with the program once."""
    with (
        mock.patch.object(references, "load_profiles", lambda folders: _profiles(tuple(folders))),
        mock.patch.object(references, "load_catalogue", lambda folders: _catalogue(tuple(folders))),
    ):
        yield


_FULL = b"""name: class 3b
profile: armv7
image:
  url: https://example.org/x.img.zip
  sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
shack: {address: 192.168.2.1, kind: classic, ports: {consul: 8500}, services: [registry, web]}
wifi:
  country: FR
  networks: [{ssid: shack, passphrase: correct horse, hidden: yes, priority: 5}, {ssid: guests}]
network: {gateway: 192.168.2.1, dns: [192.168.2.1, "2001:db8::1"]}
user: {name: teacher, password_hash: $6$salt$abc.DEF/ghi, groups: [docker, sudo]}
docker: {tcp: true, labels: {row: "3"}, insecure_registries: [192.168.2.1:5000]}
cluster: {enabled: true, consul: {version: 1.8.7}}
timezone: Europe/Paris
keyboard: fr
set: {motd: "a: b", n: 1}
x-lab: &lab {owner: lab, profile: armv6}
nodes:
  - {hostname: "pi-[01-03]", address: "192.168.2.[101-103]/24", seat: "[1-3]"}
  - {hostname: old, <<: *lab, labels: {a: b}, serial: 00000000abcdef01, mac: "b8:27:eb:00:00:01"}
"""
_YAML_WORDS = (
    b"&a", b"*a", b"*lab", b"<<: *lab", b"<<", b"- ", b"? ", b": ", b"[", b"]", b"{", b"}", b"|",
    b">-",
    b"---", b"...", b"!!int", b"!!binary", b"!csv", b"!csv room.yml", b"!!python/object:x.Y {}",
    b"%TAG ! x",
    b"pi-[1-9]", b"pi-[1-99999999999999999999]", b"[01-30]", b"[1-3,7]", b"nodes:", b"nodes_from:",
    b"shack:", b"wifi:", b"network:", b"docker:", b"user:", b"image:", b"set:", b"labels:",
    b"address:",
    b"hostname:", b"{env: HOME}", b"{file: room.yml}", b"0.0.0.0/0", b"fe80::1%eth0",
    b"::ffff:1.2.3.4",
    b"2001:db8::1/64", b"swarm-mode", b"1e400", b".inf", b".nan", b"2015-13-45", b"~", b"null",
    b"9" * 5000,
    b"a" * 9000, b"[" * 60, b"*a, " * 200,
)  # fmt: skip


def yaml_seeds() -> list[bytes]:
    return [
        _FULL,
        render_starter(StarterAnswers(shack="192.168.2.1", wifi_ssid="x")).encode(),
        b"profile: armv7\nnodes:\n  - hostname: pi-[1-3]\n",
    ]


def read_classroom_file(data: bytes, folder: Path) -> None:
    """Check and load a class, and write what is exported of it."""
    path = folder / "room.yml"
    path.write_bytes(data)
    with shipped():
        problems = check_classroom(path, environment={"HOME": str(folder)})
    assert all(problem.message for problem in problems)
    if any(problem.severe for problem in problems):
        return
    with shipped():
        classroom = load_classroom(path, environment={"HOME": str(folder)})
    for name in EXPORTS.keys() - {"known-hosts"} if len(classroom.nodes) < 50 else ():
        EXPORTS[name].render(classroom, folder)
    link_of(classroom, classroom.nodes[0])


# ---- CSV

_TABLES = (
    b"hostname,address,seat,labels\npi-[01-03],192.168.2.[101-103],[1-3],a=b c=d\nold,,,\n",
    b'sep=;\r\nhostname;owner;label.row\r\npi-1;"Zo\xc3\xab; Max";3\r\n',
    "Class 3b\nHostname\tMAC\tserial\npi-1\tb8:27:eb:00:00:01\t0000\n".encode("utf-16"),
)
_TABLE_WORDS = (
    b'"', b'""', b",", b";", b"\t", b"sep=;\n", b"sep=\xff\n", b"hostname", b"label.x",
    b"labels", b"pi-[1-9999]",
    b"[1-10001]", b"[1-3]", b"a=b", b"=", b"\xff\xfe", b"," * 300, b"x" * 9000, b"image",
    b"profile",
)  # fmt: skip


def read_table(data: bytes, folder: Path) -> None:
    path = folder / "table.yml"
    path.write_text("profile: armv7\nimage: {file: x.img, unchecked: true}\nnodes: !csv t.csv\n")
    (folder / "t.csv").write_bytes(data)
    with shipped():
        assert all(each.message for each in check_classroom(path, environment={}))


# ---- the files of a boot partition: `== NAME`, then the text

_HEAD = b"== "
_BOOT_WORDS = (
    *_YAML_WORDS, b"users:", b"chpasswd:", b"list:", b"runcmd:", b"version: 1", b"version: 2",
    b"ethernets:", b"wifis:", b"access-points:", b"config: disabled",
    b"network: {config: disabled}", b"#cloud-config",
    b"## template: jinja\n", b"#include", b"include config.txt", b"cmdline=", b"os_prefix=",
    b"[pi4]", b"[all]",
    b"[none]", b"== user-data\n", b"== network-config\n", b"== config.txt\n", b"== cmdline.txt\n",
    b"== firstrun.sh\n", b"== custom.toml\n", b"== userconf.txt\n", b"== meta-data\n",
    b"init=/bin/sh",
    b"systemd.run=/boot/firstrun.sh", b'"', b"== rpi-image/made.json\n", b'{"files": ["x"]}',
)  # fmt: skip


@cache
def boot_seeds() -> list[bytes]:
    made = [_joined(files) for files in STOCK.values()]
    files = STOCK["cloud-init-trixie"] | {
        "user-data": b"#cloud-config\nusers: [default, {name: x}]\nchpasswd: {list: 'x:y'}\n",
        "network-config": b"network:\n  version: 2\n  ethernets: {eth0: {dhcp4: true}}\n"
        b"  wifis: {wlan0: {access-points: {x: {password: y}}}}\n",
    }
    return [*made, _joined(files)]


def _joined(files: Mapping[str, bytes]) -> bytes:
    return b"".join(_HEAD + name.encode() + b"\n" + text + b"\n" for name, text in files.items())


def read_boot(data: bytes, folder: Path) -> None:
    """Plan two nodes; what cloud-init reads then is still YAML."""
    del folder
    parts = (b"\n" + data).split(b"\n" + _HEAD)[1:]
    named = (part.partition(b"\n")[::2] for part in parts)
    files = {name.decode("utf-8", "replace"): text for name, text in named if name}
    for node in (plain_node(), full_node()):
        with suppress(RpiImageError):
            planned = plan(node, MemoryBootFiles(files))
            for edit in planned.edits:
                if edit.path in {"user-data", "network-config", "meta-data"} and edit.data:
                    yaml.load(edit.data, Loader=yaml.CSafeLoader)
    plan(plain_node(), MemoryBootFiles(files))


# ---- checksum files

_DIGEST = b"84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
_SUMS = (
    _DIGEST + b"  x.img\n",
    b"SHA256 (x.img) = " + _DIGEST + b"\n",
    b"SHA2-256(x.img)= " + _DIGEST + b"\n",
    b"SHA256 hash of file x.img:\r\n" + _DIGEST + b"\r\nCertUtil: command completed.\r\n",
    "\ufeffAlgorithm Hash Path\n--- --- ---\nSHA256 ".encode("utf-16-le") + _DIGEST,
)


def read_sums(data: bytes, folder: Path) -> None:
    del folder
    assert len(parse_checksums(decode_text(data), {"x.img"}, "x.img.sha256")) == 64


# ---- what cards and the machine of the instructor hold

_CARDS = (
    b"NODE_HOSTNAME='pi-03'\nRPI_IMAGE_HASH='abc'\nX=\"a $b\"\n",
    b'country=FR\nnetwork={\n\tssid="x"\n\tscan_ssid=1\n\tpsk=0\n}\nnetwork={\n\tssid=6162\n}\n',
    b"cards:\n- node: pi-03\n  device: /dev/sdb\n  bytes_written: 100\n  seconds: 1.5\n",
)
_CARD_WORDS = (
    b"network={",
    b"}",
    b"ssid=",
    b"'",
    b'"',
    b"\\",
    b"cards:",
    b"node:",
    b".inf",
    b"seconds:",
    b"[]",
)


def read_card(data: bytes, folder: Path) -> None:
    del folder
    text = data.decode("utf-8", "replace")
    parse_node_env(text)
    parse_wpa_supplicant(text)
    with suppress(InputError):
        parse_ledger(text, "cards.yml")


TARGETS = (
    Target("yaml", yaml_seeds, rewording(_YAML_WORDS, b" \n:,[]{}"), read_classroom_file),
    Target("csv", lambda: _TABLES, rewording(_TABLE_WORDS, b' \n,;\t"'), read_table),
    Target("boot", boot_seeds, rewording(_BOOT_WORDS, b" \n:,[]{}="), read_boot),
    Target(
        "checksums", lambda: _SUMS, rewording((_DIGEST, b"=", b"(", b")"), b" \n()="), read_sums
    ),
    Target("card", lambda: _CARDS, rewording(_CARD_WORDS, b" \n=:'\""), read_card),
)
