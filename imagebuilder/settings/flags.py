"""Turn the flags that describe nodes into a document that overrides a classroom file."""

from __future__ import annotations

import contextlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from imagebuilder.errors import Problem
    from imagebuilder.model import Classroom, NodeSettings
    from imagebuilder.progress import Prompter
    from imagebuilder.settings.catalog import PublishedLists


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFlags:
    """What the flags of one command line say; None and empty where they say nothing."""

    profile: str | None = None
    board: str | None = None
    hostname: str | None = None
    image: str | None = None
    catalog: str | None = None
    sha256: str | None = None
    no_checksum: bool = False
    allow_http: bool = False
    generation: str | None = None
    wifi_ssid: str | None = None
    wifi_passphrase_file: Path | None = None
    wifi_country: str | None = None
    wifi_open: bool = False
    address: str | None = None
    user: str | None = None
    user_password_file: Path | None = None
    timezone: str | None = None
    locale: str | None = None
    keyboard: str | None = None
    shack: str | None = None
    registry: str | None = None
    label: tuple[tuple[str, str], ...] = ()
    ssh_key: tuple[Path, ...] = ()
    overlay: tuple[Path, ...] = ()
    set_: tuple[tuple[str, str], ...] = ()
    config: Path | None = None
    profiles: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()

    @property
    def describe_nodes(self) -> bool:
        """Whether the flags describe nodes; otherwise an image is used as it is."""
        return bool(self.config or self.hostname or self.profile or self.board)


def document_from_flags(flags: NodeFlags) -> dict[str, object]:
    """Return the flags as the top level of a classroom file.

    Raise InputError if flags exclude each other or need another one.
    """
    _check_partners(flags)
    document: dict[str, object | None] = {
        "profile": flags.profile,
        "board": flags.board,
        "image": _image(flags),
        "catalog": flags.catalog,
        "generation": flags.generation,
        "wifi": _wifi(flags),
        "network": {} if flags.address is None else {"address": flags.address},
        "user": _user(flags),
        "timezone": flags.timezone,
        "locale": flags.locale,
        "keyboard": flags.keyboard,
        "shack": _shack(flags),
        "docker": _docker(flags),
        "ssh_keys": [{"file": str(path)} for path in flags.ssh_key],
        "overlays": [str(path) for path in flags.overlay],
        "set": dict(flags.set_),
        "allow": list(flags.allow),
        "nodes": [{"hostname": flags.hostname}] if flags.hostname is not None else None,
    }
    return {key: value for key, value in document.items() if value not in (None, [], {})}


def _check_partners(flags: NodeFlags) -> None:
    if flags.sha256 and flags.no_checksum:
        raise InputError("--sha256 and --no-checksum exclude each other", "use one of them")
    if (flags.sha256 or flags.no_checksum) and not flags.image:
        raise InputError("--sha256 and --no-checksum need --image", "use --image as well")
    _check_wifi(flags)
    if flags.user_password_file and flags.user is None and flags.config is None:
        raise InputError("--user-password-file needs --user", "use --user as well")
    if flags.hostname is None and flags.config is None:
        raise InputError("the node has no hostname", "use --hostname NAME or --config FILE")
    if flags.profile is None and flags.board is None and flags.config is None:
        from imagebuilder.settings.catalog import load_profiles  # noqa: PLC0415 - slow, see below

        known = ", ".join(profile.name for profile in load_profiles(flags.profiles))
        raise InputError(
            "the node has no profile", f"use --board, or --profile with one of: {known}"
        )


def _check_wifi(flags: NodeFlags) -> None:
    secret, is_open = flags.wifi_passphrase_file, flags.wifi_open
    if secret and flags.wifi_ssid is None:
        raise InputError("--wifi-passphrase-file needs --wifi-ssid", "use --wifi-ssid as well")
    if is_open and flags.wifi_ssid is None:
        raise InputError("--wifi-open needs --wifi-ssid", "use --wifi-ssid as well")
    if is_open and secret:
        raise InputError(
            "--wifi-open and --wifi-passphrase-file exclude each other", "use one of them"
        )
    if flags.wifi_ssid is not None and not secret and not is_open:
        raise InputError(
            "--wifi-ssid without a passphrase",
            "use --wifi-passphrase-file FILE, or --wifi-open for an open network",
        )


def _user(flags: NodeFlags) -> dict[str, object]:
    document: dict[str, object] = {}
    if flags.user is not None:
        document["name"] = flags.user
    if flags.user_password_file:
        document["password"] = {"file": str(flags.user_password_file)}
    return document


def _image(flags: NodeFlags) -> dict[str, object] | None:
    if flags.image is None:
        return None
    from imagebuilder.settings.schema.documents import classify_image  # noqa: PLC0415 - slow, see below

    document: dict[str, object] = {classify_image(flags.image): flags.image}
    if flags.sha256:
        document["sha256"] = flags.sha256
    return {**document, "unchecked": True} if flags.no_checksum else document


