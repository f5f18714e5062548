"""What the help of each command shows: examples, and the options that most people need.

An option that no group names is shown by `--help-all` and in docs/commands/ only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_STEPS = """\
rpi-image: from one YAML file to a classroom of Raspberry Pis

  rpi-image init                             write a starter classroom.yml
  rpi-image flash -c classroom.yml DEVICE    write the card of the next node
  rpi-image status classroom.yml             show which nodes have joined

hint: `rpi-image --help` lists all commands, `rpi-image COMMAND --help` shows examples
"""

# Where `--help-all` shows an option that is in no group of its command.
HOME_GROUPS: Mapping[str, str] = {
    "Settings, instead of a classroom file": (
        "--profile --board --hostname --generation --wifi-ssid --wifi-passphrase-file"
        " --wifi-country --wifi-open --address --user --user-password-file --timezone --locale"
        " --keyboard --shack --registry --label --ssh-key --overlay --set"
    ),
    "Base image": "--image --catalog --sha256 --no-checksum --allow-http",
    "Output": "--json --quiet --verbose --color --no-input",
    "Other options": "--profiles-dir --allow",
    "Help": "--version --help --help-all",
}


@dataclass(frozen=True, slots=True)
class Page:
    """The examples (command, what it does) of a command, and its groups of options."""

    examples: tuple[tuple[str, str], ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)


PAGES: Mapping[str, Page] = {
    "": Page(
        (
            ("rpi-image init", "write a starter classroom.yml"),
            ("rpi-image flash -c classroom.yml /dev/sdX", "write the card of the next node"),
            ("rpi-image status classroom.yml", "show which nodes have joined"),
        ),
        {
            "Output, also accepted after the command": (
                "--json --quiet --verbose --color --no-input"
            ),
            "Help": "--version --help --help-all",
        },
    ),
    "build": Page(
        (
            ("rpi-image build --board pi4 --hostname pi-03", "one node, in build/pi-03.img"),
            (
                "rpi-image build -c classroom.yml --hostname pi-03 -o pi-03.img.xz",
                "a node of a classroom, compressed",
            ),
            ("rpi-image build -c one-node.yml --dry-run", "show what would be set"),
        ),
        {
            "What": (
                "--config --hostname --board --image --wifi-ssid --wifi-passphrase-file --ssh-key"
            ),
            "Where": "--output",
            "Safety": "--dry-run",
            "Output": "--json",
        },
    ),
    "batch": Page(
        (
            ("rpi-image batch classroom.yml", "the images of all nodes that have changed"),
            ("rpi-image batch classroom.yml --node pi-[03-05]", "only of these nodes"),
            ("rpi-image batch classroom.yml --one-image", "one image for all nodes"),
        ),
        {
            "What": "--node --one-image",
            "Where": "--output",
            "Safety": "--dry-run",
            "Output": "--jobs --json",
        },
    ),
    "diff": Page(
        (
            ("rpi-image diff classroom.yml", "what a batch would change in build/"),
            (
                "rpi-image diff classroom.yml --node pi-03",
                "what differs from its card",
            ),
        ),
        {"What": "--node --card", "Where": "--output", "Output": "--json"},
    ),
    "flash": Page(
        (
            ("rpi-image flash /dev/sdX --image build/pi-03.img", "an image as it is"),
            (
                "rpi-image flash -c classroom.yml /dev/sdb /dev/sdc",
                "the next two nodes without a card, at the same time",
            ),
            (
                "rpi-image flash -c classroom.yml --queue --yes",
                "every card that is inserted from now on",
            ),
        ),
        {
            "What": "--config --node --image --queue",
            "Safety": "--yes --unmount --again --no-verify",
            "Output": "--eject --json",
        },
    ),
    "apply": Page(
        (
            (
                "rpi-image apply -c classroom.yml --node pi-03",
                "the only card that is mounted becomes pi-03",
            ),
            (
                "rpi-image apply /media/ann/bootfs -c classroom.yml --node pi-03 -n",
                "show what would change on this card",
            ),
        ),
        {
            "What": "--config --node",
            "Safety": "--dry-run --yes --this-machine",
            "Output": "--eject --json",
        },
    ),
    "verify": Page(
        (
            ("rpi-image verify /dev/sdX", "which node is this card?"),
            (
                "rpi-image verify -c classroom.yml --node pi-03 /dev/sdX",
                "is everything on it as it was written?",
            ),
            ("rpi-image verify /dev/sdX --image build/pi-03.img", "compare with an image"),
        ),
        {"What": "--config --node --image", "Output": "--json"},
    ),
    "devices": Page(
        (
            ("rpi-image devices", "which device is the card?"),
            ("rpi-image devices --json", "the same for a script"),
        ),
        {"Safety": "--allow-large --allow-loop", "Output": "--json"},
    ),
    "fetch": Page(
        (
            ("rpi-image fetch sample", "the sample image"),
            (
                "rpi-image fetch https://example.org/base.img.xz",
                "a download, checked with the checksum beside it",
            ),
        ),
        {"What": "--catalog", "Safety": "--sha256 --no-checksum", "Output": "--json"},
    ),
    "cache": Page(
        (
            ("rpi-image cache list", "the base images and their sizes"),
            ("rpi-image cache clean --dry-run", "how much a clean-up would free"),
        ),
    ),
    "cache list": Page(
        (
            ("rpi-image cache list", "the base images and their sizes"),
            ("rpi-image cache list --json", "the same for a script, with origins"),
        ),
        {"Output": "--json"},
    ),
    "cache clean": Page(
        (
            ("rpi-image cache clean --dry-run", "how much would be freed?"),
            ("rpi-image cache clean --unfinished", "only files of interrupted runs"),
            ("rpi-image cache clean sample", "only one image"),
        ),
        {"What": "--unfinished", "Safety": "--dry-run", "Output": "--json"},
    ),
    "cache verify": Page(
        (
            ("rpi-image cache verify", "compare all images with their digests"),
            ("rpi-image cache verify sample", "only one image"),
        ),
        {"Output": "--json"},
    ),
    "inspect": Page(
        (
            ("rpi-image inspect build/pi-03.img", "what is set in an image"),
            ("rpi-image inspect base.img.xz --json", "a compressed image, for a script"),
            ("rpi-image inspect /dev/sdX", "a card, with what its Pi wrote"),
        ),
        {"Output": "--json"},
    ),
    "boot": Page(
        (
            ("rpi-image boot build/pi-03.img", "boot a temporary copy"),
            (
                "rpi-image boot build/pi-03.img --until 'login:' --timeout 120",
                "fail if there is no login within two minutes",
            ),
        ),
        {
            "What": "--machine --append --online",
            "Safety": "--timeout --until",
            "Output": "--json",
        },
    ),
    "check": Page(
        (
            ("rpi-image check classroom.yml", "all errors and warnings, with their lines"),
            ("rpi-image check classroom.yml --pin", "and write today's images into the file"),
        ),
        {"What": "--pin --catalog", "Safety": "--allow", "Output": "--json"},
    ),
    "init": Page(
        (
            ("rpi-image init", "ask a few questions, write classroom.yml"),
            (
                "rpi-image init room.yml --hostnames 'pi-[01-30]' --profile armv7 --no-input",
                "ask nothing",
            ),
        ),
        {
            "What": (
                "--hostnames --profile --image --wifi-ssid --wifi-country --shack --ssh-key --user"
            ),
            "Safety": "--force --no-input",
        },
    ),
    "schema": Page(
        (
            ("rpi-image schema > classroom.schema.json", "a file for your editor"),
            ("rpi-image schema | python3 -m json.tool", "look at it"),
        ),
    ),
    "profiles": Page(
        (
            ("rpi-image profiles", "which profile is for which board?"),
            ("rpi-image profiles --profiles-dir mine/", "with your own profiles"),
        ),
        {"Where": "--profiles-dir", "Output": "--json"},
    ),
    "images": Page(
        (
            ("rpi-image images --board pi4", "what boots on this board"),
            ("rpi-image images --search lite --json", "by words, for a script"),
        ),
        {"What": "--board --search", "Where": "--catalog --profiles-dir", "Output": "--json"},
    ),
    "shack": Page(
        (
            ("rpi-image shack classroom.yml", "the services, in shack/"),
            ("rpi-image shack classroom.yml --dry-run", "list the files only"),
        ),
        {"What": "--kind", "Where": "--output", "Safety": "--dry-run", "Output": "--json"},
    ),
    "export": Page(
        (
            ("rpi-image export classroom.yml", "every format, in export/"),
            ("rpi-image export classroom.yml --format ssh-config", "one format, to stdout"),
        ),
        {"What": "--format", "Where": "--output", "Output": "--json"},
    ),
    "labels": Page(
        (
            ("rpi-image labels classroom.yml -o labels.pdf", "a PDF to print at 100 %"),
            (
                "rpi-image labels classroom.yml -o labels.pdf --stock l7651 --skip 5",
                "on a used sheet of small labels",
            ),
            ("rpi-image labels classroom.yml", "labels.html, for the screen"),
        ),
        {"What": "--stock --skip", "Where": "--output", "Output": "--json"},
    ),
    "completion": Page(
        (
            ('eval "$(rpi-image completion bash)"', "in ~/.bashrc; for zsh in ~/.zshrc"),
            (
                "rpi-image completion fish > ~/.config/fish/completions/rpi-image.fish",
                "for fish",
            ),
        ),
    ),
    "board": Page(
        (
            ("rpi-image board classroom.yml", "the class in a browser, on this computer only"),
            ("rpi-image board classroom.yml --port 0", "at a port that is free"),
        ),
        {"What": "--port", "Output": "--json"},
    ),
    "status": Page(
        (
            (
                "rpi-image status classroom.yml",
                "the card of each node, whether it is there, and what to do",
            ),
            ("rpi-image status classroom.yml --watch", "until all have joined"),
            ("rpi-image status classroom.yml --card /media/ann/bootfs", "and what a card says"),
        ),
        {"What": "--kind --card", "Output": "--check --watch --interval --timeout --json"},
    ),
}
