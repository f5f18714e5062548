"""The flags of one node, and nodes chosen by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest

from imagebuilder.cli.console import Console
from imagebuilder.cli.main import run
from imagebuilder.cli.options import node_options
from imagebuilder.errors import InputError, SettingsError
from imagebuilder.model import Secret
from imagebuilder.settings.flags import (
    NodeFlags,
    choose_nodes,
    document_from_flags,
    node_from_flags,
)
from imagebuilder.settings.load import load_classroom
from tests.lib.classrooms import CHECKSUM

GOOD = "profile: armv7\nimage: sample\ndocker: {tcp: false}\nnodes: [{hostname: 'pi-[1-3]'}]\n"


@pytest.fixture
def classroom(tmp_path: Path) -> Path:
    return tmp_path / "room.yml"


def flags_of(*arguments: str) -> NodeFlags:
    """Parse a command line of a command that has the flags."""
    seen: list[NodeFlags] = []

    @click.command()
    @node_options
    def command(flags: NodeFlags) -> None:
        seen.append(flags)

    command.main(list(arguments), standalone_mode=False)
    return seen[0]


def node_of(*arguments: str) -> Any:
    return node_from_flags(flags_of(*arguments), Console(no_input=True), os.environ)[1]


def test_the_seeds_registry_is_registry_and_mirror() -> None:
    docker = node_of(
        "--profile", "armv7", "--hostname", "pi-03", "--registry", "10.0.0.1:5000"
    ).docker
    assert docker.insecure_registries == ("10.0.0.1:5000",)
    assert docker.registry_mirrors == ("http://10.0.0.1:5000",)


def test_a_shack_flag_promises_no_services() -> None:
    node = node_of("--profile", "armv7", "--hostname", "pi-03", "--shack", "10.0.0.1")
    assert node.shack is not None
    assert node.cluster.enabled
    assert node.docker.insecure_registries == node.docker.registry_mirrors == ()
    assert (node.apt_proxy, node.ntp_server) == ("", "")


def test_every_flag_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("it's $ecret\n")
    Path("mine").mkdir()
    Path("profiles").mkdir()
    Path("profiles/own.yml").write_text("arch: armv7\nmachines: [armv7l]\n")
    arguments = ["--profile", "own", "--hostname", "pi-03", "--image", "base.img"]
    arguments += ["--sha256", CHECKSUM, "--generation", "occidentalis", "--shack", "10.0.0.1"]
    arguments += ["--wifi-ssid", "shack", "--wifi-passphrase-file", "secret"]
    arguments += ["--wifi-country", "FR", "--registry", "10.0.0.1:5000", "--label", "a=b=c"]
    arguments += ["--label", "d=e", "--overlay", "mine", "--set", "x=0123", "--set", "y="]
    node = node_of(*arguments, "--profiles-dir", "profiles")
    assert (node.hostname, node.profile, node.generation) == ("pi-03", "own", "occidentalis")
    assert (node.image.file, node.image.sha256) == (Path("base.img"), CHECKSUM)
    assert node.wifi.networks[0].passphrase.reveal() == "it's $ecret"
    assert node.wifi.country == "FR"
    assert node.docker.labels == (("a", "b=c"), ("d", "e"))
    assert node.overlays == (Path("mine"),)
    assert node.variables == (("x", "0123"), ("y", ""))


def test_flags_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("it's $ecret\n")
    arguments = ["--board", "pi4", "--hostname", "pi-03", "--user", "pupil"]
    arguments += ["--user-password-file", "secret", "--timezone", "Europe/Paris"]
    arguments += ["--locale", "fr_FR.UTF-8", "--keyboard", "fr", "--address", "10.0.0.7/24"]
    arguments += ["--allow", "open-docker", "--allow", "no-radio"]
    node = node_of(*arguments)
    assert (node.profile, node.board) == ("arm64", "pi4")
    assert (node.timezone, node.locale, node.keyboard) == ("Europe/Paris", "fr_FR.UTF-8", "fr")
    assert node.network.address == "10.0.0.7/24"
    assert node.user.name == "pupil"
    assert node.user.password_hash.reveal().startswith("$6$")
    assert node.allow == ("open-docker", "no-radio")


def test_an_open_network_has_its_flag() -> None:
    arguments = ["--profile", "armv7", "--hostname", "a", "--wifi-ssid", "b", "--wifi-open"]
    (network,) = node_of(*arguments).wifi.networks
    assert network.protocol == "open"


def test_what_is_doubtful_is_said_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    node_from_flags(
        flags_of("--profile", "armv7", "--hostname", "a", "--wifi-ssid", "b", "--wifi-open"),
        Console(quiet=True, no_input=True),
        os.environ,
    )
    said = capsys.readouterr().err
    assert "warning: docker.tcp: the Docker API is open" in said
    assert "warning: wifi: wifi without a country" in said


def test_the_environment_is_handed_in(tmp_path: Path) -> None:
    classroom = tmp_path / "room.yml"
    text = "wifi: {country: FR, networks: [{ssid: a, passphrase: {env: CLASS_WIFI}}]}\n"
    classroom.write_text(GOOD + text)
    flags, console = (
        flags_of("--config", str(classroom), "--hostname", "pi-1"),
        Console(no_input=True),
    )
    node = node_from_flags(flags, console, {"CLASS_WIFI": "correct horse"})[1]
    assert node.wifi.networks[0].passphrase == Secret("correct horse")
    with pytest.raises(SettingsError) as caught:
        node_from_flags(flags, console, {})
    assert [problem.line for problem in caught.value.problems] == [5]


def test_flags_over_a_file(tmp_path: Path) -> None:
    classroom = tmp_path / "room.yml"
    classroom.write_text(GOOD + "shack: {address: 10.0.0.1}\n")
    node = node_of("--config", str(classroom), "--hostname", "pi-2", "--shack", "10.0.0.9")
    assert node.docker.insecure_registries == ("10.0.0.9:5000",)
    assert node.image.name == "sample"
    with pytest.raises(InputError, match="has 3 nodes"):
        node_of("--config", str(classroom))
    classroom.write_text(GOOD.replace("pi-[1-3]", "only"))
    assert node_of("--config", str(classroom)).hostname == "only"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "armv7"], "no hostname"),
        (["--hostname", "a"], "no profile"),
        (["--hostname", "a", "--sha256", CHECKSUM], "need --image"),
        (["--hostname", "a", "--wifi-passphrase-file", "x"], "needs --wifi-ssid"),
        (["--hostname", "a", "--wifi-open"], "needs --wifi-ssid"),
        (["--hostname", "a", "--wifi-ssid", "x"], "without a passphrase"),
        (
            ["--hostname", "a", "--wifi-ssid", "x", "--wifi-passphrase-file", "y", "--wifi-open"],
            "exclude each other",
        ),
        (["--hostname", "a", "--user-password-file", "x"], "needs --user"),
        (
            ["--hostname", "a", "--image", "x.img", "--sha256", CHECKSUM, "--no-checksum"],
            "exclude each other",
        ),
    ],
)
def test_flags_that_lack_their_partner(arguments: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        document_from_flags(flags_of(*arguments))


@pytest.mark.parametrize("pair", ["nope", "=x", ""])
def test_pairs(pair: str) -> None:
    with pytest.raises(click.BadParameter):
        flags_of("--hostname", "a", "--label", pair)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hostname", "Pi"], "not a hostname"),
        (["--hostname", ""], "not a hostname"),
        (["--hostname", "é"], "not a hostname"),
        (["--hostname", "a", "--profile", "armv9"], "no profile"),
        (["--hostname", "a", "--image", "sampel"], "no base image"),
        (["--hostname", "a", "--ssh-key", "gone.pub"], "no such file"),
        (["--hostname", "a", "--overlay", "gone"], "no folder"),
        (["--hostname", "a", "--registry", "http://x:1"], "is a URL"),
        (["--hostname", "a", "--wifi-open", "--wifi-ssid", "é" * 17], "34 bytes in UTF-8"),
        (["--hostname", "a", "--board", "pi55"], "no board `pi55`"),
        (["--hostname", "a", "--address", "10.0.0.300"], "address"),
        (["--hostname", "a", "--user", "Ann"], "not a user name"),
        (["--hostname", "a", "--timezone", "paris"], "timezone"),
        (["--hostname", "a", "--registry", "10.0.0.1:99999"], "99999 is not a port"),
        (["--hostname", "a", "--label", "a=b c"], "has a space"),
        (["--hostname", "a", "--label", "a=b$c"], "has a space"),
        (["--hostname", "a", "--label", "a="], "the value is empty"),
        (["--hostname", "a", "--set", "a-b=c"], "not a variable name"),
        (["--config", "gone.yml"], "no such file"),
        (["--hostname", "a", "--profiles-dir", "gone"], "no profiles folder"),
    ],
)
def test_wrong_values_are_settings_errors(arguments: list[str], words: str) -> None:
    said = arguments if "--profile" in arguments else ["--profile", "armv7", *arguments]
    with pytest.raises(SettingsError) as caught:
        node_of(*said)
    assert words in caught.value.message
    assert caught.value.hint
    assert caught.value.problems == ()


# ---- the nodes of a roster


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("", "pi-1 pi-2 pi-3"),
        ("pi-3, pi-1", "pi-3 pi-1"),
        ("pi-[2-3]", "pi-2 pi-3"),
        ("pi-[1,3]", "pi-1 pi-3"),
        ("pi-[1,3],pi-[2]", "pi-1 pi-3 pi-2"),
    ],
)
def test_nodes_are_chosen_by_names_and_ranges(classroom: Path, names: str, chosen: str) -> None:
    classroom.write_text(GOOD)
    loaded = load_classroom(classroom, environment={})
    assert [node.hostname for node in choose_nodes(loaded, names)] == chosen.split()


@pytest.mark.parametrize("names", ["pi-[3-1]", "pi-[1-4]", "pi-[1,3", ",", "pi-[1-2][1-2]"])
def test_nodes_that_the_roster_lacks(classroom: Path, names: str) -> None:
    classroom.write_text(GOOD)
    with pytest.raises(InputError) as caught:
        choose_nodes(load_classroom(classroom, environment={}), names)
    assert caught.value.hint


@pytest.mark.parametrize(
    "command", ["batch room.yml --node", "diff room.yml --node", "flash -c room.yml x --nodes",
                "flash -c room.yml x --node", "verify -c room.yml x --node"],
)  # fmt: skip
def test_an_unset_variable_names_no_node(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), ""]) == 2
    assert f"{command.rsplit(maxsplit=1)[-1]} is empty" in capsys.readouterr().err
