"""Write the starter classroom file: a few answers, and comments for everything else."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from imagebuilder.errors import InputError, Problem, SettingsError
from imagebuilder.files import has_file, has_folder, new_file, part_of, pwrite_all
from imagebuilder.settings.load import check_classroom
from imagebuilder.settings.schema.documents import ASIDE, ClassroomDocument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagebuilder.progress import Prompter
    from imagebuilder.settings.catalog import PublishedLists


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterAnswers:
    """The answers for a starter file; an empty string leaves a section commented out."""

    hostnames: str = "pi-[01-30]"
    profile: str = "armv7"
    image: str = ""
    wifi_ssid: str = ""
    wifi_country: str = ""
    shack: str = ""
    user: str = ""
    ssh_key: str = ""


def render_starter(answers: StarterAnswers) -> str:
    """Return the starter file with comments; answers are quoted, so any text is kept."""
    parts = (
        _HEAD,
        f"profile: {_quoted(answers.profile)}     # the boards; `rpi-image profiles` lists them",
        _image(answers.image),
        _shack(answers.shack),
        _wifi(answers.wifi_ssid, answers.wifi_country),
        _login(answers.user, answers.ssh_key),
        _MORE,
        _nodes(answers.hostnames),
    )
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def classroom_schema() -> str:
    """Return the JSON Schema of the classroom file, for editors."""
    schema = ClassroomDocument.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "rpi-image classroom file"
    # To an editor, `!csv FILE` is a string and an empty `nodes:` is null.
    nodes = schema["properties"]["nodes"]
    listed = {name: nodes.pop(name) for name in ("type", "items")}
    nodes["anyOf"] = [listed, {"type": "string"}, {"type": "null"}]
    schema["anyOf"] = [
        {"required": ["nodes"], "properties": {"nodes": {"minItems": 1}}},
        {"required": ["nodes_from"]},
    ]
    schema["patternProperties"] = {f"^{ASIDE}": {}}
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _quoted(text: str) -> str:
    written = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=sys.maxsize)
    return str(written).strip()


def _image(image: str) -> str:
    said = f"image: {_quoted(image)}" if image else "# image: hypriotos-1.12.3"
    return f"""
# The base image: a name of `rpi-image images`, or {{file: …}} or {{url: …}} with its sha256.
# Without it, the image of the profile is used.
{said}
"""


def _shack(address: str) -> str:
    if not address:
        return """
# Your own machine, which runs consul, Swarm, a registry and a mirror for the class.
# shack: {address: 192.168.2.1}
"""
    return f"""
# Your own machine, which runs consul, Swarm, a registry and a mirror for the class.
shack:
  address: {_quoted(address)}
"""


def _wifi(ssid: str, country: str) -> str:
    if not ssid:
        return """
# wifi:
#   country: FR
#   networks:
#     - ssid: shack
#       passphrase: {env: CLASS_WIFI}     # or {file: PATH}, or {prompt: true}
"""
    said = f"  country: {_quoted(country)}" if country else "  # country: FR"
    return f"""
# The passphrase is not in this file: `export CLASS_WIFI=…` before building.
wifi:
{said}
  networks:
    - ssid: {_quoted(ssid)}
      passphrase: {{env: CLASS_WIFI}}     # or {{file: PATH}}, or {{prompt: true}}
"""


def _login(user: str, key: str) -> str:
    """Return the user, who has a password where there is no key."""
    password = "" if key else ", password: {prompt: true}"
    users = f"user: {{name: {_quoted(user)}{password}}}" if user else _NO_USER
    keys = f"ssh_keys: [{{file: {_quoted(key)}}}]" if key else _NO_KEYS
    return f"""
# Who logs in. Raspberry Pi OS has no login of its own; with a user, those of HypriotOS are locked.
{users}
{keys}
"""


_NO_USER = "# user: {name: pupil, password: {prompt: true}, groups: [docker]}"
_NO_KEYS = "# ssh_keys: [{file: ~/.ssh/id_ed25519.pub}]"


def _nodes(hostnames: str) -> str:
    return f"""
# The cards to make. A range is expanded; a node may override anything above.
nodes:
  - hostname: {_quoted(hostnames)}
    # address: 192.168.2.[101-130]      # as many as hostnames; without it DHCP
  # - hostname: teacher
  #   profile: armv6
  #   labels: {{role: teacher}}
# nodes_from: nodes.csv                  # or a table: hostname;address;owner
"""


_HEAD = """
# A classroom of Raspberry Pis. Check it with `rpi-image check`, build it with `rpi-image batch`.
"""
_MORE = """
# The Docker API of the nodes is open to the network of the class, because Swarm needs it: everyone
# there is root on every node. With `tls: true` only holders of a certificate may use it.
allow: [open-docker]
# docker:
#   tls: true
#   labels: {room: b12}

