"""Find what the firmware of each board loads according to config.txt.

Source: Raspberry Pi documentation, config.txt: conditional filters, `include`, `os_prefix`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagebuilder.errors import ImageError
from imagebuilder.plan.boot_files import BootFiles, read_boot_text
from imagebuilder.plan.card_layout import CMDLINE, CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_INCLUDES = 16  # limit, because a file may include itself
_MODEL = re.compile(r"(pi|cm)[0-9]")

_32_OR_64_BIT: Mapping[str, frozenset[str]] = {
    "Pi Zero 2 W": frozenset({"pi0", "pi0w", "pi02"}),
    "Pi 3": frozenset({"pi3"}),
    "Pi 3+": frozenset({"pi3", "pi3+"}),
    "Pi 4": frozenset({"pi4"}),
    "Pi 400": frozenset({"pi4", "pi400"}),
    "CM4": frozenset({"pi4", "cm4"}),
}

# The filters of config.txt that apply to each board, by `uname -m`.
BOARDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "armv6l": {
        "Pi 1": frozenset({"pi1"}),
        "Pi Zero": frozenset({"pi0"}),
        "Pi Zero W": frozenset({"pi0", "pi0w"}),
    },
    "armv7l": {
        "Pi 2": frozenset({"pi2"}),
        **_32_OR_64_BIT,
    },
    "aarch64": {
        **_32_OR_64_BIT,
        "Pi 5": frozenset({"pi5"}),
        "Pi 500": frozenset({"pi5", "pi500"}),
        "CM5": frozenset({"pi5", "cm5"}),
    },
}


@dataclass(frozen=True, slots=True)
class BootConfig:
    """The files to load according to config.txt; empty if it does not name them.

    `arm_64bit` is whether it asks for a 64-bit kernel.
    """

    kernel: str = ""
    initramfs: str = ""
    cmdline: str = ""
    prefix: str = ""
    arm_64bit: bool = False

    def resolve(self, boot: BootFiles, name: str) -> str:
        """Return the path of a file that the firmware loads, with `os_prefix` if that exists."""
        return self.prefix + name if self.prefix and boot.exists(self.prefix + name) else name


def read_config(boot: BootFiles, filters: Sequence[str] | frozenset[str]) -> BootConfig:
    """Return the settings of config.txt for a board with `filters`."""
    found: dict[str, str] = {}
    holding: dict[str, bool] = {}
    for line in _lines(boot, CONFIG, [MOST_INCLUDES]):
        if line.startswith("[") and line.endswith("]"):
            _apply_filter(holding, line[1:-1].lower(), filters)
        elif all(holding.values()) and line.startswith("initramfs "):
            found["initramfs"] = line.split()[1]
        elif all(holding.values()) and "=" in line:
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    names = {"kernel": "kernel", "initramfs": "initramfs", "cmdline": "cmdline"}
    values = {field: found.get(name, "") for field, name in names.items()}
    wide = found.get("arm_64bit", "0") != "0"
    return BootConfig(**values, prefix=found.get("os_prefix", ""), arm_64bit=wide)


def cmdline_path(boot: BootFiles, machines: Sequence[str]) -> str:
    """Return the file from which the firmware of these machines reads the command line.

    `machines` are values of `uname -m`. Raise ImageError if it depends on the board.
    """
    paths: dict[str, list[str]] = {}
    for board, filters in _boards(machines).items():
        config = read_config(boot, filters)
        paths.setdefault(config.resolve(boot, config.cmdline or CMDLINE), []).append(board)
    if len(paths) > 1:
        told = "; ".join(f"{path} on {', '.join(boards)}" for path, boards in paths.items())
        raise ImageError(
            f"the boards of this profile use different command lines: {told}",
            f"remove the filters around cmdline= and os_prefix= in {CONFIG} of the image",
        )
    return next(iter(paths))


def _boards(machines: Sequence[str]) -> Mapping[str, frozenset[str]]:
    # A 32-bit system may run a 64-bit kernel, so armv7l stands for the boards if it is named.
    known = [machine for machine in BOARDS if machine in machines]
    return BOARDS[known[0]] if known else {"any board": frozenset()}


def _apply_filter(
    holding: dict[str, bool], name: str, filters: Sequence[str] | frozenset[str]
) -> None:
    """Update the active filters: a filter replaces only earlier ones of its kind."""
    if name == "all":
        holding.clear()
    elif name == "none":
        holding["none"] = False
    elif _MODEL.match(name):
        holding["model"] = name in filters
    else:
        # [tryboot], [EDID=…], [0x…], [gpio4=1], [HDMI:1]: not active in a usual boot.
        holding[re.split("[=:]", name)[0]] = name.startswith("hdmi:0")


def _lines(boot: BootFiles, path: str, left: list[int]) -> Iterator[str]:
    """Yield the lines of a file, with the lines of included files in place."""
    left[0] -= 1
    if left[0] < 0:
        raise ImageError(f"{CONFIG} includes too many files", "check its `include` lines")
    for raw in read_boot_text(boot, path, errors="replace").splitlines():
        line = raw.strip()
        if line.startswith("include "):
            yield from _lines(boot, line.split(None, 1)[1], left)
        elif line and not line.startswith("#"):
            yield line
