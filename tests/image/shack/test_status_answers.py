"""Asking a shack: recorded answers over real HTTP, and everything a network can do wrong."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import SourceError
from imagebuilder.model import Classroom, Shack
from imagebuilder.shack.cluster import MOST_BYTES, MOST_VALUES, ClientCertificate, ask_shack
from imagebuilder.shack.keystore import client_bundle, shack_certificate
from imagebuilder.shack.status import ClusterState, Member
from tests.lib.classroom_samples import make_classroom
from tests.lib.shack_server import RECORDINGS, Answer, answering, consul_answers, manager_answers
from tests.lib.webserver import talking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def shack(consul: dict[str, Answer], manager: dict[str, Answer]) -> Iterator[Shack]:
    with answering(consul) as consul_port, answering(manager) as swarm_port:
        yield Shack(address="127.0.0.1", consul_port=consul_port, swarm_port=swarm_port)


def ask(consul: dict[str, Answer], manager: dict[str, Answer] | None = None) -> ClusterState:
    with shack(consul, manager or manager_answers("1.2.9")) as there:
        return ask_shack(there, timeout_seconds=2)


def test_the_seed_s_own_versions() -> None:
    found = ask(consul_answers("0.5.0"), manager_answers("0.2.0"))
    assert found.leader == "192.168.2.1:8300"
    assert found.members == (
        Member("pi-01", "192.168.2.101"),
        Member("pi-02", "192.168.2.102", alive=False),
        Member("shack", "192.168.2.1"),
    )
    assert found.registered == ("192.168.2.101:2375", "192.168.2.99:2375")
    assert found.engines is not None
    assert [(e.name, e.address, e.arch, e.healthy) for e in found.engines] == [
        ("pi-01", "192.168.2.101", "armv7", True)
    ]


def test_consul_1_and_swarm_1() -> None:
    found = ask(consul_answers("1.8.7"), manager_answers("1.2.9"))
    assert [(m.name, m.alive) for m in found.members] == [
        ("pi-01", True),
        ("pi-02", False),
        ("shack", True),
    ]
    assert found.engines is not None
    pending, well = found.engines
    assert (pending.name, pending.healthy, pending.status) == ("", False, "Pending")
    assert pending.error.startswith("Cannot connect")
    assert (well.name, well.version, well.error) == ("pi-01", "17.03.1-ce", "")


def test_nobody_has_registered_yet() -> None:
    answers = consul_answers("1.8.7")
    del answers["/v1/kv/swarm/?recurse"]
    assert ask(answers).registered == ()


def test_a_consul_that_lists_the_nodes_and_no_more() -> None:
    nodes = "/v1/catalog/nodes"
    found = ask({nodes: consul_answers("0.5.0")[nodes]})
    assert found.leader == ""
    assert [(member.name, member.alive) for member in found.members] == [
        ("pi-01", True),
        ("pi-02", True),
        ("shack", True),
    ]
    assert found.engines is not None


@pytest.mark.parametrize("path", ["/v1/catalog/nodes", "/info"])
def test_a_path_that_has_to_be_there_is_named(path: str) -> None:
    words = rf"http://127\.0\.0\.1:\d+{path} answered 404: nf"
    if path == "/info":
        assert re.fullmatch(words, ask(consul_answers("0.5.0"), {path: (404, b"nf")}).manager_error)
        return
    with pytest.raises(SourceError, match=words):
        ask(consul_answers("0.5.0") | {path: (404, b"nf")})


def test_another_path_of_the_store() -> None:
    with shack(consul_answers("0.5.0", "class/a"), manager_answers("0.2.0")) as there:
        assert ask_shack(there, swarm_path="class/a").registered
        assert not ask_shack(there).registered


def test_a_manager_that_is_down_leaves_consul_s_word() -> None:
    with answering(consul_answers("0.5.0")) as port:
        closed = Shack(address="127.0.0.1", consul_port=port, swarm_port=free_port())
        found = ask_shack(closed, timeout_seconds=2)
    assert found.engines is None
    assert "refused" in found.manager_error
    assert len(found.members) == 3


def test_a_manager_without_a_swarm_says_so() -> None:
    refusal = b'{"message":"This node is not a swarm manager."}'
    with (
        answering(consul_answers("1.8.7")) as consul_port,
        answering({"/nodes": (503, refusal)}) as port,
    ):
        there = Shack("127.0.0.1", kind="swarm-mode", consul_port=consul_port, swarm_port=port)
        assert "not a swarm manager" in ask_shack(there).manager_error


def test_a_closed_port_is_a_fact_with_a_hint() -> None:
    with pytest.raises(
        SourceError, match=r"does not answer at http://127\.0\.0\.1:.*refused"
    ) as raised:
        ask_shack(Shack("127.0.0.1", consul_port=free_port()))
    assert "make status" in raised.value.hint
    assert raised.value.exit_code == 4


def test_a_shack_that_keeps_silent_costs_the_time_limit_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        start = time.monotonic()
        with pytest.raises(SourceError, match="no answer in time"):
            ask_shack(Shack("127.0.0.1", consul_port=deaf.getsockname()[1]), timeout_seconds=0.3)
        assert time.monotonic() - start < 15


def test_consul_without_a_leader() -> None:
    with pytest.raises(SourceError, match="no leader yet"):
        ask(consul_answers("0.5.0") | {"/v1/status/leader": b'""'})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/status/leader", b"null"),
        ("/v1/status/leader", b"<html>It works!</html>"),
        ("/v1/catalog/nodes", b'{"Node": "pi-01"}'),
        ("/v1/catalog/nodes", b'[{"Name": "pi-01"}]'),
        ("/v1/catalog/nodes", b"[7]"),
        ("/v1/health/state/any", b"null"),
        ("/v1/kv/swarm/?recurse", b'[{"Value": "\xff"}]'),
        ("/v1/kv/swarm/?recurse", b'[{"Value": "gIGC"}]'),
        ("/v1/catalog/nodes", b"[" * 5000),
    ],
)
def test_something_else_listens_there(path: str, body: bytes) -> None:
    with pytest.raises(SourceError, match="unexpected answer"):
        ask(consul_answers("0.5.0") | {path: body})


@pytest.mark.parametrize(
    "body", [b"{}", b'{"DriverStatus": null}', b'{"DriverStatus": [["Pool", "x"]]}', b"[]", b"{"]
)
def test_a_docker_daemon_is_no_manager(body: bytes) -> None:
    found = ask(consul_answers("0.5.0"), {"/info": body})
    assert found.engines is None
    assert "unexpected answer" in found.manager_error


def test_a_server_error_shows_its_words() -> None:
    with pytest.raises(SourceError, match="answered 500: No cluster leader"):
        ask(consul_answers("0.5.0") | {"/v1/catalog/nodes": (500, b"No cluster leader\n")})


def test_a_redirect_is_not_followed() -> None:
    with pytest.raises(SourceError, match="answered 302"):
        ask(consul_answers("0.5.0") | {"/v1/status/leader": (302, b"")})


def test_a_manager_that_speaks_no_tls(tmp_path: Path) -> None:
    bundle = client_bundle(make_classroom(tmp_path))
    with shack(consul_answers("0.5.0"), manager_answers("0.2.0")) as there:
        found = ask_shack(there, client=ClientCertificate(bundle), timeout_seconds=2)
    assert found.engines is None
    assert found.manager_error


def manager_tls(classroom: Classroom, folder: Path) -> ssl.SSLContext:
    """Verify clients as `swarm manage --tlsverify` does, with the certificate it is given."""
    tls = shack_certificate(classroom)
    (folder / "ca.pem").write_text(tls.ca)
    (folder / "both.pem").write_text(tls.certificate + tls.key.reveal())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "both.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_manager_with_tls_answers_this_class_only(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    classroom, other = make_classroom(tmp_path), make_classroom(tmp_path / "other")
    with (
        answering(consul_answers("0.5.0")) as consul_port,
        answering(manager_answers("1.2.9"), manager_tls(classroom, tmp_path)) as port,
    ):
        there = Shack("127.0.0.1", consul_port=consul_port, swarm_port=port)
        ours = ask_shack(
            there, client=ClientCertificate(client_bundle(classroom)), timeout_seconds=5
        )
        theirs = ask_shack(there, client=ClientCertificate(client_bundle(other)), timeout_seconds=5)
        plain = ask_shack(there, timeout_seconds=5)
    assert ours.engines is not None
    assert theirs.engines is None
    assert "TLS verification failed" in theirs.manager_error
    assert plain.engines is None


def test_the_shell_s_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    assert ask(consul_answers("0.5.0")).members


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def dripping(prefix: bytes) -> Callable[[socket.socket, bytes], None]:
    """Send `prefix`, then a byte in less time than any wait may take, for ever."""

    def talk(client: socket.socket, _request: bytes) -> None:
        client.sendall(prefix)
        while True:
            client.sendall(b" ")
            time.sleep(0.05)

    return talk


@pytest.mark.parametrize(
    "prefix", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: a\r\n\r\n["]
)
def test_a_shack_that_drips_is_given_up(prefix: bytes) -> None:
    begun = time.monotonic()
    with (
        talking(dripping(prefix)) as (url, _),
        pytest.raises(SourceError, match="no answer in time"),
    ):
        ask_shack(Shack("127.0.0.1", consul_port=int(url.rpartition(":")[2])), timeout_seconds=0.5)
    assert 1 < time.monotonic() - begun < 15


def test_the_deadline_is_for_all_queries_together() -> None:
    def late(client: socket.socket, request: bytes) -> None:
        time.sleep(0.6)
        body = b'"a"' if b"/v1/status/leader" in request else b"[]"
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)

    begun = time.monotonic()
    with talking(late) as (url, seen), pytest.raises(SourceError, match="no answer in time"):
        port = int(url.rpartition(":")[2])
        ask_shack(Shack("127.0.0.1", consul_port=port, swarm_port=port), timeout_seconds=0.7)
    assert time.monotonic() - begun < 15
    assert len(seen) > 1


def test_a_handshake_that_drips_is_given_up(tmp_path: Path) -> None:
    bundle = client_bundle(make_classroom(tmp_path))
    # The header of a record of 16 KiB (RFC 8446, 5.1), of which bytes come one by one.
    handshake = b"\x16\x03\x03\x40\x00"
    begun = time.monotonic()

    def talk(client: socket.socket) -> None:
        dripping(handshake)(client, b"")

    with (
        answering(consul_answers("0.5.0")) as consul_port,
        accepting(talk) as port,
    ):
        there = Shack("127.0.0.1", consul_port=consul_port, swarm_port=port)
        found = ask_shack(there, client=ClientCertificate(bundle), timeout_seconds=0.5)
    assert "no answer in time" in found.manager_error
    assert time.monotonic() - begun < 15


@contextmanager
def accepting(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Let `talk` speak first on the one connection that comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError), listener.accept()[0] as client:
                talk(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
    thread.join(5)


@pytest.mark.parametrize(
    "body", [b"[" + b"7," * (MOST_VALUES + 1) + b"7]", b'"' + b"x" * MOST_BYTES]
)
def test_too_much_of_an_answer_is_refused(body: bytes) -> None:
    with pytest.raises(SourceError, match="unexpected answer"):
        ask(consul_answers("0.5.0") | {"/v1/catalog/nodes": body})


def test_the_answers_together_have_a_limit() -> None:
    half = b"[" + b" " * (MOST_BYTES // 2) + b"]"
    with pytest.raises(SourceError, match="unexpected answer"):
        ask(consul_answers("0.5.0") | {"/v1/catalog/nodes": half, "/v1/health/state/any": half})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/catalog/nodes", b'[{"Node": {}, "Address": "a"}]'),
        ("/v1/catalog/nodes", b'[{"Node": "a", "Address": ["b"]}]'),
        ("/v1/catalog/nodes", b'[{"Node": null, "Address": "a"}]'),
        ("/info", b'{"DriverStatus": [["Nodes", "1"], ["a", 7]]}'),
        (
            "/info",
            b'{"DriverStatus": [["Nodes", "1"], ["a", "b:1"], ["  \xe2\x94\x94 Error", {}]]}',
        ),
    ],
)
def test_a_value_of_another_type_is_unexpected(path: str, body: bytes) -> None:
    if path == "/info":
        assert "unexpected answer" in ask(consul_answers("0.5.0"), {path: body}).manager_error
        return
    with pytest.raises(SourceError, match="unexpected answer"):
        ask(consul_answers("0.5.0") | {path: body})


def test_a_node_of_swarm_mode_with_a_value_of_another_type() -> None:
    (node,) = json.loads((RECORDINGS / "docker-20.10" / "nodes.json").read_bytes())[:1]
    for part, name in (("Status", "Addr"), ("Status", "State"), ("Description", "Hostname")):
        odd = node | {part: node[part] | {name: ["x"]}}
        with (
            answering(consul_answers("1.8.7")) as consul_port,
            answering({"/nodes": json.dumps([odd]).encode()}) as port,
        ):
            there = Shack("127.0.0.1", kind="swarm-mode", consul_port=consul_port, swarm_port=port)
            assert "unexpected answer" in ask_shack(there).manager_error
