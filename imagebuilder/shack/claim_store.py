"""Claims on the nodes of a class in the shack's consul: a session, and check-and-set.

A claim says that a station writes a node, or has written it. Its key and its values are digests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import uuid
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import requests  # noqa: TID251 - one of the three modules that use HTTP
import urllib3

from imagebuilder.errors import SettingsError, SourceError
from imagebuilder.images.deadline import Deadline
from imagebuilder.images.http_client import WatchedAdapter

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.model import Secret

PREFIX = "rpi-image/claims/"
TTL_SECONDS = 30  # consul ends a session between one and two of them after its last renewal
ANSWER_SECONDS = 5.0
MOST_ANSWER_BYTES = 8 << 20  # 10,000 claims have 5 MB
WRITING = "writing"
_RENEWALS = 3  # in one TTL
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
_HTTP_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
_STRANGE = "the answer is not consul's"
_CONFLICT = 409
_TRIES = 3
_REFUSED = frozenset({401, 403})


class StoreSilentError(SourceError):
    """The consul of the ledger does not answer: what other stations do is not known."""


class StoreOpenError(SettingsError):
    """The consul of the ledger lets everyone read and write the claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What consul knows of a node: `station` made the claim, `index` is its version for CAS.

    `locked` says whether the session of that station lives.
    """

    state: str
    station: str
    config_hash: str = ""
    built: str = ""
    finished: str = ""
    settings: str = ""
    index: int = 0
    locked: bool = False


@dataclass
class _Lease:
    """A session that a thread renews until `ended` is set."""

    session: str
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(kw_only=True)
class ClaimStore:
    """The claims of one class in a consul with ACLs."""

    url: str
    token: Secret
    class_name: str
    ttl_seconds: float = TTL_SECONDS
    timeout_seconds: float = ANSWER_SECONDS
    station: str = field(default_factory=lambda: uuid.uuid4().hex)
    _held: dict[str, Claim] = field(init=False, default_factory=dict)
    _lease: _Lease | None = field(init=False, default=None)
    _lock: threading.RLock = field(init=False, default_factory=threading.RLock)

    def key_of(self, node: str) -> str:
        """Return the key of a node: a digest, because hostnames may be names of people."""
        text = f"{self.class_name}\0{node}"
        return PREFIX + hashlib.sha256(text.encode()).hexdigest()

    def check(self) -> None:
        """Raise StoreOpenError for a consul without ACLs, SettingsError for a refused token."""
        status, _ = self._send("GET", f"kv/{PREFIX}none", token=False)
        if status not in _REFUSED:
            raise StoreOpenError(
                f"the consul at {self.url} lets everyone change the ledger",
                "run `rpi-image shack` with this file and start the shack again",
            )
        self.claims()

    def claims(self) -> dict[str, Claim]:
        """Return the claims of all classes by key, as the leader knows them now."""
        status, found = self._ask("GET", f"kv/{PREFIX}?recurse&consistent")
        return {} if status == requests.codes.not_found else _parsed(found)

    def take(self, node: str, claim: Claim, index: int) -> bool:
        """Claim a node whose claim still has this index, 0 for none; False if it has another."""
        with self._lock:
            taken = self._write(node, claim, index, self._session())
            if taken:
                self._held[node] = claim
            else:
                self._end_if_idle()
        return taken

    def settle(self, node: str, claim: Claim | None) -> bool:
        """Replace our own claim by a result, or remove it; False if another station has it."""
        done = False
        with self._lock:
            for _ in range(_TRIES):  # its index changes when a session ends
                now = self.claims().get(self.key_of(node))
                if done or now is None or not self.is_ours(now):
                    break
                done = self.put(node, claim, now.index)
            self.drop(node)
        return done

    def is_ours(self, claim: Claim) -> bool:
        """Return whether this program is writing the node."""
        return claim.station == self.station and claim.state == WRITING

    def drop(self, node: str) -> None:
        """Stop holding a claim; it stays until its session ends."""
        with self._lock:
            self._held.pop(node, None)
            self._end_if_idle()

    def put(self, node: str, claim: Claim | None, index: int) -> bool:
        """Set a claim that still has this index without holding it; None removes it."""
        if claim is None:
            path = f"kv/{self.key_of(node)}?cas={index}"
            return self._ask("DELETE", path)[1] is True
        return self._write(node, claim, index, "")

    def _write(self, node: str, claim: Claim, index: int, session: str) -> bool:
        """Set a claim by CAS; take or release its lock in the same transaction."""
        entry = {"Key": self.key_of(node), "Value": _encoded(claim)}
        deeds: list[dict[str, object]] = [{"Verb": "cas", "Index": index}]
        with self._lock:
            held = self._lease.session if self._lease else ""
        if session:
            deeds.append({"Verb": "lock", "Session": session})
        elif held and node in self._held:
            deeds.append({"Verb": "unlock", "Session": held})
        body = [{"KV": entry | deed} for deed in deeds]
        status, answer = self._ask("PUT", "txn", body)
        if status == _CONFLICT and len(deeds) > 1 and not session:
            # Its session has ended meanwhile; the claim itself may still be ours.
            status, answer = self._ask("PUT", "txn", body[:1])
        return status != _CONFLICT and bool(answer.get("Results"))

    # ---- the session

    def _session(self) -> str:
        if self._lease is None:
            self._lease = _Lease(self._new_session())
            threading.Thread(target=self._renew, args=(self._lease,), daemon=True).start()
        return self._lease.session

    def _new_session(self) -> str:
        ttl = f"{self.ttl_seconds:g}s"
        # No lock delay: a station that has lost its claim sees that when it settles the card.
        body = {"TTL": ttl, "LockDelay": "0s", "Behavior": "release", "Checks": []}
        found = self._ask("PUT", "session/create", body)[1]
        session = found.get("ID") if isinstance(found, dict) else None
        if not isinstance(session, str):
            raise silent(self.url, _STRANGE)
        return session

    def _renew(self, lease: _Lease) -> None:
        while not lease.ended.wait(self.ttl_seconds / _RENEWALS):
            try:
                status, _ = self._ask("PUT", f"session/renew/{lease.session}")
                if status == requests.codes.not_found:
                    with self._lock:
                        self._hold_again(lease)
            except (SourceError, SettingsError):
                continue  # the next claim or result says so

    def _hold_again(self, lease: _Lease) -> None:
        """Lock again what is still ours, after a session that has ended."""
        if lease.ended.is_set():
            return
        lease.session = self._new_session()
        found = self.claims()
        for node, claim in self._held.items():
            now = found.get(self.key_of(node))
            if now and self.is_ours(now):
                self._write(node, claim, now.index, lease.session)

    def _end_if_idle(self) -> None:
        if self._lease and not self._held:
            self._lease.ended.set()
            session, self._lease = self._lease.session, None
            try:
                self._ask("PUT", f"session/destroy/{session}")
            except (SourceError, SettingsError):
                return  # it ends by itself

    # ---- HTTP

    def _ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and answer. Raise StoreSilentError or SettingsError on failure."""
        status, data = self._send(method, path, body)
        if status in _REFUSED:
            raise SettingsError(
                f"the consul at {self.url} refuses the token of this class",
                "copy the secrets folder from where `rpi-image shack` was run",
            )
        if status in {requests.codes.not_found, _CONFLICT}:
            return status, {}
        if status != requests.codes.ok:
            raise silent(self.url, f"it answered {status}")
        try:
            return status, json.loads(data)
        except (ValueError, RecursionError) as error:
            raise silent(self.url, _STRANGE) from error

    def _send(
        self, method: str, path: str, body: object = None, *, token: bool = True
    ) -> tuple[int, bytes]:
        """Return status and body, through a connection of its own, because two threads ask."""
        headers = {"X-Consul-Token": self.token.reveal()} if token else {}
        try:
            with requests.Session() as session, Deadline(2 * self.timeout_seconds):
                session.trust_env = False  # ignore HTTP_PROXY: the shack is on the local network
                session.mount("http://", WatchedAdapter())
                with session.request(
                    method, f"{self.url}/v1/{path}", json=body, headers=headers, stream=True,
                    timeout=self.timeout_seconds, allow_redirects=False,
                ) as answer:  # fmt: skip
                    data = answer.raw.read(MOST_ANSWER_BYTES + 1, decode_content=True)
        except _HTTP_ERRORS as error:
            raise silent(self.url, "refused" if "refused" in str(error) else "no answer") from error
        if len(data) > MOST_ANSWER_BYTES:
            raise silent(self.url, _STRANGE)
        return answer.status_code, data


def silent(url: str, reason: str) -> StoreSilentError:
    """Return the error for a consul that does not answer."""
    return StoreSilentError(
        f"the ledger at {url} does not answer: {reason}",
        "check the network and that the shack runs",
    )


def _encoded(claim: Claim) -> str:
    kept = {k: v for k, v in asdict(claim).items() if v and k not in {"index", "locked"}}
    return base64.b64encode(json.dumps(kept).encode()).decode()


def _parsed(entries: Any) -> dict[str, Claim]:
    """Return the claims in an answer of /v1/kv by key; leave out what is not one."""
    known = {field.name for field in fields(Claim)} - {"index", "locked"}
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        try:
            told = json.loads(base64.b64decode(entry["Value"]))
            texts: dict[str, Any] = {k: str(v) for k, v in told.items() if k in known}
            index, locked = int(entry["ModifyIndex"]), bool(entry.get("Session"))
            found[str(entry["Key"])] = Claim(**texts, index=index, locked=locked)
        except _MALFORMED:
            continue
    return found


def ledger_token(secrets: Path) -> Path:
    """Return the place of the token for the ledger in the secrets folder of a class."""
    return secrets / "consul" / "ledger"
