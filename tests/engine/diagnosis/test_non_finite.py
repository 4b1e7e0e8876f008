"""Losses that are not finite: the message, the file, and its replay."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from commands import TORCHRUN, finish, start
from processes import run_in_processes
from runs import TINY
from torch import nn

from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks

from resnest_d2.data import sample_set
from resnest_d2.engine import NonFiniteLossError, RunRequest, Trainer, prepare
from resnest_d2.engine.diagnosis.examples import pack, unpack
from resnest_d2.engine.diagnosis.non_finite import LossGuard, largest_gradients
from resnest_d2.engine.diagnosis.replay import replay
from resnest_d2.engine.training import trainer as trainer_module
from resnest_d2.engine.training.steps import TrainingStep
from resnest_d2_command import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=6, val_images=3
    )


@pytest.fixture
def config_for(data):
    def build(folder, *opts):
        opts = (*TINY, "OUTPUT_DIR", str(folder), *opts)
        return prepare(
            RunRequest("sample_mask_rcnn_resnest14_fpn", opts, train=(data["train"],))
        ).cfg

    return build


def plant(monkeypatch, change, image_id=3):
    """Let the training mapper change one image's example."""
    build = trainer_module.build_train_mapper

    def planted(cfg):
        mapper = build(cfg)

        def apply(record):
            example = mapper(record)
            if example["image_id"] == image_id:
                change(example)
            return example

        return apply

    monkeypatch.setattr(trainer_module, "build_train_mapper", planted)


def nan_in_image(example):
    example["image"] = example["image"].float()
    example["image"][0, 5, 5] = math.nan


def fail_training(cfg) -> NonFiniteLossError:
    trainer = Trainer(cfg)
    with pytest.raises(NonFiniteLossError) as error:
        trainer.train()
    error.value.trainer = trainer
    return error.value


def test_nan_in_an_image_is_told_with_losses_images_gradient_and_replayed(
    config_for, tmp_path, monkeypatch, capsys
):
    plant(monkeypatch, nan_in_image)
    error = fail_training(config_for(tmp_path, "SOLVER.MAX_ITER", "9"))
    text = str(error)
    iteration = int(re.search(r"not finite at iteration (\d+)", text)[1])
    assert iteration == error.trainer.iter
    for word in ("loss_rpn_cls nan", "000003.png", f"resnest-d2 replay {error.file}", "same batch"):
        assert word in text
    name = re.search(r"largest gradient: (\S+) nan \(not finite in [1-9]\d* of", text)[1]
    assert name in dict(error.trainer.model.named_parameters())
    assert error.file == str(tmp_path / f"nonfinite_{iteration:07d}_rank0.pth")
    torch.load(error.file, weights_only=True)
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob("model_final*"))

    assert main(["replay", error.file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_module"].startswith("backbone.bottom_up.stem.conv1_1 ") or found[
        "first_module"
    ].startswith("backbone.bottom_up.stem.conv1_1.norm ")
    assert found["then"]["loss_rpn_cls"] == found["now"]["loss_rpn_cls"] == "nan"
    assert found["gradients"][0]["name"] == name
    odd = [image for image in found["images"] if image["not_finite"]]
    assert [(image["image_id"], image["not_finite"]) for image in odd] == [("3", 1)]
    assert found["bad_weights"] == []


def test_nan_weight_is_found_by_replay(config_for, tmp_path, capsys):
    cfg = config_for(tmp_path)
    trainer = Trainer(cfg)
    with torch.no_grad():
        trainer.model.roi_heads.box_predictor.cls_score.weight[0, 0] = math.nan
    with pytest.raises(NonFiniteLossError, match="loss_cls nan.*loss_rpn_cls 0") as error:
        trainer.train()
    assert main(["replay", error.value.file]) == 0
    text = capsys.readouterr().out
    assert "weights that are not finite: 1 (roi_heads.box_predictor.cls_score.weight)" in text
    assert "roi_heads.box_predictor.cls_score (Linear); its inputs: finite" in text


def test_nan_box_is_found_by_replay(config_for, tmp_path, monkeypatch):
    def change(example):
        example["instances"].gt_boxes.tensor[0, 2] = math.nan

    plant(monkeypatch, change)
    error = fail_training(config_for(tmp_path, "SOLVER.MAX_ITER", "9", "MODEL.MASK_ON", "False"))
    assert "loss_rpn_loc nan" in str(error)
    found = replay(error.file)
    assert found.reproduced
    assert [list(image["bad_boxes"]) for image in found.images if image["image_id"] == "3"] == [[0]]


def test_replay_repeats_the_finite_losses_bit_by_bit(config_for, tmp_path):
    trainer = Trainer(config_for(tmp_path))
    head = trainer.model.roi_heads.mask_head
    with torch.no_grad():
        head.predictor.weight.fill_(math.inf)
    with pytest.raises(NonFiniteLossError) as error:
        trainer.train()
    found = replay(error.value.file)
    assert found.reproduced and not math.isfinite(found.then["loss_mask"])
    finite = {name: value for name, value in found.then.items() if math.isfinite(value)}
    assert len(finite) == 4 and min(finite.values()) > 0  # sampling of proposals included
    assert finite == {name: found.now[name] for name in finite}


def test_replay_of_a_loss_that_is_finite_exits_with_1(config_for, tmp_path, monkeypatch, capsys):
    plant(monkeypatch, nan_in_image)
    error = fail_training(config_for(tmp_path, "SOLVER.MAX_ITER", "9"))
    content = torch.load(error.file, weights_only=True)
    for example in content["batch"]:
        example["image"] = example["image"].nan_to_num()
    torch.save(content, tmp_path / "mended.pth")
    assert main(["replay", str(tmp_path / "mended.pth")]) == 1
    assert "NOT reproduced" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"no file of tensors", {"model": {}}, {"kind": "nonfinite"}])
