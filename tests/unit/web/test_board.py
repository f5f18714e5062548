"""The board answers GET from this machine for its own pages, and nothing else."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.cli.main import run as run_rpi_image
from imagebuilder.errors import InputError, Problem, SettingsError
from imagebuilder.flash.records.card_state import CardStates
from imagebuilder.flash.records.class_status import ClassStatus, merge_status
from imagebuilder.shack.observe import Observation
from imagebuilder.web import board as board_module
from imagebuilder.web.board import BoardServer
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.served_board import serving

if TYPE_CHECKING:
    from collections.abc import Callable

CLASS = make_classroom(Path("/class"), node(1, owner="<b>Ada</b>"), node(2), shack=None)


def seen() -> ClassStatus:
    cards = CardStates(find=lambda _source: None).of(CLASS, ())
    nodes = merge_status(CLASS, Path("room.yml"), cards, (), answered=False)
    return ClassStatus(nodes, Observation(None, ()))


def board(
    look: Callable[[], ClassStatus] = seen,
    port: int = 0,
    stations: Callable[[], list[dict[str, Any]]] = list,
    findings: Callable[[], tuple[Problem, ...]] = tuple,
) -> BoardServer:
    return BoardServer(classroom=CLASS, look=look, stations=stations, findings=findings, port=port)


def ask(
    port: int, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def test_the_page_and_what_it_reads() -> None:
    with serving(board()) as server:
        status, page, headers = ask(server.port, "/")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "&lt;b&gt;Ada&lt;/b&gt;" in page
        assert 'data-reads="cards findings"' in page
        assert "docker -H" not in page
        for path in (
            "/board.js",
            "/board.css",
            "/index.html",
            "/station",
            "/station.js",
            "/station.css",
        ):
            status, _, headers = ask(server.port, path)
            assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
            assert "default-src 'none'" in headers["Content-Security-Policy"]
        nodes = json.loads(ask(server.port, "/api/cards", host=f"localhost:{server.port}")[1])[
            "nodes"
        ]
    assert [(n["hostname"], n["card"]) for n in nodes] == [("pi-01", "never"), ("pi-02", "never")]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil"])
def test_another_name_of_the_host_is_refused(host: str) -> None:
    """A page of the network whose name points to 127.0.0.1 must not read the class."""
    with serving(board()) as server:
        for path in ("/", "/station", "/api/cards", "/api/stations", "/api/findings"):
            assert ask(server.port, path, host=host)[:2] == (403, "")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /api/cards HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nHost: evil.example\r\n\r\n",
        b"GET /api/cards HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /" + b"a" * 100_000,
    ],
)
def test_what_is_no_request_is_refused_in_silence(
    request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(board(look=lambda: pytest.fail("not to be asked"))) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(request_.replace(b"%d", str(server.port).encode()) + b"\r\n" * 2)
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        assert ask(server.port, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_bug_shows_nothing_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    def look() -> ClassStatus:
        raise ValueError("swordfish")

    with serving(board(look=look)) as server:
        status, text, _ = ask(server.port, "/api/cards")
        assert (status, "swordfish" in text) == (500, False)
        assert ask(server.port, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("missing", ["starlette.routing", "uvicorn"])
def test_without_the_extra_it_says_how_to_install_it(
    missing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delitem(sys.modules, "imagebuilder.web.local_server", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    file = tmp_path / "room.yml"
    file.write_text("profile: armv7\nimage: sample\nnodes: [{hostname: pi-01}]\n")
    assert run_rpi_image(["board", str(file)]) == 2
    assert "pip install 'rpi-image[board]'" in capsys.readouterr().err
    assert run_rpi_image(["board", "--help"]) == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "LOOK"])
def test_only_get_is_answered(method: str) -> None:
    with serving(board(look=lambda: pytest.fail("not to be asked"))) as server:
        for path in ("/", "/station", "/api/cards"):
            assert ask(server.port, path, method)[0] == 405
        status, body, headers = ask(server.port, "/", "HEAD")
        assert (status, body) == (200, "")
        assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/../web/index.html",
        "/board.js/",
        "/api/cards/",
        "/api/",
        "/%2e%2e/x",
        "//api/cards",
    ],
)
def test_no_other_path_is_answered(path: str) -> None:
    with serving(board()) as server:
        assert ask(server.port, path)[0] == 404


def test_a_file_that_is_being_edited_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "LOOK_SECONDS", -1.0)
    broken = [True]

    def look() -> ClassStatus:
        if broken.pop() if broken else False:
            raise SettingsError("room.yml cannot be used: 1 problem")
        return seen()

    with serving(board(look=look)) as server:
        assert ask(server.port, "/api/cards")[:2] == (503, "room.yml cannot be used: 1 problem")
        assert ask(server.port, "/api/cards")[0] == 200


def test_many_pages_cost_one_look() -> None:
    looks: list[int] = []

    def look() -> ClassStatus:
        looks.append(1)
        return seen()

    with serving(board(look=look)) as server:
        for _ in range(5):
            assert ask(server.port, "/api/cards")[0] == 200
    assert len(looks) == 1


def test_a_port_in_use_is_an_error() -> None:
    with (
        serving(board()) as server,
        pytest.raises(InputError, match=str(server.port)),
    ):
        board(look=seen, port=server.port).open()


def test_the_findings_of_check_have_their_lines() -> None:
    found = (
        Problem("no image", "name one", Path("/class/room.yml"), 7, severe=False, word="no-image"),
        Problem("<b>", file=Path("/class/room.yml")),
    )
    with serving(board(findings=lambda: found)) as server:
        told = json.loads(ask(server.port, "/api/findings")[1])
    assert [(each["place"], each["what"]) for each in told] == [
        ("room.yml:7", "warning"),
        ("room.yml", "error"),
    ]
    assert "/class" not in json.dumps(told)


def test_what_stations_write_is_passed_on() -> None:
    with serving(board(stations=lambda: [{"next": "pi-01"}])) as server:
        assert json.loads(ask(server.port, "/api/stations")[1]) == [{"next": "pi-01"}]
