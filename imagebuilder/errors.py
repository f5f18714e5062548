"""The errors a user can cause: each has a message, a hint and an exit code."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import extract_tb
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_PACKAGE = "imagebuilder/"
PERMISSION_HINT = "run it as root (sudo), or add yourself to the group `disk`"  # to open a device


# The word of each warning, for `allow:` and --allow, and what it means. Some are errors.
WARNINGS = {
    "no-login": "nobody can log into the card (an error)",
    "no-network": "the board has no way onto a network (an error)",
    "no-docker": "no Docker is installed, which the cluster needs (an error)",
    "no-cluster": "the Docker of the node cannot join a cluster of this kind (an error)",
    "old-archive": "packages of a release whose archive has moved",
    "no-radio": "the board has no wifi radio for the networks",
    "no-country": "wifi without a country: the radio may stay off",
    "open-docker": "the Docker API is open to the network, without TLS",
    "closed-docker": "the Docker API is closed, but the swarm manager of the shack needs it",
    "certificate": "TLS for the swarm manager without a fixed address or `dhcp_range`",
    "old-docker": "Swarm from 1.2 on, for the Docker 1.6 of `occidentalis`",
    "docker-label": "a label that Docker 1.6 rejects",
    "consul-servers": "an even number of consul servers (the shack counts as one), or more than 7",
    "dhcp-range": "an address in the DHCP range",
    "no-prefix": "addresses without a prefix length",
    "unreachable": "a gateway or shack that static addresses cannot reach",
    "loopback-shack": "the shack has a loopback address",
    "ssid-space": "an SSID that begins or ends with a space",
    "no-checksum": "an image without a checksum",
    "no-image": "an image file that does not exist yet",
    "plain-secret": "a secret in the file as plain text",
    "unset-secret": "a variable with a secret that is not set, so that it was not checked",
    "timezone": "a time zone that is not known on this machine",
    "image-files": "a file of the image that the settings replace, run or do not use",
    "replaced-file": "an overlay that replaces a file of the generation",
    "line-ends": "a script with Windows line ends, which are converted",
    "image-state": "an image that is cut off, was not cleanly unmounted or has a damaged root",
    "shack-kind": "a shack of another kind than the nodes of the file join",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning in a settings file, with its place and a hint; `line` counts from 1.

    `word` is the one of WARNINGS that acknowledges it, empty if nothing does.
    """

    message: str
    hint: str = ""
    file: Path | None = None
    line: int | None = None
    severe: bool = True
    word: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.message}"


class RpiImageError(Exception):
    """Base class of the errors a user can cause; `hint` is what to do about it."""

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(RpiImageError):
    """The command line is wrong, or its options exclude each other."""

    exit_code = 2


class SettingsError(RpiImageError):
    """Settings, profiles, overlays or templates are wrong; `problems` holds all that were found."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, hint)
        self.problems = problems


def problems_of(error: SettingsError) -> tuple[Problem, ...]:
    """Return the problems of an error, or the error itself as the only one."""
    return error.problems or (Problem(error.message, error.hint),)


class SourceError(RpiImageError):
    """A download, a checksum or the cache failed."""

    exit_code = 4


class ImageError(RpiImageError):
    """An archive, a disk image or its boot partition is damaged or not supported."""

    exit_code = 5


class RefusedError(RpiImageError):
    """A device is not safe to write."""

    exit_code = 6


class WriteError(RpiImageError):
    """Writing or verifying failed."""

    exit_code = 7


# The exit code of `status --check`; it is a result, not an error.
NOT_AS_WANTED = 8

# What Python raises where foreign bytes are not what our code expects of them.
_PARSING = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


@contextmanager
def reading(what: str, kind: type[RpiImageError]) -> Iterator[None]:
    """Turn an exception of Python while `what` is parsed into an error that names it.

    Foreign bytes that our code does not expect are no reason for a report of a bug with their
    content; the place in the code is in the message, so that it can be reported nevertheless.
    """
    try:
        yield
    except _PARSING as error:
        raise kind(
            f"{what} cannot be read: {type(error).__name__} at {_place_of(error)}",
            "it is probably damaged; if another program can read it, please report this line",
        ) from error


def unreadable(path: Path, error: OSError) -> ImageError:
    """Return the error for an image or a device that cannot be read."""
    locked = isinstance(error, PermissionError) and _is_device(path)
    hint = PERMISSION_HINT if locked else "check the path and its permissions"
    return ImageError(f"cannot read {path}: {error.strerror}", hint)


def _is_device(path: Path) -> bool:
    """Return whether a path is a block device; False if it cannot be examined."""
    try:
        return path.is_block_device()
    except OSError:
        return False


def _place_of(error: BaseException) -> str:
    """Return the file and line of our own code where an exception was raised."""
    places = [
        f"{frame.filename.rpartition(_PACKAGE)[2]}:{frame.lineno}"
        for frame in extract_tb(error.__traceback__)
        if _PACKAGE in frame.filename and frame.filename != __file__
    ]
    return places[-1] if places else "an unknown place"
