"""Profile ⊕ class ⊕ node ⊕ flags: what wins, what follows from what."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.model import NodeSettings, Secret, Shack
from imagebuilder.settings.values import hash_password
from tests.lib.classrooms import CHECKSUM, WrittenClassroom, from_flags
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

CONTRACT = f"""\
profile: armv7
image: {{file: hypriot-rpi-20150416-201537.img.zip, sha256: {CHECKSUM}}}
shack: {{address: 192.168.2.1}}
wifi: {{country: FR, networks: [{{ssid: shack, passphrase: {{env: CLASS_WIFI}}}}]}}
nodes:
  - hostname: pi-[01-30]
"""


@pytest.fixture
def classroom(tmp_path: Path) -> WrittenClassroom:
    return WrittenClassroom(tmp_path, {"CLASS_WIFI": "correct horse"})


def one(classroom: WrittenClassroom, text: str) -> NodeSettings:
    """Load a class of one node, `pi`, with `text` above."""
    return classroom.write(f"profile: armv7\n{text}\nnodes: [{{hostname: pi}}]\n").load().nodes[0]


def test_the_contract_word_for_word(classroom: WrittenClassroom) -> None:
    loaded = classroom.write(CONTRACT).load()
    assert [node.hostname for node in loaded.nodes] == [f"pi-{i:02}" for i in range(1, 31)]
    assert loaded.name == "room"
    assert loaded.shack == Shack("192.168.2.1")
    assert loaded.secrets == classroom.folder / "room.secrets"
    node = loaded.nodes[29]
    assert node.image.file == classroom.folder / "hypriot-rpi-20150416-201537.img.zip"
    assert node.image.sha256 == CHECKSUM
    assert (node.profile, node.arch) == ("armv7", "armv7")
    assert node.wifi.country == "FR"
    assert node.wifi.networks[0].ssid == "shack"
    assert node.wifi.networks[0].passphrase == Secret("correct horse")
    assert node.cluster.enabled
    assert node.shack == loaded.shack


def test_nodes_point_at_the_shack_by_construction(classroom: WrittenClassroom) -> None:
    node = one(
        classroom, "shack: {address: 10.0.0.1, ports: {registry: 5005, mirror: 5006, apt: 99}}"
    )
    assert node.docker.insecure_registries == ("10.0.0.1:5005",)
    assert node.docker.registry_mirrors == ("http://10.0.0.1:5006",)
    assert node.apt_proxy == "http://10.0.0.1:99"
    assert node.ntp_server == "10.0.0.1"


def test_what_is_said_wins_over_the_shack_even_nothing(classroom: WrittenClassroom) -> None:
    text = """
shack: {address: 10.0.0.1}
docker: {insecure_registries: [a:1], registry_mirrors: []}
apt_proxy: ""
ntp_server: pool.example.org"""
    node = one(classroom, text)
    assert node.docker.insecure_registries == ("a:1",)
    assert node.docker.registry_mirrors == ()
    assert node.apt_proxy == ""
    assert node.ntp_server == "pool.example.org"


def test_a_shack_without_services_gives_none(classroom: WrittenClassroom) -> None:
    node = one(classroom, "shack: {address: 10.0.0.1, services: [mirror]}")
    assert node.docker.insecure_registries == ()
    assert node.docker.registry_mirrors == ("http://10.0.0.1:5001",)
    assert (node.apt_proxy, node.ntp_server) == ("", "")
    assert node.shack is not None
    assert not node.shack.ntp


def test_the_shacks_own_images_and_ports(classroom: WrittenClassroom) -> None:
    text = """
