"""Legal and still wrong: every lint once where it must speak and once where it must not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from imagebuilder.settings.catalog import load_catalogue
from imagebuilder.settings.load import check_classroom, read_classroom
from tests.lib.classrooms import CHECKSUM, WrittenClassroom

if TYPE_CHECKING:
    from pathlib import Path

QUIET = f"""\
profile: armv7
image: {{file: a.img, sha256: {CHECKSUM}}}
docker: {{tls: true}}
"""
# What a certificate for Docker names where nodes have no fixed address.
NETWORK = "network: {dhcp_range: 10.0.0.100-10.0.0.200}"


@pytest.fixture
def classroom(tmp_path: Path) -> WrittenClassroom:
    (tmp_path / "a.img").touch()
    return WrittenClassroom(tmp_path)


def said(classroom: WrittenClassroom, text: str, nodes: str = "[{hostname: pi-1}]") -> list[str]:
    network = "" if "network:" in text else NETWORK
    return classroom.write(f"{QUIET}nodes: {nodes}\n{text}\n{network}\n").said()


def test_a_quiet_class_has_no_findings(classroom: WrittenClassroom) -> None:
    nodes = "[{hostname: 'pi-[1-30]', address: '10.0.0.[1-30]', mac: 'b8:27:eb:00:00:[10-39]'}]"
    text = "network: {subnet: 10.0.0.0/24, dhcp_range: 10.0.0.100-10.0.0.200}"
    assert said(classroom, text, nodes) == []


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("[{hostname: 'pi-[1-3]'},\n  {hostname: pi-2}]", "two nodes are called `pi-2`"),
        (
            "[{hostname: a, address: 10.0.0.5},\n  {hostname: b, address: 10.0.0.5/24}]",
            "`b` has the same address 10.0.0.5 as `a`",
        ),
        (
            "[{hostname: a, serial: abcdef01},\n  {hostname: b, serial: 00000000ABCDEF01}]",
            "`b` has the same serial 00000000abcdef01 as `a`",
        ),
        (
            "[{hostname: a, mac: 'b8:27:eb:0:0:1'},\n  {hostname: b}]",
            "not a MAC address",
        ),
        (
            "[{hostname: a, mac: 'b8:27:eb:00:00:01'},\n  {hostname: b, mac: B8-27-EB-00-00-01}]",
            "`b` has the same mac b8:27:eb:00:00:01 as `a`",
        ),
    ],
)
def test_duplicates_are_errors_on_the_second_one(
    classroom: WrittenClassroom, nodes: str, words: str
) -> None:
    found = [
        line for line in said(classroom, "network: {subnet: 10.0.0.0/24}", nodes) if "error" in line
    ]
    assert len(found) == 1
    assert words in found[0]
    assert found[0].startswith("4 " if "MAC" in words else "5 ")


@pytest.mark.parametrize(
    ("address", "word", "words"),
    [
        ("10.0.1.5", "error", "outside the subnet"),
        ("10.0.0.0", "error", "network or broadcast"),
        ("10.0.0.255", "error", "broadcast"),
        ("10.0.0.254", "error", "of the gateway"),
        ("10.0.0.1", "error", "of the shack"),
        ("10.0.0.200", "warning", "DHCP range"),
    ],
)
def test_addresses_that_cannot_be(
    classroom: WrittenClassroom, address: str, word: str, words: str
) -> None:
    text = (
        "network: {subnet: 10.0.0.0/24, gateway: 10.0.0.254, dhcp_range: 10.0.0.200-10.0.0.250}\n"
        "shack: {address: 10.0.0.1}"
    )
    found = said(classroom, text, f"[{{hostname: a, address: {address}}}]")
    assert len(found) == 1
    assert found[0].startswith(f"4 {word}: ")
    assert words in found[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network: {subnet: 10.0.0.0/24, gateway: 10.0.1.1}", "gateway 10.0.1.1 is not in"),
        ("network: {subnet: 10.0.0.0/24}\nshack: {address: 10.0.1.1}", "shack 10.0.1.1 is not in"),
        (
            "network: {subnet: 10.0.0.0/24, gateway: 10.0.0.9}\nshack: {address: 10.0.1.1}",
            "",
        ),
        ("network: {subnet: 10.0.0.0/16}\nshack: {address: 10.0.1.1}", ""),
    ],
)
def test_what_static_addresses_cannot_reach(
    classroom: WrittenClassroom, text: str, words: str
) -> None:
    found = said(classroom, text, "[{hostname: 'a[1-9]', address: '10.0.0.[11-19]'}]")
    assert len(found) == bool(words)
    assert all(" warning: " in line and words in line for line in found)


def test_dhcp_nodes_are_not_asked_what_they_reach(classroom: WrittenClassroom) -> None:
    assert said(classroom, f"{NETWORK}\nshack: {{address: 10.0.1.1}}") == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("wifi: {networks: [{ssid: a}]}", 5, "without a country"),
        ("wifi: {country: FR, networks: [{ssid: 'a '}]}", 5, "space"),
        ("docker: {tcp: true}", 5, "root on every node"),
        ("timezone: Europe/Pari", 5, "not known on this machine"),
        ("user: {name: a, password: inline}", 5, "is in the file as plain text"),
        ("wifi: {country: FR, networks: [{ssid: a, passphrase: inlined8}]}", 5, "in the file"),
        ("cluster: {consul: {server: true}}\nshack: {address: 10.0.0.1}", 5, "even number"),
    ],
)
def test_doubtful_is_a_warning(
    classroom: WrittenClassroom, text: str, line: int, words: str
) -> None:
    quiet = QUIET if "docker" not in text else QUIET.replace("docker: {tls: true}\n", "#\n")
    found = classroom.write(f"{quiet}nodes: [{{hostname: pi-1}}]\n{text}\n{NETWORK}\n").said()
    assert len(found) == 1
    assert found[0].startswith(f"{line} warning: ")
    assert words in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "wifi: {country: FR, networks: [{ssid: a}]}",
        "timezone: Europe/Paris",
        "cluster: {consul: {server: true}}\nshack: {address: 10.0.0.1}",
    ],
)
def test_what_is_right_is_not_doubted(classroom: WrittenClassroom, text: str) -> None:
    assert said(classroom, text, "[{hostname: a}, {hostname: b}]") == []


@pytest.mark.parametrize(
    ("said_twice", "words"),
    [
        ("wifi: {networks: [{ssid: a}]}", "without a country"),
        ("wifi: {country: FR, networks: [{ssid: 'a '}]}", "space"),
        ("docker: {tcp: true, tls: false}", "root on every node"),
        ("docker: {tls: false}", "root on every node"),
        ("docker: {tcp: false, tls: false}", "the swarm manager cannot reach the nodes"),
        ("docker: {labels: {a: b=c}}", "Docker 1.6 rejects"),
        ("labels: {a: b=c}", "Docker 1.6 rejects"),
        ("image: {file: other.img.zip}", "has no checksum"),
        ("image: {file: other.img.zip}", "no image file"),
        ("image: {file: a.img, unchecked: true}", "without a checksum"),
        ("network: {gateway: 10.0.9.1}", "the gateway 10.0.9.1 is not in"),
        ("shack: {address: 127.0.0.1}", "127.0.0.1 is a loopback address"),
        ("shack: {ports: {web: 5000}}", "port 5000 of `web`"),
        ("image: sample", "`swarm:1.2.9` cannot manage Docker 1.6"),
        ("generation: occidentalis", "`swarm:1.2.9` cannot manage Docker 1.6"),
        ("network: {address: 10.0.0.5/24}", "`c` has the same address 10.0.0.5 as `b`"),
    ],
)
def test_what_only_nodes_say_is_found_at_the_first_of_them(
    classroom: WrittenClassroom, said_twice: str, words: str
) -> None:
    network = "network: {subnet: 10.0.0.0/24, dhcp_range: 10.0.0.100-10.0.0.200}"
    nodes = "\n".join(
        f"  - hostname: {name}\n    address: 10.0.0.{n}\n    {said_twice if n > 4 else 'owner: x'}"
        for n, name in enumerate("abc", 4)
    )
    if "address: 10.0.0.5" in said_twice:
        nodes = re.sub(r"    address.*\n", "    mac:\n", nodes)
    shack = "shack: {address: 10.0.0.1, images: {swarm: 'swarm:1.2.9'}}"
    found = classroom.write(f"{QUIET}{network}\n{shack}\nnodes:\n{nodes}\n").said()
    (line,) = [line for line in found if words in line]
    number = 15 if "`c`" in words else 12
    assert line.startswith(f"{number} "), found
    assert f"nodes[{number // 3 - 3}]." in line


def test_the_first_consul_server_is_named(classroom: WrittenClassroom) -> None:
    nodes = "[{hostname: a},\n  {hostname: b,\n  cluster: {consul: {server: true}}}]"
    (line,) = said(classroom, "shack: {address: 10.0.0.1}", nodes)
    assert line.startswith("6 warning: nodes[1].cluster.consul.server: 2 consul servers")


def test_what_a_flag_says_is_not_looked_for_in_the_file(classroom: WrittenClassroom) -> None:
    classroom.write(f"{QUIET}nodes: [{{hostname: a}}]\n")
    found = read_classroom(
        classroom.path, overrides={"wifi": {"networks": [{"ssid": "a"}]}}, environment={}
    )
    assert [(problem.message[:20], problem.line) for problem in found.problems] == [
        ("wifi: wifi without a", None)
    ]


def test_too_many_consul_servers(classroom: WrittenClassroom) -> None:
    text = "cluster: {consul: {server: true}}\nshack: {address: 10.0.0.1}"
    assert "31 consul servers" in said(classroom, text, "[{hostname: 'pi-[1-30]'}]")[0]


def test_a_label_that_old_dockerds_refuse(classroom: WrittenClassroom) -> None:
    text = QUIET.replace("{tls: true}", "{tls: true, labels: {a: b=c, d: e}}")
    assert classroom.write(f"{text}nodes: [{{hostname: a}}]\n").said() == [
        "3 warning: docker.labels: label `a` has a `=` in its value: Docker 1.6 rejects it"
    ]


@pytest.mark.parametrize("docker", ["{tls: true}", "{tcp: false}"])
def test_a_closed_socket_is_not_doubted(classroom: WrittenClassroom, docker: str) -> None:
    text = QUIET.replace("{tls: true}", docker) + "nodes: [{hostname: a}]\n"
    assert classroom.write(text).said() == []


@pytest.mark.parametrize(
    ("shack", "doubted"),
    [
        ("shack: {address: 10.0.0.1}", True),
        ("shack: {address: 10.0.0.1, kind: swarm-mode}", False),
        ("shack: {address: 10.0.0.1}\ncluster: {enabled: false}", False),
    ],
)
def test_a_swarm_manager_needs_the_socket(
    classroom: WrittenClassroom, shack: str, *, doubted: bool
) -> None:
    text = QUIET.replace("{tls: true}", "{tcp: false}") + f"nodes: [{{hostname: a}}]\n{shack}\n"
    words = (
        "3 warning: docker.tcp: the Docker API is closed: the swarm manager cannot reach the nodes"
    )
    assert classroom.write(text).said() == [words] * doubted


@pytest.mark.parametrize(
    ("image", "shack", "words"),
    [
        ("sample", "kind: swarm-mode", "6 error: shack: Docker 1.6 has no swarm mode"),
        ("hypriotos-1.12.3", "kind: swarm-mode", ""),
        (
            "sample",
            "images: {swarm: 'swarm:1.2.0'}",
            "6 warning: shack.images.swarm: `swarm:1.2.0`",
        ),
        (
            "sample",
            "images: {swarm: 'a/b:v1.10.1'}",
            "6 warning: shack.images.swarm: `a/b:v1.10.1`",
        ),
        ("sample", "images: {swarm: 'swarm:1.1.3'}", ""),
        ("sample", "images: {swarm: swarm}", "6 warning: shack.images.swarm: `swarm` cannot"),
        ("sample", "hostname: shack", ""),
        ("hypriotos-1.12.3", "images: {swarm: 'swarm:1.2.9'}", ""),
    ],
)
@pytest.mark.parametrize("rest", ["", "cluster: {enabled: false}"])
def test_clusters_that_docker_1_6_cannot_join(
    classroom: WrittenClassroom, image: str, shack: str, words: str, rest: str
) -> None:
    text = f"profile: armv7\nimage: {image}\ndocker: {{tls: true}}\nnodes: [{{hostname: a}}]\n"
    found = classroom.write(
        f"{text}{NETWORK}\nshack: {{address: 10.0.0.1, {shack}}}\n{rest}\n"
    ).said()
    assert [line[: len(words)] for line in found] == [words] * bool(words and not rest)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("[{hostname: a, address: 10.0.0.5}, {hostname: b}]", "`b`: the swarm"),
        ("[{hostname: a}, {hostname: b}, {hostname: c}]", "`a` and 2 more: the swarm"),
        ("[{hostname: a, network: {dhcp_range: 10.0.0.1-10.0.9.1}}]", "`a`: the swarm"),
        ("[{hostname: a, docker: {tls: false, tcp: true}, address: 10.0.0.5}]", "root on every"),
        ("[{hostname: a, cluster: {enabled: false}}]", ""),
        ("[{hostname: a, shack: {kind: swarm-mode}}]", ""),
    ],
)
def test_a_swarm_manager_needs_addresses_in_certificates(
    classroom: WrittenClassroom, nodes: str, words: str
) -> None:
    text = "network: {subnet: 10.0.0.0/24}\nshack: {address: 10.0.0.1}"
    found = said(classroom, text, nodes)
    assert len(found) == bool(words)
    assert all(
        words in line and " warning: docker.t" in line.replace("nodes[0].", "") for line in found
    )


@pytest.mark.parametrize(
    "shack", ["{address: 10.0.0.1, hostname: pi-2}", "{address: 10.0.0.1, hostname: shack}"]
)
def test_no_node_has_the_shacks_name(classroom: WrittenClassroom, shack: str) -> None:
    found = said(classroom, f"shack: {shack}", "[{hostname: 'pi-[1-3]'},\n  {hostname: shack}]")
    (line,) = found
    assert line.startswith("4 error" if "pi-2" in shack else "5 error")
    assert "is the name of the shack" in line


@pytest.mark.parametrize("rest", ["cluster: {enabled: false}", ""])
@pytest.mark.parametrize("kind", ["classic", "swarm-mode"])
def test_a_pi_may_be_the_shack_where_it_runs_no_consul(
    classroom: WrittenClassroom, kind: str, rest: str
) -> None:
    shack = f"shack: {{address: 10.0.0.1, kind: {kind}}}"
    found = said(classroom, shack, f"[{{hostname: shack, {rest}}}]")
    assert len(found) == (not rest)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("127.0.0.1", "warning"),
        ("'::1'", "warning"),
        ("0.0.0.0", "error"),
        ("'::'", "error"),
        ("224.0.0.1", "error"),
        ("'ff02::1'", "error"),
        ("255.255.255.255", "error"),
    ],
)
def test_addresses_that_no_shack_or_node_has(
    classroom: WrittenClassroom, address: str, word: str
) -> None:
    found = said(classroom, f"shack: {{address: {address}}}")
    assert [line[:9] for line in found] == [f"5 {word}: "[:9]]
    found = said(classroom, "", f"[{{hostname: a, address: {address}}}]")
    (line,) = (line for line in found if " error: " in line)
    assert line.startswith("4 error: nodes[0].address: ")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("ports: {mirror: 5000}", "port 5000 of `mirror` is already used by `registry`"),
        ("ports: {web: 8301}", "port 8301 of `web` is already used by consul"),
        ("ports: {swarm: 8500}", "port 8500 of `swarm` is already used by `consul`"),
        (
            "ports: {web: 7946}, kind: swarm-mode",
            "port 7946 of `web` is already used by Docker's swarm mode",
        ),
        ("ports: {web: 7946}", ""),
        ("ports: {mirror: 5000}, services: [registry]", ""),
    ],
)
def test_each_service_has_a_port_of_its_own(
    classroom: WrittenClassroom, more: str, words: str
) -> None:
    found = said(classroom, f"shack: {{address: 10.0.0.1, {more}}}")
    assert found == ([f"5 error: shack.ports: {words}"] if words else [])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("a.img", "has no checksum"),
        ("{file: a.img, unchecked: true}", "without a checksum"),
        ("https://example.org/a.zip", "no checksum in the file"),
        ("https://example.org/hypriot-rpi-20150416-201537.img.zip", "no checksum in the file"),
        ("hypriot-20150416", "image `hypriot-20150416` has no checksum"),
        (f"{{file: gone.img, sha256: {CHECKSUM}}}", "no image file"),
        (f"{{file: hypriotos-rpi-v1.12.3.img.zip, sha256: {CHECKSUM}}}", "no image file"),
    ],
)
def test_images_to_doubt(classroom: WrittenClassroom, image: str, words: str) -> None:
    text = f"profile: armv7\nimage: {image}\ndocker: {{tcp: false}}\nnodes: [{{hostname: a}}]\n"
    found = classroom.write(text).said()
    assert len(found) == 1
    assert found[0].startswith("2 warning")
    assert words in found[0]


def test_an_image_beside_its_checksum_is_not_to_doubt(classroom: WrittenClassroom) -> None:
    """`build` uses X.zip.sha256 for X.zip."""
    text = "profile: armv7\nimage: {file: a.img}\ndocker: {tcp: false}\nnodes: [{hostname: a}]\n"
    path = classroom.write(text).folder / "a.img"
    assert "has no checksum" in classroom.said()[0]
    path.with_name("a.img.sha256").write_text(f"{CHECKSUM}  a.img\n")
    assert classroom.said() == []


@pytest.mark.parametrize(
    "image",
    [
        *(
            entry.name
            for entry in load_catalogue()
            if entry.name != "hypriot-20150416" and entry.machines != ("aarch64",)
        ),
        f"{{name: hypriot-20150416, sha256: {CHECKSUM}}}",
        f"{{file: a.img, raw_sha256: {CHECKSUM}}}",
        "{url: 'https://example.org/a.zip', checksum_url: 'https://example.org/SHA256SUMS'}",
    ],
)
def test_images_not_to_doubt(classroom: WrittenClassroom, image: str) -> None:
    text = f"profile: armv7\nimage: {image}\ndocker: {{tcp: false}}\nallow: [no-login]\n"
    text += "nodes: [{hostname: a}]\n"
    assert classroom.write(text).said() == []


def test_a_download_that_is_gone_says_what_to_do(classroom: WrittenClassroom) -> None:
    classroom.write("profile: armv7\nimage: hypriot-20150416\nnodes: [{hostname: a}]\n")
    (problem,) = [problem for problem in classroom.check() if problem.line == 2]
    assert "give a local copy" in problem.hint


def test_a_label_that_contradicts_the_profile(classroom: WrittenClassroom) -> None:
    classroom.write(f"{QUIET}nodes: [{{hostname: a, labels: {{arch: armv6}}}}]\n")
    assert classroom.errors() == [
        "4 error: nodes[0].labels: label arch=armv6 on a node of profile `armv7` (armv7)"
    ]


def test_a_profile_that_does_not_fit_the_image(classroom: WrittenClassroom) -> None:
    mine = classroom.folder / "mine"
    mine.mkdir()
    (mine / "pi9.yml").write_text("arch: arm64\nmachines: [armv9]\n")
    classroom.write("profile: pi9\nimage: sample\ndocker: {tcp: false}\nnodes: [{hostname: a}]\n")
    found = check_classroom(classroom.path, environment={}, profile_folders=[mine])
    assert [(problem.message, problem.line) for problem in found] == [
        ("image: image `sample` does not boot on the boards of profile `pi9`", 2)
    ]
    assert found[0].severe


def test_a_fault_of_a_range_is_said_once(classroom: WrittenClassroom) -> None:
    nodes = "[{hostname: 'Pi-[1-30]'},\n  {hostname: 'pi-[1-30]'},\n  {hostname: 'pi-[1-30]'}]"
    assert [line[:8] for line in said(classroom, "", nodes)] == ["4 error:", "6 error:"]


YESCRYPT = "user: {name: pupil, password_hash: '$y$j9T$salt$digest'}\n"


@pytest.mark.parametrize(
    ("generation", "fails"),
    [("occidentalis", True), ("device-init", True), ("cloud-init", False), ("firstrun", False)],
)
def test_a_hash_that_a_known_generation_cannot_verify(
    classroom: WrittenClassroom, generation: str, *, fails: bool
) -> None:
    """Where it depends on the image, building finds it out."""
    text = f"profile: armv7\ngeneration: {generation}\n{YESCRYPT}nodes: [{{hostname: a}}]\n"
    errors = classroom.write(text).errors()
    assert [line for line in errors if line.startswith("3 error") and "yescrypt" in line] == (
        errors if fails else []
    )
    assert bool(errors) is fails
