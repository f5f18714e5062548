"""A card is opened by udisks2: the real daemons, on a system bus of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.device.cards import CARD_BYTES, SmallImage, card, is_same
from tests.lib.teacher import RPI_IMAGE, Teacher, teacher
from tests.lib.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

FLASH = ("--image", "small.img", "--full", "--allow-loop", "--yes")
RULE = """polkit.addRule(function(action, subject) {
    if (action.id.indexOf("org.freedesktop.udisks2.") == 0 && subject.user == "teacher")
        return polkit.Result.YES;
});
"""
# udisks2 knows the disks of the database of udev, which is written here as udev would do it.
DAEMONS = """
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /etc/polkit-1/rules.d
cp {rules} /etc/polkit-1/rules.d/10-test.rules
mkdir -p /run/udev/data /run/dbus
touch /run/udev/control
printf 'I:1000\\nE:ID_FS_TYPE=\\nG:systemd\\nV:1\\n' >"/run/udev/data/b$(cat /sys/block/{name}/dev)"
bus=$(dbus-daemon --system --fork --nopidfile --print-pid)
/usr/lib/polkit-1/polkitd --no-debug >/dev/null 2>&1 &
polkit=$!
/usr/libexec/udisks2/udisksd >/dev/null 2>&1 &
udisks=$!
# udisksd may wait for its own threads for ever when it is asked to end.
trap 'kill -9 $udisks $polkit $bus || :' EXIT
i=0
# A bus that starts it as well would leave a second one behind.
until busctl --auto-start=no call org.freedesktop.UDisks2 /org/freedesktop/UDisks2/Manager \\
    org.freedesktop.UDisks2.Manager GetBlockDevices 'a{{sv}}' 0 | grep -q {name}; do
    sleep 0.2
    i=$((i + 1))
    [ $i -lt 100 ]
done 2>/dev/null
"""


@pytest.fixture
def user(small: SmallImage) -> Iterator[Teacher]:
    need("dbus-daemon", "udisksctl", "busctl")
    with teacher() as made:
        shutil.copy(small.path, made.home / "small.img")
        yield made


@pytest.mark.parametrize("allowed", [True, False], ids=["polkit allows", "polkit refuses"])
def test_a_card_is_written_by_udisks_if_polkit_allows(
    allowed: bool, user: Teacher, small: SmallImage, tmp_path: Path
) -> None:
    rules = user.system / "rules"
    rules.write_text(RULE if allowed else "")
    with card(tmp_path, CARD_BYTES) as device:
        before = DAEMONS.format(name=Path(device).name, rules=rules)
        done = user.run(*RPI_IMAGE, "flash", device, *FLASH, before=before)
        assert done.returncode == (0 if allowed else 6), done.stderr
        assert is_same(device, small.path) is allowed
    assert ("no permission to write" in done.stderr) is not allowed
    assert "insert the card again" not in done.stderr  # udev reads the table when it is closed
    assert ("sudo: " in done.stderr) is not allowed  # which is asked only then


# Without udevd, udisks waits 20 s for its event when a disk is unmounted.
@pytest.mark.long
def test_a_disk_in_use_is_said_to_be_in_use(user: Teacher, tmp_path: Path) -> None:
    need("flock", "sleep")
    (user.system / "rules").write_text(RULE)
    with card(tmp_path, CARD_BYTES) as device:
        before = DAEMONS.format(name=Path(device).name, rules=user.system / "rules")
        hold = f"mkfs.ext4 -q -F {device} && mkdir /run/it && mount {device} /run/it\n"
        ask = (
            "import os; from imagebuilder.devices import udisks\n"
            f"helper = udisks.start('{device}')\n"
            f"try: helper.open('{device}', os.O_RDWR | os.O_EXCL)\n"
            "except OSError as error: print(error.strerror)\n"
            f"helper.unmount('{device}')\n"
            f"print(os.fstat(helper.open('{device}', os.O_RDWR | os.O_EXCL)).st_rdev)\n"
        )
        done = user.run(RPI_IMAGE[0], "-c", ask, before=before + hold)
        expected = ["Device or resource busy", str(Path(device).stat().st_rdev)]
    assert done.stdout.splitlines() == expected, done.stderr
