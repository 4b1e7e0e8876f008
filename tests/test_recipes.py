"""Every packaged recipe is built, and trains a step; what no config key can tell is shown here."""

import json
import re
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from class_sets import ITERATIONS, write_class_set
from label_sets import write_label_set
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm

from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.modeling import build_model
from detectron2.structures import BoxMode

from resnest_d2.config import get_config, list_configs
from resnest_d2.data import build_train_mapper, register_coco, sample_set
from resnest_d2.engine import RunRequest, Trainer, prepare

RECIPES = list_configs()

# The depth, the parts and the norms of a recipe, at the smallest widths and sizes.
TINY = (
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "RESNEST.ALLOW_FROZEN_RANDOM", "True"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.STEM_WIDTH", "4"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16"),
    *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "16"),
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(16,)"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "50", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16"),
    *("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "4", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6"),
    *("INPUT.MIN_SIZE_TRAIN", "(64, 64)", "INPUT.MAX_SIZE_TRAIN", "64"),
    *("DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "1"),
    *("TEST.PRECISE_BN.ENABLED", "False", "RESNEST.FREEZE_NORM.ITER", "0", "SEED", "3"),
)
SIMILAR = re.compile(r"_pcontext|classify_resnest(101|200|269)|classify_.*_(1s|2s2|4s2)")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=4, val_images=1
    )


@pytest.fixture(scope="module")
def panoptic(data, tmp_path_factory):
    """A data set: the sample set, with a sixth class for the ground, for the semantic head."""
    json_file, image_root = data["train"]
    folder = tmp_path_factory.mktemp("sem_seg")
    content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    for image in content["images"]:
        classes = np.full((image["height"], image["width"]), 5, dtype=np.uint8)
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"]:
                mask = mask_util.decode(annotation["segmentation"])
                classes[mask > 0] = annotation["category_id"] - 1
        Image.fromarray(classes).save(folder / image["file_name"])
    plain = register_coco(json_file, image_root)

    def load():
        dicts = load_coco_json(json_file, image_root, plain)
        for record in dicts:
            record["sem_seg_file_name"] = str(folder / Path(record["file_name"]).name)
        return dicts

    name = "test_recipes_panoptic"
    DatasetCatalog.register(name, load)
    things = MetadataCatalog.get(plain).thing_classes
    MetadataCatalog.get(name).set(thing_classes=things, stuff_classes=[*things, "ground"])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory):
    return write_label_set(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory):
    return write_class_set(tmp_path_factory.mktemp("classes"), train=2, val=1)


@pytest.fixture
def tiny(data, request, tmp_path):
    """``tiny(recipe, *opts)``: a recipe's frozen config at the smallest size, on drawn shapes."""

    def build(name: str, *opts):
        train, classes = (data["train"],), None
        if get_config(name).MODEL.META_ARCHITECTURE == "SemanticSegmentor":
            labels = request.getfixturevalue("label_maps")
            train, classes = (labels["train"],), str(labels["classes"])
            opts = ("RESNEST.JITTER.CROP", "48", *opts)
        if name.startswith("panoptic"):
            names = str((request.getfixturevalue("panoptic"),))
            own = ("DATASETS.TRAIN", names, "DATASETS.TEST", "()", "INPUT.MASK_FORMAT", "bitmask")
            opts, train = (*own, "MODEL.ROI_HEADS.NUM_CLASSES", "5", *opts), ()
            opts = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6", *opts)
        if get_config(name).RESNEST.JITTER.SIZE:
            opts = ("RESNEST.JITTER.SIZE", "64", *opts)
        if name.startswith("classify_"):
            train = (("", request.getfixturevalue("class_folders")["train"]),)
            opts = (*ITERATIONS, "SOLVER.WARMUP_ITERS", "0", *opts)
            opts = ("RESNEST.CLASSIFIER.TRAIN_SIZE", "64", *opts)
        opts = (*TINY, "OUTPUT_DIR", str(tmp_path / "run"), *opts)
        return prepare(RunRequest(name, opts, train=train, classes=classes)).cfg

    return build


def on_meta(name: str, *opts):
    with torch.device("meta"):  # no memory, no time
        return build_model(get_config(name, ["MODEL.DEVICE", "meta", *opts]))


# ---- every recipe ----


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds(name):
    model = on_meta(name)
    assert all(parameter.is_meta for parameter in model.parameters())
    network = getattr(model.backbone, "bottom_up", model.backbone)
    blocks = [len(stage) for stage in network.stages]
    depth = get_config(name).MODEL.RESNETS.DEPTH
    assert sum(blocks) == (depth - 2) // 3


