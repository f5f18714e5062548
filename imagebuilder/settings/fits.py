"""Report a profile, board, image and containers that do not fit, and cards out of reach."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.plan.reach import reach_of
from imagebuilder.plan.vendor.boards import find_board
from imagebuilder.settings.catalog import load_profiles
from imagebuilder.settings.merge import find_setting
from imagebuilder.settings.schema.diagnostics import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from imagebuilder.model import ImageSource, NodeSettings, RootSystem
    from imagebuilder.plan.reach import Reach
    from imagebuilder.plan.vendor.boards import Board
    from imagebuilder.settings.schema.catalogue import CatalogueEntry
    from imagebuilder.settings.schema.diagnostics import Loc
    from imagebuilder.settings.schema.documents import ProfileDocument
    from imagebuilder.settings.values import UnresolvedNode

_MOST_NAMES = 4

# Container images that name their architecture: Docker Hub's accounts for one architecture
# (docker-library/official-images, "Architectures other than amd64"), and those of the workshops.
_CONTAINERS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"(?:^|/)(?:dduportal/arm-|hypriot/rpi-|arm32v[56]/)"), ("armv6", "armv7")),
    (re.compile(r"(?:^|/)arm32v7/"), ("armv7",)),
    (re.compile(r"(?:^|/)arm64v8/"), ("arm64",)),
    (re.compile(r"(?:^|/)(?:amd64|i386|ppc64le|riscv64|s390x)/"), ()),
)
_REACH_KEYS = {
    "no-login": ("user", "image"),
    "no-network": ("wifi",),
    "no-radio": ("wifi",),
    "no-docker": ("docker", "image"),
    "no-cluster": ("shack", "cluster", "image"),
    "old-archive": ("upgrade", "packages", "image"),
}
_ARCHS = frozenset({"armv6", "armv7", "arm64"})


def profile_for(
    word: str, profiles: Sequence[ProfileDocument], image: ImageSource | None = None
) -> str:
    """Return the name of the profile for a board; empty if no profile has it.

    A board that runs both takes a 64-bit profile, unless the image is a 32-bit one.
    """
    board = find_board(word)
    having = [profile for profile in profiles if board and _has_board(profile, board)]
    fitting = [p for p in having if image is None or not _image_fault(image, p)] or having
    best = sorted(fitting, key=lambda profile: (_system(profile.machines) != "arm64", profile.name))
    return best[0].name if best else ""


def check_fit(node: UnresolvedNode, settings: NodeSettings, profile: ProfileDocument) -> None:
    """Report what does not fit: board and profile, image and profile, containers and profile."""
    if not profile.name:
        return
    found = [
        *_board_faults(node, settings, profile),
        *_image_faults(node, settings.image, profile),
        *_container_faults(node, settings),
    ]
    for diagnostic in found:
        node.say(diagnostic)
    if not found and node.references.judges_images:
        try:
            check_root(settings, node.references.root(settings.image))
        except SettingsError as error:
            node.say(Diagnostic(_place(node, "image", "profile"), error.message, error.hint))


def check_root(settings: NodeSettings, root: RootSystem | None) -> None:
    """Raise SettingsError if the packages of an image do not run with the profile of a node."""
    fault = _root_fault(settings.image.name, settings.profile, settings.machines, root)
    if fault:
        names = [
            profile.name
            for profile in load_profiles()
            if not _root_fault("", profile.name, profile.machines, root)
        ]
        raise SettingsError(fault, _choice("profile", names) or "use another image")


def _root_fault(image: str, profile: str, machines: Sequence[str], root: RootSystem | None) -> str:
    """Return why the packages of an image do not run on `machines`; empty if they do.

    Debian's armhf is made for ARMv7; only that of Raspbian runs on ARMv6.
    """
    expected = _system(machines)
    if root is None or not profile or not root.arch or not expected:
        return ""
    if root.arch != expected:
        fact = f"the packages of image `{image}` are {root.arch}"
        return f"{fact}, but profile `{profile}` is {expected}"
    if set(machines) == {"armv6l"} and root.os_id not in {"", "raspbian"}:
        return f"the packages of image `{image}` need ARMv7, but profile `{profile}` is ARMv6"
    return ""


def check_reach(node: UnresolvedNode, settings: NodeSettings) -> Reach:
    """Report why a card could not be reached; return how it is."""
    references = node.references
    reach = reach_of(settings, references.vendor_here(settings))
    judged = reach if references.judges_images else reach_of(settings, references.vendor(settings))
    if settings.profile and settings.image.name:
        for found in judged.findings:
            if found.word == "no-login" and _login_is_faulty(node, settings):
                continue
            loc = _place(node, *_REACH_KEYS[found.word], "profile")
            node.say(Diagnostic(loc, found.message, found.hint, found.severe, found.word))
    return reach


def _login_is_faulty(node: UnresolvedNode, settings: NodeSettings) -> bool:
    """Return whether a user or keys are set, but could not be read, which is reported already."""
    merged = node.merged
    no_keys = bool(merged.ssh_keys) and not settings.ssh_keys
    return no_keys or (merged.user is not None and settings.user is None)


def _board_faults(
    node: UnresolvedNode, settings: NodeSettings, profile: ProfileDocument
) -> Iterator[Diagnostic]:
    board = find_board(settings.board)
    if board is None or _has_board(profile, board):
        return
    names = [p.name for p in node.references.profiles if _has_board(p, board)]
    message = f"board `{board.word}` is not one of profile `{profile.name}`"
    yield Diagnostic(_place(node, "board"), message, _choice("profile", names))


def _has_board(profile: ProfileDocument, board: Board) -> bool:
    if profile.boards:
        return board.name in profile.boards
    return not set(board.machines).isdisjoint(profile.machines)


def _image_faults(
    node: UnresolvedNode, image: ImageSource, profile: ProfileDocument
) -> Iterator[Diagnostic]:
    fault = _image_fault(image, profile)
    if not fault:
        return
    images = [e.name for e in node.references.catalogue if not _image_fault(e, profile)]
    profiles = [p.name for p in node.references.profiles if not _image_fault(image, p)]
    hints = filter(None, (_choice("image", images), _choice("profile", profiles)))
    yield Diagnostic(_place(node, "image", "profile"), fault, ", or ".join(hints))


def _image_fault(image: ImageSource | CatalogueEntry, profile: ProfileDocument) -> str:
    """Return why an image does not fit a profile; empty if it does, or if it is not known."""
    able, wanted = image.machines, profile.machines
    if not able or not wanted:
        return ""
    if set(able).isdisjoint(wanted):
        return f"image `{image.name}` does not boot on the boards of profile `{profile.name}`"
    system, expected = _system(able), _system(wanted)
    if system and expected and system != expected:
        return f"image `{image.name}` is {system}, but profile `{profile.name}` is {expected}"
    return ""


def _system(machines: Sequence[str]) -> str:
    """Return Debian's word for the system: a 64-bit kernel may run a 32-bit one."""
    if any(machine.startswith("armv") for machine in machines):
        return "armhf"
    return "arm64" if tuple(machines) == ("aarch64",) else ""


