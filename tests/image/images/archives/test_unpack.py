"""Archives as vendors make them, and as accidents and attackers do."""

from __future__ import annotations

import functools
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from imagebuilder.errors import ImageError
from imagebuilder.images.archives.formats import is_compressed, kind_of
from imagebuilder.images.archives.unpack import open_stream
from imagebuilder.images.sparse import write_raw
from tests.lib.archives import FORMS, MEBIBYTE, ODD_BYTES, make_image, pack, sha256sum
from tests.lib.tools import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("archives") / "pi.img")


@pytest.fixture(scope="module")
def packs(image: Path) -> Callable[[str], bytes]:
    """Return the bytes of the image in a form, packed once."""
    return functools.cache(lambda form: pack(image, form).read_bytes())


@pytest.fixture
def packed(packs: Callable[[str], bytes], form: str, tmp_path: Path) -> Path:
    """Return a copy of the packed image, for the test to spoil."""
    path = tmp_path / f"pi.img.{form}"
    path.write_bytes(packs(form))
    return path


def read_all(path: Path, size_bytes: int | None = None) -> bytes:
    with open_stream(path, size_bytes) as stream:
        return stream.read()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_image_back_with_its_digest_and_its_holes(
    image: Path, packed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.img"
    with open_stream(packed) as stream:
        written = write_raw(stream, out)
    run("cmp", image, out)
    assert written.sha256 == sha256sum(image)
    assert written.size_bytes == out.stat().st_size == ODD_BYTES
    assert out.stat().st_blocks * 512 < 4 * MEBIBYTE
    assert is_compressed(packed)


@pytest.mark.parametrize("size_bytes", [1, 512, 3 * MEBIBYTE, 2 * ODD_BYTES])
def test_a_peek_takes_nothing_away(image: Path, tmp_path: Path, size_bytes: int) -> None:
    data = image.read_bytes()
    with open_stream(pack(image, "gz", tmp_path)) as stream:
        assert stream.peek(size_bytes) == data[:size_bytes]
        assert stream.read(10) + stream.peek(size_bytes) == data[: 10 + size_bytes]
        assert b"".join(stream) == data[10:]


@pytest.mark.parametrize("form", ["zip", "pigz.zip", "streamed.zip", "xz", "blocks.xz", "zst"])
def test_the_stated_size_is_known_before_unpacking(packed: Path) -> None:
    with open_stream(packed) as stream:
        assert stream.size_bytes == ODD_BYTES


def test_a_raw_image_is_its_own_stream(image: Path) -> None:
    assert not is_compressed(image)
    assert read_all(image) == image.read_bytes()


def test_a_stream_is_read_in_pieces_of_any_size(image: Path, tmp_path: Path) -> None:
    whole = image.read_bytes()
    with open_stream(pack(image, "gz", tmp_path)) as stream:
        first, second = stream.read(7), stream.read(3 * MEBIBYTE)
        rest = b"".join(stream)
        assert stream.read(10) == b""
    assert (first, second) == (whole[:7], whole[7 : 7 + 3 * MEBIBYTE])
    assert rest == whole[7 + 3 * MEBIBYTE :]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.999_99, 0.5, 0.001])
def test_a_cut_off_file_is_told(packed: Path, share: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"truncated|damaged|instead of"):
        read_all(packed)


@pytest.mark.parametrize("form", FORMS)
def test_a_flipped_bit_is_told(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 0x10
    packed.write_bytes(data)
    with pytest.raises(ImageError):
        read_all(packed)


@pytest.mark.parametrize("form", ["gz", "xz", "blocks.xz", "zst", "bz2"])
def test_joined_files_unpack_to_joined_images(image: Path, packed: Path) -> None:
    packed.write_bytes(packed.read_bytes() * 2)
    assert read_all(packed) == image.read_bytes() * 2


@pytest.mark.parametrize("form", ["gz", "xz", "zst", "bz2"])
def test_garbage_behind_the_end_is_told(packed: Path) -> None:
    packed.write_bytes(packed.read_bytes() + b"<html>not found</html>")
    with pytest.raises(ImageError):
        read_all(packed)


@pytest.mark.parametrize("form", ["gz", "xz", "bz2"])
def test_zeros_behind_the_end_are_padding(image: Path, packed: Path) -> None:
    packed.write_bytes(packed.read_bytes() + bytes(300_000))
    assert read_all(packed) == image.read_bytes()


def zip_of(path: Path, *names: str, data: bytes = b"x" * 600) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name",
    ["../../etc/cron.d/x.img", "/etc/passwd", "a/../../b.img", "..\\b.img", "C:\\b.img", "\\b.img"],
)
def test_unsafe_names_in_a_zip_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="unsafe name"):
        read_all(zip_of(tmp_path / "a.zip", name))
    with pytest.raises(ImageError, match="unsafe name"):
        read_all(zip_of(tmp_path / "b.zip", "good.img", name))


