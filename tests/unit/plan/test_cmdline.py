"""The vendors' text files: kernel words, name=value lines, config.txt, wifi keys."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuilder.errors import ImageError, SettingsError
from imagebuilder.plan.boot_texts import add_config_lines, check_verbatim, set_lines
from imagebuilder.plan.cmdline import (
    CmdlineEdit,
    groups_of,
    merge_cmdline,
    split_words,
    without_hooks,
)
from imagebuilder.plan.vendor.wifi import check_ssid, hash_psk, nm_ssid, wpa_ssid
from tests.lib.plan_samples import APRIL_CMDLINE, OCCIDENTALIS

HOOK = 'init=/bin/sh -c "mount x; sh /boot/rpi-image/install; exec /sbin/init"'
RUN = (
    "systemd.run=/boot/firstrun.sh",
    "systemd.run_success_action=reboot",
    "systemd.unit=kernel-command-line.target",
)
APRIL = APRIL_CMDLINE.decode()


# ---- cmdline.txt


def merged(text: str, ours: tuple[str, ...], earlier: tuple[str, ...] = ()) -> str:
    return merge_cmdline(text, ours, CmdlineEdit(earlier))[0]


def test_words_are_split_as_the_kernel_does() -> None:
    line = '+a.b=0  c "two words" d="x y" -- -c "q"\n'
    assert split_words(line) == ["+a.b=0", "c", '"two words"', 'd="x y"', "--", "-c", '"q"']


def test_a_quote_that_never_closes_keeps_its_words_together() -> None:
    assert split_words('a "b c') == ["a", '"b c']


def test_the_hook_comes_last_and_every_word_of_the_vendor_stays() -> None:
    line = merged(APRIL, (HOOK,))
    assert line == f"{APRIL.strip()} {HOOK}"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "  \n\n", "\n\r\n"])
def test_line_ends_do_not_split_the_line(ending: str) -> None:
    line = merged("a=1 b" + ending, (HOOK,))
    assert line == f"a=1 b {HOOK}"


def test_a_second_run_replaces_the_first() -> None:
    once = merged(APRIL, (HOOK,))
    newer = HOOK.replace("mount x", "mount y")
    twice = merged(once, (newer,), (HOOK,))
    assert twice.count("init=") == 1
    assert twice == merged(APRIL, (newer,))


def test_a_hook_is_known_without_a_record() -> None:
    once = merged("a b", (HOOK, *RUN))
    assert merged(once, ()) == "a b"
    assert merged(merged("a b", RUN), RUN).count("systemd.run=") == 1


def test_words_of_an_earlier_run_go_when_they_are_no_longer_wanted() -> None:
    once = merged("a", ("cfg80211.ieee80211_regdom=FR",))
    assert merged(once, (), ("cfg80211.ieee80211_regdom=FR",)) == "a"


def test_a_word_of_the_same_name_is_replaced() -> None:
    assert merged("a ds=nocloud;i=old b", ("ds=nocloud;i=new",)) == "a b ds=nocloud;i=new"


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("cgroup_enable=cpuset cgroup_enable=memory", "cgroup_enable=memory"),
        ("console=serial0,115200 console=tty1", "console=ttyAMA0,115200"),
        ("quiet a", "quiet"),
        ("root=/dev/a b", "root=/dev/a"),
    ],
)
def test_words_that_may_repeat_stay_beside_ours(line: str, ours: str) -> None:
    once, edit = merge_cmdline(line, (ours,))
    assert split_words(once)[:2] == split_words(line)
    assert once.count(ours) == 1
    assert merge_cmdline(once, (), edit)[0] == line


def test_what_gave_way_comes_back_to_its_place() -> None:
    line = "a root=PARTUUID=1-02 b rootfstype=ext4 rootwait -- c"
    once, edit = merge_cmdline(line, ("root=/dev/sda2", "rootfstype=f2fs", "c"))
    assert once == "a b rootwait root=/dev/sda2 rootfstype=f2fs c -- c"
    assert merge_cmdline(once, (), edit) == (line, CmdlineEdit())


def test_words_are_known_however_an_earlier_version_grouped_them() -> None:
    assert merged("a quiet splash", ("quiet", "splash"), ("quiet splash",)) == "a quiet splash"
    foreign = "init=/mine/start -- x y"
    assert merged(merged("a", (foreign,)), (foreign,), (foreign,)) == f"a {foreign}"


def test_a_users_lines_are_words_without_comments() -> None:
    text = '# loud\r\nquiet splash\r\n\r\n  x="a b"\r\ninit=/bin/sh -c "y z"\r\n'
    assert groups_of(text) == ["quiet", "splash", 'x="a b"', 'init=/bin/sh -c "y z"']


def test_a_word_that_ends_the_kernels_own_is_refused() -> None:
    with pytest.raises(SettingsError, match="contains `--`"):
        merge_cmdline("a", ("--", "x"))


def test_repeated_words_of_the_vendor_stay_repeated() -> None:
    assert merged("console=tty1 console=tty2", ("x=1",)) == "console=tty1 console=tty2 x=1"


def test_what_stands_behind_two_dashes_stays_there() -> None:
    assert merged("a -- single", ("b=1",)) == "a b=1 -- single"


def test_a_foreign_init_stays_where_we_need_none() -> None:
    line = "a init=/usr/lib/raspi-config/init_resize.sh resize"
    assert merged(line, ("x=1",)) == f"{line} x=1"


def test_a_foreign_init_and_ours_exclude_each_other() -> None:
    with pytest.raises(ImageError, match=r"already has init=/usr/lib/raspi-config"):
        merged("a init=/usr/lib/raspi-config/init_resize.sh", (HOOK,))


def test_an_init_that_names_the_usual_one_may_stay() -> None:
    assert merged("init=/sbin/init a", (HOOK,)) == f"init=/sbin/init a {HOOK}"


def test_a_foreign_shell_as_init_is_not_taken_for_ours() -> None:
    words = split_words('init=/bin/sh -c "exec /sbin/init"')
    assert without_hooks(words) == words


def test_too_many_words_are_refused() -> None:
    with pytest.raises(SettingsError, match="more than 400"):
        merged("a", ("x=" + "y" * 400,))
    with pytest.raises(ImageError, match="more than 624"):
        merged("a" * 600, ("x=" + "y" * 40,))


WORDS = st.lists(st.from_regex(r"[a-z.]{1,8}(=[a-z0-9,/]{0,8})?", fullmatch=True), max_size=12)


@given(WORDS, st.sampled_from([(), (HOOK,), RUN, ("ds=nocloud;i=1", *RUN)]))
def test_merging_twice_is_merging_once(words: list[str], ours: tuple[str, ...]) -> None:
    words = [word for word in words if not word.startswith("init=")]
    once = merged(" ".join(words), ours)
    assert merged(once, ours, ours) == once
    assert "\n" not in once
    names = {group.partition("=")[0] for group in ours}
    kept = [word for word in words if word.partition("=")[0] not in names or "=" not in word]
    assert split_words(once)[: len(kept)] == kept


MORE = st.lists(
    st.sampled_from(["quiet", "splash", "root=/dev/sda2", "root=x", "console=x", "a"]), max_size=6
)


@given(st.tuples(WORDS, MORE).map(lambda lists: lists[0] + lists[1]), MORE, MORE)
def test_undoing_an_edit_gives_the_line_of_before(
    words: list[str], mine: list[str], other: list[str]
) -> None:
    line = " ".join(word for word in words if not word.startswith("init="))
    once, edit = merge_cmdline(line, (*mine, HOOK))
    assert merge_cmdline(once, (), edit) == (line, CmdlineEdit())
    assert merge_cmdline(once, tuple(other), edit) == merge_cmdline(line, tuple(other))


# ---- occidentalis.txt

# The effective grammar of the vendor's script, as the facts about it say.
GRAMMAR = re.compile(r"^([a-z_]+)=(.*)$", re.IGNORECASE)


def as_the_pi_reads(text: str) -> dict[str, str]:
    found = (GRAMMAR.match(line.removesuffix("\r")) for line in text.split("\n"))
    return {match[1].lower(): match[2] for match in found if match}


def test_a_line_is_set_in_place_and_comments_stay() -> None:
    text = set_lines(OCCIDENTALIS.decode(), {"hostname": "pi-03", "wifi_ssid": "a=b # c"})
    assert text.splitlines()[:3] == [
        "",
        "# hostname for your Hypriot Raspberry Pi:",
        "hostname=pi-03",
    ]
    assert "# wifi_ssid=your-ssid" in text
    assert as_the_pi_reads(text) == {"hostname": "pi-03", "wifi_ssid": "a=b # c"}


def test_the_last_of_several_lines_cannot_win_over_ours() -> None:
    text = set_lines("HOSTNAME=a\nhostname=b\nhostname=c", {"hostname": "pi"})
    assert text == "hostname=pi\n"


def test_dos_line_ends_stay() -> None:
    text = set_lines("# x\r\nhostname=a\r\n", {"hostname": "pi", "wifi_ssid": "s"})
    assert text == "# x\r\nhostname=pi\r\nwifi_ssid=s\r\n"


def test_letters_that_python_takes_for_line_ends_are_letters() -> None:
    once = set_lines("hostname=a\n", {"wifi_ssid": "a\u2028b\x85c\u00a0d"})
    assert set_lines(once, {"wifi_ssid": "a\u2028b\x85c\u00a0d"}) == once
    assert once.split("\n") == ["hostname=a", "wifi_ssid=a\u2028b\x85c\u00a0d", ""]


def test_an_empty_value_takes_the_line_out() -> None:
    assert set_lines("hostname=a\nwifi_ssid=old\n", {"hostname": "pi", "wifi_ssid": ""}) == (
        "hostname=pi\n"
    )


@given(
    st.text(st.characters(min_codepoint=0x21, blacklist_categories=["Cs", "Cc", "Z"]), min_size=1)
)
def test_any_value_arrives_verbatim(value: str) -> None:
    text = set_lines(OCCIDENTALIS.decode(), {"wifi_password": check_verbatim(value, "x")})
    assert as_the_pi_reads(text)["wifi_password"] == value


@pytest.mark.parametrize("value", ["blank ", " blank", "tab\t", "two\nlines", "cr\r", "nul\0x"])
def test_what_the_format_cannot_carry_is_refused(value: str) -> None:
    with pytest.raises(SettingsError):
        check_verbatim(value, "the SSID")


# ---- config.txt


def test_config_lines_are_added_once() -> None:
    once = add_config_lines("gpu_mem=64\n", ("gpu_mem=64", "enable_uart=1"))
    assert once == "gpu_mem=64\nenable_uart=1\n"
    assert add_config_lines(once, ("enable_uart=1",)) == once


def test_config_lines_leave_an_open_filter() -> None:
    text = add_config_lines("a=1\n[cm4]\nb=1", ("c=1",))
    assert text == "a=1\n[cm4]\nb=1\n[all]\nc=1\n"
    assert add_config_lines("[cm4]\nb=1\n[all]\n", ("c=1",)) == "[cm4]\nb=1\n[all]\nc=1\n"


TRIXIE = "dtparam=audio=on\n\n[cm4]\notg_mode=1\n\n[pi5]\nx=5\n\n[all]\n"


@pytest.mark.parametrize(
    ("text", "lines", "added"),
    [
        (TRIXIE, ["[pi5]", "x=1", "[cm4]", "y=1"], "[pi5]\nx=1\n[cm4]\ny=1\n[all]\n"),
        (TRIXIE, ["otg_mode=1"], "otg_mode=1\n"),
        (TRIXIE, ["[cm4]", "otg_mode=1", "[pi5]", "otg_mode=1"], "[pi5]\notg_mode=1\n[all]\n"),
        (TRIXIE, ["[pi5]", "x=5", "[all]", "dtparam=audio=on", "[cm4]"], ""),
        (TRIXIE, ["[PI5]", "y=1", "[all]", "z=1"], "[pi5]\ny=1\n[all]\nz=1\n"),
        ("[pi4]\n[EDID=x]\na=1\n", ["[pi4]", "a=1"], "[all]\n[pi4]\na=1\n[all]\n"),
        ("[pi4]\n", ["[EDID=x]", "[pi3]", "a=1"], "[EDID=x]\n[pi3]\na=1\n[all]\n"),
        ("[gpio4=1]\na=1\n", ["[gpio5=1]", "a=1"], "[all]\n[gpio5=1]\na=1\n[all]\n"),
        ("", ["[none]", "a=1", "[0x1f]", "b=1"], "[none]\na=1\n[none]\n[0x1f]\nb=1\n[all]\n"),
    ],
)
def test_config_lines_come_under_their_filters(text: str, lines: list[str], added: str) -> None:
    once = add_config_lines(text, tuple(lines))
    assert once == text + added
    assert add_config_lines(once, tuple(lines)) == once


FILTERED = st.lists(
    st.sampled_from(["[all]", "[pi3]", "[pi4]", "[edid=x]", "[gpio4=1]", "a=1", "b=1"]), max_size=9
)


def as_the_firmware_reads(text: str) -> set[tuple[str, str, str, str]]:
    board = edid = gpio = ""
    found = set()
    for line in text.splitlines():
        if line == "[all]":
            board = edid = gpio = ""
        elif line.startswith("[pi"):
            board = line
        elif line.startswith("[edid"):
            edid = line
        elif line.startswith("[gpio"):
            gpio = line
        else:
            found.add((board, edid, gpio, line))
    return found


@given(FILTERED, FILTERED)
def test_config_lines_hold_for_the_boards_they_are_for(there: list[str], more: list[str]) -> None:
    text = "\n".join(there)
    merged = as_the_firmware_reads(add_config_lines(text, tuple(more)))
    assert merged == as_the_firmware_reads(text) | as_the_firmware_reads("\n".join(more))


def test_config_is_made_where_there_is_none() -> None:
    assert add_config_lines("", ("enable_uart=1",)) == "enable_uart=1\n"


# ---- wifi


@pytest.mark.parametrize(
    ("passphrase", "ssid", "key"),
    [
        ("password", "IEEE", "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"),
        (
            "ThisIsAPassword",
            "ThisIsASSID",
            "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af",
        ),
        (
            "パスワード123",
            "Café-📶",
            "db8aa120c2b1a9580d2ff80b80fb971841944c8f035a3e2379c2279a314ecef6",
        ),
    ],
)
def test_keys_are_those_of_the_standard(passphrase: str, ssid: str, key: str) -> None:
    assert hash_psk(passphrase, ssid) == key


@pytest.mark.parametrize("passphrase", ["", "seven77", "x" * 64, "new\nline12", "é" * 32])
def test_what_is_no_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(SettingsError) as caught:
        hash_psk(passphrase, "net")
    assert not passphrase or passphrase not in caught.value.message


@pytest.mark.parametrize("ssid", ["", "x" * 33, "é" * 17, "📶" * 9, "a\nb", "a\0"])
def test_what_is_no_ssid_is_refused(ssid: str) -> None:
    with pytest.raises(SettingsError):
        check_ssid(ssid)


@pytest.mark.parametrize("ssid", ["x" * 32, "é" * 16, "📶" * 8, "a"])
def test_an_ssid_of_32_bytes_is_fine(ssid: str) -> None:
    assert check_ssid(ssid) == ssid


@given(st.text(st.characters(min_codepoint=0x20, blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_ssids_are_exact_in_both_forms(ssid: str) -> None:
    ssid = ssid.encode()[:32].decode(errors="ignore")
    if not ssid or "\x7f" in ssid:
        return
    written = wpa_ssid(ssid)
    assert (written[1:-1] if written[0] == '"' else bytes.fromhex(written).decode()) == ssid
    written = nm_ssid(ssid)
    listed = re.fullmatch(r"(?:\d+;)+", written)
    assert (bytes(map(int, written[:-1].split(";"))).decode() if listed else written) == ssid


@pytest.mark.parametrize("ssid", ['say "hi"', "back\\slash", " lead", "trail ", "é", "a;b"])
def test_only_plain_ssids_are_written_as_text(ssid: str) -> None:
    assert re.fullmatch(r"[0-9a-f]+", wpa_ssid(ssid))
    assert re.fullmatch(r"(\d+;)+", nm_ssid(ssid))
