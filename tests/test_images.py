"""One decoder for everything: what it accepts, what it refuses, and that its pixels equal an independent one's."""

from __future__ import annotations

import io
import os

import cv2
import numpy as np
import PIL.Image
import pytest

from facekit.files import check_writable, write_text, written_aside
from facekit.images import (
    UnreadableImageError,
    as_stored,
    encode_jpeg,
    is_picture,
    is_whole_jpeg,
    limit_side,
    read_image,
    resize_square,
    write_jpeg,
    write_png,
)


@pytest.fixture
def picture(rng) -> np.ndarray:
    """A smooth colourful picture, 48 high and 64 wide, with no symmetry."""
    noise = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (64, 48), interpolation=cv2.INTER_CUBIC)


def saved(picture: np.ndarray, form: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def test_jpeg_pixels_equal_pils_bit_for_bit(tmp_path, picture):
    (tmp_path / "a.jpg").write_bytes(saved(picture, "JPEG", quality=90))
    expected = np.asarray(PIL.Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, picture, orientation):
    turn = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, -1)[:, ::-1][::-1, ::-1].transpose(0, 1, 2),
        8: lambda x: np.rot90(x),
    }
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    (tmp_path / "a.jpg").write_bytes(saved(picture, "JPEG", exif=exif, quality=95))
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(PIL.Image.open(tmp_path / "a.jpg")))
    decoded = read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(decoded, expected)
    if orientation != 7:  # the transverse is PIL's word alone
        assert np.abs(decoded.astype(int) - turn[orientation](picture)).mean() < 12


@pytest.mark.parametrize(
    ("form", "mode"),
    [
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGBA"),
        ("PNG", "LA"),
        ("PNG", "P"),
        ("PNG", "1"),
        ("WEBP", "RGB"),
        ("WEBP", "RGBA"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
    ],
)
def test_kinds_of_pictures_become_rgb(tmp_path, picture, form, mode):
    path = tmp_path / f"a.{form.lower()}"
    path.write_bytes(saved(picture, form, mode))
    expected = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
    decoded = read_image(path)
    assert decoded.shape == (48, 64, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - expected).mean() < (3 if mode == "CMYK" else 1.5)


def test_sixteen_bits_become_eight(tmp_path, picture):
    grey = picture[:, :, 0].astype(np.uint16) * 257
    PIL.Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[:, :, 1], picture[:, :, 0], atol=1)


@pytest.mark.parametrize("name", ["a picture.jpg", "人物.jpg", "čaj ☕.jpg"])
def test_any_name_can_be_opened(tmp_path, picture, name):
    write_jpeg(tmp_path / name, picture)
    assert read_image(tmp_path / name).shape == picture.shape


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"this is text, not a picture\n" * 20, "truncated or not a picture"),
        ("half", "truncated or not a picture"),
        ("end", "truncated or not a picture"),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_bad_file_is_named_with_its_reason(tmp_path, picture, data, reason, form):
    whole = saved(picture, form)
    bad = {"half": whole[: len(whole) // 2], "end": whole[:-16]}.get(data, data) if isinstance(data, str) else data
    (tmp_path / "bad.jpg").write_bytes(bad)
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read_image(tmp_path / "bad.jpg")
    assert "bad.jpg" in str(caught.value)


def test_a_cut_jpeg_is_known_by_its_markers(picture):
    whole = saved(picture, "JPEG", quality=90)
    thumbnail = whole[:2] + b"\xff\xe1\x00\x10" + whole + whole[2:]
    assert is_whole_jpeg(whole) and is_whole_jpeg(whole + b"camera notes") and is_whole_jpeg(thumbnail)
    assert not is_whole_jpeg(whole[: len(whole) // 2]) and not is_whole_jpeg(thumbnail[:-2])
    assert not is_whole_jpeg(b"\xff\xd8 no scan")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"none\.jpg: cannot be read \(No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(UnreadableImageError, match="Is a directory"):
        read_image(tmp_path)


def test_what_counts_as_a_picture(tmp_path):
    assert is_picture(tmp_path / "a.JPG") and is_picture(tmp_path / "a.webp")
    assert not is_picture(tmp_path / "a.txt") and not is_picture(tmp_path / ".a.jpg")


def test_the_long_side_is_limited_by_area(picture):
    small, scale = limit_side(picture, 32)
    assert small.shape == (24, 32, 3) and scale == 0.5
    blocks = picture.reshape(24, 2, 32, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(small, blocks, atol=0.51)
    same, scale = limit_side(picture, 64)
    assert same is picture and scale == 1.0


def test_resizing_down_is_by_area_and_up_is_linear():
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, ::2] = 200  # stripes one pixel wide: aliasing would keep them
    assert np.ptp(resize_square(step, 32)) == 0
    up = resize_square(np.full((8, 8, 3), 7, np.uint8), 20)
    assert up.shape == (20, 20, 3) and (up == 7).all()


def test_as_stored_is_what_comes_back_from_disk(tmp_path, picture):
    write_jpeg(tmp_path / "a.jpg", picture, quality=80)
    np.testing.assert_array_equal(as_stored(picture, 80), read_image(tmp_path / "a.jpg"))
    assert len(encode_jpeg(picture, 30)) < len(encode_jpeg(picture, 95))


def test_png_is_lossless(tmp_path, picture):
    write_png(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_nothing_half_written_stays(tmp_path):
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(RuntimeError), written_aside(tmp_path / "a.txt") as aside:
        aside.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"file: cannot be written .*Choose another folder with `output`"):
        check_writable(tmp_path / "file", "output")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="Permission denied"):
        check_writable(tmp_path / "new", "output")
