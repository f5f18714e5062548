"""What the tests of settings share: a folder with a classroom file, and a short way to load it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagebuilder.errors import Problem, SettingsError
from imagebuilder.settings.load import check_classroom, load_classroom

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from imagebuilder.model import Classroom

CHECKSUM = "0123456789abcdef" * 4


@dataclass
class WrittenClassroom:
    """A classroom file in a folder of its own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / "room.yml"

    def write(self, text: str, **files: str) -> WrittenClassroom:
        """Write the file; `files` are further ones, `__` standing for a dot."""
        self.path.write_text(text, encoding="utf-8")
        for name, content in files.items():
            (self.folder / name.replace("__", ".")).write_text(content, encoding="utf-8")
        return self

    def load(
        self,
        overrides: Mapping[str, object] | None = None,
        ask: Callable[[str], str] | None = None,
        profile_folders: Sequence[Path] = (),
    ) -> Classroom:
        return load_classroom(
            self.path,
            overrides=overrides,
            environment=self.environment,
            ask=ask,
            profile_folders=profile_folders,
        )

    def check(self) -> tuple[Problem, ...]:
        return check_classroom(self.path, environment=self.environment)

    def said(self) -> list[str]:
        """Return the findings of a check as `LINE word: message`."""
        return [
            f"{problem.line} {'error' if problem.severe else 'warning'}: {problem.message}"
            for problem in self.check()
        ]

    def errors(self) -> list[str]:
        return [line for line in self.said() if " error: " in line]

    def refusal(
        self, overrides: Mapping[str, object] | None = None, profile_folders: Sequence[Path] = ()
    ) -> SettingsError:
        try:
            self.load(overrides, profile_folders=profile_folders)
        except SettingsError as error:
            return error
        raise AssertionError("the classroom was taken")


def from_flags(environment: Mapping[str, str] | None = None, **overrides: object) -> Classroom:
    """Load one node pi-03 from overrides alone."""
    said = {"profile": "armv7", "nodes": [{"hostname": "pi-03"}], **overrides}
    return load_classroom(None, overrides=said, environment=environment or {})
