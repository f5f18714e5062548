"""Exports, read back by the programs they are for."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from imagebuilder.model import Classroom, Docker, Network, User
from imagebuilder.settings.load import load_roster
from imagebuilder.shack.exports import EXPORTS
from imagebuilder.shack.keystore import client_bundle, with_identities
from tests.lib.classroom_samples import SHACK, make_classroom, node
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path


def mixed_room(folder: Path) -> Classroom:
    return make_classroom(
        folder,
        node(1, owner="Zoë: the 1st", keep_host_keys=True),
        node(2, network=Network(dhcp_range="192.168.2.50-192.168.2.99"), keep_host_keys=True),
        node(3, profile="armv6", arch="armv6", mac="", user=None,
             docker=Docker(labels=(("arch", "armv6"), ("room", "3-b")), tcp=False)),
    )  # fmt: skip


def written(classroom: Classroom, folder: Path, name: str) -> Path:
    file = folder / EXPORTS[name].file
    file.write_text(EXPORTS[name].render(classroom, folder))
    return file


def test_ansible_reads_every_host_and_group(tmp_path: Path) -> None:
    need("ansible-inventory")
    file = written(mixed_room(tmp_path), tmp_path, "ansible")
    read = json.loads(run("ansible-inventory", "-i", file, "--list", cwd=tmp_path))
    variables = read["_meta"]["hostvars"]
    assert variables["pi-01"]["ansible_host"] == "192.168.2.101"
    assert variables["pi-01"]["owner"]["__ansible_unsafe"] == "Zoë: the 1st"
    assert variables["pi-02"]["ansible_host"] == "pi-02.local"
    assert "ansible_user" not in variables["pi-03"]
    assert read["armv7"]["hosts"] == ["pi-01", "pi-02"]
    assert read["room_3_b"]["hosts"] == ["pi-03"]


def test_yaml_keeps_texts_that_look_like_something_else(tmp_path: Path) -> None:
    odd = make_classroom(tmp_path, node(1, hostname="no", owner="0123", seat="2024-01-01"))
    file = written(odd, tmp_path, "ansible")
    read = json.loads(run("ansible-inventory", "-i", file, "--list", cwd=tmp_path))
    variables = read["_meta"]["hostvars"]["no"]
    assert variables["owner"]["__ansible_unsafe"] == "0123"
    assert variables["seat"]["__ansible_unsafe"] == "2024-01-01"


def test_ssh_takes_the_config(tmp_path: Path) -> None:
    need("ssh")
    folder = tmp_path / "100% class"
    folder.mkdir()
    file = written(with_identities(mixed_room(tmp_path)), folder, "ssh-config")
    read = dict(line.split(" ", 1) for line in run("ssh", "-F", file, "-G", "pi-01").splitlines())
    assert read["hostname"] == "192.168.2.101"
    assert read["user"] == "pi"
    assert read["hostkeyalias"] == "pi-01"
    assert read["stricthostkeychecking"] == "true"
    assert read["userknownhostsfile"].strip('"').replace("%%", "%") == str(folder / "known_hosts")
    dhcp = run("ssh", "-F", file, "-G", "pi-02")
    assert "hostname pi-02.local\n" in dhcp
    loose = run("ssh", "-F", file, "-G", "pi-03")
    assert "stricthostkeychecking ask" in loose


def test_ssh_keygen_finds_each_name_in_known_hosts(tmp_path: Path) -> None:
    need("ssh-keygen")
    classroom = with_identities(mixed_room(tmp_path))
    file = written(classroom, tmp_path, "known-hosts")
    for name in ("pi-01", "pi-01.local", "192.168.2.101", "pi-02"):
        found = run("ssh-keygen", "-F", name, "-f", file)
        assert found.count("ecdsa-sha2-nistp256") == 1
        assert found.count("ssh-ed25519") == 1
    assert "pi-03" not in file.read_text()


def test_hosts_names_the_shack_and_what_has_an_address(tmp_path: Path) -> None:
    lines = EXPORTS["hosts"].render(mixed_room(tmp_path), tmp_path).splitlines()
    assert lines[1:] == ["192.168.2.1\tshack", "192.168.2.101\tpi-01", "192.168.2.103\tpi-03"]


def test_dnsmasq_takes_its_file(tmp_path: Path) -> None:
    (dnsmasq,) = need("dnsmasq")
    file = written(mixed_room(tmp_path), tmp_path, "dnsmasq")
    done = subprocess.run(
        [dnsmasq, "--test", "-C", file], capture_output=True, text=True, check=True
    )
    assert "syntax check OK" in done.stderr
    text = file.read_text()
    assert "dhcp-host=b8:27:eb:00:00:01,192.168.2.101,pi-01\n" in text
    assert "dhcp-host=b8:27:eb:00:00:02,pi-02\n" in text
    assert "dhcp-host=192.168.2.103,pi-03\n" in text
    assert "dhcp-range=192.168.2.50,192.168.2.99,12h\n" in text
    assert "dhcp-option=option:ntp-server,192.168.2.1\n" in text


def contexts(script: Path, home: Path) -> dict[str, str]:
    environment = {**os.environ, "DOCKER_CONFIG": str(home)}
    environment.pop("DOCKER_HOST", None)
    subprocess.run(["sh", script], check=True, capture_output=True, env=environment)
    listed = subprocess.run(
        ["docker", "context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}}"],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    return dict(line.split(" ", 1) for line in listed.stdout.splitlines())


def test_docker_has_the_contexts_however_often_the_script_runs(tmp_path: Path) -> None:
    need("docker")
    script = written(mixed_room(tmp_path), tmp_path, "docker-contexts")
    for _ in range(2):
        made = contexts(script, tmp_path / "home")
        assert made["shack"] == "tcp://192.168.2.1:10000"
        assert made["pi-01"] == "tcp://192.168.2.101:2375"
        assert made["pi-02"] == "tcp://pi-02.local:2375"
        assert "pi-03" not in made


def test_docker_takes_the_certificates_along(tmp_path: Path) -> None:
    need("docker")
    secure = make_classroom(tmp_path / "a b", node(1, docker=Docker(tls=True, port=2376)))
    client_bundle(secure)
    script = written(secure, tmp_path, "docker-contexts")
    assert contexts(script, tmp_path / "home")["pi-01"] == "tcp://192.168.2.101:2376"
    kept = sorted(path.name for path in (tmp_path / "home").rglob("*.pem"))
    assert kept == ["ca.pem", "ca.pem", "cert.pem", "cert.pem", "key.pem", "key.pem"]


def ipv6_room(folder: Path) -> Classroom:
    network = Network(address="2001:db8::101/64", gateway="2001:db8::1")
    shack = replace(SHACK, address="2001:db8::1")
    return make_classroom(folder, node(1, network=network), shack=shack)


def test_docker_takes_ipv6_addresses(tmp_path: Path) -> None:
    need("docker")
    script = written(ipv6_room(tmp_path), tmp_path, "docker-contexts")
    made = contexts(script, tmp_path / "home")
    assert made["shack"] == "tcp://[2001:db8::1]:10000"
    assert made["pi-01"] == "tcp://[2001:db8::101]:2375"


def test_dnsmasq_takes_ipv6_addresses(tmp_path: Path) -> None:
    (dnsmasq,) = need("dnsmasq")
    file = written(ipv6_room(tmp_path), tmp_path, "dnsmasq")
    done = subprocess.run(
        [dnsmasq, "--test", "-C", file], capture_output=True, text=True, check=True
    )
    assert "syntax check OK" in done.stderr
    lines = file.read_text().splitlines()
    assert "dhcp-host=b8:27:eb:00:00:01,[2001:db8::101],pi-01" in lines
    assert "host-record=shack,2001:db8::1" in lines
    assert "dhcp-option=option6:ntp-server,[2001:db8::1]" in lines
    assert not any("option:" in line for line in lines)


def test_hosts_and_ssh_take_ipv6_addresses(tmp_path: Path) -> None:
    need("ssh")
    text = EXPORTS["hosts"].render(ipv6_room(tmp_path), tmp_path)
    assert "2001:db8::1\tshack\n2001:db8::101\tpi-01\n" in text
    file = written(ipv6_room(tmp_path), tmp_path, "ssh-config")
    assert "hostname 2001:db8::101\n" in run("ssh", "-G", "-F", file, "pi-01")


@pytest.mark.parametrize(("kind", "shown"), [("classic", True), ("swarm-mode", False)])
def test_only_a_classic_manager_asks_for_a_certificate(
    kind: Literal["classic", "swarm-mode"], shown: bool, tmp_path: Path
) -> None:
    secure = node(1, docker=Docker(tls=True, port=2376))
    text = EXPORTS["docker-contexts"].render(
        make_classroom(tmp_path, secure, shack=replace(SHACK, kind=kind)), tmp_path
    )
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("context ")}
    assert ("cert.pem" in lines["shack"]) is shown
    assert "cert.pem" in lines["pi-01"]


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_is_the_same_twice_and_holds_no_secret(name: str, tmp_path: Path) -> None:
    classroom = with_identities(mixed_room(tmp_path))
    text = EXPORTS[name].render(classroom, tmp_path)
    assert text == EXPORTS[name].render(classroom, tmp_path)
    assert "PRIVATE" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize("name", EXPORTS)
def test_no_name_of_a_class_breaks_out_of_its_comment(name: str, tmp_path: Path) -> None:
    nasty = replace(mixed_room(tmp_path), name="3b\ntouch /tmp/x\n")
    text = EXPORTS[name].render(nasty, tmp_path)
    assert not any(line.startswith("touch") for line in text.splitlines())


def test_a_class_without_a_shack(tmp_path: Path) -> None:
    alone = make_classroom(tmp_path, node(1, shack=None, user=User("pi")), shack=None)
    for export in EXPORTS.values():
        assert "shack" not in export.render(alone, tmp_path)


def test_the_login_of_the_image_is_that_of_ssh_and_ansible(tmp_path: Path) -> None:
    """Only where the settings have no user, and where the login is known."""
    need("ssh")
    path = tmp_path / "room.yml"
    path.write_text(
        "profile: armv7\nnodes:\n  - hostname: seed\n  - {hostname: own, user: {name: ann,\n"
        "     password: {env: NOBODY_SETS_THIS}}}\n"
        "  - {hostname: other, image: {url: 'https://example.org/a.img', unchecked: true}}\n"
    )
    room = load_roster(path, environment={})
    config = written(room, tmp_path, "ssh-config")
    logins = {}
    for name in ("seed", "own", "other"):
        said = run("ssh", "-G", "-F", config, name)
        logins[name] = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)["user"]
    assert (logins["seed"], logins["own"]) == ("pirate", "ann")
    assert logins["other"] == getpass.getuser()
    inventory = written(room, tmp_path, "ansible").read_text()
    assert inventory.count("ansible_user") == 2
