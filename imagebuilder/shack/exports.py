"""Write the roster in the formats of other tools: Ansible, ssh, hosts, dnsmasq, Docker."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.files import write_text
from imagebuilder.model import url_host
from imagebuilder.plan.reach import login_name, mdns_name, reachable_name
from imagebuilder.shack.encoders import (
    AnsibleText,
    ansible_yaml,
    comment,
    docker_fields,
    ssh_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from imagebuilder.model import Classroom, NodeSettings


@dataclass(frozen=True, slots=True)
class Export:
    """One export format: its file, and the command that uses the file."""

    file: str
    render: Callable[[Classroom, Path], str]
    reader: str


def ansible_inventory(classroom: Classroom, folder: Path) -> str:
    """Return an Ansible inventory in YAML: all nodes, and a group for each profile and label."""
    del folder
    groups: dict[str, dict[str, dict[str, None]]] = {}
    for node in classroom.nodes:
        names = [node.profile, *(f"{key}_{value}" for key, value in node.docker.labels)]
        for name in dict.fromkeys(map(_group_name, names)):
            groups.setdefault(name, {"hosts": {}})["hosts"][node.hostname] = None
    hosts = {node.hostname: _host_variables(node) for node in classroom.nodes}
    inventory = {"all": {"hosts": hosts, "children": groups}}
    return _head(classroom, "#") + ansible_yaml(inventory)


def ssh_config(classroom: Classroom, folder: Path) -> str:
    """Return an ssh_config for Include; it checks nodes with kept host keys strictly."""
    text = _head(classroom, "#")
    for node in classroom.nodes:
        text += f"\nHost {node.hostname}\n    HostName {reachable_name(node)}\n"
        if login := login_name(node):
            text += f"    User {login}\n"
        if node.host_keys:
            text += (
                f"    HostKeyAlias {node.hostname}\n"
                f"    UserKnownHostsFile {ssh_path(folder / 'known_hosts')}\n"
                "    StrictHostKeyChecking yes\n"
            )
    return text


def known_hosts(classroom: Classroom, folder: Path) -> str:
    """Return a known_hosts with the kept host keys, for every name of a node."""
    del folder
    lines = []
    for node in classroom.nodes:
        names = [node.hostname, mdns_name(node.hostname), node.network.fixed_address]
        for key in node.host_keys:
            kind, blob = key.public.split()[:2]
            lines.append(f"{','.join(filter(None, names))} {kind} {blob}\n")
    return _head(classroom, "#") + "".join(lines)


def hosts(classroom: Classroom, folder: Path) -> str:
    """Return lines for /etc/hosts: the shack and the nodes with a fixed address."""
    del folder
    rows = [(node.network.fixed_address, node.hostname) for node in classroom.nodes]
    if classroom.shack:
        rows.insert(0, (classroom.shack.address, classroom.shack.hostname))
    lines = [f"{address}\t{name}\n" for address, name in rows if address]
    return _head(classroom, "#") + "".join(lines)


def dnsmasq(classroom: Classroom, folder: Path) -> str:
    """Return dnsmasq reservations: by MAC if known, else by the hostname in the DHCP request."""
    del folder
    lines = []
    for node in classroom.nodes:
        # IPv6 in brackets (dnsmasq(8), --dhcp-host).
        parts = [node.mac.lower(), url_host(node.network.fixed_address), node.hostname]
        if node.mac or node.network.fixed_address:
            lines.append(f"dhcp-host={','.join(filter(None, parts))}\n")
    return _head(classroom, "#") + _dnsmasq_network(classroom) + "".join(lines)


def docker_contexts(classroom: Classroom, folder: Path) -> str:
    """Return a script that makes a Docker context for each node and one for the class."""
    del folder
    text = "#!/bin/sh\n" + _head(classroom, "#") + _CONTEXT_FUNCTION
    certificates = classroom.secrets / "client"
    if classroom.shack:
        # In swarm mode this port is a read-only view over plain HTTP.
        tls = classroom.shack.kind == "classic" and any(node.docker.tls for node in classroom.nodes)
        endpoint = f"tcp://{classroom.shack.url_host}:{classroom.shack.swarm_port}"
        text += _context(classroom.shack.hostname, endpoint, certificates if tls else None)
    for node in classroom.nodes:
        if node.docker.tcp or node.docker.tls:
            endpoint = f"tcp://{url_host(reachable_name(node))}:{node.docker.port}"
            text += _context(node.hostname, endpoint, certificates if node.docker.tls else None)
    return text


EXPORTS: dict[str, Export] = {
    "ansible": Export("inventory.yml", ansible_inventory, "ansible -i inventory.yml all -m ping"),
    "ssh-config": Export("ssh_config", ssh_config, "ssh -F ssh_config NODE"),
    "known-hosts": Export("known_hosts", known_hosts, "ssh, through ssh_config"),
    "hosts": Export("hosts", hosts, "cat hosts >> /etc/hosts"),
    "dnsmasq": Export("dnsmasq.conf", dnsmasq, "cp dnsmasq.conf /etc/dnsmasq.d/"),
    "docker-contexts": Export("docker-contexts", docker_contexts, "sh docker-contexts"),
}
_CONTEXT_FUNCTION = """set -eu

