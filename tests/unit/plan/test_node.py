"""Plans: each generation end to end, again over its own result, and what is refused."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.model import (
    RESERVED_VARIABLES,
    Docker,
    OverlayFile,
    User,
    Wifi,
)
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.context import docker_options, secret_variables
from imagebuilder.plan.generations import detect
from tests.lib.plan_samples import (
    BUILD_TIME,
    GENERATION_OF,
    SECRETS,
    STOCK,
    after,
    boot_of,
    full_node,
    generations,
    plain_node,
    plan,
)
from tests.lib.plans import files_of, node_env, node_with, overlay, text_of

# ---- detection


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_partition_is_known(name: str) -> None:
    expected = re.sub(r"-[\d.]+$", "", GENERATION_OF[name])
    assert detect(generations(), boot_of(name)).name == expected


@pytest.mark.parametrize("name", STOCK)
def test_a_card_of_ours_says_what_it_is(name: str) -> None:
    boot = boot_of(name)
    result = after(boot, plan(full_node(), boot))
    assert detect(generations(), result).name == detect(generations(), boot).name


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no known generation"),
        ({"cmdline.txt": b"x", "config.txt": b""}, "no known generation"),
        ({"issue.txt": b"Somebody's Linux"}, "no known generation"),
        ({"occidentalis.txt": b"", "device-init.yaml": b""}, "several generations"),
        ({"device-init.yaml": b"", "user-data": b""}, "several generations"),
        ({"occidentalis.txt": b"", "user-data": b""}, "several generations"),
        ({"occidentalis.txt": b"", "issue.txt": b"pi-gen"}, "several generations"),
    ],
)
def test_an_unsure_guess_is_refused(files: dict[str, bytes], said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        detect(generations(), MemoryBootFiles(files))
    assert "--generation" in caught.value.hint


# ---- what every node gets


def test_docker_options_are_those_of_the_workshop() -> None:
    assert node_env(plan(plain_node(), boot_of("occidentalis")))["DOCKER_OPTS"] == (
        "--storage-driver=overlay -D -H tcp://0.0.0.0:2375 -H unix:///var/run/docker.sock"
        " --label arch=armv7 --insecure-registry 192.168.2.1:5000"
        " --registry-mirror=http://192.168.2.1:5000"
    )


@pytest.mark.parametrize(
    ("stock", "driver"),
    [
        ("occidentalis", "overlay"),
        ("device-init-1.0", "overlay"),
        ("device-init-1.6", "overlay2"),
        ("cloud-init-hypriot", "overlay2"),
        ("cloud-init-trixie", "overlay2"),
        ("firstrun-bookworm", "overlay2"),
    ],
)
def test_the_storage_driver_is_the_images_own_unless_said_otherwise(
    stock: str, driver: str
) -> None:
    def words(docker: Docker) -> list[str]:
        settings = node_with(docker=docker)
        return node_env(plan(settings, boot_of(stock)))["DOCKER_OPTS"].split()

    assert f"--storage-driver={driver}" in words(Docker())
    assert "--storage-driver=btrfs" in words(Docker(storage_driver="btrfs"))
    assert not [w for w in words(Docker(storage_driver="default")) if "storage" in w]


def test_docker_options_with_tls_labels_and_more() -> None:
    docker = Docker(
        storage_driver="overlay2",
        debug=False,
        labels=(("arch", "mine"), ("seat", "3")),
        extra=("--log-level=warn",),
        tls=True,
    )
    assert " ".join(docker_options(node_with(docker=docker))) == (
        "--storage-driver=overlay2 -H tcp://0.0.0.0:2376 -H unix:///var/run/docker.sock"
        " --label arch=armv7 --label seat=3 --tlsverify --tlscacert=/etc/docker/tls/ca.pem"
        " --tlscert=/etc/docker/tls/cert.pem --tlskey=/etc/docker/tls/key.pem --log-level=warn"
    )


@pytest.mark.parametrize("value", ["a b", 'a"b', "a'b", "$HOME", "`x`", "a\\b", "a\nb"])
def test_docker_options_that_the_init_systems_would_break_are_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="Docker option"):
        docker_options(node_with(docker=Docker(labels=(("note", value),))))


def test_node_env_holds_what_the_scripts_read() -> None:
    planned = plan(full_node(), boot_of("occidentalis"))
    values = node_env(planned)
    assert values["RPI_IMAGE_HASH"] == planned.config_hash
    assert values["RPI_IMAGE_BUILT"] == str(BUILD_TIME)
    assert values["USER_PASSWORD_HASH"] == "$6$salt$abc.DEF/ghi"
    assert values["USER_GROUPS"] == "docker sudo"
    assert (values["DOCKER_TLS"], values["DOCKER_PORT"], values["UPGRADE"]) == ("1", "2376", "1")
    assert values["REGISTRY_ADDRESS"] == "192.168.2.1:5000"
    assert (values["CLUSTER"], values["SHACK_KIND"]) == ("1", "classic")


def test_a_login_without_groups_gets_the_usual_ones() -> None:
    values = node_env(plan(node_with(user=User("teacher")), boot_of("occidentalis")))
    assert values["USER_GROUPS"] == "sudo docker video"


def test_without_a_shack_there_is_no_cluster() -> None:
    values = node_env(plan(node_with(shack=None, docker=Docker()), boot_of("occidentalis")))
    assert (values["CLUSTER"], values["SHACK_ADDRESS"], values["REGISTRY_ADDRESS"]) == ("0", "", "")


def test_files_that_are_not_needed_are_not_there() -> None:
    node = node_with(wifi=Wifi())
    names = set(files_of(plan(node, boot_of("firstrun-bookworm"))))
    assert {name for name in names if name.startswith("rpi-image/")} == {
        "rpi-image/install",
        "rpi-image/made.json",
        "rpi-image/node",
        "rpi-image/node.env",
    }


def test_networks_rank_by_priority_and_then_as_written() -> None:
    text = text_of(plan(full_node(), boot_of("occidentalis")), "rpi-image/wifi/wpa_supplicant.conf")
    assert re.findall(r"priority=(\d)", text) == ["2", "3", "1"]
    assert text.count("scan_ssid=1") == 1
    assert text.count("key_mgmt=NONE") == 1


def test_host_keys_and_tls_files_arrive_as_they_are() -> None:
    files = files_of(plan(full_node(), boot_of("occidentalis")))
    assert files["rpi-image/ssh/ssh_host_ed25519_key"] == b"PRIVATE\n"
    assert files["rpi-image/ssh/ssh_host_ed25519_key.pub"] == b"ssh-ed25519 AAAA root@pi-03\n"
    assert files["rpi-image/tls/key.pem"] == b"KEY-PEM\n"


# ---- the user's own files


def test_a_file_is_laid_over_as_it_is() -> None:
    planned = plan(plain_node(), boot_of("occidentalis"), overlay("docs/{{x}}.txt", "{{ raw }}"))
    assert files_of(planned)["docs/{{x}}.txt"] == b"{{ raw }}"


def test_a_template_knows_the_node_and_the_variables() -> None:
    node = node_with(variables=(("room", "B 12"), ("a-b", "c")), seat="4")
    source = (
        "{{ node.hostname }} {{ node.shack.address }} {{ room }} {{ vars['a-b'] }} {{ node.seat }}"
    )
    planned = plan(node, boot_of("occidentalis"), overlay("rpi-image/scripts/10-x.j2", source))
    assert text_of(planned, "rpi-image/scripts/10-x") == "pi-03 192.168.2.1 B 12 c 4"


@pytest.mark.parametrize(
    "source",
    [
        "{{ networks }}",
        "{{ user_password_hash }}",
        "{{ consul_encrypt }}",
        "{{ tls.key }}",
        "{{ boot_yaml('user-data') }}",
        "{{ node.wifi.networks[0].psk }}",
        "{{ host_keys }}",
    ],
)
def test_a_template_of_the_users_sees_no_secret(source: str) -> None:
    with pytest.raises(SettingsError, match=r"mine/x\.j2:1: "):
        plan(full_node(), boot_of("occidentalis"), overlay("x.j2", source))


def test_nothing_that_a_template_sees_as_node_is_secret() -> None:
    planned = plan(full_node(), boot_of("occidentalis"), overlay("x.j2", "{{ node }}{{ fact }}"))
    assert not [secret for secret in SECRETS if secret in text_of(planned, "x")]


def test_an_unknown_variable_is_an_error_with_its_place() -> None:
    with pytest.raises(SettingsError, match=r"mine/x\.j2:2: .*\broom\b") as caught:
        plan(plain_node(), boot_of("occidentalis"), overlay("x.j2", "\n{{ room }}"))
    assert "--set" in caught.value.hint


def test_every_secret_fact_counts_as_taken() -> None:
    assert secret_variables(full_node(), plaintext=False).keys() < RESERVED_VARIABLES


@pytest.mark.parametrize("name", sorted(RESERVED_VARIABLES))
def test_a_variable_cannot_hide_what_templates_know(name: str) -> None:
    with pytest.raises(SettingsError, match="is reserved"):
        plan(node_with(variables=((name, "x"),)), boot_of("occidentalis"))


def test_a_file_of_the_users_wins_and_that_is_said() -> None:
    planned = plan(
        plain_node(), boot_of("device-init-1.0"), overlay("Device-Init.yaml", "hostname: mine\n")
    )
    assert files_of(planned)["Device-Init.yaml"] == b"hostname: mine\n"
    assert "device-init.yaml" not in files_of(planned)
    assert planned.warnings == ("mine/Device-Init.yaml replaces a file of generation device-init",)


def test_a_cmdline_of_the_users_still_gets_the_hook() -> None:
    planned = plan(plain_node(), boot_of("occidentalis"), overlay("cmdline.txt", "mine=1\r\n"))
    assert text_of(planned, "cmdline.txt").startswith('mine=1 init=/bin/sh -c "')


def test_lines_for_config_txt_and_words_for_the_kernel_are_added() -> None:
    planned = plan(
        plain_node(),
        boot_of("cloud-init-trixie"),
        overlay("config.txt.append", "gpu_mem=16\ndtparam=audio=on\n"),
        overlay("cmdline.txt.append.j2", "quiet\n\nroom={{ node.hostname }}\n"),
    )
    assert text_of(planned, "config.txt") == (
        "dtparam=audio=on\n\n[cm4]\notg_mode=1\n[all]\ngpu_mem=16\n"
    )
    assert " resize quiet room=pi-03 " in text_of(planned, "cmdline.txt")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (b"# caf\xe9\nx=1\n", b"# caf\xe9\nx=1\n"),
        (b"\xef\xbb\xbfx=caf\xe9\r\n", b"x=caf\xe9\n"),
        ("\ufeffx=café".encode(), "x=café\n".encode()),
    ],
)
def test_texts_to_append_may_have_any_encoding(given: bytes, line: bytes) -> None:
    boot = boot_of("cloud-init-trixie")
    extra = [OverlayFile(f"{path}.append", given, path) for path in ("config.txt", "cmdline.txt")]
    first = plan(plain_node(), boot, *extra)
    assert files_of(first)["config.txt"].endswith(b"[all]\n" + line)
    assert b" resize " + line.split(b"\n")[-2] + b" cgroup" in files_of(first)["cmdline.txt"]
    assert files_of(plan(plain_node(), after(boot, first), *extra)) == files_of(first)
    assert first.config_hash != plan(plain_node(), boot).config_hash


def test_a_text_of_two_bytes_a_letter_cannot_be_appended() -> None:
    extra = OverlayFile("cmdline.txt.append", "quiet".encode("utf-16"), "mine/cmdline.txt.append")
    with pytest.raises(
        SettingsError, match=r"mine/cmdline.txt.append is not a text file"
    ) as caught:
        plan(plain_node(), boot_of("occidentalis"), extra)
    assert "UTF-8" in caught.value.hint


@pytest.mark.parametrize("words", ["quiet", "quiet splash", "#\nroot=/dev/sda2", "console=x"])
@pytest.mark.parametrize("name", STOCK)
def test_words_for_the_kernel_come_and_go_without_a_trace(name: str, words: str) -> None:
    boot, extra = boot_of(name), overlay("cmdline.txt.append", words)
    card = after(boot, plan(plain_node(), boot, extra))
    line = card.read("cmdline.txt").decode().split()
    assert {line.count(word) for word in words.removeprefix("#").split()} == {1}
    again = after(card, plan(plain_node(), card, extra))
    assert dict(again.files) == dict(card.files)
    without = after(card, plan(plain_node(), card))
    fresh = after(boot, plan(plain_node(), boot))
    assert without.read("cmdline.txt").split() == fresh.read("cmdline.txt").split()
    assert without.exists("rpi-image/made.json") == fresh.exists("rpi-image/made.json")


def test_a_cmdline_of_the_users_is_not_searched_for_words_of_an_earlier_plan() -> None:
    boot = boot_of("cloud-init-trixie")
    card = after(boot, plan(plain_node(), boot, overlay("cmdline.txt.append", "quiet root=x")))
    planned = plan(plain_node(), card, overlay("cmdline.txt", "root=y quiet"))
    assert text_of(planned, "cmdline.txt").startswith(
        "root=y quiet cgroup_enable=memory cgroup_memory=1 cfg80211"
    )


def test_a_record_of_an_earlier_version_is_read() -> None:
    record = b'{"files": ["mine.txt"], "cmdline": ["quiet splash", "ds=nocloud;i=old"]}'
    line = STOCK["cloud-init-trixie"]["cmdline.txt"].strip() + b" quiet splash ds=nocloud;i=old"
    old = {"rpi-image/made.json": record, "cmdline.txt": line, "mine.txt": b"x"}
    boot = boot_of("cloud-init-trixie")
    card = boot_of("cloud-init-trixie", **old)
    assert dict(after(card, plan(plain_node(), card)).files) == dict(
        after(boot, plan(plain_node(), boot)).files
    )


def test_lines_added_by_an_earlier_plan_are_not_added_again() -> None:
    boot = boot_of("cloud-init-trixie")
    extra = overlay("config.txt.append", "gpu_mem=16\n"), overlay("cmdline.txt.append", "quiet")
    first = plan(plain_node(), boot, *extra)
    assert files_of(plan(plain_node(), after(boot, first), *extra)) == files_of(first)


def test_own_files_of_an_earlier_plan_go_and_the_vendors_come_back() -> None:
    boot = boot_of("occidentalis", LICENCE_txt=b"vendor")
    mine = overlay("mine.txt", "x"), overlay("LICENCE.txt", "replaced")
    card = after(boot, plan(plain_node(), boot, *mine))
    assert dict(after(card, plan(plain_node(), card)).files) == dict(
        after(boot, plan(plain_node(), boot)).files
    )


@pytest.mark.parametrize("name", ["a:b.txt", "con?.txt", "../escape", "/etc/passwd", "x."])
def test_names_that_fat_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="name"):
        plan(plain_node(), boot_of("occidentalis"), overlay(name, "x"))


def test_a_file_cannot_be_a_folder() -> None:
    with pytest.raises(SettingsError, match="is a file, but mine/a/b needs a folder"):
        plan(plain_node(), boot_of("occidentalis"), overlay("a", "x"), overlay("a/b", "x"))


def test_a_binary_file_may_not_be_a_template() -> None:
    file = OverlayFile("x.bin.j2", b"\xff\xfe", "mine/x.bin.j2")
    with pytest.raises(SettingsError, match="is a template but not UTF-8"):
        plan(plain_node(), boot_of("occidentalis"), file)


def test_a_record_that_is_broken_counts_as_none() -> None:
    for broken in (b"{", b"[]", b'{"files": 3}', b"\xff"):
        boot = boot_of("occidentalis", **{"rpi-image/made.json": broken})
        planned = plan(plain_node(), boot)
        assert json.loads(files_of(planned)["rpi-image/made.json"])["files"] == []


TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(
    lambda text: "\x7f" not in text
)


@settings(max_examples=80, deadline=None)
@given(TEXTS)
def test_any_value_arrives_in_shell_and_yaml(value: str) -> None:
    node = node_with(variables=(("v", value),))
    source = "V={{ v | sh }}\n"
    planned = plan(
        node,
        boot_of("occidentalis"),
        overlay("v.sh.j2", source),
        overlay("v.yml.j2", "{{ v | yaml }}"),
    )
    assert shlex.split(text_of(planned, "v.sh")) == [f"V={value}"]
    assert yaml.safe_load(text_of(planned, "v.yml")) == value


# ---- scripts from Windows


@pytest.mark.parametrize(
    ("path", "text", "planned"),
    [
        ("rpi-image/first-boot/a.sh", b"#!/bin/sh\r\necho a\r\n", b"#!/bin/sh\necho a\n"),
        ("rpi-image/scripts/a", b"echo a\r\n", b"echo a\n"),
        ("rpi-image/scripts/a", b"\xef\xbb\xbfecho a\n", b"echo a\n"),
        ("tool/a.py", b"#!/usr/bin/python3\r\nprint()\r\n", b"#!/usr/bin/python3\nprint()\n"),
        ("tool/a", b"\xef\xbb\xbf#!/bin/sh\r\n", b"#!/bin/sh\n"),
        ("tool/a", b"#!/bin/sh\r", b"#!/bin/sh"),
        ("rpi-image/first-boot/a.j2", b"#!/bin/sh\r\n{{ node.arch }}\r\n", b"#!/bin/sh\narmv7\n"),
    ],
)  # fmt: skip
def test_scripts_of_windows_run_on_the_pi(path: str, text: bytes, planned: bytes) -> None:
    made = plan(plain_node(), boot_of("occidentalis"), OverlayFile(path, text, f"mine/{path}"))
    assert files_of(made)[path.removesuffix(".j2")] == planned
    assert [warning for warning in made.warnings if f"mine/{path}" in warning and "CRLF" in warning]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("notes.txt", b"one\r\ntwo\r\n"),
        ("rpi-image/scripts/a.sh", b"#!/bin/sh\necho a\n"),
        ("tool/a", b"#!/bin/sh\r\n\0binary\r\n"),
    ],
)
def test_what_is_no_script_of_windows_stays_as_it_is(path: str, text: bytes) -> None:
    made = plan(plain_node(), boot_of("occidentalis"), OverlayFile(path, text, path))
    assert files_of(made)[path] == text
    assert not made.warnings


def test_a_script_in_utf_16_is_refused() -> None:
    script = OverlayFile("rpi-image/scripts/a.sh", "#!/bin/sh\n".encode("utf-16"), "mine/a.sh")
    with pytest.raises(SettingsError, match=r"mine/a\.sh is UTF-16"):
        plan(plain_node(), boot_of("occidentalis"), script)
