"""Which Docker fits which cluster, and what the page says of it."""

from __future__ import annotations

import pytest

from imagebuilder.model import ImageSource
from imagebuilder.plan.vendor.docker import cluster_faults, fitting_kind, short, suite_by_name
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
        ("swarm-mode", "26.1.5", []),
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
