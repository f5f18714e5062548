"""Read the settings of a classroom: its file, rosters, profiles and secrets."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

from imagebuilder.errors import Problem, SettingsError, problems_of, reading
from imagebuilder.files import has_file
from imagebuilder.model import Classroom
from imagebuilder.progress import counted
from imagebuilder.settings.classroom_file import ClassroomFile
from imagebuilder.settings.lint import lint_classroom
from imagebuilder.settings.references import References
from imagebuilder.settings.resolve import FLAGS, resolve_classroom
from imagebuilder.settings.schema.diagnostics import warning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imagebuilder.plan.reach import Reach
    from imagebuilder.settings.catalog import PublishedLists
    from imagebuilder.settings.resolve import Resolved
    from imagebuilder.settings.schema.diagnostics import Diagnostic, Loc
    from imagebuilder.settings.schema.documents import ClassroomDocument


@dataclass(frozen=True, slots=True)
class ClassroomReading:
    """A classroom, None if there is an error; all problems in file order; how cards are reached."""

    classroom: Classroom | None
    problems: tuple[Problem, ...]
    reaches: tuple[Reach, ...] = ()


def load_classroom(
    path: Path | None,
    *,
    overrides: Mapping[str, object] | None = None,
    environment: Mapping[str, str],
    ask: Callable[[str], str] | None = None,
    profile_folders: Sequence[Path] = (),
    lists: PublishedLists | None = None,
) -> Classroom:
    """Return a resolved classroom. Raise SettingsError with all errors.

    `overrides` has the keys of the top level of a file and overrides it; its nodes select nodes of
    the file by hostname, or are new. Without `path` only the overrides are used.
    """
    reading = read_classroom(
        path,
        overrides=overrides,
        environment=environment,
        ask=ask,
        profile_folders=profile_folders,
        lists=lists,
    )
    if reading.classroom is None:
        raise refusal(path, reading.problems)
    return reading.classroom


def load_roster(
    path: Path,
    *,
    environment: Mapping[str, str],
    profile_folders: Sequence[Path] = (),
    lists: PublishedLists | None = None,
) -> Classroom:
    """Return a classroom with absolute paths; secrets may be missing and are not asked for.

    Raise SettingsError with all problems.
    """
    reading = read_classroom(
        path,
        environment=environment,
        profile_folders=profile_folders,
        checking=True,
        lists=lists,
    )
    classroom = reading.classroom or load_classroom(
        path, environment=environment, profile_folders=profile_folders, lists=lists
    )
    return with_whole_paths(classroom)


def with_whole_paths(classroom: Classroom) -> Classroom:
    """Return the classroom with absolute paths, valid in any folder."""
    path = classroom.path.parent.resolve() / classroom.path.name
    return replace(classroom, path=path, secrets=classroom.secrets.resolve())


def refusal(path: Path | None, problems: tuple[Problem, ...]) -> SettingsError:
    """Return the error for a classroom that is not valid, with all its errors."""
    severe = tuple(problem for problem in problems if problem.severe)
    if len(severe) == 1 and severe[0].file is None:
        return SettingsError(severe[0].message, severe[0].hint)
    count = counted(len(severe), "problem")
    return SettingsError(f"{path or 'the settings'} cannot be used: {count}", problems=severe)


def check_classroom(
    path: Path,
    *,
    environment: Mapping[str, str],
    profile_folders: Sequence[Path] = (),
    overrides: Mapping[str, object] | None = None,
    lists: PublishedLists | None = None,
) -> tuple[Problem, ...]:
    """Return all errors and warnings of a classroom file; secrets may be missing."""
    reading = read_classroom(
        path,
        overrides=overrides,
        environment=environment,
        profile_folders=profile_folders,
        checking=True,
        lists=lists,
    )
    return reading.problems


def read_classroom(
    path: Path | None,
    *,
    overrides: Mapping[str, object] | None = None,
    environment: Mapping[str, str],
    ask: Callable[[str], str] | None = None,
    profile_folders: Sequence[Path] = (),
    checking: bool = False,
    lists: PublishedLists | None = None,
) -> ClassroomReading:
    """Return a resolved classroom and all problems; with `checking`, secrets may be missing.

    Without `lists`, images of published lists are errors.
    """
    source = ClassroomFile(path, environment.get("HOME", ""))
    with reading(str(path or "the settings"), SettingsError):
        classroom, flags = source.classroom(), source.flags(dict(overrides or {}))
    if classroom is None or flags is None:
        return ClassroomReading(None, source.sorted_problems())
    try:
        # Do not ask for secrets if there are errors already.
        lenient = checking or source.fatal
        references = References(
            environment,
            ask,
            profile_folders,
            checking=lenient,
            lists=lists,
            list_place=flags.catalog or classroom.catalog or "",
        )
    except SettingsError as error:
        return ClassroomReading(None, (*source.sorted_problems(), *problems_of(error)))
    with reading(str(path or "the settings"), SettingsError):
        resolved = resolve_classroom(classroom, flags, references)
        found = [
            *resolved.diagnostics,
            *lint_classroom(resolved),
            *_timezone_diagnostics(classroom, flags),
            *_absent_images(resolved),
        ]
        source.note([each for each in found if each.word not in resolved.allow])
    problems = source.sorted_problems()
    if any(problem.severe for problem in problems):
        return ClassroomReading(None, problems)
    result = Classroom(
        name=flags.name or classroom.name or (path.stem if path else resolved.nodes[0].hostname),
        path=path or Path(),
        nodes=resolved.nodes,
        shack=resolved.shack,
        secrets=flags.secrets or classroom.secrets or _secrets_beside(path),
        ledger_consul=(classroom.ledger and classroom.ledger.consul) or "",
    )
    return ClassroomReading(result, problems, resolved.reaches)


def _secrets_beside(path: Path | None) -> Path:
    return path.with_name(f"{path.stem}.secrets") if path else Path("rpi-image.secrets")


def _absent_images(resolved: Resolved) -> list[Diagnostic]:
    """Return a warning for each image file that does not exist yet."""
    nodes = zip(resolved.nodes[::-1], resolved.node_sources[::-1], strict=True)
    files = {
        node.image.file: (node.image.hint, sources) for node, sources in nodes if node.image.file
    }
    return [
        warning("no-image", sources.at(("image",)), f"no image file {file} yet", hint)
        for file, (hint, sources) in files.items()
        if not has_file(file)
    ]


def _timezone_diagnostics(
    classroom: ClassroomDocument, flags: ClassroomDocument
) -> list[Diagnostic]:
    """Return a warning for each time zone that this machine does not know.

    Not an error: Debian has moved old names to the package tzdata-legacy.
    """
    said: dict[str, Loc] = {}
    for i, node in enumerate(classroom.nodes):
        said.setdefault(node.timezone or "", ("nodes", i, "timezone"))
    said |= {classroom.timezone or "": ("timezone",), flags.timezone or "": (FLAGS, "timezone")}
    return [
        warning(
            "timezone", loc, f"time zone `{zone}` is not known on this machine", _near_zone(zone)
        )
        for zone, loc in said.items()
        if zone and not _zone_known(zone) and available_timezones()
    ]


def _near_zone(zone: str) -> str:
    near = difflib.get_close_matches(zone, available_timezones(), n=1)
    return f"did you mean `{near[0]}`?" if near else "for example Europe/Paris"


def _zone_known(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, KeyError):
        return False
    return True