def _wifi(flags: NodeFlags) -> dict[str, object]:
    document: dict[str, object] = {}
    if flags.wifi_country is not None:
        document["country"] = flags.wifi_country
    if flags.wifi_ssid is not None:
        network: dict[str, object] = {"ssid": flags.wifi_ssid}
        if flags.wifi_passphrase_file:
            network["passphrase"] = {"file": str(flags.wifi_passphrase_file)}
        document["networks"] = [network]
    return document


def _shack(flags: NodeFlags) -> dict[str, object] | None:
    if flags.shack is None:
        return None
    # With a flag only the address is known, not the services; a file lists them.
    services: dict[str, object] = {} if flags.config else {"services": []}
    return {"address": flags.shack, **services}


def _docker(flags: NodeFlags) -> dict[str, object]:
    document: dict[str, object] = {}
    if flags.label:
        document["labels"] = dict(flags.label)
    if flags.registry is not None:
        from imagebuilder.settings.schema.addresses import host_port  # noqa: PLC0415 - slow, see below

        document["insecure_registries"] = [flags.registry]
        # Do not report a wrong --registry twice, as the mirror as well.
        with contextlib.suppress(ValueError):
            document["registry_mirrors"] = [f"http://{host_port(flags.registry)}"]
    return document


def classroom_from_flags(
    flags: NodeFlags,
    prompter: Prompter,
    environment: Mapping[str, str],
    lists: PublishedLists | None = None,
) -> Classroom:
    """Return the classroom of the flags and their --config; warn of doubtful settings.

    Ask for secrets that need a prompt. Raise SettingsError with all problems.
    """
    # Imported here because pydantic is slow and not needed for an image as it is.
    from imagebuilder.settings.load import read_classroom, refusal  # noqa: PLC0415

    reading = read_classroom(
        flags.config,
        overrides=document_from_flags(flags),
        environment=environment,
        ask=prompter.ask_secret,
        profile_folders=flags.profiles,
        lists=lists,
    )
    if reading.classroom is None:
        raise refusal(flags.config, reading.problems)
    for problem in reading.problems:
        prompter.warn(worded(problem))
    return reading.classroom


def worded(problem: Problem) -> str:
    """Return a warning with the word that acknowledges it."""
    return f"{problem} [{problem.word}]" if problem.word else str(problem)


def node_from_flags(
    flags: NodeFlags,
    prompter: Prompter,
    environment: Mapping[str, str],
    lists: PublishedLists | None = None,
) -> tuple[Classroom, NodeSettings]:
    """Return the one node of the flags. Raise InputError if the file has several."""
    classroom = classroom_from_flags(flags, prompter, environment, lists)
    if len(classroom.nodes) > 1:
        names = ", ".join(node.hostname for node in classroom.nodes[:3])
        raise InputError(
            f"{flags.config} has {len(classroom.nodes)} nodes",
            f"use --hostname with one of {names} …",
        )
    return classroom, classroom.nodes[0]


def check_names(flags: NodeFlags, names: str) -> None:
    """Raise InputError if nodes are selected without a classroom file."""
    if names and not flags.config:
        raise InputError(f"{names} without a classroom file", "use -c FILE as well")


def choose_nodes(classroom: Classroom, names: str) -> tuple[NodeSettings, ...]:
    """Return the nodes in --node (`a,pi-[01-03]`), in the given order, with duplicates.

    If it is empty, return all in roster order. Raise InputError for an unknown node.
    """
    if not names:
        return classroom.nodes
    wanted = _expanded_names(names)
    if not wanted:
        raise InputError("--node is empty", "use for example --node pi-01,pi-02")
    known = {node.hostname: node for node in classroom.nodes}
    if unknown := [name for name in wanted if name not in known]:
        roster = ", ".join(sorted(known)[:8])
        raise InputError(f"not in the roster: {', '.join(unknown)}", f"the roster has {roster} …")
    return tuple(known[name] for name in wanted)


def _expanded_names(names: str) -> list[str]:
    from imagebuilder.settings.roster import MAX_NODES, RangeError, expand_range  # noqa: PLC0415 - as above

    # A comma within brackets belongs to its range.
    parts = (part.strip() for part in re.split(r",(?![^\[\]]*\])", names))
    try:
        names_found = itertools.chain.from_iterable(expand_range(part) for part in parts if part)
        chosen = list(itertools.islice(names_found, MAX_NODES + 1))
    except RangeError as error:
        raise InputError(f"--node: {error}", error.hint) from None
    if len(chosen) > MAX_NODES:
        raise InputError(f"--node names more than {MAX_NODES} nodes", "name fewer")
    return chosen
