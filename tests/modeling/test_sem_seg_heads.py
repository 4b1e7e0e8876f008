"""The published segmentation heads: a plain reimplementation, losses, errors."""

import pytest
import torch
import torch.nn.functional as F
from references import build_reference, random_state, relative_error
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model

from resnest_d2 import get_config
from resnest_d2.checkpoint.convert import convert
from resnest_d2.modeling import ResNeStDeepLabV3Head, ResNeStFCNHead

SHAPES = {"res4": ShapeSpec(channels=12, stride=8), "res5": ShapeSpec(channels=20, stride=8)}
CLASSES = 7


class PlainSegmentor(nn.Module):
    """The published model, with its names: PyTorch-Encoding's DeepLabV3 and FCN."""

    def __init__(self, backbone: nn.Module, num_classes: int, *, head: str):
        super().__init__()
        self.pretrained = backbone
        self.head = nn.Module()
        if head == "deeplab":
            self.head.aspp = nn.Module()
            self.head.aspp.b0 = _conv(2048, 256, 1)
            for name, dilation in (("b1", 12), ("b2", 24), ("b3", 36)):
                setattr(self.head.aspp, name, _conv(2048, 256, 3, dilation))
            self.head.aspp.b4 = nn.Module()
            self.head.aspp.b4.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv(2048, 256, 1))
            self.head.aspp.project = nn.Sequential(*_conv(1280, 256, 1), nn.Dropout2d(0.5))
            self.head.block = _classifier(256, 256, num_classes)
        else:
            self.head.conv5 = _classifier(2048, 512, num_classes)
        self.auxlayer = nn.Module()
        self.auxlayer.conv5 = _classifier(1024, 256, num_classes)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        net = self.pretrained
        res4 = net.layer3(net.layer2(net.layer1(net.maxpool(F.relu(net.bn1(net.conv1(x)))))))
        y = net.layer4(res4)
        if hasattr(self.head, "aspp"):
            aspp, size = self.head.aspp, y.shape[2:]
            parts = [aspp.b0(y), aspp.b1(y), aspp.b2(y), aspp.b3(y)]
            pooled = aspp.b4.gap(y)
            parts.append(F.interpolate(pooled, size, mode="bilinear", align_corners=True))
            y = self.head.block(aspp.project(torch.cat(parts, 1)))
        else:
            y = self.head.conv5(y)
        return [
            F.interpolate(z, x.shape[2:], mode="bilinear", align_corners=True)
            for z in (y, self.auxlayer.conv5(res4))
        ]


def _conv(c_in, c_out, kernel, dilation=1):
    padding = dilation if kernel == 3 else 0
    conv = nn.Conv2d(c_in, c_out, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def _classifier(c_in, c_out, num_classes):
    return nn.Sequential(*_conv(c_in, c_out, 3), nn.Dropout(0.1), nn.Conv2d(c_out, num_classes, 1))


def published(depth: int, head: str) -> PlainSegmentor:
    """The published model in float64, with random weights."""
    with torch.device("meta"):
        backbone = build_reference("official", f"resnest{depth}", dilated=True)
        backbone.fc = None
        model = PlainSegmentor(backbone, CLASSES, head=head)
    state = random_state({name: value.shape for name, value in model.state_dict().items()})
    for name in state:
        if name.endswith("bn3.weight"):
            state[name] *= 0.1
    model.load_state_dict(state, assign=True)
    return model.eval()


def ours(depth: int, head: str, model: PlainSegmentor) -> nn.Module:
    """The recipe's model in float64, with the weights of the published one."""
    name = {"deeplab": f"deeplabv3_resnest{depth}_ade20k", "fcn": "fcn_resnest50_ade20k"}[head]
    options = ["MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", CLASSES]
    segmentor = build_model(get_config(name, [*options, "MODEL.RESNETS.DEPTH", depth])).double()
    segmentor.load_state_dict(convert(model.state_dict(), "encoding", "detectron2"))
    return segmentor.eval()


@pytest.mark.parametrize("head", ["deeplab", "fcn"])
@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
def test_logits_and_losses_equal_the_published_model(depth, head):
    model = published(depth, head)
    segmentor = ours(depth, head, model)
    pixels = torch.randint(0, 256, (3, 96, 136))
    image = ((pixels - segmentor.pixel_mean) / segmentor.pixel_std)[None]
    with torch.no_grad():
        expected, auxiliary = model(image)
        (result,) = segmentor([{"image": pixels}])
        assert relative_error(result["sem_seg"], expected[0]) < 1e-9

        targets = torch.randint(0, CLASSES, (1, 96, 136))
        targets[:, :30] = 255
        head = segmentor.sem_seg_head
        head.training = True  # but not its norms and dropouts
        _, losses = head(segmentor.backbone(image), targets)
    for name, logits, weight in (
        ("loss_sem_seg", expected, 1.0),
        ("loss_sem_seg_aux", auxiliary, 0.2),
    ):
        loss = weight * F.cross_entropy(logits, targets, ignore_index=255)
        torch.testing.assert_close(losses[name], loss, rtol=1e-9, atol=0)


@pytest.mark.parametrize("head", ["deeplab", "fcn"])
def test_published_names_convert_and_convert_back(head):
    state = published(50, head).state_dict()
    back = convert(convert(state, "encoding", "detectron2"), "detectron2", "encoding")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_batch_without_a_class_has_no_loss():
    head = ResNeStFCNHead(SHAPES, in_features=["res4", "res5"], num_classes=3).train()
    features = {name: torch.randn(2, s.channels, 4, 5) for name, s in SHAPES.items()}
    _, losses = head(features, torch.full((2, 32, 40), 255))
    assert {name: loss.item() for name, loss in losses.items()} == {
        "loss_sem_seg": 0,
        "loss_sem_seg_aux": 0,
    }


def test_hard_pixel_mining_is_the_mean_of_the_highest_fifth():
    head = ResNeStFCNHead(
        SHAPES,
        in_features=["res5"],
        num_classes=3,
        loss_type="hard_pixel_mining",
        aux_loss_weight=0,
    )
    logits, targets = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 32, 40))
    enlarged = F.interpolate(logits, (32, 40), mode="bilinear", align_corners=True)
    losses = F.cross_entropy(enlarged, targets, reduction="none").flatten().sort().values
    expected = losses[-int(0.2 * len(losses)) :].mean()
    torch.testing.assert_close(head.loss(logits, targets), expected)


def test_one_image_is_refused_where_a_norm_has_one_value():
    head = ResNeStDeepLabV3Head(SHAPES, in_features=["res4", "res5"], num_classes=3, channels=8)
    features = {name: torch.randn(1, s.channels, 4, 5) for name, s in SHAPES.items()}
    with pytest.raises(ValueError, match="SOLVER.IMS_PER_BATCH.*SEM_SEG_HEAD.NORM"):
        head.train()(features, torch.zeros(1, 32, 40, dtype=torch.int64))
    logits, _ = head.eval()(features)
    assert logits.shape == (1, 3, 32, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": ["res5"]}, "in_features must be two"),
        ({"in_features": ["res3", "res5"]}, r"in_features must be one of \('res4', 'res5'\)"),
        ({"loss_type": "dice"}, "loss_type must be one of"),
        ({"aspp_dilations": (1, 2)}, "aspp_dilations must be 3 numbers above 0"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNeStDeepLabV3Head(
            SHAPES, **{"in_features": ["res4", "res5"], "num_classes": 3, **arguments}
        )
