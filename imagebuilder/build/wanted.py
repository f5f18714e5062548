"""What a node should be, setting by setting: without its base image and without secrets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from imagebuilder.build.compose import MOST_TARBALL_BYTES
from imagebuilder.errors import RpiImageError
from imagebuilder.files import read_file
from imagebuilder.model import OverlayFile
from imagebuilder.plan.context import node_variables
from imagebuilder.plan.overlays import load_generations, load_overlay, node_overlay
from imagebuilder.plan.vendor.wifi import hash_psk
from imagebuilder.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from imagebuilder.model import NodeSettings, Secret, WifiNetwork

# Computed from other settings, which are compared themselves.
_DERIVED = frozenset(
    {"machines", "network.ip", "network.prefix", "network.netmask", "network.family"}
)
_NETWORKS = "wifi.networks"  # would change with a key that is not read
# May be missing where settings are only read, for example because a variable is not set.
SECRETS = ("user.password", "cluster.consul.encrypt", "wifi.key.")
OWN_FILES = "files of rpi-image"
LONGEST_VALUE = 300  # characters; a longer value is recorded as a digest
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting that differs; an empty text means that it is not set."""

    setting: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.before or 'not set'} → {self.after or 'not set'}"


@dataclass(slots=True)
class WantedSettings:
    """Describes nodes; each folder and container image is read once."""

    _digests: dict[Path | None, str] = field(default_factory=dict)

    def of(self, settings: NodeSettings) -> dict[str, str]:
        """Return what the card of a node depends on, each value as text.

        Secrets are slow or salted hashes of secrets, hashed again. Keys that are made for the class
        (SSH host keys, TLS) and what only the base image decides are left out.
        """
        image = settings.image
        found = dict(_flat(node_variables(settings, settings.generation or image.generation or "")))
        found |= {
            "image": image.name or str(image.file or image.url),
            "image.sha256": image.raw_sha256 or image.sha256,
            "keep_host_keys": _text(settings.keep_host_keys),
            "docker.storage_driver": settings.docker.storage_driver,
            OWN_FILES: self._digest(None, _own_files),
        }
        found |= {f"set.{key}": _digest(value.encode()) for key, value in settings.variables}
        for number, folder in enumerate(settings.overlays, start=1):
            digest = self._digest(folder, partial(_folder_files, folder))
            found[f"overlays.{number}"] = f"{folder.name} {digest}"
        for number, path in enumerate(map(Path, settings.cluster.tarballs), start=1):
            digest = self._digest(path, partial(_tarball, path))
            found[f"cluster.tarballs.{number}"] = f"{path.name} {digest}"
        found[_NETWORKS] = _text([_without_key(network) for network in settings.wifi.networks])
        found |= dict(_secrets(settings))
        return {key: value for key, value in found.items() if value and key not in _DERIVED}

    def _digest(self, place: Path | None, files: Callable[[], Iterable[OverlayFile]]) -> str:
        if place not in self._digests:
            try:
                self._digests[place] = _digest_of_files(files())
            except RpiImageError:  # a dry look must not fail, and `check` names the file
                self._digests[place] = "unreadable"
        return self._digests[place]


def _own_files() -> list[OverlayFile]:
    """Return the files of the program that a card may get."""
    files = list(node_overlay())
    for generation in load_generations((shipped_folder("overlays"),)):
        files += generation.files
    return files


def _folder_files(folder: Path) -> list[OverlayFile]:
    files = list(load_overlay(folder))
    for generation in load_generations((folder,)):
        files += generation.files
    return files


def _tarball(path: Path) -> list[OverlayFile]:
    data = read_file(path, "container image", MOST_TARBALL_BYTES)
    return [OverlayFile(path.name, data, str(path))]


def as_recorded(wanted: Mapping[str, str]) -> str:
    """Return what a node should be as one line of JSON, for the ledger."""
    return json.dumps(wanted, sort_keys=True, ensure_ascii=False)


def wanted_hash(wanted: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of what a node should be."""
    return hashlib.sha256(as_recorded(wanted).encode("utf-8", "surrogateescape")).hexdigest()


def settings_digest(wanted: Mapping[str, str]) -> str:
    """Return two digests of what a node should be, for other stations: without and of its secrets.

    The number of secrets is told as well, because some may be missing where settings are read.
    """
    secret = {key: value for key, value in wanted.items() if key.startswith(SECRETS)}
    plain = {key: value for key, value in wanted.items() if key not in secret}
    return f"{wanted_hash(plain)} {len(secret)} {wanted_hash(secret)}"


def same_settings(before: str, after: str, *, secrets_read: bool) -> bool:
    """Return whether two of these digests agree; missing secrets count as unchanged."""
    plain_before, _, secrets_before = before.partition(" ")
    plain_after, _, secrets_after = after.partition(" ")
    unread = not secrets_read and secrets_before[:1] != secrets_after[:1]
    return plain_before == plain_after and (unread or secrets_before == secrets_after)


def changes_between(
    before: Mapping[str, str], after: Mapping[str, str], *, secrets_read: bool = True
) -> tuple[SettingChange, ...]:
    """Return the settings that differ, by name.

    Without `secrets_read`, a secret that is missing now counts as unchanged.
    """
    names = sorted(before.keys() | after.keys())
    changes = (
        SettingChange(name, _shown(name, before.get(name)), _shown(name, after.get(name)))
        for name in names
        if before.get(name) != after.get(name)
        and (secrets_read or name in after or not is_secret(name))
    )
    return tuple(changes)


def is_secret(setting: str) -> bool:
    """Return whether only the hash of this setting is recorded."""
    return setting.startswith(SECRETS)


def _shown(name: str, value: str | None) -> str:
    return "(secret)" if value and is_secret(name) else value or ""


def _flat(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", _text(value)


def _text(value: object) -> str:
    """Return a value as text; nothing for what is not set."""
    if not value:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else _digest(text.encode())


def _secrets(settings: NodeSettings) -> Iterator[tuple[str, str]]:
    for number, network in enumerate(settings.wifi.networks, start=1):
        yield f"wifi.key.{number}", _wifi_key(network)
    yield "user.password", _hashed(settings.user.password_hash if settings.user else None)
    yield "cluster.consul.encrypt", _hashed(settings.cluster.consul_encrypt)


def _without_key(network: WifiNetwork) -> str:
    words = [network.ssid, network.security or "", "hidden" * network.hidden]
    words.append(str(network.priority or ""))
    return " ".join(filter(None, words))


def _wifi_key(network: WifiNetwork) -> str:
    """Return a hash that is as slow to guess as the key from captured wifi traffic."""
    if network.psk:
        return _hashed(network.psk)
    if network.passphrase is None:
        return ""
    return _digest(hash_psk(network.passphrase.reveal(), network.ssid).encode())


def _hashed(secret: Secret | None) -> str:
    return _digest(secret.reveal().encode()) if secret else ""


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()[:_DIGITS]}"


def _digest_of_files(files: Iterable[OverlayFile]) -> str:
    parts = [f"{file.path}\0{hashlib.sha256(file.data).hexdigest()}" for file in files]
    return _digest("\n".join(sorted(parts)).encode("utf-8", "surrogateescape"))
