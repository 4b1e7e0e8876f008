import pytest
import torch
from torch import nn

from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes

from resnest_d2.inference import FastROIPooler, replace_poolers

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def features(scales=SCALES, *, images=2, channels=8, side=320, dtype=torch.float64):
    return [
        torch.randn(images, channels, int(side * s), int(1.25 * side * s), dtype=dtype)
        for s in scales
    ]


def boxes(count: int, side=320, dtype=torch.float64) -> Boxes:
    corners = torch.rand(count, 2, dtype=dtype) * side
    sizes = torch.exp(torch.rand(count, 2, dtype=dtype) * 6)  # 1 to 400 pixels
    return Boxes(torch.cat([corners, corners + sizes], dim=1))


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("scales", [SCALES, SCALES[2:3]], ids=["pyramid", "one level"])
def test_fast_pooler_equals_torchvisions_operator(kind, sampling_ratio, scales):
    pooler = ROIPooler(7, scales, sampling_ratio, kind)
    found = [boxes(40), boxes(3)]
    maps = features(scales)
    torch.testing.assert_close(
        FastROIPooler(pooler)(maps, found), pooler(maps, found), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
def test_boxes_outside_of_the_image_and_without_area_are_pooled_alike(kind):
    pooler = ROIPooler((3, 5), SCALES, 0, kind)
    corners = torch.tensor(
        [
            [10, 10, 10, 10],
            [10, 10, 10, 60],
            [-90, -40, 30, 20],
            [500, 500, 700, 700],
            [300, 200, 2000, 260],
            [0, 100, 400, 103],
            [50, 50, 20, 20],
        ]
    )
    found = [Boxes(corners.double())]
    maps = features(images=1)
    expected = torch.stack(
        [
            pooler.level_poolers[level](maps[level], nn.functional.pad(box.double(), (1, 0))[None])[
                0
            ]
            for box, level in zip(corners, levels_of(pooler, found), strict=True)
        ]
    )
    torch.testing.assert_close(FastROIPooler(pooler)(maps, found), expected, rtol=1e-11, atol=1e-11)


def levels_of(pooler, found) -> list[int]:
    return assign_boxes_to_levels(
        found,
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    ).tolist()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)], ids=str
)
def test_features_of_less_precision_give_values_of_theirs(dtype, tolerance):
    pooler = ROIPooler(7, SCALES, 0, "ROIAlignV2")
    found = [boxes(50, dtype=torch.float32)]
    maps = features(images=1, dtype=dtype)
    out = FastROIPooler(pooler)(maps, found)
    assert out.dtype == dtype
    expected = pooler([m.double() for m in maps], [Boxes(found[0].tensor.double())])
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=tolerance)


def test_no_boxes_and_no_images():
    pooler = FastROIPooler(ROIPooler(7, SCALES, 0, "ROIAlignV2"))
    assert pooler(features(), [boxes(0), boxes(0)]).shape == (0, 8, 7, 7)
    assert pooler(features(images=0), []).shape == (0, 8, 7, 7)


def test_only_roi_align_is_replaced():
    poolers = {kind: ROIPooler(7, SCALES, 2, kind) for kind in ("ROIAlignV2", "ROIPool")}
    model = nn.ModuleDict(poolers)
    assert replace_poolers(model) == 1
    assert isinstance(model["ROIAlignV2"], FastROIPooler)
    assert isinstance(model["ROIPool"], ROIPooler)
    assert replace_poolers(model) == 0
