"""The shack's folder: read by docker-compose, shellcheck and make; its scripts run for real."""

from __future__ import annotations

import json
import shlex
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.errors import SettingsError
from imagebuilder.model import (
    Classroom,
    Cluster,
    Docker,
    ImageSource,
    NodeSettings,
    OverlayFile,
    Secret,
    Shack,
)
from imagebuilder.shack.folder import Kind, plan_shack
from tests.lib.classroom_samples import SHACK, make_classroom, node
from tests.lib.shack_folder import KINDS, command_of, text_of, written
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path


def seed_room(folder: Path, **shack: str) -> Classroom:
    return make_classroom(folder, shack=replace(SHACK, **shack))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_docker_compose_reads_it(
    kind: Kind, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("docker-compose")
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack", kind)
    read = yaml.safe_load(run("docker-compose", "config", cwd=folder))
    services = read["services"]
    assert list(services) == sorted(
        ["consul", "manager", "registry", "mirror", "apt", "time", "web"]
    )
    assert services["consul"]["network_mode"] == "host"
    assert services["manager"]["container_name"] == "swarmmanager"
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_the_manager_s_command_is_the_seed_s(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    classroom = seed_room(tmp_path, swarm_image="swarm:0.2.0")
    script = text_of(plan_shack(classroom, templates), "shack.sh")
    line = next(
        part for part in script.replace("\\\n", "").splitlines() if "--name 'swarmmanager'" in part
    )
    words = [word for word in shlex.split(line) if word != "--restart=always"]
    assert words == shlex.split(
        "docker run --name swarmmanager -d -p 10000:2375 "
        "swarm:0.2.0 manage consul://192.168.2.1:8500/swarm"
    )


def test_consul_s_command_is_the_seed_s(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    words = command_of(seed_room(tmp_path, consul_image="consul:1.15.4"), templates, "consul")
    assert words == shlex.split(
        "agent -server -bootstrap-expect 1 -node shack -advertise 192.168.2.1 -client 0.0.0.0 "
        "-data-dir /consul/data -ui"
    )


def test_consul_of_2015_has_no_ui_flag_and_an_entrypoint_of_its_own(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    old = seed_room(tmp_path, consul_image="dduportal/arm-consul:0.5.0")
    words = command_of(old, templates, "consul")
    assert words[0] == "-server"
    assert "-ui" not in words


def test_a_new_manager_looks_where_old_nodes_register(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    assert command_of(make_classroom(tmp_path), templates, "manager") == [
        "manage", "--discovery-opt", "kv.path=swarm", "consul://192.168.2.1:8500",
    ]  # fmt: skip
    new = make_classroom(tmp_path, node(1, cluster=Cluster(swarm_version="1.2.6")))
    assert command_of(new, templates, "manager") == ["manage", "consul://192.168.2.1:8500/swarm"]


OLD, NEW = ImageSource(name="o", generation="occidentalis"), ImageSource(name="n")


@pytest.mark.parametrize(
    ("nodes", "image"),
    [
        ([node(1, image=NEW)], "swarm:1.2.9"),
        ([node(1, image=OLD)], "swarm:1.1.3"),
        ([node(1, generation="occidentalis"), node(2)], "swarm:1.1.3"),
        ([node(1, image=OLD, generation="device-init")], "swarm:1.2.9"),
        ([node(1, image=OLD, cluster=Cluster(enabled=False)), node(2)], "swarm:1.2.9"),
    ],
)
def test_the_manager_is_one_that_manages_the_class_s_docker(
    nodes: list[NodeSettings], image: str, templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    classroom = make_classroom(tmp_path, *nodes)
    folder = written(classroom, templates, tmp_path / "shack")
    manager = yaml.safe_load((folder / "docker-compose.yml").read_text())["services"]["manager"]
    assert manager["image"] == image
    assert manager["command"][:3] == ["manage", "--discovery-opt", "kv.path=swarm"]
    for file in ("shack.sh", "README.md"):
        assert image in (folder / file).read_text()
    assert f"too old for the manager, here `{image}`" in (folder / "README.md").read_text()
    said = replace(classroom, shack=replace(SHACK, swarm_image="swarm:1.2.5"))
    assert "swarm:1.2.5" in text_of(plan_shack(said, templates), "docker-compose.yml")


@pytest.mark.parametrize(("manager", "sees"), [("0.4.0", False), ("1.0.0", False), ("1.0.1", True)])
def test_a_manager_that_cannot_be_told_where_old_nodes_register(
    manager: str, templates: tuple[OverlayFile, ...], tmp_path: Path, *, sees: bool
) -> None:
    classroom = seed_room(tmp_path, swarm_image=f"swarm:{manager}")
    if sees:
        assert "kv.path=swarm" in command_of(classroom, templates, "manager")
        return
    with pytest.raises(SettingsError, match=f"the swarm manager swarm:{manager} cannot find"):
        plan_shack(classroom, templates)


@pytest.mark.parametrize("versions", [("1.2.6",), ("0.2.0", "1.2.6")])
def test_an_old_manager_does_not_find_new_nodes(
    versions: tuple[str, ...], templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    nodes = [node(n, cluster=Cluster(swarm_version=v)) for n, v in enumerate(versions, start=1)]
    mixed = make_classroom(tmp_path, *nodes, shack=replace(SHACK, swarm_image="swarm:0.2.0"))
    with pytest.raises(SettingsError, match="the swarm manager"):
        plan_shack(mixed, templates)


def test_the_bootstrap_count_is_the_class_s(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    servers = [
        node(n, cluster=Cluster(consul_server=n < 3, consul_bootstrap_expect=3 if n < 3 else 0))
        for n in range(1, 5)
    ]
    words = command_of(make_classroom(tmp_path, *servers), templates, "consul")
    assert words[words.index("-bootstrap-expect") + 1] == "3"
    with pytest.raises(SettingsError, match="is 3, but there are 2 consul servers"):
        plan_shack(make_classroom(tmp_path, servers[0], servers[3]), templates)


@pytest.mark.parametrize(
    "change",
    [
        {"consul_encrypt": Secret("b" * 24)},
        {"swarm_path": "elsewhere"},
    ],
)
def test_what_a_class_must_share(
    change: dict[str, str], templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    torn = make_classroom(tmp_path, node(1), node(2, cluster=Cluster(**change)))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="different"):
        plan_shack(torn, templates)


def test_no_shack_no_folder(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no `shack:`"):
        plan_shack(make_classroom(tmp_path, shack=None), templates)


def test_only_the_services_asked_for(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    few = make_classroom(tmp_path, shack=Shack("192.168.2.1", services=("registry",), ntp=False))
    folder = written(few, templates, tmp_path / "shack")
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text())
    assert list(compose["services"]) == ["consul", "manager", "registry"]
    assert list(compose["volumes"]) == ["consul-data", "registry-data"]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"registry"}
    assert "NTP" not in (folder / "README.md").read_text()


def test_a_service_that_is_left_out_later_loses_its_files(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack", "swarm-mode")
    (folder / "notes.txt").write_text("mine")
    assert (folder / "publish-token").exists()
    written(make_classroom(tmp_path), templates, folder, "classic")
    assert not (folder / "publish-token").exists()
    assert not (folder / "manager" / "nginx.conf").exists()
    assert (folder / "notes.txt").read_text() == "mine"


# ---- secrets


def secret_room(folder: Path) -> Classroom:
    cluster, docker = Cluster(consul_encrypt=Secret("c2VjcmV0")), Docker(tls=True, port=2376)
    return make_classroom(folder, *(node(n, cluster=cluster, docker=docker) for n in (1, 2)))


def test_secrets_lie_in_files_of_the_owner_only(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(secret_room(tmp_path), templates, tmp_path / "shack")
    private = {"consul.env", "tls/ca.pem", "tls/cert.pem", "tls/key.pem"}
    for path in folder.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder))
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o600 if name in private else mode & 0o755), name
            if name not in private:
                assert "c2VjcmV0" not in path.read_text(), name
                assert "PRIVATE KEY" not in path.read_text(), name
    authority = (tmp_path / "secrets" / "ca" / "key.pem").read_text()
    assert (folder / "tls" / "key.pem").read_text() != authority


def test_compose_hands_the_gossip_key_to_consul_alone(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("docker-compose")
    folder = written(secret_room(tmp_path), templates, tmp_path / "shack")
    read = yaml.safe_load(run("docker-compose", "config", cwd=folder))["services"]
    local = read["consul"]["environment"]["CONSUL_LOCAL_CONFIG"]
    assert json.loads(local) == {"encrypt": "c2VjcmV0"}
    assert "environment" not in read["manager"]
    assert "--tlsverify" in read["manager"]["command"]


def test_a_plan_shows_no_secret(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    assert "c2VjcmV0" not in repr(plan_shack(secret_room(tmp_path), templates))


def test_a_dry_run_makes_no_keys(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    assert plan_shack(secret_room(tmp_path), templates, write=False)
    assert not (tmp_path / "secrets").exists()


def test_the_same_class_gives_the_same_folder(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    first = plan_shack(secret_room(tmp_path), templates)
    assert plan_shack(secret_room(tmp_path), templates) == first


# ---- pages


def test_nginx_takes_both_configurations(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("nginx")
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack", "swarm-mode")
    for path in (folder / "nginx.conf", folder / "manager" / "nginx.conf"):
        run("nginx", "-t", "-q", "-c", path)


def test_the_class_page_shows_words_not_markup(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    nasty = make_classroom(
        tmp_path, node(1, owner="<script>x</script>", seat="<b>"), name="3 & <i>"
    )
    page = text_of(plan_shack(nasty, templates), "web/index.html")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<title>3 &amp; &lt;i&gt;</title>" in page
    assert "have no password" in page


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("docker", "is_open"),
    [(Docker(), True), (Docker(tls=True, port=2376), False), (Docker(tcp=False), False)],
)
def test_an_open_socket_is_said_loudly_and_only_then(
    kind: Kind,
    docker: Docker,
    is_open: bool,
    templates: tuple[OverlayFile, ...],
    tmp_path: Path,
) -> None:
    files = plan_shack(make_classroom(tmp_path, node(1, docker=docker)), templates, kind)
    for path in ("README.md", "web/index.html"):
        words = " ".join(text_of(files, path).split())
        assert ("have no password" in words) is is_open


def test_every_node_has_its_line_and_anchor(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    thirty = make_classroom(tmp_path, *(node(n) for n in range(1, 31)))
    files = plan_shack(thirty, templates)
    page, readme = text_of(files, "web/index.html"), text_of(files, "README.md")
    for settings in thirty.nodes:
        assert f'id="{settings.hostname}"' in page
        assert f"| {settings.hostname} | {settings.network.address[:-3]} |" in readme
