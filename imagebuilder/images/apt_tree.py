"""Ask apt which packages an image lacks, in a tree of its own, without root.

apt verifies the signatures, resolves dependencies and compares versions (apt-get(8),
apt.conf(5)); the tree has the sources, keyrings and dpkg status of the image. Of apt's methods only
those for HTTP are there, since the sources of an image may name any file or program of this one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from imagebuilder.errors import SourceError
from imagebuilder.files import make_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagebuilder.images.root_system import AptState

# Budgets: of `apt-get update` and of one answer, and the packages that one node can get.
MOST_UPDATE_SECONDS = 900
MOST_ANSWER_SECONDS = 120
MOST_PACKAGES = 2000
MOST_PACKAGE_BYTES = 1 << 30

_METHODS = Path("/usr/lib/apt/methods")
_SAFE_METHODS = ("http", "https", "gpgv", "sqv", "store", "rred")
_FOLDERS = ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "log", "methods")
_ARCH = re.compile(r"[a-z0-9-]{1,20}")
# As `--print-uris` writes it (apt-private/private-download.cc).
# The letters of names and versions are those of deb-control(5) and deb-version(7).
_LINE = re.compile(
    r"^'([^']+)' ([a-z0-9][a-z0-9+.-]*)_([A-Za-z0-9.+~%-]+)_([a-z0-9-]+)\.deb (\d+)"
    r" SHA256:([0-9a-f]{64})$",
    re.MULTILINE,
)
_URI = re.compile(r"^'", re.MULTILINE)
_KEYRINGS = re.compile(rb"(?<=[=\s,])/(?=(?:usr/share/keyrings|etc/apt/[a-z.]+)/)")


@dataclass(frozen=True, slots=True)
class Package:
    """One package to install: its URL and the digest that apt has verified."""

    name: str
    version: str
    arch: str
    url: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The name of its file as archives have it: FAT allows no colon, so without the epoch."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.arch}.deb"


def has_apt() -> bool:
    """Return whether this machine has apt; Fedora, macOS and Windows have none."""
    return shutil.which("apt-get") is not None and _METHODS.is_dir()


@dataclass(frozen=True, slots=True)
class AptTree:
    """apt's own files for one image, below `folder`."""

    folder: Path

    @property
    def has_lists(self) -> bool:
        """Whether an update has been made here."""
        return (self.folder / "updated").exists()

    def write(self, state: AptState) -> None:
        """Write the tree. Raise SourceError if the image has no architecture."""
        if not _ARCH.fullmatch(state.arch):
            raise SourceError("the image does not say its architecture", "use another image")
        for name in _FOLDERS:
            make_folder(self.folder / name)
        for method in _SAFE_METHODS:
            link = self.folder / "methods" / method
            if (_METHODS / method).exists() and not link.is_symlink():
                link.symlink_to(_METHODS / method)
        write_file(self.folder / "status", state.status)
        root = bytes(self.folder / "root")
        for file in (*state.sources, *state.keyrings):
            path = self.folder / "root" / file.path
            make_folder(path.parent)
            data = _KEYRINGS.sub(root + b"/", file.data) if file in state.sources else file.data
            write_file(path, data)
        make_folder(self.folder / "root/etc/apt/trusted.gpg.d")
        write_file(self.folder / "apt.conf", self._configuration(state.arch).encode())

    def _configuration(self, arch: str) -> str:
        folder, etc = self.folder, self.folder / "root/etc/apt"
        return (
            f'Dir "{folder}"; Dir::State "{folder}/state"; Dir::State::status "{folder}/status";\n'
            f'Dir::Cache "{folder}/cache"; Dir::Log "{folder}/log"; Dir::Etc "{folder}/etc";\n'
            f'Dir::Etc::sourcelist "{etc}/sources.list";\n'
            f'Dir::Etc::sourceparts "{etc}/sources.list.d";\n'
            f'Dir::Etc::trusted "{etc}/trusted.gpg";\n'
            f'Dir::Etc::trustedparts "{etc}/trusted.gpg.d"; Acquire::ForceHash "sha256";\n'
            f'Dir::Bin::methods "{folder}/methods"; Dir::Bin::dpkg "/bin/false";\n'
            f'APT::Architecture "{arch}"; APT::Architectures "{arch}";\n'
            'APT::Sandbox::User ""; Acquire::Languages "none"; APT::Update::Error-Mode "any";\n'
            'Acquire::AllowInsecureRepositories "false"; Acquire::Retries "3";\n'
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
        )

    def update(self) -> None:
        """Fetch the lists and have apt verify them. Raise SourceError with apt's own words."""
        self._apt("update", seconds=MOST_UPDATE_SECONDS)
        write_file(self.folder / "updated", b"")

    def resolve(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Return what the image lacks for packages. Raise SourceError with apt's own words."""
        words = ("--print-uris", "-y", "-qq", "install", "--", *names)
        answer = self._apt(*words, seconds=MOST_ANSWER_SECONDS)
        found = tuple(
            Package(name, unquote(version), arch, url, int(size), sha256)
            for url, name, version, arch, size, sha256 in _LINE.findall(answer)
        )
        if len(found) != len(_URI.findall(answer)):
            raise SourceError(
                "the archive has packages without a SHA-256", "let the Pi install them"
            )
        if len(found) > MOST_PACKAGES or any(p.size_bytes > MOST_PACKAGE_BYTES for p in found):
            raise SourceError("the packages are too many or too large", "check `packages:`")
        return found

    def _apt(self, *words: str, seconds: int) -> str:
        # Read before the configuration of this machine, unlike -c (apt.conf(5)).
        environment = ("LC_ALL=C", f"APT_CONFIG={self.folder / 'apt.conf'}")
        try:
            done = subprocess.run(
                ("env", *environment, "apt-get", *words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=seconds,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"apt-get took more than {seconds} s", "try again") from error
        except OSError as error:
            raise SourceError(
                f"cannot run apt-get: {error.strerror}", "let the Pi install the packages"
            ) from error
        if done.returncode != 0:
            raise SourceError(_fault(done.stderr), "let the Pi install them, or try again later")
        return done.stdout


def _fault(stderr: str) -> str:
    """Return apt's first error, without its letter and full stop."""
    found = re.search(r"^E: (.*?)\.?$", stderr, re.MULTILINE)
    return f"apt: {found[1]}" if found else "apt-get failed"
