"""``--verify``: an evaluation against the catalog. The evaluation itself is a stub."""

import json

import pytest

from resnest_d2.config import get_config_file
from resnest_d2.engine import RunRequest, prepare, work
from resnest_d2.engine.prepare import plan
from resnest_d2.model_zoo import MODELS
from resnest_d2_command import main

NAME = "mask_rcnn_resnest50_fpn"
VERIFY = ["train", "--eval-only", "--verify", "--config-file", NAME]


@pytest.fixture
def evaluation(monkeypatch):
    """``evaluation(box_ap, mask_ap)``: what evaluating will give."""
    monkeypatch.setattr(plan, "check_files", lambda cfg, request, trained: None)

    def give(box_ap: float, mask_ap: float) -> None:
        results = {"bbox": {"AP": box_ap}, "segm": {"AP": mask_ap}}
        monkeypatch.setattr(work, "_evaluate", lambda plan: results)

    return give


@pytest.mark.parametrize("difference", [0.0, 0.19, -0.19])
def test_a_result_near_the_published_one_passes(difference, evaluation):
    published = MODELS[NAME].published
    evaluation(published.box_ap + difference, published.mask_ap - difference)
    assert main(VERIFY) == 0


@pytest.mark.parametrize(
    ("box", "mask"), [(0.21, 0), (-0.21, 0), (0, 0.21), (0, -0.21), (float("nan"), 0)]
)
def test_another_result_exits_with_1_and_is_kept(box, mask, evaluation, tmp_path):
    published = MODELS[NAME].published
    evaluation(published.box_ap + box, published.mask_ap + mask)
    output = tmp_path / "result.json"
    with pytest.raises(SystemExit) as caught:
        main([*VERIFY, "--output-json", str(output)])
    assert caught.value.code == 1
    assert set(json.loads(output.read_text())) == {"bbox", "segm"}
    main([argument for argument in VERIFY if argument != "--verify"])  # not asked: not compared


def test_every_published_value_is_compared(evaluation):
    for name in (NAME, "faster_rcnn_resnet50_fpn", "panoptic_fpn_resnest200_3x"):
        cfg = prepare(RunRequest(config=name, eval_only=True, verify=True)).cfg
        published = MODELS[name].published
        compared = {(task, metric): value for task, metric, value, _ in cfg.TEST.EXPECTED_RESULTS}
        expected = {
            ("bbox", "AP"): published.box_ap,
            ("segm", "AP"): published.mask_ap,
            ("panoptic_seg", "PQ"): published.pq,
        }
        assert compared == {key: value for key, value in expected.items() if value is not None}


def test_the_originals_name_and_the_files_path_mean_the_recipe(evaluation):
    published = MODELS[NAME].published
    evaluation(published.box_ap - 1, published.mask_ap)
    file = get_config_file(NAME)
    for config in ("mask_rcnn_ResNeSt_50_FPN_syncBN_1x", f"{NAME}.yaml", str(file)):
        with pytest.raises(SystemExit):
            main(["train", "--eval-only", "--verify", "--config-file", config])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--verify", "--config-file", NAME], "--eval-only"),
        ([*VERIFY[:-1], "mask_rcnn_resnest269_fpn"], "no AP was published"),
        ([*VERIFY[:-1], "sample_mask_rcnn_resnest14_fpn"], "recipe of the catalog"),
        ([*VERIFY, "DATASETS.TEST", "('coco_2017_train',)"], "coco_2017_val"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, message, evaluation, capsys):
    evaluation(0, 0)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_own_data_is_refused(evaluation, capsys):
    evaluation(0, 0)
    for split in ("train", "val"):
        own = [f"--{split}-json", "own.json", f"--{split}-images", "own"]
        assert main(VERIFY + own) == 2
        assert "--val-json" in capsys.readouterr().err


def test_a_file_of_the_users_is_not_the_recipe_of_its_name(evaluation, tmp_path, capsys):
    evaluation(0, 0)
    own = tmp_path / f"{NAME}.yaml"
    own.write_text(f"_BASE_: {get_config_file(NAME)}\nSEED: 1\n")
    assert main([*VERIFY[:-1], str(own)]) == 2
    assert "recipe of the catalog" in capsys.readouterr().err
