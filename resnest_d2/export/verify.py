"""An exported file against the model, on images, in a process without Detectron2.

Near a cut nothing is exact: a detection whose score lies within the tolerance of the score
threshold, or of the last place where a list is full, may be in one list alone. Equal scores may
change places. A pixel whose probability lies within :data:`MASK_MARGIN` of the masks' threshold may
be in one mask alone.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import run_file

__all__ = [
    "BOX_TOLERANCE",
    "FEATURE_TOLERANCE",
    "MASK_MARGIN",
    "MASK_TOLERANCE",
    "SCORE_TOLERANCE",
    "Agreement",
    "compare_outputs",
    "run_in_new_process",
]

BOX_TOLERANCE = 0.05  # pixels
SCORE_TOLERANCE = 1e-4
MASK_TOLERANCE = 0.99  # intersection over union, at least
MASK_MARGIN = 1e-3  # of a pixel's probability around the threshold: it is left out of that
FEATURE_TOLERANCE = 1e-3  # of a map's largest value

_TOLERANCES = {
    "boxes": BOX_TOLERANCE,
    "scores": SCORE_TOLERANCE,
    "features": FEATURE_TOLERANCE,
}

Outputs = dict[str, np.ndarray]


@dataclass
class Agreement:
    """The largest differences over all images; None of what the outputs do not have.

    Attributes:
        images: how many were compared.
        detections: how many the model has found in them.
        without_detection: images in which it finds nothing.
        boxes: pixels.
        scores: 0-1.
        masks: the smallest intersection over union of the pixels that are compared, 0-1.
        features: relative to the largest value of the map.
        problems: what is beyond the tolerances, in words.
    """

    images: int = 0
    detections: int = 0
    without_detection: int = 0
    boxes: float | None = None
    scores: float | None = None
    masks: float | None = None
    features: float | None = None
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.images} images"]
        if self.detections:
            parts += [f"{self.detections} detections", f"{self.without_detection} images without"]
        if self.boxes is not None:
            parts.append(f"boxes within {self.boxes:.2g} pixels")
        if self.scores is not None:
            parts.append(f"scores within {self.scores:.2g}")
        if self.masks is not None:
            parts.append(f"IoU of masks at least {self.masks:.4f}")
        if self.features is not None:
            parts.append(f"features within {self.features:.2g} of the largest")
        return ", ".join(parts)


def run_in_new_process(
    file: Path, images: Sequence[np.ndarray], *, format: str, python: str = sys.executable
) -> list[Outputs]:
    """A file's outputs for images, from a process that can import neither Detectron2 nor us.

    Args:
        images: RGB (3, H, W), 0-255, float32.
        python: the interpreter; its environment needs numpy, and onnxruntime or torchvision.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "images.npz"), Path(folder, "outputs.npz")
        np.savez(inputs, **{str(number): image for number, image in enumerate(images)})
        done = subprocess.run(
            [python, run_file.__file__, format, file, inputs, outputs],
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
    """Take one image's outputs into an :class:`Agreement`.

    Args:
        ours: the model's.
        theirs: the file's.
        score_threshold: of detections; None for a part that gives none.
        max_detections: an image's list is cut there.
        undecided: (N, H, W), pixels of the model's masks that are not compared; None compares all.
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
    elif "scores" in ours:
        _note(agreement, where, "boxes", _largest(ours["boxes"] - theirs["boxes"]))
        _note(agreement, where, "scores", _largest(ours["scores"] - theirs["scores"]))
    else:
        for name, value in ours.items():
            scale = _largest(value) or 1.0
            _note(agreement, where, "features", _largest(value - theirs[name]) / scale)


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
    alone = []  # scores of detections that one list has
    for number, box in enumerate(ours["boxes"]):
        same = [k for k in rest if theirs["classes"][k] == ours["classes"][number]]
        apart = [_largest(theirs["boxes"][k] - box) for k in same]
        if not same or min(apart) > 1:  # pixel: another object
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
    beyond = [score for score in alone if abs(score - cut) > SCORE_TOLERANCE]
    if beyond:
        agreement.problems.append(
            f"{where}: {len(ours['scores'])} detections, {len(theirs['scores'])} from the file; "
            f"without a partner are those with the scores {beyond}"
        )


def _note(agreement: Agreement, where: str, what: str, value: float) -> None:
    """Keep the worst value, and say so where it is beyond the tolerance or not a number."""
    known = getattr(agreement, what)
    if what == "masks":
        worst, good = min, value >= MASK_TOLERANCE
    else:
        worst, good = max, value <= _TOLERANCES[what]
    setattr(agreement, what, value if known is None else worst(known, value))
    if not good:
        verb = "overlap" if what == "masks" else "differ"
        agreement.problems.append(f"{where}: {what} {verb} by {value:.4g}")


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0))


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
