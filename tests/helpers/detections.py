"""Detections of one image, compared as far as they do not depend on a processor's rounding."""

import torch

from detectron2.structures import Instances


def assert_same_detections(
    actual: Instances,
    expected: Instances,
    *,
    scores: float,
    boxes: float,
    masks: float = 1e-4,
) -> None:
    """Equal detections; where scores are equal within the tolerance, their order may differ.

    Args:
        scores: tolerance, 0-1; for the scores of keypoints, relative.
        boxes: tolerance in pixels; also of keypoints, but for one in a hundred: a heat map can have
            two equal peaks.
        masks: share of the masks' pixels that may differ.
    """
    assert len(actual) == len(expected)
    torch.testing.assert_close(actual.scores, expected.scores, rtol=0, atol=scores)
    same = actual.pred_classes == expected.pred_classes[:, None]
    same &= (actual.scores - expected.scores[:, None]).abs() <= scores
    apart = actual.pred_boxes.tensor - expected.pred_boxes.tensor[:, None]  # (expected, actual, 4)
    apart = apart.abs().amax(dim=2).masked_fill(~same, torch.inf)
    distance, order = apart.min(dim=1)
    assert (distance <= boxes).all(), f"boxes differ by {distance.max():.4g} pixels"
    assert len(order.unique()) == len(expected), "two detections have the same partner"
    actual = actual[order]
    if expected.has("pred_masks"):
        assert (actual.pred_masks != expected.pred_masks).float().mean() <= masks
    if expected.has("pred_keypoints"):
        (places, peaks), (ours, our_peaks) = (
            found.pred_keypoints.split([2, 1], dim=2) for found in (expected, actual)
        )
        torch.testing.assert_close(our_peaks, peaks, rtol=scores, atol=0)
        assert ((ours - places).abs().amax(dim=2) > boxes).float().mean() <= 0.01
