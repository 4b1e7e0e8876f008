"""Compares an exported file with the model on images, in a process without Detectron2.

Close to a threshold rounding decides: a detection whose score is within the tolerance of the score
threshold (or of the last score, if the list is full) may be missing on one side. Detections may be
in another order. Mask pixels whose probability is within :data:`MASK_MARGIN` of the threshold are
not compared, nor are the classes of pixels whose two best scores are within :data:`LABEL_MARGIN`.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import run_file

_LARGEST = {"boxes": 0.05, "scores": 1e-4, "features": 1e-3}  # differences; pixels for boxes
_SMALLEST_IOU = 0.99  # of masks
MASK_MARGIN = 1e-3  # of a mask pixel's probability around the threshold
LABEL_MARGIN = 1e-4  # between the probabilities of a pixel's two best classes

TOLERANCES = {
    "boxes_within_pixels": _LARGEST["boxes"],
    "scores_within": _LARGEST["scores"],
    "mask_iou_at_least": _SMALLEST_IOU,
    "mask_pixels_left_out_within": MASK_MARGIN,
    "label_pixels_left_out_within": LABEL_MARGIN,
    "features_within": _LARGEST["features"],
}
"""For the metadata of a file."""

Outputs = dict[str, np.ndarray]


@dataclass
class Agreement:
    """The largest differences over all images; None for outputs that the part does not have.

    Attributes:
        images: number of images that were compared.
        detections: number of the model's detections in them.
        without_detection: number of images without detections.
        boxes: pixels.
        scores: 0-1.
        masks: the smallest intersection over union, 0-1.
        labels: the smallest share of an image's pixels that have the same class, 0-1.
        features: relative to the largest value of the feature map.
        problems: descriptions of differences beyond the tolerances.
    """

    images: int = 0
    detections: int = 0
    without_detection: int = 0
    boxes: float | None = None
    scores: float | None = None
    masks: float | None = None
    labels: float | None = None
    features: float | None = None
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.images} images"]
        if self.detections:
            parts += [f"{self.detections} detections", f"{self.without_detection} images without"]
        for value, text in (
            (self.boxes, "boxes within {:.2g} pixels"),
            (self.scores, "scores within {:.2g}"),
            (self.masks, "IoU of masks at least {:.4f}"),
            (self.labels, "the same class in at least {:.2%} of the pixels"),
            (self.features, "features within {:.2g} of the largest"),
        ):
            if value is not None:
                parts.append(text.format(value))
        return ", ".join(parts)


def run_in_new_process(file: Path, images: Sequence[np.ndarray], *, format: str) -> list[Outputs]:
    """Run a file on images in a process that can import neither Detectron2 nor this package.

    Args:
        images: RGB (3, H, W), 0-255, float32.

    Raises:
        RuntimeError: the process failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npz"), Path(folder, "outputs.npz")
        np.savez(inputs, **{str(number): image for number, image in enumerate(images)})
        done = subprocess.run(
            [sys.executable, run_file.__file__, format, file, inputs, outputs],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise RuntimeError(f"{file.name} does not run without Detectron2: {last}")
        found: list[Outputs] = [{} for _ in images]
        with np.load(outputs) as stored:
            for key in stored.files:
                number, _, name = key.partition("/")
                value = stored[key]
                if name == "masks":
                    width = images[int(number)].shape[2]
                    value = np.unpackbits(value, axis=-1, count=width).astype(bool)
                found[int(number)][name] = value
        return found


def compare_outputs(
    agreement: Agreement,
    ours: Outputs,
    theirs: Outputs,
    *,
    score_threshold: float | None,
    max_detections: int,
    undecided: np.ndarray | None = None,
) -> None:
    """Compare the outputs for one image and add the result to an :class:`Agreement`.

    Args:
        ours: of the model.
        theirs: of the file.
        score_threshold: of detections; None for a part without detections.
        max_detections: the largest number of detections in an image.
        undecided: mask pixels (N, H, W), or pixels of a label map (H, W), that are not compared;
            None compares all.
    """
    agreement.images += 1
    where = f"image {agreement.images}"
    if ours.keys() != theirs.keys():
        agreement.problems.append(f"{where}: outputs {sorted(theirs)}, not {sorted(ours)}")
    elif score_threshold is not None:
        full = len(ours["scores"]) >= max_detections
        cut = float(ours["scores"].min()) if full else score_threshold
        _compare_detections(agreement, where, ours, theirs, cut, undecided)
    elif any(ours[name].shape != theirs[name].shape for name in ours):
        shapes = [(name, theirs[name].shape, ours[name].shape) for name in ours]
        agreement.problems.append(f"{where}: shapes differ (output, file, model): {shapes}")
    else:
        for name, value in ours.items():
            if name == "labels":
                _compare_labels(agreement, where, value, theirs[name], undecided)
                continue
            apart = _largest(value - theirs[name])
            if name in ("boxes", "scores"):
                _note(agreement, where, name, apart)
            else:
                _note(agreement, where, "features", apart / (_largest(value) or 1.0))


def _compare_labels(
    agreement: Agreement,
    where: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    undecided: np.ndarray | None,
) -> None:
    same = float((ours == theirs).mean())
    agreement.labels = min(same, 1.0 if agreement.labels is None else agreement.labels)
    wrong = ours != theirs if undecided is None else (ours != theirs) & ~undecided
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        agreement.problems.append(
            f"{where}: {wrong.sum()} of {wrong.size} pixels have another class, the first in row "
            f"{row}, column {column}: {theirs[row, column]}, not {ours[row, column]}"
        )


def _compare_detections(
    agreement: Agreement,
    where: str,
    ours: Outputs,
    theirs: Outputs,
    cut: float,
    undecided: np.ndarray | None,
) -> None:
    agreement.detections += len(ours["scores"])
    agreement.without_detection += not len(ours["scores"])
    rest = list(range(len(theirs["scores"])))
    alone = []  # scores of detections without a partner
    for number, box in enumerate(ours["boxes"]):
        same = [k for k in rest if theirs["classes"][k] == ours["classes"][number]]
        apart = [_largest(theirs["boxes"][k] - box) for k in same]
        if not same or min(apart) > 1:  # pixel: a different object
            alone.append(float(ours["scores"][number]))
            continue
        other = same[int(np.argmin(apart))]
        rest.remove(other)
        _note(agreement, where, "boxes", min(apart))
        difference = abs(float(theirs["scores"][other]) - float(ours["scores"][number]))
        _note(agreement, where, "scores", difference)
        if "masks" in ours:
            masks = ours["masks"][number], theirs["masks"][other]
            if undecided is not None:
                masks = [mask & ~undecided[number] for mask in masks]
            _note(agreement, where, "masks", _iou(*masks))
    alone += [float(theirs["scores"][k]) for k in rest]
    beyond = [score for score in alone if abs(score - cut) > _LARGEST["scores"]]
    if beyond:
        agreement.problems.append(
            f"{where}: {len(ours['scores'])} detections, {len(theirs['scores'])} from the file; "
            f"without a partner are those with the scores {beyond}"
        )


def _note(agreement: Agreement, where: str, what: str, value: float) -> None:
    """Keep the worst value, and add a problem if it is beyond the tolerance or NaN."""
    known = getattr(agreement, what)
    if what == "masks":
        worst, good = min, value >= _SMALLEST_IOU
    else:
        worst, good = max, value <= _LARGEST[what]
    setattr(agreement, what, value if known is None else worst(known, value))
    if not good:
        verb = "overlap" if what == "masks" else "differ"
        agreement.problems.append(f"{where}: {what} {verb} by {value:.4g}")


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0))


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
