"""Runs from a request to metrics: training, evaluation, refusals, processes."""

import json
import math
import shutil
from functools import partial

import pytest
import torch
from processes import run_in_processes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from runs import tiny_request
from torch import nn

from detectron2.data import DatasetCatalog
from detectron2.data import detection_utils as utils
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.events import EventStorage, JSONWriter

from resnest_d2.checkpoint import RECORD_KEY, RunCheckpointer
from resnest_d2.checkpoint.statistics import MSRA
from resnest_d2.config import get_config
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, Trainer, prepare, run
from resnest_d2.engine.prepare import config_checks
from resnest_d2.model_zoo import WEIGHTS, WeightFile
from resnest_d2.modeling.norm import PortableSyncBatchNorm


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=6, val_images=3
    )


@pytest.fixture(scope="module")
def request_for(data):
    return partial(tiny_request, data)


@pytest.fixture(scope="module")
def trained(request_for, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    results = run(request_for(folder, output_json=str(folder / "results.json")))
    return folder, results


def test_training_evaluates_and_writes_the_metrics(trained, data):
    folder, results = trained
    assert set(results) == {"bbox", "segm"}
    written = json.loads((folder / "results.json").read_text())
    assert written == json.loads(json.dumps(results).replace("NaN", "null"))
    *_, last = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    truth = COCO(data["val"][0])
    found = truth.loadRes(str(folder / "inference" / "coco_instances_results.json"))
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    for task in ("bbox", "segm"):
        evaluation = COCOeval(truth, found, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        for name, value in zip(names, evaluation.stats, strict=True):
            expected = 100 * value if value >= 0 else math.nan  # -1: there is no such object
            assert results[task][name] == pytest.approx(expected, nan_ok=True), (task, name)
            assert last[f"{task}/{name}"] == pytest.approx(expected, nan_ok=True), (task, name)


def test_metrics_of_a_training_are_those_of_what_it_detects(request_for, tmp_path, monkeypatch):
    """Two steps teach nothing: the objects themselves are detected, one box in three moved."""
    request = request_for(tmp_path / "run")
    records = {r["image_id"]: r for r in DatasetCatalog.get(prepare(request).cfg.DATASETS.TEST[0])}

    def detect(self, inputs, *_, **__):
        outputs = []
        for item in inputs:
            record = records[item["image_id"]]
            height, width = record["height"], record["width"]
            annotations = [
                {
                    "category_id": a["category_id"],
                    "segmentation": a["segmentation"],
                    "bbox": BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS),
                    "bbox_mode": BoxMode.XYXY_ABS,
                }
                for a in record["annotations"]
            ]
            objects = utils.annotations_to_instances(
                annotations, (height, width), mask_format="bitmask"
            )
            boxes, masks = objects.gt_boxes.tensor, objects.gt_masks.tensor
            boxes[::3] += 3
            masks[::3] = masks[::3].roll(3, dims=-1)
            found = {"pred_boxes": Boxes(boxes), "pred_masks": masks}
            found |= {"pred_classes": objects.gt_classes, "scores": torch.ones(len(boxes))}
            outputs.append({"instances": Instances((height, width), **found)})
        return outputs

    monkeypatch.setattr(GeneralizedRCNN, "inference", detect)
    results = run(request)
    *_, last = map(json.loads, (tmp_path / "run" / "metrics.json").read_text().splitlines())
    truth = COCO(request.val[0][0])
    found = truth.loadRes(str(tmp_path / "run" / "inference" / "coco_instances_results.json"))
    for task in ("bbox", "segm"):
        evaluation = COCOeval(truth, found, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        for name, value in (("AP", evaluation.stats[0]), ("AR100", evaluation.stats[8])):
            assert 0.1 < value < 0.95
            assert results[task][name] == pytest.approx(100 * value), (task, name)
            assert last[f"{task}/{name}"] == pytest.approx(100 * value), (task, name)


def test_metrics_are_smoothed_as_detectron2s_own_writer_smooths_them(request_for, tmp_path):
    """The losses of the last 20 iterations, by their median."""
    trainer = Trainer(prepare(request_for(tmp_path / "run")).cfg)
    with EventStorage() as storage:
        for number in range(25):
            storage.put_scalar("total_loss", float(number**2))
            storage.put_scalar("bbox/AP", float(number**2), smoothing_hint=False)
            storage.step()
        for writer in (*trainer.build_writers()[1:], JSONWriter(tmp_path / "stock.json")):
            writer.write()
            writer.close()
    lines = (tmp_path / "run" / "metrics.json").read_text()
    assert json.loads(lines)["total_loss"] == (14**2 + 15**2) / 2  # of 5 … 24
    assert json.loads(lines)["bbox/AP"] == 24**2
    assert lines == (tmp_path / "stock.json").read_text()


def test_checkpoint_carries_config_and_class_names_as_plain_types(trained):
    folder, _ = trained
    checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
    record = checkpoint[RECORD_KEY]
    assert record["class_names"] == ["circle", "square", "triangle", "star", "ring"]
    assert "build_resnest_fpn_backbone" in record["config"]
    assert checkpoint["iteration"] == 1


def test_eval_only_repeats_the_numbers_and_leaves_the_run_alone(trained, request_for):
    folder, results = trained
    before = (folder / "config.yaml").read_bytes()
    again = run(
        request_for(folder, "MODEL.WEIGHTS", str(folder / "model_final.pth"), eval_only=True)
    )
    assert json.dumps(again) == json.dumps(results)  # as text: NaN equals NaN
    assert (folder / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("norm", ["SyncBN", "FrozenBN"])
def test_recomputed_norms_train_the_same_weights(norm, request_for, tmp_path):
    saved = []
    for recompute in ("False", "True"):
        opts = ("RESNEST.RECOMPUTE_NORM", recompute, "MODEL.RESNETS.NORM", norm)
        folder = tmp_path / recompute
        run(request_for(folder, *opts, val=()))
        saved.append(torch.load(folder / "model_final.pth", weights_only=True)["model"])
    torch.testing.assert_close(saved[1], saved[0], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_compiled_backbone_trains_like_the_plain_one_and_resumes(processes, request_for, tmp_path):
    more = ("RESNEST.ACTIVATION_CHECKPOINTING", "('res3',)", "RESNEST.RECOMPUTE_NORM", "True")
    opts = (*more, "MODEL.RESNETS.NORM", "SyncBN")
    opts += ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "0.01")
    opts += ("SOLVER.MAX_ITER", "3", "SOLVER.CHECKPOINT_PERIOD", "1")
    begun = tmp_path / "resumed"
    begun.mkdir()
    saved = {}
    for name, compiled in (("plain", "False"), ("compiled", "True"), ("resumed", "True")):
        choice = ("RESNEST.COMPILE_BACKBONE", compiled)
        asked = request_for(
            tmp_path / name, *opts, *choice, val=(), resume=True, num_processes=processes
        )
        run(asked)
        saved[name] = torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        if name == "compiled":
            shutil.copy(tmp_path / name / "model_0000000.pth", begun)
            (begun / "last_checkpoint").write_text("model_0000000.pth")
    assert (begun / "log.txt").read_text().count("Resuming at iteration 1") == 1
    torch.testing.assert_close(saved["compiled"], saved["plain"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(saved["resumed"], saved["compiled"], rtol=0, atol=0)


@pytest.mark.slow
def test_optimised_evaluation_gives_the_numbers_of_the_model(trained, request_for, monkeypatch):
    monkeypatch.setattr(
        "resnest_d2.inference.optimize.has_fast_bfloat16", lambda device_type: False
    )
    folder, results = trained
    weights = ("MODEL.WEIGHTS", str(folder / "model_final.pth"))
    again = run(request_for(folder, *weights, eval_only=True, optimize=True))
    assert "compiled the backbone" in (folder / "inference" / "log.txt").read_text()
    for task in ("bbox", "segm"):
        assert again[task]["AP"] == pytest.approx(results[task]["AP"], abs=0.01)


def test_optimising_is_for_evaluation(request_for, tmp_path):
    with pytest.raises(ValueError, match="--optimize .*--eval-only"):
        request_for(tmp_path, optimize=True)


def test_resume_goes_on_where_the_run_stopped(request_for, tmp_path):
    run(request_for(tmp_path))
    run(request_for(tmp_path, "SOLVER.MAX_ITER", "3", resume=True))
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 2


def test_seed_fixes_the_result(request_for, tmp_path, trained):
    run(request_for(tmp_path))
    first, second = (
        torch.load(path / "model_final.pth", weights_only=True)["model"]
        for path in (trained[0], tmp_path)
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_output_folder_with_another_run_is_refused(trained, request_for):
    with pytest.raises(FileExistsError, match="--resume"):
        prepare(request_for(trained[0]))


@pytest.mark.parametrize("name", ["model_final.pth", "model_0000499.pth", "model_best.pth"])
def test_output_folder_with_a_lone_checkpoint_is_refused(name, request_for, tmp_path):
    (tmp_path / name).touch()
    (tmp_path / "model_zoo.pth").touch()  # no run writes that
    with pytest.raises(FileExistsError, match=rf"{name} of another run \(--resume"):
        prepare(request_for(tmp_path))
    with pytest.raises(
        ValueError, match=f"last_checkpoint: it is missing\n  {name}: .*it is empty"
    ):
        prepare(request_for(tmp_path, resume=True))
    (tmp_path / name).unlink()
    prepare(request_for(tmp_path))


def test_frozen_random_layers_are_refused_unless_meant(request_for, tmp_path):
    frozen = ("MODEL.BACKBONE.FREEZE_AT", "2")
    with pytest.raises(ValueError, match="FREEZE_AT is 2.*ALLOW_FROZEN_RANDOM"):
        prepare(request_for(tmp_path, *frozen))
    prepare(request_for(tmp_path, *frozen, "RESNEST.ALLOW_FROZEN_RANDOM", "True"))


def test_missing_weights_are_refused_before_data_is_read(tmp_path, monkeypatch):
    monkeypatch.delenv("RESNEST_D2_WEIGHTS", raising=False)
    monkeypatch.setattr(config_checks, "require_registered", lambda names: None)
    with pytest.raises(FileNotFoundError, match="^the weights .*RESNEST_D2_WEIGHTS.*MODEL.WEIGHTS"):
        prepare(RunRequest("mask_rcnn_resnest50_fpn", ("OUTPUT_DIR", str(tmp_path))))


def test_missing_data_and_missing_weights_are_reported_together(tmp_path, monkeypatch):
    monkeypatch.delenv("RESNEST_D2_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    for weights in ("no.pth", "resnest://no", "resnest://resnest50_detectron"):
        with pytest.raises(FileNotFoundError) as error:
            prepare(RunRequest("mask_rcnn_resnest50_fpn", ("MODEL.WEIGHTS", weights)))
        for word in ("instances_train2017.json", "--train-json", weights, "FREEZE_AT 0"):
            assert word in str(error.value)


def test_nothing_is_downloaded_where_data_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnest_d2.model_zoo.handler.fetch", lambda name: pytest.fail(name))
    with pytest.raises(FileNotFoundError, match="not downloaded, because the run cannot start"):
        prepare(RunRequest("mask_rcnn_resnest50_fpn"))


def test_evaluation_refuses_a_backbone_alone(trained, request_for, tmp_path):
    weights = torch.load(trained[0] / "model_final.pth", weights_only=True)["model"]
    backbone = {k: v for k, v in weights.items() if k.startswith("backbone.bottom_up.")}
    torch.save({"model": backbone}, tmp_path / "backbone.pth")
    with pytest.raises(ValueError, match="whole detector"):
        run(request_for(tmp_path, "MODEL.WEIGHTS", str(tmp_path / "backbone.pth"), eval_only=True))


@pytest.mark.parametrize("eval_only", [False, True])
def test_weights_that_do_not_fit_are_refused_at_start(trained, request_for, tmp_path, eval_only):
    weights = ("MODEL.WEIGHTS", str(trained[0] / "model_final.pth"))
    prepare(request_for(tmp_path, *weights, eval_only=eval_only))
    with pytest.raises(ValueError, match="model_final.pth does not match the model's backbone"):
        prepare(request_for(tmp_path, *weights, "MODEL.RESNETS.DEPTH", "26", eval_only=eval_only))
    other = ("INPUT.FORMAT", "BGR")
    with pytest.raises(ValueError, match="other images.*\n  weights: RGB.*\n  config:  BGR"):
        prepare(request_for(tmp_path, *weights, *other, eval_only=eval_only))
    allowed = ("RESNEST.ALLOW_STATISTICS_MISMATCH", "True")
    prepare(request_for(tmp_path, *weights, *other, *allowed, eval_only=eval_only))


def test_other_images_than_a_published_files_are_refused_before_it_is_fetched(
    request_for, tmp_path, monkeypatch
):
    published = WeightFile("net", (), "", "detectron2", MSRA, "")
    monkeypatch.setitem(WEIGHTS, "net", published)
    monkeypatch.setattr(config_checks, "resolve_weights", lambda uri: pytest.fail(uri))
    with pytest.raises(ValueError, match="resnest://net was trained with other images"):
        prepare(request_for(tmp_path, "MODEL.WEIGHTS", "resnest://net"))


def test_resuming_from_weights_alone_is_refused_at_start_and_evaluating_them_is_not(
    trained, request_for, tmp_path
):
    content = torch.load(trained[0] / "model_final.pth", weights_only=True)
    del content["trainer"]
    torch.save(content, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(ValueError, match="model_final.pth: it holds weights without trainer"):
        prepare(request_for(tmp_path, resume=True))
    prepare(request_for(tmp_path, resume=True, eval_only=True))


def test_resuming_with_another_model_is_refused_at_start(trained, request_for):
    with pytest.raises(ValueError, match="model_final.pth does not match the model's backbone"):
        prepare(request_for(trained[0], "MODEL.RESNETS.DEPTH", "26", resume=True))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("SOLVER.OPTIMIZER", "Adam"), "SOLVER.OPTIMIZER must be one of .*'Adam'"),
        (("RESNEST.EVALUATOR", "fast"), "RESNEST.EVALUATOR must be one of .*'fast'"),
        (("RESNEST.AMP_DTYPE", "float8"), "RESNEST.AMP_DTYPE must be one of .*'float8'"),
        (("SOLVER.AMP.ENABLED", "True"), "SOLVER.AMP.ENABLED.*bfloat16"),
        (("MODEL.RESNETS.DEPTH", "42"), "MODEL.RESNETS.DEPTH must be one of .*42"),
        (("MODEL.RESNETS.NORM", "XBN"), "MODEL.RESNETS.NORM must be one of .*'XBN'"),
        (
            ("RESNEST.FREEZE_NORM.ITER", "1", "TEST.PRECISE_BN.ENABLED", "True"),
            "TEST.PRECISE_BN.ENABLED must be False",
        ),
    ],
)
def test_values_that_cannot_be_are_refused_with_key_and_choices(
    request_for, tmp_path, opts, message
):
    with pytest.raises(ValueError, match=message):
        prepare(request_for(tmp_path, *opts))


def test_batch_that_does_not_divide_is_refused(request_for, tmp_path):
    with pytest.raises(ValueError, match="IMS_PER_BATCH must be a multiple of the 4 processes"):
        prepare(request_for(tmp_path, num_processes=4))


def test_several_machines_need_an_address(request_for, tmp_path):
    with pytest.raises(ValueError, match="--num-machines 2 needs --dist-url tcp://HOST:PORT"):
        prepare(request_for(tmp_path, num_machines=2))


def test_own_data_sets_class_count_and_mask_format(request_for, tmp_path):
    cfg = prepare(request_for(tmp_path, "INPUT.MASK_FORMAT", "polygon")).cfg
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 5
    assert cfg.INPUT.MASK_FORMAT == "bitmask"


def test_bfloat16_adamw_channels_last_and_fixed_norm_train_together(request_for, tmp_path):
    cfg = prepare(
        request_for(
            tmp_path,
            *("RESNEST.AMP_DTYPE", "bfloat16", "SOLVER.OPTIMIZER", "AdamW"),
            *("RESNEST.CHANNELS_LAST", "True", "SOLVER.MAX_ITER", "3"),
            *("RESNEST.FREEZE_NORM.ITER", "1", "RESNEST.FREEZE_NORM.NUM_BATCHES", "2"),
            val=(),
        )
    ).cfg
    trainer = Trainer(cfg)
    conv = trainer.model.backbone.bottom_up.res2[0].conv2.conv
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    seen = []
    norm = trainer.model.backbone.bottom_up.res3[0].conv2.bn0

    def remember(module, args, output):
        seen.append((output.dtype, module.training, module.running_mean.clone()))

    norm.register_forward_hook(remember)
    trainer.train()
    # one step, two batches of statistics, two steps with these statistics
    assert [training for _, training, _ in seen] == [True, True, True, False, False]
    assert [dtype for dtype, _, _ in seen] == [torch.bfloat16] + 2 * [torch.float32] + 2 * [
        torch.bfloat16
    ]
    torch.testing.assert_close(seen[-1][2], norm.running_mean, rtol=0, atol=0)
    torch.testing.assert_close(seen[-2][2], norm.running_mean, rtol=0, atol=0)
    for parameter in trainer.model.parameters():
        assert parameter.dtype == torch.float32 and torch.isfinite(parameter).all()


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_chooses_bfloat16_where_the_cpu_is_fast_at_it(
    fast, dtype, request_for, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "resnest_d2.engine.training.steps.has_fast_bfloat16", lambda device_type: fast
    )
    trainer = Trainer(prepare(request_for(tmp_path, "RESNEST.AMP_DTYPE", "auto", val=())).cfg)
    seen = []
    trainer.model.backbone.register_forward_hook(lambda *args: seen.append(args[-1]["p2"].dtype))
    with EventStorage():
        trainer.iter = 0
        trainer.run_step()
    assert seen == [dtype]


def test_one_image_per_process_with_batch_norm_names_the_ways_out(request_for, tmp_path):
    one = ("SOLVER.IMS_PER_BATCH", "1")
    with pytest.raises(ValueError, match="SOLVER.IMS_PER_BATCH.*SyncBN.*FrozenBN"):
        prepare(request_for(tmp_path, *one))
    # the box and mask heads see many positions: their batch norms may stay
    Trainer(prepare(request_for(tmp_path, *one, "MODEL.RESNETS.NORM", "GN", val=())).cfg).train()


def test_one_process_trains_syncbn_as_bn_and_says_so(request_for, tmp_path, caplog):
    sync = [f"MODEL.{part}.NORM" for part in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")]
    opts = [word for key in sync for word in (key, "SyncBN")]
    cfg = prepare(request_for(tmp_path, *opts, "SOLVER.MAX_ITER", "1", val=())).cfg
    with caplog.at_level("INFO", logger="resnest_d2.engine.training.trainer"):
        trainer = Trainer(cfg)
    assert len([r for r in caplog.records if "SyncBN in one process" in r.message]) == 1
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in trainer.model.modules())
    trainer.train()


def _train(rank: int, request: RunRequest) -> dict:
    trainer = Trainer(prepare(request).cfg)
    kinds = [type(module) for module in trainer.model.modules()]
    trainer.train()
    return {
        "weights": trainer.model.module.state_dict(),
        "sync": sum(issubclass(kind, nn.SyncBatchNorm) for kind in kinds),
        "portable": kinds.count(PortableSyncBatchNorm),
    }


def test_two_cpu_processes_end_with_bit_equal_weights(request_for, tmp_path):
    sync = [f"MODEL.{part}.NORM" for part in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")]
    opts = [word for key in sync for word in (key, "SyncBN")]
    request = request_for(tmp_path / "run", *opts, "SOLVER.MAX_ITER", "20", val=(), num_processes=2)
    first, second = run_in_processes(_train, tmp_path, request)
    assert first["sync"] == 0 and first["portable"] > 30
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
    start = Trainer.build_model(get_config("sample_mask_rcnn_resnest14_fpn", request.opts))
    moved = start.state_dict()["backbone.bottom_up.res5.0.conv3.weight"]
    assert not torch.equal(moved, first["weights"]["backbone.bottom_up.res5.0.conv3.weight"])


def test_fixed_statistics_are_the_same_in_all_processes(request_for, tmp_path):
    opts = "SOLVER.IMS_PER_BATCH 4 RESNEST.FREEZE_NORM.ITER 1 RESNEST.FREEZE_NORM.NUM_BATCHES 2"
    request = request_for(tmp_path / "run", *opts.split(), val=(), num_processes=2)
    results = run_in_processes(_train, tmp_path, request)
    first, second = (result["weights"] for result in results)
    statistics = [name for name in first if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 30
    for name in statistics:
        assert torch.equal(first[name], second[name]), name


def test_two_processes_evaluate_the_model_that_is_saved_and_write_the_results(
    request_for, tmp_path
):
    """Plain batch norms, each with the statistics of its own process."""
    output = tmp_path / "results.json"
    low = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "SOLVER.IMS_PER_BATCH", "4")
    two = request_for(tmp_path / "two", *low, num_processes=2, output_json=str(output))
    results = run(two)
    assert json.dumps(results).replace("NaN", "null") == json.dumps(json.loads(output.read_text()))
    assert set(results) == {"bbox", "segm"}
    assert RunCheckpointer.has_last(str(tmp_path / "two"))
    saved = ("MODEL.WEIGHTS", str(tmp_path / "two" / "model_final.pth"))
    run(request_for(tmp_path / "one", *low, *saved, eval_only=True))
    scores = []
    for name in ("two", "one"):
        file = tmp_path / name / "inference" / "coco_instances_results.json"
        found = json.loads(file.read_text())
        scores.append([[r["score"] for r in found if r["image_id"] == i] for i in (1, 2, 3)])
    assert all(scores[0])
    for ours, expected in zip(*scores, strict=True):
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(expected), rtol=0, atol=1e-5)
