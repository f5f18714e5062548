"""Answers of servers: HTTP of publishers, JSON of the shack.

An input holds the answers to one connection after the other, separated by a line `%%`.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING
from unittest import mock

import urllib3.util.connection

from imagebuilder.images.deadline import Patience
from imagebuilder.images.download import download, find_published_checksum
from imagebuilder.images.http_client import LONGEST_PAUSE_SECONDS
from imagebuilder.model import ImageSource, Shack
from imagebuilder.shack.cluster import ask_shack, parse_card_report
from imagebuilder.shack.status import compare, summarise
from tests.fuzz.archives import zlib_gz
from tests.fuzz.bytewise import number, reworded
from tests.fuzz.target import Target, allowed
from tests.lib.archives import Recorder
from tests.lib.classroom_samples import make_classroom
from tests.lib.nasty import NASTY
from tests.lib.shack_server import RECORDINGS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from imagebuilder.shack.folder import Kind

BETWEEN = b"\n%%\n"
ONE_TRY = Patience(attempts=2, connect_seconds=2, read_seconds=2, pause_seconds=0, answer_seconds=2)
DIGEST = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"


@contextmanager
def served(answers: list[bytes]) -> Iterator[None]:
    """Answer the connections of this process, without a network; those without an answer fail."""
    with ExitStack() as kept:

        def connect(*_where: object, **_how: object) -> socket.socket:
            if not answers:
                raise ConnectionRefusedError("refused")
            ours, theirs = map(kept.enter_context, socket.socketpair())
            theirs.sendall(answers.pop(0))
            theirs.shutdown(socket.SHUT_WR)
            return ours

        with mock.patch.object(urllib3.util.connection, "create_connection", connect):
            yield


# ---- HTTP (RFC 9110 and 9112)

_STATUS = (b"200 OK", b"206 x", b"302 x", b"304", b"404 x", b"416 x", b"500 x", b"503 x", b"2")
_NAMES = (
    b"Content-Length", b"Content-Range", b"Content-Encoding", b"Transfer-Encoding", b"Location",
    b"Retry-After", b"ETag", b"Last-Modified", b"Set-Cookie", b"Connection", b"Trailer", b"X",
)  # fmt: skip
_VALUES = (
    b"gzip", b"deflate", b"chunked", b"bytes 0-9/10", b"bytes 3-9/10", b"bytes */*", b"close",
    b'"a"', b"/x", b"//", b"http://[", b"http://[::1]/", b"https://h/x", b"ftp://h/",
    b"a=b; Expires=x",
    b"Mon, 01 Jan 2024 00:00:00 GMT", b"\xb2", b"-1", b"", b" ", b"10", b"0", b"%",
    b"\xc3\xa9/\xff",
)  # fmt: skip
_BODIES = (
    b"", b"0123456789", b"a\r\n0123456789\r\n0\r\n\r\n", b"-1\r\n", b"a;b\r\n01", b"<html>",
    b"1" * 64, DIGEST.encode() + b"  x.img\n", b"\x1f\x8b\x08", zlib_gz(b"0123456789"),
)  # fmt: skip
_HTTP_WORDS = (*_NAMES, *_VALUES, *_STATUS, b"HTTP/1.1", b"HTTP/0.9", b"\r\n", BETWEEN)


def answer(status: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", body])


@cache
def http_seeds() -> list[bytes]:
    redirect = answer(b"302 x", [(b"Location", b"/y.img")], b"")
    part = [(b"Content-Length", b"10"), (b"ETag", b'"a"')]
    rest = [(b"Content-Length", b"7"), (b"Content-Range", b"bytes 3-9/10"), (b"ETag", b'"a"')]
    packed = [(b"Content-Encoding", b"gzip")]
    return [
        answer(b"200 OK", [(b"Content-Length", b"10")], b"0123456789"),
        answer(b"200 OK", [(b"Transfer-Encoding", b"chunked")], _BODIES[2]),
        BETWEEN.join([redirect, answer(b"200 OK", [], b"0123456789")]),
        BETWEEN.join([answer(b"200 OK", part, b"012"), answer(b"206 x", rest, b"3456789")]),
        BETWEEN.join([answer(b"503 x", [(b"Retry-After", b"0")], b""), answer(b"404 x", [], b"")]),
        answer(b"200 OK", packed, zlib_gz(DIGEST.encode() + b"  x.img\n")),
    ]


def change_http(data: bytes, rng: Random) -> bytes:
    answers = data.split(BETWEEN)
    place = rng.randrange(len(answers))
    if rng.random() < 0.2:
        value = b"%d" % number(rng) if rng.random() < 0.3 else rng.choice(_VALUES)
        made = answer(rng.choice(_STATUS), [(rng.choice(_NAMES), value)], rng.choice(_BODIES))
        answers[place : place + rng.randrange(2)] = [made]
    elif rng.random() < 0.4:
        head, blank, body = answers[place].partition(b"\r\n\r\n")
        value = b"%d" % number(rng) if rng.random() < 0.3 else rng.choice(_VALUES)
        answers[place] = head + b"\r\n" + rng.choice(_NAMES) + b": " + value + blank + body
    else:
        answers[place] = reworded(answers[place], rng, _HTTP_WORDS, b" :\r\n")
    return BETWEEN.join(answers[:30])


def repair_http(data: bytes, rng: Random) -> bytes:
    """Let the length that an answer states be that of its body, mostly."""
    answers = data.split(BETWEEN)
    for place, each in enumerate(answers):
        head, blank, body = each.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        if rng.random() < 0.7 and b"Transfer-Encoding" not in head:
            lines = [line for line in lines if not line.startswith(b"Content-Length")]
            lines.append(b"Content-Length: %d" % len(body))
            answers[place] = b"\r\n".join(lines) + blank + body
    return BETWEEN.join(answers)


def read_http(data: bytes, folder: Path) -> None:
    source = ImageSource("x", url="http://127.0.0.1/x.img")
    part = folder / "part"
    part.unlink(missing_ok=True)
    answers = data.split(BETWEEN)
    with mock.patch("urllib.request.getproxies", dict), mock.patch("time.sleep") as sleep:
        with allowed(), served(answers[:]):
            assert len(download(source.url, part, "", Recorder(), ONE_TRY).sha256) == 64
        with served(answers[:]):
            assert len(find_published_checksum(source, Recorder(), ONE_TRY)) in {0, 64}
    assert all(pause.args[0] <= LONGEST_PAUSE_SECONDS for pause in sleep.call_args_list)


# ---- the shack: the kind, then the answers of consul and of the manager; or the file of a card

_CONSUL = ("status_leader", "catalog_nodes", "health_state_any", "kv_swarm")
_JSON_WORDS = (
    b"null", b"true", b"[]", b"{}", b'""', b"-1", b"1e999", b"1e400", b"NaN", b"Infinity", b"0.1",
    b'"Node"', b'"Nodes"', b'"Value"', b'"\\ud800"', b'"\\u0000"', b'"\\u001b[2J"', b"[" * 3000,
    b'"=="', b'"a:b:c"', b'"[::1]:2375"', b'"(unknown)"', b'"  \\u2514 Status"',
    *(json.dumps(text).encode() for text in NASTY),
)  # fmt: skip


def shack_seeds() -> list[bytes]:
    made = []
    for consul, manager, kind in (
        ("0.5.0", "swarm-0.2.0/info.json", b"classic"),
        ("1.8.7", "swarm-1.2.9/info.json", b"classic"),
        ("1.8.7", "docker-20.10/nodes.json", b"swarm-mode"),
    ):
        bodies = [RECORDINGS / f"consul-{consul}" / f"{name}.json" for name in _CONSUL]
        bodies.append(RECORDINGS / manager)
        texts = (json.dumps(json.loads(body.read_bytes())).encode() for body in bodies)
        made.append(BETWEEN.join([kind, *texts]))
    card = {"hostname": "pi-03", "hash": "abc", "booted": "2024-01-01T00:00:00Z", "swarm": "joined"}
    return [*made, BETWEEN.join([b"card", json.dumps(card).encode()])]


def change_shack(data: bytes, rng: Random) -> bytes:
    kind, *bodies = data.split(BETWEEN)
    place = rng.randrange(len(bodies) or 1)
    if not bodies or rng.random() < 0.3:
        return reworded(data, rng, (*_JSON_WORDS, BETWEEN, b"classic", b"swarm-mode"), b" ,:[]{}\n")
    try:
        value = json.loads(bodies[place])
        bodies[place] = json.dumps(_other(value, rng)).encode()
    except (ValueError, RecursionError):
        bodies[place] = reworded(bodies[place], rng, _JSON_WORDS, b" ,:[]{}\n")
    return BETWEEN.join([kind, *bodies])


def _other(value: object, rng: Random) -> object:
    """Return a value with one place in it exchanged, dropped or repeated."""
    if isinstance(value, list | dict) and value and rng.random() < 0.9:
        place = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        if rng.random() < 0.1:
            del value[place]
        elif isinstance(value, list) and rng.random() < 0.1:
            value += [value[place]] * rng.choice((1, 2, 100))
        else:
            value[place] = _other(value[place], rng)
        return value
    texts = ("", ":", "a:b", "Nodes", "  \u2514 Status", "(unknown)", "gIGC", "192.168.2.101:2375")
    others: tuple[object, ...] = (
        None,
        True,
        0,
        -1,
        1.5,
        number(rng),
        [],
        {},
        [[]],
        [value],
        {"": value},
    )
    return rng.choice((*others, *texts, *rng.sample(NASTY, 5)))


def read_shack(data: bytes, folder: Path) -> None:
    kind, *bodies = data.split(BETWEEN)
    if kind == b"card":
        parse_card_report(b"".join(bodies), "card")
        return
    head = [(b"Connection", b"close"), (b"Content-Type", b"application/json")]
    answers = [answer(b"200 OK", head, body) for body in bodies]
    named: Kind = "swarm-mode" if kind == b"swarm-mode" else "classic"
    with served(answers):
        state = ask_shack(Shack("127.0.0.1", kind=named), timeout_seconds=2)
    rows = compare(make_classroom(folder, shack=Shack("127.0.0.1", kind=named)), state)
    assert sum(summarise(rows).values()) == len(rows)
    json.dumps([row.detail for row in rows])


TARGETS = (
    Target("http", http_seeds, change_http, read_http, repair_http),
    Target("shack", shack_seeds, change_shack, read_shack),
)
