"""Joining the scripts of the Pi from their parts, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imagebuilder.build.compose import OverlayFolders
from imagebuilder.errors import SettingsError
from imagebuilder.plan.generations import detect
from imagebuilder.plan.node import plan_node
from imagebuilder.plan.overlays import node_overlay
from imagebuilder.plan.scripts import load_scripts
from imagebuilder.resources import shipped_folder
from tests.lib.owned_list import owned_list
from tests.lib.plan_samples import BUILD_TIME, boot_of, generations, plain_node
from tests.lib.tools import run

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "#!/bin/sh\nword=done\n"
MAIN = 'main() {\n    say "$word $1"\n}\n'
SAY = 'say() {\n    printf "%s\\n" "$1"\n}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make two small scripts that share a part."""
    folder = tmp_path / "scripts"
    for part, text in {
        "lib/say.sh": SAY,
        "install/head.sh": HEAD,
        "install/main.sh": MAIN,
        "node/main.sh": MAIN,
    }.items():
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).write_text(text)
    write_list(folder, "install", "# first\ninstall/head.sh\n\n  lib/say.sh\ninstall/main.sh\n")
    write_list(folder, "node", "lib/say.sh\nnode/main.sh\n")
    return folder


def write_list(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.parts").write_text(text)


def test_a_script_is_its_parts_in_the_order_of_the_list(folder: Path) -> None:
    install, node = load_scripts(folder)
    assert (install.path, node.path) == ("rpi-image/install", "rpi-image/node")
    assert install.data.decode() == f'{HEAD}\n{SAY}\n{MAIN}\nmain "$@"\n'
    assert run("dash", "-c", install.data.decode(), "install", "here") == "done here\n"
    assert node.data.decode() == f'{SAY}\n{MAIN}\nmain "$@"\n'


def test_the_steps_of_the_parts_are_made_in_the_order_of_the_list(folder: Path) -> None:
    for name in ("first", "second"):
        (folder / f"install/{name}.sh").write_text(
            f"# {name}\n\nset_{name}() {{\n    say {name}\n}}\n"
        )
    (folder / "install/main.sh").write_text(
        'step() {\n    say "$1:"\n    $2\n}\nmain() {\n    steps\n}\n'
    )
    write_list(
        folder,
        "install",
        "install/head.sh\nlib/say.sh\ninstall/second.sh  set_second  the second\n"
        "install/main.sh\ninstall/first.sh\tset_first\tfirst\n",
    )
    script = load_scripts(folder)[0].data.decode()
    for shell in (("dash",), ("busybox", "sh")):
        said = run(*shell, "-c", script, "install")
        assert said == "the second:\nsecond\nfirst:\nfirst\n"


def test_a_function_without_a_label_makes_its_steps_itself(folder: Path) -> None:
    (folder / "install/main.sh").write_text("main() {\n    steps\n}\n")
    (folder / "install/own.sh").write_text("# own\n\nown() {\n    say mine\n}\n")
    write_list(
        folder, "install", "install/head.sh\nlib/say.sh\ninstall/own.sh own\ninstall/main.sh\n"
    )
    script = load_scripts(folder)[0].data.decode()
    assert run("dash", "-c", script, "install") == "mine\n"


def test_a_step_that_its_part_does_not_define(folder: Path) -> None:
    write_list(folder, "node", "lib/say.sh set_it it\nnode/main.sh\n")
    with pytest.raises(SettingsError, match=r"lib/say\.sh does not define set_it"):
        load_scripts(folder)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("clock", "node service"),
        ("node service", "hostname"),
        ("identity", "host keys"),
        ("docker TLS", "docker options"),
        ("login", "SSH keys"),
        ("wifi", "address"),
        ("time server", "files"),
        ("files", "own scripts"),
        ("own scripts", "running system"),
    ],
)
def test_steps_that_need_each_other_are_in_order(earlier: str, later: str) -> None:
    install, _ = load_scripts(shipped_folder("overlays") / "scripts")
    text = install.data.decode()
    body = text.rpartition("\nsteps() {\n")[2].partition("\n}\n")[0]
    owned = "\n".join(f"    own '{each.name}'" for each in owned_list())
    body = body.replace("    owned_settings\n", f"{owned}\n")
    steps = re.findall(r"^    (?:step|own) '([^']+)'", body, re.MULTILINE)
    assert steps.index(earlier) < steps.index(later)
    assert steps[0] == "clock"
    assert steps[-1] == "running system"