shack:
  address: 10.0.0.1
  hostname: boss
  kind: swarm-mode
  ports: {consul: 18500, swarm: 20000, web: 80}
  images: {consul: "consul:1.16.0", registry: "registry:2.7"}"""
    shack = one(classroom, text).shack
    assert shack is not None
    assert (shack.hostname, shack.kind) == ("boss", "swarm-mode")
    assert (shack.consul_port, shack.swarm_port, shack.web_port) == (18500, 20000, 80)
    assert (shack.consul_image, shack.registry_image) == ("consul:1.16.0", "registry:2.7")
    assert shack.registry_port == Shack("10.0.0.1").registry_port


def test_a_node_may_have_another_shack(classroom: WrittenClassroom) -> None:
    classroom.write(
        "profile: armv7\nshack: {address: 10.0.0.1, ports: {registry: 5005}}\n"
        "nodes: [{hostname: a}, {hostname: b, shack: {address: 10.0.0.2}}]\n"
    )
    a, b = classroom.load().nodes
    assert a.docker.insecure_registries == ("10.0.0.1:5005",)
    assert b.docker.insecure_registries == ("10.0.0.2:5005",)


def test_an_ipv6_shack_stands_in_brackets(classroom: WrittenClassroom) -> None:
    node = one(classroom, 'shack: {address: "fd00::1"}')
    assert node.docker.insecure_registries == ("[fd00::1]:5000",)
    assert node.apt_proxy == "http://[fd00::1]:3142"


def test_the_layers_from_low_to_high(classroom: WrittenClassroom) -> None:
    classroom.write(
        """\
profile: armv7
timezone: Europe/Paris
docker: {debug: false, labels: {room: b12, row: "1"}, extra: [--mtu=1400]}
set: {colour: red, size: big}
nodes:
  - hostname: a
  - hostname: b
    profile: armv6
    timezone: Africa/Kigali
    labels: {row: "2"}
    docker: {extra: [--ipv6]}
    set: {colour: blue}
