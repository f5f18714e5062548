"""Make and store the keys of a class: CA, certificates of nodes and clients, SSH host keys."""

from __future__ import annotations

import dataclasses
import ipaddress
import uuid
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from filelock import FileLock

from imagebuilder.errors import SettingsError, WriteError
from imagebuilder.files import hand_over, make_folder, write_file
from imagebuilder.model import DockerTls, HostKey, Secret
from imagebuilder.shack.certificates import (
    CLIENT,
    MANAGER,
    SERVER,
    Authority,
    CertificateSubject,
    certificate_pem,
    issue,
    issue_ca,
    load_authority,
    load_key,
    new_ecdsa,
    new_ed25519,
    private_pem,
    ssh_public,
    still_serves,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from imagebuilder.model import Classroom, NodeSettings


LEDGER_TOKEN, NODES_TOKEN = "ledger", "nodes"


def with_identities(
    classroom: Classroom, *, write: bool = True, now: datetime | None = None
) -> Classroom:
    """Return the classroom with keys, certificates and tokens set in its nodes, as configured.

    Keys in the secrets folder are used again, so the result is the same. Those that are missing,
    about to expire or have other names are made again; with `write=False` they stay in memory.
    """
    if not classroom.has_keys:
        return classroom
    with _open_keystore(classroom, write=write, now=now) as keystore:
        token = keystore.token(NODES_TOKEN) if classroom.ledger_consul else None
        nodes = tuple(
            _with_identity(dataclasses.replace(node, consul_token=token), keystore)
            for node in classroom.nodes
        )
    return dataclasses.replace(classroom, nodes=nodes)


def shack_certificate(
    classroom: Classroom, *, write: bool = True, now: datetime | None = None
) -> DockerTls:
    """Return the certificate of the swarm manager, a server to clients and a client of engines."""
    shack = classroom.shack
    if shack is None:
        raise SettingsError("the class has no `shack:`", "add `shack: {address: …}`")
    addresses = ("127.0.0.1",) if not _is_address(shack.address) else (shack.address, "127.0.0.1")
    names = tuple(dict.fromkeys(_names(shack.hostname) + _name_of(shack.address)))
    with _open_keystore(classroom, write=write, now=now) as keystore:
        return keystore.certificate(
            "shack", CertificateSubject(shack.hostname, MANAGER, names, addresses)
        )


def client_bundle(classroom: Classroom, *, write: bool = True, now: datetime | None = None) -> Path:
    """Make the instructor's DOCKER_CERT_PATH (ca.pem, cert.pem, key.pem); return its path."""
    with _open_keystore(classroom, write=write, now=now) as keystore:
        keystore.certificate("client", CertificateSubject("instructor", CLIENT))
    return classroom.secrets / "client"


@dataclasses.dataclass(frozen=True, slots=True)
class ConsulTokens:
    """The ACL tokens of the shack's consul: for everything, for claims, and for nodes."""

    management: Secret
    ledger: Secret
    nodes: Secret


def consul_tokens(classroom: Classroom, *, write: bool = True) -> ConsulTokens:
    """Return the tokens in the secrets folder; make missing ones."""
    with _open_keystore(classroom, write=write, now=None) as keystore:
        return ConsulTokens(*map(keystore.token, ("management", LEDGER_TOKEN, NODES_TOKEN)))


def _with_identity(node: NodeSettings, keystore: KeyStore) -> NodeSettings:
    if node.keep_host_keys:
        node = dataclasses.replace(node, host_keys=keystore.host_keys(node.hostname))
    if node.docker.tls:
        addresses = (*node.network.addresses, "127.0.0.1")
        subject = CertificateSubject(node.hostname, SERVER, _names(node.hostname), addresses)
        tls = keystore.certificate(f"nodes/{node.hostname}", subject)
        node = dataclasses.replace(node, docker_tls=tls)
    return node


def _names(hostname: str) -> tuple[str, ...]:
    return (hostname, f"{hostname}.local", "localhost")


def _name_of(address: str) -> tuple[str, ...]:
    return () if _is_address(address) else (address,)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# ---- the folder


@contextmanager
def _open_keystore(
    classroom: Classroom, *, write: bool, now: datetime | None
) -> Iterator[KeyStore]:
    """Yield the key store, locked: two commands at once must not make two CAs."""
    folder, moment = classroom.secrets, now or datetime.now(UTC)
    try:
        if write:
            _make_folder(folder)
            _keep_out_of_git(folder)
        lock: AbstractContextManager[object] = (
            FileLock(folder / ".lock", mode=0o600) if write else nullcontext()
        )
        with lock:
            hand_over(folder / ".lock")
            yield KeyStore(folder, write=write, now=moment, class_name=classroom.name)
    except OSError as error:
        raise WriteError(
            f"cannot use the secrets folder {folder}: {error.strerror}", "check its permissions"
        ) from error


class KeyStore:
    """The stored keys of one class; missing ones are made."""

    def __init__(self, folder: Path, *, write: bool, now: datetime, class_name: str) -> None:
        self._folder, self._write, self._now, self._class = folder, write, now, class_name
        self._authority: Authority | None = None

    def certificate(self, place: str, subject: CertificateSubject) -> DockerTls:
        """Return the certificate stored at `place`, or a new one if it does not match any more."""
        ca = self._ca()
        key = self._key(f"{place}/key.pem")
        kept = self._read(f"{place}/cert.pem")
        if kept is None or not still_serves(kept, subject, key, ca, self._now):
            kept = certificate_pem(issue(subject, key, ca, self._now))
            self._save(f"{place}/cert.pem", kept)
        ca_pem = certificate_pem(ca.certificate)
        if self._read(f"{place}/ca.pem") != ca_pem:
            self._save(f"{place}/ca.pem", ca_pem)
        return DockerTls(ca_pem.decode(), kept.decode(), Secret(private_pem(key).decode()))

    def host_keys(self, hostname: str) -> tuple[HostKey, ...]:
        """Return the stored SSH host keys; ECDSA as PEM, the only format of OpenSSH 6.0."""
        return (
            self._host_key(hostname, "ed25519", new_ed25519),
            self._host_key(hostname, "ecdsa", new_ecdsa),
        )

    def token(self, name: str) -> Secret:
        """Return a stored token of consul."""
        path = f"consul/{name}"
        kept = self._read(path)
        if kept is None:
            kept = str(uuid.uuid4()).encode()
            self._save(path, kept)
        return Secret(kept.decode("ascii", "replace").strip())

    def _host_key(self, hostname: str, kind: str, make: Callable[[], bytes]) -> HostKey:
        path = f"nodes/{hostname}/ssh_host_{kind}_key"
        private = self._read(path)
        if private is None:
            private = make()
            self._save(path, private)
        public = f"{ssh_public(private, self._folder / path)} root@{hostname}\n"
        if self._read(f"{path}.pub") != public.encode():
            self._save(f"{path}.pub", public.encode())
        return HostKey(kind, Secret(private.decode()), public)

    def _ca(self) -> Authority:
        if self._authority is None:
            kept = self._read("ca/cert.pem")
            if kept is None:
                self._authority = self._new_ca()
            else:
                key = self._read("ca/key.pem")
                self._authority = load_authority(kept, key, self._folder / "ca", self._now)
        return self._authority

    def _new_ca(self) -> Authority:
        key = self._key("ca/key.pem")
        certificate = issue_ca(self._class, key, self._now)
        self._save("ca/cert.pem", certificate_pem(certificate))
        return Authority(certificate, key)

    def _key(self, path: str) -> ec.EllipticCurvePrivateKey:
        kept = self._read(path)
        if kept is None:
            key = ec.generate_private_key(ec.SECP256R1())
            self._save(path, private_pem(key))
            return key
        loaded = load_key(kept, self._folder / path)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise unreadable(self._folder / path)
        return loaded

    def _read(self, path: str) -> bytes | None:
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def _save(self, path: str, data: bytes) -> None:
        if self._write:
            _write_secret(self._folder / path, data, self._folder)


def _make_folder(folder: Path) -> None:
    make_folder(folder, 0o700)
    folder.chmod(0o700)


def _keep_out_of_git(folder: Path) -> None:
    ignore = folder / ".gitignore"
    if not ignore.exists():
        _write_secret(ignore, b"*\n", folder)


def _write_secret(path: Path, data: bytes, top: Path) -> None:
    """Write a file atomically that only its owner may read."""
    for parent in reversed([p for p in path.parents if p.is_relative_to(top)]):
        _make_folder(parent)
    write_file(path, data, 0o600)
