"""The check tells width from height: what fits a wide image does not fit a high one."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from resnest_d2.data import check_coco

WIDTH, HEIGHT = 96, 64  # pixels
SIDES = {"size-mismatch", "box-outside", "box-off-image", "polygon-outside", "polygon-off-image"}
SIDES |= {"rle-size", "bad-rle"}


def _kinds(folder, image: dict, **annotation) -> set[str]:
    """The problems of a file with one image and one annotation, of those that depend on sides."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, **image}
    square = {"bbox": [60, 30, 20, 20], "segmentation": [[60, 30, 80, 30, 80, 50]], "area": 200.0}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, **square, **annotation}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1}]}
    content["categories"][0]["name"] = "thing"
    (folder / "own.json").write_text(json.dumps(content))
    return {problem.kind for problem in check_coco(folder / "own.json", folder)} & SIDES


def _mask(height: int, width: int) -> dict:
    """An RLE whose last run is of the object, as text."""
    rle = mask_util.encode(np.asfortranarray(np.tri(height, width, dtype=np.uint8)[:, ::-1]))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def _runs(height: int, width: int) -> dict:
    return {"size": [height, width], "counts": [height * width - 40, 40]}


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"bbox": [0, 0, WIDTH, HEIGHT]},
        {"bbox": [70, 40, 26, 24]},
        {"segmentation": [[0, 0, WIDTH, 0, WIDTH, HEIGHT]]},
        {"segmentation": _mask(HEIGHT, WIDTH)},
        {"segmentation": _runs(HEIGHT, WIDTH)},
    ],
    ids=str,
)
def test_what_fits_a_wide_image_is_sound(annotation, tmp_path):
    assert _kinds(tmp_path, {}, **annotation) == set()


@pytest.mark.parametrize(
    ("kind", "annotation"),
    [
        ("box-outside", {"bbox": [0, 0, HEIGHT, WIDTH]}),
        ("box-off-image", {"bbox": [40, 70, 24, 26]}),
        ("box-outside", {"bbox": [80, 10, 30, 30]}),
        ("polygon-outside", {"segmentation": [[0, 0, HEIGHT, 0, HEIGHT, WIDTH]]}),
        ("polygon-off-image", {"segmentation": [[40, 70, 60, 70, 60, 90]]}),
        ("polygon-outside", {"segmentation": [[40, 10, 120, 10, 60, 50]]}),
        ("rle-size", {"segmentation": _mask(WIDTH, HEIGHT)}),
        ("rle-size", {"segmentation": _runs(WIDTH, HEIGHT)}),
    ],
    ids=str,
)
def test_what_would_fit_a_high_image_is_found(kind, annotation, tmp_path):
    assert _kinds(tmp_path, {}, **annotation) == {kind}


@pytest.mark.parametrize("side", range(4), ids=["left", "top", "right", "bottom"])
@pytest.mark.parametrize(("pixels", "outside"), [(1.9, False), (2.1, True)])
def test_two_pixels_out_of_the_image_are_borne_on_each_side(side, pixels, outside, tmp_path):
    corners = [30.0, 20.0, 60.0, 50.0]
    corners[side] = -pixels if side < 2 else (WIDTH, HEIGHT)[side - 2] + pixels
    x0, y0, x1, y1 = corners
    polygon = {"segmentation": [[x0, y0, x1, y0, x1, y1]]}
    for kind, annotation in (
        ("box-outside", {"bbox": [x0, y0, x1 - x0, y1 - y0]}),
        ("polygon-outside", polygon),
    ):
        assert _kinds(tmp_path, {}, **annotation) == ({kind} if outside else set())


def test_a_size_with_its_sides_exchanged_is_found(tmp_path):
    assert "size-mismatch" in _kinds(tmp_path, {"width": HEIGHT, "height": WIDTH})
