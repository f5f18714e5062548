"""The commands `shack`, `export` and `labels`, from outside."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.main import run as rpi_image
from tests.lib.classroom_samples import make_classroom
from tests.lib.shack_folder import KINDS, called, recorder, written
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from imagebuilder.model import (
        OverlayFile,
    )
    from imagebuilder.shack.folder import Kind

# ---- the command


def class_file(folder: Path, owner: str = "Ann") -> Path:
    (folder / "base.img").write_bytes(b"")
    file = folder / "classroom.yml"
    file.write_text(
        "profile: armv7\nimage: {file: base.img, unchecked: true}\n"
        "shack: {address: 192.168.2.1}\nnodes:\n  - hostname: pi-[01-30]\n"
        f"    owner: {owner}\n"
    )
    return file


def test_the_command_writes_the_folder_and_says_what_is_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    assert rpi_image(["shack", str(file), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert str(out / "docker-compose.yml") in said.out.splitlines()
    assert "have no password" in said.err
    assert f"make -C {out} up" in said.err
    assert (out / "docker-compose.yml").exists()


def test_the_project_is_the_same_however_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another project would have other volumes: the registry would be empty."""
    folder = tmp_path / "3b"
    folder.mkdir()
    class_file(folder)
    monkeypatch.chdir(folder)
    assert rpi_image(["shack", "classroom.yml"]) == 0
    before = (folder / "shack" / ".env").read_text()
    assert before == "COMPOSE_PROJECT_NAME=shack-3b-classroom\n"
    monkeypatch.chdir(folder / "shack")
    assert rpi_image(["shack", "../classroom.yml", "-o", "."]) == 0
    assert (folder / "shack" / ".env").read_text() == before


