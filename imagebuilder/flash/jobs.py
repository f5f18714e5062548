"""What the station and the ledger need of a card, whether it is a device or a mounted folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from imagebuilder.devices.device import Device
    from imagebuilder.errors import RpiImageError
    from imagebuilder.flash.writer import Stage


class Content(Protocol):
    """What a card is going to be."""

    @property
    def node(self) -> str:
        """The hostname; empty for an image as it is."""

    @property
    def config_hash(self) -> str:
        """The hash of the configuration."""

    @property
    def base_sha256(self) -> str:
        """The digest of the base image; empty if it is not known."""

    @property
    def settings(self) -> str:
        """What the node was made from, for the ledger; empty for an image as it is."""


class Job(Protocol):
    """One card to write."""

    @property
    def node(self) -> str:
        """The hostname; empty for an image as it is."""

    @property
    def device(self) -> Device:
        """The card; its path is a folder if that is written."""


class Report(Protocol):
    """The result of a finished card."""

    @property
    def digest(self) -> str:
        """The digest of what was written; empty for files."""

    @property
    def written_bytes(self) -> int:
        """How much was written."""

    @property
    def seconds(self) -> float:
        """How long it took."""


class Outcome(Protocol):
    """The result of a card: a report, an error, or neither if it was stopped."""

    @property
    def job(self) -> Job:
        """The card that was to be written."""

    @property
    def stage(self) -> Stage:
        """The last stage that was reached."""

    @property
    def report(self) -> Report | None:
        """The result of a finished card."""

    @property
    def error(self) -> RpiImageError | None:
        """Why it failed."""


JobT = TypeVar("JobT", bound=Job)
OutcomeT = TypeVar("OutcomeT", bound=Outcome)
JobIn_contra = TypeVar("JobIn_contra", bound=Job, contravariant=True)
OutcomeOut_co = TypeVar("OutcomeOut_co", bound=Outcome, covariant=True)


class CardWriter(Protocol[JobIn_contra, OutcomeOut_co]):
    """Writes cards, in the background or one after the other."""

    @property
    def busy(self) -> object:
        """Whether a card is not done yet, as a truth value."""

    def start(self, job: JobIn_contra) -> None:
        """Begin a card."""

    def poll(self, seconds: float) -> OutcomeOut_co | None:
        """Return the result of a card that has ended; None after `seconds`."""

    def stop(self) -> tuple[OutcomeOut_co, ...]:
        """Stop all cards and return their results."""


def reason_of(outcome: Outcome) -> str:
    """Return why a card is not done."""
    return outcome.error.message if outcome.error else "stopped"
