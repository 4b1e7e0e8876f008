"""Multi-scale evaluation in windows equals a plain loop over windows."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from resnest_d2.modeling.windows import WindowedSegmentor

WINDOW, BASE, SCALES = 48, 52, (0.5, 1.0, 1.75)
MEAN, STD = (
    torch.tensor([110.0, 120, 130]).view(3, 1, 1),
    torch.tensor([50.0, 60, 70]).view(3, 1, 1),
)


class Segmentor(nn.Module):
    """A small network with the interface of Detectron2's ``SemanticSegmentor``."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 7, stride=8, padding=3)
        self.register_buffer("pixel_mean", MEAN)
        self.register_buffer("pixel_std", STD)
        self.sizes = []

    def backbone(self, x):
        self.sizes.append(tuple(x.shape))
        return {"res5": self.conv(x)}

    def sem_seg_head(self, features, targets=None):
        logits = features["res5"]
        size = [side * 8 for side in logits.shape[2:]]
        return F.interpolate(logits, size, mode="bilinear", align_corners=True), {}


def plain_scores(model, image, flip):
    """Scores (5, H, W) of an image (3, H, W), pixel by window, in numpy's float64 sums."""
    _, height, width = image.shape
    x = ((image - MEAN) / STD)[None]
    black = (-MEAN / STD)[None]
    total = np.zeros((5, height, width))
    for scale in SCALES:
        long_side = math.ceil(BASE * scale)
        if height > width:
            h, w = long_side, int(width * long_side / height + 0.5)
        else:
            h, w = int(height * long_side / width + 0.5), long_side
        small = F.interpolate(x, (h, w), mode="bilinear", align_corners=True)
        tall, wide = max(h, WINDOW), max(w, WINDOW)
        canvas = black.expand(1, 3, tall, wide).clone()
        canvas[:, :, :h, :w] = small
        sums, counts = np.zeros((5, tall, wide)), np.zeros((tall, wide))
        step = WINDOW * 2 // 3
        for top in range(0, max(tall - WINDOW, 0) + step, step):
            for left in range(0, max(wide - WINDOW, 0) + step, step):
                if top - step + WINDOW >= tall > WINDOW or left - step + WINDOW >= wide > WINDOW:
                    continue  # the window before reached the edge
                part = canvas[:, :, top : top + WINDOW, left : left + WINDOW]
                window = black.expand(1, 3, WINDOW, WINDOW).clone()
                window[:, :, : part.shape[2], : part.shape[3]] = part
                logits = model.sem_seg_head(model.backbone(window))[0]
                if flip:
                    mirrored = model.sem_seg_head(model.backbone(window.flip(3)))[0]
                    logits = logits + mirrored.flip(3)
                scores = logits.exp()[0, :, : part.shape[2], : part.shape[3]].double().numpy()
                sums[:, top : top + part.shape[2], left : left + part.shape[3]] += scores
                counts[top : top + part.shape[2], left : left + part.shape[3]] += 1
        scores = torch.from_numpy(sums / counts)[None, :, :h, :w]
        total += F.interpolate(scores, (height, width), mode="bilinear", align_corners=True)[
            0
        ].numpy()
    return total


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("size", [(60, 91), (91, 60), (40, 40), (30, 200)], ids=str)
def test_scores_equal_a_loop_over_windows(size, flip):
    torch.manual_seed(0)
    model = Segmentor().eval()
    windowed = WindowedSegmentor(model, scales=SCALES, base_size=BASE, window=WINDOW, flip=flip)
    image = torch.randint(0, 256, (3, *size)).float()
    with torch.no_grad():
        (result,) = windowed([{"image": image, "height": size[0], "width": size[1]}])
        assert {shape[2:] for shape in model.sizes} == {(WINDOW, WINDOW)}
        expected = plain_scores(model, image, flip)
    np.testing.assert_allclose(result["sem_seg"].numpy(), expected, rtol=1e-4)
    assert not windowed.training
