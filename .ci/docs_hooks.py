"""For `make docs`: the pages beside docs/ are pages of the site, and each command has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "SECURITY.md": "SECURITY.md",
}
DECISIONS = "decisions/0001-the-house.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the page of each command below that of all commands."""
    pages = sorted(path.name for path in (ROOT / "docs/commands").glob("*.md"))
    for section in config.nav or []:
        for items in section.values():
            for item in items if isinstance(items, list) else ():
                if "Commands" in item:
                    item["Commands"] = [item["Commands"], *(f"commands/{name}" for name in pages)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are beside docs/."""
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return the page with its links as they are in the site."""
    if page.file.src_uri in PAGES.values():
        markdown = re.sub(r"\]\(docs/decisions/?\)", f"]({DECISIONS})", markdown)
        return markdown.replace("](docs/", "](").replace("](README.md", "](index.md")
    return markdown.replace("](../SECURITY.md)", "](SECURITY.md)")
