"""Check the built site (`make docs`): it loads nothing from elsewhere, and no link is broken.

python -m tests.site_links build/site
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator


class Links(HTMLParser):
    """The links of a page, what it loads, and the names that links to it can use."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.names = {""}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sort the addresses of a tag."""
        fields = {name: value or "" for name, value in attrs}
        self.names |= {fields[name] for name in ("id", "name") if name in fields}
        for name in ("href", "src", "srcset", "data", "poster"):
            if name in fields:
                (self.links if tag == "a" else self.loaded).append(fields[name])


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong in the pages of a site."""
    pages = {path.resolve(): Links(path.read_text("utf-8")) for path in site.rglob("*.html")}
    for path, page in sorted(pages.items()):
        if path.name == "404.html":  # its links are from the root of a server
            continue
        shown = path.relative_to(site.resolve())
        yield from (f"{shown} loads {url}" for url in page.loaded if _is_elsewhere(url))
        for url in [*page.links, *page.loaded]:
            if not _is_elsewhere(url) and (fault := _broken(path, url, pages)):
                yield f"{shown} links to {url}: {fault}"


def _is_elsewhere(url: str) -> bool:
    return bool(urlsplit(url).scheme or urlsplit(url).netloc)


def _broken(path: Path, url: str, pages: dict[Path, Links]) -> str:
    parts = urlsplit(url)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return "no such file"
    page = pages.get(target)
    return "no such heading" if page and unquote(parts.fragment) not in page.names else ""


def main(arguments: list[str]) -> int:
    """Print every fault; exit with 1 if there is one."""
    found = list(faults(Path(arguments[0])))
    sys.stderr.writelines(f"{fault}\n" for fault in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
