"""An installed node as a tree: fake docker and curl, and passes of its service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.lib.pi_tree import HASH, SETTINGS, STATE, Pi
from tests.lib.tools import need

if TYPE_CHECKING:
    import subprocess

NODE = f"/{STATE}/node"
# The time limits of the scripts sleep, too: a sleep that does not would end everything at once.
(SLEEP,) = need("sleep")

# A docker whose images and containers are files.
DOCKER = """
D={folder}/docker
case $1 in
    version) [ ! -e "$D/down" ] || exit 1; echo 19.03.13 ;;
    inspect)
        case $3 in
            *Entrypoint*) cat "$D/entrypoint" ;;
            *RestartCount*) cat "$D/restarts-$4" 2>/dev/null || echo 0 ;;
            *Status*) [ -e "$D/running-$4" ] && cat "$D/status-$4" 2>/dev/null ;;
            *Running*) [ -e "$D/running-$4" ] && echo true false ;;
            *) [ -e "$D/images" ] && grep -q -x -F "$2" "$D/images" ;;
        esac ;;
    run)
        [ ! -e "$D/refuse" ] || {{ echo "docker: no space left"; exit 125; }}
        : >"$D/running-$4" ;;
    rm) rm -f "$D/running-$3" ;;
    pull)
        read -r left <"$D/failures"
        if [ "$left" -gt 0 ]; then
            echo $((left - 1)) >"$D/failures"; echo "net/http: timeout" >&2; exit 1
        fi
        echo "$2" >>"$D/images" ;;
    tag) echo "$3" >>"$D/images" ;;
    load) echo "loaded/image:1" >>"$D/images" ;;
    info) cat "$D/swarm" 2>/dev/null || echo "$SWARM" ;;
    swarm) [ "$2" != join ] || echo active >"$D/swarm" ;;
    kill) [ -e "$D/deaf" ] || rm -f "$D/running-$3" ;;
    logs) echo "first line"; echo "its last words" ;;
    wait) [ ! -e "$D/dies" ] || {{ rm "$D/dies" "$D/running-$2"; exit 0; }}; exec {sleep} 30 ;;
esac
"""
CURL = """
case $* in
    *v1/kv/swarm/*) [ -e {folder}/unregistered ] || echo registered ;;
    *status/leader*) cat {folder}/leader ;;
    *swarm/worker*) echo SWMTKN-1-secret ;;
esac
"""


def run_docker(pi: Pi) -> None:
    """Let docker, the leader and the name of an installed Pi answer."""
    (pi.folder / "calls").unlink(missing_ok=True)
    docker = pi.folder / "docker"
    docker.mkdir()
    (docker / "images").write_text(f"{SETTINGS['CONSUL_IMAGE']}\n{SETTINGS['SWARM_IMAGE']}\n")
    (docker / "entrypoint").write_text("[/bin/start]\n")
    (docker / "failures").write_text("0\n")
    (pi.folder / "leader").write_text('"192.168.2.1:8300"')
    pi.fake("docker", DOCKER.format(folder=pi.folder, sleep=SLEEP))
    pi.fake("curl", CURL.format(folder=pi.folder))
    pi.fake("hostname", f'[ -n "$1" ] && echo "$1" >{pi.folder}/name; cat {pi.folder}/name')
    (pi.folder / "name").write_text(pi.read("etc/hostname"))
    pi.path(f"{STATE}/todo").unlink(missing_ok=True)
    pi.write(f"{STATE}/vendor_done", f"{HASH}\n")


def set_env(pi: Pi, **settings: str) -> None:
    """Change settings of the installed node."""
    path = pi.path(f"{STATE}/node.env")
    path.write_text(path.read_text() + "".join(f"{n}='{v}'\n" for n, v in settings.items()))


def once(pi: Pi, shell: str = "dash", **environment: str) -> subprocess.CompletedProcess[str]:
    """Make one pass."""
    quick = {"RPI_IMAGE_PAUSE": "0", "RPI_IMAGE_WAIT": "0", "RPI_IMAGE_SETTLE": "0"}
    done = pi.run(NODE, "once", shell=shell, **quick | environment)
    assert pi.leftovers() == []
    return done


def docker_calls(pi: Pi, verb: str) -> list[str]:
    """List the calls of one docker command."""
    return [call for call in pi.calls() if call.startswith(f"docker {verb}")]


def without_docker(pi: Pi) -> str:
    """Return a PATH without the docker of this machine and the stand-in."""
    (pi.folder / "fakes" / "docker").unlink()
    tools = pi.folder / "tools"
    tools.mkdir()
    for folder in ("/usr/bin", "/bin", "/usr/sbin"):
        for tool in Path(folder).iterdir():
            if tool.name not in {"docker", "dockerd"} and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    return f"{pi.folder}/fakes:{tools}"