def test_the_originals_sizes_are_ours(facts):
    sizes = facts("results")["checkpoint_model_sizes_on_HEAD"]
    assert len(sizes) == 10
    for original, published in sizes.items():
        model = on_meta(original)
        counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
        bottom_up = model.backbone.bottom_up
        assert published == {
            "total_params": sum(count for count, _ in counts),
            "trainable": sum(count for count, trains in counts if trains),
            "backbone_bottom_up": sum(p.numel() for p in bottom_up.parameters()),
            "n_keys": len(model.state_dict()),
        }, original


@pytest.mark.parametrize(
    "name",
    [
        # of the semantic ones and the classifiers, those that differ in more than depth and data
        pytest.param(name, marks=pytest.mark.slow if SIMILAR.search(name) else [])
        for name in RECIPES
    ],
)
def test_recipe_trains_a_step(name, tiny):
    cfg = tiny(name)
    trainer = Trainer(cfg)
    trainer.train()

    losses = {key for key in trainer.storage.latest() if key.startswith("loss_")}
    expected = {"loss_rpn_cls", "loss_rpn_loc"}
    stages = [f"_stage{k}" for k in range(3)] if "Cascade" in cfg.MODEL.ROI_HEADS.NAME else [""]
    expected |= {f"loss_{part}{stage}" for part in ("cls", "box_reg") for stage in stages}
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        expected = {"loss_cls", "loss_box_reg"}
    expected |= {"loss_mask"} if cfg.MODEL.MASK_ON else set()
    expected |= {"loss_keypoint"} if cfg.MODEL.KEYPOINT_ON else set()
    expected |= {"loss_sem_seg"} if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN" else set()
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        expected = {"loss_sem_seg", "loss_sem_seg_aux"}
        if not cfg.MODEL.SEM_SEG_HEAD.NAME.startswith("ResNeSt"):
            expected = set()  # Detectron2 logs a single loss as total_loss alone
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        expected = set()
    assert losses == expected
    assert np.isfinite(trainer.storage.latest()["total_loss"][0])

    assert_everything_learns(trainer.model)


def assert_everything_learns(model) -> None:
    """Every trainable parameter has a finite gradient, every part a gradient other than 0."""
    trainable = {key: p.grad for key, p in model.named_parameters() if p.requires_grad}
    assert trainable
    for key, gradient in trainable.items():
        assert gradient is not None and gradient.isfinite().all(), key

    def parts(keys) -> set:
        return {".".join(key.split(".")[:2]) for key in keys}

    assert parts(key for key, gradient in trainable.items() if gradient.any()) == parts(trainable)


# ---- fine-tuning ----


def test_fine_tuning_trains_with_one_image_a_worker(tiny):
    one = ("SOLVER.IMS_PER_BATCH", "1", "SOLVER.MAX_ITER", "3")
    with pytest.raises(ValueError, match="SOLVER.IMS_PER_BATCH"):  # what the others say to it
        tiny("mask_rcnn_resnest50_fpn", *one)
    trainer = Trainer(tiny("finetune_mask_rcnn_resnest50_fpn", *one))
    assert not any(isinstance(module, _BatchNorm) for module in trainer.model.modules())
    trainer.train()
    assert trainer.iter == 3
    assert_everything_learns(trainer.model)


def test_fine_tuning_takes_the_weights_of_the_recipe_that_it_starts_from():
    whole, tuned = (on_meta(f"{head}mask_rcnn_resnest50_fpn") for head in ("", "finetune_"))
    shapes = {key: value.shape for key, value in whole.state_dict().items()}
    assert {key: value.shape for key, value in tuned.state_dict().items()} == {
        key: shape for key, shape in shapes.items() if "num_batches_tracked" not in key
    }
    assert get_config("finetune_mask_rcnn_resnest50_fpn").MODEL.WEIGHTS == (
        "resnest://mask_rcnn_resnest50_fpn"
    )


# ---- large-scale jitter ----


@pytest.fixture
def jittered(tiny):
    """``jittered(low, high)``: examples of the jitter recipe at 64 pixels with these scales."""

    def build(low: float, high: float):
        scale = ("RESNEST.JITTER.SCALE", f"({low}, {high})")
        cfg = tiny("mask_rcnn_resnest50_fpn_lsj", *scale)
        mapper = build_train_mapper(cfg)
        return [mapper(record) for record in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])]

    return build


