"""docs/settings.md says what the documents take: every key has its row, every example is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.cli.options import _FLAGS, node_options
from imagebuilder.settings.roster import COLUMNS
from imagebuilder.settings.schema.catalogue import CatalogueDocument
from imagebuilder.settings.schema.documents import (
    ClassroomDocument,
    ClusterDocument,
    DockerDocument,
    NetworkDocument,
    NodeDocument,
    ProfileDocument,
    SettingsDocument,
    ShackDocument,
    UserDocument,
    WifiDocument,
    parse_document,
)
from imagebuilder.settings.yaml_reader import parse_yaml
from tests.lib.classrooms import WrittenClassroom

if TYPE_CHECKING:
    from imagebuilder.settings.schema.base import Document

PAGE = (Path(__file__).parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SECTIONS: dict[str, type[Document]] = {
    "shack": ShackDocument,
    "wifi": WifiDocument,
    "network": NetworkDocument,
    "docker": DockerDocument,
    "cluster": ClusterDocument,
}


@pytest.mark.parametrize(
    "name", sorted({*ClassroomDocument.model_fields, *UserDocument.model_fields})
)
def test_every_key_of_the_class_is_on_the_page(name: str) -> None:
    assert re.search(rf"`{name}[.`]", PAGE)


@pytest.mark.parametrize(
    "key", [f"{name}.{key}" for name, model in SECTIONS.items() for key in model.model_fields]
)
def test_every_key_of_a_section_is_on_the_page(key: str) -> None:
    assert f"`{key}`" in PAGE


@pytest.mark.parametrize(
    "name", sorted(set(NodeDocument.model_fields) - set(SettingsDocument.model_fields))
)
def test_every_key_of_a_node_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_on_the_page(column: str) -> None:
    assert f"`{column}`" in PAGE


def test_every_flag_is_on_the_page() -> None:
    command = node_options(lambda: None)
    names = [opt for option in command.__click_params__ for opt in option.opts]  # type: ignore[attr-defined]
    assert len(command.__click_params__) == len(_FLAGS)  # type: ignore[attr-defined]
    assert [name for name in names if f"`{name}" not in PAGE] == []


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_taken(text: str, tmp_path: Path) -> None:
    if text.startswith("# profiles/"):
        model: type[Document] = (
            CatalogueDocument if text.startswith("# profiles/images") else ProfileDocument
        )
        assert parse_document(model, parse_yaml(text).data, folder=tmp_path)[1] == ()
        return
    (tmp_path / "classroom.secrets").mkdir()
    (tmp_path / "classroom.secrets" / "wifi").write_text("correct horse\n")
    assert WrittenClassroom(tmp_path).write(text).errors() == []


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 5
