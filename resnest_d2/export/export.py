"""Exports a checkpoint to a file that is verified before it is renamed into place."""

import datetime
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

import detectron2
from detectron2.config import CfgNode
from detectron2.modeling import RetinaNet, detector_postprocess
from detectron2.structures import Instances

from ..checkpoint.weight_files import file_sha256
from ..data import sample_set
from ..data.batches.class_images import CentreCrop
from ..errors import check_choice
from ..predict.predictor import Predictor
from ..progress import progress_bar
from ..version import __version__
from .parts import Classifier, Detector, Segmentor, build_part, paste_masks
from .verify import (
    LABEL_MARGIN,
    MASK_MARGIN,
    TOLERANCES,
    Agreement,
    Outputs,
    compare_outputs,
    run_in_new_process,
)
from .write import FORMATS, SUFFIXES, write_part

_NUM_IMAGES = 10


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        file: its path.
        metadata: stored in the file.
        agreement: with the model; None where it was not verified.
        example: one of the verification images, RGB (3, H, W), 0-255, float32.
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
    part: str = "model",
    images: Sequence[str | os.PathLike] = (),
    score_threshold: float | None = None,
    verify: bool = True,
    overwrite: bool = False,
) -> Export:
    """Write a checkpoint's model, or a part of it, as one file.

    The file takes one image, RGB (3, H, W), float32, 0-255, of any size, and normalises it itself.
    The caller resizes images: ``resize`` in the metadata has the sizes of evaluation; a classifier
    has ``centre_crop`` there. For outputs see :mod:`.parts`. A RetinaNet as ``torch-export`` has no
    non-maximum suppression.

    Before the file is renamed into place it is verified: another process, which can import neither
    Detectron2 nor this package, runs it on images of different sizes, and the results must equal
    those of the model.

    Args:
        source, config: see :class:`resnest_d2.Predictor`.
        target: the file to write; its folder must exist.
        format: one of :data:`.write.FORMATS`.
        part: one of :data:`.parts.PARTS`; ``"detector"`` is the old name of ``"model"``.
        images: images to verify with (the first ten); by default some of the sample set. A detector
            must find something in them.
        score_threshold: detections with lower scores are left out, 0-1; by default the config's.
            Only detectors have one.
        verify: False writes an unverified file; its metadata say so.
        overwrite: replace ``target`` where it exists.

    Raises:
        FileExistsError, FileNotFoundError: of ``target``, its folder or the source.
        ValueError: an invalid checkpoint; the format cannot hold the part; the model finds nothing
            in the images.
        ModuleNotFoundError: ONNX needs the packages onnx and onnxruntime.
        RuntimeError: the file does not run, or differs from the model. It is not kept.
    """
    check_choice("the format", format, FORMATS)
    target = Path(target)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists and is not overwritten unless you say so")
    if target.is_dir() or not target.parent.is_dir():
        raise FileNotFoundError(f"{target} must be a file in a folder that exists")
    if part == "detector":
        warnings.warn('part "detector" is now "model"', DeprecationWarning, stacklevel=2)
        part = "model"
    predictor = Predictor(source, config=config, device="cpu", score_threshold=score_threshold)
    threshold = predictor.settings["score_threshold"]
    if threshold is None and score_threshold is not None:
        raise ValueError(
            f"score_threshold is for detectors, and {predictor.checkpoint} holds a "
            f"{predictor.cfg.MODEL.META_ARCHITECTURE}: got {score_threshold}"
        )
    nms = not (format == "torch-export" and isinstance(predictor.model, RetinaNet))
    exported = build_part(predictor.model, predictor.cfg, part, nms=nms)
    smallest = exported.smallest_side if format == "torch-export" else 1
    cases = _cases(predictor, images, smallest)
    detects = isinstance(exported, Detector)
    if detects:
        cases += _empty_cases(predictor, like=cases[0])
    results_of_model = _RESULTS_OF_MODEL.get(type(exported))
    if results_of_model is None:
        unfolded = build_part(predictor.model, predictor.cfg, part, nms=nms, fold=False)
        results_of_model = partial(_results_of_part, unfolded)
    shown = progress_bar(cases, desc="running the model")
    with torch.no_grad():
        results = [results_of_model(predictor, case) for case in shown]
    example = 0
    if detects:
        found = [len(outputs["scores"]) for outputs, _ in results]
        example = int(np.argmax(found))
        if not found[example]:
            raise ValueError(
                f"the model finds nothing in the {len(cases)} images (score threshold "
                f"{threshold:g}): give images with objects that it knows"
            )
    metadata = {
        "part": exported.name,
        "whole_model": type(exported) in _RESULTS_OF_MODEL,
        "format": format,
        "outputs": exported.output_names,
        "non_maximum_suppression": detects,
        "smallest_side": smallest,
        "class_names": predictor.class_names,
        **_describe(predictor),
        "verified": verify and {"images": len(cases), **TOLERANCES},
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
            for (ours, undecided), theirs in zip(results, outputs, strict=True):
                compare_outputs(
                    agreement,
                    ours,
                    theirs,
                    score_threshold=threshold if detects else None,
                    max_detections=predictor.cfg.TEST.DETECTIONS_PER_IMAGE,
                    undecided=undecided,
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


def _cases(
    predictor: Predictor, images: Sequence[str | os.PathLike], smallest: int
) -> list[np.ndarray]:
    """Images after the predictor's preprocessing, RGB, cropped to different sizes."""
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
                f"{image} is resized to {height} x {width} pixels: the file takes images of at "
                f"least {smallest} x {smallest}"
            )
        while (height, width) in sizes and max(height, width) > smallest:
            height, width = max(height - 5, smallest), max(width - 3, smallest)
        sizes.add((height, width))
        cases.append(np.ascontiguousarray(case[:, :height, :width]))
    return cases


def _empty_cases(predictor: Predictor, *, like: np.ndarray) -> list[np.ndarray]:
    """An image of one colour without detections, if there is one.

    Detections in an image of one colour have many equal scores: which of them are kept is chance.
    """
    for value in (127, 0, 255):
        case = np.full_like(like, value)
        with torch.no_grad():
            outputs, _ = _detections(predictor, case)
        if not len(outputs["scores"]):
            return [case]
    return []


def model_inputs(image: np.ndarray, channels: str) -> list[dict[str, Any]]:
    """The input of a detector for an image that its file takes as it is.

    Args:
        image: RGB (3, H, W), 0-255, float32.
        channels: ``INPUT.FORMAT`` of the detector, ``"RGB"`` or ``"BGR"``.
    """
    height, width = image.shape[1:]
    ordered = np.ascontiguousarray(image if channels == "RGB" else image[::-1])
    return [{"image": torch.from_numpy(ordered), "height": height, "width": width}]


_Results = tuple[Outputs, np.ndarray | None]
"""Outputs for an image, and the pixels that are not compared, or None."""


def _detections(predictor: Predictor, case: np.ndarray) -> _Results:
    """The outputs of the model itself, in the form of an exported :class:`.parts.Detector`.

    Not compared are the pixels of the masks (N, H, W) whose probability is within ``MASK_MARGIN``
    of the threshold.
    """
    inputs, (height, width) = model_inputs(case, predictor.cfg.INPUT.FORMAT), case.shape[1:]
    if not getattr(getattr(predictor.model, "roi_heads", None), "mask_on", False):
        (output,) = predictor.model(inputs)
        return _arrays(output["instances"]), None
    (found,) = predictor.model.inference(inputs, do_postprocess=False)
    found.pred_boxes.clip((height, width))
    found = found[found.pred_boxes.nonempty()]
    outputs = _arrays(detector_postprocess(found, height, width))
    undecided = np.zeros(outputs["masks"].shape, bool)
    for number in range(len(found)):  # one by one: probabilities take 32 times the memory
        one = found[number]
        pasted = paste_masks(one.pred_masks[:, 0], one.pred_boxes.tensor, height, width)
        undecided[number] = (pasted[0] - 0.5).abs().numpy() <= MASK_MARGIN
    return outputs, undecided


def _labels(predictor: Predictor, case: np.ndarray) -> _Results:
    """The same in the form of a :class:`.parts.Segmentor`.

    Not compared are the pixels (H, W) whose two best scores are within ``LABEL_MARGIN``.
    """
    (output,) = predictor.model(model_inputs(case, predictor.cfg.INPUT.FORMAT))
    logits = output["sem_seg"]  # (classes, H, W)
    best = logits.softmax(dim=0).topk(min(2, len(logits)), dim=0).values
    outputs = {"labels": logits.argmax(dim=0).numpy(), "scores": best[0].numpy()}
    return outputs, (best[0] - best[-1] <= LABEL_MARGIN).numpy()


def _probabilities(predictor: Predictor, case: np.ndarray) -> _Results:
    """The same in the form of a :class:`.parts.Classifier`."""
    (output,) = predictor.model(model_inputs(case, predictor.cfg.INPUT.FORMAT))
    return {"scores": output["probabilities"].numpy()}, None


_RESULTS_OF_MODEL: dict[type, Callable[[Predictor, np.ndarray], _Results]] = {
    Detector: _detections,
    Segmentor: _labels,
    Classifier: _probabilities,
}
"""By the class of a whole model: its own results, computed by Detectron2."""


def _results_of_part(part: nn.Module, predictor: Predictor, case: np.ndarray) -> _Results:
    outputs = part(torch.from_numpy(case))
    return {name: x.numpy() for name, x in zip(part.output_names, outputs, strict=True)}, None


def _arrays(found: Instances) -> dict[str, np.ndarray]:
    outputs = {
        "boxes": found.pred_boxes.tensor.numpy(),
        "scores": found.scores.numpy(),
        "classes": found.pred_classes.numpy(),
    }
    if found.has("pred_masks"):
        outputs["masks"] = found.pred_masks.numpy()
    return outputs


def _size(predictor: Predictor) -> dict[str, Any]:
    """How an image gets its size in evaluation."""
    cfg = predictor.cfg
    if predictor.classifies:
        crop = CentreCrop(cfg)
        return {"centre_crop": {"share_of_short_side": crop.share, "resized_to": crop.size}}
    edges = {"shortest_edge": cfg.INPUT.MIN_SIZE_TEST, "longest_edge": cfg.INPUT.MAX_SIZE_TEST}
    return {"resize": edges}


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
        **_size(predictor),
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
