"""The tasks whose runs are compared and reported: their metrics, and what these are called."""

from dataclasses import dataclass, field

from ..evaluation.image_confusions import CLASSIFICATION_METRICS, SEGMENTATION_METRICS
from ..evaluation.image_matches import METRICS


@dataclass(frozen=True)
class TaskText:
    """A task.

    Attributes:
        name: what is predicted.
        metrics: names of the metrics; the first is the main one.
        of_class: name of the main metric of one class.
        unit: of a gain in any of them.
        sizes: metrics of objects of one size, by name.
        nothing: why there may be no metric.
    """

    name: str
    metrics: tuple[str, ...]
    of_class: str
    unit: str
    nothing: str
    sizes: dict[str, str] = field(default_factory=dict)

    @property
    def main(self) -> str:
        return self.metrics[0]

    def metric_name(self, metric: str) -> str:
        """For tables and charts."""
        return f"{self.main} {self.sizes[metric]}" if metric in self.sizes else metric


_SIZES = {"APs": "small", "APm": "medium", "APl": "large"}
_DETECTION = {
    "metrics": METRICS,
    "of_class": "AP",
    "unit": "AP",
    "sizes": _SIZES,
    "nothing": "no objects",
}

TASKS = {
    "bbox": TaskText("boxes", **_DETECTION),
    "segm": TaskText("masks", **_DETECTION),
    "sem_seg": TaskText(
        "label maps", SEGMENTATION_METRICS, of_class="IoU", unit="points", nothing="no labels"
    ),
    "classification": TaskText(
        "classes of images",
        CLASSIFICATION_METRICS,
        of_class="accuracy",
        unit="points",
        nothing="no images",
    ),
}
