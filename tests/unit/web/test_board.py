"""The board answers GET from this machine for its own pages, and nothing else."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imagebuilder.errors import InputError, Problem, SettingsError
from imagebuilder.flash.records.card_state import CardStates
from imagebuilder.flash.records.class_status import ClassStatus, merge_status
from imagebuilder.shack.observe import Observation
from imagebuilder.web import board as board_module
from imagebuilder.web.board import BoardServer
from tests.lib.classroom_samples import make_classroom, node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@contextmanager
def serving(server: BoardServer) -> Iterator[int]:
    with server.open() as opened:
        worker = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.02})
        worker.start()
        try:
            yield opened.server_address[1]
        finally:
            opened.shutdown()
            worker.join()


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
    with serving(board()) as port:
        status, page, headers = ask(port, "/")
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
            status, _, headers = ask(port, path)
            assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
            assert "default-src 'none'" in headers["Content-Security-Policy"]
        nodes = json.loads(ask(port, "/api/cards", host=f"localhost:{port}")[1])["nodes"]
    assert [(n["hostname"], n["card"]) for n in nodes] == [("pi-01", "never"), ("pi-02", "never")]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil"])
def test_another_name_of_the_host_is_refused(host: str) -> None:
    """A page of the network whose name points to 127.0.0.1 must not read the class."""
    with serving(board()) as port:
        for path in ("/", "/station", "/api/cards", "/api/stations", "/api/findings"):
            assert ask(port, path, host=host)[:2] == (403, "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
def test_only_get_is_answered(method: str) -> None:
    with serving(board()) as port:
        assert ask(port, "/api/cards", method)[0] == 501


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/../web/index.html", "/board.js/", "/api/cards?x", "/api/", "/%2e%2e/x"],
)
def test_no_other_path_is_answered(path: str) -> None:
    with serving(board()) as port:
        assert ask(port, path)[0] == 404


def test_a_file_that_is_being_edited_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "LOOK_SECONDS", -1.0)
    broken = [True]

    def look() -> ClassStatus:
        if broken.pop() if broken else False:
            raise SettingsError("room.yml cannot be used: 1 problem")
        return seen()

    with serving(board(look=look)) as port:
        assert ask(port, "/api/cards")[:2] == (503, "room.yml cannot be used: 1 problem")
        assert ask(port, "/api/cards")[0] == 200


def test_many_pages_cost_one_look() -> None:
    looks: list[int] = []

    def look() -> ClassStatus:
        looks.append(1)
        return seen()

    with serving(board(look=look)) as port:
        for _ in range(5):
            assert ask(port, "/api/cards")[0] == 200
    assert len(looks) == 1


def test_a_port_in_use_is_an_error() -> None:
    with (
        serving(board()) as port,
        pytest.raises(InputError, match=str(port)),
    ):
        board(look=seen, port=port).open()


def test_the_findings_of_check_have_their_lines() -> None:
    found = (
        Problem("no image", "name one", Path("/class/room.yml"), 7, severe=False, word="no-image"),
        Problem("<b>", file=Path("/class/room.yml")),
    )
    with serving(board(findings=lambda: found)) as port:
        told = json.loads(ask(port, "/api/findings")[1])
    assert [(each["place"], each["what"]) for each in told] == [
        ("room.yml:7", "warning"),
        ("room.yml", "error"),
    ]
    assert "/class" not in json.dumps(told)


def test_what_stations_write_is_passed_on() -> None:
    with serving(board(stations=lambda: [{"next": "pi-01"}])) as port:
        assert json.loads(ask(port, "/api/stations")[1]) == [{"next": "pi-01"}]
