"""Files: where every problem stands, rosters from tables, and generations of one's own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from imagebuilder.errors import SettingsError
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.load import check_classroom, load_classroom
from imagebuilder.settings.yaml_reader import CsvReference
from tests.lib.classrooms import CHECKSUM, WrittenClassroom, from_flags

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


@pytest.fixture
def classroom(tmp_path: Path) -> WrittenClassroom:
    return WrittenClassroom(tmp_path)


def test_all_problems_at_once_in_file_order(classroom: WrittenClassroom) -> None:
    classroom.write(
        """\
profil: armv7
image: {file: a.img, sha256: 12}
wifi:
  country: UK
  networks:
    - ssid: shack
      passphrase: {env: A, file: b}
nodes:
  - hostname: Pi-1
  - hostname: pi-2
    address: 10.0.0.300
"""
    )
    refusal = classroom.refusal()
    assert [problem.line for problem in refusal.problems] == [1, 2, 4, 7, 9, 11]
    assert all(problem.file == classroom.path for problem in refusal.problems)
    assert str(refusal.problems[0]) == f"{classroom.path}:1: profil: unknown key `profil`"
    assert refusal.problems[0].hint == "did you mean `profile`?"
    assert refusal.exit_code == 3
    assert "6 problems" in refusal.message


def test_what_is_sound_is_looked_at_beside_what_is_not(classroom: WrittenClassroom) -> None:
    classroom.write(
        """\
profile: armv77
shack: {address: nowhere}
cluster: {enabled: true}
wifi:
  country: FR
  networks:
    - ssid: this network's name is far too long
      passphrase: hunter2
user: {password: {file: gone}}
network: {subnet: 10.0.0.0/24}
nodes:
  - hostname: Pi-1
    address: 10.0.1.1
  - hostname: pi-[2-4]
    address: 10.0.0.[2-4]
    image: sampel
  - hostname: pi-3
  - owner: Ann
    mac: nope
"""
    )
    assert [line.split(": ")[0] for line in classroom.errors()] == [
        "1 error",  # no such profile
        "2 error",  # no IP address; and not: a cluster without a shack
        "7 error",  # SSID
        "8 error",  # passphrase
        "9 error",  # a user needs a name
        "9 error",  # no such file
        "12 error",  # host name
        "13 error",  # outside the subnet
        "16 error",  # no such image
        "17 error",  # pi-3 again
        "18 error",  # no host name
        "19 error",  # MAC
    ]


def test_nobody_is_asked_for_secrets_of_a_broken_class(classroom: WrittenClassroom) -> None:
    classroom.write(
        "profile: armv7\nnope: 1\nuser: {name: a, password: {prompt: true}}\nnodes: []\n"
    )

    def ask(question: str) -> str:
        raise AssertionError(question)

    with pytest.raises(SettingsError):
        classroom.load(ask=ask)


def test_faults_of_yaml_and_of_the_model_together(classroom: WrittenClassroom) -> None:
    classroom.write("profile: armv7\nprofile: armv6\nnope: 1\nnodes: [{hostname: a}]\n")
    assert [problem.line for problem in classroom.refusal().problems] == [2, 3]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"a: [1", "not YAML"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"- a\n", "expected a mapping"),
        (b"hello\n", "expected a mapping"),
        (b"profile: armv7\n", "no nodes"),
        (b"profile: armv7\nnodes: []\n", "no nodes"),
        (b"profile: armv7\nnodes: {hostname: a}\n", "expected a list"),
        (b"profile: armv7\nnodes: 3\n", "expected a list"),
        (b"nodes: [{hostname: a}]\n", "no profile is set"),
        (b"profile: armv7\nnodes: [{hostname: 'a[3-1]'}]\n", "ends before it begins"),
        (b"profile: armv7\nnodes: !csv gone.csv\n", "no such file"),
        (b"profile: armv7\nnodes: !csv .\n", "is a directory"),
    ],
)
def test_files_that_are_no_classroom(classroom: WrittenClassroom, raw: bytes, words: str) -> None:
    classroom.path.write_bytes(raw)
    problems = classroom.refusal().problems
    assert words in problems[0].message
    assert all(problem.line for problem in problems)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "begin with `profile: armv7`, or use `rpi-image init`"),
        ("# nothing\n", "begin with `profile: armv7`, or use `rpi-image init`"),
        ("- a\n", "begin with `profile: armv7`, or use `rpi-image init`"),
        ("profile: armv7\nnodes: ['pi-[01-03]']\n", "for example `- hostname: pi-[01-30]`"),
        (
            "profile: armv7\nnodes: pi\n",
            "for example `- hostname: pi-[01-30]`, or `nodes: !csv FILE`",
        ),
        (
            "profile: armv7\nnodes: [{hostname: a, labels: b}]\n",
            "for example `labels: {name: value}`",
        ),
        ("profile: armv7\nwifi: a\nnodes: [{hostname: a}]\n", "use the keys country, networks"),
        ("profile: armv7\nnodes: [{hostname: a, wifi: b}]\n", "use the keys country, networks"),
    ],
)
def test_what_stands_for_a_mapping_is_told_its_form(
    classroom: WrittenClassroom, text: str, hint: str
) -> None:
    (problem,) = classroom.write(text).refusal().problems
    assert problem.hint == hint


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_classroom(tmp_path / "gone.yml", environment={})
    assert "no such file" in caught.value.message


def test_a_byte_order_mark_and_windows_lines(classroom: WrittenClassroom) -> None:
    classroom.path.write_bytes(b"\xef\xbb\xbfprofile: armv7\r\nnodes:\r\n  - hostname: no\r\n")
    assert [node.hostname for node in classroom.load().nodes] == ["no"]


def test_scalars_stay_strings_where_strings_are_meant(classroom: WrittenClassroom) -> None:
    classroom.write(
        """\
