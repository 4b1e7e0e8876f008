"""The worst images of a report on semantic segmentation: image, ground truth, predictions."""

import logging
import os

import numpy as np
from PIL import Image

from ..analysis.analysed_runs import ConfusionStudy
from ..analysis.confusion_run import SegmentationRun
from ..analysis.mistakes import most_confused
from ..data.image_reader import ImageError, read_image, read_labels
from ..data.intensity import Intensity
from ..draw.class_colors import blend_labels, class_colors
from ..progress import progress_bar
from .embed import image_address
from .gallery import Panel, Scene

logger = logging.getLogger(__name__)

_PANEL = 480  # pixels, the longer side
_NAMED = 3  # confusions in the text below a prediction


def label_scenes(study: ConfusionStudy, count: int) -> tuple[list[Scene], list[tuple[str, str]]]:
    """The images with the largest share of wrong pixels of all runs together, the worst first.

    Args:
        count: how many at most; an image without a wrong pixel is left out.

    Returns:
        The scenes, and the classes in them with their colours, as CSS names these.
    """
    first, number = study.runs[0], len(study.runs[0].class_names)
    worst = study.worst_images(count)
    scenes = {place: Scene(str(first.confusions.images[place])) for place in worst}
    images = {}
    for place in progress_bar(worst, desc="reading"):
        try:
            images[place] = _read(first, place)
        except FileNotFoundError as error:
            scenes[place].notice = f"{os.path.basename(error.filename or '')} is missing"
        except ImageError as error:
            scenes[place].notice = error.reason
    predicted = [_predictions(run, [*images]) for run in study.runs]
    shown: set[int] = set()

    def drawn(image: np.ndarray, labels: np.ndarray) -> str:
        blended, labels = blend_labels(image, labels, number, max_side=_PANEL)
        shown.update(np.unique(labels).tolist())
        return image_address(blended)

    for place, (image, truth) in progress_bar(images.items(), desc="drawing", total=len(images)):
        plain = Image.fromarray(image)
        plain.thumbnail((_PANEL, _PANEL))
        unlabelled = 1 - first.confusions.image_matrix(place).sum() / truth.size
        text = f"{unlabelled:.0%} of the pixels have no label" if unlabelled else ""
        panels = scenes[place].panels
        panels.append(Panel("Image", "", image_address(np.asarray(plain))))
        panels.append(Panel("Ground truth", text, drawn(image, truth)))
        for i, (name, labels) in enumerate(zip(study.names, predicted, strict=True)):
            address = drawn(image, labels[place]) if labels else ""
            panels.append(Panel(name, _mistakes(study, i, place), address, i))
    colors = class_colors(number)
    legend = [
        (first.class_names[i], "#{:02x}{:02x}{:02x}".format(*colors[i]))
        for i in sorted(shown - {-1})
    ]
    return list(scenes.values()), legend


def _mistakes(study: ConfusionStudy, run: int, place: int) -> str:
    """Such as "12% of the labelled pixels are wrong: road as pavement 7%, …"."""
    matrix, names = study.runs[run].confusions.image_matrix(place), study.runs[run].class_names
    total = matrix.sum()
    largest = [
        f"{names[a]} as {names[b]} {n / total:.0%}" for a, b, n in most_confused(matrix, _NAMED)
    ]
    wrong = f"{study.wrong_shares(run)[place]:.0%} of the labelled pixels are wrong"
    return f"{wrong}: {', '.join(largest)}" if largest else wrong


def _predictions(run: SegmentationRun, places: list[int]) -> dict[int, np.ndarray]:
    """Predicted label maps, by the positions of the images; none if they cannot be read."""
    try:
        return run.predicted_labels(places)
    except ValueError as error:
        logger.warning(error)
        return {}


def _read(run: SegmentationRun, place: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB pixels (H, W, 3) and the label map (H, W) of an image, by its position."""
    size = tuple(run.confusions.sizes[place].tolist())
    file, label_file = (
        os.path.join(root, names[place])
        for root, names in (
            (run.image_root, run.confusions.images),
            (run.label_root, run.confusions.labels),
        )
    )
    image = read_image(file, Intensity.from_config(run.config)).pixels
    labels = read_labels(label_file)
    for path, found in ((file, image.shape[:2]), (label_file, labels.shape)):
        if found != size:
            raise ImageError(path, f"it has {found} pixels, and had {size} when it was evaluated")
    return image, labels
