"""Which Docker fits which cluster, and what the page says of it."""

from __future__ import annotations

import pytest

from imagebuilder.model import ImageSource
from imagebuilder.plan.vendor.docker import (
    agent_faults,
    cluster_faults,
    consul_today,
    fitting_kind,
    short,
    suite_by_name,
)
from tests.lib.docker_table import PAGE, with_tables

SEED = ("dduportal/arm-consul:0.5.0", "dduportal/arm-swarm:0.2.0")


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == with_tables(text), "run `make golden`"


@pytest.mark.parametrize(
    ("kind", "docker", "faults"),
    [
        ("classic", "1.6", []),
        ("classic", "17.05 or later", []),
        ("classic", "19.03.12", []),
        ("classic", "20.10.24", []),
        ("classic", "24.0.9", []),
        ("classic", "", []),
        ("classic", "25.0.3", ["Docker 25.0 refuses API versions before 1.24, which classic"]),
        (
            "classic",
            "26.1.5",
            [
                "Docker 26.1 pulls no schema-1 images: dduportal/arm-consul:0.5.0",
                "Docker 26.1 pulls no schema-1 images: dduportal/arm-swarm:0.2.0",
                "Docker 26.1 refuses API versions before 1.24, which classic",
            ],
        ),
        ("swarm-mode", "1.6", ["Docker 1.6 has no swarm mode, which needs 1.12"]),
        ("swarm-mode", "1.11.2", ["Docker 1.11 has no swarm mode, which needs 1.12"]),
        ("swarm-mode", "1.10 or later", []),
        ("swarm-mode", "1.12.0", []),
        (
            "swarm-mode",
            "26.1.5",
            [
                "Docker 26.1 pulls no schema-1 images: dduportal/arm-consul:0.5.0",
                "Docker 26.1 pulls no schema-1 images: dduportal/arm-swarm:0.2.0",
            ],
        ),
    ],
)
def test_the_clusters_of_a_docker(kind: str, docker: str, faults: list[str]) -> None:
    found = list(cluster_faults(kind, docker, SEED, swarm=True))
    assert [text[: len(fault)] for text, fault in zip(found, faults, strict=True)] == faults


def test_todays_agents_run_on_todays_docker() -> None:
    images = ("hashicorp/consul:1.15.4", "", "192.168.2.1:5000/own:1", "swarm:1.2.9")
    assert list(cluster_faults("classic", "28.0", images, swarm=False)) == []


@pytest.mark.parametrize(
    ("dockers", "kind"),
    [
        ([], "classic"),
        (["", "19.03"], "classic"),
        (["1.6", "17.05 or later"], "classic"),
        (["26.1.5"], "swarm-mode"),
        (["26.1.5", "20.10.24", ""], "swarm-mode"),
        (["26.1.5", "17.05 or later"], "swarm-mode"),
        (["26.1.5", "1.6"], ""),
    ],
)
def test_the_kind_follows_what_the_nodes_run(dockers: list[str], kind: str) -> None:
    assert fitting_kind(dockers) == kind


def test_without_an_agent_of_classic_swarm_there_is_swarm_mode() -> None:
    assert fitting_kind(["20.10.24", "17.05 or later"], classic=False) == "swarm-mode"
    assert not fitting_kind(["20.10.24", "1.6"], classic=False)


@pytest.mark.parametrize(
    ("version", "server", "refused"),
    [
        ("1.15.4", "consul:1.15.4", False),
        ("1.15.9", "consul:1.15.4", False),
        ("1.15", "consul:1.15.4", False),
        ("0.5.0", "consul:1.15.4", False),
        ("1.20.1", "hashicorp/consul", False),
        ("1.20.1", "consul:latest", False),
        ("", "consul:1.15.4", False),
        ("latest", "consul:1.15.4", False),
        ("1.16.0", "consul:1.15.4", True),
        ("1.15.4", "dduportal/arm-consul:0.5.0", True),
    ],
)
def test_no_agent_is_newer_than_its_server(version: str, server: str, *, refused: bool) -> None:
    found = list(agent_faults(version, server))
    assert bool(found) == refused
    assert all(server in fault and version in fault for fault in found)


@pytest.mark.parametrize("arch", ["armv6", "armv7", "arm64"])
def test_consul_of_2015_is_replaced_and_others_stay(arch: str) -> None:
    for old in ("", "dduportal/arm-consul:0.5.0", "progrium/consul"):
        assert consul_today(old, arch).endswith("consul:1.15.4")
    assert not consul_today("192.168.2.1:5000/own:1", arch)
    assert not consul_today("", "mips")


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("raspios-lite-bookworm-arm64", "bookworm"),
        ("2025-10-01-raspios-trixie-armhf-lite.img.xz", "trixie"),
        ("raspios-lite-arm64@2026-06-18", "trixie"),
        ("raspios-lite-arm64@2024-11-19", "bookworm"),
        ("raspios-lite-arm64", "trixie"),
        ("2020-05-27-raspios-lite.zip", "buster"),
        ("2015-05-05-raspbian.zip", ""),
        ("raspbian-jessie-lite.zip", "jessie"),
        ("mine.img", ""),
    ],
)
def test_the_suite_that_a_name_tells(name: str, suite: str) -> None:
    assert suite_by_name(ImageSource(name)) == suite


def test_a_version_as_it_is_said() -> None:
    assert [short(each) for each in ("26.1.5", "17.05 or later", "")] == [
        "26.1",
        "17.05 or later",
        "",
    ]