def _container_faults(node: UnresolvedNode, settings: NodeSettings) -> Iterator[Diagnostic]:
    cluster, shack = settings.cluster, settings.shack
    if not cluster.enabled or shack is None or settings.arch not in _ARCHS:
        return
    agents = {"consul": cluster.consul_image, "swarm": cluster.swarm_image}
    if shack.kind == "swarm-mode":
        agents.pop("swarm")
    images: list[tuple[str, Loc]] = [
        (image, ("cluster", key, "image")) for key, image in agents.items()
    ]
    images += [(image, ("cluster", "images")) for image in cluster.images]
    for image, loc in images:
        archs = _archs_of(image)
        if archs is not None and settings.arch not in archs:
            made = " and ".join(archs) or "other processors"
            message = f"container image `{image}` is for {made}, not for {settings.arch}"
            hint = f"use an image for {settings.arch}, for example `hashicorp/consul:1.15.4`"
            place = find_setting(node.sources, loc) or _place(node, "profile")
            yield Diagnostic(place, message, hint if "consul" in image else hint.partition(",")[0])


def _archs_of(image: str) -> tuple[str, ...] | None:
    return next((archs for name, archs in _CONTAINERS if name.search(image)), None)


def _place(node: UnresolvedNode, *keys: str) -> Loc:
    """Return the path of the first of `keys` that a layer sets, else of the board."""
    found = (find_setting(node.sources, (key,)) for key in (*keys, "board"))
    return next(filter(None, found), node.sources[-1].loc)


def _choice(what: str, names: Iterable[str]) -> str:
    listed = [f"`{name}`" for name in names]
    return f"use {what} {' or '.join(listed[:_MOST_NAMES])}" if listed else ""
