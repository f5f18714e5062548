"""The check of the built site finds what is broken or loaded from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.site_links import faults, main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('<a href="https://example.org">x</a>', []),
        ('<a href="b.html#there">x</a>', []),
        ('<a href="#here">x</a><p id="here">', []),
        ('<img src="a.svg">', ["a.html links to a.svg: no such file"]),
        ('<a href="b.html#gone">x</a>', ["a.html links to b.html#gone: no such heading"]),
        ('<a href="#gone">x</a>', ["a.html links to #gone: no such heading"]),
        ('<script src="https://cdn.example/x.js"></script>',
         ["a.html loads https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//cdn.example/x.css">',
         ["a.html loads //cdn.example/x.css"]),
    ],
)  # fmt: skip
def test_faults_of_a_site(body: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1>')
    assert list(faults(tmp_path)) == found
    assert main([str(tmp_path)]) == bool(found)
