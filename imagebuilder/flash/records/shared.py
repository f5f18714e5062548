"""The ledger of a class with many stations: the file beside the class, and claims in consul."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imagebuilder.build.wanted import settings_digest
from imagebuilder.errors import RefusedError, SettingsError
from imagebuilder.flash.records.ledger import (
    FAILED,
    WRITING,
    WRITTEN,
    Ledger,
    LedgerEntry,
    NodeTakenError,
    UnusableCardError,
    is_alive,
    last_of,
    ledger_of,
)
from imagebuilder.model import Secret
from imagebuilder.progress import SILENT, agree
from imagebuilder.shack.claim_store import Claim, ClaimStore, StoreSilentError, ledger_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from imagebuilder.model import Classroom
    from imagebuilder.progress import Prompter, Reporter

ELSEWHERE = "another station"
_CARD_ELSEWHERE = f"a card of {ELSEWHERE}"


@dataclass(frozen=True, slots=True)
class _Before:
    """The entry and the claim of a node before it was claimed here."""

    entry: LedgerEntry | None
    claim: Claim | None


class SharedLedger(Ledger):
    """A ledger whose claims are taken in consul first.

    Where consul does not answer, the user is asked for each node; without a prompter that is
    refused, and reading returns the file alone.
    """

    def __init__(
        self,
        path: Path,
        store: ClaimStore,
        roster: Sequence[str],
        reporter: Reporter = SILENT,
        prompter: Prompter | None = None,
    ) -> None:
        super().__init__(path)
        self._store, self._roster = store, tuple(roster)
        self._reporter, self._prompter = reporter, prompter
        self._before: dict[str, _Before] = {}
        self._silent = ""
        self._to_share = False

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return the newest entry of each node, from the file or from another station."""
        stored = self.stored()
        try:
            if self._to_share:
                self._share()
            return merged(self.stored(), self._claims())
        except StoreSilentError as error:
            if error.message != self._silent:
                self._reporter.warn(f"{error.message}; what other stations wrote is not known")
            self._silent = error.message
            return stored

    def check(self, *, share: bool = False) -> None:
        """Raise SettingsError if consul has no ACLs or refuses the token.

        With `share`, tell it the cards that only the file knows. No answer is a warning.
        """
        self._to_share = share
        with suppress(StoreSilentError):  # the entries warn of it
            self._store.check()
        self.entries()

    def claim(
        self, entry: LedgerEntry, *, again: bool = False, outdated: LedgerEntry | None = None
    ) -> LedgerEntry | None:
        """Claim a node in consul, then in the file; return its previous entry.

        Raise NodeTakenError as the file alone does, RefusedError if consul does not answer and the
        user does not agree.
        """
        node = entry.node
        try:
            before = self._take(entry, again=again, outdated=outdated)
        except StoreSilentError as error:
            self._ask(error, node, "write it without asking the other stations")
            return super().claim(entry, again=again, outdated=outdated)
        self._before[node] = before
        try:
            super().claim(entry, again=True)
        except BaseException:
            self._give_back(node)
            raise
        return before.entry

    def settle(self, entry: LedgerEntry, lost: LedgerEntry | None = None, why: str = "") -> None:
        """Record the result in consul, then in the file.

        Raise UnusableCardError if another station took the node meanwhile, or if consul does not
        answer and the user does not agree.
        """
        try:
            self._settle(entry)
            if lost:
                self._lose(lost)
        except UnusableCardError as error:
            self._to_share = True
            gone = replace(entry, state=FAILED, error=error.message)
            super().settle(gone, lost, why)
            raise
        super().settle(entry, lost, why)

    def restore(self, entry: LedgerEntry) -> None:
        """Put back the previous entry of a node whose card was not changed."""
        self._give_back(entry.node)
        if entry.device == _CARD_ELSEWHERE:
            super().forget(entry.node)
        else:
            super().restore(entry)

    def forget(self, node: str) -> None:
        """Remove the entry and the claim of a node."""
        self._give_back(node)
        super().forget(node)

    def _claims(self) -> dict[str, Claim]:
        """Return the claims of this class by hostname, without those of this program."""
        found = self._store.claims()
        named = {node: found.get(self._store.key_of(node)) for node in self._roster}
        return {node: c for node, c in named.items() if c and not self._store.is_ours(c)}

    def _take(self, entry: LedgerEntry, *, again: bool, outdated: LedgerEntry | None) -> _Before:
        found = self._store.claims().get(self._store.key_of(entry.node))
        index, ours = (found.index, self._store.is_ours(found)) if found else (0, False)
        foreign = {entry.node: found} if found and not ours else {}
        last = last_of(merged(self.stored(), foreign), entry.node, again=again, outdated=outdated)
        wanted = _claim_of(entry, self._store.station, WRITING)
        if not self._store.take(entry.node, wanted, index):
            raise NodeTakenError(
                f"{entry.node} was just taken by {ELSEWHERE}", "wait for it, or stop that program"
            )
        return _Before(last, found if not ours else None)

    def _settle(self, entry: LedgerEntry) -> None:
        before = self._before.pop(entry.node, None)
        if before is None:
            return  # it was written without consul; the next start tells it
        result = _claim_of(entry, self._store.station, entry.state)
        try:
            kept = self._store.settle(entry.node, result)
        except StoreSilentError as error:
            self._store.drop(entry.node)
            if entry.state == WRITTEN:
                self._keep(error, entry.node)
            return
        if not kept and entry.state == WRITTEN:
            raise UnusableCardError(
                f"{ELSEWHERE} took {entry.node} while this card was written",
                "do not use this card; it can be written again",
            )

    def _lose(self, lost: LedgerEntry) -> None:
        """Free a node whose card was overwritten here, if consul has that card."""
        try:
            claim = self._claims().get(lost.node)
            if claim and (claim.config_hash, claim.built) == (lost.config_hash, lost.built):
                gone = replace(claim, state=FAILED, finished=_now())
                self._store.put(lost.node, gone, claim.index)
        except StoreSilentError as error:
            self._reporter.warn(f"{error.message}: {lost.node} lost its card")

    def _give_back(self, node: str) -> None:
        before = self._before.pop(node, None)
        if before is None:
            return
        try:
            self._store.settle(node, before.claim)
        except StoreSilentError:
            self._store.drop(node)  # its session ends by itself

    def _disown(self, stored: Sequence[LedgerEntry]) -> None:
        """Free nodes that consul took as written, but whose card must not be used.

        Its answer was lost, so that the station could not know.
        """
        claims = self._claims()
        for entry in stored:
            claim = claims.get(entry.node)
            if claim and entry.state == FAILED and _same(entry, claim):
                self._store.put(entry.node, replace(claim, state=FAILED), claim.index)

    def _finish(self, stored: Sequence[LedgerEntry]) -> None:
        """Record cards that consul took as written before the program here was killed."""
        claims = self._claims()
        for entry in stored:
            claim = claims.get(entry.node)
            if claim and entry.state == WRITING and not is_alive(entry) and _same(entry, claim):
                super().settle(replace(entry, state=WRITTEN, finished=claim.finished))
                self._reporter.note(
                    f"{entry.device} was done before the station here ended: it is {entry.node}"
                )

    def _share(self) -> None:
        """Tell consul the cards of this file that it does not know, and learn their fate."""
        self._finish(self.stored())
        self._disown(self.stored())
        claims = self._claims()
        twice: list[str] = []
        for entry in self.stored():
            known = claims.get(entry.node)
            if entry.state != WRITTEN or entry.node not in self._roster:
                continue
            if known is None or (not known.locked and _newer(entry, known)):
                claim = _claim_of(entry, self._store.station, WRITTEN)
                self._store.put(entry.node, claim, known.index if known else 0)
                if known and known.state == WRITTEN:
                    twice.append(entry.node)
        if twice:
            names = ", ".join(twice)
            self._reporter.warn(f"another station wrote a card, too, of {names}")
        self._to_share = False

    def _keep(self, error: StoreSilentError, node: str) -> None:
        try:
            self._ask(error, node, "use this card")
        except RefusedError as refused:
            hint = "do not use this card; it can be written again when the ledger answers"
            raise UnusableCardError(refused.message, hint) from refused

    def _ask(self, error: StoreSilentError, node: str, deed: str) -> None:
        if self._prompter is None:
            raise RefusedError(error.message, error.hint)
        self._prompter.warn(error.message)
        agree(f"If no other station writes {node}, type {node} to {deed}:", node, self._prompter)


