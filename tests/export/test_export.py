"""Files that run elsewhere: they agree with the model, or they are not there."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectors import save_detector
from PIL import Image

from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

from resnest_d2 import Predictor
from resnest_d2.export import Agreement, export, export_checkpoint, open_file
from resnest_d2.export.verify import compare_outputs, run_in_new_process
from resnest_d2_command import main

ROOT = Path(__file__).parents[2]
CUT = {"score_threshold": 0.5, "max_detections": 9}
SMALL = ("INPUT.MIN_SIZE_TEST", "96", "INPUT.MAX_SIZE_TEST", "160")
BGR = ("INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "[103.53, 116.28, 123.675]")
BGR += ("MODEL.PIXEL_STD", "[57.4, 57.1, 58.4]")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    return {
        "mask": save_detector(folder / "mask.pth", "mask", *SMALL),
        "RetinaNet": save_detector(folder / "retina.pth", "RetinaNet", *SMALL, *BGR),
        "panoptic": save_detector(folder / "panoptic.pth", "panoptic", *SMALL),
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three, of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        grains = draw.integers(0, 256, (8, 10 + number, 3), np.uint8)
        Image.fromarray(grains).resize((130 + 20 * number, 110)).save(file)
    return files


@pytest.mark.parametrize("family", ["mask", "RetinaNet"])
@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_a_file_agrees_with_its_model_and_says_where_it_comes_from(
    checkpoints, pictures, tmp_path, family, format
):
    file = tmp_path / "model.bin"
    made = export_checkpoint(checkpoints[family], file, format=format, images=pictures)
    assert os.listdir(tmp_path) == ["model.bin"]
    agreement = made.agreement
    assert agreement.images == 3 and agreement.detections > 3 and not agreement.problems
    assert agreement.boxes < 0.05 and agreement.scores < 1e-4
    assert (agreement.masks is None) == (family == "RetinaNet")
    run, metadata = open_file(str(file), format)
    assert metadata == made.metadata and metadata["verified"]["images"] == 3
    assert metadata["score_threshold"] == 0  # the config's
    assert metadata["class_names"] == ["ant", "bee", "cow"]
    assert metadata["source"]["file"] == checkpoints[family].name
    bgr = family == "RetinaNet"
    assert metadata["normalisation_inside"]["format"] == ("BGR" if bgr else "RGB")
    predictor = Predictor(checkpoints[family], device="cpu", score_threshold=0)
    found = predictor(np.asarray(Image.open(pictures[1])))
    given = predictor.preprocess(pictures[1])
    image = given["image"].float().numpy()
    outputs = run(np.ascontiguousarray(image[::-1]) if bgr else image)
    ratio = torch.tensor([given["width"] / image.shape[2], given["height"] / image.shape[1]] * 2)
    boxes = torch.from_numpy(outputs["boxes"]) * ratio
    apart = torch.cdist(found.pred_boxes.tensor[:5], boxes)  # random weights: scores are equal
    assert apart.amin(dim=1).max() < 0.1


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_a_picture_in_which_the_model_finds_nothing_is_compared_too(
    checkpoints, pictures, tmp_path, format
):
    how = {"format": format, "images": pictures, "score_threshold": 0.75}
    agreement = export_checkpoint(checkpoints["mask"], tmp_path / "file", **how).agreement
    assert agreement.images == 4 and agreement.without_detection == 1


@pytest.mark.parametrize(
    ("format", "family"),
    [
        ("onnx", "cascade"),
        pytest.param("torchscript", "faster", marks=pytest.mark.slow),
        pytest.param("torchscript", "cascade", marks=pytest.mark.slow),
        pytest.param("onnx", "faster", marks=pytest.mark.slow),
    ],
)
def test_a_file_takes_as_many_proposals_as_an_image_has(pictures, tmp_path, family, format):
    torch.manual_seed(0)
    every = ("MODEL.RPN.POST_NMS_TOPK_TEST", "5000", "MODEL.RPN.PRE_NMS_TOPK_TEST", "5000")
    # Random weights give many boxes almost the same score: which of two stays would be chance.
    every += ("MODEL.RPN.NMS_THRESH", "1.0", "MODEL.ROI_HEADS.NMS_THRESH_TEST", "1.0")
    checkpoint = save_detector(tmp_path / "model.pth", family, *SMALL, *every)
    model = Predictor(checkpoint, device="cpu")
    numbers = set()
    for picture in pictures:
        images = model.model.preprocess_image([model.preprocess(picture)])
        with torch.no_grad():
            features = model.model.backbone(images.tensor)
            (proposals,), _ = model.model.proposal_generator(images, features)
        numbers.add(len(proposals))
    assert len(numbers) == len(pictures) and max(numbers) < 5000  # none was cut off
    file = tmp_path / "file"
    assert export_checkpoint(checkpoint, file, format=format, images=pictures).agreement.images == 3


@pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="needs PyTorch 2.6")
def test_programs_of_torch_export_take_all_sizes(checkpoints, pictures, tmp_path):
    file = tmp_path / "backbone.pt2"
    made = export_checkpoint(
        checkpoints["mask"], file, format="torch-export", part="bottom_up", images=pictures
    )
    assert made.agreement.images == 3 and made.agreement.features < 1e-3
    assert made.metadata["outputs"] == ["res2", "res3", "res4", "res5"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="needs PyTorch 2.6")
def test_a_retinanet_is_exported_before_non_maximum_suppression(pictures, tmp_path):
    large = ("INPUT.MIN_SIZE_TEST", "136", "INPUT.MAX_SIZE_TEST", "200")  # no map is 1 x 1
    # PyTorch takes a minute for the sizes of five levels.
    large += ("MODEL.RETINANET.NUM_CONVS", "1", "MODEL.RETINANET.IN_FEATURES", "('p3',)")
    large += ("MODEL.ANCHOR_GENERATOR.SIZES", "[[32, 64]]")
    checkpoint = save_detector(tmp_path / "model.pth", "RetinaNet", *large)
    file = tmp_path / "file.pt2"
    made = export_checkpoint(checkpoint, file, format="torch-export", images=pictures[:1])
    assert made.agreement.images == 1 and not made.agreement.problems
    assert made.metadata["outputs"] == ["boxes", "scores"]
    assert made.metadata["non_maximum_suppression"] is False
    outputs = open_file(str(file), "torch-export")[0](made.example)
    assert outputs["scores"].shape == (len(outputs["boxes"]), 3)


@pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="needs PyTorch 2.6")
def test_a_deformable_detector_agrees_with_its_onnx_file(pictures, tmp_path):
    torch.manual_seed(0)
    one = ("MODEL.RESNETS.DEFORM_NUM_GROUPS", "1")
    checkpoint = save_detector(tmp_path / "model.pth", "deformable", *SMALL, *one)
    made = export_checkpoint(checkpoint, tmp_path / "f.onnx", format="onnx", images=pictures[:2])
    assert made.agreement.images == 2 and made.agreement.detections > 3


def test_preprocessing_is_equal_in_training_prediction_and_the_file(checkpoints, tmp_path):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    picture = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (12, 9, 3), np.uint8)
    Image.fromarray(pixels).resize((150, 110)).save(picture, exif=exif)
    for name in ("mask", "RetinaNet"):  # RGB with a standard deviation, BGR without
        file = tmp_path / f"{name}.onnx"
        made = export_checkpoint(
            checkpoints[name], file, format="onnx", images=[picture], verify=False
        )
        network = onnx.load(file)
        tensor = next(node.output[0] for node in network.graph.node if node.op_type == "Div")
        network.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
        session = onnxruntime.InferenceSession(network.SerializeToString())

        predictor = Predictor(checkpoints[name], device="cpu")
        cfg = predictor.cfg
        mapper = DatasetMapper(
            is_train=True,
            augmentations=[T.ResizeShortestEdge([96, 96], 160)],
            image_format=cfg.INPUT.FORMAT,
        )
        training = mapper({"file_name": str(picture), "annotations": []})["image"]
        prediction = predictor.preprocess(picture)["image"]
        assert torch.equal(training, prediction)
        (normalised,) = predictor.model.preprocess_image([{"image": prediction}])
        rgb = prediction if cfg.INPUT.FORMAT == "RGB" else prediction.flip(0)
        (inside,) = session.run([tensor], {"image": rgb.float().numpy()})
        assert np.array_equal(inside, normalised.numpy())
        assert np.array_equal(made.example, rgb)  # what the file is compared on


def test_a_file_that_differs_is_not_kept(checkpoints, pictures, tmp_path, monkeypatch):
    write = export.write_part

    def write_another(part, *args, **kwargs):
        part.model.pixel_mean.add_(20)
        write(part, *args, **kwargs)

    monkeypatch.setattr(export, "write_part", write_another)
    target = tmp_path / "model.pt"
    with pytest.raises(RuntimeError, match="differs from the model and is not kept"):
        export_checkpoint(checkpoints["mask"], target, format="torchscript", images=pictures)
    assert not os.listdir(tmp_path)


def test_a_full_disk_leaves_nothing(checkpoints, pictures, tmp_path, monkeypatch, capsys):
    def write(part, image, file, **kwargs):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export, "write_part", write)
    target = tmp_path / "model.pt"
    arguments = ["export", str(checkpoints["mask"]), str(target), "--format", "torchscript"]
    assert main([*arguments, "--images", str(pictures[0])]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_a_file_is_on_the_disk_before_it_has_its_name(checkpoints, pictures, tmp_path, monkeypatch):
    target, order = tmp_path / "model.pt", []
    monkeypatch.setattr(export, "write_part", lambda part, image, file, **_: file.write_bytes(b"1"))
    monkeypatch.setattr(os, "fsync", lambda file: order.append((os.fstat(file).st_size, target)))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (order.append(names[1]), replace(*names)))
    how = {"format": "torchscript", "images": pictures, "verify": False}
    export_checkpoint(checkpoints["mask"], target, **how)
    assert order == [(1, target), target]


def test_no_verify_is_written_into_the_metadata(checkpoints, pictures, tmp_path, capsys):
    target = tmp_path / "model.pt"
    arguments = ["export", str(checkpoints["mask"]), str(target), "--format", "torchscript"]
    arguments += ["--images", str(pictures[0])]
    assert main([*arguments, "--no-verify", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["agreement"] is None and printed["metadata"]["verified"] is False
    assert open_file(str(target), "torchscript")[1]["verified"] is False
    assert main([*arguments, "--no-verify"]) == 2  # it exists
    assert "not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("mask", {"format": "tflite"}, "format must be one of"),
        ("mask", {"format": "onnx", "part": "head"}, "part must be one of"),
        ("mask", {"format": "torch-export"}, "torch-export holds no detector"),
        ("panoptic", {"format": "onnx"}, "panoptic"),
        ("mask", {"format": "onnx", "score_threshold": 1.0}, "finds nothing in the"),
        ("mask", {"format": "onnx", "score_threshold": 2.0}, "score_threshold"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    checkpoints, pictures, tmp_path, family, arguments, message
):
    with pytest.raises(ValueError, match=message):
        export_checkpoint(checkpoints[family], tmp_path / "file", images=pictures, **arguments)
    assert not os.listdir(tmp_path)


def test_a_missing_folder_and_a_missing_checkpoint_are_refused(checkpoints, tmp_path):
    with pytest.raises(FileNotFoundError, match="a folder that exists"):
        export_checkpoint(checkpoints["mask"], tmp_path / "no" / "file", format="onnx")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export_checkpoint(tmp_path / "nowhere.pth", tmp_path / "file", format="onnx")


def test_the_process_that_verifies_has_no_detectron2(tmp_path):
    file = tmp_path / "model.pt"
    code = tmp_path / "code.py"
    code.write_text("import detectron2")
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(file))
    with pytest.raises(RuntimeError, match="does not run without Detectron2"):
        run_in_new_process(file, [np.zeros((3, 4, 4), np.float32)], format="torchscript")


@pytest.mark.parametrize(("shift", "kept"), [(2e-3, True), (0.1, False)])
def test_only_mask_pixels_at_the_threshold_may_turn_over(
    shift, kept, checkpoints, pictures, tmp_path, monkeypatch
):
    """Random masks are near 0.5 everywhere: a shift by 2e-3 before the sigmoid is 5e-4 after it."""
    write = export.write_part

    def write_shifted(part, *args, **kwargs):
        part.model.roi_heads.mask_head.predictor.bias.add_(shift)
        write(part, *args, **kwargs)

    monkeypatch.setattr(export, "write_part", write_shifted)
    how = {"format": "torchscript", "images": pictures[:1]}
    if kept:
        made = export_checkpoint(checkpoints["mask"], tmp_path / "file", **how)
        assert made.agreement.masks > 0.99
    else:
        with pytest.raises(RuntimeError, match="masks overlap by"):
            export_checkpoint(checkpoints["mask"], tmp_path / "file", **how)


@pytest.fixture(scope="module")
def onnx_file(checkpoints, pictures, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return export_checkpoint(
        checkpoints["mask"], file, format="onnx", images=pictures, verify=False
    )


@pytest.mark.parametrize("name", ["image.ppm", "image.png", "image.jpg", "turned.jpg"])
@pytest.mark.parametrize("pillow", [True, False])
def test_the_example_needs_numpy_and_onnxruntime_alone(name, pillow, onnx_file, tmp_path):
    shown = Image.fromarray(onnx_file.example.astype(np.uint8).transpose(1, 2, 0))
    exif = Image.Exif()
    if name == "turned.jpg":
        exif[0x0112] = 3  # upside down
    shown.save(tmp_path / name, **({"exif": exif} if name.endswith("jpg") else {}))
    hidden = ["torch", "detectron2", "resnest_d2", *([] if pillow else ["PIL"])]
    blocked = [f"sys.modules[{name!r}] = None" for name in hidden]
    script = ROOT / "docs" / "examples" / "onnx_detect.py"
    code = f"import runpy, sys; {'; '.join(blocked)}; runpy.run_path({str(script)!r})"
    command = [sys.executable, "-c", code, str(onnx_file.file), str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not pillow and name != "image.ppm":
        assert done.returncode == 1
        assert f"{name} is no binary PPM file: other formats need Pillow" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    run, _ = open_file(str(onnx_file.file), "onnx")
    given = np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1).astype(np.float32)
    expected = run(np.ascontiguousarray(given[:, ::-1, ::-1] if exif else given))
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected["scores"]) > 1
    name, score, *box = lines[0].replace("[", "").replace("]", "").replace(",", "").split()
    assert name == ["ant", "bee", "cow"][expected["classes"][0]]
    assert abs(float(score) - expected["scores"][0]) < 1e-3
    assert np.abs(np.array(box, float) - expected["boxes"][0]).max() < 0.06


def _detections(**changes) -> dict[str, np.ndarray]:
    found = {
        "boxes": np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32),
        "scores": np.array([0.9, 0.50004], np.float32),
        "classes": np.array([1, 0]),
        "masks": np.ones((2, 40, 40), bool),
    }
    return {**found, **changes}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"boxes": np.array([[0, 0, 10, 10.1], [20, 20, 40, 40]])}, "boxes differ"),
        ({"boxes": np.array([[0, 0, 10, np.nan], [20, 20, 40, 40]])}, "boxes differ"),
        ({"scores": np.array([0.9002, 0.50004])}, "scores differ"),
        ({"classes": np.array([2, 0])}, "without a partner"),
        ({"masks": np.pad(np.ones((2, 39, 40), bool), ((0, 0), (0, 1), (0, 0)))}, "masks overlap"),
        ({"masks": None}, "outputs"),
    ],
)
def test_each_difference_beyond_its_tolerance_is_named(changes, problem):
    theirs = {k: v for k, v in _detections(**changes).items() if v is not None}
    agreement = Agreement()
    compare_outputs(agreement, _detections(), theirs, **CUT)
    assert any(problem in text for text in agreement.problems)


def test_order_and_a_score_at_the_threshold_do_not_matter():
    agreement = Agreement()
    turned = {name: value[::-1] for name, value in _detections().items()}
    compare_outputs(agreement, _detections(), turned, **CUT)
    one = {name: value[:1] for name, value in _detections().items()}
    compare_outputs(agreement, _detections(), one, **CUT)
    assert not agreement.problems and agreement.detections == 4
    compare_outputs(agreement, _detections(), one, score_threshold=0.3, max_detections=9)
    assert "without a partner" in agreement.problems[0]


def test_undecided_pixels_are_left_out_of_the_masks_and_others_are_not():
    tiny = np.zeros((2, 40, 40), bool)
    tiny[:, 3:6, 3:7] = True  # 12 pixels
    flipped, wrong, undecided = tiny.copy(), np.roll(tiny, 1, axis=2), np.zeros_like(tiny)
    flipped[0, 5, 6], undecided[0, 5, 6] = False, True

    def problems(masks, undecided):
        agreement = Agreement()
        ours, theirs = _detections(masks=tiny), _detections(masks=masks)
        compare_outputs(agreement, ours, theirs, **CUT, undecided=undecided)
        return agreement.problems

    assert problems(flipped, undecided) == []
    assert problems(flipped, None) == ["image 1: masks overlap by 0.9167"]
    assert "masks overlap" in problems(flipped, undecided[::-1])[0]  # those of the other object
    assert len(problems(wrong, undecided)) == 2


def test_only_a_whole_detector_is_timed(checkpoints, pictures, tmp_path, capsys):
    arguments = ["export", str(checkpoints["mask"]), str(tmp_path / "backbone.pt"), "--no-verify"]
    arguments += ["--format", "torchscript", "--part", "backbone", "--runs", "1"]
    assert main([*arguments, "--images", str(pictures[0])]) == 2
    assert "does not give the results of the model" in capsys.readouterr().err
