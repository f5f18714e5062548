"""Say how a planned card is reached, from the files on its boot partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from imagebuilder.errors import RpiImageError
from imagebuilder.model import (
    Cluster,
    Docker,
    ImageSource,
    Network,
    NodeSettings,
    Secret,
    Shack,
    User,
    Wifi,
    WifiNetwork,
)
from imagebuilder.plan.card_layout import AUTHORIZED_KEYS
from imagebuilder.plan.generations import named_generation
from imagebuilder.plan.overlays import load_generations
from imagebuilder.plan.reach import reach_of, seen_in_root, vendor_state
from imagebuilder.plan.vendor.stock import Record, StockBoot
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagebuilder.model import RootSystem
    from imagebuilder.plan.boot_files import BootFiles


def reach_of_card(
    boot: BootFiles, node: Mapping[str, str], ssids: Sequence[str], root: RootSystem | None = None
) -> str:
    """Return how a card is reached, in one line; `node` are the values of its node.env.

    Empty if its generation is not one of ours, or nothing on the card says it.
    """
    generations = load_generations((shipped_folder("overlays"),))
    stock = StockBoot(boot, Record.on(boot))
    try:
        generation = named_generation(generations, node.get("NODE_GENERATION", ""))
        vendor = seen_in_root(vendor_state(generation, generation.facts_of(stock)), root)
        reach = reach_of(_settings(boot, node, ssids), vendor)
    except RpiImageError:
        return ""
    return reach.sentence if reach.user != "" else ""


def _settings(boot: BootFiles, node: Mapping[str, str], ssids: Sequence[str]) -> NodeSettings:
    """Return the settings as far as they say how a card is reached."""
    name, shack = node.get("USER_NAME", ""), node.get("SHACK_ADDRESS", "")
    hashed = Secret("*") if node.get("USER_PASSWORD_HASH") else None
    swarm_mode = node.get("SHACK_KIND") == "swarm-mode"
    return NodeSettings(
        hostname=node.get("NODE_HOSTNAME", ""),
        profile="",
        arch=node.get("NODE_ARCH", ""),
        machines=(),
        image=ImageSource(""),
        user=User(name, hashed) if name else None,
        ssh_keys=("",) if boot.exists(AUTHORIZED_KEYS) else (),
        keep_vendor_login=node.get("KEEP_VENDOR_LOGIN") == "1",
        network=Network(address=node.get("NETWORK_ADDRESS", "")),
        wifi=Wifi(networks=tuple(WifiNetwork(ssid) for ssid in ssids)),
        docker=Docker(install=_install(node), version=node.get("DOCKER_VERSION", "")),
        packages=tuple(node.get("PACKAGES", "").split()),
        apt_proxy=node.get("APT_PROXY", ""),
        shack=Shack(shack, kind="swarm-mode" if swarm_mode else "classic") if shack else None,
        cluster=Cluster(
            enabled=node.get("CLUSTER") == "1", swarm_image=node.get("SWARM_IMAGE", "")
        ),
    )


def _install(node: Mapping[str, str]) -> Literal["auto", "never", "always"]:
    """Return whether Docker is installed; cards of earlier versions do not install it."""
    word = node.get("DOCKER_INSTALL")
    return "always" if word == "always" else "auto" if word == "auto" else "never"
