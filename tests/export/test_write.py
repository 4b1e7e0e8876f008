"""Operators that are written by this package's own rules."""

import numpy as np
import pytest
import torch
from torch import nn

from resnest_d2.export import open_file
from resnest_d2.export.write import write_part
from resnest_d2.modeling.deform_conv import DeformConv2d

GROUPS, OFFSET_GROUPS = 2, 2
NUMBERS = {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 3), "groups": GROUPS}


class _Deformed(nn.Module):
    """A deformable convolution whose numbers all differ, with offsets of some pixels."""

    output_names = ["map"]
    dynamic_axes = {"map": {2: "rows", 3: "columns"}}

    def __init__(self, modulated: bool):
        super().__init__()
        taps = OFFSET_GROUPS * 3 * 2
        self.enter = nn.Conv2d(3, 4, 1)
        around = {**NUMBERS, "groups": 1}
        self.offset = nn.Conv2d(3, 2 * taps, (3, 2), **around)
        self.weights = nn.Conv2d(3, taps, (3, 2), **around) if modulated else None
        self.deformed = DeformConv2d(4, 6, (3, 2), **NUMBERS)

    def forward(self, image):
        image = image[None] / 255
        weights = None if self.weights is None else self.weights(image).sigmoid()
        return self.deformed(self.enter(image), 4 * self.offset(image), weights)


@pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="needs PyTorch 2.6")
@pytest.mark.parametrize("modulated", [False, True])
def test_a_deformable_convolution_keeps_its_numbers_in_onnx(modulated, tmp_path):
    part = _Deformed(modulated).eval()
    image = 255 * torch.rand(3, 11, 14)
    file = tmp_path / "f.onnx"
    write_part(part, image, file, format="onnx", metadata={"outputs": part.output_names})
    found = open_file(str(file), "onnx")[0](image.numpy())
    with torch.no_grad():
        expected = part(image).numpy()
    assert expected.shape[2] != expected.shape[3] and expected.std() > 0.05
    np.testing.assert_allclose(found["map"], expected, atol=1e-4)
