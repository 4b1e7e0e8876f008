"""Panoptic and keypoint runs, and data sets that do not fit the heads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from panoptic_set import write_panoptic_set
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from runs import TINY

from detectron2.data import MetadataCatalog

from resnest_d2.config import get_config
from resnest_d2.data import register_coco_panoptic, sample_set
from resnest_d2.engine import RunRequest, prepare, run
from resnest_d2.engine.prepare.tasks import check_tasks

CONFIG = "sample_mask_rcnn_resnest14_fpn"
PANOPTIC = (
    *("MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16"),
    *("MODEL.SEM_SEG_HEAD.NORM", "BN", "SOLVER.MAX_ITER", "1"),
)
KEYPOINTS = (
    *("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[16, 16]"),
    *("TEST.KEYPOINT_OKS_SIGMAS", "[0.1, 0.1, 0.1, 0.1]", "RESNEST.CHANNELS_LAST", "False"),
)


def _datasets(train: str, test: str) -> tuple[str, ...]:
    return ("DATASETS.TRAIN", repr((train,)), "DATASETS.TEST", repr((test,)))


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    root = tmp_path_factory.mktemp("panoptic")
    return register_coco_panoptic(**write_panoptic_set(root), sem_seg_root=root / "stuff")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    return sample_set(str(root), image_size=64, train_images=4, val_images=3)


# ---- Panoptic segmentation ----


def test_panoptic_fpn_trains_and_is_evaluated_on_registered_files(panoptic, tmp_path):
    opts = (*TINY, *PANOPTIC, *_datasets(panoptic, panoptic), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3")
    output = tmp_path / "results.json"
    trained = run(
        RunRequest(CONFIG, (*opts, "OUTPUT_DIR", str(tmp_path / "run")), output_json=output)
    )
    assert set(trained) == {"bbox", "segm", "sem_seg", "panoptic_seg"}
    losses, *_, last = map(json.loads, (tmp_path / "run" / "metrics.json").read_text().splitlines())
    assert losses["loss_sem_seg"] > 0 and losses["loss_mask"] > 0
    for task, metric in (("panoptic_seg", "PQ"), ("sem_seg", "mIoU"), ("sem_seg", "pACC")):
        assert last[f"{task}/{metric}"] == pytest.approx(trained[task][metric])
        assert 0 <= trained[task][metric] <= 100
    assert trained["sem_seg"]["pACC"] > 0  # some pixel is right
    assert json.loads(output.read_text())["panoptic_seg"] == trained["panoptic_seg"]

    opts = (*opts, "MODEL.WEIGHTS", str(tmp_path / "run" / "model_final.pth"))
    again = run(RunRequest(CONFIG, (*opts, "OUTPUT_DIR", str(tmp_path / "e")), eval_only=True))
    assert json.dumps(again) == json.dumps(trained)  # as text: NaN equals NaN


def test_panoptic_fpn_trains_and_is_evaluated_on_coco_images(test_data, tmp_path):
    folder = test_data / "coco_panoptic_mini"

    def register(split: str, count: int) -> str:
        files = [
            folder / "annotations" / f"{name}_{split}2017.json"
            for name in ("panoptic", "instances_from_panoptic")
        ]
        few = []
        for path in files:
            content = json.loads(path.read_text())
            ids = sorted(image["id"] for image in content["images"])[:count]
            for section, key in (("images", "id"), ("annotations", "image_id")):
                content[section] = [entry for entry in content[section] if entry[key] in ids]
            few.append(tmp_path / path.name)
            few[-1].write_text(json.dumps(content))
        return register_coco_panoptic(
            few[0],
            folder / "annotations" / f"panoptic_{split}2017",
            few[1],
            folder / "images" / f"{split}2017",
            sem_seg_root=tmp_path / f"stuff_{split}",
        )

    opts = (
        *(*TINY, *PANOPTIC, *_datasets(register("train", 2), register("val", 3))),
        *("MODEL.ROI_HEADS.NUM_CLASSES", "80", "OUTPUT_DIR", str(tmp_path / "run")),
        *("INPUT.MAX_SIZE_TRAIN", "96", "INPUT.MAX_SIZE_TEST", "96"),
    )
    assert get_config(CONFIG, opts).MODEL.SEM_SEG_HEAD.NUM_CLASSES == 54  # Detectron2's own
    results = run(RunRequest(CONFIG, opts))
    for value in (results["panoptic_seg"]["PQ"], results["sem_seg"]["mIoU"]):
        assert 0 <= value <= 100


@pytest.mark.parametrize(
    "opts, message",
    [
        ((), r"MODEL.SEM_SEG_HEAD.NUM_CLASSES must be 3, .*stuff classes of coco_panoptic.*got 54"),
        (
            ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", "MODEL.ROI_HEADS.NUM_CLASSES", "4"),
            "MODEL.ROI_HEADS.NUM_CLASSES must be at least 5",
        ),
    ],
)
def test_class_counts_that_do_not_fit_are_refused(panoptic, tmp_path, opts, message):
    opts = (*TINY, *PANOPTIC, *_datasets(panoptic, panoptic), "OUTPUT_DIR", str(tmp_path), *opts)
    with pytest.raises(ValueError, match=message):
        prepare(RunRequest(CONFIG, opts))


def test_panoptic_fpn_refuses_data_without_semantic_masks(shapes, tmp_path):
    opts = (*TINY, *PANOPTIC, "OUTPUT_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="PanopticFPN needs semantic masks.*register_coco_panopt"):
        prepare(RunRequest(CONFIG, opts, train=(shapes["train"],)))


def test_panoptic_annotations_are_needed_to_be_evaluated_and_not_to_train():
    MetadataCatalog.get("only_stuff").set(stuff_classes=["things", "sky", "grass"])
    cfg = get_config(CONFIG, (*PANOPTIC, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"))
    try:
        check_tasks(cfg, ("only_stuff",), ())
        with pytest.raises(ValueError, match="needs panoptic annotations to be evaluated on"):
            check_tasks(cfg, (), ("only_stuff",))
    finally:
        MetadataCatalog.remove("only_stuff")


# ---- Keypoints ----


def test_keypoints_refuse_channels_last(shapes, tmp_path):
    opts = (*TINY, *KEYPOINTS, "OUTPUT_DIR", str(tmp_path), "RESNEST.CHANNELS_LAST", "True")
    with pytest.raises(ValueError, match="CHANNELS_LAST must be False .*KEYPOINT_ON"):
        prepare(RunRequest(CONFIG, opts, train=(shapes["train"],)))


@pytest.fixture(scope="module")
def keypoint_run(shapes, tmp_path_factory):
    """The folder and the results of a keypoint R-CNN that trained on the corners."""
    folder = tmp_path_factory.mktemp("keypoints")
    opts = (*TINY, *KEYPOINTS, "OUTPUT_DIR", str(folder))
    return folder, run(RunRequest(CONFIG, opts, train=(shapes["train"],), val=(shapes["val"],)))


def test_keypoint_rcnn_trains_and_is_evaluated_on_the_samples_corners(keypoint_run, shapes):
    folder, results = keypoint_run
    assert set(results) == {"bbox", "segm", "keypoints"}
    losses = json.loads((folder / "metrics.json").read_text().splitlines()[0])
    assert losses["loss_keypoint"] > 0
    truth = COCO(shapes["val"][0])
    found = truth.loadRes(str(folder / "inference" / "coco_instances_results.json"))
    evaluation = COCOeval(truth, found, "keypoints")
    cfg = get_config(str(folder / "config.yaml"))
    evaluation.params.kpt_oks_sigmas = np.array(cfg.TEST.KEYPOINT_OKS_SIGMAS)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    for name, value in zip(("AP", "AP50", "AP75"), evaluation.stats, strict=False):
        assert results["keypoints"][name] == pytest.approx(100 * value)
    log = (folder / "log.txt").read_text()
    assert "Evaluation results for keypoints" in log
    weights = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    assert weights["roi_heads.keypoint_head.score_lowres.weight"].shape[1] == 4


def test_evaluation_of_keypoints_needs_no_training_data(keypoint_run, shapes, tmp_path):
    folder, results = keypoint_run
    opts = ("MODEL.WEIGHTS", str(folder / "model_final.pth"), "OUTPUT_DIR", str(tmp_path))
    config = get_config(folder / "config.yaml")
    config.DATASETS.TRAIN = ("a_set_of_another_process",)
    (tmp_path / "config.yaml").write_text(config.dump())
    request = RunRequest(str(tmp_path / "config.yaml"), opts, val=(shapes["val"],), eval_only=True)
    assert json.dumps(run(request)) == json.dumps(results)


def test_number_of_keypoints_comes_from_own_data_and_is_logged(shapes, tmp_path, caplog):
    request = RunRequest(
        CONFIG, (*TINY, *KEYPOINTS, "OUTPUT_DIR", str(tmp_path)), train=(shapes["train"],)
    )
    with caplog.at_level("INFO", logger="resnest_d2"):
        assert prepare(request).cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 4
    assert "ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is now 4, the number of keypoints" in caplog.text


def test_keypoints_without_their_sigmas_are_refused(shapes, tmp_path):
    opts = (*TINY, *KEYPOINTS, "OUTPUT_DIR", str(tmp_path), "TEST.KEYPOINT_OKS_SIGMAS")
    pairs = {"train": (shapes["train"],), "val": (shapes["val"],)}
    with pytest.raises(ValueError, match="OKS_SIGMAS must have 4 values.*17 of a COCO person"):
        prepare(RunRequest(CONFIG, (*opts, "[]"), **pairs))
    with pytest.raises(ValueError, match="OKS_SIGMAS must have 4 values.*Got 3"):
        prepare(RunRequest(CONFIG, (*opts, "[0.1, 0.1, 0.1]"), **pairs))
    prepare(RunRequest(CONFIG, (*opts, "[]"), train=pairs["train"]))  # nothing is evaluated


def _without(content, key):
    del content["annotations"][0][key]


def _other_keypoints(content):
    for category in content["categories"]:
        category["keypoints"] = ["a", "b", "c", "d"]


def _differently_named(content):
    content["categories"][0]["keypoints"] = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: _without(c, "keypoints"), "annotation 1: missing-keypoints: None"),
        (
            lambda c: c["annotations"][0]["keypoints"].pop(),
            "annotation 1: keypoints-length: values 11, expected 12",
        ),
        (_other_keypoints, "the keypoints of .*own.json and .* differ: .*'a'.*'top_left'"),
    ],
)
def test_files_without_usable_keypoints_are_refused(shapes, tmp_path, change, message):
    content = json.loads(Path(shapes["train"][0]).read_text())
    change(content)
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    request = RunRequest(
        CONFIG,
        (*TINY, *KEYPOINTS, "OUTPUT_DIR", str(tmp_path)),
        train=((str(own), shapes["train"][1]),),
        val=(shapes["val"],),
    )
    with pytest.raises(ValueError, match=message):
        prepare(request)


def test_categories_with_other_keypoints_or_another_number_are_refused(shapes, tmp_path):
    opts = (*TINY, *KEYPOINTS, "OUTPUT_DIR", str(tmp_path))
    content = json.loads(Path(shapes["train"][0]).read_text())
    _differently_named(content)
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="KEYPOINT_ON is True, and data set coco_own_.* names no"):
        prepare(RunRequest(CONFIG, opts, train=((str(own), shapes["train"][1]),)))

    registered = prepare(RunRequest(CONFIG, opts, train=(shapes["train"],))).cfg.DATASETS.TRAIN
    with pytest.raises(ValueError, match="NUM_KEYPOINTS must be 4, .*got 17"):
        prepare(RunRequest(CONFIG, (*opts, "DATASETS.TRAIN", repr(registered))))
