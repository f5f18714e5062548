"""Container images that log how they were started, under the names of consul and Swarm.

Built as docker-archive tarballs from the root's own static busybox, without any registry.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

from tests.boot import roots

if TYPE_CHECKING:
    from pathlib import Path

CONSUL = "dduportal/arm-consul:0.5.0"
SWARM = "dduportal/arm-swarm:0.2.0"

# The entrypoint of dduportal/arm-consul:0.5.0 (its Dockerfile), as of progrium/docker-consul.
START = """#!/bin/sh
exec consul agent -config-dir=/config $@
"""
# Logs its words, then answers for a leader, logging each request.
_CONSUL = """#!/bin/sh
echo "argv: $0 $*"
exec nc -ll -p 8500 -e /bin/answer
"""
_ANSWER = """#!/bin/sh
read -r method path rest
while read -r header && [ "${#header}" -gt 1 ]; do :; done
echo "$method $path" >>/requests
case $path in
/v1/status/leader) body='"10.0.2.2:8300"' ;;
*) body=true ;;
esac
printf 'HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %s\\r\\n' ${#body}
printf 'Connection: close\\r\\n\\r\\n%s' "$body"
"""
_SWARM = """#!/bin/sh
echo "argv: $0 $*"
trap 'exit 0' TERM
while :; do sleep 3600 & wait; done
"""
APPLETS = ("sh", "nc", "sleep", "cat", "printf")


def make_tarball(path: Path) -> Path:
    """Write a docker-archive with both images, which share their only layer."""
    layer = _layer()
    images = {
        CONSUL: ["/bin/start"],
        SWARM: ["/bin/swarm"],
    }
    with tarfile.open(path, "w") as archive:
        _add(archive, "layer.tar", layer)
        manifest = []
        for name, entrypoint in images.items():
            config = _config(layer, entrypoint)
            config_name = hashlib.sha256(config).hexdigest() + ".json"
            _add(archive, config_name, config)
            manifest.append({"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    return path


def _layer() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as layer:
        _add(layer, "bin/busybox", (roots.base_folder() / "bin/busybox").read_bytes(), 0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(link)
        for name, script in (
            ("start", START),
            ("consul", _CONSUL),
            ("answer", _ANSWER),
            ("swarm", _SWARM),
        ):
            _add(layer, f"bin/{name}", script.encode(), 0o755)
    return packed.getvalue()


def _config(layer: bytes, entrypoint: list[str]) -> bytes:
    config = {
        "architecture": "arm",
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"], "Volumes": {"/data": {}}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "tests"}],
    }
    return json.dumps(config, sort_keys=True).encode()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
