"""Read the cloud-init files of an image, so that templates can keep their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imagebuilder.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NETWORK = "network-config"
_HINT = f"fix {NETWORK} in the image, or replace it with an overlay that has its own"

# The keys of an interface that our settings replace.
_OURS = frozenset({"optional", "dhcp4", "regulatory-domain", "access-points"})


def merged_network(
    document: Mapping[str, object], version: int, *, wired: str, wifi: str
) -> dict[str, object]:
    """Return the parts of a network-config to keep with our own settings of version 1 or 2.

    `wired` and `wifi` are the interfaces that the settings set, empty for none. `whole` is a
    document that stays as it is: it has another version, or switches the network off. Raise
    ImageError if the settings cannot be added to it.
    """
    found = _section(document, "network") if "network" in document else document
    if found and found.get("version") != version:
        if wired or wifi:
            said = found.get("version", found.get("config", "none"))
            raise ImageError(
                f"{NETWORK} of the image has version {said!r}, which the settings of the network "
                f"(version {version}) cannot be added to",
                f"{_HINT}, or leave out `network.address` and `wifi`",
            )
        return {"whole": document, "config": [], "ethernets": {}, "wifis": {}, "rest": {}}
    if version == 1:
        return {"whole": {}, "config": [*_entries(found, wired)]}
    wifis = _interfaces(found, "wifis")
    points = _section(wifis.get(wifi, {}), "access-points") if wifi else {}
    return {
        "whole": {},
        "ethernets": _without(_interfaces(found, "ethernets"), wired),
        "wifis": _without(wifis, wifi),
        "same_wifi": _without(wifis.get(wifi, {}), *_OURS) if wifi else {},
        "access_points": points,
        "rest": _without(found, "version", "ethernets", "wifis"),
    }


def _entries(found: Mapping[str, object], wired: str) -> Iterator[Mapping[str, object]]:
    entries = found.get("config") or []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ImageError(f"`config` in {NETWORK} of the image is not a list of mappings", _HINT)
    yield from (each for each in entries if not wired or each.get("name") != wired)


def _interfaces(found: Mapping[str, object], kind: str) -> Mapping[str, Mapping[str, object]]:
    section = _section(found, kind)
    return {name: _section(section, name) for name in section}


def _section(found: Mapping[str, object], name: str) -> Mapping[str, Any]:
    section = found.get(name) or {}
    if not isinstance(section, dict):
        raise ImageError(f"`{name}` in {NETWORK} of the image is not a mapping", _HINT)
    return section


def _without(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


# ---- users


def other_users(users: object, ours: str, *, keep_login: bool = False) -> list[object]:
    """Return the entries of `users` in user-data besides the login that `ours` replaces.

    The login is the first one; `default` is that of the distribution, which `user:` renames. With
    `keep_login` it stays as well.
    """
    if isinstance(users, str):
        entries: list[object] = [name.strip() for name in users.split(",")]
    elif isinstance(users, dict):
        entries = [_named(name, value) for name, value in users.items()]
    else:
        entries = list(users) if isinstance(users, list) else []
    login = "" if keep_login else first_login(users)
    return [each for each in entries if _name(each) not in {"", "default", ours, login}]


def first_login(users: object) -> str:
    """Return the name of the first user in user-data; empty for the distribution's default."""
    names = users.split(",") if isinstance(users, str) else users
    first = next(iter(names), "") if isinstance(names, list | dict) else ""
    name = _name(first).strip()
    return "" if name == "default" else name


def other_passwords(chpasswd: object, ours: str, others: Iterable[object]) -> object:
    """Return `chpasswd` of user-data without the passwords of users that will not exist.

    The module set-passwords of cloud-init fails for all users if one of them does not exist.
    """
    names = {"root", ours, *map(_name, others)}
    if not isinstance(chpasswd, dict):
        return chpasswd
    kept = dict(chpasswd)
    if isinstance(listed := kept.get("users"), list):
        kept["users"] = [each for each in listed if _name(each) in names]
    lines = kept.get("list")
    if isinstance(lines, str):
        text = (line for line in lines.splitlines() if line.partition(":")[0].strip() in names)
        kept["list"] = "".join(f"{line}\n" for line in text)
    elif isinstance(lines, list):
        kept["list"] = [each for each in lines if str(each).partition(":")[0].strip() in names]
    empty = [name for name in ("users", "list") if name in kept and not kept[name]]
    return {name: value for name, value in kept.items() if name not in empty}


def _named(name: object, value: object) -> object:
    return {**value, "name": name} if isinstance(value, dict) else name


def _name(entry: object) -> str:
    return str(entry.get("name", "")) if isinstance(entry, dict) else str(entry or "")
