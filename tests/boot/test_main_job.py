"""The main job on real input: a vendor-like zip from a real web server becomes two nodes.

The base holds a real Debian armhf root. It is downloaded from a throttled nginx whose connection is
cut once, checked, unpacked, built for two nodes, and read back with tools that are not ours.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.boot.images import GENERATIONS, SECTOR_BYTES, golden
from tests.lib.program import mtype, node_env, rpi_image, succeed
from tests.lib.tools import need, run
from tests.lib.webserver import cutting_proxy, nginx

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.boot

GENERATION = "cloud-init-1.12"
NAME = "hypriotos-rpi-v1.12.img"
FAT = GENERATIONS[GENERATION].fat
MIB = 1 << 20


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the zip of a real base and its publisher's checksum file."""
    need("zip", "sha256sum")
    root = tmp_path_factory.mktemp("site")
    run("cp", "--sparse=always", "--reflink=auto", golden(GENERATION), root / NAME)
    run("zip", "-q", "-1", f"{NAME}.zip", NAME, cwd=root)
    (root / f"{NAME}.zip.sha256").write_text(run("sha256sum", f"{NAME}.zip", cwd=root))
    (root / NAME).unlink()
    return root


@pytest.fixture(scope="module")
def nodes(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder where two nodes were built, over a slow line that broke once."""
    work = tmp_path_factory.mktemp("work")
    size = (site / f"{NAME}.zip").stat().st_size
    with nginx(site, work / "nginx", rate="40m") as server:
        port = int(server.url.rsplit(":", 1)[1])
        with cutting_proxy(port, size // 2) as url:
            build(work, url, "pi-03")
            asked = server.requests()
        build(work, url, "pi-04")
        assert server.requests() == asked, "the second build went to the network"
    ranges = [line for line in asked if ".zip HTTP" in line and " 206 " in line]
    assert ranges, f"the download did not go on where it was cut: {asked}"
    return work


def build(work: Path, url: str, hostname: str) -> None:
    arguments = ("--profile", "armv7", "--hostname", hostname, "--image", f"{url}/{NAME}.zip")
    done = rpi_image("build", *arguments, "--shack", "192.168.2.1", cache=work / "cache", cwd=work)
    assert succeed(done).stdout == f"build/{hostname}.img\n"


@pytest.mark.parametrize("hostname", ["pi-03", "pi-04"])
def test_each_node_reads_back_as_itself(hostname: str, nodes: Path, tmp_path: Path) -> None:
    image = nodes / "build" / f"{hostname}.img"
    offset = FAT.start_sectors * SECTOR_BYTES
    assert node_env(image)["NODE_HOSTNAME"] == hostname
    assert yaml.safe_load(mtype(image, "user-data", offset))["hostname"] == hostname
    boot = tmp_path / "boot"
    run("dd", f"if={image}", f"of={boot}", "bs=1M", "skip=1", f"count={FAT.size_mib}")
    run("fsck.vfat", "-n", boot)
    root = tmp_path / "root"
    run("dd", f"if={image}", f"of={root}", "bs=1M", f"skip={1 + FAT.size_mib}", "conv=sparse")
    run("e2fsck", "-fn", root)


def test_the_partition_table_and_the_root_are_the_bases_own(nodes: Path) -> None:
    base, image = golden(GENERATION), nodes / "build" / "pi-03.img"
    tables = [json.loads(run("sfdisk", "-J", path))["partitiontable"] for path in (base, image)]
    for table in tables:
        table.pop("device")
        for partition in table["partitions"]:
            partition.pop("node")
    assert tables[0] == tables[1]
    skip = (1 + FAT.size_mib) * MIB
    run("cmp", f"--ignore-initial={skip}", base, image)
