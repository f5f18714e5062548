"""Generations: parsed from their folders, with hooks that a kernel survives."""

from __future__ import annotations

import re

import pytest

from imagebuilder.errors import SettingsError
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.generations import Condition, Generation, parse_generation
from imagebuilder.plan.templates import compile_template
from tests.lib.plan_samples import boot_of, generations

MINIMAL = "title: x\nwhen: [{exists: a.txt}]\n"


def parsed(text: str) -> Generation:
    return parse_generation(text, "demo", "demo/generation.yml")


def test_the_shipped_generations() -> None:
    names = {generation.name for generation in generations()}
    assert names == {"occidentalis", "device-init", "cloud-init", "firstrun"}
    assert all(generation.title for generation in generations())


def test_a_minimal_generation() -> None:
    generation = parsed(MINIMAL)
    assert (generation.name, generation.cmdline, generation.files) == ("demo", (), ())
    assert generation.fits(MemoryBootFiles({"A.TXT": b""}))
    assert not generation.fits(MemoryBootFiles({}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: x\n", "when: "),
        ("title: x\nwhen: []\n", "when: "),
        (MINIMAL + "hook: x\n", "hook: "),
        ("title: x\nwhen: [{exists: a, missing: b}]\n", "needs one of"),
        ("title: x\nwhen: [{file: a}]\n", "needs one of"),
        ("title: x\nwhen: [{matches: a}]\n", "needs one of"),
        ("title: x\nwhen: [{file: a, matches: '('}]\n", "not a regular expression"),
        (MINIMAL + "facts: {Bad-Name: [{exists: a}]}\n", "facts"),
        (MINIMAL + "lines: {a.txt: {'b c': x}}\n", "lines"),
        (MINIMAL + "cmdline: ['{{ x']\n", "demo/generation.yml:1"),
        ("title: [x\n", "line 2"),
        ("", "demo/generation.yml: "),
        ("- a\n", "demo/generation.yml: "),
    ],
)
def test_a_wrong_generation_file_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(text)
    assert said in caught.value.message
    assert "demo/generation.yml" in caught.value.message


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Condition(exists="CMDLINE.TXT"), True),
        (Condition(exists="user-data"), False),
        (Condition(missing="user-data"), True),
        (Condition(missing="cmdline.txt"), False),
        (Condition(file="occidentalis.txt", matches="^hostname="), True),
        (Condition(file="occidentalis.txt", matches="^wifi_ssid="), False),
        (Condition(file="absent.txt", matches=".*"), False),
    ],
)
def test_conditions(condition: Condition, *, holds: bool) -> None:
    assert condition.holds(boot_of("occidentalis")) is holds


@pytest.mark.parametrize(
    ("version", "runs"),
    [
        ("v0.8.0", False),
        ("v1.0.0", False),
        ("v1.3.1", False),
        ("v1.4.0", True),
        ("v1.6.0", True),
        ("v1.10.0", True),
    ],
)
def test_commands_are_known_from_1_4_on(version: str, *, runs: bool) -> None:
    boot = MemoryBootFiles(
        {
            "device-init.yaml": b"hostname: black-pearl\n",
            "os-release": f'HYPRIOT_IMAGE_VERSION="{version}"\n'.encode(),
        }
    )
    assert by_name("device-init").facts_of(boot)["runcmd"] == runs


@pytest.mark.parametrize(
    ("version", "driver"),
    [("v0.8.0", "overlay"), ("v1.1.3", "overlay"), ("v1.2.0", "overlay2"), ("v1.6.0", "overlay2")],
)
def test_the_driver_that_the_images_expect(version: str, driver: str) -> None:
    """The vendor's own tests of the image ask for overlay2 from 1.2.0 on."""
    release = f'HYPRIOT_IMAGE_VERSION="{version}"\n'.encode()
    boot = MemoryBootFiles({"device-init.yaml": b"hostname: x\n", "os-release": release})
    assert by_name("device-init").storage_driver_of(boot) == driver


def test_the_network_form_of_cloud_init() -> None:
    generation = by_name("cloud-init")
    assert generation.facts_of(boot_of("cloud-init-hypriot"))["hypriot"]
    assert not generation.facts_of(boot_of("cloud-init-trixie"))["hypriot"]


def by_name(name: str) -> Generation:
    return next(generation for generation in generations() if generation.name == name)


@pytest.mark.parametrize("name", ["occidentalis", "device-init"])
def test_the_hook_survives_the_kernel(name: str) -> None:
    """Quoted words with a dot or an equals sign are dropped and end in a panic."""
    (words,) = by_name(name).cmdline
    line = words.render({"fact": {"runcmd": False}})
    assert "\n" not in line
    quoted = re.findall(r'"([^"]*)"', line)
    assert len(quoted) == 1
    assert not set(".=") & set(quoted[0])
    assert line.startswith('init=/bin/sh -c "')
    assert quoted[0].endswith("exec /sbin/init")
    assert " sh /boot/rpi-image/install; umount" in quoted[0]
    assert len(line.encode()) < 200


def test_every_template_of_a_generation_compiles() -> None:
    for generation in generations():
        for file in generation.files:
            if file.path.endswith(".j2"):
                assert compile_template(file.data.decode(), file.origin).names


def test_without_patterns_ignore_case() -> None:
    generation = parsed(MINIMAL + "without: ['rpi-image/wifi/*']\n")
    assert not generation.wants("rpi-image/WIFI/x.nmconnection")
    assert generation.wants("rpi-image/node.env")
