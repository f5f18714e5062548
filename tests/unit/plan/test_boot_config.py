"""Which files the firmware of a Pi loads, by the rules of its documentation."""

from __future__ import annotations

import pytest

from imagebuilder.errors import ImageError
from imagebuilder.plan.boot_files import MemoryBootFiles
from imagebuilder.plan.cmdline import merge_cmdline
from imagebuilder.plan.vendor.boot_config import BOARDS, MOST_INCLUDES, cmdline_path, read_config
from tests.lib.plan_samples import after, boot_of, plain_node, plan
from tests.lib.plans import files_of, text_of

ARMV7 = ("armv7l", "aarch64")


def boot(config: str, *others: str, **files: str) -> MemoryBootFiles:
    texts = {"config.txt": config, **dict.fromkeys(others, "x"), **files}
    return MemoryBootFiles({name: text.encode() for name, text in texts.items()})


def test_filters_comments_and_the_last_line_of_a_name() -> None:
    text = """
    kernel=first.img
    #kernel=commented.img
    [pi4]
    kernel=four.img
    [pi2]
    kernel=two.img
    initramfs init.gz followkernel
    [all]
    cmdline = other.txt
    """
    assert read_config(boot(text), ("pi2",)).kernel == "two.img"
    assert read_config(boot(text), ("pi2",)).initramfs == "init.gz"
    plain = read_config(boot(text), ())
    assert (plain.kernel, plain.initramfs, plain.cmdline) == ("first.img", "", "other.txt")
    assert read_config(boot("[none]\nkernel=x\r\n"), ()).kernel == ""


@pytest.mark.parametrize(
    ("config", "filters", "name"),
    [
        ("[pi4]\n[pi3]\ncmdline=a.txt", ("pi3",), "a.txt"),  # a model replaces a model
        ("[pi4]\n[HDMI:1]\n[pi3]\ncmdline=a.txt", ("pi3",), ""),  # other kinds add up
        ("[tryboot]\ncmdline=a.txt", (), ""),
        ("[tryboot]\n[all]\ncmdline=a.txt", (), "a.txt"),
        ("[gpio4=1]\ncmdline=a.txt", (), ""),
        ("[0x12345678]\ncmdline=a.txt", (), ""),
        ("[EDID=VSC-TD2220]\ncmdline=a.txt", (), ""),
        ("[none]\n[pi3]\ncmdline=a.txt", ("pi3",), ""),
        ("[pi3+]\ncmdline=a.txt", ("pi3",), ""),
        ("[cm4]\ncmdline=a.txt\n[all]", ("pi4", "cm4"), "a.txt"),
        ("cmdline=a.txt\n[pi5]\ncmdline=b.txt", (), "a.txt"),
    ],
)
def test_which_lines_hold(config: str, filters: tuple[str, ...], name: str) -> None:
    assert read_config(boot(config), filters).cmdline == name


def test_an_included_file_stands_in_the_place_of_its_line() -> None:
    files = boot("cmdline=a.txt\ninclude sub/more.txt\n", **{"sub/more.txt": "cmdline=b.txt"})
    assert cmdline_path(files, ARMV7) == "b.txt"
    assert cmdline_path(boot("include gone.txt\ncmdline=a.txt"), ARMV7) == "a.txt"


def test_files_that_include_each_other_end() -> None:
    files = boot(
        "include a.txt", **{"a.txt": "include b.txt\ninclude b.txt", "b.txt": "include a.txt"}
    )
    with pytest.raises(ImageError, match=r"config\.txt includes too many files"):
        cmdline_path(files, ARMV7)
    assert MOST_INCLUDES < 100


@pytest.mark.parametrize(
    ("config", "there", "path"),
    [
        ("", ("cmdline.txt",), "cmdline.txt"),
        ("os_prefix=current/", ("cmdline.txt", "current/cmdline.txt"), "current/cmdline.txt"),
        ("os_prefix=current/", ("cmdline.txt",), "cmdline.txt"),  # no such file: no prefix
        ("os_prefix=new-", ("new-cmdline.txt",), "new-cmdline.txt"),
        ("os_prefix=a/\ncmdline=b.txt", ("a/b.txt", "b.txt"), "a/b.txt"),
        ("[pi4]\nos_prefix=x/\n[all]\nos_prefix=y/", ("y/cmdline.txt",), "y/cmdline.txt"),
        ("cmdline=nobtcmd.txt", ("cmdline.txt",), "nobtcmd.txt"),
    ],
)  # fmt: skip
def test_the_command_line_is_where_the_firmware_reads_it(
    config: str, there: tuple[str, ...], path: str
) -> None:
    assert cmdline_path(boot(config, *there), ARMV7) == path


def test_a_disagreement_of_the_boards_is_refused_by_name() -> None:
    files = boot("[pi4]\ncmdline=four.txt\n")
    with pytest.raises(
        ImageError, match=r"cmdline\.txt on Pi 2, .*; four\.txt on Pi 4, Pi 400, CM4"
    ):
        cmdline_path(files, ARMV7)
    assert cmdline_path(files, ("armv6l",)) == "cmdline.txt"
    assert cmdline_path(boot("[pi5]\ncmdline=five.txt\n"), ARMV7) == "cmdline.txt"


def test_every_profile_has_boards() -> None:
    assert {"armv6l", "armv7l", "aarch64"} <= set(BOARDS)


# ---- planned onto a card


UBUNTU = {
    "config.txt": b"[all]\nos_prefix=current/\n",
    "current/cmdline.txt": b"console=serial0 root=LABEL=writable rootwait\n",
}


def test_our_words_go_where_the_firmware_reads_them() -> None:
    planned = plan(plain_node(), boot_of("cloud-init-trixie", **UBUNTU))
    assert "ds=nocloud" in text_of(planned, "current/cmdline.txt")
    assert "root=LABEL=writable" in text_of(planned, "current/cmdline.txt")
    assert "cmdline.txt" not in files_of(planned)
    assert planned.cmdline == "current/cmdline.txt"


def test_planning_again_changes_nothing_there() -> None:
    stock = boot_of("cloud-init-trixie", **UBUNTU)
    card = after(stock, plan(plain_node(), stock))
    assert dict(after(card, plan(plain_node(), card)).files) == dict(card.files)


def test_words_leave_a_file_that_the_firmware_reads_no_more() -> None:
    stock = boot_of("cloud-init-trixie", **UBUNTU)
    card = after(stock, plan(plain_node(), stock))
    moved = MemoryBootFiles({**card.files, "config.txt": b"[all]\n"})
    again = after(moved, plan(plain_node(), moved))
    assert again.read("current/cmdline.txt").split() == UBUNTU["current/cmdline.txt"].split()
    assert b"ds=nocloud" in again.read("cmdline.txt")


@pytest.mark.parametrize("others", ["root=/dev/nfs ip=dhcp\n", "\n# a note\ninit=/bin/sh\n"])
def test_further_lines_stay_without_effect(others: str) -> None:
    text, edit = merge_cmdline(f"console=tty1 root=/dev/x\n{others}", ("quiet",))
    assert text == f"console=tty1 root=/dev/x quiet\n{others}"
    assert merge_cmdline(text, (), edit)[0] == f"console=tty1 root=/dev/x\n{others}"


def test_a_trailing_newline_is_no_further_line() -> None:
    assert merge_cmdline("a=1\n\n", ("b=2",))[0] == "a=1 b=2"