profile: armv7
set: {a: no, b: 0123, c: 2024-01-01, d: 1e3, e: 'null'}
nodes:
  - hostname: 0123
    labels: {on: off}
    owner: yes
    seat: 07
"""
    )
    node = classroom.load().nodes[0]
    assert node.hostname == "0123"
    assert node.docker.labels == (("on", "off"),)
    assert (node.owner, node.seat) == ("yes", "07")
    expected = {"a": "no", "b": "0123", "c": "2024-01-01", "d": "1e3", "e": "null"}
    assert dict(node.variables) == expected


def test_nodes_of_a_table_by_tag_and_by_key(classroom: WrittenClassroom) -> None:
    table = "Hostname;Address;Owner\r\npi-[1-2];10.0.0.[1-2];Zoë\r\nboss;;\r\n"
    for key in ("nodes: !csv nodes.csv", "nodes_from: nodes.csv"):
        classroom.write(
            f"profile: armv7\nnetwork: {{subnet: 10.0.0.0/8}}\n{key}\n", nodes__csv=table
        )
        nodes = classroom.load().nodes
        assert [node.hostname for node in nodes] == ["pi-1", "pi-2", "boss"]
        assert [node.network.address for node in nodes] == ["10.0.0.1/8", "10.0.0.2/8", ""]
        assert [node.owner for node in nodes] == ["Zoë", "Zoë", ""]


def test_a_table_in_ones_home(classroom: WrittenClassroom) -> None:
    home = classroom.folder / "home"
    home.mkdir()
    (home / "nodes.csv").write_text("hostname\nb\n")
    classroom.environment["HOME"] = str(home)
    for key in ("nodes: !csv ~/nodes.csv", "nodes_from: ~/nodes.csv"):
        classroom.write(f"profile: armv7\n{key}\n")
        assert [node.hostname for node in classroom.load().nodes] == ["b"]


def test_anchors_may_stand_aside(classroom: WrittenClassroom) -> None:
    classroom.write(
        "profile: armv7\nx-new: &new {owner: Ann, wifi: {contry: FR}}\n"
        "nodes: [{hostname: a, <<: *new}]\nx_old: 1\n"
    )
    assert [line.partition(": unknown")[0] for line in classroom.errors()] == [
        "2 error: nodes[0].wifi.contry",
        "4 error: x_old",
    ]
    classroom.write("profile: armv7\nx-new: &new {owner: Ann}\nnodes: [{hostname: a, <<: *new}]\n")
    assert classroom.load().nodes[0].owner == "Ann"


def test_a_list_and_a_table_together(classroom: WrittenClassroom) -> None:
    classroom.write(
        "profile: armv7\nnodes: [{hostname: a}]\nnodes_from: nodes.csv\n",
        nodes__csv="hostname\nb\n",
    )
    assert [node.hostname for node in classroom.load().nodes] == ["a", "b"]


def test_problems_of_a_table_stand_in_the_table(classroom: WrittenClassroom) -> None:
    table = "hostname,address,owner\nok,,\nPi_2,,\n\npi-4,10.0.0.999,\nok,,\n"
    classroom.write("profile: armv7\nnodes: !csv nodes.csv\n", nodes__csv=table)
    problems = classroom.refusal().problems
    assert [(problem.file, problem.line) for problem in problems] == [
        (classroom.folder / "nodes.csv", 3),
        (classroom.folder / "nodes.csv", 5),
        (classroom.folder / "nodes.csv", 6),
    ]
    assert problems[0].message.startswith("hostname: `Pi_2`")
    classroom.write(
        "profile: armv7\nnodes: !csv nodes.csv\n", nodes__csv=table.replace("Pi_2", "p2")
    )
    classroom.write("profile: armv7\nnodes: !csv nodes.csv\n", nodes__csv="hostname\na\nb\na\n")
    assert [problem.line for problem in classroom.refusal().problems] == [4]


def test_faults_of_a_table_itself(classroom: WrittenClassroom) -> None:
    classroom.write("profile: armv7\nnodes: !csv nodes.csv\n", nodes__csv="hostname,adress\na,b\n")
    problem = classroom.refusal().problems[0]
    assert (problem.file, problem.line) == (classroom.folder / "nodes.csv", 1)
    assert problem.hint == "did you mean `address`?"


def test_faults_of_a_table_hide_no_faults_of_its_rows(classroom: WrittenClassroom) -> None:
    table = "hostname,adress,labels,address\npi-1,,bad label,10.0.1.1\npi-1,,,\nPi_x,,,\n"
    text = "profile: armv7\nnetwork: {subnet: 10.0.0.0/24}\nnodes: !csv nodes.csv\n"
    classroom.write(text, nodes__csv=table)
    assert [line[:9] for line in classroom.errors()] == [
        "1 error: ",
        *["2 error: "] * 2,
        "3 error: ",
        "4 error: ",
    ]
    assert "outside the subnet" in classroom.errors()[2]


def test_ranges_out_of_step_hide_no_other_fault(classroom: WrittenClassroom) -> None:
    classroom.write(
        "profile: armv7\nnodes:\n"
        "  - hostname: pi-[1-5]\n    mac: nope\n    address: 192.168.2.[300-302]\n"
    )
    problems = classroom.refusal().problems
    assert [problem.line for problem in problems] == [3, 4, 5]
    assert problems[0].hint == "use ranges of the same length"


def test_faults_of_a_list_keep_their_places(classroom: WrittenClassroom) -> None:
    classroom.write(
        """\
