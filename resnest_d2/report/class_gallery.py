"""The worst images of a report on classification, with the most likely classes."""

import logging
import os

import numpy as np
from PIL import Image

from ..analysis.analysed_runs import ConfusionStudy
from ..data.image_reader import ImageError, read_image
from ..data.intensity import Intensity
from ..progress import progress_bar
from .embed import image_address
from .gallery import Panel, Scene

logger = logging.getLogger(__name__)

_PANEL = 240  # pixels, the longer side
_NAMED = 3  # classes in a text


def class_scenes(study: ConfusionStudy, count: int) -> tuple[list[Scene], list]:
    """The images whose wrong classes have the highest probabilities in all runs together.

    Args:
        count: how many at most; an image that is right in all runs is left out.

    Returns:
        One scene with all of them, none where the predictions of a run cannot be read; and no
        legend.
    """
    first, names = study.runs[0], study.runs[0].class_names
    try:
        best = [run.best_classes() for run in study.runs]
    except ValueError as error:
        logger.warning(error)
        return [], []
    truth = first.confusions.truth.tolist()
    badness = [sum(_wrong(own[i], truth[i]) for own in best) for i in range(first.num_images)]
    worst = sorted((i for i in range(first.num_images) if badness[i]), key=lambda i: -badness[i])
    intensity = Intensity.from_config(first.config)
    panels = []
    for place in progress_bar(worst[:count], desc="drawing"):
        name, address = str(first.confusions.images[place]), ""
        text = [f"class: {names[truth[place]]}"]
        for run, own in zip(study.names, best, strict=True):
            likely = list(own[place].items())[:_NAMED]
            text.append(f"{run}: " + ", ".join(f"{names[n]} {p:.0%}" for n, p in likely))
        try:
            pixels = read_image(os.path.join(first.image_root, name), intensity).pixels
            image = Image.fromarray(pixels)
            image.thumbnail((_PANEL, _PANEL))
            address = image_address(np.asarray(image))
        except (FileNotFoundError, ImageError) as error:
            text.append(getattr(error, "reason", "the file is missing"))
        panels.append(Panel(name, "; ".join(text), address))
    if not panels:
        return [], []
    return [Scene(f"{len(panels)} of {sum(map(bool, badness))} images", panels)], []


def _wrong(best: dict[int, float], truth: int) -> float:
    """The probability of the predicted class where it is wrong."""
    predicted, probability = next(iter(best.items()))
    return probability if predicted != truth else 0.0
