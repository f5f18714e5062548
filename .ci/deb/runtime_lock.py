"""Print what the program, with `rpi-image board`, needs of the lock on Linux, for one Python.

python runtime_lock.py LOCK VERSION
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str, environment: dict[str, str], found: set[str]) -> set[str]:
    """Return what the installed distribution needs, with what that needs."""
    for text in requires(name) or ():
        requirement = Requirement(text)
        wanted = canonicalize_name(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate(environment)
        if applies and wanted not in found:
            found.add(wanted)
            needed(wanted, environment, found)
    return found


def main() -> None:
    """Print the blocks of the lock that are needed."""
    lock, version = sys.argv[1:]
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    names = needed("rpi-image", environment | {"extra": "board"}, set())
    blocks = re.split(r"^(?=[a-z0-9])", Path(lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
    for block in blocks[1:]:
        if canonicalize_name(block.partition("==")[0]) in names:
            sys.stdout.write(block)


if __name__ == "__main__":
    main()
