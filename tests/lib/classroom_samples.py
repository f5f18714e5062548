"""Classrooms made by hand, for tests of what is made from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imagebuilder.model import Classroom, Docker, ImageSource, Network, NodeSettings, Shack, User

if TYPE_CHECKING:
    from pathlib import Path

SHACK = Shack(address="192.168.2.1")


def node(number: int, **changes: Any) -> NodeSettings:
    settings: dict[str, Any] = {
        "hostname": f"pi-{number:02d}",
        "profile": "armv7",
        "arch": "armv7",
        "machines": ("armv7l",),
        "image": ImageSource(name="base"),
        "shack": SHACK,
        "network": Network(address=f"192.168.2.{100 + number}/24", gateway="192.168.2.1"),
        "docker": Docker(labels=(("arch", "armv7"),)),
        "user": User("pi"),
        "mac": f"b8:27:eb:00:00:{number:02x}",
        "seat": str(number),
    }
    return NodeSettings(**{**settings, **changes})


def make_classroom(folder: Path, *nodes: NodeSettings, **changes: Any) -> Classroom:
    settings: dict[str, Any] = {
        "name": "class-3b",
        "path": folder / "classroom.yml",
        "nodes": nodes or tuple(node(number) for number in (1, 2, 3)),
        "shack": SHACK,
        "secrets": folder / "secrets",
    }
    return Classroom(**{**settings, **changes})