def test_replay_refuses_other_files(content, tmp_path, capsys):
    path = tmp_path / "file.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    assert main(["replay", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "none.pth")]) == 2


def test_replay_refuses_files_of_wrong_types_and_contents_in_one_line(
    config_for, tmp_path, monkeypatch, capsys
):
    plant(monkeypatch, nan_in_image)
    error = fail_training(config_for(tmp_path, "SOLVER.MAX_ITER", "9"))
    content = torch.load(error.file, weights_only=True)
    example, record = content["batch"][0], content["record"]
    thin = [{**example, "image": torch.ones(3, *size)} for size in ((2, 6000), (6000, 2))]
    objects = {"__kind__": "Instances", "image_size": [64, 64]}

    def with_classes(values, **more):
        return [{**example, "instances": {**objects, "fields": {"gt_classes": values, **more}}}]

    def with_polygon(points):
        masks = {"__kind__": "PolygonMasks", "value": [[torch.tensor(points)]]}
        return with_classes(torch.tensor([0]), gt_masks=masks)

    changed = {
        "losses": {"a": "text"},
        "generators": {"cpu": [1]},
        "model": {7: torch.ones(1)},
        "dtype": "load",
        "record": {**record, "class_names": [["x"]]},
        "record of": {**record, "config": record["config"].replace("FC_DIM: ", "FC_DIM: 9")},
        "batch": [3],
        "batch of": [{**example, "image": torch.ones(2)}],
        "batch go through": [{**example, "instances": {"__kind__": "Instances"}}],
        "batch 24000 pixels in all would be padded to 72384512": thin,
        "batch it has 3000 images: at most 512": [{"image": torch.ones(3, 1, 1)}] * 3000,
        "batch a polygon must be shorter": with_polygon([5.0, 5, 1e9, 5, 1e9, 1e9]),
        "batch a polygon must be shorter ": with_polygon([5.0, 5, math.nan, 5, 9, 9]),
        "batch 100000 objects: at most 20000": with_classes(torch.zeros(100_000)),
        "batch gt_classes must be from 0 to 4": with_classes(torch.tensor([5])),
        "batch gt_classes must be from 0 to 4 ": with_classes(torch.tensor([-1])),
    }
    for key, value in changed.items():
        path = tmp_path / "changed.pth"
        torch.save({**content, key.partition(" ")[0]: value}, path)
        assert main(["replay", str(path)]) == 2, key
        *_, last = capsys.readouterr().err.splitlines()  # PyTorch may log something first
        assert last.startswith("resnest-d2: error: ") and str(path) in last
        assert key.partition(" ")[2].strip() in last
    path.write_bytes(Path(error.file).read_bytes() + b"x")
    assert main(["replay", str(path)]) == 2
    assert "second directory, or something after it" in capsys.readouterr().err


