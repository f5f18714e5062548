"""Every warning has a word: it is shown, it is on the page, and it acknowledges."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.main import run
from imagebuilder.errors import WARNINGS, SettingsError
from imagebuilder.settings.starter import StarterAnswers, render_starter
from tests.lib.classrooms import CHECKSUM, WrittenClassroom, from_flags
from tests.lib.plan_samples import boot_of, plain_node, plan
from tests.lib.warning_words import PAGE, with_table

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[3] / "imagebuilder"
OPEN = f"profile: armv7\nimage: {{file: a.img, sha256: {CHECKSUM}}}\n"


@pytest.fixture
def classroom(tmp_path: Path) -> WrittenClassroom:
    (tmp_path / "a.img").touch()
    return WrittenClassroom(tmp_path)


def calls(name: str) -> Iterator[ast.Call]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
                yield node


def words_of(name: str) -> set[object]:
    return {getattr(call.args[0], "value", None) for call in calls(name)}


def test_every_warning_of_the_settings_has_a_word_of_the_table() -> None:
    words = words_of("warning") | words_of("Finding")
    assert words <= set(WARNINGS)
    of_other_rooms = {"image-files", "replaced-file", "line-ends", "image-state", "shack-kind"}
    assert words | of_other_rooms == set(WARNINGS)


def test_no_warning_is_made_without_a_word() -> None:
    found = [
        call.lineno
        for call in (*calls("Diagnostic"), *calls("Problem"))
        for keyword in call.keywords
        if keyword.arg == "severe" and not any(k.arg == "word" for k in call.keywords)
    ]
    assert found == []


def test_the_page_has_the_table_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text


def test_check_shows_the_word(
    classroom: WrittenClassroom, capsys: pytest.CaptureFixture[str]
) -> None:
    classroom.write(f"{OPEN}nodes: [{{hostname: a}}]\n")
    assert run(["check", str(classroom.path)]) == 0
    assert "root on every node [open-docker]\n" in capsys.readouterr().out


def test_an_acknowledged_warning_is_silent(
    classroom: WrittenClassroom, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{OPEN}wifi: {{networks: [{{ssid: a}}]}}\nnodes: [{{hostname: a}}]\n"
    assert len(classroom.write(text).said()) == 2
    assert classroom.write(f"allow: [open-docker, no-country]\n{text}").said() == []
    classroom.write(f"allow: [open-docker]\n{text}")
    assert run(["check", str(classroom.path), "--allow", "no-country"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("command", ["check", "batch", "build", "flash"])
def test_an_unknown_word_is_an_error(
    command: str, classroom: WrittenClassroom, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(classroom.write(f"{OPEN}nodes: [{{hostname: a}}]\n").path)
    file = ["-c", path] if command in {"build", "flash"} else [path]
    device = ["/dev/null"] if command == "flash" else []
    code = run([command, *file, *device, "--allow", "no-logn"])
    said = capsys.readouterr()
    assert "did you mean `no-login`?" in said.out + said.err or code == 6
    assert code in {3, 6}  # a device is looked at first


def test_an_unknown_word_of_a_file(classroom: WrittenClassroom) -> None:
    text = f"{OPEN}allow: [open-doker]\nnodes: [{{hostname: a}}]\n"
    (problem,) = classroom.write(text).refusal().problems
    assert (problem.line, problem.hint) == (3, "did you mean `open-docker`?")


RASPIOS = {"image": {"name": "raspios-lite-bookworm"}}


def test_a_card_without_a_login_is_an_error(
    classroom: WrittenClassroom, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "profile: arm64\nnodes: [{hostname: 'pi-[01-30]'}]\n"
    assert run(["check", str(classroom.write(text).path)]) == 3
    out = capsys.readouterr().out
    assert out.count("nobody can log in") == 1
    assert "`ssh_keys: [{file: ~/.ssh/id_ed25519.pub}]`" in out
    assert "`allow: [no-login]`" in out
    classroom.write(f"allow: [no-login]\n{text}")
    assert run(["check", str(classroom.path)]) == 0


@pytest.mark.parametrize("command", ["build", "batch"])
def test_building_it_is_refused_before_anything_is_fetched(
    command: str, classroom: WrittenClassroom, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(classroom.write("profile: arm64\nnodes: [{hostname: pi-01}]\n").path)
    words = ["-c", path, "--hostname", "pi-01"] if command == "build" else [path]
    assert run([command, *words, "-o", str(classroom.folder / "out")]) == 3
    assert "nobody can log in" in capsys.readouterr().err
    assert run([command, *words, "-n", "--allow", "no-login"]) == 0


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({**RASPIOS, "user": {"name": "pupil"}}, "no-login"),
        ({"user": {"name": "pupil"}}, "no-login"),  # the login of HypriotOS is locked then
        ({"board": "zerow", "profile": "armv6"}, "no-network"),
        ({"board": "zero", "profile": "armv6", "wifi": {"country": "FR"}}, "no-network"),
        (
            {"board": "zerow", "profile": "armv6", "wifi": {"networks": [{"ssid": "a"}]}},
            "no-network",
        ),
    ],
)
def test_what_makes_a_card_useless(said: dict[str, object], word: str) -> None:
    """`allow` makes it pass; nothing else is wrong with it."""
    with pytest.raises(SettingsError) as caught:
        from_flags(**said)  # type: ignore[arg-type]
    assert f"allow: [{word}]" in caught.value.hint
    assert from_flags(**said, allow=[word]).nodes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        {},  # the seed's own call: everyone knows the login of HypriotOS
        {"user": {"name": "pupil"}, "keep_vendor_login": True},
        {"image": {"url": "https://example.org/a.img", "unchecked": True}},  # not known yet
        {
            "board": "zerow",
            "profile": "armv6",
            "wifi": {"country": "FR", "networks": [{"ssid": "a"}]},
        },
        {"board": "pi4", "profile": "armv7"},
    ],
)
def test_cards_that_are_reached(said: dict[str, object]) -> None:
    assert from_flags(**said).nodes  # type: ignore[arg-type]


def test_a_password_that_check_does_not_read_counts(classroom: WrittenClassroom) -> None:
    user = "user: {name: pupil, password: {prompt: true}}"
    classroom.write(f"profile: arm64\n{user}\nnodes: [{{hostname: a}}]\n")
    assert classroom.errors() == []


def test_an_overlay_may_bring_the_login(classroom: WrittenClassroom) -> None:
    (classroom.folder / "mine").mkdir()
    classroom.write("profile: arm64\noverlays: mine\nnodes: [{hostname: a}]\n")
    assert classroom.errors() == []


def test_acknowledged_notes_of_a_plan_are_silent() -> None:
    node = plain_node()
    files = boot_of("firstrun-bookworm", **{"custom.toml": b"x"})
    assert len(plan(node, files).warnings) == 1
    assert plan(replace(node, allow=(*node.allow, "image-files")), files).warnings == ()


ROOT = PACKAGE.parent
EXAMPLES = [
    (page.name, text)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if "\nnodes" in text
]


@pytest.mark.parametrize(("page", "text"), EXAMPLES)
def test_the_examples_of_the_documentation_give_no_warning(
    page: str, text: str, classroom: WrittenClassroom
) -> None:
    for name in ("wifi.txt", "classroom.secrets/wifi"):
        (classroom.folder / name).parent.mkdir(exist_ok=True)
        (classroom.folder / name).write_text("correct horse\n")
    (classroom.folder / "hypriot-rpi-20150416-201537.img.zip").touch()
    (classroom.folder / "nodes.csv").write_text("hostname;address\npi-01;192.168.2.101/24\n")
    classroom.environment["CLASS_WIFI"] = "correct horse"
    assert classroom.write(text.replace("<64 hex>", CHECKSUM)).said() == [], page


def test_there_are_examples_on_several_pages() -> None:
    assert {page for page, _ in EXAMPLES} >= {"README.md", "classroom.md", "settings.md"}


@pytest.mark.parametrize("profile", ["armv6", "armv7"])
def test_the_starter_gives_no_warning(profile: str, classroom: WrittenClassroom) -> None:
    answers = StarterAnswers(
        profile=profile, wifi_ssid="shack", wifi_country="FR", shack="192.168.2.1"
    )
    classroom.environment["CLASS_WIFI"] = "correct horse"
    assert classroom.write(render_starter(answers)).said() == []
