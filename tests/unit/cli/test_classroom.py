"""check, init, schema and profiles at the terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tzlocal import get_localzone_name

from imagebuilder.cli.main import run
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.schema.fields import COUNTRIES
from imagebuilder.settings.starter import StarterAnswers, classroom_schema, render_starter
from tests.lib.classrooms import CHECKSUM

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6FsOm5Mh+NaGTlNLGRmcEPIgAq9jVtJPlAJMbMyH0t ann"
GOOD = "profile: armv7\nimage: sample\ndocker: {tcp: false}\nnodes: [{hostname: 'pi-[1-3]'}]\n"
BAD = "profile: armv7\nwifi:\n  contry: FR\nnodes: [{hostname: Pi}]\ndocker: {tcp: false}\n"


@pytest.fixture
def classroom(tmp_path: Path) -> Path:
    return tmp_path / "room.yml"


# ---- check


def test_check_of_a_good_file(classroom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classroom.write_text(GOOD)
    assert run(["check", str(classroom)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    login = "ssh pi@NAME.local by the image's password"
    assert said.err.splitlines() == [
        "3 nodes, no errors, no warnings",
        f"pi-1 to pi-3 (3 nodes): {login}; Docker in the image",
    ]


@pytest.mark.parametrize(
    ("lines", "locked"),
    [
        ("", False),
        ("user: {name: ada, password: {prompt: true}}\n", True),
        ("user: {name: ada}\nkeep_vendor_login: true\n", False),
    ],
)
def test_check_says_that_the_images_own_logins_are_locked(
    lines: str, locked: bool, classroom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classroom.write_text(f"{GOOD}{lines}")
    assert run(["check", str(classroom)]) == 0
    said = "the image's own logins are locked on 3 nodes; `keep_vendor_login: true` keeps them"
    assert (said in capsys.readouterr().err.splitlines()) == locked


def test_check_prints_file_line_and_hint(
    classroom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classroom.write_text(BAD)
    assert run(["check", str(classroom)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{classroom}:3: wifi.contry: unknown key `contry`",
        "  hint: did you mean `country`?",
        (
            f"{classroom}:4: nodes[0].hostname: `Pi` is not a hostname: 1 to 63 of a-z, 0-9 and "
            "`-`, no `-` at either end"
        ),
        "  hint: use `pi`",
    ]


def test_check_marks_warnings_and_passes(
    classroom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classroom.write_text("profile: armv7\nnodes: [{hostname: a}]\n")
    assert run(["check", str(classroom)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{classroom}:1: warning: docker.tcp: ")
    assert said.err.splitlines()[0] == "1 node, no errors, 1 warning"


def test_check_as_json(classroom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classroom.write_text(BAD)
    assert run(["check", str(classroom), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [problem["line"] for problem in report["problems"]] == [3, 4]
    assert set(report["problems"][0]) == {"file", "line", "message", "hint", "severe", "word"}
    classroom.write_text(GOOD)
    assert run(["check", str(classroom), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {
        "file": str(classroom),
        "ok": True,
        "reach": {
            f"pi-{number}": f"ssh pi@pi-{number}.local by the image's password; Docker in the image"
            for number in (1, 2, 3)
        },
        "nodes": ["pi-1", "pi-2", "pi-3"],
        "problems": [],
    }


def test_check_of_a_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(tmp_path / "gone.yml")]) == 3
    assert f"{tmp_path / 'gone.yml'}: no such file" in capsys.readouterr().out


def test_check_reads_the_environment(
    classroom: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "wifi: {country: FR, networks: [{ssid: a, passphrase: {env: CLASS_WIFI}}]}\n"
    classroom.write_text(GOOD + text)
    monkeypatch.setenv("CLASS_WIFI", "hunter2")
    assert run(["check", str(classroom)]) == 3
    said = capsys.readouterr()
    assert "has 7 bytes" in said.out
    assert "hunter2" not in said.out + said.err


# ---- init


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--hostnames", "pi-[1-4]", "--profile", "armv6", "--image", "sample"],
        ["--profile", "arm64"],
        ["--profile", "arm64", "--user", "ann"],
        ["--board", "pi4", "--timezone", "Europe/Paris"],
        ["--board", "pi400", "--timezone", ""],
        ["--wifi-ssid", "Café \"N\" 'x' \\ 📶", "--wifi-country", "fr", "--shack", "10.0.0.1"],
    ],
)
def test_init_writes_what_check_takes(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "classroom.yml"
    assert run(["init", str(path), "--no-input", *arguments]) == 0
    assert run(["check", str(path)]) == 0
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    flags = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert data["nodes"][0]["hostname"] == flags.get("--hostnames", "pi-[01-30]")
    if "--wifi-ssid" in flags:
        assert data["wifi"]["networks"][0]["ssid"] == flags["--wifi-ssid"]
        assert data["wifi"]["country"] == "FR"
        assert data["shack"] == {"address": "10.0.0.1"}
    assert data.get("board") == flags.get("--board")
    assert data.get("timezone", "") == flags.get("--timezone", get_localzone_name())
    assert [entry.name for entry in tmp_path.iterdir()] == ["classroom.yml"]
    assert capsys.readouterr().out == ""


def test_init_finds_the_key_of_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").write_text(f"{KEY}\n")
    path = tmp_path / "c.yml"
    assert run(["init", str(path), "--no-input", "--profile", "arm64"]) == 0
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert data["ssh_keys"] == [{"file": "~/.ssh/id_ed25519.pub"}]
    assert data["user"] == {"name": "pupil"}
    assert run(["check", str(path)]) == 0
    assert capsys.readouterr().out == ""


def test_init_does_not_write_over_a_file(
    classroom: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classroom.write_text("mine")
    assert run(["init", str(classroom), "--no-input"]) == 2
    assert classroom.read_text() == "mine"
    assert run(["init", str(classroom), "--no-input", "--force"]) == 0
    assert "nodes:" in classroom.read_text()
    capsys.readouterr()


def test_init_refuses_answers_that_make_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "classroom.yml"
    arguments = ["--hostnames", "Pi_[1-3]", "--shack", "here", "--profile", "armv9"]
    assert run(["init", str(path), "--no-input", *arguments]) == 3
    said = capsys.readouterr().err
    assert "use `pi-1`" in said
    assert "`here` is not an IP address" in said
    assert not list(tmp_path.iterdir())


def test_init_into_a_folder_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "gone" / "c.yml"), "--no-input"]) == 7
    assert "No such file" in capsys.readouterr().err


def at_a_terminal(folder: Path, answers: str) -> tuple[int, str]:
    """Answer each question of `init` when it is asked; what was typed before a secret is lost."""
    leader, follower = pty.openpty()
    program = [sys.executable, "-m", "imagebuilder", "init", "c.yml"]
    said, left = b"", iter(answers.splitlines())
    with subprocess.Popen(
        program, cwd=folder, stdin=follower, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        os.close(follower)
        assert process.stderr
        while piece := os.read(process.stderr.fileno(), 4096):
            said += piece
            if said.endswith(b": "):
                os.write(leader, f"{next(left)}\n".encode())
        code = process.wait(timeout=60)
    os.close(leader)
    assert list(left) == [], said.decode()
    return code, said.decode()


def test_init_asks_its_questions_at_a_terminal(tmp_path: Path) -> None:
    answers = "rpi-[1-5]\narmv6\n\nshack\nfr\ncorrect horse\n192.168.2.1\n\n\n\n"
    code, said = at_a_terminal(tmp_path, answers)
    assert code == 0, said
    path = tmp_path / "c.yml"
    data = yaml.safe_load(path.read_text())
    assert data["nodes"] == [{"hostname": "rpi-[1-5]"}]
    assert (data["profile"], data["wifi"]["country"]) == ("armv6", "FR")
    secret = tmp_path / "wifi-passphrase"
    assert data["wifi"]["networks"][0]["passphrase"] == {"file": secret.name}
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("correct horse\n", 0o600)
    assert "correct horse" not in path.read_text() + said
    assert run(["check", str(path)]) == 0


def test_init_asks_again_after_a_wrong_answer(tmp_path: Path) -> None:
    typed = (
        "Pi_1\npi-[3-1]\npi-1\npi44\npi4\nhypriotos-1.12\n\nshack\nUK\ngb\nshort\n\n"
        "0.0.0.0\n10.0.0.1\n\nEurope/Pari\n\nAnn\nann\n"
    )
    code, said = at_a_terminal(tmp_path, typed)
    assert code == 0
    hints = [
        "`pi-1`",
        "example `pi-[01-30]`",
        "one of: arm64, armv6, armv7",
        "hypriotos-1.12.3",
        "use GB",
        "8 to 63",
        "instructor's machine",
        "did you mean `Europe/Paris`",
        "example `pirate`",
    ]
    found = [line for line in said.splitlines() if line.startswith("hint: ")]
    assert [hint for hint, line in zip(hints, found, strict=True) if hint not in line] == [], found
    data = yaml.safe_load((tmp_path / "c.yml").read_text())
    assert (data["board"], data["nodes"]) == ("pi4", [{"hostname": "pi-1"}])
    assert (data["wifi"]["country"], data["shack"]["address"]) == ("GB", "10.0.0.1")
    assert data["wifi"]["networks"][0]["passphrase"] == {"prompt": True}


@pytest.mark.parametrize(
    ("boards", "image"),
    [
        ("pi4", "raspios-lite-bookworm-arm64"),
        ("pi4", "raspios-lite-bookworm"),
        ("armv7", "raspios-lite-bookworm"),
        ("arm64", ""),
    ],
)
def test_init_takes_an_image_of_the_boards_and_creates_the_user_that_it_needs(
    tmp_path: Path, boards: str, image: str
) -> None:
    code, said = at_a_terminal(tmp_path, f"\n{boards}\n{image}\n\n\n\n\n\n")
    assert (code, "error" in said) == (0, False), said
    data = yaml.safe_load((tmp_path / "c.yml").read_text())
    assert data["user"]["name"] == "pupil"
    assert data.get("image", "") == image


def test_init_offers_images_of_the_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def ask(_self: object, question: str, default: str = "") -> str:
        asked.append(question)
        return default

    monkeypatch.setattr("imagebuilder.cli.console.Console.interactive", True)
    monkeypatch.setattr("imagebuilder.cli.console.Console.ask_or_read", ask)
    assert run(["init", str(tmp_path / "c.yml"), "--board", "pi5", "--wifi-ssid", ""]) == 0
    (offered,) = (question for question in asked if question.startswith("Base image"))
    assert "arm64" in offered
    assert "hypriotos" not in offered
    capsys.readouterr()


def test_init_keeps_a_passphrase_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wifi-passphrase").write_text("of another class")
    assert run(["init", str(tmp_path / "c.yml"), "--no-input"]) == 2
    assert "wifi-passphrase exists already" in capsys.readouterr().err
    assert (tmp_path / "wifi-passphrase").read_text() == "of another class"


def piped(folder: Path, answers: str, *flags: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "imagebuilder", "init", "c.yml", *flags]
    return subprocess.run(
        program, cwd=folder, input=answers, capture_output=True, text=True, check=False
    )


def test_init_reads_answers_from_a_pipe_and_says_what_it_takes_instead(tmp_path: Path) -> None:
    done = piped(tmp_path, "rpi-[1-5]\n\nclass\n")
    assert done.returncode == 0
    assert [line.partition(" for example FR: ")[2] for line in done.stderr.splitlines()[:1]] == [
        "none (no answer)"
    ]
    assert "Address of your own machine, empty for none: none (no answer)" in done.stderr
    assert "Boards (" not in done.stderr
    data = yaml.safe_load((tmp_path / "c.yml").read_text())
    assert (data["nodes"], data["profile"]) == ([{"hostname": "rpi-[1-5]"}], "armv7")
    assert data["wifi"]["networks"][0]["ssid"] == "class"


def test_init_without_any_input_says_its_defaults(tmp_path: Path) -> None:
    done = piped(tmp_path, "")
    assert done.returncode == 0
    assert "Hostnames of the Pis: pi-[01-30] (no answer)" in done.stderr
    said = piped(tmp_path, "never\n", "--force", "--no-input").stderr
    assert "no answer" not in said
    assert "pi-[01-30]" in (tmp_path / "c.yml").read_text()


def test_init_refuses_wrong_answers_of_a_pipe(tmp_path: Path) -> None:
    done = piped(tmp_path, "Pi_1\narmv77\n")
    assert done.returncode == 3
    assert "use `pi-1`" in done.stderr
    assert "did you mean `armv7`?" in done.stderr
    assert not list(tmp_path.iterdir())


@given(ssid=st.text(min_size=1, max_size=20), country=st.sampled_from(sorted(COUNTRIES)))
def test_the_starter_keeps_any_text(ssid: str, country: str) -> None:
    text = render_starter(StarterAnswers(wifi_ssid=ssid, wifi_country=country))
    assert yaml.safe_load(text)["wifi"]["networks"][0]["ssid"] == ssid


# ---- schema


def valid(text: str) -> bool:
    """Ask jsonschema, which knows nothing of our models."""
    checker = jsonschema.Draft202012Validator(json.loads(classroom_schema()))
    return not list(checker.iter_errors(yaml.safe_load(text) or {}))


def test_the_schema_is_a_schema_and_the_shipped_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(classroom_schema()))
    shipped = shipped_folder("profiles") / "classroom.schema.json"
    assert shipped.read_text(encoding="utf-8") == classroom_schema()


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert capsys.readouterr().out == classroom_schema()


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"""\
profile: armv7
image: {{file: a.zip, sha256: {CHECKSUM}}}
shack: {{address: 192.168.2.1}}
wifi: {{country: FR, networks: [{{ssid: shack, passphrase: {{env: CLASS_WIFI}}}}]}}
nodes:
  - hostname: pi-[01-30]
