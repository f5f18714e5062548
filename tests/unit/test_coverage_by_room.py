"""The table of `make coverage` counts each room's modules, and agrees with coverage itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HALF = "def half(x):\n    if x:\n        return 1\n    return 2\n\n\nhalf(0)\n"
WHOLE = "X = 1\n"


def python(*arguments: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_rooms_are_folders_and_shares_those_of_coverage(tmp_path: Path) -> None:
    for name, text in {"__init__": "", "cli": WHOLE, "disk/__init__": "", "disk/fat/half": HALF,
                       "disk/fat/whole": WHOLE}.items():  # fmt: skip
        path = tmp_path / "imagebuilder" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = "import imagebuilder.cli, imagebuilder.disk.fat.half, imagebuilder.disk.fat.whole"
    (tmp_path / "program.py").write_text(program)
    python("-m", "coverage", "run", "--branch", "program.py", cwd=tmp_path)
    python("-m", "coverage", "json", "-q", "-o", "measured.json", cwd=tmp_path)
    rows = python(ROOT / "tests/coverage_by_room.py", "measured.json", cwd=tmp_path).splitlines()
    total = json.loads((tmp_path / "measured.json").read_text())
    share = total["files"]["imagebuilder/disk/fat/half.py"]["summary"]["percent_covered"]
    assert [row.split()[0] for row in rows[:5]] == ["room", "(ground)", "disk", "disk/fat", "all"]
    assert rows[3].split()[1:] == [
        "2", "83.3", "%", "50.0", "%", "75.0", "%", "disk/fat/half.py", f"{share:.1f}", "%"
    ]  # fmt: skip
    assert rows[5:] == [f"below 90 %: disk/fat/half.py {share:.1f} %"]