def test_a_zip_with_two_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"2 images instead of one: a\.img, b\.img"):
        read_all(zip_of(tmp_path / "a.zip", "a.img", "b.img"))


def test_a_zip_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="0 images"):
        read_all(zip_of(tmp_path / "a.zip", "README", "LICENSE"))
    with pytest.raises(ImageError, match="0 images"):
        read_all(zip_of(tmp_path / "b.zip"))


def test_an_image_beside_a_readme_and_finder_junk_is_found(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", "README", "dir/pi.img", "__MACOSX/dir/._pi.img")
    assert read_all(path) == b"x" * 600


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pi.img").write_bytes(b"x" * 600)
    run("zip", "-q", "-P", "secret", "a.zip", "pi.img", cwd=tmp_path)
    with pytest.raises(ImageError, match="encrypted"):
        read_all(tmp_path / "a.zip")


def test_another_packing_method_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pi.img").write_bytes(b"x" * 6000)
    run("zip", "-q", "-Z", "bzip2", "a.zip", "pi.img", cwd=tmp_path)
    with pytest.raises(ImageError, match="method 12"):
        read_all(tmp_path / "a.zip")


def restated(path: Path, real: int, stated: int) -> None:
    """Change the raw size a zip states, in both places."""
    before, after = (size.to_bytes(4, "little") for size in (real, stated))
    data = path.read_bytes()
    assert data.count(before) >= 1
    path.write_bytes(data.replace(before, after))


def test_a_bomb_stops_at_the_stated_size(tmp_path: Path) -> None:
    bomb = zip_of(tmp_path / "bomb.zip", "pi.img", data=bytes(77_000_123))
    restated(bomb, 77_000_123, 1_000_000)
    with pytest.raises(ImageError, match="more than 1000000 bytes"), open_stream(bomb) as s:
        write_raw(s, tmp_path / "out.img")
    assert not (tmp_path / "out.img").exists()


def test_an_image_shorter_than_stated_is_told(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", "pi.img", data=bytes(77_123))
    restated(path, 77_123, 88_123)
    with pytest.raises(ImageError, match="77123 bytes instead of 88123"):
        read_all(path)


def test_the_catalogues_size_binds_forms_that_state_none(image: Path, tmp_path: Path) -> None:
    packed = pack(image, "gz", tmp_path)
    assert len(read_all(packed, ODD_BYTES)) == ODD_BYTES
    with pytest.raises(ImageError, match="more than 1000000 bytes"):
        read_all(packed, 1_000_000)
    with pytest.raises(ImageError, match="instead of"):
        read_all(packed, ODD_BYTES + 1)


def test_the_catalogues_size_and_the_archives_must_agree(image: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"states {ODD_BYTES} bytes instead of 5"):
        read_all(pack(image, "zip", tmp_path), 5)


def test_a_zip_of_another_crc_is_told(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", "pi.img")
    with zipfile.ZipFile(path) as archive:
        crc = archive.infolist()[0].CRC.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(crc, b"\1\2\3\4"))
    with pytest.raises(ImageError, match="CRC-32"):
        read_all(path)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML><html>", "web page"),
        (b"<html lang=en>", "web page"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "7z archive"),
        (b"Rar!\x1a\x07\x01\x00", "rar archive"),
    ],
)
def test_what_is_no_image_is_named(head: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "pi.img.zip"
    path.write_bytes(head + bytes(2000))
    with pytest.raises(ImageError, match=what):
        kind_of(path)


def test_an_absent_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        kind_of(tmp_path / "none.zip")


@pytest.mark.parametrize("form", ["zip", "blocks.xz", "zst", "gz"])
def test_memory_stays_bounded_for_a_huge_run_of_zeros(form: str, tmp_path: Path) -> None:
    image = tmp_path / "zeros.img"
    with image.open("wb") as file:
        file.truncate(192 * MEBIBYTE)
    packed = pack(image, form, tmp_path)
    script = (
        "import sys; from pathlib import Path\n"
        "from imagebuilder.images.archives.unpack import open_stream\n"
        "from imagebuilder.images.sparse import write_raw\n"
        "from tests.lib.memory import peak_memory\n"
        "with open_stream(Path(sys.argv[1])) as s: write_raw(s, Path(sys.argv[2]))\n"
        "print(peak_memory())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, packed, tmp_path / "out.img"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 150 * MEBIBYTE
    assert (tmp_path / "out.img").stat().st_size == 192 * MEBIBYTE
    assert (tmp_path / "out.img").stat().st_blocks == 0
