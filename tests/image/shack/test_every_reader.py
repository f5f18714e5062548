"""The same nasty texts in every field of the roster, judged by the programs that read them."""

from __future__ import annotations

import html.parser
import json
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from imagebuilder.errors import SettingsError
from imagebuilder.model import Docker
from imagebuilder.plan.templates import compile_template
from imagebuilder.shack.encoders import ssh_path
from imagebuilder.shack.exports import EXPORTS
from imagebuilder.shack.keystore import with_identities
from imagebuilder.shack.sheets.label_content import SHEETS
from imagebuilder.shack.sheets.labels import render_labels
from tests.lib.classroom_samples import make_classroom, node
from tests.lib.nasty import NASTY
from tests.lib.shack_folder import written
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

    from imagebuilder.model import Classroom, OverlayFile

IN_PATHS = [text for text in NASTY if "/" not in text and text not in (".", "..")]


def nasty_room(folder: Path) -> Classroom:
    nodes = [
        node(
            number + 1, hostname=f"pi-{number}", owner=text, seat=text,
            docker=Docker(labels=(("note", text),)),
        )
        for number, text in enumerate(NASTY)
    ]  # fmt: skip
    return make_classroom(folder, *nodes, name='3b $HOME `id` {{ 7 * 7 }} <b> "x"')


def test_ansible_shows_each_text_and_runs_none(tmp_path: Path) -> None:
    need("ansible-playbook")
    texts = EXPORTS["ansible"].render(nasty_room(tmp_path), tmp_path)
    (tmp_path / "inventory.yml").write_text(texts)
    asked = {
        name: f"{{{{ groups.all | map('extract', hostvars, {name!r}) | list }}}}"
        for name in ("owner", "seat", "docker_labels")
    }
    copy = {"content": "{{ asked | to_json }}", "dest": str(tmp_path / "shown"), "mode": "0600"}
    play = {"hosts": "all", "gather_facts": False, "connection": "local", "vars": {"asked": asked}}
    play["tasks"] = [{"ansible.builtin.copy": copy, "run_once": True}]
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    run(
        "env", f"HOME={tmp_path}", "ANSIBLE_LOCALHOST_WARNING=False",
        "ansible-playbook", "-i", "inventory.yml", "play.yml", cwd=tmp_path,
    )  # fmt: skip
    shown = json.loads((tmp_path / "shown").read_text())
    assert shown["owner"] == shown["seat"] == list(NASTY)
    assert [labels["note"] for labels in shown["docker_labels"]] == list(NASTY)


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory) -> Classroom:
    return with_identities(
        make_classroom(tmp_path_factory.mktemp("c"), node(1, keep_host_keys=True))
    )


@pytest.mark.parametrize("name", IN_PATHS)
def test_ssh_finds_the_known_hosts_in_any_folder_or_it_is_refused(
    name: str, with_keys: Classroom, tmp_path: Path
) -> None:
    need("ssh")
    folder = tmp_path / name
    folder.mkdir()
    if "${" in name:
        with pytest.raises(SettingsError, match="ssh cannot read the path"):
            EXPORTS["ssh-config"].render(with_keys, folder)
        return
    (tmp_path / "config").write_text(EXPORTS["ssh-config"].render(with_keys, folder))
    shown = run("ssh", "-F", tmp_path / "config", "-G", "pi-01")
    (line,) = [line for line in shown.split("\n") if line.startswith("userknownhostsfile ")]
    assert line.partition(" ")[2] == str(folder / "known_hosts")


@pytest.mark.parametrize("name", ["a\nb", "a\x07b", "${HOME}"])
def test_what_ssh_cannot_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="ssh cannot read the path"):
        ssh_path(tmp_path / name)


