"""Query the class until all nodes have joined: the answers of the shack, and cards."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.errors import SourceError
from imagebuilder.shack.cluster import gather
from imagebuilder.shack.services import follows_addresses, manager_image
from imagebuilder.shack.status import (
    ClusterState,
    NodeStatus,
    compare,
    everyone_joined,
    host_of,
    with_cards,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagebuilder.model import Classroom
    from imagebuilder.shack.status import PiReport


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of one query; without an answer `state` is None and `rows` has only cards."""

    state: ClusterState | None
    rows: tuple[NodeStatus, ...]
    warning: str = ""


def observe(
    classroom: Classroom,
    cards: Sequence[PiReport] = (),
    *,
    timeout_seconds: float,
    interval_seconds: float | None = None,
) -> Iterator[Observation]:
    """Yield one query of the class; with an interval repeat it until all nodes have joined.

    A shack that does not answer is a warning. A class without a shack is not queried.
    """
    while True:
        yield (seen := _look(classroom, cards, timeout_seconds))
        if interval_seconds is None or everyone_joined(classroom, seen.rows):
            return
        time.sleep(interval_seconds)


def _look(classroom: Classroom, cards: Sequence[PiReport], timeout_seconds: float) -> Observation:
    if classroom.shack is None:
        return _without_shack(classroom, cards)
    try:
        state = gather(classroom, timeout_seconds=timeout_seconds)
    except SourceError as error:
        return _without_shack(classroom, cards, error.message)
    warning = _manager_warning(classroom, state)
    return Observation(state, compare(classroom, state, cards), warning)


def _without_shack(
    classroom: Classroom, cards: Sequence[PiReport], warning: str = ""
) -> Observation:
    return Observation(None, with_cards(classroom, (), cards, shack_answers=False), warning)


def _manager_warning(classroom: Classroom, state: ClusterState) -> str:
    # Nodes do not run consul in swarm mode: without the manager nothing is known of them.
    swarm_mode = classroom.shack is not None and classroom.shack.kind == "swarm-mode"
    if state.engines is None:
        words = "the manager does not answer" if swarm_mode else "only consul was queried"
        return f"{words}: {state.manager_error}"
    if classroom.shack is None or swarm_mode:
        return ""
    image = manager_image(classroom, classroom.shack)
    registered = {host_of(address) for address in state.registered}
    there = {member.address for member in state.members if member.alive} & registered
    unknown = sorted(there - {engine.address for engine in state.engines})
    if follows_addresses(image) or not unknown:
        return ""
    return (
        f"{image} does not follow a change of address, here {', '.join(unknown)}: "
        "run `docker restart swarmmanager` on the shack"
    )
