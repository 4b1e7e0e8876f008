"""The image classifier: published weights, its loss, its start."""

import pytest
import torch
import torch.nn.functional as F
from references import build_reference

from detectron2.modeling import build_model

from resnest_d2 import get_config
from resnest_d2.checkpoint import RunCheckpointer
from resnest_d2.checkpoint.convert import convert

SMALL = ("MODEL.DEVICE", "cpu", "RESNEST.CLASSIFIER.NUM_CLASSES", "7")


def classifier(name: str = "classify_resnest14", *opts):
    torch.manual_seed(0)
    return build_model(get_config(name, [*SMALL, *map(str, opts)]))


def images(count: int = 4, side: int = 32) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.randint(256, (3, side, side), generator=generator), "label": i % 7}
        for i in range(count)
    ]


def normalised(inputs: list[dict], model) -> torch.Tensor:
    batch = torch.stack([item["image"] for item in inputs])
    return (batch.to(model.pixel_mean) - model.pixel_mean) / model.pixel_std


def plain(model):
    """Without mixup and smoothing."""
    model.mixers, model.label_smoothing = [], 0.0
    return model


def assert_same_probabilities(model, reference) -> None:
    inputs = images(2, side=64)
    with torch.no_grad():
        found = torch.stack([item["probabilities"] for item in model(inputs)])
        expected = reference(normalised(inputs, model)).softmax(dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_probabilities_are_those_of_the_published_network(tmp_path):
    reference = build_reference("official", "resnest50", num_classes=7).double().eval()
    torch.save(reference.state_dict(), tmp_path / "resnest50.pth")
    model = classifier("classify_resnest50").double().eval()
    RunCheckpointer(model, whole=True).load(str(tmp_path / "resnest50.pth"))
    assert_same_probabilities(model, reference)


def test_a_trained_classifier_converts_to_the_official_names():
    model = classifier("classify_resnest50").double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from the zeros of its start
            parameter.add_(0.01 * torch.randn_like(parameter))
    names = convert(model.state_dict(), "detectron2", "official")
    reference = build_reference("official", "resnest50", num_classes=7).double().eval()
    reference.load_state_dict(names)
    assert_same_probabilities(model, reference)


def test_the_plain_loss_is_the_cross_entropy():
    model = plain(classifier()).train()
    inputs = images()
    labels = torch.tensor([item["label"] for item in inputs])
    loss = model(inputs)["loss_cls"]
    logits = model.logits(normalised(inputs, model))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_images_have_mixed_targets(smoothing):
    model = classifier(
        "classify_resnest14", "RESNEST.CLASSIFIER.LABEL_SMOOTHING", smoothing
    ).train()
    inputs, seen = images(), {}
    mixer = model.mixers[0]

    def remember(*args):
        seen["images"], seen["targets"] = mixer(*args)
        return seen["images"], seen["targets"]

    model.mixers = [remember]
    torch.manual_seed(3)
    loss = model(inputs)["loss_cls"]

    batch = normalised(inputs, model)
    # The share of the first image, from one pixel; its partner is the image before it.
    share = (seen["images"][1] - batch[0]).sum() / (batch[1] - batch[0]).sum()
    assert 0 < share < 1
    mixed = share * batch + (1 - share) * batch.roll(1, 0)
    torch.testing.assert_close(seen["images"], mixed, rtol=1e-4, atol=1e-4)
    one_hot = F.one_hot(torch.tensor([0, 1, 2, 3]), 7)
    targets = share * one_hot + (1 - share) * one_hot.roll(1, 0)
    targets = (1 - smoothing) * targets + smoothing / 7
    logits = model.logits(seen["images"])
    expected = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_cutmix_and_mixup_take_turns():
    model = classifier("classify_resnest14", "RESNEST.CLASSIFIER.CUTMIX", 1.0).train()
    assert [type(mixer).__name__ for mixer in model.mixers] == ["MixUp", "CutMix"]
    used = []
    for place, mixer in enumerate(list(model.mixers)):
        model.mixers[place] = lambda *args, mixer=mixer: used.append(mixer) or mixer(*args)
    for seed in range(8):
        torch.manual_seed(seed)
        model(images())
    assert len(set(used)) == 2


def test_blocks_begin_as_their_shortcuts():
    model = classifier()
    lasts = [module for name, module in model.named_modules() if name.endswith("conv3.norm")]
    assert len(lasts) == 4 and not any(norm.weight.any() for norm in lasts)
    on = classifier("classify_resnest14", "RESNEST.CLASSIFIER.ZERO_INIT_RESIDUAL", False)
    ones = [module for name, module in on.named_modules() if name.endswith("conv3.norm")]
    assert all(bool((norm.weight == 1).all()) for norm in ones)


def test_evaluation_is_the_same_for_any_batch():
    model = classifier().double().eval()
    inputs = images(3)
    with torch.no_grad():
        together = model(inputs)
        alone = [model([item])[0] for item in inputs]
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first["probabilities"], second["probabilities"])
        torch.testing.assert_close(first["probabilities"].sum(), torch.tensor(1.0).double())