def test_full_disk_does_not_hide_the_message(config_for, tmp_path, monkeypatch):
    plant(monkeypatch, nan_in_image)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnest_d2.engine.diagnosis.non_finite.torch.save", full)
    error = fail_training(config_for(tmp_path, "SOLVER.MAX_ITER", "9"))
    assert "not kept: [Errno 28] No space left" in str(error) and "loss_rpn_cls nan" in str(error)
    assert error.file == "" and not list(tmp_path.glob("*nonfinite*"))


class Small(nn.Module):
    """A loss per image; the model of the tests that need no detector."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, batch):
        inputs = torch.stack([example["image"] for example in batch])
        return {"loss_a": self.first(inputs).mean(), "loss_b": self.second(inputs).mean()}


def small_step(folder, values, micro_batches):
    model = Small()
    batches = [[{"image": torch.full((2,), value), "image_id": i}] for i, value in values]
    guard = LossGuard(
        model, record={}, folder=str(folder), iteration=lambda: 7, micro_batches=micro_batches
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return model, TrainingStep(
        model, batches, optimizer, micro_batches=micro_batches, check_losses=guard
    )


def test_no_part_of_an_accumulated_step_is_taken(tmp_path):
    model, step = small_step(tmp_path, [(1, 1.0), (2, 1.0), (3, math.inf), (4, 1.0)], 4)
    before = [value.clone() for value in model.parameters()]
    with pytest.raises(NonFiniteLossError, match="iteration 7, micro-batch 3 of 4\n") as error:
        step.run_step()
    assert "images: 3\n" in str(error.value)
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)


def guarded_step_of_a_rank(rank: int, folder: str) -> dict:
    """Its message; the loss of the last process alone is not finite."""
    model, step = small_step(folder, [(rank, [1.0, math.nan][rank])], 1)
    before = [value.clone() for value in model.parameters()]
    try:
        step.run_step()
        message = ""
    except NonFiniteLossError as error:
        message = str(error)
    return {"message": message, "moved": not all(map(torch.equal, before, model.parameters()))}


def test_a_loss_that_is_not_finite_in_one_process_stops_all(tmp_path):
    (tmp_path / "run").mkdir()
    results = run_in_processes(guarded_step_of_a_rank, tmp_path, str(tmp_path / "run"))
    for result in results:
        assert "not finite at iteration 7, the process of rank 1 (of 2)" in result["message"]
        assert not result["moved"]
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["nonfinite_0000007_rank1.pth"]


def test_gradients_that_are_not_finite_come_first_in_the_models_order():
    model = Small()
    inputs = torch.ones(1, 2)
    loss = 3 * model.first(inputs).sum() + model.second(inputs).sum()
    names = [gradient.name for gradient in largest_gradients(model, loss)]
    assert names == ["first.weight", "first.bias", "second.weight", "second.bias"]
    loss = 3 * model.first(inputs).sum() + math.inf * model.second(inputs).sum()
    found = largest_gradients(model, loss)
    assert [gradient.name for gradient in found][:2] == ["second.weight", "second.bias"]
    assert found[0].value == math.inf and found[2].value == 3
    assert all(value.grad is None for value in model.parameters())


def test_examples_survive_packing(tmp_path):
    masks = [[torch.tensor([0.0, 0, 4, 0, 4, 4]).numpy(), torch.ones(6).numpy()]]
    instances = Instances((4, 6))
    instances.gt_boxes = Boxes(torch.tensor([[0.0, 1, 2, 3]]))
    instances.gt_classes = torch.tensor([2])
    instances.gt_keypoints = Keypoints(torch.rand(1, 3, 3))
    instances.gt_masks = PolygonMasks(masks)
    example = {
        "image": torch.arange(72, dtype=torch.uint8).reshape(3, 4, 6),
        "instances": instances,
        "sem_seg": torch.zeros(4, 6, dtype=torch.long),
        "file_name": "a.jpg",
        "image_id": 5,
        "array": torch.rand(2).numpy(),
        "other": {"tuple": (1, None, True)},
        "object": object(),
    }
    torch.save(pack([example]), tmp_path / "batch.pth")
    (again,) = unpack(torch.load(tmp_path / "batch.pth", weights_only=True))
    assert set(example) - set(again) == {"object"}
    assert torch.equal(again["image"], example["image"])
    found = again["instances"]
    assert found.image_size == (4, 6)
    assert torch.equal(found.gt_boxes.tensor, instances.gt_boxes.tensor)
    assert torch.equal(found.gt_keypoints.tensor, instances.gt_keypoints.tensor)
    assert [p.tolist() for p in found.gt_masks.polygons[0]] == [p.tolist() for p in masks[0]]
    assert again["array"].tolist() == example["array"].tolist()
    bitmasks = BitMasks(torch.eye(4).bool()[None])
    assert torch.equal(unpack(pack(bitmasks)).tensor, bitmasks.tensor)


def test_failure_in_the_last_iteration_does_not_evaluate(config_for, data, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "test", lambda *args: pytest.fail("evaluated"))
    trainer = Trainer(config_for(tmp_path, "SOLVER.MAX_ITER", "1"))
    with torch.no_grad():
        trainer.model.roi_heads.box_predictor.cls_score.weight.fill_(math.nan)
    with pytest.raises(NonFiniteLossError):
        trainer.train()


PLANTING = """
import sys
from resnest_d2_command import main
from resnest_d2.engine.training import trainer

