"""Images and charts of numbers: instances on their image, curves, gains, split attention.

Functions here compute no results. Only ``report`` and ``cli`` import this package;
``predict`` does it inside its drawing functions.
"""

from .explanations import plot_attention, plot_block, plot_class_attention, plot_saliency
from .gains import plot_gains
from .instances import (
    Mark,
    draw_annotations,
    draw_comparison,
    draw_instances,
    draw_marks,
    save_comparisons,
)
from .loss_curves import plot_losses
from .measurements import plot_measurements, plot_scalings
from .sheet import draw_label_sheet, draw_sheet

__all__ = [
    "Mark",
    "draw_annotations",
    "draw_comparison",
    "draw_instances",
    "draw_label_sheet",
    "draw_marks",
    "draw_sheet",
    "plot_attention",
    "plot_block",
    "plot_class_attention",
    "plot_gains",
    "plot_losses",
    "plot_measurements",
    "plot_saliency",
    "plot_scalings",
    "save_comparisons",
]