def test_dnsmasq_and_hosts_take_every_text(tmp_path: Path) -> None:
    (dnsmasq,) = need("dnsmasq")
    (tmp_path / "dnsmasq.conf").write_text(
        EXPORTS["dnsmasq"].render(nasty_room(tmp_path), tmp_path)
    )
    done = subprocess.run(
        [dnsmasq, "--test", "-C", tmp_path / "dnsmasq.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "syntax check OK" in done.stderr
    for line in EXPORTS["hosts"].render(nasty_room(tmp_path), tmp_path).splitlines()[1:]:
        assert len(line.split()) == 2


@pytest.mark.parametrize("shell", [("dash",), ("busybox", "sh"), ("bash",)])
def test_docker_gets_each_path_as_one_field(shell: tuple[str, ...], tmp_path: Path) -> None:
    need("dash", "busybox", "bash")
    (tmp_path / "docker").write_text(
        '#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done >>"$LOG"\n'
    )
    (tmp_path / "docker").chmod(0o755)
    folder = tmp_path / 'a, "b" $(id) `id`'
    secure = replace(
        make_classroom(tmp_path, node(1, docker=Docker(tls=True, port=2376))), secrets=folder
    )
    (tmp_path / "script").write_text(EXPORTS["docker-contexts"].render(secure, tmp_path))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
    }
    subprocess.run([*shell, tmp_path / "script"], check=True, env=environment)
    words = (tmp_path / "log").read_text().split("\0")
    at = words.index("--docker", words.index("pi-01"))
    want = [f"{part}={folder / 'client' / part}.pem" for part in ("ca", "cert", "key")]
    quoted = [f'"{field.replace(chr(34), chr(34) * 2)}"' for field in want]
    assert words[at + 1] == ",".join(["host=tcp://192.168.2.101:2376", *quoted])


class _Texts(html.parser.HTMLParser):
    """What a reader of the page sees, and which tags and attributes it has."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.events: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.events |= {name for name, _ in attrs if name.startswith("on")}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_pages_show_texts_as_texts(templates: tuple[OverlayFile, ...], tmp_path: Path) -> None:
    classroom = nasty_room(tmp_path)
    page = (written(classroom, templates, tmp_path / "shack") / "web/index.html").read_text()
    plain = _Texts()
    plain.feed(
        (
            written(make_classroom(tmp_path), templates, tmp_path / "plain") / "web/index.html"
        ).read_text()
    )
    shown = _Texts()
    shown.feed(page)
    assert shown.tags == plain.tags
    assert shown.events == set()
    assert set(NASTY) <= set(shown.texts)


def test_the_labels_show_texts_as_texts(tmp_path: Path) -> None:
    plain, shown, paper = _Texts(), _Texts(), SHEETS["l7160"]
    plain.feed(render_labels(make_classroom(tmp_path), paper))
    shown.feed(render_labels(nasty_room(tmp_path), paper))
    assert shown.tags == plain.tags
    assert shown.events == set()


@pytest.mark.parametrize("text", NASTY)
def test_compose_reads_each_text_back(text: str) -> None:
    """Compose replaces `$NAME` and `$$` after YAML has been read (compose-spec, interpolation)."""
    rendered = compile_template("{{ x|compose }}", "t").render({"x": text})
    read = yaml.safe_load(rendered)
    assert read.replace("$$", "").count("$") == 0
    assert read.replace("$$", "$") == text


def test_docker_compose_reads_the_texts(tmp_path: Path) -> None:
    need("docker-compose")
    commands = compile_template("{{ x|compose }}", "t").render({"x": list(NASTY)})
    (tmp_path / "docker-compose.yml").write_text(
        f"version: '3'\nservices:\n  a:\n    image: x\n    command: {commands}\n"
    )
    shown = yaml.safe_load(run("docker-compose", "config", cwd=tmp_path))
    assert [word.replace("$$", "$") for word in shown["services"]["a"]["command"]] == list(NASTY)


def test_make_and_the_scripts_are_not_steered_by_the_name(
    templates: tuple[OverlayFile, ...], tmp_path: Path
) -> None:
    need("make", "dash")
    folder = written(nasty_room(tmp_path), templates, tmp_path / "shack")
    assert "up" in run("make", "-C", folder)
    for path in folder.rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh"):
            run("dash", "-n", path)