# context NAME ENDPOINT: create or update a context
context() {
    if docker context inspect "$1" >/dev/null 2>&1; then
        docker context update "$1" --docker "$2"
    else
        docker context create "$1" --docker "$2"
    fi
}

"""


def _context(name: str, endpoint: str, certificates: Path | None) -> str:
    fields = [f"host={endpoint}"]
    if certificates:
        fields += [f"{part}={certificates / part}.pem" for part in ("ca", "cert", "key")]
    return f"context {shlex.quote(name)} {shlex.quote(docker_fields(fields))}\n"


def _host_variables(node: NodeSettings) -> dict[str, object]:
    variables: dict[str, object] = {"ansible_host": reachable_name(node)}
    if login := login_name(node):
        variables["ansible_user"] = AnsibleText(login)
    attributes = {
        "profile": node.profile,
        "arch": node.arch,
        "seat": node.seat,
        "owner": node.owner,
    }
    variables |= {key: AnsibleText(value) for key, value in attributes.items() if value}
    if node.docker.labels:
        variables["docker_labels"] = {k: AnsibleText(text) for k, text in node.docker.labels}
    return variables


def _dnsmasq_network(classroom: Classroom) -> str:
    networks = [node.network for node in classroom.nodes]
    ranges = dict.fromkeys(network.dhcp_range for network in networks if network.dhcp_range)
    gateways = dict.fromkeys(network.gateway for network in networks if network.gateway)
    text = "".join(f"dhcp-range={','.join(re.split('[-, ]+', text))},12h\n" for text in ranges)
    # DHCPv6 has no option for a router (RFC 8415): it is announced by itself.
    if len(gateways) == 1 and not _is_ipv6(gateway := next(iter(gateways))):
        text += f"dhcp-option=option:router,{gateway}\n"
    shack = classroom.shack
    if shack:
        option = "option6" if _is_ipv6(shack.address) else "option"
        text += f"host-record={shack.hostname},{shack.address}\n"
        text += f"dhcp-option={option}:ntp-server,{shack.url_host}\n" if shack.ntp else ""
    return text


def _is_ipv6(address: str) -> bool:
    return ":" in address


def _group_name(text: str) -> str:
    """Return a name valid for an Ansible group: letters, digits and underscores."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if not name[:1].isdigit() else f"_{name}"


def _head(classroom: Classroom, mark: str) -> str:
    return comment(f"{mark} {classroom.name}: made by rpi-image from {classroom.path.name}") + "\n"


def write_exports(classroom: Classroom, names: Iterable[str], folder: Path) -> tuple[Path, ...]:
    """Write the chosen exports to `folder` and return their paths."""
    written = []
    for name in names:
        path = folder / EXPORTS[name].file
        text = EXPORTS[name].render(classroom, folder.resolve())
        write_text(path, text, 0o755 if text.startswith("#!") else 0o644)
        written.append(path)
    return tuple(written)
