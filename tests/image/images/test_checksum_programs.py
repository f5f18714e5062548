"""Checksum files as the programs themselves write them, and as Windows does by its manuals."""

from __future__ import annotations

import hashlib
import time
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagebuilder.errors import SourceError
from imagebuilder.images.cache import Cache
from imagebuilder.images.checksum_lines import decode_text
from imagebuilder.images.checksums import MOST_CHECKSUM_BYTES, parse_checksums
from imagebuilder.images.obtain import obtain_base
from imagebuilder.model import ImageSource
from tests.lib.archives import make_image, sha256sum
from tests.lib.tools import need, run

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"an image\n" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
OTHER = "1" * 64
NAMES = (
    "base.img.xz",
    "a b (1).img.xz",
    "sha256 of.img.xz",
    "größe.img",
    "back\\slash.img",
    "=x: y.img",
    "a-name-that-is-far-too-long-for-one-line-of-eighty-columns-2025-05-13-armhf-lite.img.xz",
)
PROGRAMS = (
    "sha256sum {}",
    "sha256sum -b {}",
    "sha256sum --tag {}",
    "sha256sum -z {}",
    "shasum -a 256 {}",
    "shasum -a 256 -b {}",
    "shasum -a 256 --tag {}",
    "openssl dgst -sha256 {}",
    "openssl dgst -sha256 -r {}",
    "openssl dgst -sha256 -c {}",
    "openssl sha256 {}",
    "busybox sha256sum {}",
    "cksum -a sha256 {}",
    "cksum -a sha256 --untagged {}",
    "gpg --print-md SHA256 {}",
)
# What each of them says of bytes that it is piped: no name, or a dash.
PIPED = (
    "sha256sum",
    "shasum -a 256",
    "openssl dgst -sha256",
    "openssl dgst -sha256 -r",
    "openssl dgst -sha256 -c",
    "sha256sum --tag",
    "gpg --print-md SHA256",
)


def digest_in(data: bytes, name: str) -> str:
    return parse_checksums(decode_text(data), {name}, "here")


