"""One decoder for everything: what it accepts, what it refuses, and that its pixels equal an independent one's."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from facekit.files import check_writable, write_text, written_aside
from facekit.header import declared_size
from facekit.images import (
    UnreadableImageError,
    as_stored,
    decode,
    encode_jpeg,
    is_picture,
    is_whole_jpeg,
    limit_side,
    read_image,
    resize_square,
    write_jpeg,
    write_png,
)
from facekit.workers import peak_memory


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


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_is_applied_in_other_formats(tmp_path, picture, form, orientation):
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    options = {"tiffinfo": {0x112: orientation}} if form == "TIFF" else {"exif": exif}
    (tmp_path / "a.jpg").write_bytes(
        saved(picture, form, **options | ({"lossless": True} if form == "WEBP" else {}))
    )
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "a.jpg")))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0}),
        ("JPEG", {"restart_marker_blocks": 2}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 60}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("GIF", {}),
        ("WEBP", {"lossless": True, "several": True}),
        ("TIFF", {"several": True}),
        ("GIF", {"several": True}),
    ],
)
def test_every_way_of_writing_gives_pils_pixels_of_the_first_frame(tmp_path, picture, form, options):
    options = dict(options)
    if options.pop("several", False):
        options |= {"save_all": True, "append_images": [PIL.Image.fromarray(255 - picture)]}
    path = tmp_path / "whatever.jpg"  # the content counts, not the name
    path.write_bytes(saved(picture, form, **options))
    np.testing.assert_array_equal(read_image(path), np.asarray(PIL.Image.open(path).convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP"])
def test_palettes_become_colours_and_transparent_ones_too(tmp_path, picture, form):
    image = PIL.Image.fromarray(picture).quantize(16)
    image.save(tmp_path / "a.png", form, **({"transparency": 3} if form == "PNG" else {}))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_is_dropped_whatever_it_hides(tmp_path, picture, form):
    image = PIL.Image.fromarray(np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)]))
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    image.save(tmp_path / "a.png", form, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_a_tiff_is_laid_over_black(tmp_path, picture):
    PIL.Image.fromarray(np.dstack([picture, np.full(picture.shape[:2], 51, np.uint8)])).save(tmp_path / "a.tif")
    np.testing.assert_allclose(read_image(tmp_path / "a.tif"), picture * 0.2, atol=1)


def test_ycck_becomes_rgb(tmp_path, picture):
    """An Adobe marker of 2 says that the first three channels are YCC: the same file with 0 says CMY."""
    data = bytearray(saved(picture, "JPEG", "CMYK", quality=95))
    place = data.index(b"Adobe") + 11
    assert data[place] == 0
    data[place] = 2
    (tmp_path / "a.jpg").write_bytes(data)
    expected = np.asarray(PIL.Image.open(tmp_path / "a.jpg").convert("RGB")).astype(int)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg"), expected, atol=2)


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
    for name in ("a.png", "a.tif"):
        PIL.Image.fromarray(grey).save(tmp_path / name)
        np.testing.assert_allclose(read_image(tmp_path / name)[:, :, 1], picture[:, :, 0], atol=1)
        deep = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR).astype(np.uint16) * 257
        (tmp_path / name).write_bytes(cv2.imencode(name[1:], deep)[1].tobytes())
        np.testing.assert_allclose(read_image(tmp_path / name), picture, atol=1)


@pytest.mark.parametrize(
    "name",
    [
        "a picture.jpg",
        "人物.jpg",
        "čaj ☕.jpg",
        "-rf.jpg",
        "a\nb.jpg",
        "caf\udce9.jpg",
        "x" * 251 + ".jpg",
        "%s{}.jpg",
    ],
)
def test_any_name_can_be_opened(tmp_path, picture, name):
    (tmp_path / name).write_bytes(encode_jpeg(picture))
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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_file_cut_anywhere_is_refused(tmp_path, picture, form):
    whole = saved(picture, form)
    for left in {1, 3, 8, 20, 40, *(len(whole) * share // 10 for share in range(1, 10))}:
        (tmp_path / "cut.jpg").write_bytes(whole[:left])
        with pytest.raises(UnreadableImageError, match=r"cut\.jpg: is truncated or not a picture"):
            read_image(tmp_path / "cut.jpg")


def test_what_follows_a_picture_is_passed_over(tmp_path, picture):
    whole = saved(picture, "JPEG", quality=90)
    (tmp_path / "a.jpg").write_bytes(whole)
    expected = read_image(tmp_path / "a.jpg")
    tables = whole.index(b"\xff\xdb")
    for data in (
        whole + b"camera notes" * 30,
        whole + saved(255 - picture, "JPEG"),
        whole[:2] + b"\xff\xff\xff" + whole[2:],
        whole[:tables] + b"\x12\x34" + whole[tables:],  # decoders pass over it, and so does ours
    ):
        (tmp_path / "a.jpg").write_bytes(data)
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [60_000, 20_000])
def test_a_small_file_that_declares_billions_of_pixels_is_refused_without_the_memory(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    before = peak_memory()
    with pytest.raises(UnreadableImageError, match=rf"bomb\.png: declares {side} x {side} pixels, more than 268"):
        read_image(tmp_path / "bomb.png")
    assert decode(png_header(side, side)) is None
    assert peak_memory() - before < 100_000_000


@pytest.mark.parametrize(("width", "height"), [(64, 48), (300, 7), (1, 1)])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "comment": b"x" * 3000}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"mode": "I;16B"}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0"}),
    ],
)
def test_the_declared_size_is_known_without_decoding(rng, width, height, form, options):
    picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    assert declared_size(saved(picture, form, **options)) == (width, height)


def test_a_jpegs_size_is_found_behind_its_tables(tmp_path, picture):
    whole = saved(picture, "JPEG")
    frame, tables, scan = (whole.index(marker) for marker in (b"\xff\xc0", b"\xff\xc4", b"\xff\xda"))
    moved = whole[:frame] + whole[tables:scan] + whole[frame:tables] + whole[scan:]
    assert frame < tables < scan and declared_size(moved) == (64, 48)
    (tmp_path / "a.jpg").write_bytes(moved)
    assert read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"P6 2 2 255\n" + bytes(12),
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        b"#?RADIANCE\n" + bytes(200),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_formats_outside_the_list_are_no_pictures(tmp_path, data):
    (tmp_path / "odd.jpg").write_bytes(data)
    with pytest.raises(UnreadableImageError, match="truncated or not a picture"):
        read_image(tmp_path / "odd.jpg")


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_phone_formats_are_named(tmp_path, brand):
    (tmp_path / "IMG_1.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(200))
    with pytest.raises(UnreadableImageError, match=r"IMG_1\.jpg: is a HEIC or AVIF picture; save it as JPEG first"):
        read_image(tmp_path / "IMG_1.jpg")


def test_what_is_no_file_is_refused_at_once(tmp_path, picture):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "device.jpg"):
        with pytest.raises(UnreadableImageError, match=rf"{name}: is a pipe, a device or a socket"):
            read_image(tmp_path / name)
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(2**29 + 1)  # takes no room on the disk
    with pytest.raises(UnreadableImageError, match=r"huge\.jpg: is larger than 536,870,912 bytes"):
        read_image(tmp_path / "huge.jpg")


def test_links_are_followed_and_broken_ones_named(tmp_path, picture):
    write_jpeg(tmp_path / "a.jpg", picture)
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "round.jpg").symlink_to("round.jpg")
    assert read_image(tmp_path / "link.jpg").shape == picture.shape
    for name, reason in (("broken.jpg", "No such file"), ("round.jpg", "Too many levels of symbolic links")):
        with pytest.raises(UnreadableImageError, match=rf"{name}: cannot be read \({reason}"):
            read_image(tmp_path / name)


def test_a_file_that_may_not_be_read_is_named(tmp_path, picture, monkeypatch):
    write_jpeg(tmp_path / "a.jpg", picture)

    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: cannot be read \(Permission denied\)"):
        read_image(tmp_path / "a.jpg")


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
