"""Image files: the pixels that they show, or the reason why there are none."""

import os
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from detectron2.data.detection_utils import read_image as stock_read_image

from resnest_d2.data.image_reader import (
    ImageError,
    count_pixels,
    read_image,
    read_mask,
)

ORIENTATION = 0x0112
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"  # Ghostscript's


@pytest.fixture
def image():
    """Smooth, so that JPEG keeps it, and without symmetry: (40, 64)."""
    y, x = np.mgrid[:40, :64]
    pixels = np.stack([4 * x, 6 * y, 2 * x + 3 * y], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def write_png_header(path, width: int, height: int):
    """A PNG file that claims a size and has a handful of bytes."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)}
    chunks |= {b"IDAT": zlib.compress(b"\0" * 100), b"IEND": b""}
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks.items():
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        data += struct.pack(">I", len(content)) + kind + content + checksum
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("jpg", mode) for mode in ("RGB", "L", "CMYK")),
        *(("png", mode) for mode in ("RGB", "L", "1", "P")),
        *(("tif", mode) for mode in ("RGB", "L", "CMYK", "1", "P")),
    ],
)
def test_ordinary_files_are_read_as_in_training(mode, suffix, image, tmp_path):
    path = tmp_path / f"image.{suffix}"
    image.convert(mode).save(path)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, stock_read_image(str(path), format="RGB"))
    assert picture.pixels.shape == (40, 64, 3) and picture.note == ""
    assert count_pixels(path) == 40 * 64


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied_once(orientation, suffix, image, tmp_path):
    path = tmp_path / f"image.{suffix}"
    image.save(path, exif=exif(orientation))
    pixels = read_image(path).pixels
    image.save(tmp_path / f"stored.{suffix}")
    stored = read_image(tmp_path / f"stored.{suffix}").pixels
    turned = {  # where the first row and the first column of the stored pixels are seen
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored[::-1].transpose(1, 0, 2),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored[:, ::-1].transpose(1, 0, 2),
    }
    np.testing.assert_array_equal(pixels, turned[orientation])
    if suffix != "tif":  # which Detectron2 turns twice
        np.testing.assert_array_equal(pixels, stock_read_image(str(path), format="RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_semantic_mask_is_turned_like_its_picture(orientation, image, tmp_path):
    image.convert("L").save(tmp_path / "mask.png", exif=exif(orientation))
    picture = read_image(tmp_path / "mask.png").pixels[..., 0]
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), picture)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(suffix, tmp_path):
    values = np.array([[0, 128, 129, 256, 32767, 65407, 65408, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"image.{suffix}")
    pixels = read_image(tmp_path / f"image.{suffix}").pixels
    assert pixels[0, :, 0].tolist() == np.rint(values[0] / 257).tolist()
    assert pixels[0, :, 1].tolist() == pixels[0, :, 2].tolist() == pixels[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (np.uint16([[0, 65535]]), ""),
        (np.float32([[0, 1]]), ""),
        (np.uint16([[0, 4095]]), "16-bit values from 0 to 4095: all nearly the same shade"),
        (np.float32([[0, 255]]), "float values from 0 to 255: those outside of 0 to 1 become"),
        (np.float32([[np.nan, 0, 1]]), ""),
    ],
)
def test_values_that_do_not_fit_the_rule_are_noted(values, note, tmp_path):
    Image.fromarray(values).save(tmp_path / "image.tif")
    found = read_image(tmp_path / "image.tif").note
    assert found.startswith(note) and bool(found) == bool(note)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(mode, tmp_path):
    alpha = np.array([[255, 0, 51]], np.uint8)
    pixels = np.dstack([np.full((1, 3), 100, np.uint8)] * 3 + [alpha])
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
        image.putpalette([100] * 9)
        image.save(tmp_path / "image.png", transparency=bytes(alpha[0]))
    else:
        image.convert(mode).save(tmp_path / "image.png")
    shown = read_image(tmp_path / "image.png").pixels
    assert shown[0].tolist() == [[100] * 3, [255] * 3, [224] * 3]  # 0.2 * 100 + 0.8 * 255


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame_is_read_and_noted(suffix, tmp_path):
    frames = [Image.new("RGB", (16, 8), (value,) * 3) for value in (10, 200)]
    frames[0].save(tmp_path / f"image.{suffix}", save_all=True, append_images=frames[1:])
    picture = read_image(tmp_path / f"image.{suffix}")
    assert np.abs(picture.pixels.astype(int) - 10).max() <= 2
    assert picture.note == "the first of its frames"


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(suffix, share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    read_image(path)
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match=f"image.{suffix} is not read: ."):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it has 0 bytes"),
        (b"some text", "begins b'some text'"),
        (EPS, "begins b'%!PS"),
    ],
)
def test_what_is_no_picture_is_refused(content, reason, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    for function in (read_image, count_pixels):
        with pytest.raises(ImageError, match="image.jpg") as info:
            function(path)
        assert reason in info.value.reason


def test_a_folder_a_pipe_and_a_missing_file_are_told_apart(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # to open it would wait for ever
    (tmp_path / "s3:" / "folder").mkdir(parents=True)
    for path in (tmp_path, tmp_path / "pipe.jpg", f"{tmp_path}/s3://folder"):
        with pytest.raises(ImageError, match="a folder or a device"):
            read_image(path)
    with pytest.raises(FileNotFoundError, match="none.jpg"):
        read_image(tmp_path / "none.jpg")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    path = write_png_header(tmp_path / "bomb.png", 20_000, 20_000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)  # what decodes and allocates
    with pytest.raises(ImageError, match=r"bomb.png.*400000000 pixels.*limit of 178956970"):
        read_image(path)


def test_a_large_image_is_copied_once(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (9000, 200, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "large.png")
    tracemalloc.start()
    pixels = read_image(tmp_path / "large.png").pixels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(pixels, values)
    assert peak < 1.9 * pixels.nbytes


def test_the_limit_is_pillows(tmp_path, image, monkeypatch):
    image.save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 64 // 2)
    read_image(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 64 // 2 - 1)
    with pytest.raises(ImageError, match="limit of 2558 pixels"):
        read_image(tmp_path / "image.png")


def test_the_error_survives_a_process_border():
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "it is cut")))
    assert (str(error), error.reason) == ("a.jpg is not read: it is cut", "it is cut")
