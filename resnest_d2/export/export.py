"""From a checkpoint to a file that runs without Detectron2, checked before it gets its name."""

import datetime
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import detectron2
from detectron2.config import CfgNode
from detectron2.modeling import RetinaNet, detector_postprocess
from detectron2.structures import Instances

from ..checkpoint.weight_files import file_sha256
from ..data import sample_set
from ..errors import check_choice
from ..predict.predictor import Predictor
from ..progress import progress_bar
from ..version import __version__
from .parts import Detector, build_part, paste_masks
from .verify import (
    BOX_TOLERANCE,
    FEATURE_TOLERANCE,
    MASK_MARGIN,
    MASK_TOLERANCE,
    SCORE_TOLERANCE,
    Agreement,
    compare_outputs,
    run_in_new_process,
)
from .write import FORMATS, SUFFIXES, write_part

__all__ = ["Export", "export_checkpoint", "model_inputs"]

_NUM_IMAGES = 10


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        file: where it is.
        metadata: what it carries.
        agreement: with the model; None where it was not verified.
        example: an image that it was verified on, RGB (3, H, W), 0-255, float32.
    """

    file: Path
    metadata: dict[str, Any]
    agreement: Agreement | None
    example: np.ndarray


def export_checkpoint(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    config: str | os.PathLike | CfgNode | None = None,
    format: str,
    part: str = "detector",
    images: Sequence[str | os.PathLike] = (),
    score_threshold: float | None = None,
    verify: bool = True,
    overwrite: bool = False,
) -> Export:
    """Write a checkpoint's model, or a part of it, as one file.

    The file takes one image, RGB (3, H, W), float32, 0-255, of any size, and normalises it itself.
    Resizing is the caller's: the metadata's ``resize`` says what the model was evaluated at. See
    :mod:`.parts` for the outputs. A RetinaNet as ``torch-export`` goes without non-maximum
    suppression.

    Before the file gets its name, another process, which can import neither Detectron2 nor this
    package, runs it on images of different sizes, and the results must be the model's.

    Args:
        source, config: the checkpoint, and its config where it has none, as for
            :class:`..predictor.Predictor`.
        target: the file to write; its folder must exist.
        format: one of :data:`.write.FORMATS`.
        part: one of :data:`.parts.PARTS`.
        images: pictures to verify with, the first ten of them; by default some of the sample set.
            A detector must find something in them.
        score_threshold: detections with lower scores are left out, 0-1; by default the config's.
        verify: False writes the file unchecked, and its metadata say so.
        overwrite: replace ``target`` where it exists.

    Raises:
        FileExistsError, FileNotFoundError: of ``target``, its folder or the source.
        ValueError: the checkpoint is refused; the format cannot hold the part; the model finds
            nothing in the images.
        ModuleNotFoundError: ONNX needs the packages onnx and onnxruntime.
        RuntimeError: the file does not run, or differs from the model. Nothing is kept then.
    """
    check_choice("the format", format, FORMATS)
    target = Path(target)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists and is not overwritten unless you say so")
    if target.is_dir() or not target.parent.is_dir():
        raise FileNotFoundError(f"{target} must be a file in a folder that exists")
    predictor = Predictor(source, config=config, device="cpu", score_threshold=score_threshold)
    threshold = predictor.settings["score_threshold"]
    nms = not (format == "torch-export" and isinstance(predictor.model, RetinaNet))
    exported = build_part(predictor.model, predictor.cfg, part, nms=nms)
    smallest = exported.smallest_side if format == "torch-export" else 1
    cases = _pictures(predictor, images, smallest)
    detects = isinstance(exported, Detector)
    example, undecided = 0, [None] * len(cases)
    if detects:
        cases += _empty_pictures(predictor, like=cases[0])
        shown = progress_bar(cases, desc="running the model")
        expected, undecided = zip(*(_detections(predictor, case) for case in shown), strict=True)
        found = [len(outputs["scores"]) for outputs in expected]
        example = int(np.argmax(found))
        if not found[example]:
            raise ValueError(
                f"the model finds nothing in the {len(cases)} images (score threshold "
                f"{threshold:g}): give pictures of what it knows"
            )
    else:
        unfolded = build_part(predictor.model, predictor.cfg, part, nms=nms, fold=False)
        expected = [_outputs(unfolded, case) for case in cases]
    metadata = {
        "part": part,
        "format": format,
        "outputs": exported.output_names,
        "non_maximum_suppression": detects,
        "smallest_side": smallest,
        "class_names": predictor.class_names,
        **_describe(predictor),
        "verified": verify
        and {
            "images": len(cases),
            "boxes_within_pixels": BOX_TOLERANCE,
            "scores_within": SCORE_TOLERANCE,
            "mask_iou_at_least": MASK_TOLERANCE,
            "mask_pixels_left_out_within": MASK_MARGIN,
            "features_within": FEATURE_TOLERANCE,
        },
    }
    with (
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder,
        progress_bar(total=1 + verify, desc="writing the file", delay=0) as bar,
    ):
        written = Path(folder, f"model{SUFFIXES[format]}")
        write_part(
            exported, torch.from_numpy(cases[example]), written, format=format, metadata=metadata
        )
        bar.update()
        agreement = None
        if verify:
            bar.set_description("running the file")
            agreement = Agreement()
            outputs = run_in_new_process(written, cases, format=format)
            bar.update()
            for ours, theirs, unsure in zip(expected, outputs, undecided, strict=True):
                compare_outputs(
                    agreement,
                    ours,
                    theirs,
                    score_threshold=threshold if detects else None,
                    max_detections=predictor.cfg.TEST.DETECTIONS_PER_IMAGE,
                    undecided=unsure,
                )
            if agreement.problems:
                raise RuntimeError(
                    f"the {format} file differs from the model and is not kept: "
                    + "; ".join(agreement.problems[:5])
                )
        with open(written, "rb") as file:
            os.fsync(file.fileno())
        os.replace(written, target)
    return Export(target, metadata, agreement, cases[example])


def _pictures(
    predictor: Predictor, images: Sequence[str | os.PathLike], smallest: int
) -> list[np.ndarray]:
    """Pictures as the model is given them, RGB, cropped to different sizes."""
    if not images:
        _, folder = sample_set()["val"]
        images = sorted(Path(folder).iterdir())
    cases, sizes = [], set()
    for image in images[:_NUM_IMAGES]:
        case = predictor.preprocess(image)["image"].float().numpy()
        if predictor.cfg.INPUT.FORMAT == "BGR":
            case = case[::-1]
        height, width = case.shape[1:]
        if min(height, width) < smallest:
            raise ValueError(
                f"{image} is given to the model in {height} x {width} pixels: the file will take "
                f"images from {smallest} x {smallest} on"
            )
        while (height, width) in sizes and max(height, width) > smallest:
            height, width = max(height - 5, smallest), max(width - 3, smallest)
        sizes.add((height, width))
        cases.append(np.ascontiguousarray(case[:, :height, :width]))
    return cases


def _empty_pictures(predictor: Predictor, *, like: np.ndarray) -> list[np.ndarray]:
    """One of one colour in which the model finds nothing, if there is.

    What is found in such a picture has many equal scores: which of it stays is chance, and proves
    nothing about a file.
    """
    for value in (127, 0, 255):
        picture = np.full_like(like, value)
        if not len(_detections(predictor, picture)[0]["scores"]):
            return [picture]
    return []


def model_inputs(image: np.ndarray, channels: str) -> list[dict[str, Any]]:
    """What a detector itself is given where its file is given an image.

    Args:
        image: RGB (3, H, W), 0-255, float32.
        channels: ``INPUT.FORMAT`` of the detector, ``"RGB"`` or ``"BGR"``.
    """
    height, width = image.shape[1:]
    ordered = np.ascontiguousarray(image if channels == "RGB" else image[::-1])
    return [{"image": torch.from_numpy(ordered), "height": height, "width": width}]


def _outputs(part: torch.nn.Module, case: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        outputs = part(torch.from_numpy(case))
    return dict(zip(part.output_names, (x.numpy() for x in outputs), strict=True))


def _detections(
    predictor: Predictor, case: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """What the model itself finds, as an exported detector gives it.

    Beside it (N, H, W): which pixels of the masks the smallest difference could turn over; None
    where there are no masks.
    """
    inputs, (height, width) = model_inputs(case, predictor.cfg.INPUT.FORMAT), case.shape[1:]
    with torch.no_grad():
        if not getattr(getattr(predictor.model, "roi_heads", None), "mask_on", False):
            (output,) = predictor.model(inputs)
            return _arrays(output["instances"]), None
        (found,) = predictor.model.inference(inputs, do_postprocess=False)
        found.pred_boxes.clip((height, width))
        found = found[found.pred_boxes.nonempty()]
        outputs = _arrays(detector_postprocess(found, height, width))
        undecided = np.zeros(outputs["masks"].shape, bool)
        for number in range(len(found)):  # one by one: as numbers they take 32 times the memory
            one = found[number]
            pasted = paste_masks(one.pred_masks[:, 0], one.pred_boxes.tensor, height, width)
            undecided[number] = (pasted[0] - 0.5).abs().numpy() <= MASK_MARGIN
    return outputs, undecided


def _arrays(found: Instances) -> dict[str, np.ndarray]:
    outputs = {
        "boxes": found.pred_boxes.tensor.numpy(),
        "scores": found.scores.numpy(),
        "classes": found.pred_classes.numpy(),
    }
    if found.has("pred_masks"):
        outputs["masks"] = found.pred_masks.numpy()
    return outputs


def _describe(predictor: Predictor) -> dict[str, Any]:
    cfg, source = predictor.cfg, predictor.checkpoint
    return {
        "input": {
            "name": "image",
            "shape": [3, "height", "width"],
            "format": "RGB, 0-255, float32",
        },
        "normalisation_inside": {
            "format": cfg.INPUT.FORMAT,
            "mean": list(cfg.MODEL.PIXEL_MEAN),
            "std": list(cfg.MODEL.PIXEL_STD),
        },
        "resize": {
            "shortest_edge": cfg.INPUT.MIN_SIZE_TEST,
            "longest_edge": cfg.INPUT.MAX_SIZE_TEST,
        },
        "score_threshold": predictor.settings["score_threshold"],
        "source": {"file": source.name, "sha256": file_sha256(source)},
        "written": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "resnest_d2": __version__,
            "detectron2": detectron2.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }
