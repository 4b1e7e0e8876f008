"""Models for semantic segmentation as files: the classes of the model, or no file."""

import os

import numpy as np
import pytest
import torch
from detectors import image
from PIL import Image
from segmentors import CLASSES, HEADS, save_segmentor, segmentor_config, small_segmentor

from resnest_d2 import Predictor
from resnest_d2.export import Agreement, export, export_checkpoint, open_file
from resnest_d2.export.parts import build_part
from resnest_d2.export.verify import compare_outputs
from resnest_d2_command import main

AS_IT_IS = ("INPUT.MIN_SIZE_TEST", "0")  # images are not resized
BGR = ("INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "[103.53, 116.28, 123.675]")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """By head."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    return {
        head: save_segmentor(folder / f"{number}.pth", head, *AS_IT_IS)
        for number, head in enumerate(HEADS)
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three of different sizes, with odd sides."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        grains = draw.integers(0, 256, (6, 8 + number, 3), np.uint8)
        Image.fromarray(grains).resize((93 + 20 * number, 71)).save(file)
    return files


@pytest.mark.parametrize("opts", [(), BGR], ids=["RGB", "BGR"])
@pytest.mark.parametrize("head", HEADS)
def test_a_part_gives_the_classes_that_detectron2_gives(head, opts):
    model = small_segmentor(head, *opts)
    part = build_part(model, segmentor_config(head, *opts), "model")
    given = image(61, 83)["image"]
    with torch.no_grad():
        labels, scores = part(given)
        (expected,) = model([{"image": given.flip(0) if opts else given}])
    assert labels.dtype == torch.int64 and labels.shape == (61, 83)
    best = expected["sem_seg"].softmax(dim=0).topk(2, dim=0)
    decided = best.values[0] - best.values[1] > 1e-4
    assert decided.float().mean() > 0.9 and len(labels.unique()) > 2
    assert torch.equal(labels[decided], best.indices[0][decided])
    torch.testing.assert_close(scores, best.values[0], atol=1e-5, rtol=0)


MODERN = pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="needs PyTorch 2.6")


@pytest.mark.parametrize(
    ("format", "head"),
    [
        ("torchscript", "DeepLabV3"),
        ("onnx", "Detectron2's DeepLabV3+"),
        pytest.param("torch-export", "FCN", marks=[MODERN, pytest.mark.slow]),
    ],
)
def test_a_file_gives_the_classes_of_its_model(checkpoints, pictures, tmp_path, format, head):
    file = tmp_path / "file"
    made = export_checkpoint(checkpoints[head], file, format=format, images=pictures)
    agreement = made.agreement
    assert agreement.images == 3 and agreement.labels > 0.999 and agreement.scores < 1e-4
    run, metadata = open_file(str(file), format)
    assert metadata == made.metadata and metadata["class_names"] == list(CLASSES)
    assert (metadata["part"], metadata["whole_model"]) == ("segmentor", True)
    assert metadata["outputs"] == ["labels", "scores"] and metadata["score_threshold"] is None
    found = run(np.asarray(Image.open(pictures[1])).transpose(2, 0, 1).astype(np.float32))
    expected = Predictor(checkpoints[head], device="cpu")(pictures[1]).numpy()
    assert found["labels"].dtype == np.int64 and len(np.unique(expected)) > 2
    assert (found["labels"] == expected).mean() > 0.999
    if format == "torchscript":  # the auxiliary head is for training
        assert not [name for name in torch.jit.load(file).state_dict() if "aux_head" in name]


def test_a_file_with_other_classes_is_not_kept(checkpoints, pictures, tmp_path, monkeypatch):
    write = export.write_part

    def write_another(part, *args, **kwargs):
        part.model.sem_seg_head.fcn.predictor.bias[0] += 0.5
        write(part, *args, **kwargs)

    def run_here(file, images, *, format):
        run, _ = open_file(str(file), format)
        return [run(image) for image in images]

    monkeypatch.setattr(export, "write_part", write_another)
    monkeypatch.setattr(export, "run_in_new_process", run_here)
    how = {"format": "torchscript", "images": pictures[:1]}
    with pytest.raises(RuntimeError, match=r"image 1: \d+ of 6603 pixels have another class, the"):
        export_checkpoint(checkpoints["FCN"], tmp_path / "file", **how)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "undecided", "problem"),
    [
        ([], [], None),
        ([(1, 2)], [(1, 2)], None),
        ([(1, 2)], [(1, 1)], "row 1, column 2: 7, not 3"),
        ([(0, 1), (2, 3)], [(0, 1)], "row 2, column 3: 7, not 3"),
    ],
)
def test_only_undecided_pixels_may_have_another_class(wrong, undecided, problem):
    ours = {"labels": np.full((3, 4), 3), "scores": np.full((3, 4), 0.5, np.float32)}
    theirs = {**ours, "labels": ours["labels"].copy()}
    left_out = np.zeros((3, 4), bool)
    for place in wrong:
        theirs["labels"][place] = 7
    for place in undecided:
        left_out[place] = True
    agreement = Agreement()
    how = {"score_threshold": None, "max_detections": 9}
    compare_outputs(agreement, ours, theirs, **how, undecided=left_out)
    text = f"image 1: 1 of 12 pixels have another class, the first in {problem}"
    assert agreement.problems == ([text] if problem else [])
    assert agreement.labels == 1 - len(wrong) / 12 and agreement.scores == 0


def test_a_backbone_is_a_part_of_it_too(checkpoints, pictures, tmp_path):
    how = {"format": "torchscript", "images": pictures[:1], "verify": False}
    made = export_checkpoint(checkpoints["FCN"], tmp_path / "file", part="backbone", **how)
    assert made.metadata["outputs"] == ["res4", "res5"] and not made.metadata["whole_model"]


def test_what_does_not_fit_is_refused(checkpoints, tmp_path, capsys):
    arguments = ["export", str(checkpoints["FCN"]), str(tmp_path / "f"), "--format", "onnx"]
    assert main([*arguments, "--score-threshold", "0.5"]) == 2
    assert "score_threshold is for detectors, and" in capsys.readouterr().err
    with pytest.warns(DeprecationWarning, match='"detector" is now "model"'):
        assert main([*arguments, "--part", "detector", "--score-threshold", "0.5"]) == 2