def merged(stored: Sequence[LedgerEntry], claims: Mapping[str, Claim]) -> tuple[LedgerEntry, ...]:
    """Return the entries of a file with those of other stations, by node the newer one."""
    found = {entry.node: entry for entry in stored}
    for node, claim in claims.items():
        if foreign := _foreign(node, claim, found.get(node)):
            found[node] = foreign
    return tuple(found.values())


def _foreign(node: str, claim: Claim, own: LedgerEntry | None) -> LedgerEntry | None:
    """Return the entry for a claim of another station; None if that of the file is as good."""
    entry = LedgerEntry(
        node=node,
        state=claim.state,
        device=_CARD_ELSEWHERE,
        config_hash=claim.config_hash,
        built=claim.built,
        finished=claim.finished,
        settings_hash=claim.settings,
    )
    if claim.state == WRITING and claim.locked:
        return replace(entry, by=f"{ELSEWHERE}:")
    if claim.state == WRITING:
        ended = replace(entry, state=FAILED, error="the station that wrote it has ended")
        return None if own else ended
    as_good = own and (_newer(own, claim) or (own.state == WRITTEN and _same(own, claim)))
    return None if as_good else entry


def _newer(entry: LedgerEntry, claim: Claim) -> bool:
    """Return whether a card of the file was finished after what a claim says."""
    later = _seconds(entry.finished) > _seconds(claim.finished)
    return entry.state == WRITTEN and (claim.state == WRITING or later)


