"""The class's certificates in a real dockerd: the instructor may, a stranger may not."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.model import Classroom, Network
from imagebuilder.model import Docker as DockerSettings
from imagebuilder.shack.keystore import client_bundle, with_identities
from tests.device.swarmlab import Machine, wait_for
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.tools import need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def machine() -> Iterator[Machine]:
    need_root()
    need("dockerd", "docker", "nsenter", "unshare", "ip")
    folder = Path(tempfile.mkdtemp(prefix="tls-"))
    made = Machine(f"tl{uuid.uuid4().hex[:6]}", "pi-01", folder)
    subprocess.run(["ip", "netns", "add", made.namespace], check=True)
    made.run("ip", "link", "set", "lo", "up")
    try:
        yield made
    finally:
        made.stop_all()
        subprocess.run(["ip", "netns", "del", made.namespace], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def secure(folder: Path) -> Classroom:
    network = Network(address="127.0.0.1/8")
    return make_classroom(
        folder, node(1, docker=DockerSettings(tls=True, port=2376), network=network)
    )


def start_dockerd(machine: Machine, classroom: Classroom) -> None:
    """Start dockerd with the node's files and the flags that DOCKER_OPTS holds."""
    tls = with_identities(classroom).nodes[0].docker_tls
    assert tls is not None
    texts = {"ca": tls.ca, "cert": tls.certificate, "key": tls.key.reveal()}
    for name, text in texts.items():
        (machine.folder / f"{name}.pem").write_text(text)
    (machine.folder / "etc").mkdir()
    files = " ".join(f"--tls{'ca' if n == 'ca' else ''}{'cert' if n != 'key' else n}"
                     f"={machine.folder}/{n}.pem" for n in texts)  # fmt: skip
    options = (
        f"--data-root {machine.folder}/data --exec-root {machine.folder}/x "
        f"--pidfile {machine.folder}/pid -H tcp://0.0.0.0:2376 --tlsverify {files}"
    )
    Path("/etc/docker").mkdir(exist_ok=True)
    script = f"mount --bind {machine.folder}/etc /etc/docker && exec dockerd {options}"
    machine.start("dockerd.log", "unshare", "-m", "sh", "-c", script)


def ask(machine: Machine, certificates: Path | None, address: str = "127.0.0.1") -> str:
    """Ask for the engine's version as the instructor does; give what docker said."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(machine.folder)}
    if certificates:
        environment |= {"DOCKER_CERT_PATH": str(certificates), "DOCKER_TLS_VERIFY": "1"}
    done = subprocess.run(
        machine.command("docker", "-H", f"tcp://{address}:2376", "version", "-f",
                        "{{.Server.Version}}"),
        capture_output=True, text=True, check=False, env=environment, timeout=60,
    )  # fmt: skip
    return done.stdout.strip() + done.stderr.strip()


def answers(machine: Machine, certificates: Path) -> bool:
    """Return whether the engine told its version."""
    return ask(machine, certificates)[:1].isdigit()


def test_only_a_client_of_this_class_gets_an_answer(machine: Machine, tmp_path: Path) -> None:
    classroom = secure(tmp_path)
    (tmp_path / "other").mkdir()
    start_dockerd(machine, classroom)
    ours = client_bundle(classroom)
    wait_for(lambda: answers(machine, ours), 60)
    stranger = client_bundle(secure(tmp_path / "other"))
    mixed = tmp_path / "mixed"
    shutil.copytree(stranger, mixed)
    shutil.copy(ours / "ca.pem", mixed / "ca.pem")
    # The refusal may be overtaken by the reset of its connection: ask until it is heard.
    wait_for(lambda: "tls" in ask(machine, mixed).lower(), 30)
    assert not answers(machine, mixed)
    assert "unknown authority" in ask(machine, stranger)
    assert "HTTP request to an HTTPS server" in ask(machine, None)


def test_a_name_that_is_not_the_node_s_is_refused(machine: Machine, tmp_path: Path) -> None:
    classroom = secure(tmp_path)
    start_dockerd(machine, classroom)
    ours = client_bundle(classroom)
    wait_for(lambda: answers(machine, ours), 60)
    assert "not 127.0.0.2" in ask(machine, ours, address="127.0.0.2")