def test_the_shell_s_own_project_name_does_not_count(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    folder = written(make_classroom(tmp_path), templates, tmp_path / "shack")
    environment = recorder(tmp_path) | {"COMPOSE_PROJECT_NAME": "another"}
    (tmp_path / "bin" / "docker-compose").write_text(
        f'#!/bin/sh\necho "$1 $COMPOSE_PROJECT_NAME" >> {tmp_path}/projects\n'
    )
    (tmp_path / "bin" / "docker-compose").chmod(0o755)
    words = ["make", "-s", "-C", str(folder), "down", "logs", "COMPOSE=docker-compose"]
    subprocess.run(words, env=environment, check=True, capture_output=True)
    command = ["sh", "compose-up", "docker-compose"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    assert (tmp_path / "projects").read_text().splitlines() == [
        "down shack-class-3b", "logs shack-class-3b", "up shack-class-3b",
    ]  # fmt: skip


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    assert rpi_image(["shack", str(file), "-o", str(out), "--dry-run", "--json"]) == 0
    assert str(out / "Makefile") in json.loads(capsys.readouterr().out)
    assert not out.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_instructor_s_certificate_is_where_the_readme_says(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("openssl")
    monkeypatch.chdir(tmp_path)
    file = class_file(tmp_path)
    file.write_text(file.read_text() + "docker: {tls: true}\n")
    assert rpi_image(["shack", "classroom.yml", "--kind", kind]) == 0
    bundle = tmp_path / "classroom.secrets" / "client"
    if kind == "classic":
        readme = (tmp_path / "shack" / "README.md").read_text()
        assert f"export DOCKER_CERT_PATH='{bundle}' DOCKER_TLS_VERIFY=1" in readme
        assert f"yours is in `{bundle}`" in readme
    run("openssl", "verify", "-purpose", "sslclient", "-CAfile", bundle / "ca.pem",
        bundle / "cert.pem")  # fmt: skip


def test_contexts_hold_paths_that_are_right_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = class_file(tmp_path)
    file.write_text(file.read_text() + "docker: {tls: true}\n")
    assert rpi_image(["export", "classroom.yml", "--format", "docker-contexts"]) == 0
    key = f"key={tmp_path}/classroom.secrets/client/key.pem"
    assert capsys.readouterr().out.count(key) == 31


def test_another_kind_than_the_cards_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    assert rpi_image(["shack", str(file), "-o", str(out), "--kind", "swarm-mode"]) == 0
    assert "the nodes join a classic cluster" in capsys.readouterr().err
    assert (out / "publish-token").exists()


def test_a_folder_that_cannot_be_is_a_write_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = class_file(tmp_path), tmp_path / "out"
    out.write_text("")
    assert rpi_image(["shack", str(file), "-o", str(out)]) == 7
    assert "cannot write" in capsys.readouterr().err


def test_export_and_labels_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(class_file(tmp_path))
    assert rpi_image(["export", file, "--format", "hosts"]) == 0
    assert "192.168.2.1\tshack" in capsys.readouterr().out
    assert rpi_image(["export", file, "-o", str(tmp_path / "exports")]) == 0
    assert len(list((tmp_path / "exports").iterdir())) == 6
    assert rpi_image(["labels", file, "-o", str(tmp_path / "l.html")]) == 0
    assert (tmp_path / "l.html").read_text().count('class="host"') == 30
    assert rpi_image(["labels", file, "-o", str(tmp_path / "l.doc")]) == 2


def test_labels_as_pdf_need_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file, out = str(class_file(tmp_path, "Zoë Ζωή Зоя")), tmp_path / "l.pdf"
    assert rpi_image(["labels", file, "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF")


def test_labels_with_other_letters_are_printed_by_a_browser_or_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("chromium")
    file, out = str(class_file(tmp_path, OTHER_LETTERS)), tmp_path / "l.pdf"
    assert rpi_image(["labels", file, "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF")
    assert "no 字漢: printing with a browser" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rpi_image(["labels", file, "-o", str(out)]) == 2
    assert "install chromium or weasyprint" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["l.pdf", "l.html"])
def test_labels_into_a_folder_that_is_missing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gone" / name
    assert rpi_image(["labels", str(class_file(tmp_path)), "-o", str(out)]) == 7
    shown = capsys.readouterr().err.splitlines()
    assert shown[-2:] == [
        f"error: cannot write {out}: no folder {out.parent}",
        "hint: make the folder first",
    ]
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ([], "595.28 x 841.89"),
        (["--stock", "l7651"], "595.28 x 841.89"),
        (["--stock", "5160"], "612 x 792"),
        (["--stock", "brother-62"], "175.75 x 82.2"),
        (["--paper", "letter"], "612 x 792"),
        (["--paper", "a4"], "595.28 x 841.89"),
    ],
)
def test_the_stock_chooses_the_sheet(options: list[str], size: str, tmp_path: Path) -> None:
    (pdfinfo,) = need("pdfinfo")
    out = tmp_path / "l.pdf"
    assert rpi_image(["labels", str(class_file(tmp_path)), "-o", str(out), *options]) == 0
    assert f"Page size:       {size} pts" in run(pdfinfo, out)


OTHER_LETTERS = "漢字"


def printers(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Leave these programs alone on the PATH; each writes down how it was called."""
    programs = folder / "printers"
    programs.mkdir()
    for name, script in scripts.items():
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/log\n{script}\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))


PRINTS = 'for last; do :; done; echo "%PDF-1.7" > "$last"'


def test_where_one_program_fails_the_next_prints_the_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printers(tmp_path, monkeypatch, chromium="exit 1", chrome="exit 0", weasyprint=PRINTS)
    out = tmp_path / "out" / "l.pdf"
    out.parent.mkdir()
    assert rpi_image(["labels", str(class_file(tmp_path, OTHER_LETTERS)), "-o", str(out)]) == 0
    assert out.read_bytes() == b"%PDF-1.7\n"
    assert [line.split()[0] for line in called(tmp_path)] == ["chromium", "chrome", "weasyprint"]
    assert list(out.parent.iterdir()) == [out]
    assert "weasyprint" in capsys.readouterr().err


def test_a_browser_that_sees_no_hidden_folder_finds_the_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printers(tmp_path, monkeypatch, weasyprint=PRINTS)
    monkeypatch.chdir(tmp_path)
    assert rpi_image(["labels", str(class_file(tmp_path, OTHER_LETTERS)), "-o", "l.pdf"]) == 0
    source = Path(called(tmp_path)[0].split()[1]).relative_to(tmp_path)
    assert len(source.parts) == 2
    assert not source.parts[0].startswith(".")


def test_when_no_program_prints_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printers(tmp_path, monkeypatch, chromium="exit 1", weasyprint="exit 1")
    out = tmp_path / "l.pdf"
    assert rpi_image(["labels", str(class_file(tmp_path, OTHER_LETTERS)), "-o", str(out)]) == 7
    assert "chromium, weasyprint failed to make a PDF" in capsys.readouterr().err
    assert not list(tmp_path.glob("rpi-image-labels-*"))


@pytest.mark.parametrize("place", ["file/l.pdf", "folder.pdf"])
def test_labels_that_cannot_be_written_are_a_write_error(
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printers(tmp_path, monkeypatch, weasyprint=PRINTS)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.pdf").mkdir()
    out = tmp_path / place
    assert rpi_image(["labels", str(class_file(tmp_path, OTHER_LETTERS)), "-o", str(out)]) == 7
    assert f"cannot write {out}" in capsys.readouterr().err
