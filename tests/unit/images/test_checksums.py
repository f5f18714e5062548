"""Checksum files and addresses, as texts."""

from __future__ import annotations

import pytest

from imagebuilder.errors import SourceError
from imagebuilder.images.checksums import basename, beside, parse_checksums, redacted

ONE, TWO = "1" * 64, "ab" * 32


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}  pi.img.zip\n",
        f"{ONE} *pi.img.zip",
        f"{ONE}  ./release/pi.img.zip\r\n",
        f"# images\n{TWO}  other.zip\n{ONE}  pi.img.zip\n",
        f"{TWO}  other pi.img.zip\n{ONE}  pi.img.zip\n",
        f"{ONE}",
        f"\ufeff{ONE}\r\n",
        f"SHA256 (pi.img.zip) = {ONE}\n",
        f"SHA256(release/pi.img.zip)= {ONE}\r\n",
        f"SHA256 (other (1).zip) = {TWO}\nSHA256 (pi.img.zip) = {ONE}",
    ],
)
def test_the_line_of_the_image_counts(text: str) -> None:
    assert parse_checksums(text, {"pi.img.zip"}, "here") == ONE


def test_digests_are_given_in_lower_case() -> None:
    assert parse_checksums(f"{TWO.upper()}  a", {"a"}, "here") == TWO


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is not a SHA-256 file"),
        (f"{ONE}\n{TWO}\n", "is not a SHA-256 file"),
        (f"SHA256 (pi.img.zip.sig) = {ONE}\n", r"lists pi\.img\.zip\.sig"),
        (f"SHA1 (pi.img.zip) = {ONE}\n", "is not a SHA-256 file"),
        (f"SHA512 (pi.img.zip) = {ONE}{TWO}\n", "is not a SHA-256 file"),
        (f"{ONE[1:]}  pi.img.zip\n", "is not a SHA-256 file"),
        (f"{'1' * 32}  pi.img.zip\n", "is not a SHA-256 file"),
        (f"{ONE}  pi.img.zip.sig\n", r"lists pi\.img\.zip\.sig"),
    ],
)
def test_what_does_not_name_the_image_is_refused(text: str, what: str) -> None:
    with pytest.raises(SourceError, match=what) as caught:
        parse_checksums(text, {"pi.img.zip"}, "here")
    assert "--sha256" in caught.value.hint


def test_the_checksum_lies_beside_the_file_without_its_query() -> None:
    assert beside("https://h:8/a/b.zip?key=1#x") == "https://h:8/a/b.zip.sha256"


def test_an_address_is_shown_without_secrets() -> None:
    assert redacted("https://u:p@h:8/a/b.zip?key=1#x") == "https://h:8/a/b.zip"


def test_the_name_of_an_address_is_decoded() -> None:
    assert basename("http://h/a/my%20pi.img.zip?x=/y") == "my pi.img.zip"


def test_an_address_out_of_form_is_told() -> None:
    with pytest.raises(SourceError, match="a URL is not valid"):
        redacted("http://[/x")