profile: armv7
ssh_keys:
  - {file: nokey}
  - nonsense
  - {file: nokey2}
nodes:
  - nonsense
  - hostname: a
    overlays:
      - ''
      - gone
"""
    )
    found = classroom.errors()
    assert [line.partition(": ")[0] for line in found] == [
        f"{n} error" for n in (3, 4, 5, 7, 10, 11)
    ]
    assert "ssh_keys[2]" in found[2]
    assert "nodes[1].overlays[1]" in found[5]


def test_flags_are_named_without_a_file() -> None:
    with pytest.raises(SettingsError) as caught:
        from_flags(nodes=[{"hostname": "Pi_03"}])
    assert caught.value.message.startswith("hostname: `Pi_03` is not a hostname")
    assert caught.value.hint == "use `pi-03`"
    with pytest.raises(SettingsError) as caught:
        from_flags(shack={"address": "x"}, wifi={"country": "XX"})
    messages = sorted(str(problem) for problem in caught.value.problems)
    assert [message.split(":")[0] for message in messages] == ["shack.address", "wifi.country"]


def test_secrets_beside_the_file_or_where_it_says(classroom: WrittenClassroom) -> None:
    classroom.write("profile: armv7\nnodes: [{hostname: a}]\n")
    assert classroom.load().secrets == classroom.folder / "room.secrets"
    classroom.write("profile: armv7\nsecrets: ../keys\nname: Class 7b\nnodes: [{hostname: a}]\n")
    loaded = classroom.load()
    assert loaded.secrets == classroom.folder / "../keys"
    assert loaded.name == "Class 7b"


def test_a_time_zone_gets_a_suggestion(classroom: WrittenClassroom) -> None:
    classroom.write("profile: armv7\ntimezone: Europe/Pari\nnodes: [{hostname: a}]\n")
    hints = [problem.hint for problem in classroom.check() if problem.line == 2]
    assert hints == ["did you mean `Europe/Paris`?"]


# ---- profiles and images


def test_a_generation_that_is_not_gets_a_suggestion(classroom: WrittenClassroom) -> None:
    classroom.write("profile: armv7\ngeneration: cloudinit\nnodes: [{hostname: a}]\n")
    (problem,) = classroom.refusal().problems
    assert (problem.line, problem.hint) == (2, "did you mean `cloud-init`?")
    assert problem.message == "generation: no generation `cloudinit`"


def test_a_generation_that_the_catalogue_names_and_is_not_gets_a_suggestion(
    classroom: WrittenClassroom,
) -> None:
    mine = classroom.folder / "profiles"
    mine.mkdir()
    (mine / "images.yml").write_text(
        f"images:\n  mine: {{file: my.img, sha256: {CHECKSUM}, generation: cloudinit}}\n"
    )
    classroom.write("profile: armv7\nimage: mine\nnodes: [{hostname: a}]\n")
    (problem,) = classroom.refusal(profile_folders=[mine]).problems
    assert (problem.line, problem.hint) == (2, "did you mean `cloud-init`?")
    assert problem.message == "image: no generation `cloudinit`"
    classroom.write("profile: armv7\nimage: mine\ngeneration: cloud-init\nnodes: [{hostname: a}]\n")
    assert classroom.load(profile_folders=[mine]).nodes[0].generation == "cloud-init"


def test_a_generation_of_ones_own(classroom: WrittenClassroom) -> None:
    mine = classroom.folder / "mine" / "ours"
    mine.mkdir(parents=True)
    shutil.copy(shipped_folder("overlays") / "firstrun" / "generation.yml", mine)
    classroom.write("profile: armv7\ngeneration: ours\noverlays: mine\nnodes: [{hostname: a}]\n")
    assert classroom.load().nodes[0].generation == "ours"


# ---- robustness and scale


@settings(max_examples=200, deadline=None)
@given(st.text("{}[]:,- \n#&*!|>'\"%@`nodes host:ame profilewifi$123", max_size=120))
def test_any_file_gives_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "room.yml"
    path.write_text(text)
    problems = check_classroom(path, environment={})
    assert any(problem.severe for problem in problems)


SOUND: dict[str, Any] = {
    "profile": "armv7",
    "image": {"file": "a.img", "sha256": CHECKSUM},
    "shack": {"address": "10.0.0.1", "ports": {"consul": 8500}},
    "wifi": {"country": "FR", "networks": [{"ssid": "a", "passphrase": {"env": "P"}}]},
    "network": {"subnet": "10.0.0.0/24", "dhcp_range": "10.0.0.100-10.0.0.110"},
    "docker": {"labels": {"a": "b"}, "insecure_registries": ["a:1"]},
    "cluster": {"consul": {"server": True, "image": "c:1.2.3"}, "images": ["x"]},
    "user": {"name": "pupil", "password": {"env": "P"}, "groups": ["docker"]},
    "ssh_keys": [{"file": "k.pub"}],
    "overlays": ["mine"],
    "set": {"a": "b"},
    "nodes": [{"hostname": "pi-[1-3]", "address": "10.0.0.[2-4]"}, {"hostname": "x", "mac": "1"}],
}
ODD: tuple[Any, ...] = (
    *(None, "", 0, -1, 1e9, True, [], {}, "x" * 300, "é\n", "a\0b", "[1-3]", "{a: b}", {"a": 1}),
    *(["b"], "10.0.0.1", "10.0.0.0/33", "[2-1]", "$6$x", "no", CsvReference("gone")),
)


def spoil(value: Any, random: Random) -> Any:
    """Change one thing somewhere in a document."""
    if isinstance(value, dict) and value:
        key = random.choice(list(value))
        rest = {other: inner for other, inner in value.items() if other != key}
        changed = {key: spoil(value[key], random)}
        return {**rest, **random.choice([changed, changed, {f"{key}x": 1}, {key: None}, {}])}
    if isinstance(value, list) and value:
        place = random.randrange(len(value))
        return [*value[:place], spoil(value[place], random), *value[place + 1 :]]
    return random.choice(ODD)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_spoilt_classes_give_problems_and_no_secret(random: Random, faults: int) -> None:
    said = SOUND
    for _ in range(faults):
        said = spoil(said, random)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "room.yml"
        path.write_text(yaml.dump(said, Dumper=Dumper, allow_unicode=True), encoding="utf-8")
        problems = check_classroom(path, environment={"P": "hunter2x"})
    assert all(problem.line for problem in problems)
    assert "hunter2x" not in str(problems)


class Dumper(yaml.SafeDumper):
    """Writes `!csv` as well."""


Dumper.add_representer(CsvReference, lambda dumper, it: dumper.represent_scalar("!csv", it.path))


def test_cost_grows_linearly(classroom: WrittenClassroom) -> None:
    def steps(nodes: int) -> int:
        rows = "\n".join(f"pi-{i:04};10.{i // 250}.0.{i % 250 + 1}" for i in range(nodes))
        classroom.write("profile: armv7\nnetwork: {subnet: 10.0.0.0/8}\nnodes: !csv n.csv\n")
        (classroom.folder / "n.csv").write_text(f"hostname;address\n{rows}\n")
        return _calls_of(classroom.load)

    small, large = steps(100), steps(400)
    assert large < 5 * small


def _calls_of(work: Callable[[], object]) -> int:
    """Count Python calls: time without the noise of a busy machine."""
    count = 0

    def tally(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(tally)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