def printed(command: str, name: str, folder: Path) -> str:
    words = [name if word == "{}" else word for word in command.split()]
    need("busybox", "cksum", "gpg", "openssl", "sha256sum", "shasum")
    return run(*words, cwd=folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", PROGRAMS)
def test_what_the_programs_write_is_read(command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DATA)
    (tmp_path / "other").write_bytes(b"other")
    text = printed(command, name, tmp_path)
    both = printed(command, "other", tmp_path) + text
    for words in (text, both, text.replace("\n", "\r\n")):
        assert digest_in(words.encode(), name) == DIGEST
        assert digest_in(("\ufeff" + words).encode("utf-16-le"), name) == DIGEST
    with pytest.raises(SourceError, match="no checksum for base"):
        digest_in(both.encode(), "base")


@pytest.mark.parametrize("command", PIPED)
def test_a_digest_of_piped_bytes_is_of_the_file_it_lies_beside(command: str) -> None:
    need("gpg", "openssl", "sha256sum", "shasum")
    assert digest_in(run(*command.split(), input=DATA.decode()).encode(), "any.img") == DIGEST


@pytest.mark.parametrize("command", ["sha256sum {}", "sha256sum --tag {}", "shasum -a 256 {}"])
@pytest.mark.parametrize("name", ["line\nbreak.img", "two\\nparts.img", "\\"])
def test_escaped_names_are_those_that_were_meant(command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DATA)
    assert digest_in(printed(command, name, tmp_path).encode(), name) == DIGEST


# ---- Windows, and people

UPPER = DIGEST.upper()
PAIRS = " ".join(DIGEST[i : i + 2] for i in range(0, 64, 2))
DONE = "CertUtil: -hashfile command completed successfully.\r\n"
TABLE = (
    "\r\nAlgorithm       Hash                                                          "
    "         Path\r\n---------       ----                                               "
    "                    ----\r\n"
)
FORMS = {
    "certutil": f"SHA256 hash of pi.img.xz:\r\n{DIGEST}\r\n{DONE}",
    "certutil of Windows 7": f"SHA256 hash of file C:\\dl\\pi.img.xz:\r\n{PAIRS}\r\n{DONE}",
    "certutil in German": f"SHA256-Hash von pi.img.xz:\r\n{DIGEST}\r\nCertUtil: -hashfile-Befehl "
    "wurde erfolgreich ausgef\u00fchrt.\r\n",
    "certutil in French": f"SHA256 hachage de pi.img.xz\u00a0:\r\n{DIGEST}\r\n",
    "Get-FileHash": f"{TABLE}SHA256          {UPPER}       C:\\dl\\pi.img.xz\r\n\r\n\r\n",
    "Get-FileHash, cut off": f"{TABLE}SHA256          {UPPER}       C:\\dl\\pi...\r\n\r\n",
    "Get-FileHash, no path": f"\r\nAlgorithm       Hash\r\n-----\r\nSHA256          {UPPER}\r\n",
    "Format-List": f"\r\n\r\nAlgorithm : SHA256\r\nHash      : {UPPER}\r\n"
    "Path      : C:\\dl\\pi.img.xz\r\n\r\n\r\n",
    "Format-List, wrapped": f"Algorithm : SHA256\r\nHash      : {UPPER}\r\n"
    "Path      : C:\\Users\\teacher\\a folder\\pi\r\n            .img.xz\r\n\r\n",
    "Select-Object": f"Path : C:\\dl\\pi.img.xz\r\nHash : {UPPER}\r\n",
    "the hash alone": f"{UPPER}\r\n",
    "Export-Csv": f'"Algorithm","Hash","Path"\r\n"SHA256","{UPPER}","C:\\dl\\pi.img.xz"\r\n',
    "ConvertTo-Json": f'{{\r\n    "Algorithm":  "SHA256",\r\n    "Hash":  "{UPPER}",\r\n'
    '    "Path":  "C:\\\\dl\\\\pi.img.xz"\r\n}\r\n',
    "one blank": f"{DIGEST} pi.img.xz\n",
    "a tab": f"{DIGEST}\tpi.img.xz\n",
    "blanks before": f"   {DIGEST}   pi.img.xz\n",
    "./": f"{DIGEST}  ./pi.img.xz\n",
    "a folder": f"{DIGEST} *deploy/out/pi.img.xz\n",
    "a folder of Windows": f"{DIGEST} *deploy\\out\\pi.img.xz\n",
    "reversed": f"pi.img.xz: {DIGEST}\n",
    "reversed by blanks": f"pi.img.xz  {DIGEST}\n",
    "reversed by =": f"pi.img.xz={DIGEST}\n",
    "labelled": f"SHA-256: {DIGEST}\n",
    "labelled name": f"pi.img.xz SHA256 = {DIGEST}\n",
    "in capitals": f"{UPPER}  PI.IMG.XZ\n",
    "with its algorithm": f"sha256:{DIGEST}  pi.img.xz\n",
    "old Macs": f"{OTHER}  other\r{DIGEST}  pi.img.xz\r",
    "clear-signed": "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# pi.img.xz: 123 bytes\n"
    f"SHA256 (pi.img.xz) = {DIGEST}\n-----BEGIN PGP SIGNATURE-----\n\nabc\n=abcd\n"
    "-----END PGP SIGNATURE-----\n",
    "of several kinds": f"{'2' * 32}  pi.img.xz\n{'3' * 40}  pi.img.xz\n{DIGEST}  pi.img.xz\n"
    f"{'4' * 128}  pi.img.xz\n",
    "of several kinds, tagged": f"MD5 (pi.img.xz) = {'2' * 32}\nSHA3-256(pi.img.xz)= {OTHER}\n"
    f"SHA256 (pi.img.xz) = {DIGEST}\nHMAC-SHA256(pi.img.xz)= {OTHER}\n",
    "of several files": f"{OTHER}  other.img.xz\n{DIGEST}  pi.img.xz\n{OTHER}  pi.img\n",
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
def test_what_windows_and_people_write_is_read(form: str, encoding: str) -> None:
    assert digest_in(FORMS[form].encode(encoding, "replace"), "pi.img.xz") == DIGEST


def test_a_name_in_the_letters_of_macos_or_of_an_old_windows_is_found() -> None:
    name = "gr\u00f6\u00dfe.img"
    apart = unicodedata.normalize("NFD", name)
    assert apart != name
    for data in (f"{DIGEST}  {apart}\n".encode(), f"{DIGEST}  {name}\n".encode("cp1252")):
        assert digest_in(data, name) == DIGEST


def test_the_checksum_beside_a_local_file_is_read_as_windows_wrote_it(tmp_path: Path) -> None:
    image = make_image(tmp_path / "pi.img")
    beside = tmp_path / "pi.img.sha256"
    text = f"{TABLE}SHA256          {sha256sum(image).upper()}       C:\\pi.img\r\n"
    beside.write_bytes(text.encode("utf-16"))
    source = ImageSource("pi.img", file=image)
    assert obtain_base(source, Cache(tmp_path / "cache")).sha256 == sha256sum(image)
    beside.write_bytes(text.replace("SHA256  ", "SHA256 0").encode("utf-16"))
    with pytest.raises(SourceError):
        obtain_base(source, Cache(tmp_path / "other"))


def test_a_checksum_file_has_a_size(tmp_path: Path) -> None:
    image = make_image(tmp_path / "pi.img")
    with (tmp_path / "pi.img.sha256").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SourceError, match="over 1 MiB"):
        obtain_base(ImageSource("pi.img", file=image), Cache(tmp_path / "cache"))


# ---- what says nothing of the image


@pytest.mark.parametrize(
    "text",
    [
        f"SHA3-256(pi.img.xz)= {OTHER}\n",
        f"BLAKE2b-256 (pi.img.xz) = {OTHER}\n",
        f"SHA512/256 (pi.img.xz) = {OTHER}\n",
        f"HMAC-SHA256(pi.img.xz)= {OTHER}\n",
        f"HMAC-SHA2-256(pi.img.xz)= {OTHER}\n",
        f"SHA512 (pi.img.xz) = {OTHER}{OTHER}\n",
        f"pi.img.xz: {OTHER}\n           {OTHER}\n",  # SHA-512 as gpg wraps it
        f"#{OTHER}  pi.img.xz\n",
        f"{OTHER}  pi.img.xz.sig\n",
        f"{OTHER}  xpi.img.xz\n",
        f"{OTHER}pi.img.xz\n",
        f"the sum of other pi.img.xz: {OTHER}\n",
        f"{OTHER}\n{DIGEST}\n",
        f"{OTHER}0\n",
        "",
        "\0" * 500,
        "<html>",
    ],
)
def test_no_digest_is_taken_from_what_is_none_of_the_image(text: str) -> None:
    with pytest.raises(SourceError, match=r"no checksum for pi\.img\.xz") as caught:
        digest_in(text.encode(), "pi.img.xz")
    assert "--sha256" in caught.value.hint


def test_two_checksums_for_one_name_are_no_checksum() -> None:
    text = f"{OTHER}  armhf/pi.img.xz\n{DIGEST}  arm64/pi.img.xz\n"
    with pytest.raises(SourceError, match=r"here has 2 checksums for pi\.img\.xz"):
        digest_in(text.encode(), "pi.img.xz")
    assert digest_in(f"{text}{DIGEST}  pi.img.xz\n".encode(), "pi.img.xz") == DIGEST


WORDS = st.sampled_from(
    [
        *(DIGEST, DIGEST[:8], UPPER, OTHER, "pi.img.xz", "C:\\", "\u00f6", "..."),
        *("SHA256 ", "SHA2-256(", "Hash : ", "Path : "),
        *(" ", "\t", "\n", "\r\n", "\0", "*", "\\", ":", "=", "(", ")", '"', "# "),
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=30), st.sampled_from(ENCODINGS))
@example(["Hash : ", "Path : "], "utf-16")
def test_any_text_gives_a_digest_of_it_or_a_refusal(words: list[str], encoding: str) -> None:
    data = "".join(words).encode(encoding, "replace")
    try:
        found = digest_in(data, "pi.img.xz")
    except SourceError:
        return
    assert found in {DIGEST, OTHER, DIGEST[:8] * 8}


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "SHA256 (",
        "a: ",
        ": ",
        "ab ",
        "0:",
        "x: a\n",
        "a\n",
        " ",
        '"',
        "SHA256,",
        "SHA (",
        "Path: \n",
    ],
)
def test_a_hostile_text_takes_no_time(piece: str) -> None:
    long = (piece * MOST_CHECKSUM_BYTES)[:MOST_CHECKSUM_BYTES]
    lines = (f"{(piece * 5000)[:4990]}\n" * 300)[:MOST_CHECKSUM_BYTES]
    for text in (long, lines):
        begun = time.process_time()
        with pytest.raises(SourceError):
            digest_in(text.encode(), "pi.img.xz")
        assert time.process_time() - begun < 5