"""
    )
    a, b = classroom.load().nodes
    assert (a.arch, a.machines, a.timezone) == ("armv7", ("armv7l", "aarch64"), "Europe/Paris")
    assert (b.arch, b.machines, b.timezone) == ("armv6", ("armv6l",), "Africa/Kigali")
    assert a.docker.labels == (("room", "b12"), ("row", "1"))
    assert b.docker.labels == (("room", "b12"), ("row", "2"))
    assert not b.docker.debug
    assert (a.docker.extra, b.docker.extra) == (("--mtu=1400",), ("--ipv6",))
    assert b.variables == (("colour", "blue"), ("size", "big"))
    flagged = classroom.load({"timezone": "Asia/Tokyo", "docker": {"labels": {"row": "3"}}}).nodes[
        1
    ]
    assert flagged.timezone == "Asia/Tokyo"
    assert flagged.docker.labels == (("room", "b12"), ("row", "3"))


def test_an_image_is_replaced_as_a_whole(classroom: WrittenClassroom) -> None:
    classroom.write(
        f"profile: armv7\nimage: {{file: a.img, sha256: {CHECKSUM}}}\n"
        "nodes: [{hostname: a}, {hostname: b, image: {url: 'https://example.org/b.zip'}}]\n"
    )
    a, b = classroom.load().nodes
    assert a.image.sha256 == CHECKSUM
    assert b.image.url == "https://example.org/b.zip"
    assert b.image.sha256 == ""


def test_the_default_image_is_pinned() -> None:
    image = from_flags().nodes[0].image
    assert image.name == "hypriotos-1.12.3"
    assert image.sha256.startswith("9015ee2d")


def test_flags_choose_nodes_of_the_roster_or_add_new_ones(classroom: WrittenClassroom) -> None:
    classroom.write("profile: armv7\nnodes: [{hostname: 'pi-[1-9]', owner: 'Pupil [1-9]'}]\n")
    nodes = classroom.load({"nodes": [{"hostname": "pi-3"}, {"hostname": "new"}]}).nodes
    assert [(node.hostname, node.owner) for node in nodes] == [("pi-3", "Pupil 3"), ("new", "")]


def test_without_a_file_flags_are_all() -> None:
    loaded = from_flags(shack={"address": "10.0.0.1", "services": []})
    assert loaded.name == "pi-03"
    node = loaded.nodes[0]
    assert node.docker.insecure_registries == ()
    assert node.cluster.enabled
    assert node.cluster.consul_image == "dduportal/arm-consul:0.5.0"


def test_no_shack_no_cluster() -> None:
    assert not from_flags().nodes[0].cluster.enabled
    with pytest.raises(SettingsError, match="there is no shack"):
        from_flags(cluster={"enabled": True})


@pytest.mark.parametrize(
    ("consul", "version"),
    [
        ({"image": "consul:1.15.4"}, "1.15.4"),
        ({"image": "my/consul:v0.7.2-arm"}, "0.7.2"),
        ({"image": "a.b:5000/consul"}, "0.5.0"),
        ({"image": "consul:1.15.4", "version": "1.15"}, "1.15"),
        ({}, "0.5.0"),
    ],
)
def test_the_version_follows_the_tag(consul: dict[str, str], version: str) -> None:
    assert from_flags(cluster={"consul": consul}).nodes[0].cluster.consul_version == version


def test_tls_moves_the_port_unless_it_is_said() -> None:
    assert from_flags(docker={"tls": True}).nodes[0].docker.port == 2376
    assert from_flags(docker={"tls": True, "port": 2375}).nodes[0].docker.port == 2375


@pytest.mark.parametrize(
    ("network", "node", "address"),
    [
        ({"subnet": "10.1.0.0/16"}, "10.1.2.3", "10.1.2.3/16"),
        ({"subnet": "10.1.0.0/16"}, "10.1.2.3/20", "10.1.2.3/20"),
        ({}, "10.1.2.3", "10.1.2.3/24"),
        ({}, "fd00::5", "fd00::5/64"),
        ({"address": "10.1.2.9/24"}, None, "10.1.2.9/24"),
    ],
)
def test_addresses_get_their_prefix(
    network: dict[str, str], node: str | None, address: str
) -> None:
    said = {"hostname": "pi-03", **({"address": node} if node else {})}
    assert from_flags(network=network, nodes=[said]).nodes[0].network.address == address


# ---- secrets


def test_a_psk_of_64_hex_digits_is_no_passphrase(classroom: WrittenClassroom) -> None:
    classroom.environment["CLASS_WIFI"] = "ABCDEF01" * 8
    network = classroom.write(CONTRACT).load().nodes[0].wifi.networks[0]
    assert network.passphrase is None
    assert network.psk == Secret("abcdef01" * 8)


@pytest.mark.parametrize("text", ["short77", "x" * 64, "g" + "0" * 63, "é" * 32, "tab\tin it"])
def test_no_passphrase(classroom: WrittenClassroom, text: str) -> None:
    classroom.environment["CLASS_WIFI"] = text
    refusal = classroom.write(CONTRACT).refusal()
    assert "passphrase" in refusal.problems[0].message
    assert refusal.problems[0].line == 4
    assert text not in str([(p.message, p.hint) for p in refusal.problems])


@pytest.mark.parametrize("text", ["12345678", "x" * 63, "パスワード123", "a'b\"$`\\/& é"])
def test_passphrases_arrive_unchanged(classroom: WrittenClassroom, text: str) -> None:
    classroom.environment["CLASS_WIFI"] = text
    assert classroom.write(CONTRACT).load().nodes[0].wifi.networks[0].passphrase == Secret(text)


def test_a_secret_file_that_is_no_text_is_named_with_its_line(classroom: WrittenClassroom) -> None:
    wifi = "{country: FR, networks: [{ssid: a, passphrase: {file: wbin}}]}"
    classroom.write(f"profile: armv7\nwifi: {wifi}\nnodes: [{{hostname: pi}}]\n")
    secret = classroom.folder / "wbin"
    secret.write_bytes(b"\nhunter22\xff")
    (problem,) = classroom.refusal().problems
    assert problem.message.endswith(f"{secret}:2: the file is not UTF-8")
    assert problem.hint == "save the file as UTF-8"
    assert problem.line == 2


def test_a_secret_file_loses_its_newline_only(classroom: WrittenClassroom) -> None:
    text = "wifi: {networks: [{ssid: a, passphrase: {file: wifi.txt}}]}"
    (classroom.folder / "wifi.txt").write_bytes(b" with blanks \r\n")
    assert one(classroom, text).wifi.networks[0].passphrase == Secret(" with blanks ")


def test_prompts_are_asked_once_each(classroom: WrittenClassroom) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "long enough"

    classroom.write(
        """\
