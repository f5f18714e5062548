"""Write the starter classroom file: a few answers, and comments for everything else."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from imagebuilder.errors import InputError, Problem, SettingsError
from imagebuilder.files import has_file, has_folder, new_file, part_of, pwrite_all
from imagebuilder.plan.vendor.boards import WORDS
from imagebuilder.settings.catalog import list_images
from imagebuilder.settings.load import check_classroom
from imagebuilder.settings.schema.documents import ASIDE, ClassroomDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imagebuilder.progress import Prompter
    from imagebuilder.settings.catalog import PublishedLists


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterAnswers:
    """The answers for a starter file; an empty string leaves a section commented out.

    A `board` stands for its profile. The passphrase is for a file of its own, never for this one.
    """

    hostnames: str = "pi-[01-30]"
    profile: str = "armv7"
    board: str = ""
    image: str = ""
    wifi_ssid: str = ""
    wifi_country: str = ""
    wifi_passphrase: str = field(default="", repr=False)
    timezone: str = ""
    shack: str = ""
    user: str = ""
    ssh_key: str = ""


def render_starter(answers: StarterAnswers) -> str:
    """Return the starter file with comments; answers are quoted, so any text is kept."""
    parts = (
        _HEAD,
        _boards(answers.board, answers.profile),
        _image(answers.image),
        _shack(answers.shack),
        _wifi(answers),
        _login(answers.user, answers.ssh_key),
        _MORE,
        _place(answers.timezone),
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


def _boards(board: str, profile: str) -> str:
    if board:
        return f"board: {_quoted(board)}     # it chooses the profile; `rpi-image profiles`"
    return f"profile: {_quoted(profile)}     # the boards; `rpi-image profiles` lists them"


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


def _wifi(answers: StarterAnswers) -> str:
    if not answers.wifi_ssid:
        return """
# wifi:
#   country: FR
#   networks:
#     - ssid: shack
#       passphrase: {file: wifi-passphrase}     # or {env: NAME}, or {prompt: true}
"""
    country = answers.wifi_country
    said = f"  country: {_quoted(country)}" if country else "  # country: FR"
    secret = f"{{file: {PASSPHRASE_FILE}}}" if answers.wifi_passphrase else "{prompt: true}"
    return f"""
