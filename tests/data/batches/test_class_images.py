"""Images of classifiers: the published centre crop, the random ones in training."""

import numpy as np
import pytest
import torch
from PIL import Image

from resnest_d2 import get_config
from resnest_d2.data.batches.class_images import (
    CentreCrop,
    ClassMapper,
    Lighting,
    check_classifier,
)
from resnest_d2.data.batches.randomness import EXAMPLE, seed_generators


def config(*opts):
    small = ("RESNEST.CLASSIFIER.TRAIN_SIZE", "24", "RESNEST.CLASSIFIER.TEST_SIZE", "32")
    return get_config("classify_resnest50", [*small, *map(str, opts)])


@pytest.fixture
def record(tmp_path):
    file = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return {"file_name": str(file), "image_id": "image", "label": 1}


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64), (500, 375), (7, 300), (1, 1)])
@pytest.mark.parametrize("margin", [32, 0, 8])
def test_the_centre_crop_is_the_published_one(size, margin):
    """Its side is S / (S + margin) of the short side; corners are rounded as Pillow rounds."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    image = Image.fromarray(np.stack([rows % 256, columns % 256, rows * 0], 2).astype(np.uint8))
    found = CentreCrop(config("RESNEST.CLASSIFIER.TEST_MARGIN", margin))(image)
    assert found.shape == (3, 32, 32) and found.dtype == torch.uint8
    side = max(1, 32 / (32 + margin) * min(size))
    left, top = (int(round((length - side) / 2.0)) for length in size)
    expected = image.crop((left, top, left + side, top + side)).resize((32, 32), 2)
    np.testing.assert_array_equal(found.numpy(), np.asarray(expected).transpose(2, 0, 1))


def test_a_training_image_depends_on_its_seed_alone(record):
    mapper = ClassMapper(config(), is_train=True)

    def image(position: int) -> torch.Tensor:
        seed_generators(1, EXAMPLE, position)
        return mapper(record)["image"]

    assert image(0).shape == (3, 24, 24)
    torch.testing.assert_close(image(3), image(3), rtol=0, atol=0)
    assert not torch.equal(image(3), image(4))


@pytest.mark.parametrize("is_train", [True, False])
def test_bgr_is_rgb_reversed(is_train, record):
    opts = ("RESNEST.CLASSIFIER.ERASING", 1.0)  # its colour is given in the order of the input
    rgb, bgr = (
        ClassMapper(config("INPUT.FORMAT", order, "MODEL.PIXEL_MEAN", mean, *opts), is_train)
        for order, mean in (("RGB", [1.0, 2.0, 3.0]), ("BGR", [3.0, 2.0, 1.0]))
    )
    found = []
    for mapper in (rgb, bgr):
        seed_generators(1, EXAMPLE, 1)
        found.append(mapper(record)["image"])
    torch.testing.assert_close(found[0], found[1].flip(0), rtol=0, atol=0)


@pytest.mark.parametrize("policy", ["", "randaugment", "autoaugment", "trivialaugment"])
def test_policies_give_images_of_the_size(policy, record):
    opts = ("RESNEST.CLASSIFIER.POLICY", policy or "''", "RESNEST.CLASSIFIER.ERASING", 0.5)
    mapper = ClassMapper(config(*opts), is_train=True)
    for position in range(8):
        seed_generators(0, EXAMPLE, position)
        example = mapper(record)
        assert example["image"].shape == (3, 24, 24) and example["image"].isfinite().all()
        assert (example["label"], example["height"], example["width"]) == (1, 60, 90)


def test_lighting_adds_a_colour_along_the_principal_components():
    values = np.array([0.2175, 0.0188, 0.0045])
    colours = []
    torch.manual_seed(0)
    for _ in range(4000):
        added = Lighting(0.1)(torch.zeros(3, 2, 2))
        assert (added == added[:, :1, :1]).all()
        colours.append(added[:, 0, 0].numpy() / 255)
    covariance = np.cov(np.array(colours).T)
    found = np.sqrt(np.sort(np.linalg.eigvalsh(covariance))[::-1])
    np.testing.assert_allclose(found, 0.1 * values, rtol=0.1)
    first = np.linalg.eigh(covariance)[1][:, -1]  # nearly grey
    np.testing.assert_allclose(np.abs(first), [0.5675, 0.5808, 0.5836], atol=0.02)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NUM_CLASSES", 0),
        ("DROPOUT", 1.0),
        ("LABEL_SMOOTHING", 1.5),
        ("MIXUP", -1.0),
        ("CUTMIX", -1.0),
        ("TRAIN_SIZE", 0),
        ("TEST_SIZE", 0),
        ("TEST_MARGIN", -1),
        ("CROP_AREA", (0.5, 0.1)),
        ("POLICY", "rand"),
        ("RANDAUGMENT", (2, 31)),
        ("COLOR_JITTER", -0.1),
        ("LIGHTING", -0.1),
        ("ERASING", 2.0),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(key, value):
    with pytest.raises(ValueError, match=f"RESNEST.CLASSIFIER.{key} must be"):
        check_classifier(config(f"RESNEST.CLASSIFIER.{key}", value))
