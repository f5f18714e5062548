"""What each kind of value takes and refuses, and how refusals are said."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.model import HOSTNAME
from imagebuilder.settings.schema.diagnostics import Diagnostic, did_you_mean, dotted
from imagebuilder.settings.schema.documents import (
    ClassroomDocument,
    ProfileDocument,
    classify_image,
    parse_document,
)
from imagebuilder.settings.schema.fields import COUNTRIES
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from imagebuilder.settings.schema.base import Document

FOLDER = Path("/class")


def parse(data: object, model: type[Document] = ClassroomDocument) -> Any:
    document, diagnostics = parse_document(model, data, folder=FOLDER, home="/home/ann")
    assert not diagnostics
    return document


def faults(data: object, model: type[Document] = ClassroomDocument) -> tuple[Diagnostic, ...]:
    document, diagnostics = parse_document(model, data, folder=FOLDER)
    assert (document is None) == bool(diagnostics)
    return diagnostics


def fault(data: object) -> Diagnostic:
    diagnostics = faults(data)
    assert len(diagnostics) == 1, diagnostics
    return diagnostics[0]


@pytest.mark.parametrize("name", ["a", "pi-01", "0123", "no", "a" * 63, "1"])
def test_host_names(name: str) -> None:
    assert parse({"nodes": [{"hostname": name}]}).nodes[0].hostname == name


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("Pi-03", "pi-03"),
        ("pi_03", "pi-03"),
        ("-pi-", "pi"),
        ("pi.local", "pi-local"),
        ("a" * 64, "a" * 63),
        ("Ünïx", "n-x"),
    ],
)
def test_wrong_host_names_get_a_better_one(name: str, better: str) -> None:
    found = fault({"nodes": [{"hostname": name}]})
    assert found.loc == ("nodes", 0, "hostname")
    assert found.hint == f"use `{better}`"


def test_every_machine_is_localhost_already() -> None:
    assert "is reserved" in fault({"nodes": [{"hostname": "localhost"}]}).message


@pytest.mark.parametrize("name", ["", "-", "ñ"])
def test_host_names_beyond_help(name: str) -> None:
    assert fault({"nodes": [{"hostname": name}]}).hint == "use a name like `pi-01`"


MIRRORS = (
    "http://10.0.0.1:5001/v2/",
    "http://mirror.local?a=b",
    "http://mirror.local/#a",
    "https://ann:hunter2@mirror.local",
)


def dockerd_refuses(option: str) -> bool:
    """Ask dockerd about an option; it stops at the first that is wrong, here the last at most."""
    need("dockerd")
    command = ["dockerd", option, "--label=nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "invalid argument" in done.stderr
    return "nonsense" not in done.stderr


@pytest.mark.parametrize("mirror", MIRRORS)
def test_a_mirror_that_stops_dockerd_is_refused(mirror: str) -> None:
    found = fault({"docker": {"registry_mirrors": [mirror]}})
    assert found.message == "a mirror has only host and port"
    assert "hunter2" not in str(found)
    if "#" not in mirror:  # only dockerds before 19.03 mind an empty path with a fragment
        assert dockerd_refuses(f"--registry-mirror={mirror}")


@pytest.mark.parametrize("mirror", ["http://10.0.0.1:5001", "https://m.local", "http://[::1]:5"])
def test_mirrors_that_dockerd_takes(mirror: str) -> None:
    for said in (mirror, mirror + "/"):
        assert parse({"docker": {"registry_mirrors": [said]}}).docker.registry_mirrors == (mirror,)
    assert not dockerd_refuses(f"--registry-mirror={mirror}")


def test_a_reserved_label_stops_dockerd_and_is_refused() -> None:
    assert "reserved" in fault({"docker": {"labels": {"com.docker.a": "1"}}}).message
    assert dockerd_refuses("--label=com.docker.a=1")
    parse({"docker": {"labels": {"com.dockers.a": "1"}}})


def test_storage_drivers_get_a_suggestion() -> None:
    assert fault({"docker": {"storage_driver": "overlay2s"}}).hint == "did you mean `overlay2`?"
    parse({"docker": {"storage_driver": "default"}})


@given(st.text(max_size=70))
def test_a_better_host_name_is_a_host_name(text: str) -> None:
    diagnostics = faults({"nodes": [{"hostname": text}]})
    if diagnostics and diagnostics[0].hint.startswith("use `"):
        better = diagnostics[0].hint.removeprefix("use `").removesuffix("`")
        assert HOSTNAME.fullmatch(better)


@pytest.mark.parametrize(("ssid", "good"), [("é" * 16, True), ("é" * 17, False), ("📶" * 8, True)])
def test_an_ssid_is_counted_in_bytes(ssid: str, *, good: bool) -> None:
    found = faults({"wifi": {"networks": [{"ssid": ssid}]}})
    assert (not found) == good


@pytest.mark.parametrize(
    ("data", "loc", "words"),
    [
        ({"wifi": {"networks": [{"ssid": ""}]}}, "wifi.networks[0].ssid", "0 bytes in UTF-8"),
        ({"wifi": {"networks": [{"ssid": "a\nb"}]}}, "wifi.networks[0].ssid", "newline"),
        ({"wifi": {"networks": [{}]}}, "wifi.networks[0].ssid", "missing"),
        ({"wifi": {"networks": {"ssid": "a"}}}, "wifi.networks", "expected a list"),
        ({"wifi": "shack"}, "wifi", "expected a mapping"),
        ({"wifi": {"country": "XX"}}, "wifi.country", "not a country"),
        ({"shack": {"address": "shack.local"}}, "shack.address", "not an IP address"),
        ({"shack": {"kind": "k8s"}}, "shack.kind", "'classic' or 'swarm-mode'"),
        ({"shack": {"ports": {"consul": "0"}}}, "shack.ports.consul", "not a port"),
        ({"shack": {"ports": {"consul": "x"}}}, "shack.ports.consul", "whole number"),
        ({"shack": {"services": ["dns"]}}, "shack.services[0]", "'registry'"),
        ({"network": {"address": "192.168.2.300"}}, "network.address", "not an IP address"),
        ({"network": {"address": "192.168.2.3/33"}}, "network.address", "not an IP address"),
        ({"network": {"subnet": "192.168.2.1/24"}}, "network.subnet", "not a subnet"),
        ({"network": {"subnet": "wlan"}}, "network.subnet", "not a subnet"),
        ({"network": {"dhcp_range": "10.0.0.9-10.0.0.1"}}, "network.dhcp_range", "not an address"),
        ({"network": {"dns": ["a"]}}, "network.dns[0]", "not an IP address"),
        ({"network": {"interface": "eth 0"}}, "network.interface", "not a network interface"),
        ({"docker": {"labels": {"a": "b c"}}}, "docker.labels.a", "has a space"),
        ({"docker": {"labels": {"a": "$x"}}}, "docker.labels.a", "has a space"),
        ({"docker": {"labels": {"a=b": "c"}}}, "docker.labels", "not a label name"),
        ({"docker": {"port": "70000"}}, "docker.port", "not a port"),
        ({"docker": {"storage_driver": "overlay3"}}, "docker.storage_driver", "no storage driver"),
        ({"docker": {"debug": "maybe"}}, "docker.debug", "true or false"),
        ({"docker": {"extra": ["--mtu 1400"]}}, "docker.extra[0]", "has a space"),
        (
            {"docker": {"insecure_registries": ["http://a:1"]}},
            "docker.insecure_registries[0]",
            "URL",
        ),
        (
            {"docker": {"insecure_registries": ["a:" + "9" * 5000]}},
            "docker.insecure_registries[0]",
            "HOST:PORT",
        ),
        ({"docker": {"insecure_registries": ["a"]}}, "docker.insecure_registries[0]", "HOST:PORT"),
        ({"docker": {"registry_mirrors": ["a:1"]}}, "docker.registry_mirrors[0]", "URL"),
        ({"docker": {"registry_mirrors": ["http://:5"]}}, "docker.registry_mirrors[0]", "URL"),
        ({"docker": {"registry_mirrors": ["http://a:0"]}}, "docker.registry_mirrors[0]", "URL"),
        ({"docker": {"registry_mirrors": ["http://[::1"]}}, "docker.registry_mirrors[0]", "URL"),
        ({"cluster": {"images": ["Up:1"]}}, "cluster.images[0]", "not a container image"),
        ({"cluster": {"consul": {"version": "new"}}}, "cluster.consul.version", "not a version"),
        ({"cluster": {"swarm": {"path": "a//b"}}}, "cluster.swarm.path", "not a consul path"),
        ({"user": {"name": "Ann"}}, "user.name", "user name"),
        ({"user": {"name": "a", "password_hash": "x"}}, "user.password_hash", "crypt"),
        ({"user": {"groups": ["a b"]}}, "user.groups[0]", "group"),
        ({"ssh_keys": ["ssh-ed25519 AAAA ann"]}, "ssh_keys[0].text", "damaged"),
        ({"ssh_keys": ["hello"]}, "ssh_keys[0].text", "not an SSH public key"),
        ({"ssh_keys": [{}]}, "ssh_keys[0]", "expected a public key"),
        ({"timezone": "here"}, "timezone", "not a time zone"),
        ({"keyboard": "FR!"}, "keyboard", "not a keyboard"),
        ({"locale": "french"}, "locale", "not a locale"),
        ({"apt_proxy": "10.0.0.1:3142"}, "apt_proxy", "URL"),
        ({"set": {"a-b": "c"}}, "set", "not a variable name"),
        ({"set": {"node": "a"}}, "set", "the variable name `node` is reserved"),
        ({"set": {"a": "b\nc"}}, "set.a", "newline"),
        ({"image": {"sha256": "0" * 64}}, "image", "one of name, file and url"),
        ({"image": {"file": "a.img", "sha256": "0" * 63}}, "image.sha256", "64 hex"),
        ({"image": "ftp://a/b.zip"}, "image.file", "http or https"),
        ({"nodes": [{"hostname": "a", "mac": "b8:27"}]}, "nodes[0].mac", "not a MAC"),
        ({"nodes": [{"hostname": "a", "serial": "xyz"}]}, "nodes[0].serial", "not a serial"),
        ({"nodes": ["pi"]}, "nodes[0]", "expected a mapping"),
        ({"nodes": [{"owner": "a"}]}, "nodes[0].hostname", "missing"),
        ("text", "", "expected a mapping"),
    ],
)
def test_refusals_name_the_place_and_the_reason(data: object, loc: str, words: str) -> None:
    found = fault(data)
    assert dotted(found.loc) == loc
    assert words in found.message


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ({"wfii": {}}, "wifi"),
        ({"nodes": [{"hostname": "a", "adress": "1"}]}, "address"),
        ({"cluster": {"consul": {"sever": "yes"}}}, "server"),
        ({"wifi": {"networks": [{"ssid": "a", "password": "b"}]}}, "passphrase"),
        ({"shack": {"port": {}}}, "ports"),
    ],
)
def test_unknown_keys_get_a_suggestion(data: object, hint: str) -> None:
    found = fault(data)
    assert "unknown key" in found.message
    assert found.hint == f"did you mean `{hint}`?"


def test_all_faults_at_once() -> None:
    found = faults({"a": 1, "wifi": {"country": "XX"}, "nodes": [{"hostname": "A"}, {"b": 1}]})
    assert {dotted(one.loc) for one in found} == {
        "a",
        "wifi.country",
        "nodes[0].hostname",
        "nodes[1].hostname",
        "nodes[1].b",
    }


def test_texts_of_yaml_become_what_the_model_wants() -> None:
    document = parse(
        {
            "upgrade": "yes",
            "docker": {"port": "2376", "debug": "off", "labels": {"on": "no"}},
            "set": {"build": "0123"},
        }
    )
    assert document.upgrade is True
    assert (document.docker.port, document.docker.debug) == (2376, False)
    assert document.docker.labels == {"on": "no"}
    assert document.set == {"build": "0123"}


def test_an_empty_section_is_not_set() -> None:
    document = parse({"wifi": None, "docker": {"labels": None}})
    assert document.model_fields_set == {"docker"}
    assert not document.docker.model_fields_set


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_passphrase_is_no_open_network(empty: object) -> None:
    found = fault({"wifi": {"networks": [{"ssid": "a", "passphrase": empty}]}})
    assert "empty" in found.message


@pytest.mark.parametrize(
    "passphrase",
    [
        {"hunter2x": None},
        {"file": "hunter2x", "env": "hunter2x"},
        {"env": "X", "hunter2x": "hunter2x"},
        ["hunter2x"],
        {"env": "hunter2x\n"},
        {"prompt": "no", "hunter2x": 1},
    ],
)
def test_no_fault_of_a_secret_quotes_it(passphrase: object) -> None:
    found = faults({"wifi": {"networks": [{"ssid": "a", "passphrase": passphrase}]}})
    assert found
    assert "hunter2x" not in str(found)


def test_an_inline_secret_hides_in_the_document() -> None:
    document = parse({"user": {"name": "a", "password": "hunter2x"}})
    assert "hunter2x" not in repr(document)
    assert "hunter2x" not in document.model_dump_json()
    assert document.user.password.inline.get_secret_value() == "hunter2x"


@pytest.mark.parametrize(
    ("said", "question"), [(True, ""), ("true", ""), ("yes", ""), ("Who is it?", "Who is it?")]
)
def test_prompts(said: object, question: str) -> None:
    assert parse({"user": {"password": {"prompt": said}}}).user.password.prompt == question


def test_paths_are_against_the_file_or_the_home_folder() -> None:
    document = parse(
        {"overlays": ["a", "/b", "~/c"], "ssh_keys": {"file": "k.pub"}, "image": "x.img"}
    )
    assert document.overlays == (Path("/class/a"), Path("/b"), Path("/home/ann/c"))
    assert document.ssh_keys[0].file == Path("/class/k.pub")
    assert document.image.file == Path("/class/x.img")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hypriotos-1.12.3", "name"),
        ("sample", "name"),
        ("./sample", "file"),
        ("base.img", "file"),
        ("a.img.zip", "file"),
        ("~/x", "file"),
        ("https://example.org/x.zip", "url"),
        ("http://example.org/", "url"),
    ],
)
def test_what_an_image_text_is(text: str, kind: str) -> None:
    assert classify_image(text) == kind


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_of_ssh_keygen(tmp_path: Path, kind: str) -> None:
    need("ssh-keygen")
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "ann lee", "-f", str(tmp_path / "key"))
    public = (tmp_path / "key.pub").read_text().strip()
    document = parse({"ssh_keys": [public, f'from="10.0.0.*" {public}']})
    assert [key.text for key in document.ssh_keys] == [public, f'from="10.0.0.*" {public}']
    private = (tmp_path / "key").read_text()
    found = fault({"ssh_keys": [private]})
    assert "private key" in found.message
    assert private.splitlines()[1] not in str(found)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_damaged_keys_that_ssh_keygen_refuses_too(tmp_path: Path, kind: str) -> None:
    need("ssh-keygen")
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(tmp_path / "key"))
    name, blob, *_ = (tmp_path / "key.pub").read_text().split()
    raw = base64.b64decode(blob)
    head = 4 + len(name)
    for cut in (raw[:-1], raw[:-3], raw[: len(raw) // 2], raw[: head + 4], raw[:head]):
        damaged = f"{name} {base64.b64encode(cut).decode()} ann"
        (tmp_path / "damaged.pub").write_text(damaged)
        assert run("ssh-keygen", "-lf", str(tmp_path / "damaged.pub"), check=False) == ""
        assert "damaged" in fault({"ssh_keys": [damaged]}).message
    more = f"{name} {base64.b64encode(raw + bytes(3)).decode()}"
    assert "damaged" in fault({"ssh_keys": [more]}).message
    several = f"{name} {blob} ann\n{name} {blob} bob\n"
    assert "several lines" in fault({"ssh_keys": several}).message
    parse({"ssh_keys": [f"{name} {blob} ann\n"]})


def test_hashes_of_openssl() -> None:
    need("openssl")
    for kind in ("-1", "-5", "-6"):
        hashed = run("openssl", "passwd", kind, "secret").strip()
        assert parse({"user": {"password_hash": hashed}}).user.password_hash == hashed


@pytest.mark.parametrize(
    ("given_", "kept"),
    [("B8-27-EB-12-34-56", "b8:27:eb:12:34:56"), ("b827.eb12.3456", "b8:27:eb:12:34:56")],
)
def test_mac_addresses_have_one_form(given_: str, kept: str) -> None:
    assert parse({"nodes": [{"hostname": "a", "mac": given_}]}).nodes[0].mac == kept


def test_short_serials_get_zeros() -> None:
    node = parse({"nodes": [{"hostname": "a", "serial": "0xABCDEF01"}]}).nodes[0]
    assert node.serial == "00000000abcdef01"


def test_a_profile_needs_its_arch() -> None:
    missing = {dotted(one.loc) for one in faults({"boards": ["1A"]}, ProfileDocument)}
    assert missing == {"arch", "machines"}


def test_countries_are_all_there() -> None:
    assert len(COUNTRIES) == 249
    assert {"FR", "US", "GB", "ZA", "AX"} <= COUNTRIES


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("armv8", "did you mean `armv7`?"),
        ("x", "one of: armv6, armv7"),
        ("ARMV6", "did you mean `armv6`?"),
    ],
)
def test_suggestions(word: str, hint: str) -> None:
    assert did_you_mean(word, ["armv7", "armv6"]) == hint


@pytest.mark.parametrize(
    "reference",
    [
        "consul",
        "dduportal/arm-consul:0.5.0",
        "registry.example.org/a/b-c:1.0_x",
        "192.168.2.1:5000/arm-redis:0.3.0",
        "a@sha256:" + "0" * 64,
    ],
)
def test_container_images(reference: str) -> None:
    assert parse({"cluster": {"images": [reference]}}).cluster.images == (reference,)
