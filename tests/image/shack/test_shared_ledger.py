"""Many stations, one ledger: a real consul with the ACLs of a shack."""

from __future__ import annotations

import io
import json
import platform
import random
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.console import Console
from imagebuilder.cli.main import run
from imagebuilder.errors import RefusedError
from imagebuilder.flash.records.history import user_name
from imagebuilder.flash.records.ledger import (
    WRITTEN,
    Ledger,
    LedgerEntry,
    NodeTakenError,
    UnusableCardError,
)
from imagebuilder.flash.records.shared import SharedLedger
from imagebuilder.model import Secret
from imagebuilder.shack.claim_store import Claim, ClaimStore, silent
from tests.lib.acl_consul import AclConsul, Cable, acl_consul
from tests.lib.shack_server import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.model import OverlayFile

NAMES = ("pi-01", "pi-02")
DONE = re.compile(
    r"(?:is done: remove it and attach label \d+ of \d+,"
    r"|was done before the station here ended: it is) (pi-\d+)$",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def consul(
    tmp_path_factory: pytest.TempPathFactory, templates: tuple[OverlayFile, ...]
) -> Iterator[AclConsul]:
    with acl_consul(tmp_path_factory.mktemp("consul"), templates) as made:
        yield made


# Eight stations at once would take the processors from the emulated Pis of other tests.
POLITE = ("nice", "-n", "10")


@dataclass
class Stations:
    """Laptops that write one class; each has a cable to consul and a folder."""

    consul: AclConsul
    folder: Path
    count: int
    seconds: float
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    cables: dict[int, tuple[Cable, int]] = field(default_factory=dict)

    def start(self, number: int, stack: ExitStack) -> None:
        place = self.folder / str(number)
        place.mkdir(exist_ok=True)
        if number not in self.cables:
            cable = Cable(self.consul.port)
            self.cables[number] = (cable, stack.enter_context(cable.plugged()))
        words: list[str | Path] = [
            place,
            str(self.cables[number][1]),
            self.consul.token("ledger"),
            str(self.count),
        ]
        with (place / "stderr").open("ab") as errors:
            self.running[number] = subprocess.Popen(
                [*POLITE, sys.executable, "-m", "tests.lib.station_worker", *words,
                 str(self.seconds)],
                stderr=errors, cwd=Path(__file__).parents[3],
            )  # fmt: skip

    def kill(self, number: int) -> None:
        self.running[number].kill()
        self.running[number].wait()

    def said(self) -> dict[int, str]:
        files = {n: self.folder / str(n) / "said.txt" for n in self.running}
        return {n: path.read_text() for n, path in files.items() if path.exists()}

    def done(self) -> list[str]:
        """Return the nodes whose card a user was told to use, of all stations."""
        return sorted(name for text in self.said().values() for name in DONE.findall(text))

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for number, program in self.running.items():
            code = program.wait(max(1, end - time.monotonic()))
            assert code == 0, (self.folder / str(number) / "stderr").read_text()

    def end(self) -> None:
        for program in self.running.values():
            program.kill()
            program.wait()


class Desk:
    """One laptop of the class: a folder of its own, and a user who answers."""

    def __init__(self, folder: Path, consul: AclConsul, *, url: str = "", answer: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.out = io.StringIO()
        self.answer = answer
        desk = self

        class User(Console):
            def confirm_by_name(self, question: str, name: str) -> bool:
                desk.out.write(question)
                return desk.answer == name

        token = Secret(consul.token("ledger"))
        self.store = ClaimStore(
            url=url or consul.url, token=token, class_name="class", ttl_seconds=10,
            timeout_seconds=1,
        )  # fmt: skip
        user = User(out=self.out, err=self.out)
        self.ledger = SharedLedger(folder / "c.cards.yml", self.store, NAMES, user, user)

    def write(self, node: str, *, again: bool = False) -> None:
        self.ledger.claim(entry_of(node), again=again)
        self.finish(node)

    def finish(self, node: str) -> None:
        entry = next(entry for entry in self.ledger.stored() if entry.node == node)
        done = replace(entry, state=WRITTEN, config_hash=node, built=now(), finished=now())
        self.ledger.settle(done)

    def states(self) -> dict[str, str]:
        return {entry.node: entry.state for entry in self.ledger.entries()}


def now() -> str:
    return datetime.now(UTC).isoformat()


def entry_of(node: str) -> LedgerEntry:
    return LedgerEntry(node=node, state="", device="/dev/sdb", started=now())


@pytest.fixture
def clean(consul: AclConsul) -> AclConsul:
    assert consul.ask("DELETE", "kv/rpi-image/claims/?recurse", token="ledger") == 200
    return consul


def test_a_node_is_claimed_by_one_laptop(clean: AclConsul, tmp_path: Path) -> None:
    one, two = Desk(tmp_path / "1", clean), Desk(tmp_path / "2", clean)
    one.ledger.claim(entry_of("pi-01"))
    assert two.ledger.done() == {"pi-01"}
    with pytest.raises(NodeTakenError, match="pi-01 is being written"):
        two.ledger.claim(entry_of("pi-01"))
    one.finish("pi-01")
    with pytest.raises(NodeTakenError, match="pi-01 was written to a card of another station"):
        two.ledger.claim(entry_of("pi-01"))
    two.write("pi-01", again=True)
    assert one.states() == two.states() == {"pi-01": WRITTEN}
    assert next(iter(one.ledger.entries())).device == "a card of another station"


def test_what_was_not_written_is_free_again(clean: AclConsul, tmp_path: Path) -> None:
    one, two = Desk(tmp_path / "1", clean), Desk(tmp_path / "2", clean)
    one.ledger.claim(entry_of("pi-01"))
    one.ledger.forget("pi-01")
    two.write("pi-01")
    before = one.ledger.claim(entry_of("pi-01"), again=True)
    assert before
    one.ledger.restore(before)
    assert one.states() == two.states() == {"pi-01": WRITTEN}
    assert one.ledger.stored() == ()


def test_a_laptop_that_dies_frees_its_claim(clean: AclConsul, tmp_path: Path) -> None:
    one, two = Desk(tmp_path / "1", clean), Desk(tmp_path / "2", clean)
    one.ledger.claim(entry_of("pi-01"))
    session = one.store._lease
    assert session
    session.ended.set()  # it does not renew its session any more
    assert clean.ask("PUT", f"session/destroy/{session.session}", token="ledger") == 200
    assert two.states() == {"pi-01": "failed"}
    two.write("pi-01")
    with pytest.raises(UnusableCardError, match="another station took pi-01"):
        one.finish("pi-01")
    assert two.states() == {"pi-01": WRITTEN}
    assert one.states() == {"pi-01": WRITTEN}  # that of the other laptop


def test_a_lost_answer_loses_no_node(clean: AclConsul, tmp_path: Path) -> None:
    """Consul took the card as written, but its answer did not arrive: the card is not used."""
    one, two = Desk(tmp_path / "1", clean), Desk(tmp_path / "2", clean)
    one.ledger.claim(entry_of("pi-01"))
    settle = one.store.settle

    def lose(node: str, claim: Claim | None) -> bool:
        settle(node, claim)
        raise silent("consul", "no answer")

    one.store.settle = lose  # type: ignore[method-assign]
    with pytest.raises(UnusableCardError):
        one.finish("pi-01")
    assert two.states() == {"pi-01": WRITTEN}
    assert one.states() == {"pi-01": "failed"}
    two.write("pi-01")


def test_a_station_that_is_killed_after_its_card_says_so(clean: AclConsul, tmp_path: Path) -> None:
    one = Desk(tmp_path / "1", clean)
    entry = replace(entry_of("pi-01"), config_hash="c", built="7")
    one.ledger.claim(entry)
    one.store.settle("pi-01", replace(one.store._held["pi-01"], state=WRITTEN))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (stored,) = one.ledger.stored()
    Ledger(one.ledger.path).restore(replace(stored, by=f"{platform.node()}:{dead.pid}"))
    again = Desk(tmp_path / "1", clean)
    again.ledger.check(share=True)
    assert "/dev/sdb was done before the station here ended: it is pi-01" in again.out.getvalue()
    assert [entry.state for entry in again.ledger.stored()] == [WRITTEN]


def test_a_claim_outlives_its_session_if_nobody_takes_it(clean: AclConsul, tmp_path: Path) -> None:
    one, two = Desk(tmp_path / "1", clean), Desk(tmp_path / "2", clean)
    one.ledger.claim(entry_of("pi-01"))
    assert one.store._lease
    clean.ask("PUT", f"session/destroy/{one.store._lease.session}", token="ledger")
    end = time.monotonic() + 15
    while two.states() != {"pi-01": "writing"} and time.monotonic() < end:
        time.sleep(0.2)
    assert two.states() == {"pi-01": "writing"}
    one.finish("pi-01")
    assert two.states() == {"pi-01": WRITTEN}


@pytest.mark.parametrize("answer", ["", "pi-01"])
def test_without_consul_the_user_is_asked(answer: str, clean: AclConsul, tmp_path: Path) -> None:
    cable = Cable(clean.port)
    with cable.plugged() as port:
        url = f"http://127.0.0.1:{port}"
        one = Desk(tmp_path / "1", clean, url=url, answer=answer)
        cable.pull()
        if answer:
            one.write("pi-01")
        else:
            with pytest.raises(RefusedError, match="pi-01 was not confirmed"):
                one.write("pi-01")
        assert "If no other station writes pi-01, type pi-01 to write it" in one.out.getvalue()
        cable.plug()
        two = Desk(tmp_path / "2", clean)
        assert two.states() == {}
        one.ledger.check(share=True)
        assert two.states() == ({"pi-01": WRITTEN} if answer else {})


@pytest.mark.parametrize("answer", ["", "pi-01"])
def test_a_card_that_cannot_be_settled_is_asked_for(
    answer: str, clean: AclConsul, tmp_path: Path
) -> None:
    cable = Cable(clean.port)
    with cable.plugged() as port:
        one = Desk(tmp_path / "1", clean, url=f"http://127.0.0.1:{port}", answer=answer)
        one.ledger.claim(entry_of("pi-01"))
        cable.pull()
        if answer:
            one.finish("pi-01")
        else:
            with pytest.raises(UnusableCardError):
                one.finish("pi-01")
        assert "type pi-01 to use this card" in one.out.getvalue()
        assert [e.state for e in one.ledger.stored()] == [WRITTEN if answer else "failed"]


def test_only_claims_and_digests_lie_in_consul(clean: AclConsul, tmp_path: Path) -> None:
    settings = json.dumps({"owner": "Ada", "hostname": "pi-01"})
    one = Desk(tmp_path / "1", clean)
    entry = LedgerEntry(node="pi-01", state="", serial="0xcafe", card="Stick", settings=settings)
    one.ledger.claim(entry)
    one.finish("pi-01")
    ((key, claim),) = one.store.claims().items()
    text = key + json.dumps(asdict(claim))
    for word in ("Ada", "Stick", "cafe", "/dev", platform.node(), user_name()):
        assert word not in text
    assert "pi-01" not in key


def test_who_may_do_what(clean: AclConsul) -> None:
    claims, nodes = "kv/rpi-image/claims/x", "kv/rpi-image/nodes/pi-01"
    allowed = {
        "": {f"PUT {nodes}": 403, f"PUT {claims}": 403, f"GET {claims}": 403},
        "ledger": {f"PUT {claims}": 200, f"PUT {nodes}": 403, "PUT kv/swarm/x": 403},
        "nodes": {f"PUT {claims}": 403, f"PUT {nodes}": 200, "PUT kv/swarm/x": 403,
                  "PUT kv/rpi-image/swarm/worker": 403},
        "management": {f"PUT {claims}": 200, "PUT kv/rpi-image/swarm/worker": 200},
    }  # fmt: skip
    for token, deeds in allowed.items():
        for deed, status in deeds.items():
            method, path = deed.split()
            body = b"x" if method == "PUT" else None
            assert clean.ask(method, path, body, token=token) == status, (token, deed)
    # The class joins without a token, and everyone sees what nodes tell.
    assert clean.ask("PUT", "kv/swarm/192.168.2.101:2375", b"x") == 200
    assert clean.ask("GET", nodes) == 200
    member = {"Node": "pi-01", "Address": "192.168.2.101"}
    assert clean.ask("PUT", "catalog/register", member) == 200
    assert clean.ask("PUT", "catalog/deregister", {"Node": "shack"}) == 403
    assert clean.ask("GET", "catalog/nodes") == 200
    assert clean.ask("PUT", "acl/bootstrap") == 403


def test_nobody_else_can_end_the_session_of_a_station(clean: AclConsul, tmp_path: Path) -> None:
    one = Desk(tmp_path / "1", clean)
    one.ledger.claim(entry_of("pi-01"))
    assert one.store._lease
    for token in ("", "nodes"):
        ended = clean.ask("PUT", f"session/destroy/{one.store._lease.session}", token=token)
        assert ended == 403
    one.ledger.forget("pi-01")


def test_the_rules_can_be_sent_again(clean: AclConsul) -> None:
    done = subprocess.run(["sh", clean.folder / "consul-acl"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_check_refuses_an_open_consul_and_a_wrong_token(
    clean: AclConsul, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "classroom.yml"
    room = "profile: armv7\nimage: sample\nallow: [no-login]\n"
    room += "ledger: {consul: 'URL'}\nnodes: [{hostname: a}]\n"
    file.write_text(room.replace("URL", clean.url))
    assert run(["check", str(file)]) == 3
    assert f"{file}:4: no token for the ledger" in capsys.readouterr().out
    place = tmp_path / "classroom.secrets" / "consul" / "ledger"
    place.parent.mkdir(parents=True)
    place.write_text(clean.token("ledger"))
    assert run(["check", str(file)]) == 0
    place.write_text("00000000-0000-4000-8000-000000000000")
    assert run(["check", str(file)]) == 3
    assert "refuses the token of this class" in capsys.readouterr().out
    with answering({"/v1/kv/rpi-image/claims/none": (404, b"")}) as port:
        file.write_text(room.replace("URL", f"http://127.0.0.1:{port}"))
        assert run(["check", str(file)]) == 3
    assert "lets everyone change the ledger" in capsys.readouterr().out
    file.write_text(room.replace("URL", "http://127.0.0.1:1"))
    assert run(["check", str(file)]) == 0
    assert "does not answer" in capsys.readouterr().err


def test_three_stations_write_each_node_once(consul: AclConsul, tmp_path: Path) -> None:
    stations = Stations(consul, tmp_path, 30, 0.1)
    with ExitStack() as stack:
        stack.callback(stations.end)
        for number in range(3):
            stations.start(number, stack)
        stations.wait(60)
    assert stations.done() == [f"pi-{n:03}" for n in range(1, 31)]
    assert all(DONE.search(text) for text in stations.said().values())


@pytest.mark.long
def test_no_node_is_written_twice_and_none_is_lost(consul: AclConsul, tmp_path: Path) -> None:
    """Eight laptops, 300 nodes; some are killed and started again, cables are pulled."""
    chance = random.Random(17)
    stations = Stations(consul, tmp_path, 300, 2.0)
    with ExitStack() as stack:
        stack.callback(stations.end)
        for number in range(8):
            stations.start(number, stack)
        kills, cuts = 0, 0
        end = time.monotonic() + 300
        while len(set(stations.done())) < 250 and time.monotonic() < end:
            time.sleep(2)
            if chance.random() < 0.5:
                victim = chance.randrange(8)
                stations.kill(victim)
                stations.start(victim, stack)
                kills += 1
            cable = stations.cables[chance.randrange(8)][0]
            cable.plug() if cable.pulled.is_set() else cable.pull()
            cuts += 1
        for cable, _ in stations.cables.values():
            cable.plug()
        stations.wait(180)
    assert (kills > 5, cuts > 10) == (True, True)
    assert stations.done() == [f"pi-{n:03}" for n in range(1, 301)]
