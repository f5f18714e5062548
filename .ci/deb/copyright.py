"""Print the copyright file of the Debian package: our license and those of the packages within.

python copyright.py LICENSE SITE-PACKAGES
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

FORM = "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
LICENSE_FILE = re.compile(r"(?i)\.dist-info/(licenses/)?[^/]*(LICEN[CS]E|COPYING|NOTICE)[^/]*$")


def paragraph(text: str) -> str:
    """Return a text as the continuation of a field."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return "".join(f" {line}\n" if line else " .\n" for line in lines)


def license_of(found: Distribution) -> str:
    """Return the name of the license that a package states."""
    meta = found.metadata
    stated = meta.get("License-Expression") or meta.get("License") or ""
    classes = [c for c in meta.get_all("Classifier") or () if c.startswith("License :: ")]
    name = stated if stated and "\n" not in stated else (classes or ["unknown"])[0]
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", name.rpartition(" :: ")[2]).strip("-")


def texts_of(found: Distribution) -> str:
    """Return the license files of a package, one after the other."""
    files = sorted(str(file) for file in found.files or () if LICENSE_FILE.search(str(file)))
    read = (Path(str(found.locate_file(file))).read_text("utf-8", "replace") for file in files)
    text = "\n\n".join(read)
    if "Apache License" in text:  # policy 12.5: by reference
        return "On Debian the text is in /usr/share/common-licenses/Apache-2.0."
    return text or "See the metadata of the package."


def main() -> None:
    """Print the file."""
    own, site = map(Path, sys.argv[1:])
    write = sys.stdout.write
    write(f"Format: {FORM}\nUpstream-Name: rpi-image\n\nFiles: *\n")
    write("Copyright: 2026 The rpi-image authors\nLicense: MIT\n")
    write(paragraph(own.read_text(encoding="utf-8").partition("\n\n")[2].partition("\n\n")[2]))
    others = (found for found in distributions(path=[str(site)]) if found.name != "rpi-image")
    for found in sorted(others, key=lambda found: found.name.lower()):
        tops = sorted({str(file).split("/")[0] for file in found.files or ()} - {"..", "bin"})
        where = " ".join(f"usr/lib/rpi-image/lib/*/{top}*" for top in tops)
        author = found.metadata.get("Author") or found.metadata.get("Author-email") or found.name
        write(f"\nFiles: {where}\nCopyright: {author.splitlines()[0]}\n")
        write(f"License: {license_of(found)}-{found.name}\n{paragraph(texts_of(found))}")


if __name__ == "__main__":
    main()
