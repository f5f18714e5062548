"""The class's keys, judged by openssl and ssh-keygen."""

from __future__ import annotations

import shutil
import socket
import ssl
import stat
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SettingsError, WriteError
from imagebuilder.model import Classroom, Docker, DockerTls, Network, Shack
from imagebuilder.shack.keystore import client_bundle, shack_certificate, with_identities
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TLS = Docker(tls=True, port=2376)


def secure_room(folder: Path, count: int = 2) -> Classroom:
    nodes = (node(n, docker=TLS, keep_host_keys=True) for n in range(1, count + 1))
    return make_classroom(folder, *nodes)


def tls_of(classroom: Classroom, index: int = 0) -> DockerTls:
    tls = classroom.nodes[index].docker_tls
    assert tls is not None
    return tls


def write_tls(folder: Path, tls: DockerTls) -> Path:
    folder.mkdir()
    (folder / "ca.pem").write_text(tls.ca)
    (folder / "cert.pem").write_text(tls.certificate)
    (folder / "key.pem").write_text(tls.key.reveal())
    return folder


def test_a_class_without_keys_makes_no_secrets_folder(tmp_path: Path) -> None:
    plain = make_classroom(tmp_path)
    assert with_identities(plain) is plain
    assert not (tmp_path / "secrets").exists()


def test_openssl_accepts_the_chain_and_finds_every_name(tmp_path: Path) -> None:
    need("openssl")
    tls = tls_of(with_identities(secure_room(tmp_path)))
    files = write_tls(tmp_path / "out", tls)
    run("openssl", "verify", "-CAfile", files / "ca.pem", "-purpose", "sslserver",
        "-verify_ip", "192.168.2.101", "-verify_hostname", "pi-01", files / "cert.pem")  # fmt: skip
    shown = run("openssl", "x509", "-in", files / "cert.pem", "-noout", "-text")
    for name in (
        "DNS:pi-01",
        "DNS:pi-01.local",
        "IP Address:192.168.2.101",
        "IP Address:127.0.0.1",
    ):
        assert name in shown
    assert "TLS Web Client Authentication" not in shown
    public = run("openssl", "x509", "-in", files / "cert.pem", "-noout", "-pubkey")
    assert public == run("openssl", "pkey", "-in", files / "key.pem", "-pubout")


def test_a_node_s_certificate_cannot_sign_another(tmp_path: Path) -> None:
    need("openssl")
    tls = tls_of(with_identities(secure_room(tmp_path)))
    files = write_tls(tmp_path / "out", tls)
    shown = run("openssl", "x509", "-in", files / "cert.pem", "-noout", "-ext", "basicConstraints")
    assert "CA:FALSE" in shown


def test_client_and_node_shake_hands_and_a_stranger_is_refused(tmp_path: Path) -> None:
    classroom = with_identities(secure_room(tmp_path))
    server = write_tls(tmp_path / "node", tls_of(classroom))
    bundle = client_bundle(classroom)
    stranger = client_bundle(secure_room(tmp_path / "other"))
    assert handshake(server, bundle, ca=bundle) == "hello"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(server, stranger, ca=bundle)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, bundle, ca=stranger)


