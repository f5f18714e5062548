"""Encode texts of the roster, so that programs read them as text, never as a command."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

import yaml

from imagebuilder.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class AnsibleText(str):
    """A string that Ansible must not render as a template (`!unsafe`)."""

    __slots__ = ()


class _AnsibleDumper(yaml.SafeDumper):
    """Dumps plain data, and AnsibleText with its tag."""


def _unsafe(dumper: yaml.SafeDumper, text: AnsibleText) -> yaml.ScalarNode:
    # Quoted: without quotes, a text such as `no` would be read as another type.
    return dumper.represent_scalar("!unsafe", str(text), style='"')


_AnsibleDumper.add_representer(AnsibleText, _unsafe)


def ansible_yaml(inventory: Mapping[str, object]) -> str:
    """Return an inventory as YAML; in `AnsibleText`, `{{` is not a template."""
    return yaml.dump(inventory, Dumper=_AnsibleDumper, sort_keys=False, allow_unicode=True)


def ssh_path(path: Path) -> str:
    r"""Return a path as a value of ssh_config(5), in double quotes.

    `%` begins a token and is doubled; `"` and `\` are escaped, as parsed by argv_split in misc.c of
    OpenSSH. Raise SettingsError for what cannot be escaped: `${`, which begins an environment
    variable, and control characters.
    """
    text = str(path)
    if "${" in text or re.search(r"[\x00-\x1f\x7f]", text):
        raise SettingsError(
            f"ssh cannot read the path {text!r} in its configuration",
            "use a folder without ${ and control characters in its path",
        )
    return '"' + re.sub(r'(["\\])', r"\\\1", text).replace("%", "%%") + '"'


def docker_fields(fields: Sequence[str]) -> str:
    """Return `key=value` fields for Docker's options: one record of CSV (RFC 4180)."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def comment(text: str) -> str:
    """Return `text` for a one-line comment, without line breaks and control characters."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(plain.split())