# The passphrase is not in this file, so it may be shown to others.
wifi:
{said}
  networks:
    - ssid: {_quoted(answers.wifi_ssid)}
      passphrase: {secret}     # or {{file: PATH}}, {{env: NAME}}, {{prompt: true}}
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
# keyboard: fr
# locale: fr_FR.UTF-8
"""


def _place(timezone: str) -> str:
    return f"timezone: {_quoted(timezone)}" if timezone else "# timezone: Europe/Paris"


# In the folder of the classroom file, for its owner alone.
PASSPHRASE_FILE = "wifi-passphrase"  # noqa: S105 - a name of a file
_BOARDS = "armv6: Pi 1, Zero; armv7: Pi 2 to 4, 32 bit; arm64: Pi 3 to 5, 64 bit; or a board: pi4"
_MOST_NAMES = 6
# Warnings of the check that are typing errors in an answer.
_ASKED_AGAIN = frozenset({"timezone"})


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
    for there in (path, path.with_name(PASSPHRASE_FILE)):
        if (has_file(there) or has_folder(there)) and not force:
            raise InputError(f"{there} exists already", "use another folder or --force")
    answers = ask_answers(given, prompter, environment=environment, lists=lists)
    write_starter(path, answers, environment=environment, lists=lists)


def ask_answers(
    given: Mapping[str, str | None],
    prompter: Prompter,
    *,
    environment: Mapping[str, str],
    lists: PublishedLists | None = None,
) -> StarterAnswers:
    """Return what was given by name, and ask for what is None."""
    plain = StarterAnswers()

    beside: dict[str, str] = {}

    def answer(key: str, question: str, default: str = "") -> str:
        def faults(text: str) -> tuple[Problem, ...]:
            return _faults_of(key, text, environment, beside)

        text = given.get(key)
        return _asked(prompter, question, default, faults) if text is None else text

    hostnames = answer("hostnames", "Hostnames of the Pis", plain.hostnames)
    board = given.get("board") or ""
    profile = "" if board else answer("profile", f"Boards ({_BOARDS})", plain.profile)
    if profile in WORDS:
        board, profile = profile, ""
    beside |= {"board": board} if board else {"profile": profile}
    image = answer("image", _image_question(board, lists)) if prompter.interactive else None
    ssid = answer("wifi_ssid", "Wireless network, empty for cable only")
    country = answer("wifi_country", "Country of the radio rules, for example FR") if ssid else ""
    secret = _passphrase(ssid, prompter, environment) if ssid and prompter.interactive else ""
    shack = answer("shack", "Address of your own machine, empty for none")
    key = answer("ssh_key", "SSH public key for the login, empty for none", _own_key(environment))
    zone = given.get("timezone")
    answers = StarterAnswers(
        hostnames=hostnames,
        profile=profile,
        board=board,
        image=given.get("image") or image or "",
        wifi_ssid=ssid,
        wifi_country=country.upper(),
        wifi_passphrase=secret,
        timezone=answer("timezone", "Time zone", _own_timezone()) if zone is None else zone,
        shack=shack,
        ssh_key=key,
    )
    faults = starter_faults(replace(answers, ssh_key=""), environment=environment, lists=lists)
    needs_user = any(fault.word == "no-login" for fault in faults)
    user = answer("user", "User to create, empty for none", "pupil" if needs_user else "")
    return replace(answers, user=user)


def _image_question(board: str, lists: PublishedLists | None) -> str:
    """Return the question for the image, with some that run on the board; it uses no network."""
    if lists is None:
        return "Base image, empty for that of the boards"
    known = list_images(replace(lists, offline=True), board=board).images
    names = ", ".join(image.name or "" for image in known[:_MOST_NAMES])
    more = ", …" if len(known) > _MOST_NAMES else ""
    return f"Base image ({names}{more}), empty for that of the boards"


def _own_timezone() -> str:
    """Return the time zone of this computer, empty where it is not known."""
    # It is slow to import, and on Windows it reads the registry.
    from tzlocal import get_localzone_name  # noqa: PLC0415

    return get_localzone_name() or ""


def _own_key(environment: Mapping[str, str]) -> str:
    """Return a public key of the user, empty if there is none."""
    home = environment.get("HOME", "")
    names = ("id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub")
    found = (name for name in names if home and has_file(Path(home) / ".ssh" / name))
    return next((f"~/.ssh/{name}" for name in found), "")


def _asked(
    prompter: Prompter, question: str, default: str, faults: Callable[[str], tuple[Problem, ...]]
) -> str:
    """Return an answer; at a terminal ask again until it is valid."""
    while True:
        text = prompter.ask_or_read(question, default)
        found = faults(text) if text and prompter.interactive else ()
        if not found:
            return text
        prompter.fail(SettingsError(found[0].message, found[0].hint))


def _passphrase(ssid: str, prompter: Prompter, environment: Mapping[str, str]) -> str:
    """Return a valid passphrase, or an empty one, typed without echo."""
    while True:
        typed = prompter.ask_secret(f"Passphrase of {ssid}, empty to be asked when building")
        faults = _faults_of("wifi_passphrase", typed, environment, {}) if typed else ()
        if not faults:
            return typed
        prompter.fail(SettingsError(faults[0].message, faults[0].hint))


def _faults_of(
    key: str, answer: str, environment: Mapping[str, str], beside: Mapping[str, str]
) -> tuple[Problem, ...]:
    """Return the errors of one answer, checked in a file with valid other answers."""
    sound = {"user": "pupil", **beside}
    if key.startswith("wifi_"):
        sound |= {"wifi_ssid": "shack"}
    if key == "profile" and answer in WORDS:
        key = "board"
    return starter_faults(StarterAnswers(**{**sound, key: answer}), environment=environment)


def starter_faults(
    answers: StarterAnswers,
    *,
    environment: Mapping[str, str],
    lists: PublishedLists | None = None,
) -> tuple[Problem, ...]:
    """Return the errors in a starter file; without lines, because the file does not exist yet."""
    with tempfile.TemporaryDirectory(prefix="rpi-image-") as folder:
        path = Path(folder) / "classroom.yml"
        path.write_text(render_starter(answers), encoding="utf-8")
        if answers.wifi_passphrase:
            path.with_name(PASSPHRASE_FILE).write_text(answers.wifi_passphrase, encoding="utf-8")
        return _severe_in(path, environment, lists)


def _severe_in(
    path: Path, environment: Mapping[str, str], lists: PublishedLists | None = None
) -> tuple[Problem, ...]:
    problems = check_classroom(path, environment=environment, lists=lists)
    found = (p for p in problems if p.severe or p.word in _ASKED_AGAIN)
    return tuple(Problem(p.message, p.hint, word=p.word) for p in found)


def write_starter(
    path: Path,
    answers: StarterAnswers,
    *,
    environment: Mapping[str, str],
    lists: PublishedLists | None = None,
) -> None:
    """Check a starter file and write it, and a passphrase into a file of its own beside it.

    Raise SettingsError if the check fails, and WriteError if a file cannot be written.
    """
    secret = path.with_name(PASSPHRASE_FILE)
    with new_file(path, 0o644) as descriptor:
        pwrite_all(descriptor, render_starter(answers).encode(), 0)
        if answers.wifi_passphrase:
            with new_file(secret, 0o600) as kept:
                pwrite_all(kept, f"{answers.wifi_passphrase}\n".encode(), 0)
        # In its own folder, because its paths are relative to it.
        if severe := _severe_in(part_of(path), environment, lists):
            if answers.wifi_passphrase:
                secret.unlink()
            raise SettingsError("the answers are not valid", problems=severe)