""",
        f"{GOOD}wifi: {{networks: [{{ssid: 1, passphrase: 12345678}}]}}\nssh_keys: a",
        f"{GOOD}user: {{name: a, password: {{prompt: true}}}}\noverlays: one\nset: {{a: b, x: 1}}",
        f"{GOOD}name: 2024\ncluster: {{consul: {{version: 1.15}}}}\nx-base: &a {{b: 1}}",
        "nodes: nodes.csv",
        "nodes:\nnodes_from: nodes.csv",
        """\
docker: {labels: {x: true}}
nodes:
  - {hostname: 'pi-[1-3,07]', address: '10.0.0.[1-3,7]/24', mac: 'b8:27:eb:00:00:[1-4]'}
  - {hostname: 123, labels: {row: 1}, seat: 3, serial: 12345678, owner: true}
  - {hostname: '[1-3]', serial: '0x0000000[1-3]', address: 'fe80::1%eth0'}
""",
        render_starter(StarterAnswers(wifi_ssid="a", wifi_country="FR", shack="10.0.0.1")),
    ],
)
def test_the_schema_takes_what_we_take(text: str) -> None:
    assert valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nodes: []",
        "profil: armv7",
        "image: {file: a.zip, sha256: zz}",
        "docker: {labels: {x: 'a b'}}",
        "timezone: europe",
        "shack: {images: {swarm: Swarm}}",
        "nodes: [{host: a}]",
        "nodes: [{hostname: Pi_1}]",
        "nodes: [{hostname: 'pi-[1-3]-'}]",
        "nodes: [{hostname: a, mac: nope}]",
        "nodes: [{hostname: a, address: pi}]",
        "nodes: [{hostname: a, x-b: c}]",
        "nodes: [{owner: a}]",
        "shack: {kind: k8s}",
        "docker: {port: many}",
        "user: {password: {inline: x}}",
        "user: {password: {file: x, env: y}}",
        "wifi: {networks: [{}]}",
        "overlays: {a: b}",
        "network: {dns: {a: b}}",
    ],
)
def test_the_schema_refuses_what_we_refuse(text: str) -> None:
    assert not valid(text if "nodes:" in text or not text else f"{text}\nnodes: [{{hostname: a}}]")
    assert valid("nodes: [{hostname: a}]")


@pytest.mark.parametrize(
    "rest",
    [
        "name: 2024\nset: {x: 1, y: true}\nx-base: &base {timezone: Europe/Paris}\n",
        "docker: {tcp: false, labels: {x: true}}\n",
        "nodes_from: nodes.csv\n",
    ],
)
def test_the_schema_agrees_with_check(classroom: Path, rest: str) -> None:
    (classroom.parent / "nodes.csv").write_text("hostname\na\n")
    node = "{hostname: 7, labels: {row: 1}, seat: 3, serial: 12345678}"
    text = f"profile: armv7\nimage: sample\nnodes: [{node}]\n{rest}"
    classroom.write_text(text)
    assert valid(text)
    assert run(["check", str(classroom)]) == 0


# ---- profiles


def test_profiles_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles"]) == 0
    said = capsys.readouterr().out
    for name in ("armv6", "armv7"):
        assert f"\n{name} " in f"\n{said}"


def test_profiles_as_json_with_a_folder_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pi5.yml").write_text("arch: arm64\nmachines: [aarch64]\n")
    assert run(["profiles", "--json", "--profiles-dir", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [profile["name"] for profile in report["profiles"]] == ["arm64", "armv6", "armv7", "pi5"]
    assert set(report) == {"profiles"}


def test_images_say_what_they_are_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))
    entries = ("bare: {file: a.img}", "beside: {file: b.img}", "web: {url: 'https://h/c.img'}")
    pinned = f"pinned: {{file: d.img, sha256: {CHECKSUM}}}"
    text = "".join(f"  {entry}\n" for entry in (*entries, pinned))
    (tmp_path / "images.yml").write_text(f"catalog: list.json\nimages:\n{text}")
    (tmp_path / "list.json").write_text('{"os_list": []}')
    (tmp_path / "b.img.sha256").touch()
    assert run(["images", "--profiles-dir", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    said = {
        row[0]: row[1:] for row in rows if row and row[0] in {"bare", "beside", "web", "pinned"}
    }
    assert said == {
        "bare": ["none"], "beside": ["beside", "it"], "web": ["publisher's"], "pinned": ["pinned"],
    }  # fmt: skip


def test_our_images_are_listed_where_the_published_list_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RPI_IMAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images.yml").write_text("catalog: list.json\n")
    (tmp_path / "list.json").write_text("{}")
    assert run(["images", "--profiles-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "hypriotos-1.12.3 " in said.out
    assert said.err.startswith(f"warning: {tmp_path}/list.json is not a list of images: ")
    assert "only our own images are listed" in said.err


@pytest.mark.parametrize("command", ["build", "batch", "diff", "shack", "export", "labels"])
def test_nothing_goes_to_standard_output(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--profile", "armv7", "--hostname", "a"] if command == "build" else ["room.yml"]
    assert run([command, *words, "-o", "-"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot write to standard output\nhint: ")
    assert list(tmp_path.iterdir()) == []


def test_profiles_of_a_wrong_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yml").write_text("arch: a\nmachine: [b]\n")
    assert run(["profiles", "--profiles-dir", str(tmp_path)]) == 3
    said = capsys.readouterr().err
    assert f"{tmp_path}/a.yml:2: machine: unknown key" in said
    assert "did you mean `machines`?" in said