def handshake(server: Path, client: Path, ca: Path) -> str:
    """Speak TLS once as dockerd --tlsverify does: both sides show a certificate."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server / "ca.pem"))
    serving.load_cert_chain(server / "cert.pem", server / "key.pem")
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=str(ca / "ca.pem"))
    asking.load_cert_chain(client / "cert.pem", client / "key.pem")
    here, there = socket.socketpair()
    with here, there:
        worker = threading.Thread(target=greet, args=(serving, there))
        worker.start()
        try:
            with asking.wrap_socket(here, server_hostname="192.168.2.101") as wrapped:
                return wrapped.recv(5).decode()
        finally:
            here.close()
            worker.join(5)


def greet(context: ssl.SSLContext, connection: socket.socket) -> None:
    try:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.sendall(b"hello")
            wrapped.recv(1)
    except (ssl.SSLError, OSError):
        connection.close()


def test_ssh_keygen_reads_both_host_keys(tmp_path: Path) -> None:
    need("ssh-keygen")
    keys = with_identities(secure_room(tmp_path)).nodes[0].host_keys
    assert [key.kind for key in keys] == ["ed25519", "ecdsa"]
    for key in keys:
        file = tmp_path / key.kind
        file.write_text(key.private.reveal())
        file.chmod(0o600)
        assert run("ssh-keygen", "-y", "-f", file).split()[:2] == key.public.split()[:2]
    assert keys[1].private.reveal().startswith("-----BEGIN EC PRIVATE KEY-----")


def test_the_same_class_gets_the_same_bytes_again(tmp_path: Path) -> None:
    first = with_identities(secure_room(tmp_path))
    assert with_identities(secure_room(tmp_path)) == first


def test_a_node_added_later_keeps_the_authority_and_the_others(tmp_path: Path) -> None:
    before = with_identities(secure_room(tmp_path, 2))
    after = with_identities(secure_room(tmp_path, 3))
    assert after.nodes[:2] == before.nodes
    assert tls_of(after, 2).ca == tls_of(before).ca
    assert after.nodes[2].host_keys != after.nodes[1].host_keys


def test_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    with_identities(secure_room(tmp_path))
    paths = [tmp_path / "secrets", *(tmp_path / "secrets").rglob("*")]
    assert len(paths) > 10
    modes = {stat.S_IMODE(p.stat().st_mode) for p in paths if p.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in paths if p.is_dir()} == {0o700}
    assert not list((tmp_path / "secrets").rglob("*.part"))


def test_git_does_not_see_the_secrets(tmp_path: Path) -> None:
    need("git")
    with_identities(secure_room(tmp_path))
    run("git", "init", "-q", tmp_path)
    assert run("git", "-C", tmp_path, "status", "--porcelain", "-uall") == ""


def test_a_thousand_nodes_have_their_keys_in_seconds(tmp_path: Path) -> None:
    crowd = [
        node(n, hostname=f"pi-{n:04d}", docker=TLS, network=Network(address=f"10.1.{n >> 8}.9/16"))
        for n in range(1000)
    ]
    start = time.monotonic()
    with_identities(make_classroom(tmp_path, *crowd), write=False)
    assert time.monotonic() - start < 30


def test_the_authority_s_key_is_on_no_card(tmp_path: Path) -> None:
    classroom = with_identities(secure_room(tmp_path))
    key = (tmp_path / "secrets" / "ca" / "key.pem").read_text()
    for settings in classroom.nodes:
        assert settings.docker_tls is not None
        assert key not in (settings.docker_tls.key.reveal(), settings.docker_tls.ca)
    assert "PRIVATE" not in repr(classroom)


def test_a_certificate_is_renewed_before_it_ends_and_keeps_its_key(tmp_path: Path) -> None:
    first = tls_of(with_identities(secure_room(tmp_path), now=NOW))
    soon = tls_of(with_identities(secure_room(tmp_path), now=NOW + timedelta(days=690)))
    late = tls_of(with_identities(secure_room(tmp_path), now=NOW + timedelta(days=710)))
    assert soon == first
    assert late.certificate != first.certificate
    assert (late.key, late.ca) == (first.key, first.ca)


def test_a_new_address_asks_for_a_new_certificate(tmp_path: Path) -> None:
    need("openssl")
    first = tls_of(with_identities(secure_room(tmp_path)))
    moved = node(1, docker=TLS, network=Network(address="192.168.2.77/24"))
    second = tls_of(with_identities(make_classroom(tmp_path, moved)))
    files = write_tls(tmp_path / "out", second)
    assert second.certificate != first.certificate
    run("openssl", "verify", "-CAfile", files / "ca.pem", "-verify_ip", "192.168.2.77",
        files / "cert.pem")  # fmt: skip


def test_it_holds_for_a_pi_whose_clock_stands_at_the_build_time(tmp_path: Path) -> None:
    need("openssl")
    files = write_tls(tmp_path / "out", tls_of(with_identities(secure_room(tmp_path), now=NOW)))
    at = str(int((NOW - timedelta(hours=2)).timestamp()))
    run("openssl", "verify", "-attime", at, "-CAfile", files / "ca.pem", files / "cert.pem")


def test_a_dry_run_makes_keys_but_writes_none(tmp_path: Path) -> None:
    classroom = with_identities(secure_room(tmp_path), write=False)
    assert classroom.nodes[0].docker_tls is not None
    assert tls_of(classroom).ca == tls_of(classroom, 1).ca
    assert not (tmp_path / "secrets").exists()


@pytest.mark.parametrize(
    ("network", "count", "first"),
    [
        (Network(address="192.168.2.101/24"), 1, "192.168.2.101"),
        (Network(dhcp_range="192.168.2.50-192.168.2.99"), 50, "192.168.2.50"),
        (Network(dhcp_range="192.168.2.50, 192.168.2.51"), 2, "192.168.2.50"),
        (Network(dhcp_range="10.0.0.1-10.0.9.1"), 0, ""),
        (Network(dhcp_range="192.168.2.99-192.168.2.50"), 0, ""),
        (Network(dhcp_range="some"), 0, ""),
        (Network(), 0, ""),
    ],
)
def test_addresses_that_a_node_may_have(network: Network, count: int, first: str) -> None:
    found = network.addresses
    assert len(found) == count
    assert not count or found[0] == first


def test_the_manager_is_both_server_and_client(tmp_path: Path) -> None:
    need("openssl")
    classroom = secure_room(tmp_path)
    files = write_tls(tmp_path / "out", shack_certificate(classroom))
    for purpose in ("sslserver", "sslclient"):
        run("openssl", "verify", "-purpose", purpose, "-CAfile", files / "ca.pem",
            "-verify_ip", "192.168.2.1", files / "cert.pem")  # fmt: skip
    assert shack_certificate(classroom).ca == tls_of(with_identities(classroom)).ca


def test_a_shack_known_by_name_gets_that_name(tmp_path: Path) -> None:
    need("openssl")
    classroom = replace(secure_room(tmp_path), shack=Shack(address="shack.example"))
    files = write_tls(tmp_path / "out", shack_certificate(classroom))
    run("openssl", "verify", "-CAfile", files / "ca.pem", "-verify_hostname", "shack.example",
        files / "cert.pem")  # fmt: skip


def test_a_spoilt_key_is_named_not_replaced(tmp_path: Path) -> None:
    with_identities(secure_room(tmp_path))
    spoilt = tmp_path / "secrets" / "ca" / "key.pem"
    spoilt.write_text("not a key\n")
    with pytest.raises(SettingsError, match=r"ca/key\.pem is not a key"):
        with_identities(secure_room(tmp_path))
    assert spoilt.read_text() == "not a key\n"


def lose(ca: Path) -> None:
    (ca / "key.pem").unlink()


def swap(ca: Path) -> None:
    need("openssl")
    (ca / "key.pem").write_text(run("openssl", "ecparam", "-genkey", "-noout", "-name", "P-256"))


def another_kind(ca: Path) -> None:
    need("openssl")
    (ca / "key.pem").write_text(run("openssl", "genpkey", "-algorithm", "ed25519"))


def spoil(ca: Path) -> None:
    (ca / "key.pem").write_text("-----BEGIN EC PRIVATE KEY-----\n")


def spoil_certificate(ca: Path) -> None:
    (ca / "cert.pem").write_text("")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lose, "the key of the class CA is missing"),
        (swap, "is not the key of its certificate"),
        (another_kind, "is not the key of its certificate"),
        (spoil, "is not a key"),
        (spoil_certificate, "is not a certificate"),
    ],
)
def test_an_authority_that_was_damaged_is_never_made_anew(
    damage: Callable[[Path], None], complaint: str, tmp_path: Path
) -> None:
    before = tls_of(with_identities(secure_room(tmp_path)))
    ca = tmp_path / "secrets" / "ca"
    damage(ca)
    kept = contents(tmp_path)
    with pytest.raises(SettingsError, match=complaint) as caught:
        with_identities(secure_room(tmp_path, 3))
    assert f"restore {ca} from a copy; without one, remove the folder {ca}" in caught.value.hint
    assert not (tmp_path / "secrets" / "nodes" / "pi-03" / "cert.pem").exists()
    for path in kept:
        assert path.read_bytes() == kept[path]
    shutil.rmtree(ca)
    after = tls_of(with_identities(secure_room(tmp_path)))
    assert after.ca != before.ca
    files = write_tls(tmp_path / "out", after)
    run("openssl", "verify", "-CAfile", files / "ca.pem", files / "cert.pem")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_authority_that_has_expired_signs_nothing(tmp_path: Path) -> None:
    with_identities(secure_room(tmp_path), now=NOW)
    with pytest.raises(SettingsError, match="expired on 2036-04-28") as caught:
        with_identities(secure_room(tmp_path), now=NOW + timedelta(days=3651))
    assert caught.value.exit_code == 3
    assert "write the shack and all cards again" in caught.value.hint


def test_a_file_in_the_folder_s_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("")
    with pytest.raises(WriteError, match="cannot use the secrets folder"):
        with_identities(secure_room(tmp_path))


def test_a_class_without_a_shack_has_no_manager(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no `shack:`"):
        shack_certificate(make_classroom(tmp_path, shack=None))