@pytest.mark.parametrize(("low", "high"), [(0.25, 0.5), (1.0, 1.0), (1.5, 2.0)])
def test_jitter_keeps_to_its_square_and_boxes_as_tight_as_masks(jittered, low, high):
    areas = []
    for example in jittered(low, high):
        height, width = example["image"].shape[1:]
        assert height == width and min(64 * low, 64) <= height <= min(64 * high, 64)
        instances = example["instances"]
        assert instances.image_size == (height, width)
        masks = instances.gt_masks.tensor
        for mask, (x0, y0, x1, y1) in zip(masks, instances.gt_boxes.tensor.tolist(), strict=True):
            rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
            assert [x0, y0] == [columns[0], rows[0]]
            assert [x1, y1] == [columns[-1] + 1, rows[-1] + 1]
        areas += masks.sum(dim=(1, 2)).tolist()
    assert areas


def test_jitter_changes_areas_by_its_scale_squared(jittered):
    def total(scale: float) -> float:
        return sum(e["instances"].gt_masks.tensor.sum().item() for e in jittered(scale, scale))

    assert total(0.5) / total(1.0) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    "name", ["mask_rcnn_resnest50_fpn_lsj", "cascade_mask_rcnn_resnest200_fpn_3x"]
)
def test_recipes_that_crop_take_coco_polygons(name, tiny, data):
    cfg = tiny(name, "INPUT.MASK_FORMAT", "polygon").clone()
    cfg.defrost()
    cfg.INPUT.MASK_FORMAT = "polygon"  # the drawn shapes' own is not
    mapper = build_train_mapper(cfg)
    record = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]
    triangle = {"segmentation": [[2.0, 2.0, 62.0, 2.0, 2.0, 62.0]], "bbox": [2.0, 2.0, 60.0, 60.0]}
    triangle |= {"bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    cropped = 0
    for seed in range(10):
        np.random.seed(seed)
        instances = mapper({**record, "annotations": [triangle]})["instances"]
        assert len(instances) == 1
        height, width = instances.image_size
        (polygon,) = instances.gt_masks.polygons[0]
        x, y = polygon[0::2], polygon[1::2]
        assert min(x.min(), y.min()) >= 0
        assert x.max() <= width + 1e-6 and y.max() <= height + 1e-6
        tight = [x.min(), y.min(), x.max(), y.max()]
        np.testing.assert_allclose(instances.gt_boxes.tensor[0].numpy(), tight, atol=1e-4)
        cropped += len(x) > 3  # a corner was cut off
    assert cropped


def test_without_jitter_the_mapper_is_detectron2s_own(tiny):
    cfg = tiny("mask_rcnn_resnest50_fpn")
    record = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]
    examples = []
    for mapper in (build_train_mapper(cfg), DatasetMapper(cfg, True)):
        np.random.seed(1)
        examples.append(mapper(record))
    ours, theirs = examples
    assert torch.equal(ours["image"], theirs["image"])
    assert torch.equal(ours["instances"].gt_masks.tensor, theirs["instances"].gt_masks.tensor)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("RESNEST.JITTER.SIZE", "-1"), "RESNEST.JITTER.SIZE must be at least 0, got -1"),
        (("RESNEST.JITTER.SCALE", "(2.0, 0.1)"), r"RESNEST.JITTER.SCALE must be .*\(2.0, 0.1\)"),
        (("RESNEST.JITTER.SCALE", "(0.0, 2.0)"), "RESNEST.JITTER.SCALE must be 0 < lowest"),
        (("INPUT.CROP.ENABLED", "True"), "INPUT.CROP.ENABLED must be False"),
    ],
)
def test_jitter_that_cannot_be_is_refused_by_its_key(tiny, opts, message):
    with pytest.raises(ValueError, match=message):
        tiny("mask_rcnn_resnest50_fpn_lsj", *opts)


def test_a_range_of_sizes_needs_two_values(tiny):
    sizes = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range")
    with pytest.raises(ValueError, match=r"INPUT.MIN_SIZE_TRAIN must be two values.*\(64,\)"):
        tiny("mask_rcnn_resnest50_fpn", *sizes)


# ---- real widths ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cascade_mask_rcnn_resnest50_fpn", "faster_rcnn_resnest50_dcn_fpn"]
)
def test_recipe_trains_a_step_at_its_real_width(name, tiny):
    real = get_config(name)
    opts = []
    for key in TINY[::2]:
        if key.startswith("MODEL.") and key not in ("MODEL.DEVICE", "MODEL.WEIGHTS"):
            value = real
            for part in key.split("."):
                value = value[part]
            opts += [key, str(value)]
    trainer = Trainer(tiny(name, *opts))
    assert trainer.model.backbone.output_shape()["p2"].channels == 256
    trainer.train()
    assert_everything_learns(trainer.model)