def test_a_part_without_a_last_newline_does_not_run_into_the_next(folder: Path) -> None:
    (folder / "lib/say.sh").write_text(SAY.rstrip("\n"))
    script = load_scripts(folder)[0].data.decode()
    assert run("dash", "-c", script, "install", "here") == "done here\n"


def test_hidden_files_of_editors_are_no_parts(folder: Path) -> None:
    (folder / "lib/.#say.sh").symlink_to("someone@here.42")
    (folder / "lib/say.sh~").write_text("old")
    assert len(load_scripts(folder)) == 2


def test_a_part_that_is_missing(folder: Path) -> None:
    (folder / "lib/say.sh").unlink()
    with pytest.raises(SettingsError, match=r"cannot read .*lib/say\.sh: No such file"):
        load_scripts(folder)


@pytest.mark.parametrize("part", ["install/wifi.sh", "lib/more.sh", "other/a.sh", "top.sh"])
def test_a_part_in_no_list(folder: Path, part: str) -> None:
    (folder / part).parent.mkdir(exist_ok=True)
    (folder / part).write_text(SAY)
    with pytest.raises(SettingsError, match=rf"{part} is in no list of parts"):
        load_scripts(folder)


@pytest.mark.parametrize(
    "part",
    [
        "../install/head.sh", "install/../lib/say.sh", "/etc/profile.sh", "install/./main.sh",
        "install//main.sh", "head.sh", "install/main", "install/main.sh lib/say.sh",
        "install/sub/main.sh", "install/MAIN.sh", "install/main.sh\\", "lib/say.sh Say",
        "lib/say.sh say it's", "lib/say.sh say; it", "lib/say.sh say $(id)",
    ],
)  # fmt: skip
def test_a_line_that_is_no_part(folder: Path, part: str) -> None:
    write_list(folder, "more", f"{part}\n")
    with pytest.raises(SettingsError, match=r"more\.parts: .* is not a part"):
        load_scripts(folder)


def test_a_part_that_leads_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.sh").write_text(SAY)
    (folder / "lib/say.sh").unlink()
    (folder / "lib/say.sh").symlink_to(tmp_path / "outside.sh")
    with pytest.raises(SettingsError, match=r"lib/say\.sh links outside"):
        load_scripts(folder)


def test_a_part_that_is_listed_twice(folder: Path) -> None:
    write_list(folder, "node", "lib/say.sh\nnode/main.sh\nlib/say.sh\n")
    with pytest.raises(SettingsError, match=r"node\.parts: lib/say\.sh is listed twice"):
        load_scripts(folder)


def test_a_folder_without_lists(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no \*\.parts list"):
        load_scripts(tmp_path)


def planned_files(*overlays: Path) -> dict[str, bytes | None]:
    """Plan a node that has these overlay folders, as build does."""
    settings, boot = replace(plain_node(), overlays=overlays), boot_of("occidentalis")
    files = OverlayFolders().of(settings)
    planned = plan_node(settings, detect(generations(), boot), files, boot, BUILD_TIME)
    return {edit.path: edit.data for edit in planned.edits}


def test_every_node_gets_both_scripts() -> None:
    overlay = {file.path: file for file in node_overlay()}
    assert list(overlay) == sorted(overlay)
    scripts = load_scripts(shipped_folder("overlays") / "scripts")
    assert [script.path for script in scripts] == ["rpi-image/install", "rpi-image/node"]
    planned = planned_files()
    for script in scripts:
        assert overlay[script.path] == script
        assert planned[script.path] == script.data
        assert script.data.startswith(b"#!/bin/sh\n")


@pytest.mark.parametrize("name", ["install", "node"])
def test_a_script_of_ones_own_replaces_the_joined_one(name: str, tmp_path: Path) -> None:
    own = tmp_path / "rpi-image" / name
    own.parent.mkdir()
    own.write_bytes(b"#!/bin/sh\nexit 0\n")
    assert planned_files(tmp_path)[f"rpi-image/{name}"] == own.read_bytes()
