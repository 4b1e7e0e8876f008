"""Pictures and tables: drawn where they should be, from what training and evaluation leave."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image
from pycocotools import mask as mask_util

from detectron2.structures import Boxes, BoxMode, Instances, ROIMasks
from detectron2.utils.visualizer import Visualizer

from resnest_d2.data import sample_set
from resnest_d2.draw import instances
from resnest_d2.draw.charts import RUN_COLORS
from resnest_d2.draw.instances import (
    draw_annotations,
    draw_comparison,
    draw_instances,
    save_comparisons,
)
from resnest_d2.draw.loss_curves import (
    draw_losses,
    draw_metrics,
    draw_total_losses,
    plot_losses,
)
from resnest_d2.draw.sheet import draw_sheet
from resnest_d2.evaluation import ap_table
from resnest_d2.report.embed import image_address


def _instances(height, width, boxes):
    return Instances(
        (height, width),
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        scores=torch.linspace(0.9, 0.5, len(boxes)),
        pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
    )


def test_comparison_has_truth_left_and_prediction_right():
    image = np.full((40, 60, 3), 128, np.uint8)
    truth = [{"bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}]
    empty = draw_comparison(image, [], _instances(40, 60, []), ["thing"])
    only_truth = draw_comparison(image, truth, _instances(40, 60, []), ["thing"])
    both = draw_comparison(image, truth, _instances(40, 60, [[5, 5, 25, 25]]), ["thing"])
    assert empty.shape == only_truth.shape == both.shape
    assert min(empty.shape[0] - 32, (empty.shape[1] - 8) // 2) >= 480
    half = empty.shape[1] // 2
    body = np.s_[32:]
    assert (only_truth[body, :half] != empty[body, :half]).any()
    assert (only_truth[body, half:] == empty[body, half:]).all()
    assert (both[body, half:] != empty[body, half:]).any()


def _is_red(pixels: np.ndarray) -> bool:
    """Whether the image has red areas and no blue ones."""
    red, _, blue = np.moveaxis(np.asarray(pixels, int), -1, 0)
    return bool((red > blue + 150).any()) and not (blue > red + 100).any()


def test_red_images_are_red_in_comparisons_sheets_and_reports(tmp_path):
    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 220
    (tmp_path / "images").mkdir()
    Image.fromarray(red).save(tmp_path / "images" / "1.png")
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 40, "width": 60}],
        "annotations": [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = str(tmp_path / "a.json"), str(tmp_path / "images")
    compared = draw_comparison(red, [], _instances(40, 60, []), ["thing"])
    half = compared.shape[1] // 2
    (saved,) = save_comparisons(
        lambda image: _instances(40, 60, []), data, tmp_path / "out", count=1
    )
    address = image_address(red)
    embedded = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    for picture in (
        compared[:, :half],
        compared[:, half:],
        Image.open(saved),
        draw_sheet(data, num_images=1),
        embedded,
    ):
        assert _is_red(picture)


def test_picture_changes_only_around_its_instance():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    picture = draw_instances(image, _instances(60, 80, [[10, 10, 30, 25]]), ["x"])
    changed = (picture != image).any(axis=2)
    assert changed[10, 12:28].all() and changed[12:23, 10].all()
    assert not changed[:, 60:].any() and not changed[45:].any()


def test_enlarged_picture_repeats_the_pixels_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    picture = draw_instances(image, _instances(33, 47, []), ["x"], scale=3)
    np.testing.assert_array_equal(picture, image.repeat(3, axis=0).repeat(3, axis=1))


def _squares(number: int) -> torch.Tensor:
    """Mask squares (N, 28, 28), every second one with a hole."""
    squares = torch.ones(number, 28, 28)
    squares[::2, 8:20, 8:20] = 0
    return squares


@pytest.mark.parametrize("scale", [1, 2.5])
def test_masks_in_boxes_are_drawn_as_the_pasted_ones(scale):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    boxes = [[0, 0, 30, 25], [40, 20, 80, 60], [20, 15, 60, 45], [78.5, 0, 80, 9], [5, 50, 6, 51]]
    pasted, unpasted = _instances(60, 80, boxes), _instances(60, 80, boxes)
    unpasted.pred_masks = ROIMasks(_squares(len(boxes)))
    pasted.pred_masks = unpasted.pred_masks.to_bitmasks(pasted.pred_boxes, 60, 80).tensor
    drawings = [draw_instances(image, some, ["x"], scale=scale) for some in (pasted, unpasted)]
    np.testing.assert_array_equal(*drawings)


def test_a_hole_in_a_mask_keeps_the_pixels_of_the_image():
    image = np.full((90, 120, 3), 200, np.uint8)
    found = _instances(90, 120, [[10, 10, 110, 80]])
    found.pred_masks = ROIMasks(_squares(1))
    before = image.copy()
    drawing = draw_instances(image, found, ["x"])
    np.testing.assert_array_equal(image, before)
    assert (drawing[35:55, 45:75] == 200).all()
    below_the_hole = drawing[65:75, 45:75].reshape(-1, 3)
    assert np.unique(below_the_hole, axis=0).tolist() == [[215, 180, 100]]  # half #e69f00


def test_mask_has_the_colour_of_its_instance_beside_one_without_a_mask():
    image = np.full((60, 120, 3), 128, np.uint8)
    box = {"bbox_mode": BoxMode.XYXY_ABS}
    without = {**box, "bbox": [10, 10, 40, 40], "category_id": 0}
    polygon = [[70, 10, 110, 10, 110, 50, 70, 50]]
    masked = {**box, "bbox": [70, 10, 110, 50], "category_id": 1, "segmentation": polygon}

    def colour(annotations):
        nothing = _instances(60, 120, [])
        picture = draw_comparison(image, annotations, nothing, ["a", "b"], min_size=60)
        return picture[32 + 30, 90]  # the middle of the mask

    np.testing.assert_array_equal(colour([without, masked]), colour([masked]))


def test_comparisons_are_named_like_their_images(tmp_path):
    data = sample_set(tmp_path / "data", image_size=64, train_images=2, val_images=3)["val"]
    pictures = save_comparisons(lambda image: _instances(64, 64, []), data, tmp_path / "p", count=2)
    assert len(pictures) == 2
    for picture in pictures:
        assert Image.open(picture).size > (960, 480)


@pytest.fixture
def drawn(monkeypatch):
    """What is plotted: label, x and y of each line."""
    lines = []
    plot = Axes.plot

    def spy(self, x, y, *args, label, **kwargs):
        lines.append((label, list(x), list(y)))
        return plot(self, x, y, *args, label=label, **kwargs)

    monkeypatch.setattr(Axes, "plot", spy)
    return lines


def test_losses_are_plotted_with_the_evaluations(tmp_path, drawn):
    lines = [{"iteration": i, "total_loss": 2 / (i + 1), "loss_cls": 1 / (i + 1)} for i in range(9)]
    lines.append({"iteration": 9, "bbox/AP": 40.0, "segm/AP": float("nan")})
    metrics = tmp_path / "metrics.json"
    metrics.write_text("\n".join(map(json.dumps, lines)) + "\n")
    plot_losses(metrics, tmp_path / "losses.png")
    iterations = list(range(9))
    np.testing.assert_equal(  # where NaN equals NaN
        drawn,
        [
            ("total loss", iterations, [2 / (i + 1) for i in iterations]),
            ("loss cls", iterations, [1 / (i + 1) for i in iterations]),
            ("box AP", [9], [40.0]),
            ("mask AP", [9], [np.nan]),
        ],
    )
    assert Image.open(tmp_path / "losses.png").size == (960, 540)


@pytest.mark.parametrize(
    ("metrics", "labels"),
    [
        ({"bbox/AP": 40.0, "bbox/AP50": 60.0, "segm/AP": float("nan")}, ["box AP", "mask AP"]),
        ({"keypoints/AP": 3.0, "panoptic_seg/PQ": 2.0}, ["keypoint AP", "PQ"]),
        ({"cats/bbox/AP": 4.0, "dogs/bbox/AP": 5.0}, ["box AP\n(cats)", "box AP\n(dogs)"]),
        ({"bbox_TTA/AP": 4.0, "bbox/AP-cat": 5.0}, []),
    ],
)
def test_curves_have_the_main_metric_of_each_task_and_data_set(metrics, labels, tmp_path, drawn):
    lines = [{"iteration": i, "total_loss": 1.0, **metrics} for i in (4, 9)]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
    plot_losses(tmp_path / "metrics.json", tmp_path / "losses.png")
    found = [label for label, x, _ in drawn if label != "total loss" and x == [4, 9]]
    assert found == labels


def test_runs_side_by_side_have_their_own_losses_and_metrics():
    first = [{"iteration": i, "loss_cls": 9.0, "total_loss": 4.0 - i} for i in range(3)]
    first.append({"iteration": 2, "bbox/AP": 10.0, "segm/AP": 20.0})
    second = [{"iteration": 1, "segm/AP": 30.0}]  # without a loss
    third = [{"iteration": 5, "total_loss": 7.0, "segm/AP": 40.0}]

    def lines(figure) -> list:
        found = figure.axes[0].lines
        return [(n.get_color(), n.get_linestyle(), *map(list, n.get_data())) for n in found]

    histories = [first, second, third]
    assert lines(draw_total_losses(histories)) == [
        (RUN_COLORS[0], "-", [0, 1, 2], [4.0, 3.0, 2.0]),
        (RUN_COLORS[2], "-", [5], [7.0]),
    ]
    assert lines(draw_metrics(histories)) == [
        (RUN_COLORS[0], "-", [2], [10.0]),
        (RUN_COLORS[0], "--", [2], [20.0]),
        (RUN_COLORS[1], "--", [1], [30.0]),
        (RUN_COLORS[2], "--", [5], [40.0]),
    ]
    assert draw_total_losses([second]) is None and draw_metrics([[{"iteration": 1}]]) is None


def test_lines_cut_off_when_a_run_was_killed_are_left_out(tmp_path, drawn):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(
        '{"iteration": 0, "total_loss": 2.0}\n'
        '{"iteration": 1, "total_l{"iteration": 1, "total_loss": 1.5}\n'
        '{"iteration": 2, "total_loss": 1.0}\n{"itera'
    )
    plot_losses(metrics, tmp_path / "losses.png")
    assert drawn == [("total loss", [0, 2], [2.0, 1.0])]


def test_run_without_losses_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text("")
    with pytest.raises(ValueError, match="total_loss"):
        plot_losses(tmp_path / "metrics.json", tmp_path / "losses.png")


def test_table_has_a_row_a_task_and_says_what_does_not_exist():
    metrics = {"AP": 41.25, "AP50": 60.0, "AP75": 44.0, "APs": float("nan"), "APm": 40, "APl": None}
    lines = ap_table({"bbox": metrics, "segm": metrics}).splitlines()
    assert len(lines) == 4
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        *("boxes", "41.2", "60.0", "44.0", "–", "40.0", "–")
    ]


def test_of_many_objects_and_points_the_first_are_drawn(caplog, monkeypatch):
    monkeypatch.setattr(instances, "_MOST", 20)
    box = {"bbox": [1, 1, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    points = [70, 50, 2] * 200_000
    drawn = draw_annotations(
        np.zeros((60, 80, 3), np.uint8), [box | {"keypoints": points}] * 20_000, ["cat"]
    )
    assert drawn[1, 10].any() and drawn[50, 70].any()
    assert "20000 objects: the first 20 are drawn" in caplog.text


def test_a_mask_of_many_parts_is_blended_into_the_image(monkeypatch):
    dots = np.zeros((200, 200), np.uint8)
    for left, top in np.ndindex(2, 2):
        dots[top::4, left::4] = 1  # 2,500 parts
    monkeypatch.setattr(Visualizer, "draw_polygon", None)
    box = {"bbox": [0, 0, 200, 200], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    rle = mask_util.encode(np.asfortranarray(dots))
    drawn = draw_annotations(np.zeros((200, 200, 3), np.uint8), [box | {"segmentation": rle}], "a")
    assert drawn[100, 100].any() and not drawn[102, 102].any()


def test_of_many_losses_and_data_sets_the_first_are_plotted(tmp_path, drawn):
    line = {f"loss_{i:04d}": 1.0 for i in range(3000)} | {"iteration": 1, "total_loss": 1.0}
    line |= {f"set{i:04d}/bbox/AP": 1.0 for i in range(3000)}
    (tmp_path / "metrics.json").write_text(json.dumps(line))
    plot_losses(tmp_path / "metrics.json", tmp_path / "losses.png")
    assert len(drawn) == 1 + 24 + 24
    figure = draw_losses([line])
    assert figure.axes[0].get_title() == "24 of 3000 parts"


def test_losses_below_zero_are_plotted_without_a_warning(tmp_path, recwarn):
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 1, "total_loss": -1.0}))
    plot_losses(tmp_path / "metrics.json", tmp_path / "losses.png")
    assert not recwarn.list