# network: {subnet: 192.168.2.0/24, gateway: 192.168.2.254, dhcp_range: 192.168.2.200-192.168.2.250}
# timezone: Europe/Paris
# keyboard: fr
# locale: fr_FR.UTF-8
"""


# The images of this profile have no login of their own.
_USERS = {"arm64": "pupil"}
_BOARDS = "armv6: Pi 1, Zero; armv7: Pi 2 to 4, 32 bit; arm64: Pi 3 to 5, 64 bit"


def make_starter(
    path: Path,
    given: Mapping[str, str | None],
    prompter: Prompter,
    *,
    environment: Mapping[str, str],
    force: bool = False,
    lists: PublishedLists | None = None,
) -> None:
    """Write a starter file from the answers; ask for those that are None.

    Raise InputError if the file exists, unless `force` is set.
    """
    if (has_file(path) or has_folder(path)) and not force:
        raise InputError(f"{path} exists already", "use another name or --force")
    answers = ask_answers(given, prompter, environment=environment)
    write_starter(path, render_starter(answers), environment=environment, lists=lists)


def ask_answers(
    given: Mapping[str, str | None], prompter: Prompter, *, environment: Mapping[str, str]
) -> StarterAnswers:
    """Return what was given by name, and ask for what is None."""
    plain = StarterAnswers()

    def answer(key: str, question: str, default: str = "") -> str:
        text = given[key]
        return _asked(prompter, key, question, default, environment) if text is None else text

    hostnames = answer("hostnames", "Hostnames of the Pis", plain.hostnames)
    profile = answer("profile", f"Boards ({_BOARDS})", "armv7")
    ssid = answer("wifi_ssid", "Wireless network, empty for cable only")
    country = answer("wifi_country", "Country of the radio rules, for example FR") if ssid else ""
    shack = answer("shack", "Address of your own machine, empty for none")
    key = answer("ssh_key", "SSH public key for the login, empty for none", _own_key(environment))
    return StarterAnswers(
        hostnames=hostnames,
        profile=profile,
        image=given["image"] or "",
        wifi_ssid=ssid,
        wifi_country=country.upper(),
        shack=shack,
        ssh_key=key,
        user=answer("user", "User to create, empty for none", _USERS.get(profile, "")),
    )


def _own_key(environment: Mapping[str, str]) -> str:
    """Return a public key of the user, empty if there is none."""
    home = environment.get("HOME", "")
    names = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
    found = (name for name in names if home and has_file(Path(home) / ".ssh" / name))
    return next((f"~/.ssh/{name}" for name in found), "")


def _asked(
    prompter: Prompter, key: str, question: str, default: str, environment: Mapping[str, str]
) -> str:
    """Return an answer; at a terminal ask again until it is valid."""
    while True:
        text = prompter.ask_or_read(question, default)
        faults = _faults_of(key, text, environment) if text and prompter.interactive else ()
        if not faults:
            return text
        prompter.fail(SettingsError(faults[0].message, faults[0].hint))


def _faults_of(key: str, answer: str, environment: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return the errors of one answer, checked in a file with valid other answers."""
    sound = {"user": "pupil"} | ({"wifi_ssid": "shack"} if key == "wifi_country" else {})
    return starter_faults(
        render_starter(StarterAnswers(**{**sound, key: answer})), environment=environment
    )


def starter_faults(text: str, *, environment: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return the errors in a starter file; without lines, because the file does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="rpi-image-") as folder:
        path = Path(folder) / "classroom.yml"
        path.write_text(text, encoding="utf-8")
        return _severe_in(path, environment)


def _severe_in(
    path: Path, environment: Mapping[str, str], lists: PublishedLists | None = None
) -> tuple[Problem, ...]:
    problems = check_classroom(path, environment=environment, lists=lists)
    return tuple(Problem(p.message, p.hint) for p in problems if p.severe)


def write_starter(
    path: Path,
    text: str,
    *,
    environment: Mapping[str, str],
    lists: PublishedLists | None = None,
) -> None:
    """Check a starter file and write it.

    Raise SettingsError if the check fails, and WriteError if the file cannot be written.
    """
    with new_file(path, 0o644) as descriptor:
        pwrite_all(descriptor, text.encode(), 0)
        # In its own folder, because its paths are relative to it.
        if severe := _severe_in(part_of(path), environment, lists):
            raise SettingsError("the answers are not valid", problems=severe)
