"""What `status` says beside the table: a manager that does not follow changes of address."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imagebuilder.shack import observe as observing
from imagebuilder.shack.observe import observe
from tests.lib.classroom_samples import SHACK, make_classroom
from tests.unit.shack.test_status import engine, gathered, member

if TYPE_CHECKING:
    from imagebuilder.shack.status import ClusterState


def warning(monkeypatch: pytest.MonkeyPatch, image: str, state: ClusterState) -> str:
    monkeypatch.setattr(observing, "gather", lambda *_words, **_more: state)
    classroom = replace(make_classroom(Path("/r")), shack=replace(SHACK, swarm_image=image))
    (seen,) = observe(classroom, timeout_seconds=1)
    return seen.warning


def moved(*, registered: bool = True) -> ClusterState:
    """Return a class whose first node has another address since the manager has read consul."""
    keys = ("192.168.2.150:2375",) if registered else ()
    one = member(1, address="192.168.2.150")
    return gathered(one, member(2), engines=(engine(1), engine(2)), registered=keys)


def test_an_old_manager_is_named_with_the_command_that_restarts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert warning(monkeypatch, "dduportal/arm-swarm:0.2.0", moved()) == (
        "dduportal/arm-swarm:0.2.0 does not follow a change of address, here 192.168.2.150: "
        "run `docker restart swarmmanager` on the shack"
    )


@pytest.mark.parametrize("image", ["swarm:1.1.3", "swarm:1.2.9", ""])
def test_a_newer_manager_follows_by_itself(monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    assert warning(monkeypatch, image, moved()) == ""


def test_a_node_that_has_not_registered_needs_no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert warning(monkeypatch, "swarm:0.2.0", moved(registered=False)) == ""


def test_a_manager_that_does_not_answer_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = replace(moved(), engines=None, manager_error="no answer in time")
    assert warning(monkeypatch, "swarm:0.2.0", silent) == (
        "only consul was queried: no answer in time"
    )
