"""The recipes for classification have the published values, key by key."""

import pytest

from resnest_d2.config import get_config, list_configs
from resnest_d2.model_zoo import CLASSIFIERS, MODELS
from resnest_d2.modeling import VARIANTS

RECIPES = [name for name in list_configs() if name.startswith("classify_")]


@pytest.fixture
def published(facts):
    return facts("classification")


def test_there_is_a_recipe_for_each_published_network():
    steps = {"resnet50", "resnet50_d", "resnet50_d_mixup", "resnet50_d_autoaugment"}
    assert set(RECIPES) == {f"classify_{name}" for name in (*VARIANTS, *steps)}


@pytest.mark.parametrize("name", RECIPES)
def test_schedule_and_step(name, published):
    cfg, known = get_config(name), published["recipe"]
    solver, epochs = cfg.SOLVER, cfg.RESNEST.EPOCHS
    assert (epochs.MAX, epochs.WARMUP) == (known["epochs"], known["warmup_epochs"])
    assert (solver.LR_SCHEDULER_NAME, solver.BASE_LR_END) == ("WarmupCosineLR", 0)
    assert (solver.WARMUP_FACTOR, solver.RESCALE_INTERVAL) == (0, True)
    assert (solver.OPTIMIZER, solver.MOMENTUM, solver.NESTEROV) == ("SGD", 0.9, False)
    assert solver.WEIGHT_DECAY == 1e-4
    assert solver.WEIGHT_DECAY_NORM == solver.WEIGHT_DECAY_BIAS == 0
    assert solver.BASE_LR / solver.IMS_PER_BATCH == pytest.approx(0.1 / 256)
    assert (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) == (
        "imagenet_2012_train",
        "imagenet_2012_val",
    )


@pytest.mark.parametrize("name", RECIPES)
def test_images_and_loss(name, published):
    cfg, known = get_config(name), published["recipe"]
    keys, ablated = cfg.RESNEST.CLASSIFIER, "resnet50_d" in name
    assert keys.LABEL_SMOOTHING == known["label_smoothing"]
    assert keys.MIXUP == (0 if name.endswith("50_d") else known["mixup_alpha"])
    assert keys.CUTMIX == keys.DROPOUT == keys.ERASING == 0
    assert keys.ZERO_INIT_RESIDUAL and keys.NUM_CLASSES == 1000
    policy = ("autoaugment" if "autoaugment" in name else "") if ablated else "randaugment"
    assert keys.POLICY == policy
    assert tuple(keys.RANDAUGMENT) == (2, 12) and tuple(keys.CROP_AREA) == (0.1, 1.0)
    assert (keys.COLOR_JITTER, keys.LIGHTING, keys.TEST_MARGIN) == (0.4, 0.1, 32)
    assert cfg.INPUT.RANDOM_FLIP == "horizontal"
    depth = str(cfg.MODEL.RESNETS.DEPTH)
    assert keys.TRAIN_SIZE == known["train_crop"].get(depth, 224)
    network = CLASSIFIERS.get(name.removeprefix("classify_"))
    assert keys.TEST_SIZE == (network.crop if network else 224)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_network_is_the_variant(name):
    resnets = get_config(f"classify_{name}").MODEL.RESNETS
    for argument, value in VARIANTS[name].items():
        assert resnets[argument.upper()] == value
    assert (resnets.AVD, resnets.DEEP_STEM, resnets.AVG_DOWN) == (True, True, True)


def test_published_accuracies_are_the_known_ones(published):
    for name, top1 in published["published_top1"].items():
        assert MODELS[f"classify_{name}"].expected_results == [
            ["classification", "top1", top1, 0.2]
        ]
    steps = published["ablation_breakdown_top1 (paper, ResNet-D-50 at 224)"]
    for step, name in (
        ("ResNet-50-D", ""),
        ("+ mixup", "_mixup"),
        ("+ AutoAugment", "_autoaugment"),
    ):
        assert MODELS[f"classify_resnet50_d{name}"].published.top1 == steps[step]
