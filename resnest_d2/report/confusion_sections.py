"""The parts of a page about runs that are measured by confusions: metrics, classes, confusions.

A task adds its words and its images: :data:`_TASKS`.
"""

from typing import Any

from ..analysis.analysed_runs import ConfusionStudy
from ..analysis.task_texts import TASKS
from ..draw.error_charts import draw_confusion, most_wrong
from .class_gallery import class_scenes
from .embed import chart_address
from .label_gallery import label_scenes

_PAIRS = 12  # largest confusions
_SECTIONS = {
    "metrics": "Metrics",
    "classes": "Classes",
    "training": "Training",
    "confusion": "Confusion",
    "images": "Worst images",
    "cost": "Cost",
    "config": "Config",
}
_TASKS = {
    "sem_seg": {
        "scenes": label_scenes,
        "counted": "labelled pixels",
        "columns": ("IoU", "accuracy", "precision"),
        "metrics_text": (
            "All numbers are 0–100, higher is better. The IoU of a class is the number of pixels "
            "that have the class in both label maps, divided by the number that have it in one of "
            "them. mIoU is its mean over the classes that the data has, fwIoU the mean weighted by "
            "their pixels. mACC is the mean accuracy of the classes, pACC the share of all pixels "
            "that are right. Pixels without a label do not count."
        ),
        "classes_text": (
            "Accuracy is the share of a class' pixels that are predicted as this class, precision "
            "the share of the pixels predicted as this class that are of it."
        ),
        "confusion_text": (
            "Each labelled pixel counts once, in the row of its class and the column of the "
            "predicted class."
        ),
        "images_text": (
            "Ordered by the share of labelled pixels that are wrong. Pixels without a label are "
            "dark."
        ),
    },
    "classification": {
        "scenes": class_scenes,
        "counted": "images",
        "columns": ("accuracy", "precision"),
        "metrics_text": (
            "All numbers are 0–100, higher is better. top1 is the share of the images whose most "
            "likely class is the right one, class_mean the mean of this share over the classes."
        ),
        "classes_text": (
            "Accuracy is the share of a class' images that are predicted as this class, precision "
            "the share of the images predicted as this class that are of it."
        ),
        "confusion_text": (
            "Each image counts once, in the row of its class and the column of the predicted class."
        ),
        "images_text": "Wrong images, ordered by the probability of the wrong class.",
    },
}


def confusion_sections(study: ConfusionStudy, num_images: int) -> dict[str, Any]:
    """What ``confusion.html.j2`` shows.

    Args:
        num_images: number of images.
    """
    own = _TASKS[study.task]
    names, metrics = study.runs[0].class_names, study.metrics
    confused = most_wrong(sum(run.confusions.matrix for run in study.runs), len(names))
    scenes, legend = own["scenes"](study, num_images)
    values = {"IoU": "iou", "accuracy": "accuracy", "precision": "precision"}
    truth = study.counts[0].truth[0]
    return {
        **own,
        "sections": _SECTIONS,
        "text": TASKS[study.task],
        "metrics": metrics,
        # A maximum that is NaN equals no value, so it is not marked.
        "best": {m: max(run[m] for run in metrics) for m in metrics[0] if len(metrics) > 1},
        "total": int(truth.sum()),
        "counts": truth.tolist(),
        "by_class": [
            [getattr(counts, values[column])[0].tolist() for column in own["columns"]]
            for counts in study.counts
        ],
        "confused": len(confused),
        "confusions": [_confusions(study, run, confused) for run in range(len(study.runs))],
        "scenes": scenes,
        "legend": legend,
    }


def _confusions(study: ConfusionStudy, run: int, confused: list[int]) -> dict[str, Any]:
    """Chart and largest confusions of a run, with their shares of the true class."""
    matrix, names = study.runs[run].confusions.matrix, study.runs[run].class_names
    chart = draw_confusion(
        matrix,
        {number: names[number] for number in confused},
        rows="class",
        columns="predicted as",
        percent=True,
    )
    return {
        "run": study.names[run],
        "chart": chart_address(chart),
        "pairs": [
            (names[a], names[b], number, number / matrix[a].sum())
            for a, b, number in study.confusions(run, _PAIRS)
        ],
    }