def _seconds(text: str) -> float:
    """Return a time as seconds; 0 if it is none. Computers of a class may have other zones."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _same(entry: LedgerEntry, claim: Claim) -> bool:
    """Return whether a claim is of the card of an entry, and says that it was written."""
    card = entry.config_hash, entry.built
    return claim.state == WRITTEN and bool(entry.config_hash) and card == (
        claim.config_hash, claim.built
    )  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _claim_of(entry: LedgerEntry, station: str, state: str) -> Claim:
    return Claim(
        state=state,
        station=station,
        config_hash=entry.config_hash,
        built=entry.built,
        finished=entry.finished,
        settings=settings_digest(entry.recorded) if entry.recorded else "",
    )


def class_ledger(
    classroom: Classroom, file: Path, reporter: Reporter, prompter: Prompter | None = None
) -> Ledger:
    """Return the ledger of a class. Raise SettingsError if its consul cannot be used."""
    ledger = _shared(classroom, file, reporter, prompter)
    if ledger is None:
        return ledger_of(file)
    if prompter:
        ledger.check(share=True)
    return ledger


def check_ledger(classroom: Classroom, file: Path, reporter: Reporter) -> None:
    """Raise SettingsError if the consul of the ledger is open or refuses the token.

    A consul that does not answer is a warning.
    """
    ledger = _shared(classroom, file, reporter, None)
    if ledger:
        ledger.check()


def _shared(
    classroom: Classroom, file: Path, reporter: Reporter, prompter: Prompter | None
) -> SharedLedger | None:
    if not classroom.ledger_consul:
        return None
    place = ledger_token(classroom.secrets)
    try:
        token = Secret(place.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"no token for the ledger in {place}",
            "run `rpi-image shack`, or copy the secrets folder from where it was run",
        ) from error
    store = ClaimStore(url=classroom.ledger_consul, token=token, class_name=classroom.name)
    names = [node.hostname for node in classroom.nodes]
    return SharedLedger(ledger_of(file).path, store, names, reporter, prompter)