build = trainer.build_train_mapper

def planted(cfg):
    mapper = build(cfg)

    def apply(record):
        example = mapper(record)
        if example["image_id"] == 3:
            CHANGE
        return example

    return apply

trainer.build_train_mapper = planted
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("launcher", "where"),
    [
        ("torchrun", "image"),
        pytest.param("--num-gpus", "boxes", marks=pytest.mark.slow),
        pytest.param("one", "image", marks=pytest.mark.slow),
        pytest.param("one", "boxes", marks=pytest.mark.slow),
        pytest.param("torchrun", "boxes", marks=pytest.mark.slow),
        pytest.param("--num-gpus", "image", marks=pytest.mark.slow),
    ],
)
def test_every_process_ends_with_the_message_of_the_loss(launcher, where, data, tmp_path):
    change = {
        "image": 'example["image"] = example["image"] * float("nan")',
        "boxes": 'example["instances"].gt_boxes.tensor[0, 2] = float("nan")',
    }[where]
    script, log = tmp_path / "plant.py", tmp_path / "log"
    script.write_text(PLANTING.replace("CHANGE", change))
    options = ["--num-gpus", "2"] if launcher == "--num-gpus" else []
    json_file, images = data["train"]
    words = [
        *("train", "--config-file", "sample_mask_rcnn_resnest14_fpn", *options),
        *("--train-json", json_file, "--train-images", images, *TINY, "MODEL.MASK_ON", "False"),
        *("SOLVER.MAX_ITER", "9", "SOLVER.IMS_PER_BATCH", "4", "OUTPUT_DIR", tmp_path / "run"),
    ]
    process = start([*(TORCHRUN if launcher == "torchrun" else ()), script, *words], log)
    assert finish(process, timeout=120) == 1
    text = log.read_text()
    assert text.count("resnest-d2: error: the loss is not finite at iteration") == 1, text[-5000:]
    file = re.search(r"kept: resnest-d2 replay (\S+)", text)[1]
    found = replay(file)
    assert found.reproduced and "3" in [image["image_id"] for image in found.images]
    if launcher == "torchrun":  # which shows tracebacks of its own
        assert "the loss is not finite" in text.partition("Root Cause")[2]
    else:
        assert "Traceback" not in text and "another process" not in text
    assert "NonFiniteLossError" in "".join(f.read_text() for f in tmp_path.glob("run/log.txt*"))
