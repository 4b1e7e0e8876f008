"""Pictures and tables: drawn where they should be, from what training and evaluation leave."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.structures import Boxes, BoxMode, Instances

from resnest_d2.data import sample_set
from resnest_d2.visualize import ap_table, draw_comparison, plot_losses, save_comparisons


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


def test_comparisons_are_named_like_their_images(tmp_path):
    data = sample_set(tmp_path / "data", image_size=64, train_images=2, val_images=3)["val"]
    pictures = save_comparisons(lambda image: _instances(64, 64, []), data, tmp_path / "p", count=2)
    assert len(pictures) == 2
    for picture in pictures:
        assert Image.open(picture).size > (960, 480)


def test_losses_are_plotted_with_the_evaluations(tmp_path):
    lines = [{"iteration": i, "total_loss": 2 / (i + 1), "loss_cls": 1 / (i + 1)} for i in range(9)]
    lines.append({"iteration": 9, "bbox/AP": 40.0, "segm/AP": float("nan")})
    metrics = tmp_path / "metrics.json"
    metrics.write_text("\n".join(map(json.dumps, lines)) + "\n")
    plot_losses(metrics, tmp_path / "losses.png")
    assert np.asarray(Image.open(tmp_path / "losses.png")).std() > 0


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