profile: armv7
wifi: {networks: [{ssid: a, passphrase: {prompt: true}}, {ssid: b, passphrase: {prompt: true}}]}
user: {name: pupil, password: {prompt: "The pupils' password"}}
nodes: [{hostname: 'pi-[1-9]'}]
"""
    ).load(ask=ask)
    assert asked == ["passphrase of wifi `a`", "passphrase of wifi `b`", "The pupils' password"]


def test_prompts_need_somebody(classroom: WrittenClassroom) -> None:
    classroom.write(
        "profile: armv7\nuser: {name: a, password: {prompt: true}}\nnodes: [{hostname: a}]\n"
    )
    assert "there is no terminal" in classroom.refusal().problems[0].message


def test_a_missing_variable_is_an_error_to_build_and_a_warning_to_check(
    classroom: WrittenClassroom,
) -> None:
    classroom.environment.clear()
    classroom.write(CONTRACT)
    assert [p.line for p in classroom.refusal().problems] == [4]
    assert not classroom.errors()
    assert any("$CLASS_WIFI is not set" in line for line in classroom.said())


def test_a_variable_that_sudo_dropped_is_named_as_such(classroom: WrittenClassroom) -> None:
    classroom.environment.clear()
    classroom.environment["SUDO_UID"] = "1000"
    classroom.write(CONTRACT)
    (problem,) = classroom.refusal().problems
    assert "sudo --preserve-env=CLASS_WIFI" in problem.hint


def test_a_password_is_hashed_as_openssl_does(classroom: WrittenClassroom) -> None:
    need("openssl")
    classroom.environment["PASSWORD"] = "pa$$ wörd'"
    user = one(classroom, "user: {name: pupil, password: {env: PASSWORD}, groups: [docker]}").user
    assert user is not None
    assert user.password_hash is not None
    hashed = user.password_hash.reveal()
    salt = hashed.split("$")[2]
    assert run("openssl", "passwd", "-6", "-salt", salt, "pa$$ wörd'").strip() == hashed
    assert user.groups == ("docker",)


def test_a_salt_says_nothing_of_the_password() -> None:
    def salt(password: str, context: str) -> str:
        return hash_password(Secret(password), context).reveal().split("$")[2]

    assert salt("one", "a") == salt("two", "a") != salt("one", "b")


def test_a_node_may_have_a_hash_where_the_class_has_a_password(classroom: WrittenClassroom) -> None:
    hashed = "$6$salt$" + "x" * 86
    classroom.environment["P"] = "x"
    classroom.write(
        "profile: armv7\nuser: {name: pupil, password: {env: P}}\n"
        f"nodes: [{{hostname: a, user: {{password_hash: '{hashed}'}}}}]\n"
    )
    user = classroom.load().nodes[0].user
    assert user is not None
    assert (user.name, user.password_hash) == ("pupil", Secret(hashed))


def test_a_consul_key_is_a_secret(classroom: WrittenClassroom) -> None:
    key = classroom.environment["KEY"] = "cg8StVXbQJ0gPvMd9o7yrg=="
    text = "shack: {address: 10.0.0.1}\ncluster: {consul: {encrypt: {env: KEY}}}"
    node = one(classroom, text)
    assert node.cluster.consul_encrypt == Secret(key)
    assert key not in repr(node)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "0 bytes"),
        ("hunter2", "is not base64"),
        ("aHVudGVyMg==", "has 7 bytes"),
        ("cg8StVXbQJ0gPvMd9o7yrg", "is not base64"),
        ("cg8StVXbQJ0gPvMd9o7yré==", "is not base64"),
    ],
)
def test_a_key_that_consul_refuses(classroom: WrittenClassroom, key: str, words: str) -> None:
    classroom.environment["KEY"] = key
    classroom.write(
        "profile: armv7\nshack: {address: 10.0.0.1}\nnodes: [{hostname: a}]\n"
        "cluster: {consul: {encrypt: {env: KEY}}}\n"
    )
    (problem,) = classroom.refusal().problems
    assert problem.line == 4
    assert words in problem.message
    assert not key or key not in f"{problem} {problem.hint}"


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize(
    ("node", "shack", "takes"),
    [
        ("0.5.0", "consul:1.15.4", (16,)),
        ("0.5.2", "consul:1.15.4", (16,)),
        ("0.6.0", "consul:1.15.4", (16, 24, 32)),
        ("1.8.7", "dduportal/arm-consul:0.5.0", (16,)),
        ("1.8.7", "consul:latest", (16, 24, 32)),
    ],
)
def test_a_key_is_as_long_as_every_consul_takes_it(
    classroom: WrittenClassroom, size: int, node: str, shack: str, takes: tuple[int, ...]
) -> None:
    """`consul keygen` of 1.x makes 32 bytes, at which 0.5.0 stops: key size must be 16 bytes."""
    classroom.environment["KEY"] = base64.b64encode(bytes(size)).decode()
    classroom.write(
        f"profile: armv7\nshack: {{address: 10.0.0.1, images: {{consul: '{shack}'}}}}\n"
        "nodes: [{hostname: a}]\nallow: [no-cluster]\n"
        f"cluster: {{consul: {{image: x/consul, version: '{node}', encrypt: {{env: KEY}}}}}}\n"
    )
    if size in takes:
        assert classroom.load().nodes
    else:
        (problem,) = classroom.refusal().problems
        assert f"has {size} bytes" in problem.message
        assert "needs 16" in problem.message


def test_the_hint_makes_a_key_for_consul(classroom: WrittenClassroom) -> None:
    need("base64", "head")
    classroom.environment["KEY"] = run("sh", "-c", "head -c16 /dev/urandom | base64").rstrip()
    one(classroom, "shack: {address: 10.0.0.1}\ncluster: {consul: {encrypt: {env: KEY}}}")


@pytest.mark.parametrize("typed", ["hunter2!secret", "$CLASS_WIFI", "9hunter2", "correct hunter2"])
def test_a_secret_typed_for_the_name_of_a_variable_is_not_shown(
    classroom: WrittenClassroom, typed: str
) -> None:
    classroom.write(
        "profile: armv7\nnodes: [{hostname: a}]\nwifi:\n  country: FR\n  networks:\n"
        f"    - {{ssid: a, passphrase: {{env: '{typed}'}}}}\n"
    )
    for problems in (classroom.refusal().problems, classroom.check()):
        (problem,) = (problem for problem in problems if problem.severe)
        assert problem.line == 6
        assert problem.hint == "use the name without $, for example {env: CLASS_WIFI}"
        assert typed not in str(problem)


@pytest.mark.parametrize(
    ("template", "words"),
    [(b"\n{% if %}", "a.txt.j2:2: "), (b"\xff", "not UTF-8"), (b"{{ room }}", "")],
)
def test_a_check_compiles_templates(
    classroom: WrittenClassroom, template: bytes, words: str
) -> None:
    (classroom.folder / "mine").mkdir()
    (classroom.folder / "mine" / "a.txt.j2").write_bytes(template)
    classroom.write("profile: armv7\nnodes: [{hostname: 'a[1-3]'}]\noverlays: mine\n")
    found = classroom.errors()
    assert len(found) == bool(words)
    assert all(line.startswith("3 error: overlays[0]: ") and words in line for line in found)


@pytest.mark.parametrize("password", ["", "two\nlines"])
def test_no_password(classroom: WrittenClassroom, password: str) -> None:
    classroom.environment["P"] = password
    classroom.write("profile: armv7\nuser: {name: a, password: {env: P}}\nnodes: [{hostname: a}]\n")
    assert "several lines" in classroom.refusal().problems[0].message


def test_no_secret_is_shown_by_a_classroom(classroom: WrittenClassroom) -> None:
    text = "user: {name: a, password: hunter2}\nwifi: {networks: [{ssid: a, passphrase: hunter22}]}"
    assert "hunter2" not in repr(one(classroom, text))
    assert "hunter2" not in str(classroom.check())


# ---- files


def test_ssh_keys_of_files_and_text(classroom: WrittenClassroom) -> None:
    need("ssh-keygen")
    for name in ("one", "two"):
        run(
            "ssh-keygen", "-qt", "ed25519", "-N", "", "-C", name, "-f", str(classroom.folder / name)
        )
    one_, two = ((classroom.folder / f"{name}.pub").read_text() for name in ("one", "two"))
    (classroom.folder / "authorized_keys").write_text(f"# class\n{one_}\n{two}")
    text = f"ssh_keys: [{{file: authorized_keys}}, '{two.strip()}']"
    assert one(classroom, text).ssh_keys == (one_.strip(), two.strip())
    classroom.write("profile: armv7\nssh_keys: [{file: one}]\nnodes: [{hostname: a}]\n")
    assert "private key" in classroom.refusal().problems[0].message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("ssh_keys: [{file: gone.pub}]", 2, "no such file"),
        ("overlays: [gone]", 2, "no folder"),
        ("cluster: {tarballs: [gone.tar]}", 2, "no file"),
        ("user: {name: a, password: {file: gone}}", 2, "no such file"),
        ("user: {groups: [a]}", 2, "has no name"),
        ("image: hypriotos-1.12.33", 2, "no base image"),
        ("profile: armv8", 2, "twice"),
    ],
)
def test_what_is_not_there_has_its_line(
    classroom: WrittenClassroom, text: str, line: int, words: str
) -> None:
    classroom.write(f"profile: armv7\n{text}\nnodes: [{{hostname: 'a[1-3]'}}]\n")
    problems = classroom.refusal().problems
    assert [problem.line for problem in problems] == [line]
    assert words in problems[0].message


def test_overlays_and_tarballs(classroom: WrittenClassroom) -> None:
    (classroom.folder / "mine").mkdir()
    (classroom.folder / "a.tar").touch()
    node = one(classroom, "overlays: mine\ncluster: {tarballs: [a.tar]}")
    assert node.overlays == (classroom.folder / "mine",)
    assert node.cluster.tarballs == (str(classroom.folder / "a.tar"),)


def test_the_same_file_gives_equal_settings(classroom: WrittenClassroom) -> None:
    classroom.write(CONTRACT)
    assert classroom.load() == classroom.load()


# ---- WPA3

PSK_HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("keys", "protocol"),
    [
        ("", "open"),
        ("security: open", "open"),
        ("passphrase: correct horse", "wpa2"),
        ("passphrase: correct horse, security: wpa2", "wpa2"),
        ("passphrase: correct horse, security: wpa3", "wpa3"),
        ("passphrase: correct horse, security: wpa2+wpa3", "wpa2+wpa3"),
        (f"passphrase: {PSK_HEX}, security: wpa2", "wpa2"),
    ],
)
def test_the_security_of_a_network(classroom: WrittenClassroom, keys: str, protocol: str) -> None:
    node = one(classroom, f"wifi: {{country: FR, networks: [{{ssid: lab, {keys}}}]}}")
    assert node.wifi.networks[0].protocol == protocol


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("security: open, passphrase: correct horse", "the open wifi `lab` has a passphrase"),
        ("security: wpa3", "wifi `lab` with wpa3 needs a passphrase"),
        ("security: wpa2", "wifi `lab` with wpa2 needs a passphrase"),
        (f"security: wpa3, passphrase: {PSK_HEX}", "a PSK of 64 hex digits cannot join"),
        (f"security: wpa2+wpa3, passphrase: {PSK_HEX}", "a PSK of 64 hex digits cannot join"),
        ("security: wep, passphrase: correct horse", "security"),
    ],
)
def test_a_security_that_does_not_fit_its_key(
    classroom: WrittenClassroom, keys: str, said: str
) -> None:
    (error,) = classroom.write(
        "profile: armv7\nnodes: [{hostname: pi}]\n"
        f"wifi:\n  country: FR\n  networks:\n    - {{ssid: lab, {keys}}}\n"
    ).errors()
    assert error.startswith("6 error: ")
    assert said in error


@pytest.mark.parametrize(
    ("generation", "fails"),
    [("occidentalis", True), ("device-init", True), ("cloud-init", False), ("firstrun", False)],
)
def test_wpa3_on_a_generation_that_does_not_know_it(
    classroom: WrittenClassroom, generation: str, *, fails: bool
) -> None:
    text = f"""\
profile: armv7
generation: {generation}
allow: [no-login]
nodes: [{{hostname: pi}}]
wifi:
  country: FR
  networks:
    - {{ssid: both, security: wpa2+wpa3, passphrase: correct horse}}
    - {{ssid: lab, security: wpa3, passphrase: correct horse}}
"""
    errors = classroom.write(text).errors()
    said = "9 error: wifi.networks[1].security: the network `lab` is WPA3 only"
    assert [line[: len(said)] for line in errors] == ([said] if fails else [])
