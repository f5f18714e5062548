"""Write the tables of docs/docker.md, from the code."""

from __future__ import annotations

from pathlib import Path

from imagebuilder.plan.overlays import load_generations
from imagebuilder.plan.reach import facts_by_name, vendor_state
from imagebuilder.plan.vendor.docker import (
    DOCKER_OF_SUITE,
    MOVED_SUITES,
    boundary_rows,
    fitting_kind,
    suite_by_name,
)
from imagebuilder.resources import shipped_folder
from imagebuilder.settings.catalog import load_catalogue, source_of
from imagebuilder.settings.schema.documents import ImageDocument

PAGE = Path(__file__).parents[2] / "docs" / "docker.md"
BEGIN = "<!-- made by `make golden` from imagebuilder/plan/vendor/docker.py -->\n"
END = "<!-- end -->\n"


def images() -> str:
    """Return what each image of the catalogue gets."""
    generations = {each.name: each for each in load_generations((shipped_folder("overlays"),))}
    catalogue = load_catalogue(())
    rows = []
    for entry in sorted(catalogue, key=lambda entry: entry.name):
        image = source_of(ImageDocument(name=entry.name), catalogue, None)
        generation = generations[image.generation or ""]
        vendor = vendor_state(generation, facts_by_name(generation, image))
        suite = vendor.suite or suite_by_name(image)
        docker = vendor.docker_version or DOCKER_OF_SUITE.get(suite, "?")
        way = "in the image" if vendor.docker else f"installed at first boot, {suite}"
        kind = fitting_kind([docker], classic=tuple(image.machines) != ("aarch64",))
        rows.append(f"| `{entry.name}` | {docker} | {way} | `{kind}` |\n")
    head = "| image | Docker | where it comes from | kind without `shack.kind` |\n"
    return f"{head}|---|---|---|---|\n{''.join(rows)}"


def suites() -> str:
    """Return what each release of Debian gets."""
    names = dict.fromkeys((*MOVED_SUITES, *DOCKER_OF_SUITE))
    rows = (
        f"| {name} | {DOCKER_OF_SUITE.get(name, 'none')} "
        f"| {'moved' if name in MOVED_SUITES else 'there'} |\n"
        for name in names
    )
    return f"| release | `docker.io` | archive |\n|---|---|---|\n{''.join(rows)}"


def boundaries() -> str:
    """Return what changes with a version of Docker."""
    rows = "".join(f"| {first} | {what} | {source} |\n" for first, what, source in boundary_rows())
    return f"| Docker from | what it does | source |\n|---|---|---|\n{rows}"


def with_tables(text: str) -> str:
    """Return the page with the tables between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = f"{images()}\n{suites()}\n{boundaries()}"
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
